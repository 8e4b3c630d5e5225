"""The report of a sweep: what it says, what it refuses, which figures it has, and its page in a
real browser.
"""

import html.parser
import json
import pathlib
import re
import shutil
import subprocess
import urllib.parse
from typing import Any

import cv2
import numpy as np
import pytest
from support.commands import exit_code

from cnn_papers import report
from cnn_papers.claims import catalogue, plan, verdicts
from cnn_papers.claims.metrics import Reading
from cnn_papers.facts import Claim, Scale
from cnn_papers.reporting import gather, markdown, page, results, wording
from cnn_papers.reporting.results import ClaimResult, Results
from cnn_papers.runs import workdir

ROOT = pathlib.Path(__file__).parents[2]
DESK = {"desk": Scale({"config": "configs/resnet.py"})}
CLAIMS = {
    "resnet": {
        "resnet_sooner": Claim(
            "B & C reach 25 % <sooner>.",
            "ResNet §4",
            {"A": {"optim.lr": 0.01}, "B": {"optim.lr": 0.02}},
            "images_to('train/top1_error', 25.0)",
            "lower",
            "six times sooner",
            DESK,
            paper_delta=1 / 6,
            ratio=True,
        ),
        "resnet_lower": Claim(
            "The error is lower.",
            "ResNet Table 6",
            {"A": {"optim.lr": 0.01}, "B": {"optim.lr": 0.02}},
            "last('val/top1_error')",
            "lower",
            "8.75 and 6.97 %",
            DESK,
            paper_delta=-1.78,
        ),
        "resnet_responses": Claim(
            "Responses are alike.",
            "ResNet Figure 7",
            {"A": {"optim.lr": 0.01}, "B": {"optim.lr": 0.02}},
            "analysis('response_std')",
            "same",
            "curves",
            DESK,
            bound=0.5,
        ),
        "resnet_small": Claim(
            "A budget.",
            "ResNet §4.2",
            {"20": {}},
            "parameters()",
            "at_most",
            "0.27 million",
            {"exact": Scale({"config": "configs/resnet.py:cifar10"})},
            bound=1e9,
        ),
        "resnet_large": Claim(
            "Not asked.",
            "ResNet §4.1",
            {"A": {}},
            "last('val/top1_error')",
            "at_most",
            "",
            {"paper": DESK["desk"]},
        ),
    }
}


@pytest.fixture
def own_claims(monkeypatch):
    monkeypatch.setattr(catalogue, "claims_of", lambda: CLAIMS)


def rows(arm: int, seed: int) -> list[dict[str, Any]]:
    """A run whose training error falls linearly, in arm 1 twice as fast, and whose test error ends
    at 8 or 6 + seed.
    """
    found = []
    for i in range(1, 11):
        train = {
            "step": 10 * i,
            "train/loss": 1.0,
            "train/top1_error": max(0.0, 90.0 - (7 + seed / 2) * (1 + arm) * i),
        }
        layers = {f"analysis/response_std/conv{n}": 1.0 + 0.1 * n for n in (2, 10, 1)}
        test = {"step": 10 * i, "val/top1_error": 8.0 - 2 * arm + seed + seed * arm / 10 + 10 - i}
        found += [train, test | {"analysis/response_std": 1.0 + seed * arm / 100} | layers]
    return found


def write_job(
    folder: pathlib.Path, job: plan.Job, lines: list[dict[str, Any]], outcome: str = "done"
) -> None:
    code = {"done": 0, "diverged": 3, "failed": 1, "stopped": 143}[outcome]
    record = {"outcome": outcome, "exit_code": code, "source": "c0de" * 16, "code": "c0de"}
    record |= {"started": "2026-01-01 10:00:00", "seconds": 30.0}
    about = {"config": job.config, "overrides": dict(job.overrides), **record, "attempts": 1}
    (folder / f"{job.id}.json").write_text(json.dumps(about))
    (folder / job.id).mkdir()
    facts = {"machine": "a machine, 2 cores"}
    workdir.write_run(folder / job.id, plan.load(job), facts)
    (folder / job.id / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))


def write_sweep(
    folder: pathlib.Path, outcomes: dict[tuple[str, int], str] | None = None
) -> list[plan.Job]:
    """A sweep of the claims above with three seeds; returns its jobs, arm by arm."""
    folder.mkdir()
    planned = plan.jobs(CLAIMS["resnet"]["resnet_lower"], "desk", range(3))
    for i, (arm, jobs) in enumerate(planned.items()):
        for seed, job in enumerate(jobs):
            write_job(folder, job, rows(i, seed), (outcomes or {}).get((arm, seed), "done"))
    jobs = [job for of in planned.values() for job in of]
    asked = {
        "resnet_sooner": "desk",
        "resnet_lower": "desk",
        "resnet_responses": "desk",
        "resnet_small": "exact",
    }
    listed = [
        {"id": job.id, "config": job.config, "overrides": dict(job.overrides)} for job in jobs
    ]
    (folder / "sweep.json").write_text(
        json.dumps({"claims": asked, "config": "", "grid": {}, "seeds": 3, "jobs": listed})
    )
    return jobs


def change(path: pathlib.Path, **values: Any) -> None:
    """Changes values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def sweep(tmp_path, own_claims):
    """A sweep's folder whose runs are finished."""
    write_sweep(tmp_path / "sweep")
    return tmp_path / "sweep"


def read(sweep: pathlib.Path) -> Results:
    """The results that a report wrote to the folder of its sweep."""
    return results.read(sweep / "results.json")


def claim_of(found: Results, name: str) -> ClaimResult:
    return next(claim for claim in found.claims if claim.name == name)


# --- what it says of claims -----------------------------------------------------------------------


def test_a_sweep_gives_its_three_files(sweep, capsys):
    assert exit_code(report.cli, str(sweep)) in (None, 0)
    said = capsys.readouterr().out
    assert "4 claims run: 4 agree, 0 disagree, 0 undecided. 1 not run." in said
    assert "6 runs: 6 done; 3 min in all; from 2026-01-01 10:00:00 on." in said
    found = read(sweep)
    lower = claim_of(found, "resnet_lower")
    # A minus B by seed: -2, -1.9, -1.8; Student's t of 2 degrees is 4.3027.
    assert lower.estimate == pytest.approx(-1.9) and lower.n == 3
    assert (
        lower.low == pytest.approx(-1.9 - 4.3027 * 0.1 / 3**0.5, abs=1e-4)
        and lower.word == "agrees"
    )
    assert lower.arms["B"].readings["1"] == (7.1, False)
    assert (
        lower.seconds == 180.0 and found.seconds == 180.0
    )  # claims share runs, whose time counts once
    assert claim_of(found, "resnet_large").word == results.NOT_RUN
    assert found.machines == ["a machine, 2 cores"] and "jax" in found.versions[0]
    assert found.code == {"c0dec0dec0de": 6} and "code c0dec0dec0de" in wording.made_with(found)


def test_markdown_has_the_figures_of_the_results(sweep):
    exit_code(report.cli, str(sweep))
    text = (sweep / "report.md").read_text()
    found = read(sweep)
    assert text == markdown.markdown(found, ".")
    (line,) = [line for line in text.splitlines() if "`resnet_lower`" in line]
    *cells, links = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells == [
        "`resnet_lower` The error is lower. (ResNet Table 6)",
        "**agrees**",
        "−1.90 points [−2.15, −1.65]",
        "−1.78 points; 8.75 and 6.97 %",
        "desk",
        "3",
        "3 min",
    ]
    assert [re.findall(r"\[(\d)\]", arm) for arm in links.split("; ")] == [["0", "1", "2"]] * 2
    assert "- Not run: `resnet_large`." in text and "- Made with a machine, 2 cores." in text
    assert (
        "| ×0.536 [×0.461, ×0.624] | ×0.167; six times sooner |" in text
    )  # 5/10, 5/9 and 5/9 of the images


@pytest.mark.parametrize(
    "claim", ["resnet_sooner", "resnet_lower", "resnet_responses", "resnet_small"]
)
def test_every_claim_is_in_every_form_with_the_same_figures(sweep, claim):
    exit_code(report.cli, str(sweep))
    found = claim_of(read(sweep), claim)
    for name in ("report.md", "report.html"):
        text = (sweep / name).read_text()
        assert (
            wording.ours(found) and wording.ours(found) in text and wording.interval(found) in text
        )
        assert found.word in text and found.source in text


def test_a_committed_file_gives_the_same_page(sweep, tmp_path):
    exit_code(report.cli, str(sweep))
    page_before, table = (sweep / "report.html").read_bytes(), (sweep / "report.md").read_bytes()
    assert exit_code(report.cli, str(sweep / "results.json")) in (None, 0)
    assert (sweep / "report.html").read_bytes() == page_before and (
        sweep / "report.md"
    ).read_bytes() == table
    far = tmp_path / "far"
    far.mkdir()
    shutil.copy(sweep / "results.json", far / "desk.json")
    assert exit_code(report.cli, str(far / "desk.json")) in (
        None,
        0,
    )  # where there are no runs, there are no links
    assert (
        'href="' not in (far / "report.html").read_text()
        and "](" not in (far / "report.md").read_text()
    )
    assert (
        re.sub(r'<a href="[^"]*">(.*?)</a>', r"\1", page_before.decode())
        == (far / "report.html").read_text()
    )


@pytest.mark.parametrize(
    ("form", "link"), [("report.html", 'href="([^"]*)"'), ("report.md", r"\]\(([^)]*)\)")]
)
def test_links_lead_to_the_runs(sweep, tmp_path, form, link):
    sweep = sweep.rename(tmp_path / "50% of #1 (new)")
    exit_code(report.cli, str(sweep), f"--out={tmp_path / 'elsewhere'}")
    links = set(re.findall(link, (tmp_path / "elsewhere" / form).read_text()))
    assert len(links) == 6 and all(not link.startswith("/") for link in links)
    assert all(
        (tmp_path / "elsewhere" / urllib.parse.unquote(link) / "metrics.jsonl").is_file()
        for link in links
    )


def test_many_verdicts_by_chance_are_said_to_be_so(sweep):
    exit_code(report.cli, str(sweep))
    for form in ("report.md", "report.html"):  # of four claims one is exact
        assert (
            "3 of them rest on random seeds, and each verdict stands alone"
            in (sweep / form).read_text()
        )


def test_what_is_not_finished_is_counted_and_named(tmp_path, own_claims, capsys):
    jobs = write_sweep(tmp_path / "s", {("A", 0): "failed", ("B", 1): "stopped"})
    (tmp_path / "s" / f"{jobs[2].id}.json").unlink()
    change(tmp_path / "s" / f"{jobs[5].id}.json", outcome="running", exit_code=None)
    exit_code(report.cli, str(tmp_path / "s"))
    output = capsys.readouterr().out
    assert "6 runs: 2 done, 1 failed, 1 not started, 1 stopped, 1 under way or killed" in output
    for form in (output, (tmp_path / "s/report.md").read_text().replace("Not f", "not f")):
        assert (
            f"not finished (failed): {jobs[0].id}" in form
            and f"(not started): {jobs[2].id}" in form
        )
        assert f"(stopped): {jobs[4].id}" in form and f"(under way or killed): {jobs[5].id}" in form
    written = (tmp_path / "s/report.html").read_text()
    assert "4 of its 6 runs are not finished" in written and f'href="./{jobs[0].id}.log"' in written
    found = claim_of(read(tmp_path / "s"), "resnet_lower")
    assert (found.word, found.n, found.estimate) == ("undecided", 0, None)
    assert found.arms["A"].readings.keys() == {"1"}


def test_a_run_whose_folder_was_removed_counts_as_not_started(sweep):
    record = next(sweep.glob("resnet-*.json"))
    shutil.rmtree(record.with_suffix(""))
    exit_code(report.cli, str(sweep))
    found = read(sweep)
    assert found.outcomes[record.stem] == "not started" and found.seconds == 150.0
    for form in ("report.html", "report.md"):
        linked = set(re.findall(r"\./(resnet-\w+)", (sweep / form).read_text()))
        assert linked == found.outcomes.keys() - {record.stem}


def test_long_lists_are_cut_in_markdown_and_whole_on_the_page(
    tmp_path, own_claims, capsys, monkeypatch
):
    jobs = write_sweep(tmp_path / "s", dict.fromkeys([("A", 0), ("A", 1), ("A", 2)], "stopped"))
    monkeypatch.setattr(markdown, "SHOWN", 2)
    exit_code(report.cli, str(tmp_path / "s"))
    line = f"ot finished (stopped): {jobs[0].id}, {jobs[1].id} and 1 more"
    assert line in capsys.readouterr().out and line in (tmp_path / "s/report.md").read_text()
    assert f"{jobs[2].id}.log" in (tmp_path / "s/report.html").read_text()


def test_runs_of_different_code_are_said_to_be_so(sweep):
    first, second, *_ = sweep.glob("resnet-*.json")
    change(first, source="f00d" * 16)
    change(second, source="")
    lines = wording.made_with(gather.gather(sweep, sweep))
    (line,) = [line for line in lines if line.startswith("code ")]
    assert sorted(line.removeprefix("code ").split("; ")) == [
        "c0dec0dec0de, of 4 runs",
        "f00df00df00d, of 1 run",
        "not noted, of 1 run",
    ]


def test_a_sweep_that_has_not_begun_has_a_report(sweep, capsys):
    for path in [*sweep.iterdir()]:
        if path.name != "sweep.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    exit_code(report.cli, str(sweep))
    assert (
        "1 claim run: 1 agree, 0 disagree, 0 undecided. 4 not run." in capsys.readouterr().out
    )  # the exact one
    assert (
        "- Made with python 3" in (sweep / "report.md").read_text()
    )  # which the report computes itself
    assert "<h2>Figures</h2>" not in (sweep / "report.html").read_text()


def test_the_papers_figure_is_that_of_the_scale_where_it_has_one(sweep, monkeypatch):
    lower = CLAIMS["resnet"]["resnet_lower"]
    other = lower._replace(scales={"desk": DESK["desk"]._replace(paper_delta=-2.85)})
    monkeypatch.setattr(
        catalogue, "claims_of", lambda: {"resnet": {**CLAIMS["resnet"], "resnet_lower": other}}
    )
    exit_code(report.cli, str(sweep))
    found = claim_of(read(sweep), "resnet_lower")
    assert found.paper_delta == -2.85 and "−2.85 points; 8.75" in (sweep / "report.md").read_text()


def test_a_run_that_diverged_counts_as_guessing(tmp_path, own_claims):
    jobs = write_sweep(tmp_path / "s", {("A", 0): "diverged"})
    exit_code(report.cli, str(tmp_path / "s"))
    found = read(tmp_path / "s")
    assert claim_of(found, "resnet_lower").arms["A"].readings["0"].value == 90.0
    assert found.outcomes[jobs[0].id] == "diverged"


def test_runs_of_a_grid_are_listed(sweep):
    job = plan.make_job("configs/resnet.py", {"optim.lr": 0.5, "seed": 0})
    write_job(sweep, job, rows(0, 0))
    asked = json.loads((sweep / "sweep.json").read_text())
    asked["jobs"].append({"id": job.id, "config": job.config, "overrides": dict(job.overrides)})
    (sweep / "sweep.json").write_text(json.dumps(asked))
    exit_code(report.cli, str(sweep))
    line = f"| [{job.id}](./{job.id}) | optim.lr=0.5, seed=0 | 8.00 % | 8.00 % |"
    assert (
        line in (sweep / "report.md").read_text()
        and "Other runs" in (sweep / "report.html").read_text()
    )


# --- its words ------------------------------------------------------------------------------------


def judged(claim: Claim, *arms: list[Any]) -> ClaimResult:
    """A result of a claim at scale desk from readings by arm and seed; those in lists are censored."""
    readings = {
        name: {
            seed: Reading(value[0], True) if isinstance(value, list) else Reading(value)
            for seed, value in enumerate(arm)
            if value is not None
        }
        for name, arm in zip(claim.arms, arms, strict=True)
    }
    verdict = verdicts.judge(claim, readings)
    by_arm = {
        name: arm._asdict() | {"readings": {str(seed): r for seed, r in readings[name].items()}}
        for name, arm in verdict.arms.items()
    }
    about = {"name": "c", "label": "c", "title": "t", "scale": "desk", "runs": {}, "seconds": 0}
    fields = claim._asdict() | about | verdict._asdict() | {"arms": by_arm}
    fields["scales"] = list(claim.scales)
    return only(ClaimResult(**fields)).claims[0]


def only(*claims: ClaimResult) -> Results:
    """Results of these claims, as read from a file."""
    found = Results("sweep", ".", [], [], {}, [], claims=claims)
    return results.from_json(results.to_json(found))


@pytest.mark.parametrize(
    ("name", "arms", "interval"),
    [
        ("resnet_responses", ([1.0, 1.1, 1.2], [1.0, 1.11, 1.22]), "[−0.00686, +0.0269] (90 %)"),
        (
            "resnet_responses",
            ([1.0, 1.1, 1.2], [9.0, 9.11, 9.22]),
            "[+7.99, +8.03]",
        ),  # disagrees, by 95 %
        ("resnet_lower", ([5.0], [3.0]), "(one seed)"),
        ("resnet_lower", ([5.0, 6.0], [3.0, 4.0]), "[−∞, ∞]"),  # two that are equal say nothing
        ("resnet_lower", ([5.0] * 6, [3.0] * 6), "[−2.00, −2.00]"),
        ("resnet_sooner", ([[100.0], [110.0], 90.0], [10.0, 11.0, 9.5]), "[×0, ×0.110]"),
        ("resnet_sooner", ([10.0, 11.0, 9.5], [[100.0], [110.0], 90.0]), "[×9.09, ∞]"),
        ("resnet_lower", ([5.0, None], [None, 3.0]), ""),
    ],
)
def test_an_interval_says_what_it_rests_on(name, arms, interval):
    assert wording.interval(judged(CLAIMS["resnet"][name], *arms)) == interval


def test_an_exact_claim_has_no_interval(sweep):
    small = claim_of(gather.gather(sweep, sweep), "resnet_small")
    assert small.low == small.high == small.estimate and wording.interval(small) == ""


def test_signs_are_explained_on_the_page_and_in_markdown(sweep):
    exit_code(report.cli, str(sweep))
    assert all(
        "the true figure is" not in (sweep / form).read_text()
        for form in ("report.md", "report.html")
    )
    slow = next(
        path
        for path in sweep.glob("*/metrics.jsonl")
        if '"train/top1_error": 83.0' in path.read_text()
    )
    slow.write_text(
        re.sub('"train/top1_error": [0-9.]+', '"train/top1_error": 83.0', slow.read_text())
    )  # A's first
    exit_code(report.cli, str(sweep))
    assert "the true figure is at most this (≤)." in (sweep / "report.md").read_text()
    assert (
        "the true figure is at least this (≥), at most this (≤)."
        in (sweep / "report.html").read_text()
    )


def test_the_signs_of_censored_figures_are_explained_where_they_stand():
    of = CLAIMS["resnet"]["resnet_sooner"]
    none, below = judged(of, [100.0, 90.0], [10.0, 11.0]), judged(of, [[100.0], 90.0], [10.0, 11.0])
    both = judged(of, [[100.0], 90.0], [10.0, [11.0]])
    start = "Some runs never reached what is asked; the true figure is "
    assert wording.legend(only(none), arms=True) == []
    assert wording.legend(only(none, below), arms=False) == [f"{start}at most this (≤)."]
    assert wording.legend(only(both), arms=True) == [
        f"{start}at least this (≥), on either side of this (?)."
    ]


@pytest.mark.parametrize(
    ("name", "arms", "texts"),
    [
        (
            "resnet_lower",
            ([50.0, 52.0, 99.0], [40.0, 43.0, None]),
            ("A<b> 51.0</b> (50.0, 52.0; not in every arm: 99.0)",),
        ),
        (
            "resnet_sooner",
            ([4.0, 16.0], [1.0, 4.0]),
            ("A<b> 8.00</b> (4.00, 16.0)", "B<b> 2.00</b> (1.00, 4.00)"),
        ),
        (
            "resnet_lower",
            ([[50.0], 52.0], [40.0, 43.0]),
            ("A<b> ≥ 51.0</b> (≥ 50.0, 52.0)", "B<b> 41.5</b>"),
        ),
        ("resnet_lower", ([50.0, None], [None, 43.0]), ("A<b></b> (not in every arm: 50.0)",)),
    ],
)
def test_the_means_of_arms_go_with_the_estimate(name, arms, texts):
    claim = judged(CLAIMS["resnet"][name], *arms)
    found = "; ".join(page._arm(arm, figures, claim, None) for arm, figures in claim.arms.items())
    assert all(text in found for text in texts), found


def test_what_is_expected_of_two_arms_says_so():
    known = catalogue.all_claims()
    dropout = judged(known["dropout_between_mlpconvs"], [3.0, 3.1], [2.0, 2.1])
    assert wording.expected(dropout) == "with : without at most ×0.8"
    assert wording.expected(judged(known["densenet_feature_reuse"], [0.3, 0.4])) == "at least 0.1"
    difference = judged(
        known["dropout_between_mlpconvs"]._replace(ratio=False, bound=-0.5), [3.0, 3.1], [2.0, 2.2]
    )
    assert (
        wording.expected(difference) == "with − without at most −0.5"
        and wording.ours(difference) == "−0.950 points"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(999.6, "1,000"), (999.4, "999"), (-999.6, "−1,000"), (12345.6, "12,346"), (0.12345, "0.123")],
)
def test_numbers_have_three_digits(value, text):
    assert wording.number(value) == text


# --- bad input ------------------------------------------------------------------------------------


def refusal(capsys, *arguments: str) -> str:
    """The one line on stderr of a command line that is refused."""
    assert exit_code(report.cli, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_without_runs_there_is_no_report(tmp_path, capsys):
    assert "there is no sweep and no run in" in refusal(capsys, str(tmp_path))
    assert "there is no folder" in refusal(capsys, str(tmp_path / "missing"))
    assert "cnn_papers.report RUNS" in refusal(capsys)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"format": 1', "holds no results of a report"),
        ("[1, 2]", "holds no results of a report"),
        ('{"format": 1}', "has format 1"),
        ('{"format": 2, "kind": "sweep"}', "holds no results of a report"),
        ('{"format": 2, "kind": "other"}', "holds no results of a report"),
    ],
)
def test_a_file_that_is_no_results_is_refused(tmp_path, capsys, content, why):
    (tmp_path / "desk.json").write_text(content)
    assert why in refusal(capsys, str(tmp_path / "desk.json"))


@pytest.mark.parametrize(
    ("key", "elements"),
    [
        ("claims", [{}]),
        ("claims", [None]),
        ("others", [{}]),
        ("figures", [{"title": "t"}]),
        ("claims", 3),
    ],
)
def test_results_that_lack_something_are_refused(sweep, capsys, key, elements):
    exit_code(report.cli, str(sweep))
    capsys.readouterr()
    change(sweep / "results.json", **{key: elements})
    assert "holds no results of a report" in refusal(capsys, str(sweep / "results.json"))


def test_a_claim_without_its_verdict_is_refused(sweep, capsys):
    exit_code(report.cli, str(sweep))
    capsys.readouterr()
    listed = json.loads((sweep / "results.json").read_text())["claims"]
    del listed[0]["estimate"]
    change(sweep / "results.json", claims=listed)
    assert "estimate of claims" in refusal(capsys, str(sweep / "results.json"))


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"seeds": 3}', '{"seeds": "x", "claims": {}, "jobs": []}']
)
def test_a_damaged_sweep_is_refused(sweep, capsys, content):
    (sweep / "sweep.json").write_text(content)
    assert "sweep.json" in refusal(capsys, str(sweep))


def test_damage_to_a_run_is_named(sweep, capsys):
    record = next(sweep.glob("resnet-*.json"))
    whole = record.read_text()
    record.write_text(whole[:20])
    assert str(record) in refusal(capsys, str(sweep))
    record.write_text(whole)
    metrics = record.with_suffix("") / "metrics.jsonl"
    metrics.write_text("{}}\n" + metrics.read_text())
    assert str(metrics) in refusal(capsys, str(sweep))
    metrics.unlink()
    line = refusal(capsys, str(sweep))
    assert f"claim resnet_sooner: run {record.stem}: a metric needs" in line


def test_a_claim_that_is_gone_is_named(sweep, capsys):
    asked = json.loads((sweep / "sweep.json").read_text())
    asked["claims"]["bygone"] = "desk"
    (sweep / "sweep.json").write_text(json.dumps(asked))
    assert "bygone" in refusal(capsys, str(sweep))


# --- figures --------------------------------------------------------------------------------------


def test_curves_say_how_many_of_their_seeds_ended_early(tmp_path, own_claims):
    write_sweep(tmp_path / "s", {("A", 0): "diverged"})
    curves, *_ = gather.gather(tmp_path / "s", tmp_path).figures
    assert "1 of its 6 runs diverged" in curves.text


def test_figures_follow_from_the_metrics(sweep):
    found = gather.gather(sweep, sweep).figures
    assert [figure.title for figure in found] == ["ResNet", "ResNet: responses"]
    (curve,) = found[0].panels  # of the claim of training; the other claim is of an end alone
    assert curve.level == 25.0 and [line.name for line in curve.series] == ["A", "B"]
    line = curve.series[1]
    batch_size = plan.load(plan.make_job("configs/resnet.py", {"seed": 0})).batch_size
    assert line.x[0] == 10 * batch_size and line.mean[0] == pytest.approx(75.0)
    assert (line.low[0], line.high[0]) == (pytest.approx(74.0), pytest.approx(76.0))
    (layers,) = found[1].panels
    assert layers.series[0].mean == pytest.approx([1.1, 1.2, 2.0])  # conv1, conv2, conv10


def test_what_runs_were_analysed_by_is_drawn_though_no_claim_is_judged_by_it(sweep, monkeypatch):
    fewer = {name: claim for name, claim in CLAIMS["resnet"].items() if name != "resnet_responses"}
    monkeypatch.setattr(catalogue, "claims_of", lambda: {"resnet": fewer})
    asked = json.loads((sweep / "sweep.json").read_text())
    del asked["claims"]["resnet_responses"]
    (sweep / "sweep.json").write_text(json.dumps(asked))
    found = gather.gather(sweep, sweep).figures
    assert [figure.title for figure in found] == ["ResNet", "ResNet: response std"]
    assert found[1].panels[0].series[0].mean == pytest.approx([1.1, 1.2, 2.0])


# --- the page -------------------------------------------------------------------------------------


class Reader(html.parser.HTMLParser):
    """What a page refers to, and whether its elements are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.heads: list[dict[str, str | None]] = []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.addresses += [
            values[key] or ""
            for key in ("src", "href", "srcset", "data", "action")
            if key in values
        ]
        if tag in ("img", "svg"):
            self.images.append(values)
        if tag == "th":
            self.heads.append(values)
        assert tag not in ("script", "link", "iframe", "object", "base")
        if tag not in ("meta", "img", "br", "line", "circle", "rect", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("line", "circle", "rect", "path"):
            assert self.open.pop() == tag


def test_the_page_is_whole_and_stands_alone(sweep):
    exit_code(report.cli, str(sweep))
    text = (sweep / "report.html").read_text()
    reader = Reader()
    reader.feed(text)
    assert not reader.open
    assert all(address.startswith(("data:image/", "./resnet-")) for address in reader.addresses)
    assert "http" not in re.sub('"data:[^"]*"|http-equiv', "", text) and "url(" not in text
    assert (
        all(image.get("alt") or image.get("aria-label") for image in reader.images)
        and len(reader.images) == 6
    )
    assert all(head["scope"] in ("col", "row", "rowgroup") for head in reader.heads)
    assert "B &amp; C reach 25 % &lt;sooner&gt;." in text and "default-src 'none'" in text


def browser() -> str:
    found = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if found is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    return found


def browse(place: pathlib.Path, *arguments: str) -> str:
    """Opens the page headless, with no network to reach; what Chromium prints."""
    options = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--disable-background-networking",
    )
    nowhere = "--host-resolver-rules=MAP * ~NOTFOUND"
    profile = f"--user-data-dir={place.parent / 'profile'}"
    line = [browser(), *options, nowhere, profile, *arguments, place.as_uri()]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=True).stdout


def addresses_asked(place: pathlib.Path, *arguments: str) -> list[str]:
    """What a page asks the network for; the browser's own services have no origin."""
    log = place.with_suffix(".log")
    browse(place, f"--log-net-log={log}", *arguments)
    events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    return [
        event["url"]
        for event in events
        if event.get("initiator", "not an origin") != "not an origin"
    ]


def test_a_browser_shows_the_page_and_asks_for_nothing(sweep, tmp_path):
    browser()
    exit_code(report.cli, str(sweep))
    shot = sweep / "shot.png"
    assert (
        addresses_asked(sweep / "report.html", f"--screenshot={shot}", "--window-size=1200,1600")
        == []
    )
    image = cv2.imread(str(shot))
    assert image.shape[:2] == (1600, 1200)
    words, drawing = image[:400], image[800:]
    assert 0.01 < (words < 128).mean() < 0.3 and len(np.unique(drawing.reshape(-1, 3), axis=0)) > 20
    (tmp_path / "other.html").write_text(
        '<img src="http://127.0.0.1:9/x.png">'
    )  # such a page would be noticed
    assert "http://127.0.0.1:9/x.png" in addresses_asked(tmp_path / "other.html", "--dump-dom")


def test_a_browser_prints_the_page(sweep):
    browser()
    exit_code(report.cli, str(sweep))
    browse(
        sweep / "report.html", f"--print-to-pdf={sweep / 'report.pdf'}", "--no-pdf-header-footer"
    )
    printed = (sweep / "report.pdf").read_bytes()
    assert printed.startswith(b"%PDF") and len(printed) > 20_000


# --- the README -----------------------------------------------------------------------------------


def test_the_readme_shows_the_committed_results():
    files = sorted((ROOT / "results").glob("*.json"))
    if not files:
        pytest.skip("no results are committed yet")
    readme = (ROOT / "README.md").read_text()
    for path in files:
        assert markdown.markdown(results.read(path)) in readme, (
            f"README: put in the table of {path.name}"
        )
