"""The papers' test of trained networks: the protocols of `config.eval.protocol`, and several runs
averaged.
"""

import inspect
import itertools
import json
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnn_papers import opstrings
from cnn_papers.data import augment, host_ops, statistics
from cnn_papers.data.sources import open_split
from cnn_papers.errors import UserError
from cnn_papers.evaluation import passes, precise_bn, support
from cnn_papers.evaluation.protocols import Protocol
from cnn_papers.parallel import mesh as meshes
from cnn_papers.parallel import processes
from cnn_papers.runs import inputs
from cnn_papers.runs.rows import METRICS, TIMING, read_rows
from cnn_papers.training.losses import errors
from cnn_papers.weights import trained
from cnn_papers.weights.trained import Trained


class Member(NamedTuple):
    """A network about to be tested: `folder` is its run's, None where it comes from a file."""

    network: Trained
    folder: pathlib.Path | None
    source: passes.Source
    protocols: dict[str, Protocol]
    programs: passes.Programs


class Result(NamedTuple):
    """One line of the table: errors in percent over `images` images.

    `seconds` leave out the `compiling` of `programs`; both are sums over the networks of an
    ensemble.
    """

    who: str
    protocol: str
    top1_error: float
    top5_error: float
    images: int
    programs: int
    seconds: float
    compiling: float


def evaluate_runs(
    folders: Sequence[pathlib.Path], config: Any, overrides: Mapping[str, Any]
) -> list[Result]:
    """Tests the run in each folder at its best checkpoint and, of several, the mean of their class
    probabilities.

    Every run keeps its own network and preparation of images; `overrides` (by dotted key) change
    them for the test, and `config` says which network is expected and over which devices to go.
    Prints a table and adds rows to the runs' metrics.jsonl (those of an ensemble to the first
    run's) and timing.jsonl.

    Raises:
      UserError: no run, a damaged one, another network's, a protocol that it cannot serve, data
      that is not there.
    """
    networks = [trained.from_run(folder, overrides) for folder in folders]
    if all(network.config.model_name != config.model_name for network in networks):
        raise UserError(
            f"{folders[0]} holds a run of {networks[0].config.model_name}, and --config names {config.model_name}"
        )
    return evaluate(networks, meshes.make_mesh(config.mesh.data), folders)


def evaluate_weights(path: pathlib.Path, config: Any) -> list[Result]:
    """Tests the network of `config` with the weights of a file, as `evaluate_runs` tests runs;
    keeps no rows.
    """
    return evaluate([trained.from_file(path, config)], meshes.make_mesh(config.mesh.data), [None])


def evaluate(
    networks: Sequence[Trained], mesh: jax.sharding.Mesh, folders: Sequence[pathlib.Path | None]
) -> list[Result]:
    """Tests `networks` over `mesh`, each as its own config says; those with a folder leave rows
    there.
    """
    members = [
        _member(network, mesh, folder) for network, folder in zip(networks, folders, strict=True)
    ]
    for member in members:
        batches = member.network.config.eval.get("precise_bn", 0)
        how = f", batch statistics recomputed over {batches} training batches" if batches else ""
        print(member.network.description + how)
    counts = {len(member.protocols) for member in members}
    if len(counts) > 1:
        raise UserError(
            "these runs have different numbers of protocols: name those to average with --config.eval.protocol"
        )
    print(
        f"tested on {members[0].source.raw.split.name}, {len(members[0].source.raw):,} images",
        flush=True,
    )
    whos = [str(member.folder or member.network.description) for member in members]
    width = max(len(text) for member in members for text in member.protocols)
    _say(("", "protocol", "top-1 error", "top-5 error", "images/s", "programs"), width, whos)
    results, enlarged = [], 0
    for at_once in zip(*(member.protocols.items() for member in members), strict=True):
        outcomes = []
        for who, member, (name, protocol) in zip(whos, members, at_once, strict=True):
            outcome = passes.run(
                protocol, member.programs, member.network.variables, member.source, name=name
            )
            results.append(_result(who, name, [outcome]))
            _report(results[-1], member, width, whos)
            outcomes.append(outcome)
            enlarged = max(enlarged, outcome.enlarged)
        if len(members) > 1:
            name = " + ".join(dict.fromkeys(name for name, _ in at_once))
            results.append(_result(f"mean of {len(members)}", name, outcomes))
            _report(results[-1], members[0], width, whos, ensemble=whos)
    if enlarged:
        print(f"{enlarged:,} images are smaller than the views of them: they were scaled up")
    return results


def _member(network: Trained, mesh: jax.sharding.Mesh, folder: pathlib.Path | None) -> Member:
    """`network` on `mesh`, its split opened, its protocols checked."""
    everywhere = meshes.replicated(mesh)
    network = network._replace(variables=processes.put(network.variables, everywhere), mesh=mesh)
    source = _source(network.config, mesh)
    shape = source.prepared.image_shape
    settings = network.config.eval
    protocols = support.supported(
        settings.protocol,
        network.model,
        network.variables,
        network.normalise,
        shape,
        mirror=settings.get("mirror", True),
        precise_bn=settings.get("precise_bn", 0),
    )
    if batches := network.config.eval.get("precise_bn", 0):
        network = network._replace(
            variables=processes.put(_precise(network, folder, batches), everywhere)
        )
    programs = passes.make_programs(network.model, network.variables, network.normalise, mesh)
    return Member(network, folder, source, protocols, programs)


def _source(config: Any, mesh: jax.sharding.Mesh) -> passes.Source:
    """The evaluation split of `config`, before and after its images get their size."""
    data = config.data
    split = open_split(data.name, data.eval_split, data.data_dir)
    ops = opstrings.parse(data.eval_host, host_ops, leading=1, key="data.eval_host")
    before = list(
        itertools.takewhile(lambda op: not ("resize" in op.name or "crop" in op.name), ops)
    )
    text = "|".join(opstrings.split(data.eval_host)[: len(before)])
    raw = config.copy_and_resolve_references()
    raw.data.eval_host = text
    prepared = inputs.open_pipeline(split, config, "eval_host", mesh, resident="never")
    height, width = prepared.image_shape[:2]
    return passes.Source(
        inputs.open_pipeline(split, raw, "eval_host", mesh, resident="never"),
        prepared,
        _resize_method(ops),
        (config.eval.batch_size or config.batch_size) * height * width,
    )


def _resize_method(ops: Sequence[opstrings.Op]) -> str:
    """How the single view of a network is resized, so that other views are resized alike."""
    for op in ops:
        if "method" in (parameters := inspect.signature(op.function).parameters):
            given = (
                inspect.signature(op.function).bind_partial(None, *op.args, **op.kwargs).arguments
            )
            return given.get("method", parameters["method"].default)
    return "area"


def _precise(network: Trained, folder: pathlib.Path | None, count: int) -> dict[str, Any]:
    """The network's variables with batch statistics of `count` training batches."""
    config, data = network.config, network.config.data
    split = open_split(data.name, data.train_split, data.data_dir)
    figures = None
    if augment.needs_statistics(data.train_device, key="data.train_device"):
        if folder is None:
            raise UserError(
                "config.eval.precise_bn: data.train_device needs figures that come with a run alone"
            )
        figures = statistics.load(folder / statistics.FILE)
    pipeline = inputs.open_pipeline(
        split, config, "train_host", network.mesh, max_skips=data.max_skips
    )
    size = config.batch_size // config.optim.accumulate
    return precise_bn.recompute(
        network.model,
        network.variables,
        augment.compose(data.train_device, figures, key="data.train_device", train=True),
        pipeline.train_batches(size, seed=config.seed, steps=range(count)),
        config.seed,
    )


def _result(who: str, protocol: str, outcomes: Sequence[passes.Outcome]) -> Result:
    """The errors of the mean of the outcomes' probabilities; the only place where a test counts
    them.
    """
    label = outcomes[0].label
    if any(not np.array_equal(outcome.label, label) for outcome in outcomes):
        raise UserError(
            "these runs are evaluated on different data: set --config.data.name and --config.data.eval_split"
        )
    probabilities = np.mean([outcome.probabilities for outcome in outcomes], 0)
    wrong = [float(errors(jnp.asarray(probabilities), jnp.asarray(label), k).sum()) for k in (1, 5)]
    programs, seconds, compiling = (
        sum(getattr(outcome, name) for outcome in outcomes)
        for name in ("programs", "seconds", "compiling")
    )
    top1, top5 = (100 * each / len(label) for each in wrong)
    return Result(who, protocol, top1, top5, len(label), programs, seconds, compiling)


def _report(
    result: Result, member: Member, width: int, whos: Sequence[str], ensemble: Sequence[str] = ()
) -> None:
    """Prints the result's line and adds its rows to the run of `member`."""
    speed = result.images / result.seconds
    texts = (
        f"{result.top1_error:.2f}%",
        f"{result.top5_error:.2f}%",
        f"{speed:,.0f}",
        str(result.programs),
    )
    _say((result.who, result.protocol, *texts), width, whos)
    if member.folder is None or not processes.is_first():
        return
    what = {
        "step": member.network.step,
        "test/protocol": result.protocol,
        "test/split": member.source.raw.split.name,
    }
    settings = member.network.config.eval
    what |= {f"test/{key}": settings[key] for key in ("mirror", "precise_bn") if key in settings}
    if ensemble:
        what["test/ensemble"] = list(ensemble)
    found = {
        "top1_error": result.top1_error,
        "top5_error": result.top5_error,
        "images": result.images,
    }
    row = {**what, **{f"test/{name}": value for name, value in found.items()}}
    clock = {"programs": result.programs, "seconds_compiling": round(result.compiling, 2)}
    try:
        if row not in read_rows(member.folder / METRICS):  # tested again, the file stays as it is
            _append(member.folder / METRICS, row)
        _append(
            member.folder / TIMING, {**what, "test/images_per_second": round(speed, 1), **clock}
        )
    except OSError as error:
        logging.getLogger("cnn_papers").warning(
            "the result is not kept in %s: %s", member.folder, error.strerror
        )


def _append(path: pathlib.Path, row: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def _say(cells: Sequence[str], width: int, whos: Sequence[str]) -> None:
    """One line of the table; which run it is of is said where there are several."""
    who, protocol, *numbers = cells
    first = f"{who:<{max(map(len, whos))}}  " if len(whos) > 1 else ""
    print(
        f"{first}{protocol:<{width}}" + "".join(f"{number:>13}" for number in numbers), flush=True
    )
