"""The data of a report as typed values; `results_file` has them as JSON.

Values that are not finite are None, others have six significant digits, as the file holds them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cnn_papers import tasks
from cnn_papers.claims.verdicts import AGREES, DISAGREES, LEVEL, UNDECIDED

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
      estimate, low, high, n, level, relation, note, look, looks: of the verdict; unused if it
        has none.
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
    look: int = 0
    looks: int = 0


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


class AveragePrecisions(NamedTuple):
    """Average precisions of the classes in the final tests of a run, in percent, by 11 points.

    Attributes:
      split: the split that was tested.
      classes: their names.
      objects: the number of objects of each that are to be found.
      values: by the text of the protocol, one for each class; None of a class without objects.
    """

    split: str
    classes: Sequence[str]
    objects: Sequence[int]
    values: dict[str, Sequence[float | None]]


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
      precisions: of a task that detects objects, once it was tested.
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
    precisions: AveragePrecisions | None = None


# --- figures --------------------------------------------------------------------------------------


class Line(NamedTuple):
    """A line with its band: means, lowest and highest values over seeds."""

    name: str
    x: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


class Lines(NamedTuple):
    """A panel of lines.

    Attributes:
      level: of a horizontal line.
      log: a logarithmic vertical axis.
      limits: of both axes, of lines that are drawn without markers; else they follow from lines.
    """

    title: str
    x: str
    y: str
    series: Sequence[Line]
    level: float | None = None
    log: bool = False
    limits: tuple[float, float] | None = None


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


class Photo(NamedTuple):
    """A panel of a photograph: a JPEG file in base64, shown `width` pixels wide."""

    title: str
    jpeg: str
    width: int
    alt: str


Panel = Lines | Heat | Picture | Photo


class Figure(NamedTuple):
    """A figure of a report; it has no panels if it could not be drawn, and `text` says why.

    `claims` are names of the claims that it illustrates.
    """

    title: str
    text: str
    panels: Sequence[Panel]
    claims: Sequence[str] = ()


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
