"""The settings of the step and the optimiser: every key of the config reaches the step of a run.

Adding an option to the train step touches the config, the settings and the step, nothing else.
"""

import pathlib
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.config_values import flat
from support.step_options import STEP_OPTIONS

from cnn_papers.errors import UserError
from cnn_papers.parallel import mesh as meshes
from cnn_papers.runs import ranges
from cnn_papers.runs.inputs import Length
from cnn_papers.runs.run import configured_training
from cnn_papers.training.optim import OptimizerSettings
from cnn_papers.training.step import StepSettings
from configs import common

ROOT = pathlib.Path(__file__).parents[2]
SHAPE = (2, 2, 1)

OF_THE_LOOP = {"optim.max_skipped_in_a_row"}  # read by the loop of a run, not by its step
OF_THE_DATA = {"loss.class_weights"}  # names classes, or needs their numbers of images


class Network(nn.Module):
    """One layer behind batch normalisation, and an auxiliary head."""

    @nn.compact
    def __call__(self, image, *, train=False):
        x = nn.BatchNorm(use_running_average=not train)(image.reshape(len(image), -1))
        logits = nn.Dense(3, name="fc")(x)
        return logits, {"fc": logits, "aux_fc": nn.Dense(3, name="aux")(x)}


def configured(**changes: Any) -> Any:
    """A config with every key.

    Weight decay is on, so that its multipliers matter, and a layer frozen that has statistics.
    """
    config = common.base("", "", 3, {})
    config.batch_size, config.mesh.data, config.optim.weight_decay = 8, 1, 0.1
    config.optim.frozen = "BatchNorm_0"
    config.update_from_flattened_dict(changes)
    return config


def program(config: Any, class_weights: tuple[float, ...] = ()) -> str:
    """The step of a run, as a jaxpr."""

    def augment(image: jax.Array, key: jax.Array) -> jax.Array:
        del key
        return image.astype(jnp.float32)

    length = Length(total=100, per_epoch=10.0, eval_every=10)
    mesh = meshes.make_mesh(config.mesh.data)
    training = configured_training(config, Network(), SHAPE, augment, mesh, length, class_weights)
    batch = {
        "image": jax.ShapeDtypeStruct((config.batch_size, *SHAPE), np.uint8),
        "label": jax.ShapeDtypeStruct((config.batch_size,), np.int32),
        "labels": jax.ShapeDtypeStruct((config.batch_size, 3), np.int8),
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    return str(training.step.trace(training.abstract, batch, key).jaxpr)


def test_every_key_is_a_setting_or_the_loops():
    config = configured()
    keys = {key for key in flat(config) if key.startswith(("loss.", "optim."))}
    assert keys == {*STEP_OPTIONS, *OF_THE_LOOP, *OF_THE_DATA}
    names = [key.partition(".")[2] for key in (*STEP_OPTIONS, *OF_THE_DATA)]
    settings = [*StepSettings._fields, *OptimizerSettings._fields]
    assert sorted([*names, "boxes"]) == sorted(settings)  # of tasks that find boxes only
    assert all(name in config.optim for name in OptimizerSettings._fields)


def test_settings_take_the_values_of_their_keys():
    config = configured(**STEP_OPTIONS)
    settings = {
        **StepSettings.from_config(config, (1.0, 2.0))._asdict(),
        **OptimizerSettings.from_config(config)._asdict(),
    }
    expected = {key.partition(".")[2]: value for key, value in STEP_OPTIONS.items()}
    assert settings == expected | {"class_weights": (1.0, 2.0), "boxes": ()}


@pytest.mark.parametrize("key", STEP_OPTIONS)
def test_a_key_changes_the_step_of_a_run(key):
    task = {"task": "multilabel"} if key == "loss.ranking" else {}
    assert program(configured(**task, **{key: STEP_OPTIONS[key]})) != program(configured(**task))


@pytest.mark.parametrize("task", ["classify", "multilabel"])
def test_weights_of_classes_change_the_step_of_a_run(task):
    assert program(configured(task=task), (1.0, 2.0, 3.0)) != program(configured(task=task))


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("max_loss", {"configs/common.py", "cnn_papers/training/step.py"}),
    ],
)
def test_an_option_is_written_in_the_config_and_beside_the_step_only(name, files):
    """An example of the options that concern neither the mesh nor a recipe."""
    sources = [*(ROOT / "cnn_papers").rglob("*.py"), *(ROOT / "configs").glob("*.py")]
    mentions = [path for path in sources if re.search(rf"\b{name}\b", path.read_text())]
    assert {str(path.relative_to(ROOT)) for path in mentions} == files


# --- ranges ---------------------------------------------------------------------------------------

NUMBERS = [
    key
    for key, value in flat(configured()).items()
    if type(value) in (int, float) and not key.startswith("model.") and key != "mesh.data"
]


def test_numbers_need_no_entry_to_be_zero_or_more():
    """Except those that must be positive, which `ranges` lists; -1 is all devices of a mesh."""
    assert {"optim.max_loss", "loss.aux_weight", "data.max_skips", "seed"} < set(NUMBERS)
    for key in NUMBERS:
        word = "positive" if key in ranges.POSITIVE else "zero or more"
        with pytest.raises(UserError, match=rf"^config\.{key}=-1(\.0)? must be {word}$"):
            ranges.check_ranges(configured(**{key: type(flat(configured())[key])(-1)}))
    ranges.check_ranges(configured(**{"mesh.data": -1}))


def test_statistics_of_frozen_layers_need_frozen_layers():
    changes = {"optim.move_frozen_statistics": True}
    ranges.check_ranges(configured(**changes))
    with pytest.raises(UserError, match=r"^config\.optim\.move_frozen_statistics needs config"):
        ranges.check_ranges(configured(**changes, **{"optim.frozen": ""}))


def test_only_what_is_listed_must_be_positive():
    for key in NUMBERS:
        config = configured(**{"total_steps": 1, key: type(flat(configured())[key])(0)})
        if key in ranges.POSITIVE:
            with pytest.raises(UserError, match=rf"^config\.{key}=0(\.0)? must be positive$"):
                ranges.check_ranges(config)
        else:
            ranges.check_ranges(config)


def test_every_number_that_is_listed_is_a_key():
    listed = {*ranges.POSITIVE, *ranges.BELOW_ONE, *ranges.MAY_BE_NEGATIVE}
    assert listed <= {*flat(configured()), "model.width"}  # a field of most networks
