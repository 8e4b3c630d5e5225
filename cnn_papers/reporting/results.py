"""The data of a report as typed values, and as JSON that is small enough to commit.

Values that are not finite are None, others have six significant digits, as the file holds them.
"""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from cnn_papers import tasks
from cnn_papers.claims.verdicts import AGREES, DISAGREES, LEVEL, UNDECIDED, Verdict
from cnn_papers.errors import UserError

FORMAT = 3  # of the file
WORDS = (AGREES, DISAGREES, UNDECIDED)  # of claims with a verdict
NOT_RUN = "not run"  # the word of claims without a finished run
ASK_AGAIN = "to be asked again"  # of claims that were defined otherwise when they were run
Row = dict[str, Any]  # of a run's metrics.jsonl


# --- claims and runs ------------------------------------------------------------------------------


class SeedResult(NamedTuple):
    """The reading of one run; the true value is at least this if it is censored."""

    value: float | None
    censored: bool


class ArmResult(NamedTuple):
    """One arm of a claim: see `verdicts.Arm`; and its readings by seed."""

    mean: float | None
    sd: float | None
    censored: int
    readings: dict[str, SeedResult]


class ClaimResult(NamedTuple):
    """A claim (see `facts.Claim`) and its verdict (see `verdicts.Verdict`).

    Attributes:
      scales: names of the scales it has.
      paper_delta: the paper's difference on the data of `scale`.
      paper_data: the data set of the paper's difference if that is another; else "".
      scale: at which it was requested; None if it was not.
      asked: digest of what it asks at `scale`, from `definitions.digest`; "" without a scale.
      title: its paper.
      label: its name without that of the paper.
      runs: seeds by the id of the run, by arm.
      seconds: time that its runs took.
      word: "agrees", "disagrees", "undecided", "to be asked again" or "not run".
      estimate, low, high, n, level, relation, note: of the verdict; unused if it has none.
    """

    statement: str
    source: str
    metric: str
    expect: str
    paper: str
    scales: Sequence[str]
    paper_delta: float | None
    paper_data: str
    ratio: bool
    bound: float | None
    name: str
    scale: str | None
    asked: str
    title: str
    label: str
    runs: dict[str, dict[str, int]]
    seconds: float
    word: str
    arms: dict[str, ArmResult]
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    level: float = LEVEL
    relation: str = "="
    note: str = ""


class GridRun(NamedTuple):
    """A run of a sweep that belongs to no claim.

    Attributes:
      overrides: by dotted key.
      last, best: rows of its last and of its best evaluation; None if it has none.
      tests: rows of its final tests.
      task: a module of `cnn_papers.tasks`.
    """

    id: str
    config: str
    overrides: dict[str, Any]
    last: Row | None = None
    best: Row | None = None
    tests: Sequence[Row] = ()
    task: str = tasks.BEFORE


class ReportedResult(NamedTuple):
    """A result of the paper (see `facts.Reported`); ours is None if nothing of ours compares."""

    recipe: str
    variant: str
    metric: str
    value: float
    data: str
    protocol: str
    measured_by: str
    source: str
    ours: float | None


class SingleRun(NamedTuple):
    """A run that belongs to no sweep.

    Attributes:
      id: its folder, relative to the folder of the runs.
      name: of its folder.
      config: config file and recipe.
      data: name of the data set.
      steps, total_steps: taken and planned; None if the plan is unknown.
      same: `reported` are for its recipe on its data.
      changed: keys in which it differs from the recipe.
      reported: the paper's results.
      last, best, tests, task: as in `GridRun`.
    """

    id: str
    name: str
    config: str
    data: str
    steps: int
    total_steps: int | None
    same: bool
    changed: Sequence[str]
    reported: Sequence[ReportedResult]
    last: Row | None = None
    best: Row | None = None
    tests: Sequence[Row] = ()
    task: str = tasks.BEFORE


# --- figures --------------------------------------------------------------------------------------


class Line(NamedTuple):
    """A line with its band: means, lowest and highest values over seeds."""

    name: str
    x: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


class Lines(NamedTuple):
    """A panel of lines; `level` is a horizontal line, `log` a logarithmic vertical axis."""

    title: str
    x: str
    y: str
    series: Sequence[Line]
    level: float | None = None
    log: bool = False


class Heat(NamedTuple):
    """A panel of a matrix, whose `values` may be None."""

    title: str
    x: str
    y: str
    label: str
    values: Sequence[Sequence[float | None]]


class Picture(NamedTuple):
    """A panel of an image: a PNG file in base64, shown `width` pixels wide."""

    title: str
    png: str
    width: int
    alt: str


class Figure(NamedTuple):
    """A figure of a report; it has no panels if it could not be drawn, and `text` says why.

    `claims` are names of the claims that it illustrates.
    """

    title: str
    text: str
    panels: Sequence[Lines | Heat | Picture]
    claims: Sequence[str] = ()


PANELS: dict[str, type[Lines | Heat | Picture]] = {"lines": Lines, "heat": Heat, "picture": Picture}


# --- all of it ------------------------------------------------------------------------------------


class Results(NamedTuple):
    """All that a report shows.

    Attributes:
      kind: "sweep" or "runs".
      runs: path of the folder of the runs, relative to the folder of the report.
      machines, versions: of the finished runs, each once.
      outcomes: how each run stands, by id.
      figures: the figures.
      code: number of finished runs by the digest of their source; "" if it was not noted.
      started: local time of the first start; "" of none.
      seconds: time that all runs took.
      claims: all known claims.
      others: runs of a grid.
      singles: runs that belong to no sweep.
    """

    kind: str
    runs: str
    machines: Sequence[str]
    versions: Sequence[str]
    outcomes: dict[str, str]
    figures: Sequence[Figure]
    code: Mapping[str, int] = {}
    started: str = ""
    seconds: float = 0.0
    claims: Sequence[ClaimResult] = ()
    others: Sequence[GridRun] = ()
    singles: Sequence[SingleRun] = ()


# The fields of the file by kind, in their order.
FIELDS = {
    "sweep": (
        "machines",
        "versions",
        "code",
        "started",
        "seconds",
        "outcomes",
        "claims",
        "others",
        "figures",
    ),
    "runs": ("machines", "versions", "outcomes", "singles", "figures"),
}
OPTIONAL = ("code", "started")


def to_json(results: Results) -> dict[str, Any]:
    """Returns the results as a JSON object."""
    fields = {field: getattr(results, field) for field in FIELDS[results.kind]}
    return _plain({"format": FORMAT, "runs": results.runs, "kind": results.kind, **fields})


def from_json(values: Mapping[str, Any]) -> Results:
    """Returns the results that `to_json` wrote.

    Raises KeyError if a field is missing, TypeError, ValueError or AttributeError if one is of
    another kind.
    """
    kind = values["kind"]
    for field in ("runs", *FIELDS[kind]):
        if field not in values and field not in OPTIONAL:
            raise KeyError(field)
    return Results(
        kind=kind,
        runs=values["runs"],
        machines=values["machines"],
        versions=values["versions"],
        outcomes=values["outcomes"],
        figures=[_figure(figure) for figure in values["figures"]],
        code=values.get("code", {}),
        started=values.get("started", ""),
        seconds=values.get("seconds", 0.0),
        claims=[_claim(claim) for claim in values.get("claims", [])],
        others=[_typed(GridRun, run, "others") for run in values.get("others", [])],
        singles=[_single(run) for run in values.get("singles", [])],
    )


def read(path: pathlib.Path) -> Results:
    """Reads results from a file of `text`; UserError if it is damaged or something else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise UserError(
                f"{path} has format {values['format']} and this version reads {FORMAT}: "
                "run the report again"
            )
        return from_json(values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} holds no results of a report: {error!r}") from error


def text(results: Results) -> str:
    """Returns the results as a JSON file.

    An element of a list has one line, so that changes show and the file stays small.
    """
    lines = []
    for key, value in to_json(results).items():
        content = json.dumps(value, ensure_ascii=False)
        if value and isinstance(value, list):
            elements = [json.dumps(element, ensure_ascii=False) for element in value]
            content = "[\n " + ",\n ".join(elements) + "\n]"
        lines.append(f"{json.dumps(key)}: {content}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


# --- to JSON --------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """Returns `value` as JSON has it: finite numbers of six significant digits, lists, objects."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return value if value.is_integer() else float(f"{value:.6g}")
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _plain(_object(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(element) for key, element in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(element) for element in value]
    return value


def _object(value: Any) -> dict[str, Any]:
    """Returns the fields of a NamedTuple that its JSON object has."""
    fields = value._asdict()
    if isinstance(value, Lines | Heat | Picture):
        return {"kind": next(name for name in PANELS if isinstance(value, PANELS[name])), **fields}
    if isinstance(value, ClaimResult) and value.word not in WORDS:
        omitted = {*ClaimResult._field_defaults}  # those of the verdict
    elif isinstance(value, GridRun | SingleRun) and value.last is None:
        omitted = {"last", "best"}
    else:
        omitted = set()
    return {name: field for name, field in fields.items() if name not in omitted}


# --- from JSON ------------------------------------------------------------------------------------

Typed = TypeVar("Typed", bound=tuple)


def _typed(kind: type[Typed], values: Mapping[str, Any], where: str, *required: str) -> Typed:
    """Returns a NamedTuple of the fields in `values`; KeyError if one is missing."""
    fields: Any = kind
    needed = {field for field in fields._fields if field not in fields._field_defaults}
    if missing := needed.union(required) - values.keys():
        raise KeyError(f"{min(missing)} of {where}")
    return kind(**{field: values[field] for field in fields._fields if field in values})


def _claim(values: Mapping[str, Any]) -> ClaimResult:
    of_verdict = Verdict._fields if values.get("word") in WORDS else ()
    claim = _typed(ClaimResult, values, "claims", *of_verdict)
    arms = {name: _arm(arm) for name, arm in values["arms"].items()}
    return claim._replace(arms=arms)


def _arm(values: Mapping[str, Any]) -> ArmResult:
    arm = _typed(ArmResult, values, "claims.arms")
    readings = {
        seed: _typed(SeedResult, reading, "claims.arms.readings")
        for seed, reading in values["readings"].items()
    }
    return arm._replace(readings=readings)


def _single(values: Mapping[str, Any]) -> SingleRun:
    run = _typed(SingleRun, values, "singles")
    reported = [_typed(ReportedResult, result, "singles.reported") for result in values["reported"]]
    return run._replace(reported=reported)


def _figure(values: Mapping[str, Any]) -> Figure:
    figure = _typed(Figure, values, "figures")
    return figure._replace(panels=[_panel(panel) for panel in values["panels"]])


def _panel(values: Mapping[str, Any]) -> Lines | Heat | Picture:
    panel = _typed(PANELS[values["kind"]], values, "figures.panels")
    if not isinstance(panel, Lines):
        return panel
    return panel._replace(series=[_typed(Line, line, "series") for line in values["series"]])
