"""Plans and runs a sweep: its runs that are not finished, on this machine or under SLURM."""

import math
import pathlib
import shlex
import time
from collections.abc import Sequence
from typing import NamedTuple

from cnn_papers import files
from cnn_papers.claims.plan import EXACT, Job
from cnn_papers.claims.records import FAILED, FINISHED, RUNNING, Record
from cnn_papers.errors import UserError, listed
from cnn_papers.sweeps import code_digest, ledger_lines, local, process, rounds, slurm
from cnn_papers.sweeps.process import Place, Running
from cnn_papers.sweeps.progress import Progress, summary
from cnn_papers.sweeps.request import (
    Request,
    check_extends,
    jobs_of,
    reached_there,
    read_job,
    write_request,
)
from cnn_papers.terminal import duration, say

ORPHANS_S = 30.0  # for runs of a killed sweep to save and stop
GRACE_S = 25.0  # for runs to save and stop when the sweep is told to stop
TASK_GRACE_S = 110.0  # the same within SLURM, which warns two minutes before its time limit


class Options(NamedTuple):
    """Options of a sweep.

    Attributes:
      executor: "local" or "slurm".
      at_once: number of runs at a time; 0 for one here, or as many as SLURM allows.
      sbatch: more options of sbatch.
      retry_failed: start runs again that failed.
      accept_other_code: count runs that were made with other code, and continue them.
      budget_s: seconds that all runs of the sweep may take together; no run starts after.
    """

    executor: str = "local"
    at_once: int = 0
    sbatch: str = ""
    retry_failed: bool = False
    accept_other_code: bool = False
    budget_s: float = math.inf


class Plan(NamedTuple):
    """A sweep's folder, its runs, and the code they run with.

    Attributes:
      folder: of the sweep.
      jobs: all runs of the sweep.
      source: digest of the package's source.
      codes: digest of the source and of the run's configuration, by the id of the run.
      files: the source and config files that the runs will read.
      files_digest: digest of `files` at the time the configurations were read.
    """

    folder: pathlib.Path
    jobs: list[Job]
    source: str
    codes: dict[str, str]
    files: list[pathlib.Path]
    files_digest: str


def run_sweep(folder: pathlib.Path, request: Request, options: Options, *, dry_run: bool) -> int:
    """Starts the runs of `request` that are not finished; returns the exit code.

    The code is 0 if all runs are finished (or submitted to SLURM), 1 if some are not, 128 + n if
    signal n stopped the sweep. Raises UserError, before anything starts, for a mistake in a
    configuration and for a folder that holds another sweep or runs of other code.
    """
    places = local.places(options.at_once or 1) if options.executor == "local" else []
    request = request._replace(reached=reached_there(folder))
    if request.ledger and not options.accept_other_code:
        request = request._replace(ledger_code=code_digest.source_digest(code_digest.sources()))
    plan = _plan(folder, jobs_of(request, folder))
    check_extends(folder, request)
    if exact := [name for name, scale in request.claims.items() if scale == EXACT]:
        print(f"needs no training: {', '.join(exact)}")
    if dry_run:
        return _print_commands(plan, options)
    with files.locked(folder, "runs"):
        if options.executor == "local":
            _wait_for_orphans(plan)
        check_extends(folder, request)  # again, now that no other sweep can write there
        code = _run(plan, request, options, places)
        while request.looks and code < 128:
            grown = rounds.extended(folder, request, options.budget_s)
            if grown == request:
                break
            request = grown
            code = _run(_plan(folder, jobs_of(request, folder)), request, options, places)
        return code


def _run(plan: Plan, request: Request, options: Options, places: Sequence[Place]) -> int:
    """Starts the runs of `plan` that are not finished; returns the exit code."""
    records = _read_records(plan, options)
    todo = _to_start(plan, records, options)
    write_request(plan.folder, request, plan.jobs)
    ledger_lines.add(plan.folder, request, [job for job in plan.jobs if job not in todo])
    say("\n".join(summary(plan.folder, plan.jobs, records)))
    if options.executor == "local":
        return _run_here(plan, request, places, todo, records, options.budget_s)
    return _submit(plan, todo, records, options)


def run_task(folder: pathlib.Path, job_id: str, options: Options) -> int:
    """Runs one run of the sweep in `folder`, as a task of a SLURM array; returns its exit code."""
    job = read_job(folder, job_id)
    plan = _plan(folder, [job])
    records = _read_records(plan, options)
    if records[job_id].outcome in FINISHED:
        print(f"{job_id} has finished already")
        return 0
    if job.start and process.read(folder, job.start).outcome not in FINISHED:
        raise UserError(f"{job_id} starts from {job.start.id}, which has not finished")
    exit_codes: list[int] = []

    def begin(job: Job, place: Place) -> Running:
        return process.start(folder, job, plan.source, plan.codes[job_id], place)

    def ended(run: Running, *_: object) -> None:
        record = process.end(folder, run)
        print(f"{job_id} {record.outcome}: {process.last_line(folder, job)}", flush=True)
        exit_codes.append(record.exit_code or 0)

    stopped = local.run_all([job], [Place()], begin, ended, lambda *_: None, TASK_GRACE_S)
    return 128 + stopped if stopped else exit_codes[0]


# --- the plan -------------------------------------------------------------------------------------


def _plan(folder: pathlib.Path, jobs: list[Job]) -> Plan:
    """Returns the plan of `jobs`; UserError for a mistake in one of their configurations."""
    sources = code_digest.sources()
    source = code_digest.source_digest(sources)
    read = [*sources, *code_digest.config_files(jobs)]
    files_digest = code_digest.source_digest(read)
    codes = {job.id: code_digest.digest(source, job) for job in jobs}
    return Plan(folder, jobs, source, codes, read, files_digest)


def _read_records(plan: Plan, options: Options) -> dict[str, Record]:
    """Returns the record of every run, by id; UserError if some were made with other code."""
    records = {job.id: process.read(plan.folder, job) for job in plan.jobs}
    others = [
        job.id
        for job in plan.jobs
        if records[job.id].code != plan.codes[job.id]
        and process.has_trained(plan.folder, job, records[job.id])
    ]
    if others and not options.accept_other_code:
        raise UserError(
            f"{plan.folder} holds runs of other code or of another recipe than now: {len(others)}, "
            f"such as {others[0]}; give another folder with --runs, remove these runs, "
            "or count and continue them with --accept_other_code"
        )
    return records


def _to_start(plan: Plan, records: dict[str, Record], options: Options) -> list[Job]:
    skipped = FINISHED if options.retry_failed else (*FINISHED, FAILED)
    return [job for job in plan.jobs if records[job.id].outcome not in skipped]


def _has_start(records: dict[str, Record], job: Job) -> bool:
    """Tells whether the run that `job` starts from, if there is one, has finished."""
    return job.start is None or records[job.start.id].outcome in FINISHED


def _print_commands(plan: Plan, options: Options) -> int:
    """Prints the commands that would be run, and the state of every run; returns the exit code."""
    records = _read_records(plan, options)
    todo = _to_start(plan, records, options)
    if options.executor == "slurm":
        todo = _not_queued(plan, todo, records)
        for line in slurm.commands(plan.folder, todo, options.at_once, *_for_sbatch(options)):
            print(shlex.join(line))
    for job in todo:
        command = shlex.join(["python", *process.command(plan.folder, job)[1:]])
        print(f"{command}  # {records[job.id].outcome}")
    print("\n".join(summary(plan.folder, plan.jobs, records)))
    return 0


# --- on this machine ------------------------------------------------------------------------------


def _run_here(
    plan: Plan,
    request: Request,
    places: Sequence[Place],
    todo: Sequence[Job],
    records: dict[str, Record],
    budget_s: float,
) -> int:
    """Runs `todo` on this machine, keeping `records` up to date; returns the exit code."""
    configs = {job.id: job.config for job in plan.jobs}
    progress = Progress(plan.folder, records, configs, len(places))

    def begin(job: Job, place: Place) -> Running:
        # The run would read files that this process has not seen.
        if code_digest.source_digest(plan.files) != plan.files_digest:
            raise UserError(
                "the code or a config file has changed since this sweep began; "
                f"stopped before {job.id}; repeat the command to continue"
            )
        return process.start(plan.folder, job, plan.source, plan.codes[job.id], place)

    def ended(run: Running, running: Sequence[Running], waiting: Sequence[Job]) -> None:
        progress.ended(run.job, process.end(plan.folder, run), running, waiting)
        ledger_lines.add(plan.folder, request, [run.job])

    def spent() -> float:
        return sum(record.seconds for record in records.values())

    def may_begin(job: Job) -> bool:
        return spent() < budget_s and _has_start(records, job)

    if stopped := local.run_all(todo, places, begin, ended, progress.tick, GRACE_S, may_begin):
        say("stopped; repeat the command to continue")
        return 128 + stopped
    if blocked := [job.id for job in todo if not _has_start(records, job)]:
        say(f"not started, since the runs that they start from failed: {listed(blocked)}")
    if todo:
        say("\n".join(summary(plan.folder, plan.jobs, records)))
    if spent() >= budget_s:
        say(f"the runs have taken {duration(budget_s)}, which is the budget: no other run starts")
    if any(record.outcome == FAILED for record in records.values()):
        say("--retry_failed starts failed runs again")
    return int(any(record.outcome not in FINISHED for record in records.values()))


def _wait_for_orphans(plan: Plan) -> None:
    """Waits until runs that a killed sweep left have saved and stopped.

    Raises UserError if some continue, as runs under SLURM do.
    """
    deadline = time.monotonic() + ORPHANS_S
    told = False
    while taken := [job for job in plan.jobs if process.is_taken(plan.folder, job)]:
        if time.monotonic() > deadline:
            raise process.in_use(plan.folder, taken[0])
        if not told:
            print(f"waiting for runs of other processes: {len(taken)}", flush=True)
            told = True
        time.sleep(0.1)


# --- under SLURM ----------------------------------------------------------------------------------


def _submit(plan: Plan, todo: Sequence[Job], records: dict[str, Record], options: Options) -> int:
    """Puts `todo` into SLURM's queue, except runs that are there already; returns the exit code."""
    if new := _not_queued(plan, todo, records):
        numbers = slurm.submit(plan.folder, new, options.at_once, *_for_sbatch(options))
        print(
            f"submitted to SLURM: {len(new)}, as job {', '.join(numbers)}; "
            "repeat the command to see how they go"
        )
    if waiting := sum(not _has_start(records, job) for job in todo):
        print(f"not submitted: {waiting}, which start from others; repeat the command after those")
    return int(any(records[job.id].outcome == FAILED for job in plan.jobs if job not in todo))


def _not_queued(plan: Plan, todo: Sequence[Job], records: dict[str, Record]) -> list[Job]:
    """Returns those of `todo` that SLURM may have and has not; prints how many it has."""
    queued = slurm.queued(plan.folder)
    if queued:
        print(f"running or waiting in SLURM: {len(queued)}")
    return [
        job
        for job in todo
        if job.id not in queued and records[job.id].outcome != RUNNING and _has_start(records, job)
    ]


def _for_sbatch(options: Options) -> tuple[str, list[str]]:
    """The options of sbatch, and the flags of the sweep that its tasks need."""
    return options.sbatch, ["--accept_other_code"] if options.accept_other_code else []
