"""Reads the tensors of a file of `torch.save`; nothing in the file is executed.

A checkpoint of a training holds more than tensors. torch's restricted reader refuses classes that
it does not know; here they are read as empty dictionaries, so that the tensors beside them can be
taken. The classes are neither imported nor called.
"""

import collections
import errno
import functools
import importlib
import logging
import pathlib
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from cnn_papers import files
from cnn_papers.errors import UserError

# Keys of the weights in checkpoints of training scripts, and of their moving averages.
PLAIN = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights")
AVERAGED = (
    *("state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "model_ema_state_dict"),
    *("ema", "averaged_model", "swa_model", "swa_state_dict"),
)
# Of torch's BatchNorm and of torch.optim.swa_utils.AveragedModel; not needed here.
COUNTERS = ("num_batches_tracked", "n_averaged")

_log = logging.getLogger(__name__)


class _Unread:
    """Stands for a class that a file names and torch does not know: it makes a dictionary.

    torch's reader gives such a one items and attributes, and runs nothing of the class.
    """

    def __new__(cls, *arguments: Any) -> Any:
        return collections.OrderedDict()


class _UnreadNumPy:
    """Stands for the classes of NumPy, whose state is not one of attributes."""

    def __new__(cls, *arguments: Any) -> Any:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the float32 tensors of a file of `torch.save`, without counters of training.

    Raises:
      UserError: PyTorch is not installed, or the file is damaged or holds anything other than a
        state dict, or several.
      OSError: the file cannot be read.
    """
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError as error:
        raise UserError(
            f"reading {path} needs PyTorch: pip install torch, or give the weights as .safetensors"
        ) from error
    _refuse_program(path)
    try:
        files.refuse_bomb(path)
        with warnings.catch_warnings(action="ignore"):  # about pickle protocols
            loaded = _load(path, torch)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise UserError(f"weights {path} are damaged: the file was cut off") from error
    except pickle.UnpicklingError as error:  # torch's own message explains how to load it anyway
        raise UserError(
            f"weights {path} contain other objects than tensors: refused, since loading them could "
            "run code; if you trust the file, save its tensors on their own, with these two lines",
            _lines(path, "checkpoint['state_dict']", "  # or another of checkpoint.keys()"),
        ) from error
    except Exception as error:  # torch's parsers raise errors of any type
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"weights {path} are damaged: {reason}") from error
    state = _state_dict(loaded, path, torch.Tensor)
    return _arrays(state, path, torch)


def _load(path: pathlib.Path, torch: Any) -> Any:
    """Returns what a file holds, with an empty dictionary for every class unknown to torch."""
    with path.open("rb") as file:  # of a path torch would read the suffix
        load = functools.partial(torch.load, file, map_location="cpu", weights_only=True)
        try:
            unknown = torch.serialization.get_unsafe_globals_in_checkpoint(file)
        except (AttributeError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError):
            unknown = []  # an older torch, an older file or a damaged one: torch.load says why
        file.seek(0)
        if not unknown:
            return load()
        stand_ins = [
            (_UnreadNumPy if name.startswith("numpy.") else _Unread, name) for name in unknown
        ]
        with torch.serialization.safe_globals(stand_ins):
            try:
                return load()
            except (AttributeError, TypeError, ValueError) as error:  # a class is used otherwise
                raise pickle.UnpicklingError(str(error)) from error


def entries(path: pathlib.Path) -> list[str]:
    """Returns the names in a zip file, none if it is no whole one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, RuntimeError):  # OSError: a file cut off
        return []  # torch.load says what is wrong


def _refuse_program(path: pathlib.Path) -> None:
    """Raises UserError if a file is a program of torch, with weights inside."""
    inside = [name.partition("/")[2] for name in entries(path)]
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        kind = "a TorchScript program"
        state = f"torch.jit.load({str(path)!r}, map_location='cpu').state_dict()"
    elif any(name in ("archive_format", "models/model.json") for name in inside):
        kind = "a program of torch.export"
        state = f"torch.export.load({str(path)!r}).state_dict"
    else:
        return
    target = path.with_name(f"{path.stem}-tensors.pth")
    raise UserError(
        f"weights {path} are {kind}, of which nothing is run here: if you trust the file, save its "
        f"tensors with torch.save({state}, {str(target)!r})"
    )


def _lines(path: pathlib.Path, weights: str, comment: str = "") -> tuple[str, str]:
    """Returns two lines of Python that save `weights` of the file on their own."""
    target = path.with_name(f"{path.name.partition('.')[0]}-tensors.pth")
    load = f"torch.load({str(path)!r}, map_location='cpu', weights_only=False)"
    return (
        f"import torch; checkpoint = {load}",
        f"torch.save({weights}, {str(target)!r}){comment}",
    )


def _state_dict(loaded: Any, path: pathlib.Path, tensor: type) -> dict[str, Any]:
    """Returns the state dict in what a file holds; says which, if it holds averaged ones too."""
    keys = ""
    for _ in range(3):  # a dictionary in a dictionary
        key = _wrapper(loaded, path, tensor)
        if not key:
            break
        averaged = [name for name in AVERAGED if name in loaded and name != key]
        keys += f"['{key}']"
        if averaged:
            _log.info(
                "weights %s: those of %s are taken; averaged ones in '%s' are left out (save them "
                "on their own to take them)",
                path,
                keys,
                "', '".join(averaged),
            )
        elif key in AVERAGED:
            _log.info("weights %s: its averaged weights are taken, of %s", path, keys)
        loaded = loaded[key]
    if _is_module(loaded):
        raise UserError(
            f"weights {path} hold a whole module, which takes code to load: if you trust the file, "
            "save its tensors on their own, with these two lines",
            _lines(path, f"checkpoint{keys}.state_dict()"),
        )
    if isinstance(loaded, Mapping) and all(isinstance(key, bytes) for key in loaded):
        loaded = {key.decode(errors="replace"): value for key, value in loaded.items()}
    if not isinstance(loaded, Mapping) or not all(isinstance(key, str) for key in loaded):
        raise UserError(
            f"weights {path} are not a state dict: a dictionary of tensors by name; "
            f"the file holds {_described(loaded)}"
        )
    if not loaded:
        raise UserError(f"weights {path} are not a state dict: the file holds no tensors")
    if "n_averaged" in loaded:
        _log.info("weights %s: they are averaged, by torch.optim.swa_utils", path)
    return {key: value for key, value in loaded.items() if not key.endswith(COUNTERS)}


def _wrapper(loaded: Any, path: pathlib.Path, tensor: type) -> str:
    """Returns the key of the weights in a checkpoint of a training; "" if `loaded` is none."""
    if not isinstance(loaded, Mapping):
        return ""
    for key in (*PLAIN, *AVERAGED):
        inner = loaded.get(key)
        if isinstance(inner, Mapping) and (inner or _is_module(inner)):
            return key
    groups = [
        key
        for key, value in loaded.items()
        if isinstance(value, Mapping) and any(isinstance(leaf, tensor) for leaf in value.values())
    ]
    if any(isinstance(value, tensor) for value in loaded.values()) or not groups:
        return ""
    if len(groups) > 1:
        names = "', '".join(map(str, groups))
        raise UserError(
            f"weights {path} hold several state dicts, '{names}': "
            "save the one to take on its own, with these two lines",
            _lines(path, f"checkpoint[{groups[0]!r}]"),
        )
    return groups[0]


def _is_module(value: Any) -> bool:
    """Returns whether `value` was a torch.nn.Module, which `_Unread` has replaced."""
    return "_modules" in getattr(value, "__dict__", {})


def _described(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dictionary with the key {next(iter(value))!r}"
    if hasattr(value, "shape"):
        return f"one tensor {list(value.shape)}"
    return f"a {type(value).__name__}"


def _arrays(state: Mapping[str, Any], path: pathlib.Path, torch: Any) -> dict[str, np.ndarray]:
    for key, value in state.items():
        dense = (
            isinstance(value, torch.Tensor)
            and value.layout == torch.strided
            and value.device.type == "cpu"
        )
        if not dense or not value.dtype.is_floating_point:
            raise UserError(
                f"weights {path} are not a state dict: {key} is not a dense tensor of real numbers"
            )
    # Two keys of one tensor, as of a layer in two places, have its bytes once.
    tensors = {_identity(value): value for value in state.values()}
    declared = sum(value.numel() * value.element_size() for value in tensors.values())
    # A tensor with strides of 0 can repeat one number to any size.
    if declared > path.stat().st_size:
        raise UserError(
            f"weights {path} are damaged: its tensors declare {declared:,} bytes, more than it has"
        )
    arrays = {one: value.detach().float().numpy() for one, value in tensors.items()}
    return {key: arrays[_identity(value)] for key, value in state.items()}


def _identity(tensor: Any) -> tuple[Any, ...]:
    """Returns what two tensors have in common that are one."""
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()
