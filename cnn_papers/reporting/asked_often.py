"""Tells how far verdicts can be trusted: the seeds that it takes, and chance among many claims."""

import math

from cnn_papers.claims import multiple_testing, sequential
from cnn_papers.claims.plan import EXACT
from cnn_papers.claims.verdicts import ERROR_RATE, UNDECIDED, Verdict
from cnn_papers.reporting.results import WORDS, ClaimResult, Results


def seeds(claim: ClaimResult) -> str:
    """Returns the number of seeds of a verdict, its look, and the number that would decide.

    Returns "" if there is no verdict.
    """
    if claim.word not in WORDS:
        return ""
    parts = [str(claim.n)]
    if claim.looks:
        parts.append(f"look {claim.look} of {claim.looks}")
    if claim.word == UNDECIDED and claim.scale != EXACT:
        needed = sequential.seeds_needed(claim, _verdict(claim))
        more = f"more than {sequential.MOST:,}" if needed is None else f"{needed:,}"
        parts.append(f"{more} may decide")
    return "; ".join(parts)


def chance(results: Results) -> list[str]:
    """Returns how many verdicts chance may give, and which remain if all are asked at once.

    Returns nothing if fewer than two claims were left to chance.
    """
    drawn = {
        claim.name: claim
        for claim in results.claims
        if claim.word in WORDS and claim.scale != EXACT
    }
    if len(drawn) < 2:
        return []
    rates = {
        name: sequential.error_rate_of(claim, _verdict(claim)) for name, claim in drawn.items()
    }
    decided = [name for name, claim in drawn.items() if claim.word != UNDECIDED]
    remain = [name for name in multiple_testing.holm(rates) if name in decided]
    percent = f"{100 * ERROR_RATE:.0f} %"
    lines = [
        f"{len(drawn)} of them rest on random seeds, and each verdict stands alone: where nothing "
        f"differs, {percent} are decided by chance, which would be about "
        f"{ERROR_RATE * len(drawn):.2g} of {len(drawn)}; {len(decided)} are decided."
    ]
    if decided:
        names = f": {', '.join(remain)}" if remain else ""
        lines.append(
            f"If all {len(drawn)} together may be wrong with {percent} (Holm’s correction), "
            f"{len(remain)} stay decided{names}."
        )
    return lines


def _verdict(claim: ClaimResult) -> Verdict:
    """Returns the verdict of a claim, of which a file holds open ends as None."""
    lowest = 0.0 if claim.ratio else -math.inf
    return Verdict(
        claim.word,
        math.nan if claim.estimate is None else claim.estimate,
        lowest if claim.low is None else claim.low,
        math.inf if claim.high is None else claim.high,
        claim.n,
        claim.level,
        claim.relation,
        claim.note,
        {},
        claim.look,
        claim.looks,
    )
