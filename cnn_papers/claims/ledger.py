"""A ledger of readings: what claims read off finished runs, in a file small enough to commit.

Each line is a JSON object, one reading of one arm and seed with all that it depends on. The order
of lines means nothing and a line may be there twice, so that two ledgers are merged by
concatenating them, as git's `merge=union` does. `add` sorts the lines and drops repeated ones.
"""

import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cnn_papers import files
from cnn_papers.claims import catalogue, definitions
from cnn_papers.claims.metrics import Finished, Reading
from cnn_papers.claims.plan import EXACT, Job
from cnn_papers.errors import UserError

SUFFIX = ".jsonl"
DIGITS = 12  # of the digest of a run's source


class Entry(NamedTuple):
    """One reading.

    Attributes:
      claim, scale: what was asked, by name.
      asked: the digest of that, from `definitions.digest`.
      arm, seed: of the run.
      code: digest of the source that the run was made with, the first digits.
      machine, versions: that it was made on, in words.
      value, censored: of the `Reading`; the value is None if it is not finite.
      looks: numbers of seeds at which the sweep looked; none if it had a fixed number.
      config, overrides: of the run; `start` is the id of the run that it starts from.
      started: local time at which its last attempt started.
      seconds: time of all its attempts.
    """

    claim: str
    scale: str
    asked: str
    arm: str
    seed: int
    code: str
    machine: str
    versions: str
    value: float | None
    censored: bool
    looks: Sequence[int]
    config: str
    overrides: Mapping[str, Any]
    started: str
    seconds: float

    @property
    def run(self) -> tuple[str, str, int, str]:
        """What tells the run of the line from others."""
        return self.config, json.dumps(dict(self.overrides)), self.seed, self.code

    @property
    def reading(self) -> Reading:
        """The reading itself, NaN if it has no value."""
        return Reading(float("nan") if self.value is None else self.value, self.censored)


_KINDS: dict[str, Any] = {
    **dict.fromkeys(("claim", "scale", "asked", "arm", "code", "machine", "versions"), str),
    **dict.fromkeys(("config", "started"), str),
    **{"seed": int, "value": float | int | None, "censored": bool, "looks": list},
    **{"overrides": dict, "seconds": float | int},
}
Known = dict[str, dict[int, Entry]]  # the lines of a claim by arm and seed


def entry_of(
    claim: str,
    scale: str,
    asked: str,
    arm: str,
    job: Job,
    run: Finished,
    reading: Reading,
    looks: Sequence[int],
) -> Entry:
    """Returns the line of one finished run of a claim."""
    overrides = dict(job.overrides)
    seed = overrides.pop("seed")
    if job.start:
        overrides["start"] = job.start.id
    value = reading.value if abs(reading.value) < float("inf") else None
    return Entry(
        claim=claim,
        scale=scale,
        asked=asked,
        arm=arm,
        seed=seed,
        code=run.source[:DIGITS],
        machine=run.machine,
        versions=run.versions,
        value=value,
        censored=reading.censored,
        looks=list(looks),
        config=job.config,
        overrides=overrides,
        started=run.started,
        seconds=run.seconds,
    )


def read(path: pathlib.Path) -> list[Entry]:
    """Returns the lines of a ledger, each reading once; none if there is no file.

    A reading that several sweeps took has the looks of all of them.

    Raises UserError, which names the line, if one is damaged or contradicts another: the same
    question, arm, seed, code, machine and versions with another value.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    found: dict[tuple, tuple[int, Entry]] = {}
    for place, line in enumerate(lines, 1):
        if not line.strip():
            continue
        entry = _entry(line, f"{path}:{place}")
        key = entry[: Entry._fields.index("value")]
        first, other = found.setdefault(key, (place, entry))
        if (other.value, other.censored) != (entry.value, entry.censored):
            raise UserError(
                f"{path}: lines {first} and {place} contradict each other: {entry.claim}, "
                f"{entry.arm}, seed {entry.seed} is {other.reading.value:g} and "
                f"{entry.reading.value:g} with the same code, machine and versions; "
                "remove the wrong one"
            )
        found[key] = first, other._replace(looks=sorted({*other.looks, *entry.looks}))
    return [entry for _, entry in found.values()]


def add(path: pathlib.Path, entries: Iterable[Entry]) -> None:
    """Adds lines to a ledger, which is written anew, sorted; creates it.

    Raises UserError if the ledger is damaged, contradicted or cannot be written.
    """
    try:
        with files.one_at_a_time(path):
            lines = [*map(_line, read(path)), *map(_line, entries)]
            with files.atomic_write(path) as part:
                for _ in range(2):  # together they may hold a reading twice
                    part.write_text("\n".join(sorted(set(lines))) + "\n", encoding="utf-8")
                    lines = [*map(_line, read(part))]
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def known(
    entries: Sequence[Entry], scales: Mapping[str, str | None], code: str = ""
) -> dict[str, Known]:
    """Returns what a ledger knows of claims as they are asked now.

    Args:
      entries: of the ledger.
      scales: of the claims by name; one without a scale is left out.
      code: digest of the source whose lines count; by default lines of any code do, of which the
        one counts that was started last.
    """
    found = {}
    for name, scale in scales.items():
        if scale in (None, EXACT):
            continue
        asked = (name, scale, definitions.digest(catalogue.find(name), scale))
        by_arm: Known = {}
        for entry in sorted(entries, key=lambda entry: entry.started):
            if entry[: len(asked)] == asked and code[:DIGITS] in ("", entry.code):
                by_arm.setdefault(entry.arm, {})[entry.seed] = entry
        found[name] = by_arm
    return found


def runs_of(of_claims: Iterable[Known]) -> list[Entry]:
    """Returns one line for each run of these."""
    lines = [line for known in of_claims for by_seed in known.values() for line in by_seed.values()]
    return [*{line.run: line for line in lines}.values()]


def _entry(line: str, where: str) -> Entry:
    try:
        values = json.loads(line)
        entry = Entry(**values)
    except (ValueError, TypeError) as error:
        raise UserError(f"{where} is no reading of a claim: {error}") from error
    wrong = [name for name, kind in _KINDS.items() if not isinstance(getattr(entry, name), kind)]
    if wrong:
        raise UserError(f"{where} is no reading of a claim: {wrong[0]} is {values[wrong[0]]!r}")
    return entry


def _line(entry: Entry) -> str:
    return json.dumps(entry._asdict(), ensure_ascii=False)
