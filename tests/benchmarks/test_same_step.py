"""`benchmark` measures the step that `main` takes: both lower to the same program."""

import itertools
from typing import Any

import jax
import pytest
from support.config_values import flat
from support.recipes import RECIPES, config_file
from support.step_options import STEP_OPTIONS

from cnn_papers import zoo
from cnn_papers.benchmarks import workload
from cnn_papers.parallel import mesh as meshes
from cnn_papers.runs import inputs
from cnn_papers.runs.run import configured_training
from configs import alexnet, resnet

LENGTH = inputs.Length(total=700, per_epoch=123.5, eval_every=10)
DEVICES = 4  # they divide the batch of every recipe
DEFAULT = ("alexnet", "googlenet", "maxout", "resnet")  # a schedule, heads or a limit of each kind


def _tier(name: str, recipe: str) -> Any:
    if recipe != "desk":
        return pytest.mark.slow
    return [] if name in DEFAULT else pytest.mark.process


CASES = [pytest.param(name, recipe, marks=_tier(name, recipe)) for name, recipe in RECIPES]


def lowered(step: Any, abstract: Any, work: workload.Workload) -> str:
    """The StableHLO of a train step, with the sharding and donation of its arguments."""
    batch = jax.eval_shape(lambda: workload.synthetic_batch(work))
    key = jax.eval_shape(lambda: jax.random.key(0))
    return step.lower(abstract, batch, key).as_text()


def steps(config: Any) -> tuple[str, str]:
    """The step that `benchmark` measures and the one that `main` takes, as StableHLO."""
    shape = inputs.configured_input(config, "train_host")
    work = workload.from_config(config, shape)._replace(
        steps_per_epoch=LENGTH.per_epoch, total_steps=LENGTH.total
    )
    measured = workload.make_step(work)
    training = configured_training(
        config,
        zoo.build_model(config.model_name, **config.model),
        shape,
        workload.synthetic_augment(work),
        meshes.make_mesh(config.mesh.data, config.mesh.column),
        LENGTH,
    )
    return (
        lowered(measured.train, measured.abstract, work),
        lowered(training.step, training.abstract, work),
    )


def first_difference(measured: str, taken: str) -> str:
    """The first line in which two programs differ, of each; a diff of both would take minutes."""
    if measured == taken:
        return ""
    lines = itertools.zip_longest(measured.splitlines(), taken.splitlines(), fillvalue="")
    return next(f"benchmark: {ours}\nmain: {runs}" for ours, runs in lines if ours != runs)


@pytest.mark.parametrize(("name", "recipe"), CASES)
def test_the_step_of_a_recipe(name, recipe):
    config = config_file(name).get_config(recipe)
    config.mesh.data = DEVICES
    assert first_difference(*steps(config)) == ""


def test_the_step_with_every_option():
    """On ResNet; GoogLeNet's recipe has the weight of auxiliary losses, which needs their heads."""
    config = resnet.get_config()
    ordinary = flat(config)
    config.model.blocks, config.model.widths = (1,), (8,)
    config.mesh.data, config.mesh.shard_params = DEVICES, True
    config.update_from_flattened_dict(STEP_OPTIONS)
    assert all(flat(config)[key] != ordinary[key] for key in STEP_OPTIONS)
    assert first_difference(*steps(config)) == ""


def test_the_step_over_columns():
    config = alexnet.get_config()
    config.mesh.data, config.mesh.column = DEVICES // 2, 2
    assert first_difference(*steps(config)) == ""
