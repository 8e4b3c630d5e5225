"""The request of a sweep: the runs of claims, or a grid over a recipe."""

import ast
import itertools
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cnn_papers import files
from cnn_papers.claims import catalogue, ledger, plan
from cnn_papers.claims.ledger import Known
from cnn_papers.claims.plan import EXACT, SWEEP, Job
from cnn_papers.errors import UserError, listed
from cnn_papers.runs import config_files


class Request(NamedTuple):
    """What one command requests.

    Attributes:
      claims: the scale of each claim, by its name.
      config: the config file and recipe of a grid, "" for claims.
      grid: values by dotted key.
      seeds: number of seeds, from 0.
      looks: numbers of seeds at which claims are looked at until they are decided (see
        `claims/sequential.py`), the last one `seeds`; none if all take `seeds`.
      reached: the look that each claim has come to after the first, a number of seeds; the most
        promising claims come first.
      ledger: path of the ledger whose readings count, and which those of its runs are added to;
        "" without one.
      ledger_code: digest of the source whose lines count; "" for those of any.
    """

    claims: dict[str, str]
    config: str
    grid: dict[str, list[Any]]
    seeds: int
    looks: Sequence[int] = ()
    reached: Mapping[str, int] = {}
    ledger: str = ""
    ledger_code: str = ""

    def seeds_of(self, claim: str) -> int:
        """Returns the number of seeds that a claim takes now."""
        return self.reached.get(claim, self.looks[0]) if self.looks else self.seeds


def jobs_of(request: Request, folder: pathlib.Path | None = None) -> list[Job]:
    """Returns the runs of a request, each once.

    Left out are those whose readings its ledger has, unless `folder` holds their record.

    All runs of one seed come before those of the next, so that pairs of arms are complete early;
    after the first look the runs of one claim come before those of the next in `reached`. A run
    that others start from comes before them. Claims at scale `exact` need no runs.
    """
    known: Mapping[str, Known] = {}
    if request.ledger:
        entries = ledger.read(pathlib.Path(request.ledger))
        known = ledger.known(entries, request.claims, request.ledger_code)
    first = range(request.looks[0] if request.looks else request.seeds)
    asked = [(seed, name) for seed in first for name in request.claims]
    for name in request.reached:
        if name in request.claims:  # a folder may hold another sweep, which is refused later
            asked += [(seed, name) for seed in range(len(first), request.seeds_of(name))]
    jobs = []
    for seed, name in asked:
        scale = request.claims[name]
        if scale != EXACT:
            for arm, (job,) in plan.jobs(catalogue.find(name), scale, [seed]).items():
                is_known = seed in known.get(name, {}).get(arm, {})
                if not is_known or (folder and (folder / f"{job.id}.json").exists()):
                    jobs += job.chain
    if request.config:
        for seed in first:
            for values in itertools.product(*request.grid.values()):
                overrides = dict(zip(request.grid, values, strict=True))
                jobs.append(plan.make_job(request.config, overrides | {"seed": seed}))
    return list({job.id: job for job in jobs}.values())


# --- claims ---------------------------------------------------------------------------------------


def scales_of(names: Sequence[str], scale: str, config: str) -> dict[str, str]:
    """Returns the scale of each claim: `scale`, or the one whose runs are of `config` if not "".

    A claim that needs no training has the scale `exact`, whatever is asked. Raises UserError for
    an unknown claim, and for one that has no such scale.
    """
    scales = {}
    for name in names:
        claim = catalogue.find(name)
        configs = {at: _configs(name, at) for at in claim.scales if at != EXACT}
        fitting = [scale]
        if config:
            fitting = [at for at in configs if config.removesuffix(":desk") in configs[at]]
        if scale in fitting:
            fitting = [scale]
        fitting = [at for at in fitting if at in claim.scales]
        if not fitting and EXACT in claim.scales:
            fitting = [EXACT]
        if not fitting:
            asked = f"of {config}" if config else f"at --scale={scale}"
            choices = [f"--scale={at} ({', '.join(sorted(configs[at]))})" for at in configs]
            raise UserError(
                f"the claim {name} has no runs {asked}; it has runs at: {'; '.join(choices)}"
            )
        scales[name] = fitting[0]
    return scales


def all_scales(scale: str) -> tuple[dict[str, str], list[str]]:
    """Returns the scales of all claims that have runs at `scale` or need none; the other claims."""
    claims = catalogue.all_claims()
    names = [name for name, claim in claims.items() if {scale, EXACT} & claim.scales.keys()]
    return scales_of(names, scale, ""), [name for name in claims if name not in names]


def _configs(name: str, scale: str) -> set[str]:
    """The config files and recipes of a claim's runs."""
    return {job.config for (job,) in plan.jobs(catalogue.find(name), scale, [0]).values()}


def seconds_of(text: str) -> float:
    """Returns the seconds of a time such as "90min" or "3h"; UserError if it is none."""
    units = {"s": 1, "min": 60, "h": 3600}
    found = re.fullmatch(r"(\d+\.?\d*)(s|min|h)", text.replace(" ", ""))
    if found is None or not float(found[1]):
        raise UserError(f"--budget={text} must be a time such as 45min or 3h")
    return float(found[1]) * units[found[2]]


# --- grids ----------------------------------------------------------------------------------------


def grid_of(axes: Sequence[str], config: Any) -> dict[str, list[Any]]:
    """Returns the values by key of axes such as "optim.lr=0.01,0.02".

    Values are separated by semicolons if there are any, else by commas outside brackets and quotes.
    Raises UserError for an unknown key of `config`, and for a value of another type than the key's.
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
        values = [_value(key, value, kind) for value in _split(text)]
        grid[key] = [config_files.expanded(key, value) for value in values]
    return grid


def _split(text: str) -> list[str]:
    """Splits at semicolons or, if there are none, at commas outside brackets and quotes."""
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
    """Reads `text` as a value of `kind`, the type of the config's `key`."""
    if kind is str:
        return text
    literal = text.strip().capitalize() if kind is bool else text.strip()
    try:
        value = ast.literal_eval(literal)
    # All that literal_eval may raise.
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        value = None
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise UserError(f"--grid={key}={text}: the values of {key} are of type {kind.__name__}")
    return value


# --- the folder -----------------------------------------------------------------------------------


def check_extends(folder: pathlib.Path, request: Request) -> None:
    """Raises UserError unless `request` has all that the sweep in `folder`, if any, has."""
    old = _read_sweep(folder)
    if old is None:
        return
    if different := _differences(old, json.loads(json.dumps(request._asdict()))):
        raise UserError(
            f"{folder} holds another sweep ({listed(different, 2, '; ')}); "
            "request all of it and more, or give another folder with --runs"
        )


def reached_there(folder: pathlib.Path) -> dict[str, int]:
    """Returns the look that each claim of the sweep in `folder` has come to, a number of seeds."""
    return (_read_sweep(folder) or {"reached": {}})["reached"]


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The parts of the request `old` that `new` lacks."""
    different = [
        f"{name} at {scale} there, {new['claims'].get(name, 'not requested')} now"
        for name, scale in old["claims"].items()
        if new["claims"].get(name) != scale
    ]
    if old["config"] != new["config"]:
        different.append(f"config {old['config'] or 'none'} there, {new['config'] or 'none'} now")
    for key in old["grid"] | new["grid"]:
        before, now = (request["grid"].get(key, []) for request in (old, new))
        if not before or any(value not in now for value in before):
            different.append(f"{key} {_listed(before)} there, {_listed(now)} now")
    if new["looks"] != old["looks"]:
        looks = [_listed(request["looks"]) for request in (old, new)]
        different.append(f"looks at seeds {looks[0]} there, {looks[1]} now")
    elif new["seeds"] < old["seeds"]:
        different.append(f"{old['seeds']} seeds there, {new['seeds']} now")
    return different


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values)) or "unset"


def write_request(folder: pathlib.Path, request: Request, jobs: Sequence[Job]) -> None:
    """Writes `sweep.json`: the request and its runs."""
    runs = [
        {
            "id": job.id,
            "config": job.config,
            "overrides": dict(job.overrides),
            "start": job.start.id if job.start else "",
        }
        for job in jobs
    ]
    with files.replacing(folder / SWEEP) as part:
        part.write_text(json.dumps({**request._asdict(), "jobs": runs}, indent=1))


def read_job(folder: pathlib.Path, job_id: str) -> Job:
    """Returns one job of the sweep in `folder`; UserError if there is none of that id."""
    for job in (_read_sweep(folder) or {"jobs": []})["jobs"]:
        if job["id"] == job_id:
            start_id = job.get("start", "")  # older sweeps have none
            start = read_job(folder, start_id) if start_id else None
            return plan.make_job(job["config"], _tuples(job["overrides"]), start)
    raise UserError(f"there is no run {job_id} in {folder / SWEEP}")


def _read_sweep(folder: pathlib.Path) -> dict[str, Any] | None:
    path = folder / SWEEP
    try:
        # Older ones lack what was added since.
        added = {"looks": [], "reached": {}, "ledger": "", "ledger_code": ""}
        values = {**added, **json.loads(path.read_text())}
        return {key: values[key] for key in (*Request._fields, "jobs")}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read: {error}; remove it and repeat the command to continue"
        ) from error


def _tuples(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Restores the tuples that JSON turned into lists."""

    def restored(value: Any) -> Any:
        return tuple(map(restored, value)) if isinstance(value, list) else value

    return {key: restored(value) for key, value in overrides.items()}
