"""Files of torch as trainings leave them: which are read, what is said, what is refused and why."""

import argparse
import collections
import logging
import pathlib
import zipfile
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from support import faults
from support.random_variables import random_variables

from cnn_papers.errors import UserError
from cnn_papers.models import resnet, vgg
from cnn_papers.weights import convert, weight_files

torch: Any = pytest.importorskip("torch", reason="writes files as torch does")

SMALL = {"width": 0.05, "num_classes": 4}
MODEL, IMAGE = resnet.Model("18", blocks=(1, 1, 1, 1), **SMALL), (64, 64, 3)
ARRAYS = convert.to_torch(random_variables(MODEL, IMAGE), "resnet", MODEL)
STATE = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}
STATE["bn1.num_batches_tracked"] = torch.tensor(3)
HEAD = {name: STATE[name] for name in ("fc.weight", "fc.bias")}
BODY = {name: tensor for name, tensor in STATE.items() if not name.startswith("fc.")}
MEAN = {name: tensor / 2 for name, tensor in STATE.items()}


def prefixed(prefix: str, state: dict[str, Any] = STATE) -> dict[str, Any]:
    return {prefix + name: tensor for name, tensor in state.items()}


class Settings(dict):
    """Stands for the classes of trainers that a checkpoint may hold, such as Lightning's."""


def take(path: pathlib.Path, model: Any = MODEL) -> dict[str, np.ndarray]:
    """The arrays that the network takes from a file, by torchvision's names."""
    source = weight_files.source(path, "resnet", model, IMAGE)
    arrays, fresh = convert.select(source, model, IMAGE)
    assert not fresh
    return convert.to_torch(convert.put({}, arrays, model), "resnet", model)


LEFT_OUT = "are left out (save them on their own to take them)"
WRAPPED: dict[str, tuple[Any, list[str]]] = {
    "plain.pth": (STATE, []),
    "in a dictionary.pth": ({"epoch": 3, "arch": "resnet18", "model": STATE}, []),
    "in two.pth": ({"model": {"state_dict": STATE}}, []),
    "by another name.pth": ({"resnet": STATE, "epoch": 3}, []),
    "bytes.pth": ({name.encode(): tensor for name, tensor in STATE.items()}, []),
    "data parallel.pth.tar": (
        {"state_dict": prefixed("module."), "best_acc1": torch.tensor(3.0)},
        ["its names lose 'module.', which torch's wrappers put there"],
    ),
    "compiled.pt": (
        prefixed("_orig_mod."),
        ["its names lose '_orig_mod.', which torch's wrappers put there"],
    ),
    "compiled and parallel.bin": (
        prefixed("module._orig_mod."),
        ["its names lose 'module.' and '_orig_mod.', which torch's wrappers put there"],
    ),
    "in an attribute.ckpt": (
        {"state_dict": prefixed("net.")},
        ["all names lose their prefix 'net.'"],
    ),
    "in two attributes.ckpt": (
        prefixed("module.encoder.net."),
        [
            "its names lose 'module.', which torch's wrappers put there",
            "all names lose their prefix 'encoder.net.'",
        ],
    ),
    "with a loss.ckpt": (
        {"state_dict": {**prefixed("model."), "criterion.weight": torch.ones(4)}},
        [
            "the names that begin with 'model.' lose this prefix",
            "the network is complete under it; left out: criterion.weight",
        ],
    ),
    "backbone and fc.pth": (
        {**prefixed("backbone.", BODY), **HEAD},
        ["the names that begin with 'backbone.' lose this prefix"],
    ),
    "backbone and head.pth": (
        {
            **prefixed("model.backbone.", BODY),
            "model.head.weight": STATE["fc.weight"],
            "model.head.bias": STATE["fc.bias"],
        },
        [
            "the names that begin with 'model.backbone.' lose this prefix",
            "'model.head' is taken for the last layer, 'fc'",
        ],
    ),
    "head in a sequence.pth": (
        {**BODY, "fc.1.weight": STATE["fc.weight"], "fc.1.bias": STATE["fc.bias"]},
        ["'fc.1' is taken for the last layer, 'fc'"],
    ),
    "averages beside.pth": (
        {"model": STATE, "model_ema": prefixed("module.", MEAN), "optimizer": {"state": {}}},
        [f"those of ['model'] are taken; averaged ones in 'model_ema' {LEFT_OUT}"],
    ),
    "timm's averages.pth.tar": (
        {"state_dict_ema": MEAN, "state_dict": STATE},
        [f"those of ['state_dict'] are taken; averaged ones in 'state_dict_ema' {LEFT_OUT}"],
    ),
    "averages in the module.ckpt": (
        {"state_dict": {**prefixed("ema_model.module.", MEAN), **prefixed("model.")}},
        [
            "its names lose 'module.', which torch's wrappers put there",
            "the averaged weights under 'ema_model.' are left out, those beside it taken",
            "all names lose their prefix 'model.'",
        ],
    ),
    "averages only.pth": (
        {"ema_state_dict": STATE},
        ["its averaged weights are taken, of ['ema_state_dict']"],
    ),
    "swa.pth": (
        {"n_averaged": torch.tensor(4), **prefixed("module.")},
        [
            "they are averaged, by torch.optim.swa_utils",
            "its names lose 'module.', which torch's wrappers put there",
        ],
    ),
    "more than tensors.ckpt": (
        {
            "state_dict": STATE,
            "args": argparse.Namespace(lr=0.1, out=pathlib.Path("runs")),
            "best": np.float64(0.3),
            "curve": np.arange(3.0),
            "hyper_parameters": Settings(lr=0.1),
            "losses": collections.defaultdict(list, train=[1.0]),
            "optimizer": {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        },
        [],
    ),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_checkpoints_as_trainings_leave_them(name, tmp_path, caplog):
    """The bits are those of STATE, and the log says what was done to the names."""
    content, notes = WRAPPED[name]
    torch.save(content, tmp_path / name)
    with caplog.at_level(logging.INFO, "cnn_papers"):
        taken = take(tmp_path / name)
    assert taken.keys() == ARRAYS.keys()
    for key, array in ARRAYS.items():
        np.testing.assert_array_equal(taken[key], array, err_msg=key)
    said = [record.getMessage() for record in caplog.records if "cnn_papers" in record.name]
    assert said == [f"weights {tmp_path / name}: {note}" for note in notes]


def test_the_form_of_files_until_2020_and_any_name(tmp_path):
    torch.save(STATE, tmp_path / "x.weights", _use_new_zipfile_serialization=False)
    safetensors.numpy.save_file(ARRAYS, tmp_path / "x.bin")
    torch.save(STATE, tmp_path / "x.safetensors")
    for name in ("x.weights", "x.bin", "x.safetensors"):
        assert take(tmp_path / name).keys() == ARRAYS.keys()


def test_parallel_features_of_a_vgg(tmp_path):
    """`model.features = DataParallel(model.features)` of torch's own ImageNet example."""
    model = vgg.Model("A", **SMALL)
    state = convert.to_torch(random_variables(model, IMAGE), "vgg", model)
    parallel = {
        name.replace("features.", "features.module."): torch.from_numpy(array)
        for name, array in state.items()
    }
    torch.save({"state_dict": parallel}, tmp_path / "x.pth.tar")
    source = weight_files.source(tmp_path / "x.pth.tar", "vgg", model, IMAGE)
    assert len(convert.select(source, model, IMAGE)[0]) == len(state)


def test_a_prefix_does_not_hide_what_is_missing_or_too_much(tmp_path):
    other = {**prefixed("model."), "model.layer9.weight": torch.ones(2, 2, 1, 1)}
    del other["model.conv1.weight"]
    torch.save(other, tmp_path / "x.pth")
    with pytest.raises(
        UserError,
        match=r"another network: conv1.weight is missing, \[3, 3, 7, 7\] expected; "
        r"without a place in this network are model.layer9.weight \[2, 2, 1, 1\]$",
    ):
        take(tmp_path / "x.pth")


def test_a_second_head_beside_a_whole_network_is_not_left_out(tmp_path):
    head = {"head.weight": torch.ones(9, 26), "head.bias": torch.ones(9)}
    torch.save({**prefixed("backbone."), **head}, tmp_path / "x.pth")
    with pytest.raises(
        UserError,
        match=r"another network: without a place in this network are head.weight \[9, 26\], "
        r"head.bias \[9\]$",
    ):
        take(tmp_path / "x.pth")


def test_half_precision_and_parameters(tmp_path):
    torch.save({name: tensor.bfloat16() for name, tensor in STATE.items()}, tmp_path / "half.pt")
    half = weight_files.read(tmp_path / "half.pt").tensors
    assert half.keys() == ARRAYS.keys()
    assert all(array.dtype == np.float32 for array in half.values())
    parameters = {name: torch.nn.Parameter(torch.from_numpy(a)) for name, a in ARRAYS.items()}
    torch.save(parameters, tmp_path / "parameters.PTH")
    assert weight_files.read(tmp_path / "parameters.PTH").tensors.keys() == ARRAYS.keys()


# --- what is refused ------------------------------------------------------------------------------

NO_STATE_DICT = "are not a state dict: a dictionary of tensors by name; the file holds"
ENDLESS: dict[str, Any] = {}
ENDLESS["state_dict"] = ENDLESS
NOT_DENSE = "are not a state dict: a is not a dense tensor of real numbers"
OTHERS: dict[str, tuple[Any, str]] = {
    "list": ([1, 2], f"{NO_STATE_DICT} a list"),
    "one tensor": (torch.ones(2, 3), rf"{NO_STATE_DICT} one tensor \[2, 3\]"),
    "numbered": ({1: torch.ones(2)}, f"{NO_STATE_DICT} a dictionary with the key 1"),
    "empty dictionary": ({}, "are not a state dict: the file holds no tensors"),
    "complex": ({"a": torch.ones(2, dtype=torch.complex64)}, NOT_DENSE),
    "sparse": ({"a": torch.eye(2).to_sparse()}, NOT_DENSE),
    "quantised": ({"a": torch.ones(2, dtype=torch.int8)}, NOT_DENSE),
    "endless": (ENDLESS, "are not a state dict: state_dict is not a dense tensor"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_state_dict_is_said_to_be_none(kind, tmp_path):
    content, message = OTHERS[kind]
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UserError, match=f"^weights .*x.pth {message}"):
        weight_files.read(tmp_path / "x.pth")


def test_two_tensors_of_one_name(tmp_path):
    torch.save({**STATE, "module.fc.bias": STATE["fc.bias"].clone()}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"x.pth: fc.bias and module.fc.bias are both fc.bias$"):
        take(tmp_path / "x.pth")


def test_damaged_files(tmp_path):
    torch.save(STATE, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "directory.pth").write_bytes(whole.replace(b"PK\1\2", b"PK\1\3"))
    (tmp_path / "empty.pth").touch()
    for name, message in {
        "cut.pth": "are damaged: ",
        "directory.pth": "are damaged: ",
        "empty.pth": "are damaged: the file is empty",
    }.items():
        with pytest.raises(UserError, match=f"^weights .*{name} {message}"):
            weight_files.read(tmp_path / name)


def refusal(path: pathlib.Path) -> UserError:
    with pytest.raises(UserError) as caught:
        weight_files.read(path)
    return caught.value


@pytest.mark.parametrize("key", ["", "model"])
def test_a_whole_module_is_refused_with_the_lines_that_save_its_tensors(key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = torch.nn.Linear(2, 3)
    torch.save({key: module, "epoch": 3} if key else module, "x.pth")
    error = refusal(pathlib.Path("x.pth"))
    assert "weights x.pth hold a whole module, which takes code to load" in str(error)
    exec("\n".join(error.choices), {})
    assert weight_files.read(pathlib.Path("x-tensors.pth")).tensors["weight"].shape == (3, 2)


@pytest.mark.parametrize(
    "options", [{"pickle_protocol": 4}, {"_use_new_zipfile_serialization": False}]
)
def test_objects_that_torch_cannot_list_are_refused_with_two_lines(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": STATE, "args": argparse.Namespace(lr=1)}, "x.pth.tar", **options)
    error = refusal(pathlib.Path("x.pth.tar"))
    assert "x.pth.tar contain other objects than tensors: refused" in str(error)
    exec("\n".join(error.choices), {})
    assert take(pathlib.Path("x-tensors.pth")).keys() == ARRAYS.keys()


def test_several_state_dicts_are_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"generator": STATE, "critic": STATE}, "x.pth")
    error = refusal(pathlib.Path("x.pth"))
    assert "x.pth hold several state dicts, 'generator', 'critic': save the one" in str(error)
    exec("\n".join(error.choices), {})
    assert take(pathlib.Path("x-tensors.pth")).keys() == ARRAYS.keys()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit's, whose files remain
def test_a_program_of_torch_is_called_one_with_the_line_that_saves_its_tensors(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    torch.jit.trace(torch.nn.Linear(2, 3), torch.ones(1, 2)).save("x.pt")
    message = str(refusal(pathlib.Path("x.pt")))
    assert "weights x.pt are a TorchScript program, of which nothing is run here: if" in message
    exec(f"import torch; {message.rpartition(' with ')[2]}", {})
    tensors = weight_files.read(pathlib.Path("x-tensors.pth")).tensors
    assert tensors["weight"].shape == (3, 2)
    with zipfile.ZipFile("y.pt2", "w") as archive:
        archive.writestr("y/archive_format", "pt2")
    assert "y.pt2 are a program of torch.export" in str(refusal(pathlib.Path("y.pt2")))


@pytest.mark.fault("hostile: a weights file with code to run", "refused; nothing in it runs")
def test_hostile_files_are_refused_and_nothing_in_them_runs(tmp_path):
    touched = tmp_path / "touched"
    torch.save({"fc.weight": faults.Touches(touched)}, tmp_path / "zip.pth")
    torch.save(
        {"state_dict": STATE, "args": faults.Touches(touched)},
        tmp_path / "beside.pth",
    )
    faults.write_pickle(tmp_path / "pickle.pth", touched)
    for name in ("zip.pth", "beside.pth", "pickle.pth"):
        message = f"{name} contain other objects than tensors: refused"
        with pytest.raises(UserError, match=message):
            weight_files.read(tmp_path / name)
    assert not touched.exists()


class Calls:
    """Calls a function with arguments when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.fault(
    "hostile: a weights file with code to run beside its tensors", "the tensors are read, none runs"
)
@pytest.mark.parametrize("function", [eval, exec, __import__])
def test_functions_beside_the_tensors_are_not_called(function, tmp_path):
    touched = tmp_path / "touched"
    code = f"__import__('pathlib').Path({str(touched)!r}).touch()"
    torch.save({"state_dict": STATE, "args": Calls(function, code)}, tmp_path / "x.pth")
    assert take(tmp_path / "x.pth").keys() == ARRAYS.keys()
    assert not touched.exists()
    assert not any("_Unread" in str(each) for each in torch.serialization.get_safe_globals())


@pytest.mark.fault(
    "hostile: a weights file of few bytes that unpacks to many", "refused before they are taken"
)
def test_a_file_that_would_fill_the_memory_is_refused(tmp_path):
    torch.save({"fc.weight": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "one.pth")
    with pytest.raises(
        UserError,
        match=r"one.pth are damaged: its tensors declare 4,000,000,000,000 bytes, more than",
    ):
        weight_files.read(tmp_path / "one.pth")
    torch.save({"fc.weight": torch.zeros(5_000_000)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", 8) as bomb,
    ):
        for entry in plain.infolist():
            bomb.writestr(entry.filename, plain.read(entry))
    assert (tmp_path / "bomb.pth").stat().st_size < 100_000
    with pytest.raises(
        UserError, match=r"bomb.pth are damaged: it would unpack to 20,00\d,\d+ bytes"
    ):
        weight_files.read(tmp_path / "bomb.pth")


def test_one_tensor_under_two_keys_is_read_for_both(tmp_path):
    """As of a layer that a module holds in two places; the file has its bytes once."""
    weight = torch.arange(10_000.0).reshape(100, 100)
    torch.save({"a": weight, "b": weight}, tmp_path / "shared.pth")
    read = weight_files.read(tmp_path / "shared.pth").tensors
    assert read.keys() == {"a", "b"}
    for array in read.values():
        np.testing.assert_array_equal(array, weight.numpy())
