"""Reports of a run: rows that survive a crash, TensorBoard events, pictures, lines and the bar."""

import importlib.util
import json
import os
import pathlib
import pty
import re
import select
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import rich.progress
from support import faults
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cnn_papers.errors import UserError
from cnn_papers.runs import pictures, writer
from cnn_papers.runs.pictures import filter_grid
from cnn_papers.runs.rows import METRICS, TIMING, read_rows
from cnn_papers.runs.writer import Writer
from cnn_papers.tasks.classify import HEADLINE, MEASURES

KERNEL = np.random.default_rng(0).normal(size=(3, 3, 1, 10)).astype(np.float32)
ERRORS = {"loss": 1.5, "top1_error": 40.0, "top5_error": 10.0}


def _open(folder: pathlib.Path, start: int = 0) -> Writer:
    return Writer(
        folder, start_step=start, total_steps=100, steps_per_epoch=10.0, measures=MEASURES
    )


def _train(run: Writer, *steps: int, loss: float = 0.5) -> None:
    for step in steps:
        run.report_training(step, {"loss": loss + step, "top1_error": 25.0}, batch_size=32)


def _scalars(folder: pathlib.Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


# --- rows -----------------------------------------------------------------------------------------


def test_rows_are_what_was_reported(tmp_path):
    run = _open(tmp_path)
    _train(run, 5, 10)
    run.report_evaluation(10, ERRORS)
    run.close()
    assert (tmp_path / METRICS).read_text() == (
        '{"step": 5, "train/loss": 5.5, "train/top1_error": 25.0}\n'
        '{"step": 10, "train/loss": 10.5, "train/top1_error": 25.0}\n'
        '{"step": 10, "val/loss": 1.5, "val/top1_error": 40.0, "val/top5_error": 10.0}\n'
    )
    assert [row.keys() for row in read_rows(tmp_path / TIMING)] == [
        {"step", "images_per_second"}
    ] * 2


def test_a_row_is_on_disk_at_once(tmp_path):
    run = _open(tmp_path)
    _train(run, 5)
    assert [row["step"] for row in read_rows(tmp_path / METRICS)] == [5]
    run.close()


@pytest.mark.fault(
    "kill: between a row of metrics and the next save",
    "the rows that will be written again are removed first",
)
def test_going_on_removes_the_rows_of_the_lost_future(tmp_path):
    run = _open(tmp_path)
    _train(run, 5, 10, 15, 20)
    run.close()
    before = (tmp_path / METRICS).read_bytes()
    run = _open(tmp_path, start=12)
    assert [row["step"] for row in read_rows(tmp_path / METRICS)] == [5, 10]
    assert [row["step"] for row in read_rows(tmp_path / TIMING)] == [5, 10]
    _train(run, 15, 20)
    run.close()
    assert (tmp_path / METRICS).read_bytes() == before
    # The rows of a step are written before its checkpoint.
    run = _open(tmp_path, start=10)
    run.close()
    assert [row["step"] for row in read_rows(tmp_path / METRICS)] == [5, 10]


@pytest.mark.fault(
    "kill: while a row of metrics is written", "the half row is left out, the rest kept"
)
@pytest.mark.parametrize("torn", ['{"step": 15, "train/lo', '{"step": 15}', "{", "\x00\x00"])
def test_a_last_line_cut_off_by_a_crash_is_left_out(tmp_path, torn):
    run = _open(tmp_path)
    _train(run, 5, 10)
    run.close()
    with (tmp_path / METRICS).open("a") as file:
        file.write(torn)
    assert [row["step"] for row in read_rows(tmp_path / METRICS)] == [5, 10]
    run = _open(tmp_path, start=10)
    _train(run, 15)
    run.close()
    assert [json.loads(line)["step"] for line in (tmp_path / METRICS).read_text().splitlines()] == [
        5,
        10,
        15,
    ]


@pytest.mark.fault(
    "damage: a line of `metrics.jsonl`", "one line that names it; nothing is overwritten"
)
def test_a_damaged_line_elsewhere_is_one_line_and_nothing_is_overwritten(tmp_path):
    text = '{"step": 5}\n{"st\x00p": \n{"step": 15}\n'
    (tmp_path / METRICS).write_text(text)
    with pytest.raises(
        UserError, match=r"metrics\.jsonl is damaged \(.*; restore it, or start in another workdir"
    ):
        _open(tmp_path, start=15)
    assert (tmp_path / METRICS).read_text() == text


@pytest.mark.fault("not finite: figures of a report", "left out of its row, which stays JSON")
def test_figures_that_are_not_finite_are_left_out_for_any_reader_of_json(tmp_path, capsys):
    run = _open(tmp_path)
    run.report_training(
        5, {"loss": np.nan, "top1_error": np.inf, "skipped_steps": 5}, batch_size=32
    )
    run.report_evaluation(5, ERRORS | {"loss": np.nan})
    run.close()
    assert (tmp_path / METRICS).read_text() == (
        '{"step": 5, "train/skipped_steps": 5}\n'
        '{"step": 5, "val/top1_error": 40.0, "val/top5_error": 10.0}\n'
    )
    assert "loss nan  top-1 error inf%" in capsys.readouterr().out
    assert pictures.draw_curves(tmp_path, HEADLINE).is_file()


def test_no_file_has_no_rows(tmp_path):
    assert read_rows(tmp_path / METRICS) == []


@pytest.mark.fault("full disk: while a row of metrics is written", "one line")
@pytest.mark.parametrize(
    "act", [lambda run: _train(run, 5), lambda run: run.report_evaluation(5, ERRORS)]
)
def test_a_file_that_cannot_be_written_is_one_line(tmp_path, act):
    run = _open(tmp_path)
    (tmp_path / METRICS).unlink()
    (tmp_path / METRICS).symlink_to("/dev/full")  # every write says: no space left
    with pytest.raises(
        UserError, match=r"metrics\.jsonl cannot be written to: No space left on device"
    ):
        act(run)
    run.close()


# --- TensorBoard ----------------------------------------------------------------------------------


def test_tensorboard_reads_the_scalars_and_the_filters(tmp_path):
    run = _open(tmp_path)
    _train(run, 5, 10)
    run.report_evaluation(10, ERRORS)
    params = {
        "a": {"bias": np.ones(4)},
        "b": {"kernel": np.ones((1, 1, 5, 2))},
        "conv1": {"kernel": KERNEL},
    }
    run.draw_filters(10, params, channels=1)
    run.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = [
        "train/loss",
        "train/top1_error",
        "images_per_second",
        "val/loss",
        "val/top1_error",
        "val/top5_error",
    ]
    assert sorted(events.Tags()["scalars"]) == sorted(tags) and events.Tags()["images"] == ["conv1"]
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(5, 5.5), (10, 10.5)]
    assert [(e.step, e.value) for e in events.Scalars("val/top5_error")] == [(10, 10.0)]
    (picture,) = events.Images("conv1")
    pixels = cv2.imdecode(np.frombuffer(picture.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(pixels[..., ::-1], filter_grid(KERNEL))
    assert (picture.step, picture.height, picture.width) == (10, *pixels.shape[:2])


def test_each_column_is_a_picture_of_its_own(tmp_path):
    run = _open(tmp_path)
    run.draw_filters(10, {"conv1": KERNEL}, channels=1, columns=2)
    run.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    half = KERNEL.shape[-1] // 2
    for tag, part in {
        "conv1_column1": KERNEL[..., :half],
        "conv1_column2": KERNEL[..., half:],
    }.items():
        pixels = cv2.imdecode(
            np.frombuffer(events.Images(tag)[0].encoded_image_string, np.uint8), cv2.IMREAD_COLOR
        )
        np.testing.assert_array_equal(pixels[..., ::-1], filter_grid(part))


def test_tensorboard_forgets_the_lost_future_and_nothing_else(tmp_path):
    for start, steps, loss in (
        (0, (5, 10, 15, 20), 0.0),
        (10, (15, 20, 25), 0.25),
        (25, (30,), 0.25),
    ):
        run = _open(tmp_path, start=start)
        _train(run, *steps, loss=loss)
        run.close()
    assert _scalars(tmp_path, "train/loss") == [
        (5, 5),
        (10, 10),
        (15, 15.25),
        (20, 20.25),
        (25, 25.25),
        (30, 30.25),
    ]


def test_tensorboard_forgets_a_run_lost_before_its_first_checkpoint(tmp_path):
    for _ in range(2):
        run = _open(tmp_path)
        _train(run, 1, 2)
        run.close()
    assert _scalars(tmp_path, "train/loss") == [(1, 1.5), (2, 2.5)]


@pytest.mark.fault("beside: TensorBoard's writer fails", "one warning, nothing else changes")
def test_training_goes_on_when_tensorboard_fails(tmp_path, monkeypatch, caplog):
    run = _open(tmp_path)
    assert run._events

    def fail(*args):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(run._events._writer, "write", fail)
    _train(run, 5, 10)
    run.draw_filters(10, {"conv1": KERNEL}, channels=1)
    run.close()
    assert [row["step"] for row in read_rows(tmp_path / METRICS)] == [5, 10]
    assert caplog.messages == ["TensorBoard events stop here: [Errno 5] Input/output error"]


@pytest.mark.fault("beside: TensorBoard's disk is full", "one warning, nothing else changes")
def test_training_goes_on_when_the_disk_of_tensorboard_is_full(tmp_path, caplog):
    with faults.disk(tmp_path / "tensorboard", "size=16k"):
        run = _open(tmp_path)
        for step in range(1, 41):
            run.draw_filters(step, {"conv1": KERNEL}, channels=1)
            _train(run, step)
        run.close()
    assert len(read_rows(tmp_path / METRICS)) == 40
    assert caplog.messages == ["TensorBoard events stop here: [Errno 28] No space left on device"]


@pytest.mark.fault(
    "beside: the clock goes back between two starts",
    "TensorBoard still forgets the lost future alone",
)
def test_tensorboard_reads_its_files_in_order_though_the_clock_goes_back(tmp_path, monkeypatch):
    for start, steps, loss, clock in (
        (0, (5, 10, 15), 0.0, 2e9),
        (10, (15, 20), 0.25, 1e9),
        (20, (25,), 0.25, 3e9),
    ):
        monkeypatch.setattr(writer.time, "time", lambda clock=clock: clock)
        run = _open(tmp_path, start=start)
        _train(run, *steps, loss=loss)
        run.close()
    assert _scalars(tmp_path, "train/loss") == [
        (5, 5),
        (10, 10),
        (15, 15.25),
        (20, 20.25),
        (25, 25.25),
    ]


@pytest.mark.fault("beside: TensorBoard is not installed", "one warning, nothing else changes")
def test_without_tensorboard_the_run_says_so_and_goes_on(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
    run = _open(tmp_path)
    _train(run, 5)
    run.draw_filters(5, {"conv1": KERNEL}, channels=1)
    run.close()
    assert not (tmp_path / "tensorboard").exists() and len(read_rows(tmp_path / METRICS)) == 1
    assert caplog.messages[0].startswith("no TensorBoard events: ")


def test_a_net_without_a_layer_on_the_image_has_no_filters(tmp_path):
    run = _open(tmp_path)
    run.draw_filters(1, {"fc": {"kernel": np.ones((8, 4))}}, channels=3)
    run.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["images"] == []


# --- the filter image -----------------------------------------------------------------------------


def test_filters_of_one_channel_are_grey_side_by_side_on_white():
    kernel = np.float32([[[0, 10], [1, 20]], [[2, 30], [4, 50]]]).reshape(2, 2, 1, 2)
    first, second = [[0, 63], [127, 255]], [[0, 63], [127, 255]]
    expected = np.array([[*first[i], 255, *second[i]] for i in range(2)], np.uint8)
    np.testing.assert_array_equal(filter_grid(kernel, zoom=1), np.repeat(expected[..., None], 3, 2))


def test_filters_fill_row_after_row():
    kernel = np.zeros((1, 1, 3, 3), np.float32)
    kernel[0, 0] = [[0, 1, 2], [1, 1, 0], [2, 0, 1]]  # [c, n]
    grid = filter_grid(kernel, columns=2, zoom=1)
    white = [255, 255, 255]
    expected = [
        [[0, 127, 255], white, [255, 255, 0]],
        [white, white, white],
        [[255, 0, 127], white, white],
    ]
    np.testing.assert_array_equal(grid, np.array(expected, np.uint8))
    np.testing.assert_array_equal(
        filter_grid(kernel, columns=2, zoom=3), grid.repeat(3, 0).repeat(3, 1)
    )


def test_a_constant_filter_is_black_and_other_depths_are_averaged():
    assert (
        filter_grid(np.full((2, 2, 3, 1), 7.0, np.float32), columns=1, zoom=1).tolist()
        == np.zeros((2, 2, 3)).tolist()
    )
    kernel = np.float32([0.0, 1.0]).reshape(1, 1, 2, 1)
    assert filter_grid(kernel, columns=1, zoom=1).tolist() == [[[127, 127, 127]]]


def test_the_filters_of_columns_are_apart_in_a_file(tmp_path):
    """Of 20 filters a column has 10; between columns are white pixels."""
    kernel = np.random.default_rng(0).normal(size=(6, 5, 3, 20)).astype(np.float32)
    path = tmp_path / "new" / "filters.png"
    words = pictures.draw_filters(path, {"conv1": {"kernel": kernel}}, channels=3, columns=2)
    assert words == "10 filters of 6×5 pixels in each of 2 columns"
    grids = [filter_grid(part, columns=16, zoom=1) for part in np.split(kernel, 2, -1)]
    width = 10 * (5 + 1) - 1
    assert grids[0].shape == (6, width, 3)
    image = np.concatenate([grids[0], np.full((3, width, 3), 255, np.uint8), grids[1]])
    zoom = round(960 / width)
    pixels = cv2.imread(str(path))
    assert pixels is not None
    np.testing.assert_array_equal(pixels[..., ::-1], image.repeat(zoom, 0).repeat(zoom, 1))
    assert [file.name for file in path.parent.iterdir()] == ["filters.png"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"fc": {"kernel": np.ones((8, 4))}}, "no convolution of this network reads the image"),
        (
            {"conv": {"kernel": np.ones((5, 4, 3, 2))}},
            "the first layer's filters of 5×4 pixels are too small to draw: 5×5 is the least",
        ),
    ],
)
def test_no_file_without_filters_large_enough(tmp_path, params, message):
    with pytest.raises(UserError, match=message):
        pictures.draw_filters(tmp_path / "filters.png", params, channels=3)
    assert not list(tmp_path.iterdir())


# --- lines and the bar ----------------------------------------------------------------------------


def test_plain_lines_where_there_is_no_terminal(tmp_path, capsys):
    run = _open(tmp_path)
    _train(run, 5)
    run.report_evaluation(10, ERRORS, "  (best)")
    run.say("diverged [red]")
    run.close()
    first, *others = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"step 5/100  epoch 0\.5  loss 5\.5000  top-1 error 25\.00%  "
        r"[\d,]+ images/s  ETA (\d+:)?\d+:\d\d",
        first,
    )
    assert others == [
        "step 10/100  epoch 1.0  evaluation: top-1 error 40.00%  top-5 error 10.00%  (best)",
        "diverged [red]",
    ]


def test_speed_and_time_left_leave_out_what_was_not_training(tmp_path, capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(writer.time, "monotonic", lambda: clock[0])
    run = _open(tmp_path)
    clock[0] = 60.0  # compiling
    run.resume_clock(1)
    clock[0] = 62.0
    _train(run, 5)  # four steps of 32 images in two seconds; 95 are left
    run.close()
    assert "  64 images/s  ETA 0:48\n" in capsys.readouterr().out
    assert read_rows(tmp_path / TIMING) == [{"step": 5, "images_per_second": 64.0}]


def test_hours_are_shown(tmp_path):
    assert [writer._clock(s) for s in (0, 59.6, 3599, 3600, 360_061)] == [
        "0:00",
        "1:00",
        "59:59",
        "1:00:00",
        "100:01:01",
    ]


def test_a_bar_on_a_terminal(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    leader, follower = pty.openpty()
    with (
        os.fdopen(leader, "rb", 0) as screen,
        os.fdopen(follower, "w") as terminal,
        monkeypatch.context() as patch,
    ):
        patch.setattr(sys, "stdout", terminal)
        run = _open(tmp_path)
        _train(run, 5)
        run.report_evaluation(10, ERRORS, "  (best)")
        run.close()
        terminal.flush()
        shown = b""
        while select.select([screen], [], [], 0)[0]:
            shown += screen.read(65536)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert re.search(r"step 0/100 .*compiling", text)
    assert re.search(
        r"step 5/100 .*epoch 0\.5  loss 5\.5000  top-1 error 25\.00%  [\d,]+ images/s ETA", text
    )
    assert (
        "step 10/100  epoch 1.0  evaluation: top-1 error 40.00%  top-5 error 10.00%  (best)\r\n"
        in text
    )
    assert shown.count(b"\x1b[?25l") == shown.count(b"\x1b[?25h") == 1  # the cursor comes back


@pytest.mark.parametrize("has_widgets", [True, False])
def test_a_bar_in_a_notebook_that_can_draw_it(tmp_path, monkeypatch, has_widgets):
    opened = []
    monkeypatch.setattr(rich.get_console(), "is_jupyter", True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: has_widgets or None)
    monkeypatch.setattr(rich.progress.Progress, "start", lambda bar: opened.append(bar))
    _open(tmp_path).close()
    assert len(opened) == has_widgets


CLOSED = """
import os, pathlib, sys
from cnn_papers.runs.writer import Writer
length = {"start_step": 0, "total_steps": 100, "steps_per_epoch": 10.0}
run = Writer(pathlib.Path(sys.argv[1]), **length, measures=())
run.say("first")
sys.stdin.read()
for step in range(1, 20):
    run.report_training(step, {"loss": 1.0, "top1_error": 25.0}, batch_size=32)
run.close()
"""


@pytest.mark.fault("signal: the terminal is gone", "the run goes on without its lines")
def test_a_run_goes_on_when_nobody_reads_its_lines_any_more(tmp_path):
    command = [sys.executable, "-c", CLOSED, tmp_path]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout.readline() == b"first\n"
        child.stdout.close()
        child.stdin.close()
        assert child.stderr.read() == b"" and child.wait() == 0
    assert len(read_rows(tmp_path / METRICS)) == 19


# --- curves ---------------------------------------------------------------------------------------


def test_curves_are_drawn_from_the_rows(tmp_path):
    run = _open(tmp_path)
    _train(run, 5, 10)
    run.report_evaluation(10, ERRORS)
    run.close()
    image = cv2.imread(str(pictures.draw_curves(tmp_path, HEADLINE)))
    assert image.shape == (408, 1080, 3)
    blank = tmp_path / "blank"
    blank.mkdir()
    shutil.copy(tmp_path / METRICS, blank / METRICS)
    (blank / METRICS).write_text("")
    assert (cv2.imread(str(pictures.draw_curves(blank, HEADLINE))) != image).mean() > 0.01
