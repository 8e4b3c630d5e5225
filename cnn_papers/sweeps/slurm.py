"""A sweep as job arrays of SLURM: each task runs one run, through the sweep's own door."""

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

SUBMITTED = "slurm.json"  # the ids of the runs of each array, in order, by its job's number
SCRIPT = pathlib.Path(cnn_papers.__file__).parents[1] / "launch" / "slurm.sbatch"
ARRAY = 1000  # tasks; SLURM's default limit is 1001
ENVIRONMENT = {"MODULE": "launch.sweep", "PYTHON": sys.executable}


def commands(
    folder: pathlib.Path, jobs: Sequence[Job], at_once: int, options: str, flags: Sequence[str] = ()
) -> list[list[str]]:
    """Command lines that submit `jobs`, `at_once` at a time (0: as many as it lets).

    `options` are more options of sbatch, `flags` those of the sweep that its tasks need.
    """
    found = []
    for first in range(0, len(jobs), ARRAY):
        part = jobs[first : first + ARRAY]
        limit = f"%{at_once}" if at_once else ""
        found.append(
            [
                *("sbatch", "--parsable", "--job-name=sweep", "--nodes=1", "--ntasks-per-node=1"),
                *(
                    f"--array=0-{len(part) - 1}{limit}",
                    f"--output={folder.absolute()}/slurm-%A_%a.out",
                ),
                *shlex.split(options),
                *(str(SCRIPT), f"--runs={folder.absolute()}", *flags),
                f"--task={','.join(job.id for job in part)}",
            ]
        )
    return found


def submit(
    folder: pathlib.Path, jobs: Sequence[Job], at_once: int, options: str, flags: Sequence[str] = ()
) -> list[str]:
    """Puts `jobs` into SLURM's queue; the numbers of the arrays. UserError where it refuses them."""
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
    """The ids of the runs of `folder` that wait or run in SLURM now."""
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
    """Which of `ids` this process is to run: the one of its place in the array, the only one
    outside of any.
    """
    place = os.environ.get("SLURM_ARRAY_TASK_ID", "0" if len(ids) == 1 else "none")
    if not place.isdigit() or int(place) >= len(ids):
        raise UserError(f"--task names {len(ids)} runs; task {place} of an array runs none of them")
    return ids[int(place)]


def _submitted(folder: pathlib.Path) -> dict[str, list[str]]:
    try:
        return json.loads((folder / SUBMITTED).read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder / SUBMITTED} cannot be read: {error}; remove it once no job of it is left"
        ) from error


def _output(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        raise UserError(f"--executor=slurm needs {command[0]}, which is not here")
    done = subprocess.run(
        command, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True
    )
    if done.returncode:
        raise UserError(
            f"{command[0]} failed: {done.stderr.strip() or f'exit code {done.returncode}'}"
        )
    return done.stdout
