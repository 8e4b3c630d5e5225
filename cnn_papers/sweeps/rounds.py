"""Chooses which claims of a sweep go on to more seeds, where they are asked until decided."""

import itertools
import pathlib
from collections.abc import Mapping

from cnn_papers.claims import catalogue, plan, sequential
from cnn_papers.claims.loading import Sweep, load_sweep
from cnn_papers.claims.metrics import Finished
from cnn_papers.claims.plan import EXACT
from cnn_papers.claims.readings import looks_of, of_sweep
from cnn_papers.claims.verdicts import UNDECIDED
from cnn_papers.sweeps.request import Request
from cnn_papers.terminal import duration, say


def extended(folder: pathlib.Path, request: Request, budget_s: float) -> Request:
    """Returns `request` with the claims at their next look that are to go on; says which.

    A claim goes on if it is undecided at its look, if the interval so far predicts that it will be
    decided by the last one, and if its runs fit into what is left of the budget. Those that need
    the fewest seeds come first.

    Args:
      folder: of the sweep.
      request: what its runs are of; it has looks.
      budget_s: seconds that all runs of the sweep may take together.
    """
    sweep = load_sweep(folder)
    needed, stopped = _undecided(sweep, request)
    left = budget_s - sum(run.seconds for run in sweep.runs.values())
    reached = dict(request.reached)
    for name in sorted(needed, key=needed.__getitem__):
        look = next(seeds for seeds in request.looks if seeds > request.seeds_of(name))
        text = (
            f"{name}: undecided at {request.seeds_of(name)} seeds; {needed[name]} seeds may decide"
        )
        seconds = _seconds(sweep, name, range(request.seeds_of(name), look))
        if seconds > left:
            say(f"{text}, which the budget does not allow: {duration(seconds)} to {look} seeds")
            continue
        left -= seconds
        reached.pop(name, None)  # its runs come after those of claims that were more promising
        reached[name] = look
        say(f"{text}, goes on to {look}")
    if stopped:
        say(f"not expected to be decided by {request.seeds} seeds: {', '.join(stopped)}")
    return request._replace(reached=reached)


def _undecided(sweep: Sweep, request: Request) -> tuple[Mapping[str, int], list[str]]:
    """Returns the claims that more seeds may decide, with the number it takes; the other ones.

    Claims that have runs to finish at their look are in neither.
    """
    needed: dict[str, int] = {}
    stopped = []
    for name, scale in request.claims.items():
        if scale == EXACT:
            continue
        claim, seeds = catalogue.find(name), request.seeds_of(name)
        readings = of_sweep(sweep, name)
        verdict = sequential.judge(claim, readings, looks_of(sweep, name))
        if verdict.word != UNDECIDED or verdict.n < seeds:
            continue
        takes = sequential.seeds_needed(claim, verdict, most=request.seeds)
        if takes is None:
            stopped.append(name)
        else:
            needed[name] = takes
    return needed, stopped


def _seconds(sweep: Sweep, claim: str, seeds: range) -> float:
    """Returns the time that a claim's runs of `seeds` will take, those left out that it shares."""
    more = plan.jobs(catalogue.find(claim), str(sweep.scales[claim]), seeds)
    seconds = 0.0
    for arm, jobs in sweep.arms[claim].items():
        runs = [sweep.runs.get(job.id) for job in jobs]
        took = [run.seconds for run in runs if isinstance(run, Finished)]
        took += [entry.seconds for entry in sweep.known.get(claim, {}).get(arm, {}).values()]
        new = itertools.filterfalse(lambda job: job.id in sweep.jobs, more[arm])
        seconds += len(list(new)) * sum(took) / len(took)
    return seconds
