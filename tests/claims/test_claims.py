"""Every claim, found by discovery, at every scale: its arms load, differ and are traced.

Each test checks one rule for all claims, collects those that break it, and finds none.
"""

import contextlib
import functools
import math
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from absl import flags
from ml_collections import config_flags
from support.config_values import flat
from support.example_claims import EXAMPLES

import configs
from cnn_papers import opstrings, tasks, zoo
from cnn_papers.claims import catalogue, metrics, plan, verdicts
from cnn_papers.claims.metrics import Finished
from cnn_papers.claims.plan import EXACT, Job
from cnn_papers.claims.readings import exact_runs, read_claim
from cnn_papers.data.augment import compose
from cnn_papers.errors import UserError
from cnn_papers.evaluation import run_analyses
from cnn_papers.runs import inputs, ranges
from cnn_papers.weights import convert

CLAIMS = {**EXAMPLES, **catalogue.all_claims()}
COMPUTED = "sliding_difference"  # a metric that runs the papers' networks, which takes a while
BOUNDED = ("same", "at_most", "at_least")
CHANGES = ("tested_change", "gap")  # metrics of which one arm can be lower than zero
ARMS = {  # fewest and most
    "lower": (1, 2),
    "higher": (1, 2),
    "same": (2, 2),
    "falling": (3, 9),
    "rising": (3, 9),
    "at_most": (1, 2),
    "at_least": (1, 2),
}
SCALES = (EXACT, "desk", "gpu", "paper")
CASES = [(name, scale) for name, claim in CLAIMS.items() for scale in claim.scales]
# Those of the others are read off the configuration.
TRAINED = [(name, scale) for name, scale in CASES if scale != EXACT]


class Problems(list[str]):
    """The claims that break a rule."""

    @contextlib.contextmanager
    def of(self, where: str) -> Iterator[None]:
        """Collects what fails in the block."""
        try:
            yield
        except (AssertionError, UserError) as error:
            self.append(f"{where}: {error}")


@functools.cache
def loaded(job: Job) -> Any:
    return plan.load(job)


@functools.cache
def jobs_of(name: str, scale: str, seed: int = 0) -> dict[str, Job]:
    """The job of each arm."""
    return {arm: job for arm, (job,) in plan.jobs(CLAIMS[name], scale, [seed]).items()}


def all_jobs(seed: int = 0) -> list[Job]:
    """The jobs of all claims at all scales, and those that they start from."""
    jobs = {job for name, scale in CASES for job in jobs_of(name, scale, seed).values()}
    return sorted({link for job in jobs for link in job.chain}, key=lambda job: job.id)


def configs_of(name: str, scale: str) -> list[Any]:
    """The config of each arm."""
    return [loaded(job) for job in jobs_of(name, scale).values()]


# --- what a claim says ----------------------------------------------------------------------------


def test_a_claim_says_what_it_claims_and_where_it_stands():
    problems = Problems()
    for name, claim in CLAIMS.items():
        with problems.of(name):
            assert name.isidentifier() and name == name.lower()
            for text in (claim.statement, claim.source, claim.paper):
                assert text.strip() and "\n" not in text
            assert claim.scales and set(claim.scales) <= set(SCALES)
    assert problems == []


def test_a_metric_is_one_operation():
    problems = Problems()
    for name, claim in CLAIMS.items():
        with problems.of(name):
            assert len(opstrings.parse(claim.metric, metrics, leading=1, key="metric")) == 1
    assert problems == []


def test_what_is_expected_fits_the_arms_and_the_bound():
    problems = Problems()
    for name, scale in CASES:
        claim, count = CLAIMS[name], len(plan.arms_of(CLAIMS[name], scale))
        fewest, most = ARMS[claim.expect]
        with problems.of(f"{name} at {scale}"):
            assert fewest <= count <= most
            assert count > 1 or claim.expect in BOUNDED or claim.metric.startswith(CHANGES)
            assert (claim.bound is not None) == (claim.expect in BOUNDED)
            if claim.expect == "same":
                assert claim.bound is not None and claim.bound > (1 if claim.ratio else 0)
            if claim.ratio:
                assert count > 1 and (claim.bound is None or claim.bound > 0)
    assert problems == []


def test_claims_stand_beside_the_config_files_of_their_name():
    problems = Problems()
    for file, claims in catalogue.claims_of().items():
        assert (pathlib.Path(configs.__path__[0]) / f"{file}.py").is_file()
        for name, claim in claims.items():
            for scale in claim.scales:
                jobs = jobs_of(name, scale).values()
                with problems.of(f"{name} at {scale}"):
                    assert f"configs/{file}.py" in {job.config.partition(":")[0] for job in jobs}
    assert problems == []


# --- the configurations of its arms ---------------------------------------------------------------


def test_the_arms_of_a_claim_differ():
    problems = Problems()
    for name, scale in CASES:
        arms = [flat(config) for config in configs_of(name, scale)]
        with problems.of(f"{name} at {scale}"):
            assert all(arms[i] != arms[j] for i in range(len(arms)) for j in range(i))
    assert problems == []


def test_nothing_is_trained_twice():
    """Arms with the same configuration are one job, whatever their claims write."""
    ids: dict[str, str] = {}
    problems = Problems()
    for name, scale in TRAINED:
        for job in jobs_of(name, scale).values():
            config = repr(sorted(flat(loaded(job)).items()))
            with problems.of(f"{name} at {scale}: {plan.flags_of(job)}"):
                assert ids.setdefault(config, job.id) == job.id
    assert problems == []


@pytest.mark.filterwarnings(
    "ignore:the load_module:DeprecationWarning"
)  # ml_collections reads configs so
def test_the_command_line_gives_the_same_config():
    """`load` raises for an unknown key and for a wrong type."""
    problems = Problems()
    for job in all_jobs(seed=7):
        with problems.of(job.id):
            config = plan.load(job)
            assert config.seed == 7 and config.is_locked
            assert flat(config_of_flags(job)) == flat(config)
    assert problems == []


def config_of_flags(job: Job) -> Any:
    """The config that the command line of a job gives, wherever the tests run."""
    values = flags.FlagValues()
    folder = pathlib.Path(configs.__path__[0]).parent
    argv = ["main", *plan.flags_of(job._replace(config=f"{folder}/{job.config}"))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", argv)  # where config_flags looks for overrides
        config_flags.DEFINE_config_file("config", None, "", values, lock_config=True)
        values(argv)
    return values["config"].value


def test_data_operations_and_numbers_make_sense():
    problems = Problems()
    for job in all_jobs():
        with problems.of(f"{job.id}: {plan.flags_of(job)}"):
            config = loaded(job)
            if job.start:
                config = config.copy_and_resolve_references()
                config.init_from = job.start.id
            ranges.check_ranges(config)
            ops = inputs.parse_data(config.data)
            compose(ops.train_device, None, train=True)
            compose(ops.eval_device, None, train=False)
            for key in ("train_host", "eval_host"):
                assert len(inputs.configured_input(config, key)) == 3
    assert problems == []


# --- its networks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scale",
    [
        pytest.param("desk", marks=pytest.mark.process),
        *(pytest.param(scale, marks=pytest.mark.slow) for scale in ("gpu", "paper")),
    ],
)
def test_the_network_of_every_arm_takes_its_images_tests_and_analyses(scale):
    problems = Problems()
    names = [name for name, claim in CLAIMS.items() if scale in claim.scales]
    assert names
    for name in names:
        for config in configs_of(name, scale):
            with problems.of(name):
                check_network(config)
    assert problems == []


def check_network(config: Any) -> None:
    """Traces the network of a config on its images, in its final test and in its analyses."""
    fields = tuple(sorted(config.model.items()))
    shapes = [inputs.configured_input(config, key) for key in ("train_host", "eval_host")]
    of_images = tasks.task_module(config.task).NEEDS == "label"  # else perhaps of many positions
    for shape in shapes:
        _, _, logits = traced(config.model_name, fields, shape)
        assert (logits.shape[0], logits.shape[-1]) == (2, config.model.num_classes)
        assert logits.dtype == jnp.float32 and (logits.ndim == 2 or not of_images)
    network = (config.model_name, fields, shapes[-1])
    check_tests(network, config.task, config.eval.protocol, config.eval.get("analyses", ""))


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
def check_tests(network: tuple[Any, Any, Any], task: str, protocol: str, analyses: str) -> None:
    """Traces the final test and the analyses; UserError if the network cannot take them."""
    model, variables, _ = traced(*network)
    shape = network[2]

    def normalise(image: jax.Array, key: jax.Array) -> jax.Array:
        return image.astype(jnp.float32)

    if protocol != "single_view":
        tasks.task_module(task).protocols(protocol, model, variables, normalise, shape)
    if analyses:
        run_analyses.check(analyses, model, variables, normalise, shape)


@pytest.mark.parametrize("scale", ["desk", pytest.param("paper", marks=pytest.mark.process)])
def test_a_run_takes_layers_of_the_run_that_it_starts_from(scale):
    problems = Problems()
    names = [name for name, claim in CLAIMS.items() if scale in claim.scales]
    jobs = [job for name in names for job in jobs_of(name, scale).values()]
    started = {job.id: job for job in jobs if job.start}
    assert started
    for job in started.values():
        assert job.start
        config = loaded(job)
        own, others = shapes_of(config), shapes_of(loaded(job.start))
        named = config.init_layers or ".*(?<!fc8)"  # without names, all that fit
        taken = {path for path in own if re.fullmatch(named, convert.layer_of(path))}
        with problems.of(job.id):
            assert taken and all(own[path] == others.get(path) for path in taken)
            # The classes are others, and a classifier has no regressor of boxes.
            regressor = {layer for layer in map(convert.layer_of, own) if layer.startswith("box")}
            fresh = {convert.layer_of(path) for path in own.keys() - taken}
            assert fresh == {"fc8"} | regressor
    assert problems == []


def shapes_of(config: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of a network's arrays."""
    model = zoo.build_model(config.model_name, **config.model)
    arrays = convert.abstract(model, inputs.configured_input(config))
    return {path: array.shape for path, array in arrays.items()}


# --- its metric -----------------------------------------------------------------------------------


def test_a_metric_finds_what_it_reads_in_every_arm():
    """In a made-up run with the rows that the config makes a run write."""
    problems = Problems()
    for name, scale in TRAINED:
        (metric,) = opstrings.parse(CLAIMS[name].metric, metrics, leading=1, key="metric")
        for config in configs_of(name, scale):
            with problems.of(f"{name} at {scale}"):
                run = Finished(config, made_up_rows(config, metric), "done")
                assert math.isfinite(metric(run).value)
    assert problems == []


def made_up_rows(config: Any, metric: opstrings.Op) -> list[dict[str, Any]]:
    task = tasks.task_module(config.task)
    names = ("loss", *(measure.name for measure in task.MEASURES))
    analysed = {op.name for op in run_analyses.parse(config.eval.get("analyses", ""))}
    texts = [text for text in metric.args if isinstance(text, str)]
    row = {f"{split}/{name}": 1.0 for split in ("train", "val") for name in names}
    row |= {f"analysis/{text}": 1.0 for text in texts if text.partition("/")[0] in analysed}
    protocol = config.eval.protocol
    tests = task.parse_protocols(protocol) if protocol != "single_view" else {}
    tested = [
        {"step": 9, "test/protocol": test} | {f"test/{name}": 1.0 for name in names[1:]}
        for test in tests
    ]
    return [{"step": step, **row} for step in range(1, 10)] + tested


@pytest.mark.parametrize(
    "computed",
    [
        pytest.param(False, marks=pytest.mark.process),
        pytest.param(True, marks=pytest.mark.slow),
    ],
)
def test_an_exact_claim_is_decided(computed):
    names = [name for name, claim in CLAIMS.items() if EXACT in claim.scales]
    names = [name for name in names if CLAIMS[name].metric.startswith(COMPUTED) == computed]
    assert names
    problems = Problems()
    for name in names:
        with problems.of(name):
            arms = plan.jobs(CLAIMS[name], EXACT, [0, 1])
            readings = read_claim(CLAIMS[name], arms, exact_runs(arms))
            verdict = verdicts.judge(CLAIMS[name], readings, exact=True)
            assert verdict.word in (verdicts.AGREES, verdicts.DISAGREES)
            assert verdict.low == verdict.estimate == verdict.high and verdict.n == 1
    assert problems == []


@pytest.mark.parametrize("scale", ["desk", "gpu"])
def test_densenets_rival_has_at_least_half_as_many_parameters_again(scale):
    rival, densenet = configs_of("densenet_parameter_efficiency", scale)
    assert rival.model_name == "resnet" and rival.model.variant.startswith("cifar-pre-")
    sizes = [metrics.parameters(Finished(config, [], "done")).value for config in (rival, densenet)]
    assert 1.5 <= sizes[0] / sizes[1] < 2


def test_the_last_layer_of_every_nin_learns_at_a_tenth():
    """The released rates: a tenth of the others', of biases twice the weights'."""
    for name, scale in TRAINED:
        if name not in catalogue.claims_of()["nin"]:
            continue
        for config in configs_of(name, scale):
            gap = "conv3" if config.model.plain else "cccp6"
            last = gap if config.model.head == "gap" else "fc"
            expected = ((f"{last}/kernel", 0.1), (f"{last}/bias", 0.2), (".*/bias", 2.0))
            assert config.optim.lr_mults == expected, f"{name} at {scale}"
            assert (config.optim.weight_decay, config.optim.wd_mults) == (1e-4, ((".*/bias", 0.0),))
