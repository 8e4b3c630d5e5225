"""Frozen layers: they stay to the bit, cost nothing backward, and train alike on every mesh."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.interpreters import partial_eval

from cnn_papers import zoo
from cnn_papers.errors import UserError
from cnn_papers.parallel import mesh as meshes
from cnn_papers.parallel import processes
from cnn_papers.runs.checkpoint import Checkpoints
from cnn_papers.tasks import classify
from cnn_papers.training import freezing
from cnn_papers.training.optim import OptimizerSettings
from cnn_papers.training.placement import make_training
from cnn_papers.training.step import StepSettings

SHAPE, CLASSES, N = (8, 8, 3), 4, 12
OPTIM = OptimizerSettings(0.1, N, weight_decay=0.1, max_norms=((".*/kernel", 0.5),))
LOWER = "(conv|bn)1"
KEY = jax.random.key(0)


def _scaled(images, key):
    del key
    return images.astype(jnp.float32) / 255


class Chain(nn.Module):
    """Two convolutions with normalisation and a layer of classes."""

    num_classes: int = CLASSES

    @nn.compact
    def __call__(self, image, *, train=False):
        x = image
        for i in (1, 2):
            x = nn.Conv(4, (3, 3), (2, 2), use_bias=False, name=f"conv{i}")(x)
            x = nn.relu(nn.BatchNorm(not train, momentum=0.9, name=f"bn{i}")(x))
        logits = nn.Dense(CLASSES, name="fc")(x.mean((1, 2)))
        return logits, {"fc": logits}


@functools.cache
def _training(model, optim, step, mesh=(1, 1), shard_params=False, shape=SHAPE) -> Any:
    return make_training(
        model,
        shape,
        meshes.make_mesh(*mesh),
        _scaled,
        optim,
        step,
        classify,
        batch_size=N,
        steps_per_epoch=10.0,
        total_steps=100,
        shard_params=shard_params,
    )


def _trained(training, steps=3, state=None, shape=SHAPE):
    """The first state and the one after some steps, both on the host, and the last scalars."""
    state = training.init(KEY) if state is None else state
    before, scalars = jax.device_get(state), {}
    mesh = jax.tree.leaves(training.abstract)[0].sharding.mesh
    for i in range(int(before.step), int(before.step) + steps):
        draw = np.random.default_rng(i)
        batch = {
            "image": draw.integers(0, 256, (N, *shape), np.uint8),
            "label": draw.integers(0, CLASSES, N, np.int32),
        }
        batch = processes.put(batch, meshes.data_sharding(mesh))
        state, scalars = training.step(state, batch, KEY)
    return before, state, jax.device_get(scalars)


def _moved(before: Any, after: Any) -> set[str]:
    """The layers of which anything has changed."""
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), before, jax.device_get(after))
    paths = jax.tree_util.tree_leaves_with_path(changed)
    names = [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in paths]
    return {name.rpartition("/")[0] for name, leaf in names if leaf}


def _program(training):
    """The step's jaxpr as text, and its number of floating-point operations when compiled.

    What nothing uses is left out.
    """
    batch = {
        "image": jax.ShapeDtypeStruct((N, *SHAPE), np.uint8),
        "label": jax.ShapeDtypeStruct((N,), np.int32),
    }
    traced = training.step.trace(training.abstract, batch, KEY)
    used, _ = partial_eval.dce_jaxpr(traced.jaxpr.jaxpr, [True] * len(traced.jaxpr.out_avals))
    return str(used), traced.lower().compile().cost_analysis()["flops"]


# --- what stays -----------------------------------------------------------------------------------

UPPER = {"conv2", "bn2", "fc"}


@pytest.mark.parametrize(
    "step",
    [
        StepSettings(ema_decay=0.7),
        StepSettings(accumulate=2, bn_group=3),  # a mean of three equal numbers is not the number
    ],
)
def test_frozen_layers_stay_to_the_bit(step):
    """Under weight decay, momentum, a limit of norms and a running average."""
    before, after, _ = _trained(_training(Chain(), OPTIM._replace(frozen=LOWER), step))
    assert _moved(before.params, after.params) == UPPER
    assert _moved(before.batch_stats, after.batch_stats) == {"bn2"}
    if step.ema_decay:
        assert _moved(before.ema, after.ema) == UPPER


def test_the_optimiser_keeps_nothing_for_frozen_layers():
    state = _training(Chain(), OPTIM._replace(frozen=LOWER), StepSettings()).abstract
    assert len(jax.tree.leaves(state.opt_state)) == 4 + 5  # LearningRate; conv2, bn2 and fc


def test_statistics_may_move():
    step = StepSettings(move_frozen_statistics=True)
    before, after, _ = _trained(_training(Chain(), OPTIM._replace(frozen=LOWER), step))
    assert _moved(before.params, after.params) == UPPER
    assert _moved(before.batch_stats, after.batch_stats) == {"bn1", "bn2"}


class Normed(nn.Module):
    """A layer behind a normalisation and dropout."""

    dropout: float = 0.0
    num_classes: int = CLASSES

    @nn.compact
    def __call__(self, image, *, train=False):
        x = nn.BatchNorm(use_running_average=not train, name="bn")(image.reshape(len(image), -1))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        logits = nn.Dense(CLASSES, name="fc")(x)
        return logits, {"fc": logits}


@pytest.mark.parametrize("moves", [False, True])
def test_a_frozen_normalisation_works_as_in_evaluation_unless_its_statistics_move(moves):
    training = _training(
        Normed(),
        OPTIM._replace(frozen="bn"),
        StepSettings(move_frozen_statistics=moves),
        shape=(2, 2, 1),
    )
    state = training.init(KEY)
    mean, var = np.float32([0.1, 0.2, 0.3, 0.4]), np.float32([1, 2, 3, 4])
    stats = processes.put({"bn": {"mean": mean, "var": var}}, training.abstract.step.sharding)
    before, _, scalars = _trained(training, 1, state._replace(batch_stats=stats), (2, 2, 1))
    draw = np.random.default_rng(0)
    x = draw.integers(0, 256, (N, 2, 2, 1), np.uint8).reshape(N, -1) / 255
    label = draw.integers(0, CLASSES, N, np.int32)
    if moves:
        mean, var = x.mean(0), x.var(0)
    logits = (x - mean) / np.sqrt(var + 1e-5) @ before.params["fc"]["kernel"]
    loss = (np.log(np.exp(logits).sum(1)) - logits[np.arange(N), label]).mean()
    assert scalars["loss"] == pytest.approx(loss, rel=1e-5)


def test_dropout_is_that_of_a_network_without_frozen_layers():
    """Statistics move here, since those that stay change the loss."""
    step = StepSettings(move_frozen_statistics=True)
    losses = {
        frozen: float(
            _trained(
                _training(Normed(dropout), OPTIM._replace(frozen=frozen), step, shape=(2, 2, 1)),
                steps=1,
                shape=(2, 2, 1),
            )[2]["loss"]
        )
        for frozen, dropout in (("", 0.5), ("bn", 0.5), ("(bn)", 0.0))
    }
    assert losses[""] == losses["bn"] != losses["(bn)"]


def test_the_other_layers_get_the_gradient_that_they_get_without():
    """A rate of 0 computes all gradients, and trains the same layers to the same weights."""
    by_rate = OPTIM._replace(lr_mults=((f"{LOWER}/.*", 0.0),), max_norms=())
    by_freezing = OPTIM._replace(frozen=LOWER, max_norms=())
    step = StepSettings(move_frozen_statistics=True)
    one, two = (_trained(_training(Chain(), optim, step))[1] for optim in (by_rate, by_freezing))
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(two.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


# --- work -----------------------------------------------------------------------------------------


FIRST_STAGE = "(conv|bn)[12].*"  # of two, with the convolution before


def _resnet(last_blocks=1, **fields):
    return zoo.build_model(
        "resnet",
        variant="cifar-8",
        blocks=(1, last_blocks),
        widths=(4, 8),
        num_classes=CLASSES,
        **fields,
    )


@pytest.mark.parametrize(
    ("frozen", "convolutions"),
    [
        # forward; back to the activations, except those of the first; to the kernels
        ("", 5 + 4 + 5),
        (FIRST_STAGE, 5 + 1 + 2),  # back through the last of conv3_1's two
        ("(conv|bn).*", 5),
        ("conv[23].*|fc", 5 + 4 + 1),  # the lowest is trained: back through all, to one kernel
        ("conv.*", 5 + 4),  # normalisations are trained, and lie under all but one convolution
    ],
)
def test_nothing_is_computed_backward_below_the_lowest_trained_layer(frozen, convolutions):
    text, _ = _program(_training(_resnet(), OPTIM._replace(frozen=frozen), StepSettings()))
    assert text.count("conv_general_dilated[") == convolutions


def test_the_compiled_step_computes_less():
    flops = [
        _program(_training(_resnet(), OPTIM._replace(frozen=frozen), StepSettings()))[1]
        for frozen in ("", FIRST_STAGE, "(conv|bn).*")
    ]
    assert flops[1] < 0.6 * flops[0] and flops[2] < 0.5 * flops[0]


def test_blocks_in_a_loop_are_frozen_too():
    training = _training(_resnet(3, scan=True), OPTIM._replace(frozen=FIRST_STAGE), StepSettings())
    before, after, _ = _trained(training, 1)
    layers = ("conv1", "conv2", "bn1", "bn2")
    upper = {f"{block}/{layer}" for block in ("conv3_1", "conv3_2_to_3") for layer in layers}
    assert _moved(before.params, after.params) == upper | {"fc"}
    assert _moved(before.batch_stats, after.batch_stats) == {x for x in upper if "bn" in x}


# --- meshes and checkpoints -----------------------------------------------------------------------


@pytest.mark.parametrize("shard_params", [False, True])
def test_frozen_layers_over_a_mesh(shard_params):
    optim = OPTIM._replace(frozen=LOWER)
    _, alone, _ = _trained(_training(Chain(), optim, StepSettings()))
    training = _training(Chain(), optim, StepSettings(), (2, 1), shard_params)
    before, over_mesh, _ = _trained(training)
    assert _moved(before.params, over_mesh.params) == UPPER
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(over_mesh), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.process
def test_frozen_layers_over_columns():
    """AlexNet with batch normalisation: both columns of its first layers stay."""
    model = zoo.build_model(
        "alexnet", variant="batch_norm", num_classes=CLASSES, width=0.05, dropout=0.0
    )
    optim = OPTIM._replace(frozen="(conv|bn)[1-4].*", max_norms=())
    shape, states = (67, 67, 3), []
    for mesh in ((1, 1), (2, 2)):
        training = _training(model, optim, StepSettings(), mesh, shape=shape)
        before, after, _ = _trained(training, 2, shape=shape)
        moved = _moved((before.params, before.batch_stats), (after.params, after.batch_stats))
        assert {name[2:] for name in moved} == {"conv5", "bn5", "fc6", "fc7", "fc8"}
        states.append(after)
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_a_saved_state_goes_on_to_the_same_bits(tmp_path):
    training = _training(Chain(), OPTIM._replace(frozen=LOWER), StepSettings(ema_decay=0.9))
    _, whole, _ = _trained(training, 4)
    _, half, _ = _trained(training, 2)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(2, half)
    checkpoints.finish()
    restored = checkpoints.restore(2, training.abstract)
    checkpoints.close()
    _, again, _ = _trained(training, 2, restored)
    jax.tree.map(np.testing.assert_array_equal, *jax.device_get((whole, again)))


# --- mistakes -------------------------------------------------------------------------------------

PARAMS = {"conv1": {"kernel": 0}, "block": {"conv": {"kernel": 0, "bias": 0}}, "fc": {"bias": 0}}


def test_layers_are_matched_by_their_whole_names():
    assert freezing.layers_of(PARAMS) == ["conv1", "block/conv", "fc"]
    assert freezing.frozen_layers(PARAMS, "conv.") == {"conv1"}
    assert freezing.frozen_layers(PARAMS, "conv1|.*/conv") == {"conv1", "block/conv"}
    assert freezing.frozen_layers(PARAMS, "") == frozenset()


def test_parts_join_to_the_whole():
    trained, kept = freezing.split(PARAMS, frozenset({"block/conv"}))
    assert (trained, kept) == (
        {"conv1": {"kernel": 0}, "fc": {"bias": 0}},
        {"block": {"conv": {"kernel": 0, "bias": 0}}},
    )
    assert freezing.join(trained, kept) == PARAMS
    assert freezing.split(PARAMS, frozenset()) == (PARAMS, {})


@pytest.mark.fault("config: frozen layers that do not exist", "refused, with the network's layers")
def test_a_name_that_is_no_layer_is_refused_with_the_layers():
    message = "config.optim.frozen: no layer is called 'conv'; there are: conv1, block/conv, fc"
    with pytest.raises(UserError) as caught:
        freezing.frozen_layers(PARAMS, "conv")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (".*", r"^config\.optim\.frozen='\.\*' freezes every layer; leave one to train$"),
        ("conv[", r"^config\.optim\.frozen: 'conv\[' is not a regular expression: "),
    ],
)
def test_other_mistakes_are_refused(pattern, message):
    with pytest.raises(UserError, match=message):
        freezing.frozen_layers(PARAMS, pattern)
