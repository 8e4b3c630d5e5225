"""AlexNet's two columns over a mesh: the exchanges, and the same numbers as on one device."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from support.random_variables import random_variables

from cnn_papers.benchmarks.collectives import collectives
from cnn_papers.models import alexnet, vgg
from cnn_papers.models.shared import columns
from cnn_papers.parallel import mesh as meshes
from cnn_papers.tasks import classify
from cnn_papers.training import optim
from cnn_papers.training.step import StepSettings, init_state, make_train_step

IMAGE, CLASSES, BATCH = (67, 67, 3), 10, 8
SMALL = {"width": 0.125, "num_classes": CLASSES}


def sent(compiled: Any) -> list[tuple[str, str]]:
    """Returns the kind and the layer of each exchange in a compiled program, in order."""
    layers = [f"{kind}{i}" for kind in ("conv", "bn") for i in range(1, 6)]
    exchanges = collectives(compiled, [*layers, "fc6", "fc7", "fc8"])
    return [(exchange.kind, exchange.layer) for exchange in exchanges]


def images(seed: int = 0, count: int = BATCH) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, *IMAGE)).astype(np.float32)


def on(mesh: Mesh, variables: Any) -> Any:
    return jax.device_put(
        variables, meshes.shardings(mesh, variables, columns=alexnet.AlexNet.column_layers)
    )


def forward(net: Any) -> Any:
    return jax.jit(
        lambda v, x: net.apply(
            v, x, train=True, rngs={"dropout": jax.random.key(3)}, mutable=["batch_stats"]
        )
    )


@functools.cache
def one_device(variant: str) -> tuple[Any, Any, Any, Any]:
    """Returns the network, its variables and its outputs on one device, with dropout."""
    model = alexnet.Model(variant, **SMALL)
    variables = random_variables(model, IMAGE)
    return model, variables, *forward(model)(variables, images())


@pytest.mark.parametrize("shape", [(1, 2), (2, 2), (4, 2)])
@pytest.mark.parametrize("variant", ["paper", "batch_norm"])
def test_only_conv3_and_the_fully_connected_layers_gather_both_columns(shape, variant):
    model, variables, (logits, ends), updates = one_device(variant)
    mesh = meshes.make_mesh(*shape)
    compiled = forward(columns.over(model, mesh)).lower(on(mesh, variables), images()).compile()
    gathers = [layer for kind, layer in sent(compiled) if kind == "all-gather"]
    assert gathers == ["conv3", "fc6", "fc7", "fc8"]
    others = {layer for kind, layer in sent(compiled) if kind != "all-gather"}
    assert others <= {f"bn{i}" for i in range(1, 6)}  # the statistics of the global batch
    assert bool(others) == (variant == "batch_norm" and shape[0] > 1)
    (split_logits, split_ends), split_updates = compiled(
        on(mesh, variables), jax.device_put(images(), meshes.data_sharding(mesh))
    )
    np.testing.assert_allclose(split_logits, logits, rtol=1e-4, atol=1e-5 * np.abs(logits).max())
    assert split_ends.keys() == ends.keys()
    for name, end in ends.items():
        np.testing.assert_allclose(
            split_ends[name], end, rtol=1e-4, atol=1e-5 * np.abs(end).max(), err_msg=name
        )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), split_updates, updates
    )


def test_a_mesh_without_columns_sends_nothing_forward():
    model, variables, (logits, _), _ = one_device("paper")
    mesh = meshes.make_mesh(4)
    net = columns.over(model, mesh)
    assert net is model
    whole = jax.device_put(variables, meshes.replicated(mesh))
    batch = jax.device_put(images(), meshes.data_sharding(mesh))
    compiled = forward(net).lower(whole, batch).compile()
    assert sent(compiled) == []
    np.testing.assert_allclose(
        compiled(whole, batch)[0][0], logits, rtol=1e-4, atol=1e-5 * np.abs(logits).max()
    )


def test_dropout_differs_between_columns_and_devices():
    """Each device takes its own part of one mask."""
    mesh = meshes.make_mesh(2, 2)
    drop = columns.Dropout(0.5, holds_one=True)

    def local(x: jax.Array) -> jax.Array:
        return drop.apply({}, x, deterministic=False, rngs={"dropout": jax.random.key(0)})

    spec = columns.activation_spec(4)
    dropped = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec))
    masks = dropped(jnp.ones((4, 1, 1, 64)))
    parts = [
        np.asarray(masks)[rows, ..., cols]
        for rows in (slice(2), slice(2, 4))
        for cols in (slice(32), slice(32, 64))
    ]
    assert all((a != b).any() for i, a in enumerate(parts) for b in parts[:i])
    assert set(np.unique(masks)) == {0.0, 2.0}


def ten_steps(model: Any, mesh: Mesh, *, shard_params: bool = False) -> tuple[Any, list[float]]:
    """Returns the state and the losses of ten steps with momentum, decay and dropout."""
    optimizer = optim.make_optimizer(
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *IMAGE))))["params"],
        optim.OptimizerSettings(lr=0.01, lr_batch=BATCH, weight_decay=5e-4),
        batch_size=BATCH,
        steps_per_epoch=10.0,
        total_steps=10,
    )
    init = functools.partial(init_state, model, optimizer, IMAGE, ema=False, totals=classify.Totals)
    places = meshes.shardings(
        mesh,
        jax.eval_shape(init, jax.random.key(0)),
        columns=alexnet.AlexNet.column_layers,
        shard_params=shard_params,
    )
    step = make_train_step(
        columns.over(model, mesh),
        optimizer,
        lambda image, key: image / 64 - 2,
        StepSettings(),
        classify,
    )
    everywhere = meshes.replicated(mesh)
    step = jax.jit(
        step,
        in_shardings=(places, meshes.data_sharding(mesh), everywhere),
        out_shardings=(places, everywhere),
    )
    state, losses = jax.jit(init, out_shardings=places)(jax.random.key(0)), []
    random = np.random.default_rng(0)
    for _ in range(10):
        image = random.integers(0, 256, (BATCH, *IMAGE), np.uint8)
        batch = {"image": image, "label": random.integers(0, CLASSES, BATCH, np.int32)}
        state, scalars = step(
            state, jax.device_put(batch, meshes.data_sharding(mesh)), jax.random.key(1)
        )
        losses.append(float(scalars["loss"]))
    assert int(state.skipped) == 0
    return state, losses


@functools.cache
def reference() -> tuple[Any, Any, list[float]]:
    model = alexnet.Model("paper", weight_init="he", **SMALL)
    return model, *ten_steps(model, meshes.make_mesh(1))


@pytest.mark.parametrize(
    "shape, shard_params",
    [
        ((4, 2), True),
        pytest.param((4, 2), False, marks=pytest.mark.process),
        pytest.param((1, 2), False, marks=pytest.mark.process),
        pytest.param((1, 2), True, marks=pytest.mark.process),
        pytest.param((8, 1), False, marks=pytest.mark.process),
        pytest.param((8, 1), True, marks=pytest.mark.process),
    ],
)
def test_ten_training_steps_are_those_of_one_device(shape, shard_params):
    model, expected, losses = reference()
    state, split_losses = ten_steps(model, meshes.make_mesh(*shape), shard_params=shard_params)
    np.testing.assert_allclose(split_losses, losses, rtol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5),
        state.params,
        expected.params,
    )


def test_each_device_holds_its_share():
    """Half of each column layer; with `shard_params` also a part of that over `data`."""
    model = alexnet.Model("paper", **SMALL)
    optimizer = optim.Optimizer(lambda params: {"trace": params}, None, None, None)
    state = jax.eval_shape(
        functools.partial(init_state, model, optimizer, IMAGE, ema=False, totals=classify.Totals),
        jax.random.key(0),
    )
    whole = sum(leaf.size for leaf in jax.tree.leaves(state.params))

    def share(mesh: Mesh, tree: Any, **options: Any) -> float:
        places = jax.tree.leaves(
            meshes.shardings(mesh, tree, columns=alexnet.AlexNet.column_layers, **options)
        )
        held = [
            np.prod(at.shard_shape(leaf.shape))
            for at, leaf in zip(places, jax.tree.leaves(tree), strict=True)
        ]
        return sum(held) / whole

    assert share(meshes.make_mesh(4), state.params) == 1
    mesh = meshes.make_mesh(4, 2)
    assert share(mesh, state.params) == 0.5
    eighth = pytest.approx(0.125, rel=0.1)  # conv1 does not divide
    assert share(mesh, state.params, shard_params=True) == eighth
    assert share(mesh, state.opt_state, shard_params=True) == eighth


def test_vggs_fully_connected_layers_split_by_annotation_only():
    model = vgg.Model("A", width=0.125, num_classes=CLASSES)
    variables = random_variables(model, (32, 32, 3))
    mesh = meshes.make_mesh(2, 2)
    places = meshes.shardings(mesh, variables, columns=vgg.VGG.column_layers)
    split = [
        path
        for path, place in jax.tree_util.tree_leaves_with_path(places)
        if place.spec and place.spec[-1]
    ]
    assert {
        jax.tree_util.keystr(path, simple=True, separator="/").split("/")[1] for path in split
    } == {"fc6", "fc7"}
    image = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
    apply = jax.jit(
        lambda v, x: model.apply(v, x)[0], in_shardings=(places, meshes.data_sharding(mesh))
    )
    expected = jax.jit(model.apply)(variables, image)[0]
    np.testing.assert_allclose(
        apply(variables, image), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()
    )


@pytest.mark.parametrize(
    ("fields", "column", "message"),
    [
        ({"num_classes": 5}, 2, "model.num_classes=5 does not divide into 2 columns"),
        ({}, 4, "the network has 2 columns"),
    ],
)
def test_a_mesh_that_the_columns_do_not_fit_is_refused(fields, column, message):
    with pytest.raises(ValueError, match=message):
        columns.over(alexnet.Model("paper", **fields), meshes.make_mesh(2, column))


def test_an_image_too_small_is_refused_on_a_mesh_too():
    model = alexnet.Model("paper", **SMALL)
    mesh = meshes.make_mesh(1, 2)
    variables = random_variables(model, IMAGE)
    with pytest.raises(ValueError, match="an image of 20×20 is too small"):
        columns.over(model, mesh).apply(variables, jnp.zeros((2, 20, 20, 3)))


def test_a_mesh_takes_the_available_devices():
    assert dict(meshes.make_mesh().shape) == {"data": 8}
    assert dict(meshes.make_mesh(-1, 2).shape) == {"data": 4, "column": 2}
    assert dict(meshes.make_mesh(3, 2).shape) == {"data": 3, "column": 2}
    assert isinstance(meshes.data_sharding(meshes.make_mesh(2, 2)), NamedSharding)
