"""Runs many runs: of claims, or over a grid: python -m launch.sweep --claim=overlapping_pooling
--seeds=5.

    python -m launch.sweep --all_claims --scale=desk --seeds=3 --jobs=2
    python -m launch.sweep --config=configs/alexnet.py --grid=optim.lr=0.01,0.02
    '--grid=model.pool=(3,2);(2,2)'

The same command again goes on: what is finished is skipped, what was stopped or killed is resumed.
Exits with 0 when all runs are finished (or submitted to SLURM), 1 when some are not, 128 + n when
signal n stopped it.
"""

import os
import pathlib
import shlex
import time
from collections.abc import Sequence
from typing import NamedTuple

from absl import flags

from cnn_papers import doors, files
from cnn_papers.claims import catalogue
from cnn_papers.claims.plan import EXACT, Job
from cnn_papers.claims.readings import FINISHED
from cnn_papers.errors import UserError
from cnn_papers.sweeps import code_digest, local, process, request, slurm
from cnn_papers.sweeps.process import FAILED, RUNNING, Place, Record, Running
from cnn_papers.sweeps.progress import Progress, summary
from cnn_papers.sweeps.request import Request
from cnn_papers.terminal import say

ORPHANS_S = 30.0  # that runs of a sweep which was killed have to save and stop
GRACE_S = 25.0  # that runs have to save and stop once a sweep is told to
TASK_GRACE_S = 110.0  # the same within SLURM, which tells two minutes before its time limit


class Plan(NamedTuple):
    """A sweep's folder, its runs, and what these compute with.

    Attributes:
      source: digest of the package's source.
      codes: digest of that and its configuration, for each run by id.
      files: those that its runs will read, the config files too.
      as_planned: digest of `files` when the configurations were read.
    """

    folder: pathlib.Path
    jobs: list[Job]
    source: str
    codes: dict[str, str]
    files: list[pathlib.Path]
    as_planned: str


def main(argv: list[str]) -> int:
    """The sweep that the flags describe; returns the exit code."""
    if len(argv) > 1:
        raise UserError(
            f"unexpected argument '{argv[1]}'; values of a grid are written --grid=KEY=VALUE,VALUE"
        )
    values = flags.FLAGS
    if values.task:
        return _run_task(pathlib.Path(values.runs or "."), slurm.task_of(values.task))
    wanted, name = _asked()
    plan = _plan(pathlib.Path(values.runs or f"runs/sweep-{name}"), request.jobs_of(wanted))
    places = local.places(values.jobs or 1) if values.executor == "local" else []
    request.check_same(plan.folder, wanted)
    if exact := [name for name, scale in wanted.claims.items() if scale == EXACT]:
        print(f"needs no training: {', '.join(exact)}")
    if values.dry_run:
        return _show(plan)
    with files.locked(plan.folder, "runs"):
        if places:
            _wait_for_orphans(plan)
        request.check_same(plan.folder, wanted)  # now that nobody else can write there
        todo, records = _todo(plan)
        request.remember(plan.folder, wanted, plan.jobs)
        say("\n".join(summary(plan.folder, plan.jobs, records)))
        return _run(plan, places, todo, records) if places else _submit(plan, todo, records)


# --- what is asked --------------------------------------------------------------------------------


def _asked() -> tuple[Request, str]:
    """What the flags ask for, and a name for it."""
    values = flags.FLAGS
    if not values.claim and not values.all_claims:
        return _asked_grid()
    if values.grid or (values.config and doors.config_overrides()):
        raise UserError(
            "a claim has its own overrides; --grid and --config.key=value go with --config alone"
        )
    config = _config_name() if values.config else ""
    if not values.all_claims:
        scales = request.scales_of(
            [name for text in values.claim for name in text.split(",")], values.scale, config
        )
        others = [name for name, at in scales.items() if at not in (values.scale, EXACT)]
        if others and values["scale"].present:
            raise UserError(
                f"--config={config} is of {others[0]} at --scale={scales[others[0]]}; leave one out"
            )
        name = "-".join([*list(scales)[:3], *dict.fromkeys(scales.values())])
        return Request(scales, "", {}, values.seeds), name
    if values.claim or config:
        raise UserError("--all_claims goes without --claim and --config")
    names = request.askable(values.scale)
    if others := [name for name in catalogue.all_claims() if name not in names]:
        print(f"not asked at scale {values.scale}: {', '.join(others)}")
    return Request(
        request.scales_of(names, values.scale, ""), "", {}, values.seeds
    ), f"all_claims-{values.scale}"


def _asked_grid() -> tuple[Request, str]:
    if not flags.FLAGS.config:
        raise UserError(
            "nothing to run: give --claim=NAME, --all_claims, or --config=FILE with --grid=KEY=VALUE,VALUE"
        )
    grid = {key: [value] for key, value in doors.config_overrides().items()}
    axes = request.grid_of(flags.FLAGS.grid, flags.FLAGS.config)
    if twice := grid.keys() & axes.keys():
        raise UserError(f"{min(twice)} is given by --config.{min(twice)} and by --grid")
    if "seed" in grid:
        raise UserError("--config.seed: seeds are given by --seeds=N")
    config = flags.FLAGS.config
    return Request(
        {}, _config_name(), grid | axes, flags.FLAGS.seeds
    ), f"{config.name}-{config.recipe}"


def _config_name() -> str:
    """The file and recipe of `--config`, the same wherever the package lies."""
    from ml_collections import config_flags

    name = os.path.normpath(config_flags.get_config_filename(flags.FLAGS["config"])).removesuffix(
        ":desk"
    )
    return name.removeprefix(f"{pathlib.Path(doors.__file__).parents[1]}{os.sep}")


# --- running it -----------------------------------------------------------------------------------


def _plan(folder: pathlib.Path, jobs: list[Job]) -> Plan:
    """Finds every mistake in the configurations of `jobs`."""
    sources = code_digest.sources()
    source, read = code_digest.source_digest(sources), [*sources, *code_digest.config_files(jobs)]
    as_planned = code_digest.source_digest(read)
    return Plan(
        folder,
        jobs,
        source,
        {job.id: code_digest.digest(source, job) for job in jobs},
        read,
        as_planned,
    )


def _todo(plan: Plan) -> tuple[list[Job], dict[str, Record]]:
    """The runs to start, and how every run stands; UserError if some are of other code than now."""
    records = {job.id: process.read(plan.folder, job) for job in plan.jobs}
    others = [
        job.id
        for job in plan.jobs
        if records[job.id].code != plan.codes[job.id]
        and process.has_trained(plan.folder, job, records[job.id])
    ]
    if others and not flags.FLAGS.accept_other_code:
        raise UserError(
            f"{plan.folder} holds runs of other code or another recipe than now: {len(others)}, such as {others[0]}; "
            "give another folder with --runs, remove them, or go on all the same with --accept_other_code"
        )
    skipped = FINISHED if flags.FLAGS.retry_failed else (*FINISHED, FAILED)
    return [job for job in plan.jobs if records[job.id].outcome not in skipped], records


def _run(
    plan: Plan, places: Sequence[Place], todo: Sequence[Job], records: dict[str, Record]
) -> int:
    """Runs `todo` on this machine; keeps `records` up to date."""
    progress = Progress(
        plan.folder, records, {job.id: job.config for job in plan.jobs}, len(places)
    )

    def begin(job: Job, place: Place) -> Running:
        if (
            code_digest.source_digest(plan.files) != plan.as_planned
        ):  # the run would read what this process has not
            raise UserError(
                f"the code or a config file has changed since this sweep began; stopped before {job.id}; "
                "the same command goes on, and says so where runs are of other code"
            )
        return process.start(plan.folder, job, plan.source, plan.codes[job.id], place)

    def ended(run: Running, running: Sequence[Running], waiting: Sequence[Job]) -> None:
        progress.ended(run.job, process.end(plan.folder, run), running, waiting)

    if stopped := local.run_all(todo, places, begin, ended, progress.tick, GRACE_S):
        say("stopped; the same command goes on")
        return 128 + stopped
    if todo:
        say("\n".join(summary(plan.folder, plan.jobs, records)))
    if any(record.outcome == FAILED for record in records.values()):
        say("--retry_failed starts those again that failed")
    return int(any(record.outcome not in FINISHED for record in records.values()))


def _wait_for_orphans(plan: Plan) -> None:
    """Lets the runs of a sweep that was killed save and stop; UserError if some go on, as SLURM's
    do.
    """
    deadline, told = time.monotonic() + ORPHANS_S, False
    while taken := [job for job in plan.jobs if process.is_taken(plan.folder, job)]:
        if time.monotonic() > deadline:
            raise process.in_use(plan.folder, taken[0])
        if not told:
            print(f"waiting for runs that others have under way: {len(taken)}", flush=True)
        told = True
        time.sleep(0.1)


def _show(plan: Plan) -> int:
    """Prints what would be started, and how everything stands."""
    todo, records = _todo(plan)
    if flags.FLAGS.executor == "slurm":
        todo = _not_queued(plan, todo, records)
        lines = slurm.commands(
            plan.folder, todo, flags.FLAGS.jobs, flags.FLAGS.sbatch, _task_flags()
        )
        print("\n".join(map(shlex.join, lines)))
    for job in todo:
        print(
            f"{shlex.join(['python', *process.command(plan.folder, job)[1:]])}  # {records[job.id].outcome}"
        )
    print("\n".join(summary(plan.folder, plan.jobs, records)))
    return 0


# --- SLURM ----------------------------------------------------------------------------------------


def _submit(plan: Plan, todo: Sequence[Job], records: dict[str, Record]) -> int:
    """Puts `todo` into SLURM's queue, unless it is there."""
    if new := _not_queued(plan, todo, records):
        numbers = slurm.submit(
            plan.folder, new, flags.FLAGS.jobs, flags.FLAGS.sbatch, _task_flags()
        )
        print(
            f"submitted to SLURM: {len(new)}, as job {', '.join(numbers)}; the same command says how they stand"
        )
    return int(any(records[job.id].outcome == FAILED for job in plan.jobs if job not in todo))


def _not_queued(plan: Plan, todo: Sequence[Job], records: dict[str, Record]) -> list[Job]:
    """Those of `todo` that SLURM does not have already; says how many it has."""
    there = slurm.queued(plan.folder)
    if there:
        print(f"running or waiting in SLURM: {len(there)}")
    return [job for job in todo if job.id not in there and records[job.id].outcome != RUNNING]


def _task_flags() -> list[str]:
    return ["--accept_other_code"] if flags.FLAGS.accept_other_code else []


def _run_task(folder: pathlib.Path, name: str) -> int:
    """One run, as a task of an array; returns its exit code."""
    job = request.remembered(folder, name)
    plan = _plan(folder, [job])
    _, records = _todo(plan)  # which refuses a run of other code
    if records[name].outcome in FINISHED:
        print(f"{name} is finished already")
        return 0
    codes: list[int] = []

    def ended(run: Running, *_: object) -> None:
        record = process.end(folder, run)
        print(f"{name} {record.outcome}: {process.last_line(folder, job)}", flush=True)
        codes.append(record.exit_code or 0)

    def begin(job: Job, place: Place) -> Running:
        return process.start(folder, job, plan.source, plan.codes[name], place)

    stopped = local.run_all(
        [job], [Place()], begin, ended, lambda running, waiting: None, TASK_GRACE_S
    )
    return 128 + stopped if stopped else codes[0]


def cli() -> None:
    """The command line."""
    doors.config_flag()
    flags.DEFINE_multi_string("claim", [], "a claim to ask again, or several: a,b")
    flags.DEFINE_bool("all_claims", False, "ask every claim that can be asked at --scale")
    flags.DEFINE_enum("scale", "desk", [EXACT, "desk", "gpu", "paper"], "at which claims are asked")
    flags.DEFINE_multi_string(
        "grid", [], "KEY=VALUE,VALUE or KEY=VALUE;VALUE over the recipe of --config; repeatable"
    )
    flags.DEFINE_integer("seeds", 3, "how many seeds, from 0", lower_bound=1)
    flags.DEFINE_string("runs", "", "folder of the sweep, runs/sweep-<what> by default")
    flags.DEFINE_bool("dry_run", False, "print the commands, start nothing")
    flags.DEFINE_bool("retry_failed", False, "start runs again that failed")
    flags.DEFINE_bool(
        "accept_other_code",
        False,
        "count runs that other code or another recipe made, and go on with them",
    )
    flags.DEFINE_integer(
        "jobs", 0, "runs at a time; by default 1 here, as many as it lets with SLURM", lower_bound=0
    )
    flags.DEFINE_enum(
        "executor",
        "local",
        ["local", "slurm"],
        "where to run: on this machine, or as a SLURM job array",
    )
    flags.DEFINE_string(
        "sbatch", "", "more options of sbatch, such as '--partition=gpu --gpus=1 --time=2:00:00'"
    )
    flags.DEFINE_list(
        "task",
        [],
        "run one of these runs of --runs, by $SLURM_ARRAY_TASK_ID; tasks of an array use it",
    )
    doors.run(main)


if __name__ == "__main__":
    cli()
