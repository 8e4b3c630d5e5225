"""The train step: against a computation by hand; skipping, averages, parts, seeds, precision."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_papers.counting import abstract_variables
from cnn_papers.models import resnet
from cnn_papers.parallel import mesh as meshes
from cnn_papers.tasks import classify
from cnn_papers.tasks.classify import Totals
from cnn_papers.training.losses import classification, cross_entropy, errors
from cnn_papers.training.optim import OptimizerSettings, make_optimizer
from cnn_papers.training.step import StepSettings, init_state, make_predict_step, make_train_step

SHAPE, CLASSES, N = (2, 2, 1), 3, 12
RATE, MOMENTUM, DECAY = 0.5, 0.9, 0.01


class Linear(nn.Module):
    """One layer, with an auxiliary one where `aux`, dropout and normalisation where asked for."""

    aux: bool = False
    dropout: float = 0.0
    norm: bool = False
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, image, *, train=False):
        x = image.reshape(len(image), -1)
        if self.norm:
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype)(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        logits = nn.Dense(CLASSES, dtype=self.dtype, name="fc")(x).astype(jnp.float32)
        ends = {"fc": logits}
        if self.aux:
            ends["aux_fc"] = nn.Dense(CLASSES, name="aux")(x)
        return logits, ends


def _scaled(images, key):
    del key
    return images.astype(jnp.float32) / 255


def _optimizer(params, total_steps=100, **changes):
    settings = OptimizerSettings(
        lr=RATE, lr_batch=N, momentum=MOMENTUM, weight_decay=DECAY
    )._replace(**changes)
    return make_optimizer(
        params, settings, batch_size=N, steps_per_epoch=10.0, total_steps=total_steps
    )


@functools.cache
def _training(model, *, seed=0, shape=SHAPE, augment=_scaled, **changes):
    """A fresh state and the jitted step; `changes` are settings of the step or of the optimiser."""
    settings = StepSettings(
        **{name: changes.pop(name) for name in StepSettings._fields if name in changes}
    )
    key = jax.random.key(seed)
    rngs = {"params": key, "dropout": key}
    params = jax.eval_shape(lambda: model.init(rngs, jnp.zeros((1, *shape)), train=True))["params"]
    optimizer = _optimizer(params, **changes)
    state = init_state(model, optimizer, shape, key, ema=settings.ema_decay > 0, totals=Totals)
    step = jax.jit(make_train_step(model, optimizer, augment, settings, classify))
    return state, functools.partial(step, key=key)


def _batch(seed=0, n=N, shape=SHAPE):
    draw = np.random.default_rng(seed)
    image = draw.integers(0, 256, (n, *shape), np.uint8)
    return {
        "image": jnp.asarray(image),
        "label": jnp.asarray(draw.integers(0, CLASSES, n), jnp.int32),
    }


def _assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def _assert_close(a, b, rtol=1e-5):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6), *jax.device_get((a, b))
    )


def _differs(a, b) -> bool:
    return any(
        bool((x != y).any())
        for x, y in zip(*map(jax.tree.leaves, jax.device_get((a, b))), strict=True)
    )


# --- the step by hand -----------------------------------------------------------------------------


def _by_hand(w, b, batch):
    """Loss, top-1 error in percent and gradients of a linear softmax classifier, float64."""
    x = np.asarray(batch["image"], np.float64).reshape(N, -1) / 255
    label = np.asarray(batch["label"])
    logits = x @ w + b
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss = -np.log(p[np.arange(N), label]).mean()
    d = (p - np.eye(CLASSES)[label]) / N
    return loss, 100 * (logits.argmax(1) != label).mean(), x.T @ d, d.sum(0)


def test_steps_are_those_of_a_computation_by_hand():
    state, step = _training(Linear(), ema_decay=0.75)
    w, b = (np.asarray(state.params["fc"][name], np.float64) for name in ("kernel", "bias"))
    v_w, v_b, ema_w = 0 * w, 0 * b, w
    total = 0.0
    for i in range(3):
        loss, error, g_w, g_b = _by_hand(w, b, _batch(i))
        norm = np.sqrt((g_w**2).sum() + (g_b**2).sum())
        v_w = MOMENTUM * v_w + RATE * (g_w + DECAY * w)
        v_b = MOMENTUM * v_b + RATE * (g_b + DECAY * b)
        w, b = w - v_w, b - v_b
        ema_w, total = 0.75 * ema_w + 0.25 * w, total + loss
        state, scalars = step(state, _batch(i))
        _assert_close(state.params["fc"], {"kernel": w, "bias": b})
        _assert_close(state.ema["fc"]["kernel"], ema_w)
        _assert_close(
            scalars,
            {
                "loss": loss,
                "top1_error": error,
                "grad_norm": norm,
                "lr": RATE,
                "skipped_in_a_row": 0,
            },
        )
    assert int(state.step) == int(state.totals.steps) == 3 and int(state.skipped) == 0
    assert float(state.totals.loss) == pytest.approx(total, rel=1e-6)


def test_the_auxiliary_loss_weighs_0_3():
    model, batch = Linear(aux=True), _batch()
    state, step = _training(model, aux_weight=0.3, momentum=0.0, weight_decay=0.0)
    logits, ends = model.apply({"params": state.params}, _scaled(batch["image"], None))
    after, scalars = step(state, batch)
    parts = [float(cross_entropy(x, batch["label"])) for x in (logits, ends["aux_fc"])]
    assert float(scalars["loss"]) == pytest.approx(parts[0] + 0.3 * parts[1], rel=1e-6)
    w, b = (np.asarray(state.params["aux"][name], np.float64) for name in ("kernel", "bias"))
    gradient = _by_hand(w, b, batch)[2]
    _assert_close(after.params["aux"]["kernel"], w - RATE * 0.3 * gradient)
    without, _ = _training(model, aux_weight=0.0, momentum=0.0, weight_decay=0.0)[1](state, batch)
    _assert_equal(without.params["aux"], state.params["aux"])
    _assert_equal(without.params["fc"], after.params["fc"])


def test_classification_sums_every_auxiliary_head_and_no_other_endpoint():
    logits = jnp.array([[0.0, 0.0]])
    ends = {
        "fc": jnp.array([[9.0, 0.0]]),
        "aux_1": logits,
        "aux_2": jnp.array([[0.0, 3.0]]),
        "loss_aux": 7 * logits,
    }
    loss = classification(logits, ends, jnp.array([0]), aux_weight=0.3)
    assert float(loss) == pytest.approx(
        np.log(2) + 0.3 * (np.log(2) + np.log(1 + np.exp(3))), rel=1e-6
    )


# --- errors ---------------------------------------------------------------------------------------


def test_errors_among_the_highest_k():
    logits = jnp.array([[6.0, 5, 4, 3, 2, 1, 0]] * 7)
    assert errors(logits, jnp.arange(7), 1).tolist() == [0, 1, 1, 1, 1, 1, 1]
    assert errors(logits, jnp.arange(7), 5).tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert errors(logits, jnp.arange(7), 1).dtype == jnp.float32


def test_fewer_classes_than_k_are_never_wrong():
    assert errors(jnp.array([[0.0, 1.0, 2.0]] * 3), jnp.arange(3), 5).tolist() == [0, 0, 0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_wrong(bad):
    logits = jnp.array([[bad, 1.0, 0.0], [1.0, bad, 0.0], [bad, bad, bad], [1.0, 0.0, 0.5]])
    for k in (1, 5):
        assert errors(logits, jnp.array([0, 0, 0, 0]), k).tolist() == [1, 1, 1, 0]


def test_ties_go_to_the_lower_class():
    assert errors(jnp.zeros((3, 3)), jnp.arange(3), 1).tolist() == [0, 1, 1]
    assert errors(jnp.zeros((8, 8)), jnp.arange(8), 5).tolist() == [0, 0, 0, 0, 0, 1, 1, 1]


# --- the gate -------------------------------------------------------------------------------------


def _poisoned(images, key):
    """Scaled images; a batch whose first pixel is 255 turns into NaN."""
    return jnp.where(images.reshape(-1)[0] == 255, jnp.nan, _scaled(images, key))


def _with_first_pixel(batch, value):
    return batch | {"image": batch["image"].at[0, 0, 0, 0].set(value)}


@pytest.mark.fault("not finite: a batch of NaN", "whole state unchanged, counted; training goes on")
def test_a_batch_of_nan_changes_nothing_is_counted_and_training_goes_on():
    good, bad = _with_first_pixel(_batch(), 0), _with_first_pixel(_batch(), 255)
    state, step = _training(Linear(norm=True), augment=_poisoned, ema_decay=0.9)
    state, _ = step(state, good)
    before = jax.device_get(state)
    for skipped in (1, 2):
        state, scalars = step(state, bad)
        kept = ("params", "batch_stats", "opt_state", "ema", "totals")
        for name in kept:
            _assert_equal(getattr(state, name), getattr(before, name))
        assert int(state.step) == 1 + skipped
        assert (
            int(state.skipped)
            == int(state.skipped_in_a_row)
            == int(scalars["skipped_in_a_row"])
            == skipped
        )
        assert np.isnan(scalars["loss"])
    state, scalars = step(state, good)
    assert (int(state.step), int(state.skipped), int(state.skipped_in_a_row)) == (4, 2, 0)
    assert np.isfinite(scalars["loss"]) and int(state.totals.steps) == 2
    for name in ("params", "batch_stats", "opt_state", "ema"):
        assert _differs(getattr(state, name), getattr(before, name))
        assert all(
            np.isfinite(leaf).all() for leaf in jax.tree.leaves(getattr(state, name)) if leaf.ndim
        )


@pytest.mark.fault("not finite: a gradient, under a finite loss", "whole state unchanged, counted")
def test_a_finite_loss_with_a_gradient_that_is_not_is_skipped_too():
    def root(images, key):
        return _scaled(images, key) * 1e30  # a gradient whose square overflows

    state, step = _training(Linear(), augment=root)
    state = state._replace(params=jax.tree.map(jnp.zeros_like, state.params))
    after, scalars = step(state, _batch())
    assert float(scalars["loss"]) == pytest.approx(np.log(CLASSES)) and np.isinf(
        scalars["grad_norm"]
    )
    assert int(after.skipped) == 1
    _assert_equal(after.params, state.params)


@pytest.mark.fault("not finite: a loss above `optim.max_loss`", "whole state unchanged, counted")
def test_a_spike_of_the_loss_is_left_out_where_a_limit_is_set():
    def brighter(images, key):
        return jnp.where(images.reshape(-1)[0] == 255, 1e3, 1.0) * _scaled(images, key)

    good, spike = _with_first_pixel(_batch(), 0), _with_first_pixel(_batch(), 255)
    for max_loss in (0.0, 20.0):
        state, step = _training(Linear(norm=False), augment=brighter, max_loss=max_loss)
        state, scalars = step(state, good)
        assert float(scalars["loss"]) < 20
        after, scalars = step(state, spike)
        assert 20 < float(scalars["loss"]) < np.inf
        assert int(after.skipped) == (max_loss > 0)
        if max_loss:
            _assert_equal(after.params, state.params)
            _assert_equal(after.opt_state, state.opt_state)
        else:
            assert _differs(after.params, state.params)


@pytest.mark.fault("not finite: an update that overflows", "whole state unchanged, counted")
@pytest.mark.parametrize(
    "settings", [{"lr": 3e38, "weight_decay": 1e4}, {"schedule": "poly(-1.0)", "total_steps": 1}]
)
def test_parameters_never_become_infinite(settings):
    """A finite loss and gradient, but an update that is not: the rate overflows."""
    state, step = _training(Linear(), **settings)
    for i in range(4):
        state, _ = step(state, _batch(i))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    assert int(state.skipped) > 0


@pytest.mark.fault("not finite: batch statistics that overflow", "whole state unchanged, counted")
def test_statistics_never_become_infinite():
    """The square of activations overflows: infinite variance, outputs of 0, so a finite loss."""

    def huge(images, key):
        del key
        return jnp.where(images > 127, 2e19, -2e19)

    state, step = _training(Linear(norm=True), augment=huge)
    after, scalars = step(state, _batch())
    assert np.isfinite([scalars["loss"], scalars["grad_norm"]]).all()
    _assert_equal((after.batch_stats, after.params), (state.batch_stats, state.params))
    assert int(after.skipped) == 1


def test_the_check_of_finite_values_is_compiled_once_and_not_for_every_array():
    state, step = _training(resnet.Model("cifar-8", num_classes=CLASSES), shape=(8, 8, 3))
    program = step.func.lower(state, _batch(shape=(8, 8, 3)), **step.keywords).compile().as_text()
    checked = len(jax.tree.leaves((state.params, state.batch_stats)))
    assert checked > 30
    assert program.count(" = ") < 170 * checked  # 268 if it were repeated


# --- statistics, averages, parts ------------------------------------------------------------------


def test_batch_statistics_move_towards_the_batch():
    state, step = _training(Linear(norm=True))
    batch = _batch()
    after, _ = step(state, batch)
    x = np.asarray(batch["image"], np.float64).reshape(N, -1) / 255
    _assert_close(
        after.batch_stats["BatchNorm_0"], {"mean": 0.1 * x.mean(0), "var": 0.9 + 0.1 * x.var(0)}
    )


def test_without_an_average_there_is_none():
    state, step = _training(Linear())
    assert state.ema is None and step(state, _batch())[0].ema is None


def test_parts_of_a_batch_equal_the_whole():
    """Of a network without batch normalisation and dropout."""
    (state, whole), (_, in_parts) = (
        _training(Linear(aux=True), aux_weight=0.3, accumulate=k) for k in (1, 3)
    )
    one, two = state, state
    for i in range(3):
        one, scalars = whole(one, _batch(i))
        two, scalars_in_parts = in_parts(two, _batch(i))
        _assert_close(scalars, scalars_in_parts)
    _assert_close(one, two)


def test_parts_are_normalised_apart_one_after_the_other():
    """Batch statistics follow the parts: rows 0, 2, 4 … and then rows 1, 3, 5 …"""
    state, step = _training(Linear(norm=True), accumulate=2)
    batch = _batch()
    after, scalars = step(state, batch)
    x = np.asarray(batch["image"], np.float64).reshape(N, -1) / 255
    mean = 0.1 * x[1::2].mean(0) + 0.9 * 0.1 * x[::2].mean(0)
    var = 0.1 * x[1::2].var(0) + 0.9 * (0.9 + 0.1 * x[::2].var(0))
    _assert_close(after.batch_stats["BatchNorm_0"], {"mean": mean, "var": var})
    assert float(scalars["loss"]) != float(_training(Linear(norm=True))[1](state, batch)[1]["loss"])


def test_groups_are_normalised_by_themselves_and_their_statistics_averaged():
    """As on the papers' GPUs: rows 0 … 3, 4 … 7 and 8 … 11, each with its own mean and variance."""
    state, step = _training(Linear(norm=True, aux=True), aux_weight=0.3, bn_group=4)
    batch = _batch()
    after, scalars = step(state, batch)
    groups = np.asarray(batch["image"], np.float64).reshape(3, 4, -1) / 255
    _assert_close(
        after.batch_stats["BatchNorm_0"],
        {"mean": 0.1 * groups.mean(1).mean(0), "var": 0.9 + 0.1 * groups.var(1).mean(0)},
    )
    normed = (groups - groups.mean(1, keepdims=True)) / np.sqrt(groups.var(1, keepdims=True) + 1e-5)
    params, label, loss = jax.device_get(state.params), np.asarray(batch["label"]), 0.0
    for name, weight in (("fc", 1.0), ("aux", 0.3)):
        logits = normed.reshape(N, -1) @ params[name]["kernel"] + params[name]["bias"]
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        loss -= weight * log_p[np.arange(N), label].mean()
    assert float(scalars["loss"]) == pytest.approx(loss, rel=1e-4)


@pytest.mark.fault("not finite: one of several accumulated parts", "whole state unchanged, counted")
def test_one_bad_part_skips_the_whole_step():
    def poison_the_last(images, key):
        return _scaled(images, key).at[-1].set(jnp.nan)

    state, step = _training(Linear(norm=True), augment=poison_the_last, accumulate=3)
    after, _ = step(state, _batch())
    assert int(after.skipped) == 1
    _assert_equal(
        (after.params, after.batch_stats, after.opt_state),
        (state.params, state.batch_stats, state.opt_state),
    )


# --- randomness -----------------------------------------------------------------------------------


def _noisy(images, key):
    return _scaled(images, key) + jax.random.uniform(key, (), maxval=1e-3)


@pytest.mark.parametrize("model, preprocess", [(Linear(dropout=0.5), _scaled), (Linear(), _noisy)])
def test_dropout_and_augmentation_differ_from_step_to_step_and_follow_the_seed(model, preprocess):
    state, step = _training(model, augment=preprocess, lr=0.0)
    other = _training(model, augment=preprocess, lr=0.0, seed=1)[1]
    losses, again, others = [], [], []
    for i in range(3):
        at_step = state._replace(step=jnp.int32(i))
        losses.append(float(step(at_step, _batch())[1]["loss"]))
        again.append(float(step(at_step, _batch())[1]["loss"]))
        others.append(float(other(at_step, _batch())[1]["loss"]))
    assert losses == again and len({*losses, *others}) == 6


def test_parts_drop_out_apart():
    """With all rows alike, parts that shared one mask would have one loss."""
    state, step = _training(Linear(dropout=0.5), lr=0.0, accumulate=2)
    row = _batch(n=1)
    batch = {name: jnp.repeat(value, N, 0) for name, value in row.items()}
    whole = _training(Linear(dropout=0.5), lr=0.0)[1]
    assert float(step(state, batch)[1]["loss"]) != float(whole(state, batch)[1]["loss"])


def test_evaluation_neither_drops_out_nor_moves_statistics():
    model = Linear(dropout=0.5, norm=True)
    state, step = _training(model)
    state, _ = step(state, _batch())
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    predict = make_predict_step(model, _scaled)
    logits = predict(variables, _batch()["image"])
    _assert_equal(logits, predict(variables, _batch()["image"]))
    stats = jax.device_get(state.batch_stats["BatchNorm_0"])
    x = np.asarray(_batch()["image"], np.float64).reshape(N, -1) / 255
    norm, fc = (jax.device_get(state.params[name]) for name in ("BatchNorm_0", "fc"))
    x = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * norm["scale"] + norm["bias"]
    _assert_close(logits, x @ fc["kernel"] + fc["bias"], rtol=1e-4)


# --- precision ------------------------------------------------------------------------------------


def test_bfloat16_computes_in_bfloat16_and_keeps_float32():
    shape = (8, 8, 1)
    model = resnet.Model("cifar-8", num_classes=CLASSES, dtype=jnp.dtype("bfloat16"))
    params = abstract_variables(model, shape)["params"]
    optimizer = _optimizer(params)
    key = jax.random.key(0)
    state = jax.eval_shape(
        lambda: init_state(model, optimizer, shape, key, ema=True, totals=Totals)
    )
    step = make_train_step(model, optimizer, _scaled, StepSettings(ema_decay=0.9), classify)
    program, shapes = jax.make_jaxpr(step, return_shape=True)(state, _batch(shape=shape), key)
    convolutions = [line for line in str(program).splitlines() if "conv_general_dilated[" in line]
    # forward; back to the activations, except those of the first; to the kernels
    assert len(convolutions) == 7 + 6 + 7
    assert all(":bf16" in line for line in convolutions)
    for tree in (state, *shapes):
        floats = [
            leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)
        ]
        assert {leaf.dtype for leaf in floats} == {jnp.dtype("float32")}


def test_bfloat16_steps_are_near_those_of_float32():
    (state, step), (exact, exact_step) = (
        _training(Linear(dtype=jnp.dtype(d))) for d in ("bfloat16", "float32")
    )
    _assert_equal(state.params, exact.params)
    for i in range(5):
        state, scalars = step(state, _batch(i))
        exact, reference = exact_step(exact, _batch(i))
        assert float(scalars["loss"]) != float(reference["loss"])
        _assert_close(scalars["loss"], reference["loss"], rtol=0.02)


# --- weights of classes ---------------------------------------------------------------------------

WEIGHTS = (0.5, 3.0, 1.25)


def _loss_by_torch(model, state, batch):
    """The loss and the gradient of the layer `fc`, by torch's weighted cross-entropy."""
    torch = pytest.importorskip("torch")
    criterion = torch.nn.CrossEntropyLoss(weight=torch.tensor(WEIGHTS))
    x = torch.tensor(np.asarray(_scaled(batch["image"], None)).reshape(N, -1))
    label = torch.tensor(np.asarray(batch["label"]), dtype=torch.long)
    kernel, bias = (
        torch.tensor(np.asarray(state.params["fc"][name]), requires_grad=True)
        for name in ("kernel", "bias")
    )
    loss = criterion(x @ kernel + bias, label)
    if model.aux:
        aux = (torch.tensor(np.asarray(state.params["aux"][name])) for name in ("kernel", "bias"))
        weight, constant = aux
        loss = loss + 0.3 * criterion(x @ weight + constant, label)
    loss.backward()
    return loss.item(), kernel.grad.numpy(), bias.grad.numpy()


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("aux", [False, True])
def test_weighted_losses_are_torchs_also_in_parts(aux, accumulate):
    """The weights of a part are divided by those of the whole batch, not by its own."""
    model, batch = Linear(aux=aux), _batch()
    state, step = _training(
        model,
        class_weights=WEIGHTS,
        aux_weight=0.3,
        accumulate=accumulate,
        momentum=0.0,
        weight_decay=0.0,
    )
    after, scalars = step(state, batch)
    loss, kernel_gradient, bias_gradient = _loss_by_torch(model, state, batch)
    assert float(scalars["loss"]) == pytest.approx(loss, rel=1e-5)
    expected = {
        "kernel": state.params["fc"]["kernel"] - RATE * kernel_gradient,
        "bias": state.params["fc"]["bias"] - RATE * bias_gradient,
    }
    _assert_close(after.params["fc"], expected)


def test_weights_leave_the_error_as_it_is_and_equal_ones_the_loss():
    batch = _batch()
    scalars = [
        _training(Linear(), class_weights=weights)[1](_training(Linear())[0], batch)[1]
        for weights in ((), WEIGHTS, (7.0, 7.0, 7.0))
    ]
    errors = [float(values["top1_error"]) for values in scalars]
    losses = [float(values["loss"]) for values in scalars]
    assert errors[0] == errors[1] == errors[2]
    assert losses[2] == pytest.approx(losses[0], rel=1e-6) and abs(losses[1] - losses[0]) > 0.01


def test_weighted_losses_over_a_mesh_are_those_of_one_device():
    batch = _batch()
    state, step = _training(Linear(aux=True), class_weights=WEIGHTS, aux_weight=0.3)
    expected, scalars = step(state, batch)
    mesh = meshes.make_mesh(4)
    everywhere = meshes.replicated(mesh)
    key = jax.device_put(step.keywords["key"], everywhere)
    rows = jax.device_put(batch, meshes.data_sharding(mesh))
    over_mesh = step.func(jax.device_put(state, everywhere), rows, key)
    _assert_close(over_mesh, (expected, scalars))
