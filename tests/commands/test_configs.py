"""Every recipe of every config file, found by discovery: complete, consistent, nothing derived.

A rule is one test, which collects the recipes that break it.
"""

import ast
import dataclasses
import functools
import json
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
import pytest
from support.config_values import flat
from support.recipes import FOLDER, NAMES, RECIPES, config_file, recipes

from cnn_papers import counting, opstrings, tasks, zoo
from cnn_papers.data import host_ops
from cnn_papers.data.augment import compose, parse_device
from cnn_papers.data.statistics import Statistics
from cnn_papers.errors import UserError
from cnn_papers.facts import Reported
from cnn_papers.runs import inputs, ranges
from cnn_papers.training import optim
from configs import common

OVERRIDDEN = (
    "batch_size",
    "total_epochs",
    "total_steps",
    "optim.lr",
    "model.num_classes",
    "seed",
)
NOT_THE_USERS = {"parent", "name", "holds_one"}  # model fields that Flax or the run sets


def for_all(cases: Iterable[tuple[str, ...]]) -> Callable[[Callable[..., None]], Any]:
    """Turns a rule for one case into a test of all `cases`, which lists those that break it."""

    def decorate(rule: Callable[..., None]) -> Callable[[], None]:
        def test() -> None:
            broken = []
            for case in cases:
                try:
                    rule(*case)
                except (Exception, pytest.fail.Exception) as error:
                    broken.append(f"{':'.join(case)}: {type(error).__name__}: {error}")
            assert not broken, "\n".join(broken)

        test.__name__, test.__doc__ = rule.__name__, rule.__doc__
        return test

    return decorate


each_file = for_all([(name,) for name in NAMES])
each_recipe = for_all(RECIPES)


each_result = for_all(
    [(name, str(i)) for name in NAMES for i, _ in enumerate(config_file(name).REPORTED)]
)


def unreachable(name: str, result: Reported) -> list[str]:
    """Returns why no run of its recipe can be set beside a result, though the result says so."""
    if result.recipe not in recipes(name):
        return [f"there is no recipe {result.recipe}"]
    config = config_file(name).get_config(result.recipe)
    if result.variant not in zoo.model_module(config.model_name).VARIANTS:
        return [f"there is no variant {result.variant}"]
    problems = []
    if result.data.partition("[")[0] != config.data.name:
        problems.append(f"{result.recipe} trains on {config.data.name}, not on {result.data}")
    if bool(result.measured_by) == ("; " in result.protocol):
        problems.append("it says why no run measures it if and only if none does")
    if result.data != f"{config.data.name}[{config.data.eval_split}]" and (
        result.measured_by or config.data.eval_split not in result.protocol
    ):
        problems.append(f"{result.recipe} evaluates on {config.data.eval_split}: not {result.data}")
    if result.measured_by:
        protocols = tasks.task_module(config.task).parse_protocols(config.eval.protocol)
        if result.measured_by not in protocols:
            problems.append(f"{result.recipe} does not test by {result.measured_by}")
        elif result.measured_by != "single_view" and (reason := unserved(config, result)):
            problems.append(reason)
    return problems


def unserved(config: Any, result: Reported) -> str:
    """Returns why the network of a result cannot serve its protocol; "" if it can."""
    config.model.variant = result.variant
    fields = tuple(config.model.items())
    size = inputs.configured_input(config)
    return refusal(
        config.task, config.model_name, fields, size, config.data.eval_device, result.measured_by
    )


@functools.cache
def refusal(
    task: str, model_name: str, fields: Any, size: tuple[int, ...], eval_device: str, protocol: str
) -> str:
    model = zoo.build_model(model_name, **dict(fields))
    variables = counting.abstract_variables(model, size)
    ops = parse_device(eval_device, key="data.eval_device")
    normalise = compose(ops, statistics(size), train=False)
    try:
        tasks.task_module(task).protocols(protocol, model, variables, normalise, size)
    except UserError as error:
        return str(error)
    return ""


def statistics(shape: tuple[int, ...]) -> Statistics:
    """Returns statistics of images of `shape`, (h, w, c)."""
    colour, square = np.zeros(shape[-1], np.float32), np.eye(shape[-1], dtype=np.float32)
    return Statistics(colour, colour, np.zeros(shape, np.float32), colour, square)


def network(config: Any, host: str = "train_host") -> tuple[Any, Any]:
    """Returns the shapes of the variables of a recipe's network, and of its endpoints."""
    fields = tuple(config.model.items())
    return traced(config.model_name, fields, inputs.configured_input(config, host))


@functools.cache  # some recipes share their network
def traced(model_name: str, fields: Any, image_shape: tuple[int, ...]) -> tuple[Any, Any]:
    model = zoo.build_model(model_name, **dict(fields))
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    image = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
    (_, ends), variables = jax.eval_shape(
        lambda image: model.init_with_output(rngs, image, train=True), image
    )
    return variables, ends


# --- files ----------------------------------------------------------------------------------------


@each_file
def test_no_recipe_is_desk_on_the_embedded_data(name):
    config = config_file(name).get_config()
    assert (config.name, config.recipe) == (name, "desk")
    assert config.data.name.split("/")[0] == "digits"
    assert flat(config) == flat(config_file(name).get_config("desk"))


@each_file
def test_an_unknown_recipe_is_refused_with_the_list(name):
    with pytest.raises(
        UserError, match=f"^configs/{name}.py has no recipe 'dekst'; there are: desk, "
    ):
        config_file(name).get_config("dekst")


@each_file
def test_reported_results_name_recipes_and_where_they_are_printed(name):
    reported = config_file(name).REPORTED
    assert reported and all(isinstance(result, Reported) for result in reported)
    paper = config_file(name).get_config().paper_recipe
    assert any(result.recipe == paper for result in reported)
    for result in reported:
        task = config_file(name).get_config(result.recipe).task
        assert result.metric in tasks.measures(task)
        assert result.protocol and result.source and 0 < result.value < 100


@pytest.mark.process  # every network and protocol is traced
@each_result
def test_a_run_of_the_recipe_can_reach_what_is_reported(name, number):
    problems = unreachable(name, config_file(name).REPORTED[int(number)])
    assert not problems, "; ".join(problems)


GOOD = next(result for result in config_file("googlenet").REPORTED if result.measured_by)
NO_REASON = "it says why no run measures it if and only if none does"


@pytest.mark.parametrize(
    ("fields", "reasons"),
    [
        ({}, []),
        ({"recipe": "cifar100"}, ["there is no recipe cifar100"]),
        ({"variant": "v9"}, ["there is no variant v9"]),
        ({"measured_by": ""}, [NO_REASON]),
        ({"protocol": "7 models; a run is of one"}, [NO_REASON]),
        ({"measured_by": "vgg_dense"}, ["imagenet2012 does not test by vgg_dense"]),
        (
            {"data": "imagenet2012[test]"},
            ["imagenet2012 evaluates on validation: not imagenet2012[test]"],
        ),
        (
            {"data": "cifar100[test]", "measured_by": "", "protocol": "x; not on validation"},
            ["imagenet2012 trains on imagenet2012, not on cifar100[test]"],
        ),
    ],
)
def test_a_result_that_no_run_can_reach_is_found(fields, reasons):
    assert unreachable("googlenet", GOOD._replace(**fields)) == reasons


def test_a_result_of_a_network_that_cannot_serve_its_protocol_is_found():
    result = next(
        result for result in config_file("spp").REPORTED if result.measured_by == "spp_full"
    )
    (reason,) = unreachable("spp", result._replace(variant="zf5-no-spp"))
    assert "spp_full needs a network with a spatial pyramid" in reason


@each_file
def test_the_docstring_gives_the_command_of_every_recipe(name):
    lines = [line.strip() for line in config_file(name).__doc__.splitlines()]
    command = f"python -m cnn_papers.main --config=configs/{name}.py"
    assert command in lines
    for recipe in recipes(name)[1:]:
        assert f"{command}:{recipe}" in lines


@each_file
def test_no_value_is_computed_from_another(name):
    """An override would leave it behind: `optim` scales the learning rate, not a config file."""
    for node in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text())):
        if isinstance(node, ast.BinOp | ast.JoinedStr | ast.IfExp | ast.Compare):
            read = [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
            assert "config" not in read, f"line {node.lineno} computes with config"


# --- recipes --------------------------------------------------------------------------------------


@each_recipe
def test_a_recipe_says_what_it_is(name, recipe):
    config = config_file(name).get_config(recipe)
    assert (config.name, config.recipe) == (name, recipe)
    assert config.paper_recipe in recipes(name)
    assert config.model.variant in zoo.model_module(config.model_name).VARIANTS


@each_recipe
def test_a_recipe_has_every_key_and_no_others(name, recipe):
    config = config_file(name).get_config(recipe)
    expected = common.choose({"desk": lambda: common.base("", "", 1, {})}, "", name="", paper="")
    own = ("model.", "boxes.")  # of the network, and of a task that finds boxes
    assert {key for key in flat(config) if not key.startswith(own)} == {
        key for key in flat(expected) if not key.startswith(own)
    }
    finds_boxes = hasattr(tasks.task_module(config.task), "Settings")
    assert ("boxes" in config) == finds_boxes
    if finds_boxes:  # all of them, so that each can be overridden
        assert set(config.boxes) == {*tasks.task_module(config.task).Settings._fields}


@each_recipe
def test_a_recipe_can_be_locked_and_kept_as_json(name, recipe):
    config = config_file(name).get_config(recipe).lock()
    for node in (config, config.model, config.optim, config.data):
        with pytest.raises(AttributeError):
            node.no_such_key = 1
    for key, value in flat(config).items():
        assert isinstance(value, int | float | str | tuple | None), key
    assert json.loads(json.dumps(config.to_dict()))["model"]["variant"] == config.model.variant


@each_recipe
def test_every_field_of_the_network_is_a_key_and_every_key_a_field(name, recipe):
    config = config_file(name).get_config(recipe)
    model_class: Any = type(zoo.build_model(config.model_name, **config.model))
    fields = {field.name for field in dataclasses.fields(model_class)} - NOT_THE_USERS
    assert set(config.model) == fields | {"variant"}
    for key, hint in typing.get_type_hints(model_class).items():
        kind = typing.get_args(hint)[0] if isinstance(hint, types.UnionType) else hint  # x | None
        kind = typing.get_origin(kind) or kind
        if key in fields - {"dtype"} and kind is not Any:
            # overrides are checked against the key's type
            assert config.model.get_type(key) is kind, f"model.{key} is a {kind} in {model_class}"


@each_recipe
def test_the_network_takes_the_images_and_has_a_head_for_the_classes(name, recipe):
    config = config_file(name).get_config(recipe)
    for host in ("train_host", "eval_host"):
        _, ends = network(config, host)
        heads = [
            name
            for name, end in ends.items()
            if end.shape[-1] == config.model.num_classes and not name.startswith("aux_")
        ]
        assert heads, f"no layer of {config.model.num_classes} classes"


@each_recipe
def test_the_network_can_serve_the_protocols(name, recipe):
    config = config_file(name).get_config(recipe)
    if config.eval.protocol == "single_view" and not config.eval.precise_bn:
        return
    variables, _ = network(config)
    model = zoo.build_model(config.model_name, **config.model)
    shape = inputs.configured_input(config)
    ops = inputs.parse_data(config.data).eval_device
    normalise = compose(ops, statistics(shape), train=False)
    settings = {"mirror": config.eval.mirror, "precise_bn": config.eval.precise_bn}
    task = tasks.task_module(config.task)
    protocols = task.protocols(config.eval.protocol, model, variables, normalise, shape, **settings)
    assert [*protocols] == opstrings.split(config.eval.protocol)


@each_recipe
def test_operations_schedule_and_numbers_make_sense(name, recipe):
    config = config_file(name).get_config(recipe)
    ranges.check_ranges(config)
    for key in ("train_host", "eval_host"):
        ops = opstrings.parse(config.data[key], host_ops, leading=1, key=f"data.{key}")
        assert ops[0].name == "decode"
        assert key == "train_host" or not any(op.needs("rng") for op in ops)
    compose(inputs.parse_data(config.data).train_device, None, train=True)
    compose(inputs.parse_data(config.data).eval_device, None, train=False)
    variables, _ = network(config)
    settings = optim.OptimizerSettings.from_config(config)
    optimizer = optim.make_optimizer(
        variables["params"],
        settings,
        batch_size=config.batch_size,
        steps_per_epoch=100.0,
        total_steps=1000,
    )
    assert callable(optimizer.update)


@each_recipe
def test_images_are_mirrored_before_a_mean_image_of_their_size_is_subtracted(name, recipe):
    """As in a test, where a mirror image is another view. (CIFAR: before it is padded.)"""
    device = config_file(name).get_config(recipe).data.train_device
    ops = [op.name for op in parse_device(device, key="data.train_device").ops]
    if {"flip", "subtract_mean_image"} <= {*ops} and "pad_crop" not in ops:
        assert ops.index("flip") < ops.index("subtract_mean_image")


@each_recipe
def test_an_override_changes_nothing_else(name, recipe):
    before = flat(config_file(name).get_config(recipe))
    for key in OVERRIDDEN:
        config = config_file(name).get_config(recipe).lock()
        config.update_from_flattened_dict({key: before[key] + 1})
        assert flat(config) == {**before, key: before[key] + 1}


def test_every_network_of_the_zoo_that_has_a_config_is_named_by_it():
    used = {config_file(name).get_config(recipe).model_name for name, recipe in RECIPES}
    assert used <= set(zoo.model_names())
