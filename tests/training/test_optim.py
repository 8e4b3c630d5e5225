"""The optimiser: updates by hand and by torch, multipliers by path, values of every schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_papers.errors import UserError
from cnn_papers.runs.checkpoint import Checkpoints
from cnn_papers.tasks.classify import Totals
from cnn_papers.training.multipliers import multipliers
from cnn_papers.training.optim import OptimizerSettings, make_optimizer
from cnn_papers.training.schedules import Progress
from cnn_papers.training.step import State, zero_totals

PARAMS = {
    "conv1": {"kernel": np.float32([[1.0, -2.0], [0.5, 3.0]]), "bias": np.float32([0.25, -1.5])}
}
STEPS, DROP_AT = 12, 6


def _optimizer(params=None, **changes):
    run = {"batch_size": 128, "steps_per_epoch": 10.0, "total_steps": 100}
    run |= {key: changes.pop(key) for key in list(run) if key in changes}
    settings = OptimizerSettings(lr=0.1, lr_batch=128)._replace(**changes)
    return make_optimizer(PARAMS if params is None else params, settings, **run)


def _gradients() -> list[dict]:
    draw = np.random.default_rng(0)
    return [
        jax.tree.map(lambda w: draw.normal(size=w.shape).astype(np.float32), PARAMS)
        for _ in range(STEPS)
    ]


def _run(optimizer, gradients) -> list[dict]:
    """The parameters after each update."""
    params, path = jax.tree.map(jnp.asarray, PARAMS), []
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for grads in gradients:
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        path.append(jax.device_get(params))
    return path


def _rates(count: int = 100, **changes) -> np.ndarray:
    """The learning rate of the first `count` updates."""
    optimizer = _optimizer(**changes)
    state = optimizer.init(PARAMS)
    rates = []
    for _ in range(count):
        rates.append(float(optimizer.learning_rate(state)))
        state = optimizer.update(PARAMS, state, PARAMS)[1]
    return np.array(rates)


# --- the update -----------------------------------------------------------------------------------


def test_caffe_form_is_alexnets_update_by_hand():
    """AlexNet §5: v ← 0.9·v − 0.0005·ε·w − ε·g, w ← w + v, here with ε divided by 10 on the way."""
    gradients = _gradients()
    ours = _run(_optimizer(lr=0.01, weight_decay=5e-4, schedule=f"step({DROP_AT})"), gradients)
    w = {name: value.astype(np.float64) for name, value in PARAMS["conv1"].items()}
    v = {name: 0 * value for name, value in w.items()}
    for i, grads in enumerate(gradients):
        rate = 0.01 if i < DROP_AT else 0.001
        for name in w:
            v[name] = 0.9 * v[name] - 0.0005 * rate * w[name] - rate * grads["conv1"][name]
            w[name] = w[name] + v[name]
            np.testing.assert_allclose(ours[i]["conv1"][name], w[name], rtol=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
def test_torch_form_is_torchs(nesterov):
    torch = pytest.importorskip("torch")
    gradients = _gradients()
    settings = {"lr": 0.05, "momentum": 0.9, "nesterov": nesterov, "weight_decay": 1e-2}
    ours = _run(
        _optimizer(momentum_form="torch", schedule=f"step({DROP_AT})", **settings), gradients
    )
    w = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in PARAMS["conv1"].items()}
    theirs = torch.optim.SGD(w.values(), **settings)
    for i, grads in enumerate(gradients):
        for group in theirs.param_groups:
            group["lr"] = 0.05 if i < DROP_AT else 0.005
        for name, value in w.items():
            value.grad = torch.tensor(grads["conv1"][name])
        theirs.step()
        for name, value in w.items():
            np.testing.assert_allclose(
                ours[i]["conv1"][name], value.detach().numpy(), rtol=2e-6, atol=1e-7
            )


def test_the_forms_part_when_the_rate_drops():
    runs = [
        _run(_optimizer(momentum_form=form, schedule=f"step({DROP_AT})"), _gradients())
        for form in ("caffe", "torch")
    ]
    apart = [
        max(jax.tree.leaves(jax.tree.map(lambda a, b: float(np.abs(a - b).max()), *pair)))
        for pair in zip(*runs, strict=True)
    ]
    assert max(apart[:DROP_AT]) < 1e-5
    # in one the old velocity goes on at the old rate, in the other at the new
    assert min(apart[DROP_AT:]) > 0.05


def test_rate_scales_with_the_batch():
    assert _rates(1)[0] == np.float32(0.1)
    assert _rates(1, batch_size=32)[0] == np.float32(0.025)
    assert _rates(1, batch_size=512, lr_batch=256)[0] == np.float32(0.2)


def test_the_update_uses_the_rate_it_reports():
    optimizer = _optimizer(momentum=0.0, schedule="cosine")
    state = optimizer.init(PARAMS)
    for _ in range(5):
        rate = float(optimizer.learning_rate(state))
        updates, state = optimizer.update(PARAMS, state, PARAMS)
        np.testing.assert_allclose(
            updates["conv1"]["bias"], -rate * PARAMS["conv1"]["bias"], rtol=1e-6
        )


# --- multipliers ----------------------------------------------------------------------------------

NET = {
    "conv1": {"kernel": np.ones(2, np.float32), "bias": np.ones(1, np.float32)},
    "fc8": {"kernel": np.ones(3, np.float32), "bias": np.ones(1, np.float32)},
}


def test_multipliers_hold_for_whole_paths_and_the_first_match_wins():
    tree = multipliers(
        NET, (("fc8/bias", 20.0), ("fc8/.*", 10.0), (".*/bias", 2)), "optim.lr_mults"
    )
    assert tree == {"conv1": {"kernel": 1.0, "bias": 2.0}, "fc8": {"kernel": 10.0, "bias": 20.0}}


def test_multipliers_scale_rate_and_decay_apart():
    optimizer = _optimizer(
        NET,
        momentum=0.0,
        weight_decay=0.5,
        lr_mults=(("fc8/.*", 10.0),),
        wd_mults=((".*/bias", 0.0), ("fc8/kernel", 2.0)),
    )
    grads = jax.tree.map(lambda w: 3 * w, NET)
    updates, _ = optimizer.update(grads, optimizer.init(NET), NET)
    # −rate · lr_mult · (g + decay · wd_mult · w), with g = 3 and w = 1
    first = jax.tree.map(lambda u: float(u[0]), updates)
    assert first == {
        "conv1": {"kernel": pytest.approx(-0.35), "bias": pytest.approx(-0.3)},
        "fc8": {"kernel": pytest.approx(-4.0), "bias": pytest.approx(-3.0)},
    }


@pytest.mark.parametrize("key", ["lr_mults", "wd_mults"])
@pytest.mark.parametrize(
    "patterns, message",
    [
        (
            (("fc9/.*", 2.0),),
            r"'fc9/\.\*' matches no parameter that an earlier pattern does not; "
            "parameters are named like conv1/bias, conv1/kernel, fc8/b",
        ),
        ((("fc8", 2.0),), "'fc8' matches no parameter"),  # part of a path is not enough
        # the first pattern takes them all
        ((("fc8/.*", 2.0), ("fc8/bias", 1.0)), "'fc8/bias' matches no parameter"),
        ((("fc8/(", 2.0),), r"'fc8/\(' is not a regular expression"),
        (("fc8/.*", 2.0), r"takes \(\(regex, factor\), …\)"),
        ((("fc8/.*", "2"),), r"takes \(\(regex, factor\), …\)"),
    ],
)
def test_multipliers_that_cannot_be_meant(key, patterns, message):
    with pytest.raises(UserError, match=rf"config.optim.{key}.*{message}"):
        _optimizer(NET, **{key: patterns})


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"momentum_form": "keras"},
            "config.optim.momentum_form is 'caffe' or 'torch', not 'keras'",
        ),
        (
            {"schedule": "cosin"},
            r"config.optim.schedule: there is no 'cosin' \(did you mean 'cosine'\?\)",
        ),
        ({"schedule": "poly('fast')"}, "does not fit poly"),
        ({"schedule": "exponential"}, "does not fit exponential"),
        ({"schedule": ""}, "names 0 schedules"),
        ({"schedule": "cosine|poly"}, "names 2 schedules"),
        (
            {"schedule": "step_epochs(1, 2, factor=(0.5,))"},
            "config.optim.schedule has 1 factors for 2 drops of the rate",
        ),
    ],
)
def test_settings_that_do_not_exist(changes, message):
    with pytest.raises(UserError, match=message):
        _optimizer(**changes)


# --- schedules: 100 steps, 10 an epoch, base rate 0.1 ---------------------------------------------

T = np.arange(100)


@pytest.mark.parametrize(
    "schedule, factors",
    [
        ("constant", np.ones(100)),
        ("step(30, 60)", np.select([T < 30, T < 60], [1, 0.1], 0.01)),
        ("step(30, factor=0.5)", np.where(T < 30, 1, 0.5)),
        ("step", np.ones(100)),
        ("step_epochs(2.5, 5)", np.select([T < 25, T < 50], [1, 0.1], 0.01)),
        ("step_epochs(2.5, 5, factor=(0.4, 0.5))", np.select([T < 25, T < 50], [1, 0.4], 0.2)),
        ("step_fractions(0.5, 0.75)", np.select([T < 50, T < 75], [1, 0.1], 0.01)),
        ("exponential(0.96)", 0.96 ** (T // 10)),
        ("exponential(0.96, every_epochs=2)", 0.96 ** (T // 20)),
        ("linear(0.2, epochs=5)", np.where(T < 50, 1 - 0.8 * T / 50, 0.2)),
        ("poly", np.sqrt(1 - T / 100)),
        ("poly(1)", 1 - T / 100),
        ("cosine", 0.5 + 0.5 * np.cos(np.pi * T / 100)),
        ("plateau", np.ones(100)),
    ],
)
def test_schedule(schedule, factors):
    np.testing.assert_allclose(_rates(schedule=schedule), 0.1 * factors, rtol=1e-5, atol=1e-8)


def test_schedules_stay_at_their_end_beyond_it():
    for schedule, last in (("poly", 0.0), ("cosine", 0.0), ("step_fractions(0.5)", 0.01)):
        assert _rates(12, schedule=schedule, total_steps=10)[10:] == pytest.approx(
            [last, last], abs=1e-9
        )


def test_warmup_is_linear_and_reaches_the_whole_rate_with_its_last_step():
    warmed = _rates(30, warmup_epochs=2.0, schedule="step(25)")
    np.testing.assert_allclose(warmed[:20], 0.1 * np.arange(1, 21) / 20, rtol=1e-6)
    np.testing.assert_allclose(warmed[20:], [0.1] * 5 + [0.01] * 5, rtol=1e-6)


@pytest.mark.parametrize("form", ["caffe", "torch"])
def test_a_warm_up_until_an_error_holds_the_rate_and_the_updates_down(form):
    """ResNet §4.2: a tenth of the rate until the training error is below 80 %."""
    changes = {"momentum": 0.0, "momentum_form": form, "schedule": "step(5)"}
    optimizer = _optimizer(warmup_until_error=(80.0, 0.1), **changes)
    plain = _optimizer(**changes)
    state, rates = optimizer.init(PARAMS), []
    for error in (90.0, 80.0, float("nan"), 79.9, 95.0, 95.0):  # one report a step
        rate = float(optimizer.learning_rate(state))
        updates, state = optimizer.update(PARAMS, state, PARAMS)
        np.testing.assert_allclose(
            updates["conv1"]["bias"], -rate * PARAMS["conv1"]["bias"], rtol=1e-6
        )
        state = optimizer.observe_training(state, error)
        rates.append(rate)
    np.testing.assert_allclose(rates, [0.01, 0.01, 0.01, 0.01, 0.1, 0.01], rtol=1e-6)
    np.testing.assert_allclose(rates[4:], _rates(6, **changes)[4:], rtol=1e-6)  # it never returns
    other = plain.init(PARAMS)
    assert jax.tree.structure(plain.observe_training(other, 0.0)) == jax.tree.structure(other)


@pytest.mark.parametrize(
    "setting", [(80.0,), (80.0, 0.1, 1.0), (80.0, 0.0), (-1.0, 0.1), ("80", 0.1)]
)
def test_a_warm_up_that_cannot_be_meant(setting):
    message = r"config.optim.warmup_until_error=.* takes \(error in percent, factor\)"
    with pytest.raises(UserError, match=message):
        _optimizer(warmup_until_error=setting)


def test_a_constant_rate_follows_neither_schedule_nor_plateau_but_warm_up_and_multiplier():
    optimizer = _optimizer(
        NET,
        momentum=0.0,
        schedule="step(2)",
        warmup_epochs=0.2,
        lr_mults=((".*/bias", 2.0),),
        constant_lr=(".*/bias",),
    )
    state, steps = optimizer.init(NET), []
    for _ in range(4):
        updates, state = optimizer.update(NET, state, NET)
        steps.append([-float(updates["fc8"][name][0]) for name in ("kernel", "bias")])
    np.testing.assert_allclose(
        steps, [[0.05, 0.1], [0.1, 0.2], [0.01, 0.2], [0.01, 0.2]], rtol=1e-6
    )
    dropping = _optimizer(
        NET, momentum=0.0, schedule="plateau(0.1, patience=0)", constant_lr=("fc8/bias",)
    )
    state = dropping.observe(dropping.init(NET), 50.0)
    updates, _ = dropping.update(NET, state, NET)
    assert float(updates["fc8"]["kernel"][0]) == pytest.approx(-0.01)
    assert float(updates["fc8"]["bias"][0]) == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (("fc9/.*",), r"'fc9/\.\*' matches no parameter"),
        (("fc8/(",), r"'fc8/\(' is not a regular expression"),
        (".*/bias", r"takes \(regex, …\), such as"),
    ],
)
def test_constant_rates_that_cannot_be_meant(patterns, message):
    with pytest.raises(UserError, match=rf"config.optim.constant_lr.*{message}"):
        _optimizer(NET, constant_lr=patterns)


def test_progress_is_traced_once_for_all_steps():
    optimizer = _optimizer(schedule="step(30)")
    rate = jax.jit(optimizer.learning_rate)
    for _ in range(3):
        rate(optimizer.init(PARAMS))
    assert rate._cache_size() == 1
    assert Progress._fields == ("step", "steps_per_epoch", "total_steps")


# --- plateau --------------------------------------------------------------------------------------


def _observed(optimizer, state, errors) -> list[float]:
    rates = []
    for error in errors:
        state = optimizer.observe(state, error)
        rates.append(round(float(optimizer.learning_rate(state)), 6))
    return rates


def test_plateau_drops_after_patience_evaluations_without_improvement():
    optimizer = _optimizer(schedule="plateau(0.1, patience=2)")
    errors = [50.0, 40.0, 40.0, 39.0, 39.5, 39.0, 38.9, 60.0, 50.0, 45.0, 44.0]
    rates = [0.1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001, 0.001, 0.0001]
    assert _observed(optimizer, optimizer.init(PARAMS), errors) == rates


def test_other_schedules_observe_nothing():
    optimizer = _optimizer(schedule="cosine")
    state = optimizer.init(PARAMS)
    assert optimizer.observe(state, 50.0) is state


def test_plateaus_memory_survives_a_checkpoint(tmp_path):
    optimizer = _optimizer(schedule="plateau(0.1, patience=3)")
    opt_state = optimizer.init(jax.tree.map(jnp.asarray, PARAMS))
    for error in (50.0, 51.0, 52.0):  # two of the three evaluations it waits for
        opt_state = optimizer.observe(opt_state, error)
    zero = jnp.int32(0)
    state = State(
        zero,
        jax.tree.map(jnp.asarray, PARAMS),
        {},
        opt_state,
        None,
        zero,
        zero,
        zero_totals(Totals),
    )
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state)
    checkpoints.finish()
    restored = checkpoints.restore(1, jax.eval_shape(lambda: state))
    checkpoints.close()
    assert _observed(optimizer, restored.opt_state, [50.0, 49.0]) == [0.01, 0.01]


def test_max_norms_hold_after_every_update():
    params = {
        "h0": {"kernel": jnp.full((2, 3, 4), 0.5), "bias": jnp.ones(4)},
        "y": {"kernel": jnp.full((4, 2), 0.1)},
    }
    optimizer = _optimizer(params, max_norms=(("h0/kernel", 0.9),), lr=0.5)
    state = optimizer.init(params)
    grads = jax.tree.map(lambda w: -jnp.ones_like(w), params)
    for _ in range(3):
        updates, state = optimizer.update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        lengths = np.sqrt(np.square(params["h0"]["kernel"]).sum((0, 1)))
        np.testing.assert_allclose(lengths, 0.9, rtol=1e-6)
    assert float(params["y"]["kernel"][0, 0]) > 1  # free to grow
    with pytest.raises(UserError, match=r"optim\.max_norms: 'h9' matches no parameter"):
        _optimizer(params, max_norms=(("h9", 1.0),))
