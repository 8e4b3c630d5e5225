"""Weights in files: what is read, what is refused and why, and what a run starts from."""

import json
import os
import struct
import zipfile
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file
from support.random_variables import random_variables

from cnn_papers.errors import UserError
from cnn_papers.models import alexnet, densenet, googlenet, lenet, maxout, nin, resnet, vgg
from cnn_papers.weights import convert, torch_names, weight_files

SMALL = {"width": 0.05, "num_classes": 4}
SHORT = {"blocks": (3, 3, 2, 1), **SMALL}  # two loops, and blocks outside them
NETWORKS: dict[str, tuple[str, Any, tuple[int, int, int]]] = {
    "alexnet": ("alexnet", alexnet.Model("paper", **SMALL | {"width": 0.0625}), (67, 67, 3)),
    "alexnet-bn": (
        "alexnet",
        alexnet.Model("batch_norm", **SMALL | {"width": 0.0625}),
        (67, 67, 3),
    ),
    "vgg": ("vgg", vgg.Model("A-BN", **SMALL), (64, 64, 3)),
    "resnet": ("resnet", resnet.Model("50-v1.5", **SHORT), (64, 64, 3)),
    "resnet-scan": ("resnet", resnet.Model("50", scan=True, **SHORT), (64, 64, 3)),
    "resnet-cifar": ("resnet", resnet.Model("cifar-20-C", width=0.5), (32, 32, 3)),
    "densenet": ("densenet", densenet.Model("121", blocks=(2, 2), **SMALL), (64, 64, 3)),
    "googlenet": ("googlenet", googlenet.Model("paper", **SMALL), (64, 64, 3)),
    "googlenet-torchvision": ("googlenet", googlenet.Model("torchvision", **SMALL), (64, 64, 3)),
    "lenet": ("lenet", lenet.Model(), (32, 32, 1)),
    "maxout": ("maxout", maxout.Model("mnist_conv", width=0.2), (28, 28, 1)),
    "nin": ("nin", nin.Model("cifar10", width=0.1), (32, 32, 3)),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_a_written_file_is_read_back_to_the_bit(network, tmp_path):
    name, model, image = NETWORKS[network]
    variables = random_variables(model, image)
    path = tmp_path / "new" / "net.safetensors"
    weight_files.write(path, variables, name, model)
    source = weight_files.source(path, name, model, image)
    arrays, fresh = convert.select(source, model, image)
    assert fresh == []
    back = convert.put({}, arrays, model)
    assert jax.tree.structure(back["params"]) == jax.tree.structure(variables["params"])
    jax.tree.map(np.testing.assert_array_equal, back, {"batch_stats": {}, **variables})


def test_names_and_layout_are_torchvisions():
    _, model, image = NETWORKS["vgg"]
    variables = random_variables(model, image)
    state = convert.to_torch(variables, "vgg", model)
    kernel = np.asarray(variables["params"]["conv1_1"]["kernel"])
    assert state["features.0.weight"][2, 1, 0, 2] == kernel[0, 2, 1, 2]
    fc6 = np.asarray(variables["params"]["fc6"]["kernel"])  # [h, w, c, out]; torch flattens c, h, w
    h, w, c, out = fc6.shape
    assert state["classifier.0.weight"].shape == (out, c * h * w)
    assert state["classifier.0.weight"][5, (3 * h + 1) * w + 0] == fc6[1, 0, 3, 5]
    np.testing.assert_array_equal(
        state["features.1.running_var"], variables["batch_stats"]["bn1_1"]["var"]
    )
    assert "features.1.num_batches_tracked" not in state


@pytest.mark.parametrize(
    ("key", "today"),
    [
        (
            "features.denseblock1.denselayer2.norm.1.weight",
            "features.denseblock1.denselayer2.norm1.weight",
        ),
        (
            "features.denseblock1.denselayer2.conv.2.weight",
            "features.denseblock1.denselayer2.conv2.weight",
        ),
        ("pre_logits.fc1.weight", "classifier.0.weight"),
        ("pre_logits.fc2.bias", "classifier.3.bias"),
        ("head.fc.weight", "classifier.6.weight"),
        ("features.0.weight", "features.0.weight"),
    ],
)
def test_older_and_timms_names(key, today):
    assert torch_names.as_torchvision(key) == today


def test_timms_vgg_keeps_its_first_fully_connected_layer_as_a_convolution():
    _, model, image = NETWORKS["vgg"]
    state = convert.to_torch(random_variables(model, image), "vgg", model)
    shape = convert.abstract(model, image)["params/fc6/kernel"].shape
    timm = dict(state)
    timm["classifier.0.weight"] = state["classifier.0.weight"].reshape(
        shape[3], shape[2], shape[0], shape[1]
    )
    one, other = (convert.from_torch(each, "vgg", model, image, place="") for each in (state, timm))
    np.testing.assert_array_equal(
        one.tensors["params/fc6/kernel"].array, other.tensors["params/fc6/kernel"].array
    )


def test_auxiliary_heads_that_a_file_has_not_stay_fresh():
    with_heads = googlenet.Model("torchvision", **SMALL)
    state = convert.to_torch(random_variables(with_heads, (64, 64, 3)), "googlenet", with_heads)
    state = {key: value for key, value in state.items() if not key.startswith("aux")}
    source = convert.from_torch(state, "googlenet", with_heads, (64, 64, 3), place="")
    arrays, fresh = convert.select(source, with_heads, (64, 64, 3))
    assert fresh and all(layer.startswith("aux_4") for layer in fresh) and len(arrays) == len(state)


def test_auxiliary_heads_of_a_file_are_dropped_where_the_network_has_none():
    with_heads = googlenet.Model("torchvision", **SMALL)
    without = googlenet.Model("torchvision_without_aux", **SMALL)
    state = convert.to_torch(random_variables(with_heads, (64, 64, 3)), "googlenet", with_heads)
    assert any(key.startswith("aux1.") for key in state)
    arrays, _ = convert.select(
        convert.from_torch(state, "googlenet", without, (64, 64, 3), place=""), without, (64, 64, 3)
    )
    assert arrays.keys() == convert.abstract(without, (64, 64, 3)).keys()


# --- what does not fit ----------------------------------------------------------------------------

MODEL = resnet.Model("18", **SMALL)
IMAGE = (64, 64, 3)


@pytest.fixture
def state() -> dict[str, np.ndarray]:
    return convert.to_torch(random_variables(MODEL, IMAGE), "resnet", MODEL)


def select(
    state: dict[str, np.ndarray], model: Any = MODEL, **options: Any
) -> tuple[convert.Flat, list[str]]:
    source = convert.from_torch(state, "resnet", model, IMAGE, place="x.pth")
    return convert.select(source, model, IMAGE, **options)


def test_a_missing_array(state):
    del state["layer1.1.conv2.weight"]
    with pytest.raises(
        UserError,
        match=r"x.pth are of another.*: layer1.1.conv2.weight is missing, \[3, 3, 3, 3\] expected$",
    ):
        select(state)


def test_an_array_too_many(state):
    state["layer1.2.conv1.weight"] = np.zeros((3, 3, 3, 3), np.float32)
    with pytest.raises(
        UserError,
        match=r"of another network: without a place in this network are layer1.2.conv1.weight "
        r"\[3, 3, 3, 3\]$",
    ):
        select(state)


def test_a_file_of_another_network_shows_its_own_names():
    state = {f"blocks.{i}.attn.weight": np.zeros((3, 5), np.float32) for i in range(7)}
    with pytest.raises(
        UserError,
        match=r"bn1.bias is missing, \[3\] expected; .* more; without a place in this network are "
        r"blocks.0.attn.weight \[3, 5\], blocks.1.attn.weight \[3, 5\], "
        r"blocks.2.attn.weight \[3, 5\] and 4 more$",
    ):
        select(state)


def test_another_shape(state):
    state["conv1.weight"] = state["conv1.weight"][:, :, 1:]
    with pytest.raises(
        UserError, match=r"conv1.weight is \[3, 3, 6, 7\], \[3, 3, 7, 7\] expected$"
    ):
        select(state)


def test_weights_of_another_depth_name_a_few_and_count_the_rest(state):
    with pytest.raises(
        UserError, match=r"another network: layer1.2.* is missing, .* expected; .* and \d+ more$"
    ):
        select(state, resnet.Model("34", **SMALL))


def test_another_head_stays_fresh_where_that_is_asked_for(state):
    ten = resnet.Model("18", width=0.05, num_classes=10)
    with pytest.raises(
        UserError,
        match=r"fc.bias is \[4\], \[10\] expected; fc.weight is \[4, 26\], \[10, 26\] expected",
    ):
        select(state, ten)
    arrays, fresh = select(state, ten, other_head=True)
    assert fresh == ["fc"] and not any(path.startswith("params/fc/") for path in arrays)
    assert len(arrays) == len(state) - 2


def test_named_layers_alone_are_taken(state):
    arrays, fresh = select(state, resnet.Model("34", **SMALL), layers="conv1|bn1|conv2_[12]/.*")
    assert {convert.layer_of(path).split("/")[0] for path in arrays} == {
        "conv1",
        "bn1",
        "conv2_1",
        "conv2_2",
    }
    assert "fc" in fresh and "conv2_3/conv1" in fresh and "conv1" not in fresh
    with pytest.raises(UserError, match=r"no layer is called 'conv9'; there are: .*conv1"):
        select(state, layers="conv9")
    with pytest.raises(UserError, match=r"'\(' is not a regular expression"):
        select(state, layers="(")


# --- files ----------------------------------------------------------------------------------------


def test_half_precision_is_widened(tmp_path):
    save_file({"fc.weight": np.array([[0.5, -2.0]], np.float16)}, tmp_path / "a.safetensors")
    (value,) = weight_files.read(tmp_path / "a.safetensors").tensors.values()
    assert value.dtype == np.float32 and value.tolist() == [[0.5, -2.0]]


def test_bfloat16_too_and_what_is_no_weight_is_refused(tmp_path):
    save_file({"a": np.array([1.5], ml_dtypes.bfloat16)}, tmp_path / "a.safetensors")
    assert weight_files.read(tmp_path / "a.safetensors").tensors["a"].tolist() == [1.5]
    save_file({"a": np.array([1e300])}, tmp_path / "b.safetensors")
    with pytest.raises(UserError, match=r"b.safetensors: a has values that are not finite"):
        weight_files.read(tmp_path / "b.safetensors")


def test_an_exported_file_can_be_read_by_others(tmp_path):
    name, model, image = NETWORKS["lenet"]
    weight_files.write(tmp_path / "a.safetensors", random_variables(model, image), name, model)
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask


def header(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


BROKEN = {
    "empty": b"",
    "no header": b"\xff" * 7,
    "header longer than the file": struct.pack("<Q", 2**60) + b"{}",
    "header that is no json": header(b"{]"),
    "data cut off": header(
        json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    )
    + b"1234",
    "offsets beyond": header(
        json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 99]}}).encode()
    )
    + b"0" * 16,
}


@pytest.mark.fault("hostile: a weights file whose header declares more than it has", "refused")
@pytest.mark.parametrize("kind", BROKEN)
def test_a_damaged_file_is_refused_by_name(kind, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(BROKEN[kind])
    with pytest.raises(
        UserError, match=r"^weights .*x.safetensors are damaged or not safetensors of float32, "
    ):
        weight_files.read(path)


def test_values_that_are_not_finite_are_refused(tmp_path):
    save_file({"fc.weight": np.array([1, np.nan], np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"x.safetensors: fc.weight has values that are not finite"):
        weight_files.read(tmp_path / "x.safetensors")


def test_no_file(tmp_path):
    with pytest.raises(
        UserError, match=r"there is no weights file .*none.pth to read: No such file"
    ):
        weight_files.read(tmp_path / "none.pth")


def test_without_torch_a_pth_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    (tmp_path / "x.pth").write_bytes(b"PK\3\4")
    with pytest.raises(
        UserError, match=r"needs PyTorch: pip install torch, or give the weights as .safetensors"
    ):
        weight_files.read(tmp_path / "x.pth")


FOREIGN: dict[str, tuple[bytes, str]] = {
    "x.h5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes it"),
    "x.npy": (b"\x93NUMPY\1\0", "an array of NumPy"),
    "x.gguf": (b"GGUF\3", "a GGUF file"),
    "x.pth.gz": (b"\x1f\x8b\x08", "compressed by gzip: unpack it first"),
    "x.tar": (b"a".ljust(257, b"\0") + b"ustar\x0000", "an archive of tar: unpack it first"),
    "x.pth": (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS: fetch the"),
    "y.pth": (b"<!DOCTYPE html>", "a web page, not the file that it links to"),
    "x.safetensors": (b"<html>", "a web page, not the file that it links to"),
    "x.json": (b'{"weight_map": {}}', "JSON, which only lists the files of the weights"),
    "x.onnx": (b"\x08\x07\x12\x07pytorch", "an ONNX program"),
    "x.caffemodel": (b"\x0a\x07AlexNet", "a file of Caffe"),
    "x.msgpack": (b"\x81\xa6params", "a file of Flax"),
    "x.pb": (b"\x08\x01", "a program of TensorFlow"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_other_formats_are_called_what_they_are(name, tmp_path):
    content, kind = FOREIGN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"^weights .*{name} are {kind}"):
        weight_files.read(tmp_path / name)


def test_zip_files_of_others_and_no_format_at_all(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.ones(2))
    for name, entry in {"x.keras": "model.weights.h5", "x.zip": "a.txt"}.items():
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(entry, b"")
    (tmp_path / "x.pth").write_bytes(b"weights")
    for name, message in {
        "x.npz": "are arrays of NumPy",
        "x.keras": "are a network of Keras",
        "x.zip": "are a zip archive of other files",
        "x.pth": "are damaged or of another format: they are neither .safetensors nor a file of",
    }.items():
        with pytest.raises(UserError, match=f"^weights .*{name} {message}"):
            weight_files.read(tmp_path / name)
