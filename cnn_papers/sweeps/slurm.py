"""Submits a sweep to SLURM as job arrays, whose tasks run `launch.sweep --task` for one run."""

import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence

import cnn_papers
from cnn_papers import files
from cnn_papers.claims.plan import Job
from cnn_papers.errors import UserError

SUBMITTED = "slurm.json"  # the ids of each array's runs, in order, by its job number
SCRIPT = pathlib.Path(cnn_papers.__file__).parents[1] / "launch" / "slurm.sbatch"
ARRAY = 1000  # tasks; SLURM's default limit is 1001
ENVIRONMENT = {"MODULE": "launch.sweep", "PYTHON": sys.executable}


def commands(
    folder: pathlib.Path, jobs: Sequence[Job], at_once: int, options: str, flags: Sequence[str] = ()
) -> list[list[str]]:
    """Returns command lines that submit `jobs`, `at_once` at a time (0: as many as SLURM allows).

    `options` are more options of sbatch, `flags` those of the sweep that its tasks need.
    """
    lines = []
    for first in range(0, len(jobs), ARRAY):
        part = jobs[first : first + ARRAY]
        limit = f"%{at_once}" if at_once else ""
        lines.append(
            [
                "sbatch",
                "--parsable",
                "--job-name=sweep",
                "--nodes=1",
                "--ntasks-per-node=1",
                f"--array=0-{len(part) - 1}{limit}",
                f"--output={folder.absolute()}/slurm-%A_%a.out",
                *shlex.split(options),
                str(SCRIPT),
                f"--runs={folder.absolute()}",
                *flags,
                f"--task={','.join(job.id for job in part)}",
            ]
        )
    return lines


def submit(
    folder: pathlib.Path, jobs: Sequence[Job], at_once: int, options: str, flags: Sequence[str] = ()
) -> list[str]:
    """Puts `jobs` into SLURM's queue; returns the job numbers of the arrays.

    Raises UserError if SLURM refuses them.
    """
    numbers, ids = [], [job.id for job in jobs]
    for line in commands(folder, jobs, at_once, options, flags):
        number = _output(line).partition(";")[0].strip()  # a cluster's name may follow
        numbers.append(number)
        arrays = {**_submitted(folder), number: ids[: len(line[-1].split(","))]}
        del ids[: len(arrays[number])]
        with files.replacing(folder / SUBMITTED) as part:
            part.write_text(json.dumps(arrays, indent=1))
    return numbers


def queued(folder: pathlib.Path) -> set[str]:
    """Returns the ids of the runs of `folder` that wait or run in SLURM now."""
    arrays = _submitted(folder)
    if not arrays:
        return set()
    tasks = _output(["squeue", "--me", "--noheader", "--array", "--format=%i"]).split()
    places = [task.partition("_")[::2] for task in tasks]
    return {
        arrays[number][int(index)]
        for number, index in places
        if number in arrays and index.isdigit()
    }


def task_of(ids: Sequence[str]) -> str:
    """Returns the one of `ids` that this task of an array runs; outside of arrays, the only one.

    Raises UserError if there is none.
    """
    place = os.environ.get("SLURM_ARRAY_TASK_ID", "0" if len(ids) == 1 else "none")
    if not place.isdigit() or int(place) >= len(ids):
        raise UserError(
            f"--task names {len(ids)} runs, and task {place} of an array is none of them"
        )
    return ids[int(place)]


def _submitted(folder: pathlib.Path) -> dict[str, list[str]]:
    try:
        return json.loads((folder / SUBMITTED).read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder / SUBMITTED} cannot be read: {error}; remove it when its jobs have ended"
        ) from error


def _output(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        raise UserError(f"--executor=slurm needs {command[0]}, which is not on this machine")
    environment = {**os.environ, **ENVIRONMENT}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip() or f"exit code {done.returncode}"
        raise UserError(f"{command[0]} failed: {reason}")
    return done.stdout
