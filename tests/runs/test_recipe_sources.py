"""The source of a recipe's values: the comment where the config file sets them."""

import functools
import pathlib
import re

import pytest
from support.recipes import RECIPES

from cnn_papers.errors import UserError
from cnn_papers.runs import recipe_sources
from configs import common

CONFIG = """
from configs import common

FIELDS = {"dropout": float, "width": float}


def first():
    config = common.base(
        "alexnet",
        "paper",
        10,
        FIELDS
        | {
            "width": 0.5,  # half as wide
        },
    )
    common.on_imagenet(
        config,
        # above
        # the argument
        train_host="decode|resize(8)",
        eval_host="decode",  # beside the argument
    )
    config.batch_size = 7  # §1
    # §2: above
    config.total_epochs = 3.0
    # §3
    config.optim.lr, config.optim.lr_batch = (
        0.1,  # inside
        7,
    )
    config.seed = config.eval.batch_size = 1  # both
    config.optim.weight_decay = 0.5  # set again below
    _outer(config, decay=2.0)  # from outside
    for key in ("train_split", "eval_split"):
        config.data[key] = "train"  # in a loop

    config.data.train_device = "flip"
    return config


def second():
    config = first()
    config.batch_size = 8  # another
    return config


def _outer(config, *, decay):
    _inner(config, decay, 0.25)


def _inner(config, decay, momentum):
    config.optim.weight_decay = decay  # here
    config.optim.momentum = momentum  # only here


def get_config(recipe=""):
    return common.choose({"desk": first, "second": second}, recipe, name="own", paper="second")
"""
# A place in a paper, somebody's release or file, or ours.
NAMED = re.compile(
    r"§|Table|Figure|Appendix|paper|ours|authors|theirs|release|README|Caffe|torch|AlexNet|MNIST"
    r"|the files|pylearn2|cuda-convnet|_params|_lr_scale|\w\.(py|lua|yaml|prototxt|def|m|cuh)\b"
)
LINE = {text: i for i, text in enumerate(CONFIG.splitlines(), 1)}
FLIP = LINE['    config.data.train_device = "flip"']


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(CONFIG)
    return str(tmp_path / "own.py")


@pytest.fixture
def by_key(own):
    return {setting.key: setting for setting in recipe_sources.settings(own)}


@pytest.mark.parametrize(
    ("key", "value", "source"),
    [
        ("batch_size", 7, "§1"),
        ("total_epochs", 3.0, "§2: above"),
        ("optim.lr", 0.1, "inside"),
        ("optim.lr_batch", 7, "§3"),
        ("seed", 1, "both"),
        ("eval.batch_size", 1, "both"),
        ("model.width", 0.5, "half as wide"),
        ("data.train_host", "decode|resize(8)", "above the argument"),
        ("data.eval_host", "decode", "beside the argument"),
        ("optim.weight_decay", 2.0, "from outside"),
        ("optim.momentum", 0.25, "only here"),
        ("data.train_split", "train", "in a loop"),
        ("data.train_device", "flip", ""),
    ],
)
def test_a_value_has_the_comment_where_it_is_given(by_key, key, value, source):
    setting = by_key[key]
    assert (setting.value, setting.source, setting.from_base) == (value, source, False)


def test_a_value_without_a_comment_names_its_line(by_key):
    assert by_key["data.train_device"].place == f"own.py:{FLIP}"


def test_what_the_shared_file_sets_has_the_comments_there(by_key):
    dtype, nesterov = by_key["model.dtype"], by_key["optim.nesterov"]
    assert (dtype.source, dtype.from_base) == ("ours: for TPU and GPU", False)
    assert (nesterov.source, nesterov.from_base) == ("plain momentum", True)
    assert dtype.place.startswith("common.py:") and nesterov.place.startswith("common.py:")


def test_what_is_left_to_the_network_and_names_are_no_settings(by_key):
    assert "model.dropout" not in by_key and not by_key.keys() & set(recipe_sources.NAMES)


def test_a_recipe_made_from_another_keeps_its_sources(own):
    assert recipe_sources.recipes(own) == ["desk", "second"]
    by_key = {setting.key: setting for setting in recipe_sources.settings(f"{own}:second")}
    assert by_key["batch_size"].source == "another" and by_key["total_epochs"].value == 3.0


def test_recording_leaves_no_trace(own, tmp_path):
    plain, choose = common.ConfigDict, common.choose
    recipe_sources.settings(own)
    recipe_sources.recipes(own)
    with pytest.raises(UserError, match="has no recipe 'third'"):
        recipe_sources.settings(f"{own}:third")
    assert common.ConfigDict is plain and common.choose is choose


def test_a_config_that_starts_elsewhere_is_refused(tmp_path):
    path = tmp_path / "other.py"
    path.write_text(
        "from ml_collections import ConfigDict\ndef get_config(recipe): return ConfigDict()\n"
    )
    with pytest.raises(UserError, match="does not start from"):
        recipe_sources.settings(str(path))


# --- the recipes of the papers --------------------------------------------------------------------


@functools.cache
def settings_of_the_papers():
    return [
        setting
        for name, recipe in RECIPES
        for setting in recipe_sources.settings(f"configs/{name}.py:{recipe}")
    ]


def test_every_line_that_sets_a_key_has_a_source():
    """A section of the paper, a released file, or ours and why, beside the line or above it."""
    without = {
        f"configs/{setting.place} sets {setting.key}"
        for setting in settings_of_the_papers()
        if not setting.source
    }
    assert sorted(without) == []


def test_a_source_names_a_place_or_says_that_the_value_is_ours():
    unclear = {
        f"configs/{setting.place} sets {setting.key}: {setting.source}"
        for setting in settings_of_the_papers()
        if setting.source and not setting.from_base and not NAMED.search(setting.source)
    }
    assert sorted(unclear) == []


def test_every_recipe_of_the_package_is_found():
    found = [
        (pathlib.PurePath(file).stem, recipe)
        for file in [f"configs/{name}.py" for name in dict(RECIPES)]
        for recipe in recipe_sources.recipes(file)
    ]
    assert found == RECIPES
