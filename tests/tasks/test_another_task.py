"""A task that is new to the package: a run of it is trained, kept, tested and shown by its own.

`support/more_tasks/digit_size.py` has another loss, other sums, and a headline of which higher
values are better and which a train step does not measure.
"""

import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from matplotlib.figure import Figure

from cnn_papers import evaluate, tasks, train
from cnn_papers.claims import metrics
from cnn_papers.claims.metrics import Finished, Reading
from cnn_papers.errors import UserError
from cnn_papers.reporting import figure_data, results_file, single_runs
from cnn_papers.reporting.markdown import markdown
from cnn_papers.runs import ranges, workdir
from cnn_papers.runs.rows import METRICS, evaluations, read_rows
from configs import lenet

FOLDER = pathlib.Path(__file__).parents[1] / "support" / "more_tasks"
RATE, STEPS = 0.003, 24


@pytest.fixture(scope="module", autouse=True)
def task() -> Iterator[Any]:
    """The task is found by its name, as one in the package is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "__path__", [*tasks.__path__, str(FOLDER)])
        yield tasks.task_module("digit_size")
    del sys.modules["cnn_papers.tasks.digit_size"]
    del tasks.digit_size


def configured(home: pathlib.Path) -> Any:
    config = lenet.get_config()
    config.task = "digit_size"
    config.batch_size, config.total_steps, config.log_every_steps = 32, STEPS, 3
    config.eval.every_epochs = 3 / 45  # an epoch has 45 steps: after every third one
    config.optim.lr, config.optim.lr_batch = RATE, 32
    config.optim.schedule = "plateau(0.5, patience=2)"
    config.optim.accumulate = 2
    config.mesh.data, config.data.data_dir = 1, str(home / "tfds")
    return config


class Run:
    """A finished run with what it printed and the figure that it drew."""

    folder: pathlib.Path
    out: str
    figure: Figure

    @property
    def rows(self) -> list[dict[str, Any]]:
        return read_rows(self.folder / METRICS)

    @property
    def values(self) -> dict[int, float]:
        """The headline of every evaluation, by step."""
        return {row["step"]: row["val/near"] for row in self.rows if "val/near" in row}


@pytest.fixture(scope="module")
def run(home, task) -> Run:
    run = Run()
    run.folder = home / "run"
    save = Figure.savefig

    def keep(figure: Figure, *arguments: Any, **options: Any) -> None:
        run.figure = figure
        save(figure, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr(Figure, "savefig", keep)
        patch.setattr("builtins.print", lambda *texts, **_: lines.append(" ".join(map(str, texts))))
        patch.setattr("cnn_papers.terminal.say", lines.append)
        assert train.train_and_evaluate(configured(home), run.folder) == train.DONE
        run.out = "\n".join(lines)
    return run


def test_its_rows_hold_its_own_values(run):
    training = [row for row in run.rows if "train/loss" in row]
    assert len(training) == STEPS // 3
    names = ["loss", "distance", "grad_norm", "lr", "skipped_steps"]
    assert [*training[0]] == ["step", *(f"train/{name}" for name in names)]
    evaluated = evaluations(run.rows, tasks.task_module("digit_size").HEADLINE)
    assert {*evaluated[0]} == {"step", "val/loss", "val/near", "val/distance"}
    assert [row["step"] for row in evaluated] == [*range(3, STEPS + 1, 3)]
    assert training[-1]["train/loss"] < training[0]["train/loss"]


def best_step(values: dict[int, float]) -> int:
    """The first step with the highest value."""
    return max(values, key=lambda step: (values[step], -step))


def test_its_best_state_is_that_of_the_highest_headline(run):
    best = best_step(run.values)
    assert run.values[best] > run.values[3]
    newest = max(int(step.name) for step in (run.folder / "best").glob("[0-9]*"))
    assert newest == best


def test_a_plateau_waits_for_a_higher_headline(run):
    """The rates are those of a plateau by hand; by the lowest headline they would be others."""

    def rates(values: dict[int, float], sign: int) -> dict[int, float]:
        rate, highest, waited, after = RATE, -1e9, 0, {}
        for step, value in values.items():
            after[step + 3] = rate  # a report comes before the evaluation of its step
            waited = 0 if sign * value > highest else waited + 1
            highest = max(highest, sign * value)
            if waited == 2:
                rate, waited = rate / 2, 0
            after[step + 3] = rate
        return after

    ours = {row["step"]: row["train/lr"] for row in run.rows if "train/lr" in row}
    by_hand = {3: RATE} | rates(run.values, 1)
    assert ours == pytest.approx({step: by_hand[step] for step in ours})
    assert by_hand != {3: RATE} | rates(run.values, -1)


def test_the_terminal_names_its_measures(run):
    rows, best = run.rows, best_step(run.values)
    (row,) = [row for row in rows if row["step"] == best and "val/near" in row]
    values = [f"predicted within one {row['val/near']:.2f}%", f"distance {row['val/distance']:.2f}"]
    assert f"          best  step {best}: {', '.join(values)}" in run.out
    assert f"evaluation: {'  '.join(values)}  (best)" in run.out
    (first,) = [row for row in rows if row["step"] == 3 and "train/loss" in row]
    loss, distance = first["train/loss"], first["train/distance"]
    assert f"step 3/{STEPS}  epoch 0.1  loss {loss:.4f}  distance {distance:.2f}" in run.out
    assert "error" not in run.out


def test_its_curves_are_of_the_loss_and_the_headline(run):
    loss, headline = run.figure.axes
    assert (loss.get_ylabel(), headline.get_ylabel()) == ("loss", "predicted within one (%)")
    assert (len(loss.lines), len(headline.lines)) == (2, 1)  # no step measures the headline
    assert [*headline.lines[0].get_ydata()] == [*run.values.values()]


def test_a_report_shows_its_headline(run):
    report = single_runs.of_runs(run.folder.parent, [run.folder], "runs")
    last, best = run.values[STEPS], max(run.values.values())
    line = f"predicted within one {last:.2f} % in the last evaluation, {best:.2f} % in the best."
    assert line in markdown(report)
    assert "error" not in markdown(report)
    curves = figure_data.of_run(run.folder, workdir.read_run(run.folder).config, run.rows)[0]
    assert curves.text == "Loss and predicted within one over the images seen."
    assert [panel.title for panel in curves.panels] == ["loss", "predicted within one (%)"]
    (single,) = results_file.from_json(results_file.to_json(report)).singles
    assert single.task == "digit_size"


def test_a_claim_takes_the_highest_headline(run):
    config = workdir.read_run(run.folder).config
    finished, values = Finished(config, run.rows, "done"), run.values
    assert metrics.best(finished, "val/near") == Reading(max(values.values()))
    distances = [row["val/distance"] for row in run.rows if "val/distance" in row]
    assert metrics.best(finished, "val/distance") == Reading(min(distances))
    level = sorted(values.values())[len(values) // 2]
    first = next(step for step, value in values.items() if value >= level)
    assert first > min(values)
    assert metrics.images_to(finished, "val/near", level) == Reading(32.0 * first)
    diverged = finished._replace(outcome="diverged")
    assert metrics.last(diverged, "val/near") == Reading(10.0)


def test_its_final_test_has_a_column_for_each_measure(run, capsys):
    config = workdir.read_run(run.folder).config
    before = run.rows
    (result,) = evaluate.evaluate_runs([run.folder], config, {})
    assert result.values["near"] == pytest.approx(max(run.values.values()))
    lines = capsys.readouterr().out.splitlines()
    table = next(i for i, line in enumerate(lines) if line.startswith("protocol"))
    header, row = lines[table : table + 2]
    end = header.index("predicted within one") + len("predicted within one")
    assert row[:end].endswith(f" {result.values['near']:.2f}%")
    (kept,) = run.rows[len(before) :]
    assert {name: kept[f"test/{name}"] for name in result.values} == result.values


def test_runs_of_two_tasks_have_no_mean(run, tiny_run):
    config = workdir.read_run(run.folder).config
    with pytest.raises(UserError, match=r"different tasks.*: digit_size \(.*\), classify \("):
        evaluate.evaluate_runs([run.folder, tiny_run], config, {})


def test_runs_of_a_task_without_a_mean_are_tested_one_at_a_time(run):
    config = workdir.read_run(run.folder).config
    with pytest.raises(UserError, match=r"^outcomes of the task 'digit_size' have no mean"):
        evaluate.evaluate_runs([run.folder, run.folder], config, {})


def test_a_folder_holds_runs_of_one_task(run, home):
    config = configured(home)
    config.task = "classify"
    with pytest.raises(UserError, match=r"another configuration \(task: digit_size there, classi"):
        train.train_and_evaluate(config, run.folder)


def test_a_task_without_an_error_of_steps_ends_no_warm_up(tmp_path):
    config = configured(tmp_path)
    config.optim.warmup_until_error = (80.0, 0.1)
    message = "the error of each training step, which the task 'digit_size' does not have"
    with pytest.raises(UserError, match=message):
        ranges.check_ranges(config)


def test_an_unknown_task_is_refused_with_the_list(tmp_path):
    config = configured(tmp_path)
    config.task = "clasify"
    names = "classify, detect_dense, detect_windows, localize, multilabel, digit_size"
    with pytest.raises(UserError, match=rf"unknown config\.task 'clasify'.*: {names}"):
        ranges.check_ranges(config)
