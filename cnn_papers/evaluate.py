"""Tests trained networks as the papers do, one or an ensemble: the final test on one page."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from cnn_papers import tasks
from cnn_papers.data import augment, statistics
from cnn_papers.data.pipeline import parse_host
from cnn_papers.data.progress import reported
from cnn_papers.data.split import Split, with_classes_of
from cnn_papers.detection import detections
from cnn_papers.errors import UserError
from cnn_papers.evaluation import class_values, passes, precise_bn
from cnn_papers.evaluation.protocols import Svm
from cnn_papers.evaluation.results import Result
from cnn_papers.facts import Measure
from cnn_papers.parallel import mesh as meshes
from cnn_papers.parallel import processes
from cnn_papers.runs import final_tests, inputs, splits, summary, tested_images
from cnn_papers.runs.rows import METRICS, read_rows
from cnn_papers.training import freezing
from cnn_papers.weights import trained
from cnn_papers.weights.trained import Trained

IMAGES_PER_SECOND = "images/s: tested images, each with all its views; compiling does not count"


class Member(NamedTuple):
    """A network of the ensemble that is tested, or the only one.

    Attributes:
      folder: of its run; None if its weights come from a file.
      source: the images of its evaluation split.
      protocols: by their texts in `config.eval.protocol`, from `protocols` of the task.
      programs: its compiled programs.
    """

    network: Trained
    folder: pathlib.Path | None
    source: passes.Source
    protocols: dict[str, Any]
    programs: passes.Programs

    @property
    def name(self) -> str:
        """The folder of the run, or where the weights come from."""
        return str(self.folder or self.network.description)

    def open_train(self) -> Split:
        """Opens the split that the network was trained on, for what a test fits to it.

        Raises:
          UserError: as `trained.open_trained_on`.
        """
        return trained.open_trained_on(self.network)

    def open_train_source(self) -> passes.Source:
        """Opens `config.data.train_split` as the tested images are opened, with their labels."""
        config, tested = self.network.config, self.source.raw.split
        split = splits.open_one(config, config.data.train_split)
        split = with_classes_of(split, tested.class_names, network=f"the test on {tested.name}")
        return tested_images.open_source(
            split,
            config,
            self.network.mesh,
            num_classes=self.source.raw.num_classes,
            max_skips=config.data.max_skips,
        )


class Widths(NamedTuple):
    """The widths of the table's first two columns in characters; `who` is 0 for one member."""

    who: int
    protocol: int


def evaluate_runs(
    folders: Sequence[str | pathlib.Path], config: Any, overrides: Mapping[str, Any] | None = None
) -> list[Result]:
    """Tests the run in each folder at its best checkpoint and, of several runs, their ensemble.

    Every run keeps its own network and preparation of images; `overrides` (by dotted key) change
    them for the test. `config` says which network is expected and over which devices to test.
    Prints a table and, of one run, the paper's results beside it. Adds rows to metrics.jsonl and
    timing.jsonl of the runs, and boxes to their detections.npz; an ensemble's rows go to the first
    run.

    Raises:
      UserError: no run, a damaged one, another network's, a protocol that it cannot serve, data
        that is missing, several runs of a task whose outcomes have no mean.
    """
    paths = [pathlib.Path(folder) for folder in folders]
    networks = [trained.from_run(path, overrides) for path in paths]
    if all(network.config.model_name != config.model_name for network in networks):
        raise UserError(
            f"{paths[0]} holds a run of {networks[0].config.model_name}, "
            f"and --config names {config.model_name}"
        )
    results = evaluate(networks, meshes.make_mesh(config.mesh.data), paths)
    if len(paths) == 1 and processes.is_first():
        summary.print_reported(networks[0].config, read_rows(paths[0] / METRICS))
    return results


def evaluate_weights(path: str | pathlib.Path, config: Any) -> list[Result]:
    """Tests the network of `config` with the weights of a file; prints a table, keeps no rows.

    `path` may also be their name on the hub.

    Raises:
      UserError: as `evaluate_runs`, and for a file that does not fit the network.
    """
    return evaluate([trained.from_file(path, config)], meshes.make_mesh(config.mesh.data), [None])


def evaluate(
    networks: Sequence[Trained], mesh: jax.sharding.Mesh, folders: Sequence[pathlib.Path | None]
) -> list[Result]:
    """Tests `networks` over `mesh`, each as its own config says; rows go to those with a folder.

    The first protocol of every network is averaged with the first of the others, the second with
    the second, and so on.
    """
    # 1. Open the data of each network, and check that it can serve its protocols.
    task = _common_task(networks)
    orders = [_order(networks[0], network) for network in networks]
    members = [
        _open_member(network, mesh, folder)
        for network, folder in zip(networks, folders, strict=True)
    ]
    _print_members(members)
    if len({len(member.protocols) for member in members}) > 1:
        raise UserError(
            "these runs have different numbers of protocols: "
            "name those to average with --config.eval.protocol"
        )
    # 2. Start the table.
    raw = members[0].source.raw
    print(f"tested on {raw.split.name}, {len(raw):,} images", flush=True)
    widths = _column_widths(members)
    _print_header(widths, task.MEASURES)
    # 3. Pass each network over the images with each of its protocols.
    class_names = raw.split.class_names
    results: list[Result] = []
    by_class: dict[str, class_values.ClassValues] = {}
    notes: dict[str, None] = {}  # each once, in their order
    enlarged = 0
    for protocol_names in zip(*(member.protocols for member in members), strict=True):
        outcomes = []
        for member, order, protocol_name in zip(members, orders, protocol_names, strict=True):
            protocol = member.protocols[protocol_name]
            outcome = task.test(protocol, member, name=protocol_name)
            outcomes.append(outcome if order is None else task.reordered(outcome, order))
            enlarged = max(enlarged, outcome.enlarged)
            result = task.result_of(member.name, protocol_name, outcomes[-1:], class_names)
            results.append(result)
            notes |= dict.fromkeys(result.notes)
            _print_result(widths, result, task.MEASURES)
            _keep(result, outcome, member)
        # 4. Average the class probabilities of several networks.
        if len(members) > 1:
            names = " + ".join(dict.fromkeys(protocol_names))
            result = task.result_of(f"mean of {len(members)}", names, outcomes, class_names)
            results.append(result)
            _print_result(widths, result, task.MEASURES)
            _keep(result, None, members[0], ensemble=[member.name for member in members])
        by_class[results[-1].protocol] = results[-1].by_class
    print(IMAGES_PER_SECOND)
    if enlarged:
        print(f"{enlarged:,} images are smaller than a protocol's scale: they were scaled up")
    # 5. Print the values by class, of several networks those of their mean.
    print("\n".join([*notes, *class_values.table(by_class)]), flush=True)
    return results


def _common_task(networks: Sequence[Trained]) -> Any:
    """Returns the module of the task of all `networks`.

    Raises:
      UserError: they have several, or one whose outcomes have no mean.
    """
    names = {network.config.task: network.description for network in networks}
    if len(names) > 1:
        (one, first), (other, second), *_ = names.items()
        raise UserError(
            f"these runs have different tasks, and their outputs no mean: {one} ({first}), "
            f"{other} ({second})"
        )
    name = networks[0].config.task
    task = tasks.task_module(name)
    if len(networks) > 1 and not hasattr(task, "reordered"):
        raise UserError(
            f"outcomes of the task '{name}' have no mean over several networks: "
            "test one run at a time"
        )
    return task


def _order(first: Trained, other: Trained) -> np.ndarray | None:
    """Returns the order of `trained.order_of_outputs`; None if the classes are in the same."""
    if first is other or (_fits_classes(first) and _fits_classes(other)):
        return None
    return trained.order_of_outputs(first, other)


def _fits_classes(network: Trained) -> bool:
    """Tells whether the test of a network fits its classes anew, whatever those of its head."""
    protocols = tasks.task_module(network.config.task).parse_protocols(network.config.eval.protocol)
    return all(isinstance(protocol, Svm) for protocol in protocols.values())


def _open_member(network: Trained, mesh: jax.sharding.Mesh, folder: pathlib.Path | None) -> Member:
    """Puts `network` on `mesh`, opens its split, and checks and adapts what its config asks for."""
    replicated = meshes.replicated(mesh)
    network = network._replace(variables=processes.put(network.variables, replicated), mesh=mesh)
    if _fits_classes(network):
        config, data = network.config, network.config.data
        class_names = splits.open_one(config, data.train_split).class_names
        split = with_classes_of(splits.open_one(config, data.eval_split), class_names)
        num_classes = len(split.class_names)
    else:
        split = trained.open_labelled(network, network.config.data.eval_split)
        num_classes = 0  # those of the head
    source = tested_images.open_source(split, network.config, mesh, num_classes=num_classes)
    settings = tested_images.protocol_settings(network.config)
    protocols = tasks.task_module(network.config.task).protocols(
        network.config.eval.protocol,
        network.model,
        network.variables,
        network.normalise,
        source.prepared.image_shape,
        **settings,
    )
    if precise_batches := settings["precise_bn"]:
        variables = _with_precise_bn(network, folder, precise_batches)
        network = network._replace(variables=processes.put(variables, replicated))
    programs = passes.make_programs(network.model, network.variables, network.normalise, mesh)
    return Member(network, folder, source, protocols, programs)


def _with_precise_bn(network: Trained, folder: pathlib.Path | None, batches: int) -> dict[str, Any]:
    """Returns the network's variables with batch-norm statistics of `batches` training batches."""
    config, data = network.config, network.config.data
    train_host = parse_host(data.train_host, key="data.train_host")
    train_device = augment.parse_device(data.train_device, key="data.train_device")
    pixel_statistics = None
    if augment.needs_statistics(train_device):
        if folder is None:
            raise UserError(
                "config.eval.precise_bn: data.train_device needs statistics of the training "
                "images, which only a run has; set it to 0"
            )
        pixel_statistics = statistics.load(folder / statistics.FILE)
    pipeline = inputs.open_pipeline(
        trained.open_trained_on(network),
        config,
        train_host,
        network.mesh,
        max_skips=data.max_skips,
    )
    optim = config.optim  # a run may be older than a key
    frozen = "" if optim.get("move_frozen_statistics", False) else optim.get("frozen", "")
    batch_size = config.batch_size // optim.accumulate
    train_batches = pipeline.train_batches(batch_size, seed=config.seed, steps=range(batches))
    return precise_bn.recompute(
        network.model,
        network.variables,
        augment.compose(train_device, pixel_statistics, train=True),
        reported(train_batches, batches, "statistics of batches", unit="batches"),
        config.seed,
        as_in_evaluation=freezing.frozen_layers(network.variables["params"], frozen),
    )


def _print_members(members: Sequence[Member]) -> None:
    for member in members:
        batches = member.network.config.eval.get("precise_bn", 0)
        how = f", batch statistics recomputed over {batches} training batches" if batches else ""
        print(member.network.description + how)


def _column_widths(members: Sequence[Member]) -> Widths:
    return Widths(
        who=max(len(member.name) for member in members) if len(members) > 1 else 0,
        protocol=max(len(name) for member in members for name in member.protocols),
    )


def _print_header(widths: Widths, measures: Sequence[Measure]) -> None:
    words = [measure.words for measure in measures]
    _print_line(widths, "", "protocol", [*words, "images/s"])


def _print_line(widths: Widths, who: str, protocol: str, cells: Sequence[str]) -> None:
    """Prints one line of the table, with `who` only where there are several members."""
    first = f"{who:<{widths.who}}  " if widths.who else ""
    numbers = "".join(f"  {cell:>11}" for cell in cells)
    print(f"{first}{protocol:<{widths.protocol}}{numbers}", flush=True)


def _print_result(widths: Widths, result: Result, measures: Sequence[Measure]) -> None:
    cells = [
        *(m.number(result.values[m.name]).rjust(len(m.words)) for m in measures),
        _rate(result.images_per_second),
    ]
    _print_line(widths, result.who, result.protocol, cells)


def _rate(images_per_second: float) -> str:
    return f"{images_per_second:,.0f}" if images_per_second >= 10 else f"{images_per_second:.2g}"


def _keep(result: Result, outcome: Any, member: Member, ensemble: Sequence[str] = ()) -> None:
    """Keeps the result in the member's run, if it has one, and the detections of an outcome.

    Args:
      result: of `outcome`, or of the mean of several.
      outcome: of the task's test; None for a mean.
      member: the one that keeps it.
      ensemble: the names of all members whose mean the result is.
    """
    if member.folder is None or not processes.is_first():
        return
    network, split = member.network, member.source.raw.split
    final_tests.keep_result(
        member.folder,
        result,
        step=network.step,
        split=split,
        settings=network.config.eval,
        ensemble=ensemble,
    )
    if isinstance(outcome, detections.Outcome):
        final_tests.keep_detections(
            member.folder, outcome, protocol=result.protocol, step=network.step, split=split
        )
