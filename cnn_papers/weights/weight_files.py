"""Reads and writes weight files: `.safetensors`, and reads those of `torch.save`.

Which of them a file is, its first bytes say; its name may end in `.pth.tar` or `.ckpt`. Of a file
of `torch.save` only tensors are read; nothing in it is executed.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np
import safetensors
import safetensors.numpy

from cnn_papers import files
from cnn_papers.errors import UserError
from cnn_papers.weights import arithmetic, convert, hub, torch_files

# What else is given as weights, by its first bytes and by the end of its name.
FORMATS = {
    b"\x89HDF": "an HDF5 file, as Keras writes it",
    b"\x93NUMPY": "an array of NumPy",
    b"GGUF": "a GGUF file",
    b"\x1f\x8b": "compressed by gzip: unpack it first",
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself with git lfs pull",
    b"<": "a web page, not the file that it links to",
    b"{": "JSON, which only lists the files of the weights",
}
SUFFIXES = {
    ".onnx": "an ONNX program",
    ".caffemodel": "a file of Caffe",
    ".prototxt": "a description of a network for Caffe",
    ".msgpack": "a file of Flax",
    ".pb": "a program of TensorFlow",
    ".index": "an index of a TensorFlow checkpoint",
    ".tflite": "a program of TensorFlow Lite",
}


class Contents(NamedTuple):
    """What a weights file holds.

    Attributes:
      tensors: float32 arrays by the file's keys.
      origin: the network that they are of, if the file says so.
    """

    tensors: dict[str, np.ndarray]
    origin: arithmetic.Origin | None = None


def source(
    weights: str | pathlib.Path, model_name: str, model: nn.Module, image_shape: tuple[int, ...]
) -> convert.Source:
    """Returns the weights of a file for `model`, which takes images of `image_shape` [h, w, c].

    `weights` is the path of the file, or its name on the hub.

    Raises:
      UserError: what `read` and `hub.local_path` raise.
    """
    tensors, origin = read(hub.local_path(weights))
    return convert.from_torch(
        tensors, model_name, model, image_shape, place=str(weights), origin=origin
    )


def read_variables(
    weights: str | pathlib.Path, model_name: str, model: nn.Module, image_shape: tuple[int, ...]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Returns the variables of `model` from a weights file; the arguments are those of `source`.

    The second value are the names of its classes, () if the file does not name them.

    Raises:
      UserError: a file that cannot be read or is of another network.
    """
    found = source(weights, model_name, model, image_shape)
    arrays, _ = convert.select(found, model, image_shape)
    return convert.put({}, arrays, model), found.class_names


def read(path: pathlib.Path) -> Contents:
    """Returns the tensors of a weights file.

    Raises:
      UserError: there is no such file, it is damaged or of another format, or it holds anything
        other than tensors of finite real numbers by name.
    """
    try:
        with path.open("rb") as file:
            head = file.read(264)
        contents = _read(path, head)
    except OSError as error:
        raise UserError(
            f"there is no weights file {path} to read: {error.strerror or error}"
        ) from error
    for key, value in contents.tensors.items():
        if not np.isfinite(value).all():
            raise UserError(f"weights {path}: {key} has values that are not finite")
    return contents


def _read(path: pathlib.Path, head: bytes) -> Contents:
    """Reads a file by its first bytes."""
    length = int.from_bytes(head[:8], "little")  # of the header of safetensors, which is JSON
    if head[8:9] == b"{" and length < path.stat().st_size:
        return _read_safetensors(path)
    if head.startswith(b"PK"):
        _refuse_other_zip(path)
        return Contents(torch_files.read(path))
    what = next((text for magic, text in FORMATS.items() if head.startswith(magic)), "")
    if head[257:262] == b"ustar":
        what = "an archive of tar: unpack it first"
    what = what or SUFFIXES.get(path.suffix.lower(), "")
    if what:
        raise UserError(
            f"weights {path} are {what}; .safetensors and files of torch.save are read here"
        )
    if head.startswith(b"\x80"):  # a pickle, torch's form until 2020
        return Contents(torch_files.read(path))
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)  # which says what is wrong
    if not head:
        raise UserError(f"weights {path} are damaged: the file is empty")
    raise UserError(
        f"weights {path} are damaged or of another format: "
        "they are neither .safetensors nor a file of torch.save"
    )


def _refuse_other_zip(path: pathlib.Path) -> None:
    """Raises UserError if a zip file is one of NumPy or Keras."""
    names, what = torch_files.entries(path), ""
    if any(name.endswith(".weights.h5") for name in names):
        what = "a network of Keras"
    elif names and all(name.endswith(".npy") for name in names):
        what = "arrays of NumPy"
    elif names and not any(name.endswith(("data.pkl", "archive_format")) for name in names):
        what = "a zip archive of other files"
    if what:
        raise UserError(
            f"weights {path} are {what}; .safetensors and files of torch.save are read here"
        )


def _read_safetensors(path: pathlib.Path) -> Contents:
    try:
        with safetensors.safe_open(path, "numpy") as file:
            origin = arithmetic.from_metadata(file.metadata())
            loaded = {
                key: file.get_tensor(key)
                for key in file.keys()  # noqa: SIM118  (it is no dictionary)
                if not key.endswith(torch_files.COUNTERS)
            }
        with np.errstate(over="ignore"):  # `read` refuses values that become infinite
            tensors = {
                key: value.astype(np.float32, casting="same_kind") for key, value in loaded.items()
            }
    except (
        *(safetensors.SafetensorError, ValueError, TypeError, KeyError, AttributeError),
        RecursionError,  # of its metadata
    ) as error:
        raise UserError(
            f"weights {path} are damaged or not safetensors of float32, float16 or "
            f"bfloat16: {error}"
        ) from error
    return Contents(tensors, origin)


def write(
    path: pathlib.Path,
    variables: Mapping[str, Any],
    model_name: str,
    model: nn.Module,
    class_names: Sequence[str] = (),
) -> None:
    """Writes `variables` as `.safetensors` in torch's layout, with the fields of `model`.

    The file says the `class_names` of the outputs, unless they are unknown. Names of the tensors
    are torchvision's for the families that it publishes, else our own.
    """
    state = convert.to_torch(variables, model_name, model)
    metadata = arithmetic.to_metadata(model, class_names)
    with files.atomic_write(path) as part:
        part.write_bytes(safetensors.numpy.save(state, metadata))
