"""What a sweep is asked for: the runs of claims, or a grid over a recipe; and whether its folder
was asked the same.
"""

import ast
import itertools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cnn_papers import files
from cnn_papers.claims import catalogue, plan
from cnn_papers.claims.plan import EXACT, SWEEP, Job
from cnn_papers.errors import UserError
from cnn_papers.runs import config_files


class Request(NamedTuple):
    """What one command asks for.

    Attributes:
      claims: the scale of each claim, by its name.
      config: the config file and recipe of a grid, "" for claims.
      grid: values by dotted key.
      seeds: how many, from 0.
    """

    claims: dict[str, str]
    config: str
    grid: dict[str, list[Any]]
    seeds: int


def jobs_of(asked: Request) -> list[Job]:
    """The runs it takes, each once; all of one seed before the next, so that pairs of arms are
    whole early.

    Claims at scale `exact` take none.
    """
    found = []
    for seed in range(asked.seeds):
        for name, scale in asked.claims.items():
            if scale != EXACT:
                found += [job for (job,) in plan.jobs(catalogue.find(name), scale, [seed]).values()]
        if asked.config:
            for values in itertools.product(*asked.grid.values()):
                found.append(
                    plan.make_job(
                        asked.config, dict(zip(asked.grid, values, strict=True)) | {"seed": seed}
                    )
                )
    return list({job.id: job for job in found}.values())


# --- claims ---------------------------------------------------------------------------------------


def scales_of(names: Sequence[str], scale: str, config: str) -> dict[str, str]:
    """The scale at which each claim is asked: `scale`, or the one whose runs are of `config`, if
    that is given.

    A claim that needs no training is asked at `exact`, whatever the scale. Raises a UserError for a
    claim that there is not, and for one that cannot be asked so.
    """
    found = {}
    for name in names:
        claim = catalogue.find(name)
        configs = {at: _configs(name, at) for at in claim.scales if at != EXACT}
        fits = (
            [at for at in configs if config.removesuffix(":desk") in configs[at]]
            if config
            else [scale]
        )
        if scale in fits:
            fits = [scale]
        fits = [at for at in fits if at in claim.scales] or [
            at for at in claim.scales if at == EXACT
        ]
        if not fits:
            known = "; ".join(f"--scale={at} ({', '.join(sorted(configs[at]))})" for at in configs)
            asked = f"of {config}" if config else f"at --scale={scale}"
            raise UserError(f"the claim {name} cannot be asked {asked}; it can at: {known}")
        found[name] = fits[0]
    return found


def askable(scale: str) -> list[str]:
    """The claims that can be asked at `scale`, or that need no training."""
    return [
        name
        for name, claim in catalogue.all_claims().items()
        if {scale, EXACT} & claim.scales.keys()
    ]


def _configs(name: str, scale: str) -> set[str]:
    return {job.config for (job,) in plan.jobs(catalogue.find(name), scale, [0]).values()}


# --- grids ----------------------------------------------------------------------------------------


def grid_of(axes: Sequence[str], config: Any) -> dict[str, list[Any]]:
    """The values by key of axes such as "optim.lr=0.01,0.02", each of the type that the key has in
    `config`.

    Values are separated by semicolons where there are any, else by commas outside brackets and
    quotes. Raises a UserError for an unknown key and for a value of another type.
    """
    grid: dict[str, list[Any]] = {}
    for axis in axes:
        key, equals, text = axis.partition("=")
        if not equals:
            raise UserError(
                f"--grid={axis} must be --grid=KEY=VALUE,VALUE or --grid=KEY=VALUE;VALUE"
            )
        if key == "seed":
            raise UserError(f"--grid={axis}: seeds are given by --seeds=N")
        if key in grid:
            raise UserError(f"--grid={axis}: {key} has values already; give them all in one --grid")
        kind = config_files.type_of(config, key)
        grid[key] = [_value(key, value, kind) for value in _split(text)]
    return grid


def _split(text: str) -> list[str]:
    """At semicolons; where there are none, at commas outside brackets and quotes."""
    if ";" in text:
        return text.split(";")
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if letter == "," and not depth and not quote:
            parts.append("")
            continue
        if letter in "'\"" and quote in ("", letter):
            quote = "" if quote else letter
        elif not quote:
            depth += (letter in "([{") - (letter in ")]}")
        parts[-1] += letter
    return parts


def _value(key: str, text: str, kind: type) -> Any:
    """`text` as a value of the type `kind`, that of the config's `key`."""
    if kind is str:
        return text
    try:
        value = ast.literal_eval(text.strip().capitalize() if kind is bool else text.strip())
    except (
        ValueError,
        SyntaxError,
        TypeError,
        RecursionError,
        MemoryError,
    ):  # all that literal_eval may raise
        value = None
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise UserError(f"--grid={key}={text}: the values of {key} are of type {kind.__name__}")
    return value


# --- the folder -----------------------------------------------------------------------------------


def check_same(folder: pathlib.Path, asked: Request) -> None:
    """Raises a UserError if the sweep in `folder` was asked for anything that `asked` is not."""
    if (old := _read(folder)) is None:
        return
    if different := _differences(old, json.loads(json.dumps(asked._asdict()))):
        more = f" and {len(different) - 2} more" if len(different) > 2 else ""
        raise UserError(
            f"{folder} holds a sweep that was asked for something else ({'; '.join(different[:2])}{more}); "
            "ask for all of it and more, or give another folder with --runs"
        )


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What of `old` is not asked in `new`."""
    found = [
        f"{name} at {scale} there, {new['claims'].get(name, 'not asked')} now"
        for name, scale in old["claims"].items()
        if new["claims"].get(name) != scale
    ]
    if old["config"] != new["config"]:
        found.append(f"config {old['config'] or 'none'} there, {new['config'] or 'none'} now")
    for key in old["grid"] | new["grid"]:
        there, now = (ask["grid"].get(key, []) for ask in (old, new))
        if not there or [value for value in there if value not in now]:
            found.append(f"{key} {_listed(there)} there, {_listed(now)} now")
    if new["seeds"] < old["seeds"]:
        found.append(f"{old['seeds']} seeds there, {new['seeds']} now")
    return found


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values)) or "unset"


def remember(folder: pathlib.Path, asked: Request, jobs: Sequence[Job]) -> None:
    """Writes what was asked for, and the runs that takes, to the sweep's folder."""
    runs = [{"id": job.id, "config": job.config, "overrides": dict(job.overrides)} for job in jobs]
    with files.replacing(folder / SWEEP) as part:
        part.write_text(json.dumps({**asked._asdict(), "jobs": runs}, indent=1))


def remembered(folder: pathlib.Path, job_id: str) -> Job:
    """The job of that id in the sweep of `folder`; UserError if there is none."""
    for job in (_read(folder) or {"jobs": []})["jobs"]:
        if job["id"] == job_id:
            return plan.make_job(job["config"], _tuples(job["overrides"]))
    raise UserError(f"there is no run {job_id} in {folder / SWEEP}")


def _read(folder: pathlib.Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / SWEEP).read_text())
        return {key: found[key] for key in (*Request._fields, "jobs")}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / SWEEP} cannot be read: {error}; remove it, and the same command goes on"
        ) from error


def _tuples(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON made lists of, as tuples again."""

    def restored(value: Any) -> Any:
        return tuple(map(restored, value)) if isinstance(value, list) else value

    return {key: restored(value) for key, value in overrides.items()}
