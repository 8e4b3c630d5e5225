"""Every claim, found by discovery, at every scale: its arms load, differ and are traced; and the
plan of their runs.
"""

import functools
import json
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags
from support.commands import exit_code
from support.config_values import flat

import configs
from cnn_papers import doors, opstrings, zoo
from cnn_papers.claims import catalogue, metrics, plan, verdicts
from cnn_papers.claims.metrics import Finished
from cnn_papers.claims.plan import EXACT, Job, make_job
from cnn_papers.claims.readings import finished, read_claim
from cnn_papers.data.augment import compose
from cnn_papers.errors import UserError
from cnn_papers.evaluation import run_analyses, support
from cnn_papers.facts import Claim, Scale
from cnn_papers.runs import inputs, ranges

EXAMPLES = {
    "example": Claim(
        "Pooling windows that overlap lower the error.",
        "AlexNet §3.4",
        {"apart": {"model.pool": (2, 2)}, "overlapping": {"model.pool": (3, 2)}},
        "last('val/top1_error')",
        "lower",
        "0.4 points of top-1 error",
        {
            "desk": Scale(
                {"config": "configs/alexnet.py", "total_steps": 3, "eval.analyses": "dead_units"}
            )
        },
        paper_delta=-0.4,
    ),
    "exact_example": Claim(
        "GoogLeNet has about a twelfth of AlexNet's parameters.",
        "GoogLeNet §1",
        {
            "alexnet": {"config": "configs/alexnet.py:imagenet2012"},
            "googlenet": {"config": "configs/googlenet.py:imagenet2012", "model.aux_heads": False},
        },
        "parameters()",
        "at_most",
        "12 times fewer",
        {EXACT: Scale({})},
        ratio=True,
        bound=1 / 8,
    ),
}
EXAMPLE = EXAMPLES["example"]
ALL = {**EXAMPLES, **catalogue.all_claims()}
COMPUTED = "sliding_difference"  # a metric that runs the papers' networks, which takes a while
BOUNDED = ("same", "at_most", "at_least")
CHANGES = ("tested_change", "gap")  # metrics of which one arm can be lower than zero
ARMS = {
    "lower": (1, 2),
    "higher": (1, 2),
    "same": (2, 2),
    "falling": (3, 9),
    "rising": (3, 9),
}  # fewest, most
SCALES = (EXACT, "desk", "gpu", "paper")
CASES = [(name, scale) for name, claim in ALL.items() for scale in claim.scales]
each_claim = pytest.mark.parametrize("name", ALL)
TRAINED = [
    (name, scale) for name, scale in CASES if scale != EXACT
]  # the others are read off the configuration
each_case = pytest.mark.parametrize(("name", "scale"), CASES)
each_trained = pytest.mark.parametrize(("name", "scale"), TRAINED)


@functools.cache
def loaded(job: Job) -> Any:
    return plan.load(job)


def arms(name: str, scale: str) -> dict[str, Any]:
    """The config of each arm."""
    return {arm: loaded(job) for arm, (job,) in plan.jobs(ALL[name], scale, [0]).items()}


@functools.cache
def traced(
    model_name: str, fields: tuple[tuple[str, Any], ...], shape: tuple[int, ...]
) -> tuple[Any, Any, Any]:
    """The network, the shapes of its variables, and of its logits for two images of `shape`."""
    model = zoo.build_model(model_name, **dict(fields))
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    image = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    (logits, _), variables = jax.eval_shape(
        lambda image: model.init_with_output(rngs, image, train=True), image
    )
    return model, variables, logits


@functools.cache
def check_tests(key: Any, shape: tuple[int, ...], protocol: str, analyses: str) -> None:
    """Traces the final test and the analyses; UserError where the network cannot take them."""
    model, variables, _ = traced(*key)

    def view(image: jax.Array, key: jax.Array) -> jax.Array:
        return image.astype(jnp.float32)

    if protocol != "single_view":
        support.supported(protocol, model, variables, view, shape)
    if analyses:
        run_analyses.check(analyses, model, variables, view, shape)


# --- every claim ----------------------------------------------------------------------------------


@each_claim
def test_a_claim_says_what_it_claims_and_where_it_stands(name):
    claim = ALL[name]
    assert name.isidentifier() and name == name.lower()
    for text in (claim.statement, claim.source, claim.paper):
        assert text.strip() and "\n" not in text
    assert set(claim.scales) and set(claim.scales) <= set(SCALES)


@each_claim
def test_a_metric_is_one_operation(name):
    assert len(opstrings.parse(ALL[name].metric, metrics, leading=1, key="metric")) == 1


@each_case
def test_what_is_expected_fits_the_arms_and_the_bound(name, scale):
    claim, count = ALL[name], len(plan.arms_of(ALL[name], scale))
    fewest, most = ARMS[claim.expect] if claim.expect not in ("at_most", "at_least") else (1, 2)
    assert fewest <= count <= most
    assert count > 1 or claim.expect in BOUNDED or claim.metric.startswith(CHANGES)
    assert (claim.bound is not None) == (claim.expect in BOUNDED)
    if claim.expect == "same":
        assert claim.bound > (1 if claim.ratio else 0)
    if claim.ratio:
        assert count > 1 and (claim.bound is None or claim.bound > 0)


@each_case
def test_the_arms_of_a_claim_differ(name, scale):
    found = [flat(config) for config in arms(name, scale).values()]
    assert all(found[i] != found[j] for i in range(len(found)) for j in range(i))


@pytest.mark.filterwarnings(
    "ignore:the load_module:DeprecationWarning"
)  # ml_collections reads configs so
@each_case
def test_the_runs_are_of_what_the_config_files_know(name, scale):
    """`load` raises for an unknown key and for a wrong type; the command line must give the same
    config.
    """
    for (job,) in plan.jobs(ALL[name], scale, [7]).values():
        config, values = loaded(job), flags.FlagValues()
        assert config.seed == 7 and config.is_locked
        file, _, recipe = job.config.partition(":")
        argv = [
            "main",
            *plan.flags_of(
                job._replace(config=f"{parent(file)}:{recipe}" if recipe else parent(file))
            ),
        ]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", argv)  # where config_flags looks for overrides
            config_flags.DEFINE_config_file("config", None, "", values, lock_config=True)
            values(argv)
        assert flat(values["config"].value) == flat(config)


def parent(file: str) -> str:
    """Where a config file lies, wherever the tests run."""
    return str(pathlib.Path(configs.__path__[0]).parent / file)


@each_case
def test_data_operations_and_numbers_make_sense(name, scale):
    for config in arms(name, scale).values():
        ranges.check_ranges(config)
        compose(inputs.parse_data(config.data).train_device, None, train=True)
        compose(inputs.parse_data(config.data).eval_device, None, train=False)
        for key in ("train_host", "eval_host"):
            assert len(inputs.configured_input(config, key)) == 3


@each_trained
def test_the_network_of_every_arm_takes_its_images_tests_and_analyses(name, scale):
    for config in arms(name, scale).values():
        fields = tuple(sorted(config.model.items()))
        for host in ("train_host", "eval_host"):
            key = (config.model_name, fields, inputs.configured_input(config, host))
            logits = traced(*key)[2]
            assert logits.shape == (2, config.model.num_classes) and logits.dtype == jnp.float32
        check_tests(key, key[2], config.eval.protocol, config.eval.get("analyses", ""))


@each_trained
def test_a_metric_finds_what_it_reads_in_every_arm(name, scale):
    """In a made-up run with the rows that the config makes a run write."""
    claim = ALL[name]
    (op,) = opstrings.parse(claim.metric, metrics, leading=1, key="metric")
    for config in arms(name, scale).values():
        assert math.isfinite(op(Finished(config, made_up_rows(config, op), "done")).value)


def made_up_rows(config: Any, op: opstrings.Op) -> list[dict[str, Any]]:
    names = ("loss", "top1_error", "top5_error")
    analysed = {each.name for each in run_analyses.parse(config.eval.get("analyses", ""))}
    asked = {
        text for text in op.args if isinstance(text, str) and text.partition("/")[0] in analysed
    }
    row = {f"{split}/{name}": 1.0 for split in ("train", "val") for name in names}
    row |= {f"analysis/{name}": 1.0 for name in asked}
    tests = support.parse(config.eval.protocol) if config.eval.protocol != "single_view" else {}
    tested = [
        {"step": 9, "test/protocol": test} | {f"test/{name}": 1.0 for name in names[1:]}
        for test in tests
    ]
    return [{"step": step, **row} for step in range(1, 10)] + tested


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if claim.metric.startswith(COMPUTED) else [])
        for name, claim in ALL.items()
        if EXACT in claim.scales
    ],
)
def test_an_exact_claim_is_decided(name):
    verdict = verdicts.judge(ALL[name], read_claim(ALL[name], EXACT, [0, 1], None), exact=True)
    assert verdict.word in (verdicts.AGREES, verdicts.DISAGREES)
    assert verdict.low == verdict.estimate == verdict.high and verdict.n == 1


def test_claims_stand_beside_the_config_files_of_their_name():
    for file, found in catalogue.claims_of().items():
        assert (pathlib.Path(configs.__path__[0]) / f"{file}.py").is_file()
        for name, claim in found.items():
            for scale in claim.scales:
                used = {
                    job.config.partition(":")[0] for (job,) in plan.jobs(claim, scale, [0]).values()
                }
                assert f"configs/{file}.py" in used, f"{name} at {scale}"


def test_nothing_is_trained_twice():
    """Arms with the same configuration are one job, whatever their claims write."""
    ids: dict[str, str] = {}
    for name, scale in TRAINED:
        for (job,) in plan.jobs(ALL[name], scale, [0]).values():
            config = repr(sorted(flat(loaded(job)).items()))
            assert ids.setdefault(config, job.id) == job.id, (
                f"{name} at {scale}: {plan.flags_of(job)}"
            )


# --- planning -------------------------------------------------------------------------------------


def test_an_id_is_the_same_everywhere_and_for_any_order():
    overrides = {"seed": 0, "model.pool": (3, 2), "optim.lr": 0.01}
    job = make_job("configs/alexnet.py:cifar10", overrides)
    assert job.id == "alexnet-b279de4a44"
    assert job == make_job("configs/alexnet.py:cifar10", dict(reversed(overrides.items())))
    assert job.overrides == (("model.pool", (3, 2)), ("optim.lr", 0.01), ("seed", 0))


@pytest.mark.parametrize(
    ("config", "changed"),
    [
        ("configs/alexnet.py:cifar10", {"seed": 1}),
        ("configs/alexnet.py:cifar10", {"model.pool": (2, 2)}),
        ("configs/alexnet.py:cifar10", {"model.lrn": False}),
        ("configs/alexnet.py", {}),
    ],
)
def test_an_id_differs_where_anything_does(config, changed):
    overrides = {"seed": 0, "model.pool": (3, 2)}
    assert (
        make_job(config, overrides | changed).id
        != make_job("configs/alexnet.py:cifar10", overrides).id
    )


def test_the_recipe_without_a_name_is_desk():
    assert make_job("configs/alexnet.py:desk", {}) == make_job("configs/alexnet.py", {})


def test_flags_of_a_job():
    job = make_job("configs/alexnet.py", {"seed": 3, "model.pool": (3, 2), "data.train_device": ""})
    assert plan.flags_of(job) == [
        "--config=configs/alexnet.py",
        "--config.data.train_device=",
        "--config.model.pool=(3, 2)",
        "--config.seed=3",
    ]


def test_the_jobs_of_a_claim_are_by_arm_and_seed():
    found = plan.jobs(EXAMPLE, "desk", range(3))
    assert {arm: [dict(job.overrides)["seed"] for job in jobs] for arm, jobs in found.items()} == {
        "apart": [0, 1, 2],
        "overlapping": [0, 1, 2],
    }
    assert dict(found["apart"][1].overrides) == {
        "eval.analyses": "dead_units",
        "model.pool": (2, 2),
        "seed": 1,
        "total_steps": 3,
    }
    assert {job.config for jobs in found.values() for job in jobs} == {"configs/alexnet.py"}


def test_what_the_recipe_says_anyway_makes_no_other_job():
    said = {
        "optim.lr": 0.01,
        "total_epochs": 12,
        "data.eval_device": "standardize",
    }  # as in configs/alexnet.py
    scale = EXAMPLE.scales["desk"]
    wordy = EXAMPLE._replace(scales={"desk": scale._replace(overrides=said | scale.overrides)})
    assert plan.jobs(wordy, "desk", [0, 1]) == plan.jobs(EXAMPLE, "desk", [0, 1])
    other = EXAMPLE._replace(
        scales={"desk": scale._replace(overrides=scale.overrides | {"total_epochs": 6})}
    )
    assert ("total_epochs", 6.0) in plan.jobs(other, "desk", [0])["apart"][0].overrides


def test_an_unknown_key_is_refused_before_anything_is_planned():
    claim = EXAMPLE._replace(arms={"apart": {"model.pol": (2, 2)}})
    with pytest.raises(
        UserError, match=r"there is no config key config.model.pol; did you mean 'pool'"
    ):
        plan.jobs(claim, "desk", [0])


def test_an_exact_claim_has_one_job_an_arm():
    assert [
        len(jobs) for jobs in plan.jobs(EXAMPLES["exact_example"], EXACT, range(5)).values()
    ] == [1, 1]


def test_the_arms_of_a_scale_take_the_place_of_the_claims_own():
    claim = EXAMPLE._replace(
        scales={"gpu": Scale({"config": "configs/alexnet.py"}, {"only": {"model.width": 0.5}})}
    )
    assert plan.arms_of(claim, "gpu") == {
        "only": {"config": "configs/alexnet.py", "model.width": 0.5}
    }


def test_an_arm_overrides_its_scale():
    claim = EXAMPLE._replace(
        scales={"desk": Scale({"config": "configs/alexnet.py", "model.pool": (9, 9)})}
    )
    assert plan.arms_of(claim, "desk")["apart"]["model.pool"] == (2, 2)


def test_a_scale_at_which_a_claim_is_not_asked():
    with pytest.raises(UserError, match="not asked at scale 'paper'; it is at: desk"):
        plan.jobs(EXAMPLE, "paper", [0])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model.pol": (3, 2)}, "there is no config key config.model.pol; did you mean 'pool'?"),
        ({"zork": 1}, "there is no config key config.zork; there are: batch_size, "),
        ({"optim.lr.x": 1}, "config.optim.lr is a value, not a group: it has no key 'x'"),
        ({"optim.lr": "fast"}, "config.optim.lr='fast' is str, not float"),
        ({"model.pool": [3, 2]}, r"config.model.pool=\[3, 2\] is list, not tuple"),
        ({"model.lrn": 1}, "config.model.lrn=1 is int, not bool"),
        ({"seed": True}, "config.seed=True is bool, not int"),
        ({"model.width": None}, "config.model.width=None is NoneType, not float"),
    ],
)
def test_overrides_that_no_flag_would_take_are_refused(overrides, message):
    with pytest.raises(UserError, match=f"^{message}"):
        plan.load(make_job("configs/alexnet.py", overrides))


def test_a_whole_number_does_for_a_float():
    config = plan.load(make_job("configs/alexnet.py", {"total_epochs": 2}))
    assert config.total_epochs == 2.0 and isinstance(config.total_epochs, float)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("configs/alexnett.py", "there is no config file 'configs/alexnett.py'"),
        ("configs/alexnet.py:cifar11", "configs/alexnet.py has no recipe 'cifar11'"),
    ],
)
def test_a_job_of_a_config_that_is_not_there(config, message):
    with pytest.raises(UserError, match=message):
        plan.load(make_job(config, {}))


def test_an_unknown_claim_is_refused_with_the_list(monkeypatch, capsys):
    monkeypatch.setattr(catalogue, "claims_of", lambda: {"alexnet": EXAMPLES})
    assert catalogue.find("example") is EXAMPLE
    assert exit_code(lambda: doors.run(lambda argv: catalogue.find("exampel"))) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: there is no claim 'exampel'; did you mean 'example'? there are 2:",
        "  example        Pooling windows that overlap lower the error.",
        "  exact_example  GoogLeNet has about a twelfth of AlexNet's parameters.",
    ]


def test_two_claims_of_one_name_are_refused(monkeypatch):
    monkeypatch.setattr(
        catalogue, "claims_of", lambda: {"alexnet": {"a": EXAMPLE}, "vgg": {"a": EXAMPLE}}
    )
    with pytest.raises(UserError, match=r"configs/claims/vgg.py: another file has a claim 'a' too"):
        catalogue.all_claims()


# --- what runs left -------------------------------------------------------------------------------


def leave(
    folder: pathlib.Path, job: Job, exit_code: int | None, errors: tuple[float, ...] = ()
) -> None:
    """Writes what a sweep and its run leave in `folder`."""
    (folder / job.id).mkdir()
    record = {"config": job.config, "overrides": dict(job.overrides), "exit_code": exit_code}
    (folder / f"{job.id}.json").write_text(json.dumps(record))
    (folder / job.id / "run.json").write_text(json.dumps({"config": plan.load(job).to_dict()}))
    rows = [
        json.dumps({"step": i, "val/top1_error": error}) + "\n" for i, error in enumerate(errors)
    ]
    (folder / job.id / "metrics.jsonl").write_text("".join(rows))


JOB = make_job("configs/alexnet.py", {"model.pool": (2, 2), "seed": 1})


@pytest.mark.parametrize(("code", "outcome"), [(0, "done"), (3, "diverged")])
def test_a_finished_run_is_read(tmp_path, code, outcome):
    leave(tmp_path, JOB, code, (50.0, 20.0))
    run = finished(tmp_path, JOB)
    assert run is not None and run.outcome == outcome
    assert run.rows == [{"step": 0, "val/top1_error": 50.0}, {"step": 1, "val/top1_error": 20.0}]
    assert run.config["model"]["pool"] == (2, 2) and run.config["seed"] == 1


@pytest.mark.parametrize("code", [None, 1, 2, 143])
def test_a_run_that_is_not_finished_is_none(tmp_path, code):
    leave(tmp_path, JOB, code)
    assert finished(tmp_path, JOB) is None


def test_a_run_that_was_never_started_is_none(tmp_path):
    assert finished(tmp_path, JOB) is None


def test_a_damaged_record_is_said(tmp_path):
    (tmp_path / f"{JOB.id}.json").write_text("{")
    with pytest.raises(UserError, match=rf"{JOB.id}.json cannot be read"):
        finished(tmp_path, JOB)


def test_readings_of_the_runs_that_are_finished(tmp_path):
    found = plan.jobs(EXAMPLE, "desk", [0, 1])
    leave(tmp_path, found["apart"][0], 0, (50.0, 20.0))
    leave(tmp_path, found["apart"][1], 3, (50.0,))
    leave(tmp_path, found["overlapping"][0], 0, (30.0, 10.0))
    leave(tmp_path, found["overlapping"][1], 143, (30.0,))
    readings = read_claim(EXAMPLE, "desk", [0, 1], tmp_path)
    assert {arm: {seed: r.value for seed, r in of.items()} for arm, of in readings.items()} == {
        "apart": {0: 20.0, 1: 90.0},
        "overlapping": {0: 10.0},
    }


def test_readings_of_an_exact_claim_need_no_runs():
    readings = read_claim(EXAMPLES["exact_example"], EXACT, range(3), None)
    values = {arm: [r.value for r in of.values()] for arm, of in readings.items()}
    assert values == {"alexnet": [60965224.0], "googlenet": [6998552.0]}
    assert np.isclose(
        verdicts.judge(EXAMPLES["exact_example"], readings, exact=True).estimate, 6998552 / 60965224
    )
