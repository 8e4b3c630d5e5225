"""Puts the results of a report into words and digits, the same in every form of the report."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from cnn_papers import tasks, terminal
from cnn_papers.claims.plan import EXACT
from cnn_papers.claims.records import FINISHED
from cnn_papers.claims.verdicts import LEVEL
from cnn_papers.facts import Measure
from cnn_papers.reporting.results import (
    ASK_AGAIN,
    NOT_RUN,
    WORDS,
    ClaimResult,
    GridRun,
    ReportedResult,
    Results,
    Row,
    SingleRun,
)

VALUES = ("at_most", "at_least")  # expected of one arm, or of the difference of two
UNFINISHED, UNSAID = "under way, stopped or diverged", "of unknown length"  # of single runs
MARKS = {"≥": "at least this", "≤": "at most this", "?": "on either side of this"}
SERIES = ("falling", "rising")
DATA = {  # as papers say
    "cifar10": "CIFAR-10",
    "imagenet2012": "ImageNet",
    "mnist": "MNIST",
    "voc/2007": "VOC 2007",
}
CHANGES = ("gap", "tested_change")  # metrics that are differences already
AGAINST_PAPER = (
    "metric",
    "the paper’s protocol",
    "paper",
    "our protocol",
    "ours",
    "difference",
    "source",
)


def number(value: float, *, signed: bool = False, stated: bool = False) -> str:
    """Returns three significant digits, thousands in full, with a true minus sign.

    `signed` adds a plus. A `stated` value, which somebody printed, loses zeros at its end: nobody
    measured them.
    """
    sign, form = "+" if signed else "", ".3g" if stated else "#.3g"
    large = abs(value) >= 999.5  # rounds to 1,000
    text = f"{value:{sign},.0f}" if large else f"{value:{sign}{form}}".removesuffix(".")
    return text.replace("-", "−")


def compared(claim: ClaimResult, value: float, *, stated: bool = False) -> str:
    """Returns `value` as the claim compares: ×2.10 (ratio), +1.20 (difference), 12.0 (one arm)."""
    if claim.ratio:
        return f"×{number(value, stated=stated)}"
    signed = not _is_one_arm(claim) or claim.metric.startswith(CHANGES)
    return number(value, signed=signed, stated=stated)


def unit(claim: ClaimResult) -> str:
    """Returns the unit of the claim's values after a space; "" of a ratio and of bare numbers."""
    if claim.ratio:
        name = ""
    elif claim.metric.startswith("images_to"):
        name = " images"
    elif claim.metric.startswith(CHANGES):
        name = " points"
    elif _is_percentage(claim.metric):
        name = " %" if _is_one_arm(claim) else " points"
    else:
        name = ""
    return f"{name} per step" if claim.expect in SERIES else name


def ours(claim: ClaimResult) -> str:
    """Returns our estimate with its unit; "" if there is none."""
    if claim.estimate is None:
        return ""
    relation = "" if claim.relation == "=" else f"{claim.relation} "
    return relation + compared(claim, claim.estimate) + unit(claim)


def interval(claim: ClaimResult) -> str:
    """Returns the interval around our estimate, with its level if that is not LEVEL.

    It is "" if there is no estimate, or if the estimate is exact.
    """
    if claim.estimate is None or claim.scale == EXACT:
        return ""
    if claim.n < 2:
        return "(one seed)"
    low, high = bounds(claim)
    lowest = "×0" if claim.ratio else "−∞"
    left = lowest if low is None else compared(claim, low)
    right = "∞" if high is None else compared(claim, high)
    level = "" if claim.level == LEVEL else f" ({100 * claim.level:.3g} %)"
    return f"[{left}, {right}]{level}"


def bounds(claim: ClaimResult) -> tuple[float | None, float | None]:
    """Returns the ends of the interval, None for an open end."""
    low = None if claim.ratio and claim.low == 0 else claim.low
    return low, claim.high


def paper(claim: ClaimResult) -> str:
    """Returns the paper's difference in our unit, and its own words.

    Of a difference on other data than ours only the words are shown, which then name the data.
    """
    data = DATA.get(claim.paper_data, claim.paper_data)
    if data not in claim.paper:
        return f"{data}: {claim.paper}"
    delta = ""
    if claim.paper_delta is not None:
        delta = compared(claim, claim.paper_delta, stated=True) + unit(claim)
    return "; ".join(filter(None, (delta, claim.paper)))


def expected(claim: ClaimResult) -> str:
    """Returns what is claimed of the metric."""
    bound = "" if claim.bound is None else number(claim.bound, stated=True)
    arms = [*claim.arms]
    where = f"in {arms[-1]}" if len(arms) > 1 else "than zero"
    sign, times = (":", "×") if claim.ratio else ("−", "")
    pair = f"{arms[1]} {sign} {arms[0]} " if len(arms) == 2 else ""
    within = f"a factor of {bound}" if claim.ratio else f"±{bound}"
    texts = {
        "lower": f"lower {where}",
        "higher": f"higher {where}",
        "same": f"the same within {within}",
        "at_most": f"{pair}at most {times}{bound}",
        "at_least": f"{pair}at least {times}{bound}",
    }
    return texts.get(claim.expect, f"{claim.expect} along the series")


def legend(results: Results, *, arms: bool) -> list[str]:
    """Explains the signs of censored values: those of estimates and, with `arms`, of arms."""
    judged = [claim for claim in results.claims if claim.word in WORDS]
    used = {claim.relation for claim in judged}
    readings = [
        reading
        for claim in judged
        for arm in claim.arms.values()
        for reading in arm.readings.values()
    ]
    if arms and any(reading.censored for reading in readings):
        used.add("≥")
    signs = [f"{meaning} ({sign})" for sign, meaning in MARKS.items() if sign in used]
    if not signs:
        return []
    return [f"Some runs never reached the level asked for; the true value is {', '.join(signs)}."]


def duration(seconds: float) -> str:
    """Returns the duration in words; "" of zero."""
    return terminal.duration(seconds) if seconds else ""


def verdicts(results: Results) -> str:
    """Returns how many claims agree, disagree, …"""
    count = Counter(claim.word for claim in results.claims)
    judged = sum(count[word] for word in WORDS)
    verbs = zip(WORDS, ("agree", "disagree", "undecided"), strict=True)
    listed = ", ".join(f"{count[word]} {verb}" for word, verb in verbs)
    again = f" {count[ASK_AGAIN]} to be asked again." if count[ASK_AGAIN] else ""
    return f"{_count(judged, 'claim')} run: {listed}.{again} {count[NOT_RUN]} not run."


def changed(results: Results) -> list[str]:
    """Returns the reason why claims are to be asked again, if there are any."""
    if not any(claim.word == ASK_AGAIN for claim in results.claims):
        return []
    return [
        "A claim is to be asked again if its definition, or the recipe of an arm, has changed "
        "since its runs; pictures of networks may still be of these runs."
    ]


def runs(results: Results) -> str:
    """Returns the number of runs, how they ended, their total time, and their first start.

    Of runs that only a ledger knows it returns the time and the start.
    """
    count = Counter(results.outcomes.values())
    parts = [", ".join(f"{count[name]} {name}" for name in sorted(count)) or "none"]
    if total := duration(results.seconds):
        parts.append(f"{total} in all")
    if results.started:
        parts.append(f"from {results.started} on")
    if not results.outcomes and total:
        return f"Runs of other folders, from the ledger: {'; '.join(parts[1:])}."
    return f"{_count(len(results.outcomes), 'run')}: {'; '.join(parts)}."


def unfinished(results: Results) -> dict[str, list[str]]:
    """Returns the runs that are not finished, by the reason."""
    names_by_reason: dict[str, list[str]] = {}
    for name, outcome in results.outcomes.items():
        if outcome not in FINISHED:
            names_by_reason.setdefault(outcome, []).append(name)
    return names_by_reason


def missing(claim: ClaimResult, results: Results) -> str:
    """Returns how many of the claim's runs are not finished; "" if all are."""
    job_ids = [job_id for seeds in claim.runs.values() for job_id in seeds]
    missing = sum(results.outcomes.get(job_id) not in FINISHED for job_id in job_ids)
    return f"{missing} of its {len(job_ids)} runs are not finished" if missing else ""


def made_with(results: Results) -> Sequence[str]:
    """Returns the machines, versions and code of the runs."""
    return [*results.machines, *results.versions, *_code(results.code)]


def _code(runs_by_digest: Mapping[str, int]) -> list[str]:
    """Returns the code of runs; nothing if none of them noted it."""
    if not any(runs_by_digest):
        return []
    if len(runs_by_digest) == 1:
        return [f"code {next(iter(runs_by_digest))}"]
    parts = [
        f"{digest or 'not noted'}, of {_count(n, 'run')}" for digest, n in runs_by_digest.items()
    ]
    return [f"code {'; '.join(parts)}"]


def headlines(run: GridRun | SingleRun) -> tuple[str, str]:
    """Returns the headline of a run's last evaluation, and of its best."""
    headline = tasks.task_module(run.task).HEADLINE
    return _value(headline, "val", run.last), _value(headline, "val", run.best)


def others_header(runs: Sequence[GridRun]) -> tuple[str, ...]:
    """Returns the header of a table of runs that belong to no claim."""
    words = [tasks.task_module(run.task).HEADLINE.words for run in runs]
    return ("run", "overrides", f"last {' or '.join(dict.fromkeys(words))}", "best")


def overrides(run: GridRun) -> str:
    """Returns what a run of a grid overrides."""
    return ", ".join(f"{key}={value}" for key, value in run.overrides.items())


def single(run: SingleRun) -> str:
    """Returns a sentence on a single run."""
    last, best = headlines(run)
    words = tasks.task_module(run.task).HEADLINE.words
    total = "an unknown number" if run.total_steps is None else f"{run.total_steps:,}"
    return (
        f"{run.config} on {run.data}, step {run.steps:,} of {total}: "
        f"{words} {last} in the last evaluation, {best} in the best."
    )


def tested(run: SingleRun) -> list[tuple[str, ...]]:
    """Returns the table of a run's final test: the header, and a row for each protocol."""
    measures = tasks.task_module(run.task).MEASURES
    header = ("protocol", "split", *(measure.words for measure in measures))
    rows = [
        (
            row["test/protocol"],
            row["test/split"],
            *(_value(measure, "test", row) for measure in measures),
        )
        for row in run.tests
    ]
    return [header, *rows]


def comparison(run: SingleRun) -> str:
    """Returns what the paper's results are compared with, or why they are not."""
    if run.changed:
        what = f"the recipe as it stands, and this run changes {', '.join(run.changed)}"
    elif run.same:
        return (
            "Against the paper: its recipe on its data. Ours is the final test by the protocol "
            "that measures as the paper did; of a recipe without one, the last evaluation."
        )
    else:
        what = f"{run.reported[0].recipe}, not of {run.config} on {run.data}"
    return f"The paper’s results are of {what}: there is no difference to take."


def against_paper(result: ReportedResult) -> tuple[str, ...]:
    """Returns a result of the paper beside ours, in the columns of AGAINST_PAPER."""
    ours, difference = "–", "–"
    if result.ours is not None:
        ours = f"{result.ours:.2f}"
        difference = f"{result.ours - result.value:+.2f}".replace("-", "−")
    return (
        result.metric,
        result.protocol,
        f"{result.value:g}",
        result.measured_by or "–",
        ours,
        difference,
        result.source,
    )


def _value(measure: Measure, side: str, row: Row | None) -> str:
    if not row or f"{side}/{measure.name}" not in row:
        return "none"
    return f"{row[f'{side}/{measure.name}']:.2f} {measure.unit}".rstrip()


def _is_percentage(metric: str) -> bool:
    """Tells whether a metric of claims reads a measure that a task gives in percent."""
    names = {*re.findall(r"(\w+)'", metric)}  # with which its quoted texts end
    measures = [tasks.measures(task) for task in tasks.task_names()]
    return any(of_task[name].unit == "%" for of_task in measures for name in names & of_task.keys())


def _is_one_arm(claim: ClaimResult) -> bool:
    """Returns whether a claim compares its one arm with a bound."""
    return claim.expect in VALUES and len(claim.arms) == 1


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
