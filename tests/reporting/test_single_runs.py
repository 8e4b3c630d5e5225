"""The report of single runs: against their papers if comparable, and which are not finished."""

import json
import pathlib
import re
from typing import Any

from support.commands import exit_code

from cnn_papers import report
from cnn_papers.claims import plan
from cnn_papers.reporting import gather, markdown, page, results_file, wording
from cnn_papers.runs import workdir


def write_run(
    folder: pathlib.Path, config: dict[str, Any], facts: dict[str, Any] | None = None
) -> None:
    """A run of one evaluation, after its first step."""
    folder.mkdir()
    workdir.write_run(folder, config, facts or {})
    (folder / "metrics.jsonl").write_text(
        '{"step": 1, "val/top1_error": 9.0, "val/top5_error": 1.0}\n'
    )


def test_a_single_run_is_a_report_too(tiny_run, tmp_path):
    assert exit_code(report.cli, str(tiny_run), f"--out={tmp_path}") in (None, 0)
    found = results_file.read(tmp_path / "results.json")
    (run,) = found.singles
    assert (run.config, run.data, run.last["step"]) == (
        "configs/resnet.py:desk",
        "digits",
        3,
    )
    assert workdir.read_run(tiny_run).total_steps == 3 and found.outcomes == {run.id: "done"}
    assert [panel.y for panel in found.figures[0].panels] == ["loss", "top-1 error (%)"]
    assert found.machines == [workdir.describe_machine()]
    text = (tmp_path / "report.md").read_text()
    assert f"{run.last['val/top1_error']:.2f} % in the last evaluation" in text


def test_a_run_of_the_papers_recipe_is_set_against_the_paper(tmp_path):
    config = plan.load(
        plan.make_job("configs/nin.py:cifar10", {"seed": 7, "eval.every_epochs": 1.0})
    )
    for name, recipe in (("papers", "cifar10"), ("other", "desk")):
        config.recipe = recipe
        write_run(tmp_path / name, config)
    found = gather.gather(tmp_path, tmp_path)
    other, papers = found.singles
    assert papers.same and not other.same and len(papers.reported) >= 1
    paper = papers.reported[0].value
    assert wording.against_paper(papers.reported[0])[2:6] == (
        f"{paper:g}",
        "single_view",
        "9.00",
        f"{9 - paper:+.2f}".replace("-", "−"),
    )
    assert wording.against_paper(other.reported[0])[4:6] == ("–", "–")
    text = page.html(found, "runs")
    assert "its recipe on its data" in text and "no difference to take" in text
    assert found.machines == ["unknown"]


def test_each_result_is_set_beside_the_final_test_that_measures_like_it(tmp_path):
    config = plan.load(plan.make_job("configs/googlenet.py:imagenet2012", {}))
    write_run(tmp_path / "run", config)
    with (tmp_path / "run/metrics.jsonl").open("a") as file:
        for protocol, error in (("single_view", 10.5), ("ten_crop", 9.5)):
            test = {"test/protocol": protocol, "test/split": "imagenet2012[validation]"}
            errors = {"test/top1_error": 30.0, "test/top5_error": error}
            file.write(json.dumps({"step": 1, **test, **errors}) + "\n")
    (run,) = gather.gather(tmp_path / "run", tmp_path).singles
    assert [wording.against_paper(result)[1:6] for result in run.reported] == [
        ("1 crop", "10.07", "single_view", "10.50", "+0.43"),
        ("10 crops", "9.15", "ten_crop", "9.50", "+0.35"),
        ("144 crops", "7.89", "crops_144", "–", "–"),
        ("144 crops, 7 models; a run is of one", "6.67", "–", "–", "–"),
    ]


def test_a_run_that_changes_the_papers_recipe_is_not_set_against_the_paper(tmp_path):
    job = plan.make_job("configs/nin.py:cifar10", {"model.width": 0.1, "total_steps": 5, "seed": 7})
    write_run(tmp_path / "run", plan.load(job))
    found = gather.gather(tmp_path / "run", tmp_path)
    (run,) = found.singles
    assert run.same and run.reported and all(result.ours is None for result in run.reported)
    assert (
        "this run changes model.width, total_steps: there is no difference to take"
        in markdown.markdown(found)
    )


def test_runs_that_are_not_finished_are_counted_and_named(tmp_path, capsys):
    config = plan.load(plan.make_job("configs/resnet.py", {}))
    write_run(tmp_path / "done", config, {"total_steps": 1})
    write_run(tmp_path / "part", config, {"total_steps": 1200})
    noted = config.copy_and_resolve_references()  # by versions that note it in the config only
    noted.total_steps = 5
    write_run(tmp_path / "begun", noted)
    (tmp_path / "begun/metrics.jsonl").unlink()
    write_run(tmp_path / "older", config)
    exit_code(report.cli, str(tmp_path))
    output, text = capsys.readouterr().out, (tmp_path / "report.md").read_text()
    for form in (
        output,
        text.replace("Not f", "not f"),
        (tmp_path / "report.html").read_text().replace("Not f", "not f"),
    ):
        assert "4 runs: 1 done, 1 of unknown length, 2 under way, stopped or diverged" in form
        names = re.sub("<.*?>", "", form)
        assert "not finished (under way, stopped or diverged): begun, part" in names
        assert "not finished (of unknown length): older" in names
    assert (
        "configs/resnet.py:desk on digits, step 1 of 1,200: "
        "top-1 error 9.00 % in the last evaluation" in text
    )
    assert (
        "on digits, step 0 of 5: top-1 error none" in text
        and "on digits, step 1 of an unknown number: " in text
    )
