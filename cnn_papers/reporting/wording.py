"""The figures of a report in words and digits, the same in every form that it takes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cnn_papers import terminal
from cnn_papers.claims.plan import EXACT
from cnn_papers.claims.records import FINISHED
from cnn_papers.claims.verdicts import AGREES, DISAGREES, LEVEL, UNDECIDED

Claim = Mapping[str, Any]  # one of a report's results, see cnn_papers.reporting.results

WORDS = (AGREES, DISAGREES, UNDECIDED)
NOT_RUN = "not run"
VALUES = (
    "at_most",
    "at_least",
)  # what is expected of one arm by itself, or of the difference of two
NEW, UNDER_WAY = "not started", "under way or killed"  # of a sweep's runs
UNFINISHED, UNSAID = "under way, stopped or diverged", "of unknown length"  # of runs by themselves
MARKS = {"≥": "at least this", "≤": "at most this", "?": "on either side of this"}
SERIES = ("falling", "rising")
CHANGES = ("gap", "tested_change")  # metrics that are differences already
AGAINST_PAPER = ("metric", "the paper’s protocol", "paper", "ours", "difference", "source")


def number(value: float, *, signed: bool = False, stated: bool = False) -> str:
    """Three significant digits, thousands in full; with a true minus sign, and a plus if `signed`.

    Where it is `stated` by somebody, zeros at its end are left out: they are nobody's measurement.
    """
    sign, form = "+" if signed else "", ".3g" if stated else "#.3g"
    large = abs(value) >= 999.5  # which three digits round to 1,000
    text = f"{value:{sign},.0f}" if large else f"{value:{sign}{form}}".removesuffix(".")
    return text.replace("-", "−")


def figure(claim: Claim, value: float, *, stated: bool = False) -> str:
    """`value` as the claim compares: ×2.10 of a ratio, +1.20 of a difference, 12.0 of an arm by
    itself.
    """
    if claim["ratio"]:
        return f"×{number(value, stated=stated)}"
    return number(
        value, signed=not _is_alone(claim) or claim["metric"].startswith(CHANGES), stated=stated
    )


def unit(claim: Claim) -> str:
    """What a figure of the claim is counted in, with a space before it; "" of a ratio and of bare
    numbers.
    """
    metric = claim["metric"]
    if claim["ratio"]:
        found = ""
    elif metric.startswith("images_to"):
        found = " images"
    elif metric.startswith(CHANGES):
        found = " points"
    elif "error" in metric:
        found = " %" if _is_alone(claim) else " points"
    else:
        found = ""
    return f"{found} per step" if claim["expect"] in SERIES else found


def ours(claim: Claim) -> str:
    """Our estimate with its unit; "" where there is none."""
    if claim.get("estimate") is None:
        return ""
    relation = "" if claim["relation"] == "=" else f"{claim['relation']} "
    return relation + figure(claim, claim["estimate"]) + unit(claim)


def interval(claim: Claim) -> str:
    """The interval around our estimate, with its level where that is not LEVEL; "" where nothing is
    left to chance.
    """
    if claim["estimate"] is None or claim["scale"] == EXACT:
        return ""
    if claim["n"] < 2:
        return "(one seed)"
    low, high = bounds(claim)
    least = "×0" if claim["ratio"] else "−∞"
    ends = (
        least if low is None else figure(claim, low),
        "∞" if high is None else figure(claim, high),
    )
    level = "" if claim["level"] == LEVEL else f" ({100 * claim['level']:.0f} %)"
    return f"[{ends[0]}, {ends[1]}]{level}"


def bounds(claim: Claim) -> tuple[float | None, float | None]:
    """The ends of the interval, None where it is open."""
    low = claim["low"]
    return None if claim["ratio"] and low == 0 else low, claim["high"]


def paper(claim: Claim) -> str:
    """The paper's difference as we count it and its own words."""
    delta = (
        ""
        if claim["paper_delta"] is None
        else figure(claim, claim["paper_delta"], stated=True) + unit(claim)
    )
    return "; ".join(filter(None, (delta, claim["paper"])))


def expected(claim: Claim) -> str:
    """What is claimed of the metric."""
    bound = "" if claim["bound"] is None else number(claim["bound"], stated=True)
    arms = [*claim["arms"]]
    where = f"in {arms[-1]}" if len(arms) > 1 else "than zero"
    sign, times = (":", "×") if claim["ratio"] else ("−", "")
    of = f"{arms[1]} {sign} {arms[0]} " if len(arms) == 2 else ""
    text = {
        "lower": f"lower {where}",
        "higher": f"higher {where}",
        "same": f"the same within a factor of {bound}"
        if claim["ratio"]
        else f"the same within ±{bound}",
        "at_most": f"{of}at most {times}{bound}",
        "at_least": f"{of}at least {times}{bound}",
    }
    return text.get(claim["expect"], f"{claim['expect']} along the series")


def legend(results: Mapping[str, Any], *, arms: bool) -> list[str]:
    """What the signs of censored figures mean, those there are: of estimates and, if `arms` are
    shown, of theirs.
    """
    ran = [claim for claim in results["claims"] if claim["word"] in WORDS]
    there = {claim["relation"] for claim in ran}
    readings = [
        each for claim in ran for arm in claim["arms"].values() for each in arm["readings"].values()
    ]
    if arms and any(each["censored"] for each in readings):
        there.add("≥")
    signs = [f"{meaning} ({sign})" for sign, meaning in MARKS.items() if sign in there]
    return (
        [f"Some runs never reached what is asked; the true figure is {', '.join(signs)}."]
        if signs
        else []
    )


def duration(seconds: float) -> str:
    """What it took; "" of nothing."""
    return terminal.duration(seconds) if seconds else ""


def verdicts(results: Mapping[str, Any]) -> str:
    """How many claims agree, disagree, …"""
    count = Counter(claim["word"] for claim in results["claims"])
    asked = sum(count[word] for word in WORDS)
    listed = ", ".join(
        f"{count[word]} {verb}"
        for word, verb in zip(WORDS, ("agree", "disagree", "undecided"), strict=True)
    )
    return f"{_count(asked, 'claim')} run: {listed}. {count[NOT_RUN]} not run."


def chance(results: Mapping[str, Any]) -> list[str]:
    """What to bear in mind where several claims were left to chance."""
    drawn = sum(claim["word"] in WORDS and claim["scale"] != EXACT for claim in results["claims"])
    if drawn < 2:
        return []
    return [
        f"{drawn} of them rest on random seeds, and each verdict stands alone, not corrected for asking many: where "
        "nothing differs, one in forty agrees by chance and one in forty disagrees."
    ]


def runs(results: Mapping[str, Any]) -> str:
    """How many runs there are, how they ended, how long they took, one after the other, and since
    when.
    """
    count = Counter(results["outcomes"].values())
    listed = ", ".join(f"{count[name]} {name}" for name in sorted(count))
    took, since = duration(results.get("seconds", 0.0)), results.get("started")
    found = [
        listed or "none",
        *([f"{took} in all"] if took else []),
        *([f"from {since} on"] if since else []),
    ]
    return f"{_count(len(results['outcomes']), 'run')}: {'; '.join(found)}."


def unfinished(results: Mapping[str, Any]) -> dict[str, list[str]]:
    """The runs that are not finished, by why."""
    found: dict[str, list[str]] = {}
    for name, outcome in results["outcomes"].items():
        if outcome not in FINISHED:
            found.setdefault(outcome, []).append(name)
    return found


def missing(claim: Claim, results: Mapping[str, Any]) -> str:
    """Which part of the claim's runs is not finished; "" of none."""
    of = [name for names in claim["runs"].values() for name in names]
    gone = sum(results["outcomes"].get(name) not in FINISHED for name in of)
    return f"{gone} of its {len(of)} runs are not finished" if gone else ""


def made_with(results: Mapping[str, Any]) -> Sequence[str]:
    """The machines, versions and code of the runs."""
    return [*results["machines"], *results["versions"], *_code(results.get("code", {}))]


def _code(runs: Mapping[str, int]) -> list[str]:
    """The code of runs, whose numbers are by digest; nothing where it was not noted of any."""
    if not any(runs):
        return []
    if len(runs) == 1:
        return [f"code {next(iter(runs))}"]
    return [
        "code "
        + "; ".join(f"{digest or 'not noted'}, of {_count(n, 'run')}" for digest, n in runs.items())
    ]


def top1(row: Mapping[str, Any] | None) -> str:
    """The top-1 error of an evaluation."""
    return f"{row['val/top1_error']:.2f} %" if row else "none"


def errors(run: Mapping[str, Any]) -> tuple[str, str]:
    """The top-1 error of a run's last evaluation, and of its best."""
    return top1(run.get("last")), top1(run.get("best"))


def overrides(run: Mapping[str, Any]) -> str:
    """What a run of a grid overrides."""
    return ", ".join(f"{key}={value}" for key, value in run["overrides"].items())


def single(run: Mapping[str, Any]) -> str:
    """A run by itself."""
    last, best = errors(run)
    total = "an unknown number" if run["total_steps"] is None else f"{run['total_steps']:,}"
    step = f"step {run['steps']:,} of {total}"
    return f"{run['config']} on {run['data']}, {step}: top-1 error {last} in the last evaluation, {best} in the best."


def tested(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the final test: protocol, split, top-1 and top-5 error."""
    return (
        row["test/protocol"],
        row["test/split"],
        *(f"{row[f'test/top{k}_error']:.2f} %" for k in (1, 5)),
    )


def comparison(run: Mapping[str, Any]) -> str:
    """What the paper's results are compared with."""
    if run["changed"]:
        what = f"the recipe as it stands, and this run changes {', '.join(run['changed'])}"
    elif run["same"]:
        return "Against the paper: its recipe on its data; ours is the best evaluation of single views."
    else:
        what = f"{run['reported'][0]['recipe']}, not of {run['config']} on {run['data']}"
    return f"The paper’s results are of {what}: there is no difference to take."


def against_paper(result: Mapping[str, Any]) -> tuple[str, ...]:
    """A result of the paper beside ours, as AGAINST_PAPER names the columns."""
    ours = result["ours"]
    own = (
        ("–", "–")
        if ours is None
        else (f"{ours:.2f}", f"{ours - result['value']:+.2f}".replace("-", "−"))
    )
    return result["metric"], result["protocol"], f"{result['value']:g}", *own, result["source"]


def _is_alone(claim: Claim) -> bool:
    """Whether a claim is of the one arm by itself."""
    return claim["expect"] in VALUES and len(claim["arms"]) == 1


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
