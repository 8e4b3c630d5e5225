"""Reads and writes weight files: `.safetensors`, and what `torch.save` wrote."""

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


WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
)  # under which training scripts keep the weights among other things


COUNTERS = "num_batches_tracked"  # torch's BatchNorm counts what nobody needs


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The float32 tensors of a weights file by their torch names of today.

    Raises:
      UserError: no such file, a damaged one, one that holds anything else than tensors of finite
      real numbers by name.
    """
    suffix = path.suffix.lower()
    if suffix not in (".safetensors", *TORCH_SUFFIXES):
        raise UserError(
            f"weights {path}: one whole file is read, named .safetensors, .pth, .pt or .bin"
        )
    try:
        with path.open("rb"):
            tensors = _read_safetensors(path) if suffix == ".safetensors" else _read_torch(path)
    except OSError as error:
        raise UserError(
            f"there is no weights file {path} to read: {error.strerror or error}"
        ) from error
    found: dict[str, np.ndarray] = {}
    for key, value in tensors.items():
        name = torch_names.as_torchvision(key)
        if name in found:
            raise UserError(f"weights {path}: {key} and another tensor are both {name}")
        if not np.isfinite(value).all():
            raise UserError(f"weights {path}: {key} has values that are not finite")
        found[name] = value
    return found


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        loaded = {
            key: value
            for key, value in safetensors.load_file(path).items()
            if not key.endswith(COUNTERS)
        }
        with np.errstate(over="ignore"):  # what becomes infinite is refused
            return {
                key: value.astype(np.float32, casting="same_kind") for key, value in loaded.items()
            }
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"weights {path} are damaged or no safetensors of float32, float16 or bfloat16: {error}"
        ) from error


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError as error:
        raise UserError(
            f"reading {path} takes PyTorch: pip install torch, or give the weights as .safetensors"
        ) from error
    try:
        files.refuse_bomb(path)
        with warnings.catch_warnings(action="ignore"):  # about pickle protocols
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError as error:  # torch's message tells how to load it all the same
        raise UserError(
            f"weights {path} are no file of tensors alone: refused, since loading anything else could run code"
        ) from error
    except Exception as error:  # torch raises whatever its parsers meet
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"weights {path} are damaged: {reason}") from error
    for wrapper in WRAPPERS:
        loaded = loaded[wrapper] if isinstance(loaded, dict) and wrapper in loaded else loaded
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise UserError(f"weights {path} are no state dict: a dictionary of tensors by name")
    loaded = {key: value for key, value in loaded.items() if not key.endswith(COUNTERS)}
    for key, value in loaded.items():
        dense = (
            isinstance(value, torch.Tensor)
            and value.layout == torch.strided
            and value.device.type == "cpu"
        )
        if not dense or not value.dtype.is_floating_point:
            raise UserError(
                f"weights {path} are no state dict: {key} is no dense tensor of real numbers"
            )
    declared = sum(value.numel() * value.element_size() for value in loaded.values())
    if (
        declared > path.stat().st_size
    ):  # one number can be declared to stand everywhere in an array of any size
        raise UserError(
            f"weights {path} are damaged: its tensors declare {declared:,} bytes, more than it has"
        )
    return {key: value.detach().float().numpy() for key, value in loaded.items()}


def write(
    path: pathlib.Path, variables: Mapping[str, Any], model_name: str, model: nn.Module
) -> None:
    """Writes `variables` as `.safetensors` in torch's layout and, for published families, under
    torchvision's names.
    """
    with files.atomic_write(path) as part:
        part.write_bytes(safetensors.save(convert.to_torch(variables, model_name, model)))
