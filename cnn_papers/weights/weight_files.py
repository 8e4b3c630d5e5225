"""Reads and writes weight files: `.safetensors`, and reads those of `torch.save`.

Of a file of `torch.save` (`.pth`, `.pt`, `.bin`) only tensors are read; nothing in it is executed.
"""

import importlib
import pathlib
import pickle
import warnings
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from cnn_papers import files
from cnn_papers.errors import UserError
from cnn_papers.weights import convert, torch_names

TORCH_SUFFIXES = (".pth", ".pt", ".bin")
WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys of the weights in training scripts
COUNTERS = "num_batches_tracked"  # of torch's BatchNorm; not needed here


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the float32 tensors of a weights file by torchvision's present names.

    Raises:
      UserError: there is no such file, it is damaged, or it holds anything other than tensors of
        finite real numbers by name.
    """
    suffix = path.suffix.lower()
    if suffix not in (".safetensors", *TORCH_SUFFIXES):
        raise UserError(
            f"weights {path}: the name of a weights file ends in .safetensors, .pth, .pt or .bin"
        )
    try:
        with path.open("rb"):
            tensors = _read_safetensors(path) if suffix == ".safetensors" else _read_torch(path)
    except OSError as error:
        raise UserError(
            f"there is no weights file {path} to read: {error.strerror or error}"
        ) from error
    arrays: dict[str, np.ndarray] = {}
    for key, value in tensors.items():
        name = torch_names.as_torchvision(key)
        if name in arrays:
            raise UserError(f"weights {path}: {key} and another tensor are both {name}")
        if not np.isfinite(value).all():
            raise UserError(f"weights {path}: {key} has values that are not finite")
        arrays[name] = value
    return arrays


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        loaded = {
            key: value
            for key, value in safetensors.load_file(path).items()
            if not key.endswith(COUNTERS)
        }
        with np.errstate(over="ignore"):  # `read` refuses values that become infinite
            return {
                key: value.astype(np.float32, casting="same_kind") for key, value in loaded.items()
            }
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"weights {path} are damaged or not safetensors of float32, float16 or "
            f"bfloat16: {error}"
        ) from error


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError as error:
        raise UserError(
            f"reading {path} needs PyTorch: pip install torch, or give the weights as .safetensors"
        ) from error
    try:
        files.refuse_bomb(path)
        with warnings.catch_warnings(action="ignore"):  # about pickle protocols
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError as error:  # torch's own message explains how to load it anyway
        raise UserError(
            f"weights {path} contain other objects than tensors: "
            "refused, since loading them could run code"
        ) from error
    except Exception as error:  # torch's parsers raise errors of any type
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"weights {path} are damaged: {reason}") from error
    for wrapper in WRAPPERS:
        loaded = loaded[wrapper] if isinstance(loaded, dict) and wrapper in loaded else loaded
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise UserError(f"weights {path} are not a state dict: a dictionary of tensors by name")
    loaded = {key: value for key, value in loaded.items() if not key.endswith(COUNTERS)}
    for key, value in loaded.items():
        dense = (
            isinstance(value, torch.Tensor)
            and value.layout == torch.strided
            and value.device.type == "cpu"
        )
        if not dense or not value.dtype.is_floating_point:
            raise UserError(
                f"weights {path} are not a state dict: {key} is not a dense tensor of real numbers"
            )
    declared = sum(value.numel() * value.element_size() for value in loaded.values())
    # A tensor with strides of 0 can repeat one number to any size.
    if declared > path.stat().st_size:
        raise UserError(
            f"weights {path} are damaged: its tensors declare {declared:,} bytes, more than it has"
        )
    return {key: value.detach().float().numpy() for key, value in loaded.items()}


def write(
    path: pathlib.Path, variables: Mapping[str, Any], model_name: str, model: nn.Module
) -> None:
    """Writes `variables` as `.safetensors` in torch's layout.

    Names are torchvision's for the families that it publishes, else our own.
    """
    with files.atomic_write(path) as part:
        part.write_bytes(safetensors.save(convert.to_torch(variables, model_name, model)))
