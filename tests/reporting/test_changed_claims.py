"""Claims that have changed since they were run, and the paper's numbers beside other data."""

import pathlib
import re
from typing import Any

import pytest
from support.commands import exit_code
from support.written_sweeps import CLAIMS, DESK, claim_of, read, rows, write_job

from cnn_papers import report
from cnn_papers.claims import catalogue, definitions, plan
from cnn_papers.claims.plan import EXACT
from cnn_papers.facts import Claim, Scale
from cnn_papers.reporting import gather, results, results_file, wording
from cnn_papers.runs import workdir
from cnn_papers.sweeps import request

DATA_SETS = "CIFAR-10|ILSVRC|ImageNet|MNIST|VOC"


@pytest.fixture
def change_claim(monkeypatch):
    """Replaces fields of one of the claims that tests share; None removes it."""

    def change(name: str, **fields: Any) -> None:
        claims = {**CLAIMS["resnet"]}
        claims[name] = claims[name]._replace(**fields)
        if not fields:
            del claims[name]
        monkeypatch.setattr(catalogue, "claims_of", lambda: {"resnet": claims})

    return change


def texts_of(file: pathlib.Path) -> list[str]:
    """The two forms of the report of a file."""
    assert exit_code(report.cli, str(file)) in (None, 0)
    return [(file.parent / name).read_text() for name in ("report.md", "report.html")]


@pytest.mark.parametrize(
    "fields",
    [
        {"metric": "last('val/top5_error')"},
        {"expect": "higher"},
        {"arms": {"A": {"optim.lr": 0.01}, "B": {"optim.lr": 0.04}}},
        {"scales": {"gpu": DESK["desk"]}},
    ],
)
def test_a_claim_that_changed_loses_its_verdict(sweep, change_claim, capsys, fields):
    exit_code(report.cli, str(sweep))
    change_claim("resnet_lower", **fields)
    capsys.readouterr()
    text, page = texts_of(sweep / "results.json")
    said = "3 claims run: 3 agree, 0 disagree, 0 undecided. 1 to be asked again. 1 not run."
    assert said in capsys.readouterr().out and said in text and said in page
    (line,) = [line for line in text.splitlines() if "`resnet_lower`" in line]
    assert [cell.strip() for cell in line.split("|")][2:4] == ["**to be asked again**", ""]
    assert "<h2>To be asked again</h2>" in page and "has changed since its runs" in page
    assert claim_of(read(sweep), "resnet_lower").word == "agrees"  # the file keeps what it holds


def test_a_claim_that_changed_or_is_gone_loses_its_figures(sweep, change_claim):
    exit_code(report.cli, str(sweep))

    def illustrated(found: results.Results) -> set[str]:
        return {claim for figure in found.figures for claim in figure.claims}

    assert illustrated(gather.of_today(read(sweep))) == {"resnet_sooner", "resnet_responses"}
    change_claim("resnet_sooner", metric="images_to('train/top1_error', 1.0)")
    assert illustrated(gather.of_today(read(sweep))) == {"resnet_responses"}
    change_claim("resnet_responses")  # this one only
    assert illustrated(gather.of_today(read(sweep))) == {"resnet_sooner"}


def test_a_claim_in_other_words_keeps_its_verdict(sweep, change_claim):
    exit_code(report.cli, str(sweep))
    before = claim_of(gather.of_today(read(sweep)), "resnet_lower")
    change_claim("resnet_lower", statement="Less is erred.", source="Table 7", paper_delta=-1.5)
    now = claim_of(gather.of_today(read(sweep)), "resnet_lower")
    assert now == before._replace(statement="Less is erred.", source="Table 7", paper_delta=-1.5)


def test_a_claim_that_is_gone_is_left_out(sweep, change_claim, capsys):
    exit_code(report.cli, str(sweep))
    change_claim("resnet_lower")
    capsys.readouterr()
    assert "resnet_lower" not in texts_of(sweep / "results.json")[0]
    assert "left out, no claims any more: resnet_lower\n" in capsys.readouterr().out


def test_runs_of_another_recipe_answer_nothing(sweep, monkeypatch):
    """The recipe changed behind the same overrides, so that runs have the ids they had."""
    load = plan.load

    def changed(job: plan.Job) -> Any:
        config = load(job)
        config.optim.weight_decay *= 2
        return config

    monkeypatch.setattr(plan, "load", changed)
    exit_code(report.cli, str(sweep))
    words = {claim.name: claim.word for claim in read(sweep).claims}
    trained = ("resnet_sooner", "resnet_lower", "resnet_responses")
    assert words == dict.fromkeys(trained, "to be asked again") | {
        "resnet_small": "agrees",  # needs no run
        "resnet_large": "not run",
    }
    assert not any(figure.claims for figure in read(sweep).figures)
    # It is so from the folder and from the file.
    again = {claim.name: claim.word for claim in gather.of_today(read(sweep)).claims}
    assert again == words


def test_the_committed_verdicts_are_of_claims_as_they_are_now():
    for path in (pathlib.Path(__file__).parents[2] / "results").glob("desk*.json"):
        recorded = results_file.read(path)
        asked = {claim.name: claim.asked for claim in recorded.claims}
        for now in gather.of_today(recorded).claims:
            if now.word in results.WORDS:
                assert definitions.digest(catalogue.find(now.name), now.scale) == asked[now.name]


# --- the paper's numbers --------------------------------------------------------------------------


def paper_of(claim: Claim, scale: str) -> str:
    return wording.paper(gather.without_verdict("resnet", "c", claim, scale))


def test_the_papers_difference_stands_only_beside_results_on_its_data():
    cifar = Scale({"config": "configs/resnet.py:cifar10"})
    claim = Claim(
        "s",
        "Table 1",
        {"A": {}, "B": {"optim.lr": 0.3}},
        "last('val/top1_error')",
        "lower",
        "8 and 7 %",
        {
            "desk": DESK["desk"],
            "gpu": cifar,
            "paper": Scale({"config": "configs/resnet.py:imagenet2012"}, paper_delta=-3.0),
        },
        paper_delta=-1.0,
        paper_data="cifar10",
    )
    assert paper_of(claim, "desk") == "CIFAR-10: 8 and 7 %"  # on digits
    assert paper_of(claim, "gpu") == "−1 points; 8 and 7 %"
    assert paper_of(claim, "paper") == "−3 points; 8 and 7 %"
    named = claim._replace(paper="8 and 7 % on CIFAR-10")
    assert paper_of(named, "desk") == "8 and 7 % on CIFAR-10"
    assert paper_of(claim._replace(paper_delta=None), "desk") == "8 and 7 %"


def test_no_claim_shows_a_difference_beside_results_on_other_data():
    shown = []
    for name, claim in catalogue.all_claims().items():
        for scale in claim.scales:
            now = gather.without_verdict("resnet", name, claim, scale)
            if scale == EXACT or now.paper_delta is None:
                continue
            data = {plan.load(job).data.name for (job,) in plan.jobs(claim, scale, [0]).values()}
            own = claim.scales[scale].paper_delta is not None  # stated for the scale's data
            if not own and data != {claim.paper_data}:
                shown.append(f"{name} at {scale}: {data}, and the paper's is of {claim.paper_data}")
    assert shown == []


def test_the_papers_numbers_say_of_which_data_they_are_beside_results_on_others():
    unnamed = []
    for name, claim in catalogue.all_claims().items():
        if not re.search(r"\d %|\bpoints?\b", claim.paper) or re.search(DATA_SETS, claim.paper):
            continue
        for scale in {*claim.scales} - {EXACT}:
            data = {plan.load(job).data.name for (job,) in plan.jobs(claim, scale, [0]).values()}
            if data != {claim.paper_data}:
                unnamed.append(f"{name} at {scale}, on {data}: {claim.paper}")
    assert unnamed == []


def test_a_run_that_others_start_from_is_one_of_the_claim(tmp_path, monkeypatch):
    """Its time counts, it is no run of a grid, and its recipe is part of the question."""
    start = {"config": "configs/resnet.py", "optim.lr": 0.5}
    claim = CLAIMS["resnet"]["resnet_lower"]._replace(
        arms={"fresh": {"start": None}, "tuned": {}},
        scales={"desk": Scale({"config": "configs/resnet.py", "start": start})},
    )
    monkeypatch.setattr(catalogue, "claims_of", lambda: {"resnet": {"resnet_lower": claim}})
    asked = request.Request({"resnet_lower": "desk"}, "", {}, 3)
    jobs = request.jobs_of(asked)
    for job in jobs:
        write_job(tmp_path, job, rows(1 if job.start else 0, dict(job.overrides)["seed"]))
    request.write_request(tmp_path, asked, jobs)
    found = gather.gather(tmp_path, tmp_path)
    (result,) = found.claims
    assert (len(jobs), result.word, result.seconds) == (9, "agrees", 270.0)
    assert found.others == []
    of_start = jobs[1]
    assert jobs[2].start == of_start
    workdir.write_run(tmp_path / of_start.id, plan.load(jobs[0]), {"machine": ""})
    (result,) = gather.gather(tmp_path, tmp_path).claims
    assert result.word == results.ASK_AGAIN
