"""The figures of a report in words and digits, the same in every form that it takes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cnn_papers.claims import EXACT

Claim = Mapping[str, Any]  # one of a report's results, see cnn_papers.reporting.results

WORDS = ("agrees", "disagrees", "undecided")
VALUES = ("at_most", "at_least")  # what is expected of one arm by itself
FINISHED = ("done", "diverged")
SERIES = ("falling", "rising")
CHANGES = ("gap", "tested_change")  # metrics that are differences already
AGAINST_PAPER = ("metric", "the paper’s protocol", "paper", "ours", "difference", "source")


def number(value: float, *, signed: bool = False, stated: bool = False) -> str:
    """Three significant digits, thousands in full; with a true minus sign, and a plus if `signed`.

    Where it is `stated` by somebody, zeros at its end are left out: they are nobody's measurement.
    """
    sign, form = "+" if signed else "", ".3g" if stated else "#.3g"
    text = f"{value:{sign},.0f}" if abs(value) >= 1000 else f"{value:{sign}{form}}".removesuffix(".")
    return text.replace("-", "−")


def figure(claim: Claim, value: float, *, stated: bool = False) -> str:
    """`value` as the claim compares: ×2.10 of a ratio, +1.20 of a difference, 12.0 of an arm by itself."""
    if claim["ratio"]:
        return f"×{number(value, stated=stated)}"
    return number(value, signed=claim["expect"] not in VALUES or claim["metric"].startswith(CHANGES), stated=stated)


def unit(claim: Claim) -> str:
    """What a figure of the claim is counted in, with a space before it; "" of a ratio and of bare numbers."""
    metric, expect = claim["metric"], claim["expect"]
    if claim["ratio"]:
        found = ""
    elif metric.startswith("images_to"):
        found = " images"
    elif metric.startswith(CHANGES):
        found = " points"
    elif "error" in metric:
        found = " %" if expect in VALUES else " points"
    else:
        found = ""
    return f"{found} per step" if expect in SERIES else found


def ours(claim: Claim) -> str:
    """Our estimate with its unit; "" where there is none."""
    if claim.get("estimate") is None:
        return ""
    relation = "" if claim["relation"] == "=" else f"{claim['relation']} "
    return relation + figure(claim, claim["estimate"]) + unit(claim)


def interval(claim: Claim) -> str:
    """The interval around our estimate; "" where there is none or nothing is left to chance."""
    low, high = bounds(claim)
    if low == high:
        return ""
    ends = ("−∞" if low is None else figure(claim, low), "∞" if high is None else figure(claim, high))
    return f"[{ends[0]}, {ends[1]}]"


def bounds(claim: Claim) -> tuple[float | None, float | None]:
    """The ends of the interval, None where it is open."""
    low = claim["low"]
    return None if claim["ratio"] and low == 0 else low, claim["high"]


def paper(claim: Claim) -> str:
    """The paper's difference as we count it and its own words."""
    delta = "" if claim["paper_delta"] is None else figure(claim, claim["paper_delta"], stated=True) + unit(claim)
    return "; ".join(filter(None, (delta, claim["paper"])))


def expected(claim: Claim) -> str:
    """What is claimed of the metric."""
    bound = "" if claim["bound"] is None else number(claim["bound"], stated=True)
    arms = [*claim["arms"]]
    where = f"in {arms[-1]}" if len(arms) > 1 else "than zero"
    text = {
        "lower": f"lower {where}",
        "higher": f"higher {where}",
        "same": f"the same within a factor of {bound}" if claim["ratio"] else f"the same within ±{bound}",
        "at_most": f"at most {bound}",
        "at_least": f"at least {bound}",
    }
    return text.get(claim["expect"], f"{claim['expect']} along the series")


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds else ""
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def verdicts(results: Mapping[str, Any]) -> str:
    """How many claims agree, disagree, …"""
    count = Counter(claim["word"] for claim in results["claims"])
    asked = sum(count[word] for word in WORDS)
    listed = ", ".join(
        f"{count[word]} {verb}" for word, verb in zip(WORDS, ("agree", "disagree", "undecided"), strict=True)
    )
    return f"{_count(asked, 'claim')} run: {listed}. {count['not run']} not run."


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
    """How many runs there are, how they ended, and how long they took."""
    count = Counter(results["outcomes"].values())
    listed = ", ".join(f"{count[name]} {name}" for name in sorted(count))
    took = duration(results["seconds"])
    return f"{_count(len(results['outcomes']), 'run')}: {listed or 'none'}" + (f"; {took} in all." if took else ".")


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
    """The machines and versions of the runs."""
    started = [f"started {results['started']}"] if results.get("started") else []
    code = [f"code and settings {results['code']}"] if results.get("code") else []
    return [*results["machines"], *results["versions"], *code, *started]


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
    return f"{run['config']} on {run['data']}: top-1 error {last} in the last evaluation, {best} in the best."


def tested(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the final test: protocol, split, top-1 and top-5 error."""
    return row["test/protocol"], row["test/split"], *(f"{row[f'test/top{k}_error']:.2f} %" for k in (1, 5))


def comparison(run: Mapping[str, Any]) -> str:
    """What the paper's results are compared with."""
    if run["same"]:
        return "Against the paper: its recipe on its data; ours is the best evaluation of single views."
    paper = run["reported"][0]["recipe"]
    return f"The paper’s results are of {paper}: other data than {run['data']}, and so there is no difference to take."


def against_paper(result: Mapping[str, Any]) -> tuple[str, ...]:
    """A result of the paper beside ours, as AGAINST_PAPER names the columns."""
    ours = result["ours"]
    own = ("–", "–") if ours is None else (f"{ours:.2f}", f"{ours - result['value']:+.2f}".replace("-", "−"))
    return result["metric"], result["protocol"], f"{result['value']:g}", *own, result["source"]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
