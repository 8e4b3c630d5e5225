"""Runs many runs: those of claims, or a grid over a recipe.

    python -m launch.sweep --claim=overlapping_pooling --seeds=5
    python -m launch.sweep --all_claims --scale=desk --seeds=3 --jobs=2
    python -m launch.sweep --all_claims --until_decided --max_seeds=12 --budget=3h
    python -m launch.sweep --config=configs/alexnet.py --grid=optim.lr=0.01,0.02
    '--grid=model.pool=(3,2);(2,2)'

The same command again continues: finished runs are skipped, stopped and killed ones are resumed.
Exits with 0 when all runs are finished (or submitted to SLURM), 1 when some are not, 128 + n when
signal n stopped it.
"""

import math
import os
import pathlib

from absl import flags

from cnn_papers import doors
from cnn_papers.claims import ledger, sequential
from cnn_papers.claims.plan import EXACT
from cnn_papers.errors import UserError
from cnn_papers.sweeps import execute, request, slurm
from cnn_papers.sweeps.request import Request


def main(argv: list[str]) -> int:
    """Runs the sweep that the flags describe; returns the exit code."""
    if len(argv) > 1:
        raise UserError(
            f"unexpected argument '{argv[1]}'; values of a grid are written --grid=KEY=VALUE,VALUE"
        )
    values = flags.FLAGS
    options = execute.Options(
        executor=values.executor,
        at_once=values.jobs,
        sbatch=values.sbatch,
        retry_failed=values.retry_failed,
        accept_other_code=values.accept_other_code,
        budget_s=request.seconds_of(values.budget) if values.budget else math.inf,
    )
    if values.task:
        folder = pathlib.Path(values.runs or ".")
        return execute.run_task(folder, slurm.task_of(values.task), options)
    wanted, name = _requested_claims() if _asks_claims() else _requested_grid()
    folder = pathlib.Path(values.runs or f"runs/sweep-{name}")
    return execute.run_sweep(folder, wanted, options, dry_run=values.dry_run)


def _asks_claims() -> bool:
    return bool(flags.FLAGS.claim or flags.FLAGS.all_claims)


def _requested_claims() -> tuple[Request, str]:
    """Returns what --claim or --all_claims requests, and a name for it."""
    values = flags.FLAGS
    if values.grid or (values.config and doors.config_overrides()):
        raise UserError(
            "claims have their own overrides: "
            "give --grid and --config.key=value with --config only, not with a claim"
        )
    if values.all_claims:
        if values.claim or values.config:
            raise UserError("--all_claims cannot be combined with --claim or --config")
        scales, others = request.all_scales(values.scale)
        if others:
            print(f"no runs at scale {values.scale}: {', '.join(others)}")
        return _by_seeds(scales), f"all_claims-{values.scale}"
    config = _config_name() if values.config else ""
    names = [name for text in values.claim for name in text.split(",")]
    scales = request.scales_of(names, values.scale, config)
    others = [name for name, scale in scales.items() if scale not in (values.scale, EXACT)]
    if others and values["scale"].present:
        raise UserError(
            f"--config={config} belongs to {others[0]} at --scale={scales[others[0]]}; "
            "give one of the two flags"
        )
    name = "-".join([*list(scales)[:3], *dict.fromkeys(scales.values())])
    return _by_seeds(scales), name


def _by_seeds(scales: dict[str, str]) -> Request:
    """Returns the request of claims, by --seeds or --until_decided."""
    values = flags.FLAGS
    if not values.until_decided:
        return Request(scales, "", {}, values.seeds, ledger=_ledger())
    if values["seeds"].present:
        raise UserError("give --seeds, or --until_decided with --max_seeds")
    looks = sequential.looks_up_to(values.max_seeds)
    return Request(scales, "", {}, values.max_seeds, looks, ledger=_ledger())


def _ledger() -> str:
    """Returns the full path of --ledger, "" without one."""
    path = flags.FLAGS.ledger
    if path and not path.endswith(ledger.SUFFIX):
        raise UserError(f"--ledger={path} must be a file {ledger.SUFFIX}")
    return os.path.abspath(path) if path else ""


def _requested_grid() -> tuple[Request, str]:
    """Returns what --config and --grid request, and a name for it."""
    config = flags.FLAGS.config
    for flag in ("until_decided", "ledger"):
        if flags.FLAGS[flag].value:
            raise UserError(f"--{flag} is for claims: give --claim=NAME or --all_claims")
    if not config:
        raise UserError(
            "nothing to run: give --claim=NAME, --all_claims, "
            "or --config=FILE with --grid=KEY=VALUE,VALUE"
        )
    overrides = {key: [value] for key, value in doors.config_overrides().items()}
    axes = request.grid_of(flags.FLAGS.grid, config)
    if twice := overrides.keys() & axes.keys():
        raise UserError(f"{min(twice)} is given by --config.{min(twice)} and by --grid")
    if "seed" in overrides:
        raise UserError("--config.seed: seeds are given by --seeds=N")
    wanted = Request({}, _config_name(), overrides | axes, flags.FLAGS.seeds)
    return wanted, f"{config.name}-{config.recipe}"


def _config_name() -> str:
    """Returns the file and recipe of --config, the same wherever the package lies."""
    from ml_collections import config_flags

    name = os.path.normpath(config_flags.get_config_filename(flags.FLAGS["config"]))
    name = name.removesuffix(":desk")
    return name.removeprefix(f"{pathlib.Path(doors.__file__).parents[1]}{os.sep}")


def define_flags() -> None:
    """Defines the flags of this command."""
    doors.config_flag()
    flags.DEFINE_multi_string("claim", [], "a claim to run again, or several: a,b")
    flags.DEFINE_bool("all_claims", False, "run every claim that has runs at --scale")
    flags.DEFINE_enum("scale", "desk", [EXACT, "desk", "gpu", "paper"], "scale of the claims' runs")
    flags.DEFINE_multi_string(
        "grid", [], "KEY=VALUE,VALUE or KEY=VALUE;VALUE over the recipe of --config; repeatable"
    )
    flags.DEFINE_integer("seeds", 3, "number of seeds, from 0", lower_bound=1)
    flags.DEFINE_bool(
        "until_decided",
        False,
        "take 3 seeds of each claim, then 6, 12, … of those that are undecided and likely to be "
        "decided by --max_seeds",
    )
    flags.DEFINE_integer("max_seeds", 12, "the last look of --until_decided", lower_bound=3)
    flags.DEFINE_string(
        "budget", "", "time that all runs of the sweep may take together, as 90min or 3h"
    )
    doors.path_flag(
        "ledger",
        "file of readings of claims (.jsonl): those that it has of the same question and code are "
        "not run, those of finished runs are added",
    )
    doors.path_flag("runs", "folder of the sweep; by default runs/sweep-NAME")
    flags.DEFINE_bool("dry_run", False, "print the commands and start nothing")
    flags.DEFINE_bool("retry_failed", False, "start failed runs again")
    flags.DEFINE_bool(
        "accept_other_code",
        False,
        "count runs that were made with other code or another recipe, and continue them",
    )
    flags.DEFINE_integer(
        "jobs",
        0,
        "runs at a time; by default 1 on this machine, as many as it allows with SLURM",
        lower_bound=0,
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
        "run one of these runs of --runs, chosen by $SLURM_ARRAY_TASK_ID; used by array tasks",
    )


def cli() -> None:
    """Runs the command line."""
    doors.run(main, define_flags)


if __name__ == "__main__":
    cli()
