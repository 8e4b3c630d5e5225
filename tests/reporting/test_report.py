"""The report of a sweep: what it says of claims and runs, and what it refuses."""

import collections
import json
import pathlib
import re
import shutil
import urllib.parse

import pytest
from support.commands import exit_code
from support.written_sweeps import (
    CLAIMS,
    DESK,
    change,
    claim_of,
    read,
    rows,
    write_job,
    write_sweep,
)

from cnn_papers import report
from cnn_papers.claims import catalogue, plan
from cnn_papers.reporting import (
    asked_often,
    gather,
    grid_tests,
    markdown,
    results,
    results_file,
    wording,
)

ROOT = pathlib.Path(__file__).parents[2]


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


def test_markdown_has_the_values_of_the_results(sweep):
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
def test_every_claim_is_in_every_form_with_the_same_values(sweep, claim):
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


def test_committed_results_are_written_as_they_were_read():
    for path in (ROOT / "results").glob("desk*.json"):
        assert results_file.text(results_file.read(path)) == path.read_text()


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
        text = (sweep / form).read_text()
        assert "3 of them rest on random seeds, and each verdict stands alone" in text
        assert "about 0.15 of 3; 3 are decided" in text
        assert "If all 3 together may be wrong with 5 % (Holm’s correction), 3 stay decided" in text


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


def test_the_papers_value_is_that_of_the_scale_if_it_has_one(sweep, monkeypatch):
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
    test = {"step": 4, "test/protocol": "svm()", "test/split": "x", "test/top1_error": 7.5}
    write_job(sweep, job, [*rows(0, 0), test])
    asked = json.loads((sweep / "sweep.json").read_text())
    asked["jobs"].append({"id": job.id, "config": job.config, "overrides": dict(job.overrides)})
    (sweep / "sweep.json").write_text(json.dumps(asked))
    exit_code(report.cli, str(sweep))
    line = f"| [{job.id}](./{job.id}) | optim.lr=0.5, seed=0 | 8.00 % | 8.00 % |"
    assert (
        line in (sweep / "report.md").read_text()
        and "Other runs" in (sweep / "report.html").read_text()
    )
    for form in ("report.md", "report.html"):
        text = (sweep / form).read_text()
        assert grid_tests.CAPTION in text and "7.50 %" in text


def test_final_tests_of_a_grid_have_means_over_seeds_and_deviations():
    def run(seed, lr, error, *protocols, task="classify"):
        tests = [
            {
                "test/protocol": protocol,
                "test/top1_error": error,
                "test/mean_class_error": error + 1,
                "test/map": 50.0,
            }
            for protocol in protocols
        ]
        overrides = {"optim.lr": lr, "batch_size": 8, "seed": seed}
        return results.GridRun(f"{seed}", "c", overrides, tests=tests, task=task)

    runs = [run(0, 0.1, 10.0, "svm()"), run(1, 0.1, 13.0, "svm()", "ten_crop"), run(0, 0.2, 2.0)]
    assert grid_tests.table(runs) == [
        ("settings", "protocol", "runs", "top-1 error", "top-5 error", "top-1 error, mean of "
         "classes"),
        ("", "svm()", "2", "11.50 ± 2.12 %", "–", "12.50 ± 2.12 %"),
        ("", "ten_crop", "1", "13.00 %", "–", "14.00 %"),
    ]  # fmt: skip
    (_, first, second) = grid_tests.table([runs[0], run(0, 0.2, 2.0, "svm()")])
    assert (first[0], second[0]) == ("optim.lr=0.1", "optim.lr=0.2")
    (header, row) = grid_tests.table([run(0, 0.1, 1.0, "svm()", task="multilabel")])
    assert "mean of classes" not in " ".join(header) and "50.00" in row[3]
    assert grid_tests.table([run(0, 0.1, 1.0)]) == []


def test_signs_are_explained_on_the_page_and_in_markdown(sweep):
    exit_code(report.cli, str(sweep))
    assert all(
        "the true value is" not in (sweep / form).read_text()
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
    assert "the true value is at most this (≤)." in (sweep / "report.md").read_text()
    assert (
        "the true value is at least this (≥), at most this (≤)."
        in (sweep / "report.html").read_text()
    )


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
        ('{"format": 2}', "has format 2"),
        ('{"format": 3, "kind": "sweep"}', "holds no results of a report"),
        ('{"format": 3, "kind": "other"}', "holds no results of a report"),
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


# --- the pages of results -------------------------------------------------------------------------


def test_docs_show_the_committed_results():
    report = gather.of_today(results_file.read(ROOT / "results" / "desk.json"))
    summary = markdown.markdown(report).rpartition("\n\n")[2]
    page = (ROOT / "docs" / "results.md").read_text()
    assert summary in page, "put the lines below the table in docs/results.md"


def test_docs_show_the_committed_runs_on_cifar10():
    report = results_file.read(ROOT / "results" / "cifar10.json")
    page = (ROOT / "docs" / "results.md").read_text()
    for run in report.singles:
        errors = {test["test/split"]: test["test/top1_error"] for test in run.tests}
        held_out, tested = errors["cifar10[train[45000:]]"], errors["cifar10[test]"]
        steps = f"{run.steps:,} of {run.total_steps:,}"
        assert f"| {steps} | {held_out:.2f} % | {tested:.2f} % |" in page


def test_docs_show_the_committed_ledger():
    report = gather.of_ledger(ROOT / "results" / "ledger.jsonl")
    page = (ROOT / "docs" / "results.md").read_text()
    # Those on the verdicts; the others are of many machines.
    of_verdicts = [wording.verdicts(report), *asked_often.chance(report)]
    assert "\n".join(f"- {line}" for line in of_verdicts) in page, "put them in docs/results.md"


def test_the_readme_counts_the_latest_verdicts():
    committed = results_file.read(ROOT / "results" / "desk.json")
    claims = gather.latest(committed, ROOT / "results" / "ledger.jsonl").values()
    count = collections.Counter(claim.word for claim in claims)
    words = " ".join((ROOT / "README.md").read_text().split())
    assert (
        f"papers' {len(claims)} claims, {count['agrees']} agree, {count['disagrees']} disagree and "
        f"{count['undecided']} are undecided"
    ) in words
    assert f"{count[results.ASK_AGAIN]} are to be asked again" in words
    assert f"{count[results.NOT_RUN]} were not asked" in words
