"""Reads and writes the data of a report as JSON that is small enough to commit.

Values that are not finite are null, others have six significant digits.
"""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any, TypeVar

from cnn_papers.claims.verdicts import Verdict
from cnn_papers.errors import UserError
from cnn_papers.reporting.results import (
    WORDS,
    ArmResult,
    AveragePrecisions,
    ClaimResult,
    Figure,
    GridRun,
    Heat,
    Line,
    Lines,
    Panel,
    Photo,
    Picture,
    ReportedResult,
    Results,
    SeedResult,
    SingleRun,
)

FORMAT = 3  # of the file
PANELS: dict[str, type[Panel]] = {
    "lines": Lines,
    "heat": Heat,
    "picture": Picture,
    "photo": Photo,
}

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
ADDED = ("limits", "precisions", "look", "looks")  # fields that objects lack where they are off


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
    fields = {name: field for name, field in fields.items() if field or name not in ADDED}
    if isinstance(value, Panel):
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
    of_verdict = [*Verdict._fields] if values.get("word") in WORDS else []
    of_verdict = [field for field in of_verdict if field not in ADDED]
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
    precisions = values.get("precisions")
    if precisions is not None:
        precisions = _typed(AveragePrecisions, precisions, "singles.precisions")
    return run._replace(reported=reported, precisions=precisions)


def _figure(values: Mapping[str, Any]) -> Figure:
    figure = _typed(Figure, values, "figures")
    return figure._replace(panels=[_panel(panel) for panel in values["panels"]])


def _panel(values: Mapping[str, Any]) -> Panel:
    panel = _typed(PANELS[values["kind"]], values, "figures.panels")
    if not isinstance(panel, Lines):
        return panel
    return panel._replace(series=[_typed(Line, line, "series") for line in values["series"]])
