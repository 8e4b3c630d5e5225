"""`benchmark --suite`: what it measures and skips, the file of its results, and docs/speed.md."""

import json
import pathlib
from typing import Any

import pytest
from support.commands import exit_code

from cnn_papers import benchmark, zoo
from cnn_papers.benchmarks import step_speed, suite, timing, torchvision, workload
from cnn_papers.benchmarks.step_speed import FORWARD, STEP
from cnn_papers.benchmarks.suite import Row
from cnn_papers.benchmarks.torchvision import COMPILED, EAGER
from cnn_papers.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]


def say(text: str) -> None:
    """Nobody listens."""


def test_every_row_is_a_network_that_both_have():
    for row in (*suite.ROWS, *suite.QUICK):
        assert row.variant in zoo.model_module(row.model).FACTS
        assert row.variant in torchvision.TORCHVISION[row.model]
        assert min(row.batch_size, row.large_batch, row.pixels) > 0


@pytest.mark.process
def test_both_parts_of_a_row_are_measured_against_torch():
    pytest.importorskip("torch", reason="torch is not installed")
    rows = (Row("resnet", "cifar-8", 8, 8, 1024),)
    results = suite.measure(rows, say, seconds=0, cpu_time=False, against_compiled=False)
    (row,) = results["rows"]
    assert (row["model"], row["variant"], row["batch_size"]) == ("resnet", "cifar-8", 8)
    for part in (STEP, FORWARD):
        speeds = row[part]["images_per_second"], row[part]["versus"][EAGER]["images_per_second"]
        assert min(speeds) > 0
    assert results["dtype"] == "float32" and results["skipped"] == []
    assert results["cpu_threads"] > 0 and set(results["versions"]) >= {"python", "jax", "torch"}
    assert results["matmul_flops_per_second"] > 1e6


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os; os.abort()", "^its process was ended by SIGABRT$"),  # as a compiler does
        ("import sys; sys.exit('more\\nout of memory')", "^out of memory$"),
        ("raise SystemExit(3)", "^exit code 3$"),
    ],
)
def test_a_process_that_fails_says_how(code, message):
    with pytest.raises(UserError, match=message):
        timing.in_a_process(code)


@pytest.mark.parametrize(
    ("error", "first_line"),
    [
        (
            RuntimeError("RESOURCE_EXHAUSTED: out of memory\nmore"),
            "RESOURCE_EXHAUSTED: out of memory",
        ),
        (UserError("--cpu_time: JAX runs on gpu"), "--cpu_time: JAX runs on gpu"),
    ],
)
def test_a_part_that_fails_ends_with_the_first_line_of_its_error(monkeypatch, error, first_line):
    def measure(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(step_speed, "measure", measure)
    monkeypatch.setattr(suite.compile_cache, "enable", lambda: None)
    work = workload.from_paper("resnet", "cifar-8", 8, 32, "float32")
    with pytest.raises(SystemExit, match=f"^{first_line}$"):
        suite.measure_part(json.dumps([work.as_text(), STEP, [], 0, False]))


@pytest.fixture
def measured(monkeypatch) -> list[list[Any]]:
    """What the processes are asked for, the workload by its variant; nothing is measured."""
    calls = []

    def in_a_process(code: str, asked: str) -> str:
        text, *others = json.loads(asked)
        work = workload.from_text(text)
        assert work.devices == 1  # as torch
        calls.append([work.model["variant"], *others])
        return json.dumps({"images_per_second": 1.0})

    monkeypatch.setattr(timing, "in_a_process", in_a_process)
    monkeypatch.setattr(timing, "matmul_rate", lambda dtype: 1e9)
    return calls


@pytest.mark.parametrize("compiles", [True, False])
def test_what_cannot_be_measured_is_skipped_with_the_reason(monkeypatch, measured, compiles):
    """Without torchvision, and with a compiler or one that fails."""

    def check_compiler() -> None:
        if not compiles:
            raise UserError("torch.compile cannot compile here: no compiler")

    monkeypatch.setattr(torchvision, "check_compiler", check_compiler)
    there = {"torch"}
    monkeypatch.setattr(
        torchvision.importlib.util, "find_spec", lambda name: name if name in there else None
    )
    monkeypatch.setattr(torchvision, "_package", lambda name: None)
    rows = Row("resnet", "cifar-8", 8, 32, 8), Row("resnet", "18", 2, 32, 2)
    results = suite.measure(rows, say, seconds=1.5, cpu_time=True, against_compiled=True)
    hows = [EAGER, COMPILED] if compiles else [EAGER]
    assert measured == [
        *[["cifar-8", part, hows, 1.5, True] for part in (STEP, FORWARD)],
        *[["18", part, [], 1.5, True] for part in (STEP, FORWARD)],
    ]
    no_compiler = [] if compiles else ["torch.compile cannot compile here: no compiler"]
    assert results["skipped"] == [
        *no_compiler,
        "torch's resnet '18': --versus=torchvision: not installed: torchvision; "
        "pip install torch torchvision",
    ]


def test_a_row_that_fails_leaves_the_others(monkeypatch, measured):
    measure = timing.in_a_process

    def fail_once(code: str, asked: str) -> str:
        answer = measure(code, asked)
        if measured[-1][:2] == ["cifar-8", STEP]:
            raise UserError("its process was ended by SIGABRT")
        return answer

    monkeypatch.setattr(timing, "in_a_process", fail_once)
    rows = Row("resnet", "cifar-8", 8, 32, 8), Row("resnet", "cifar-20", 2, 32, 2)
    results = suite.measure(rows, say, seconds=0, cpu_time=False, against_compiled=False)
    assert [row.keys() & {STEP, FORWARD} for row in results["rows"]] == [{FORWARD}, {STEP, FORWARD}]
    assert results["skipped"][-1] == (
        "resnet 'cifar-8' at 32 pixels, batch 8, train step: its process was ended by SIGABRT"
    )


# --- the file and its tables ----------------------------------------------------------------------

VERSUS = {EAGER: {"ratio": 0.961, "ratios": [0.95, 1.0]}}
MACHINE = {
    "device": "One CPU",
    "cpu_threads": 1,
    "dtype": "float32",
    "clock": "CPU time",
    "load_average": 0.25,
    "versions": {"python": "3.11.7", "jax": "0.10.2"},
    "rows": [
        {
            "model": "resnet",
            "variant": "50-v1.5",
            "batch_size": 8,
            "pixels": 224,
            STEP: {"images_per_second": 1234.56, "versus": VERSUS},
        }
    ],
    "skipped": ["no reason"],
}
TABLE = """\
One CPU, 1 CPU thread, float32, CPU time, load 0.2 before; python 3.11.7, jax 0.10.2:

| network | batch | pixels | step | step / eager | forward | forward / eager |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
| resnet `50-v1.5` | 8 | 224 | 1,234.6 | **0.96** (0.95–1.00) |  |  |

Not measured: no reason
"""


def test_results_of_a_machine_replace_its_earlier_ones(tmp_path):
    path = tmp_path / "results" / "speed.json"
    other = {**MACHINE, "cpu_threads": 2}
    suite.keep(MACHINE, [], path)
    suite.keep(other, suite.read(path), path)
    again = {**MACHINE, "load_average": 3.0}
    suite.keep(again, suite.read(path), path)
    assert suite.read(path) == [other, again]


def test_the_table():
    assert suite.as_markdown([MACHINE]) + "\n" == TABLE
    compiled = json.loads(json.dumps(MACHINE))
    compiled["rows"][0][STEP]["versus"][COMPILED] = {"ratio": 2.0, "ratios": [1.5, 2.5]}
    header, _, row = suite.as_markdown([compiled]).splitlines()[2:5]
    assert header.split(" | ")[3:6] == ["step", "step / eager", "step / compiled"]
    assert row.split(" | ")[5] == "**2.00** (1.50–2.50)"


def test_the_table_of_a_machine_whose_matrix_product_was_timed():
    machine = json.loads(json.dumps(MACHINE)) | {"matmul_flops_per_second": 2e12}
    machine["rows"][0][STEP]["model_flops_per_second"] = 5e11
    about, _, header, _, row = suite.as_markdown([machine]).splitlines()[:5]
    assert about.endswith("jax 0.10.2; a product of large matrices: 2.00 TFLOP/s:")
    assert header.split(" | ")[4:6] == ["step / matmul", "step / eager"]
    assert row.split(" | ")[4] == "25.0%"


def test_the_page_on_speed_has_the_tables_of_the_results(capsys):
    """After a change: python -m cnn_papers.benchmark --results=results/speed.json"""
    assert exit_code(benchmark.cli, f"--results={ROOT / 'results' / 'speed.json'}") in (None, 0)
    tables = capsys.readouterr().out
    assert tables in (ROOT / "docs" / "speed.md").read_text(), "put the tables in docs/speed.md"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        ("{", "is no file of --suite"),
        ('[{"device": 1}]', "is no file of --suite"),
    ],
)
def test_another_file_is_refused(tmp_path, content, message):
    path = tmp_path / "speed.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        suite.read(path)


@pytest.mark.process
def test_the_quick_suite(monkeypatch, capfd, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    path = tmp_path / "speed.json"
    arguments = "--suite", "--quick", "--seconds=0", f"--results={path}"
    assert exit_code(benchmark.cli, *arguments) in (None, 0)
    out = capfd.readouterr().out
    (machine,) = suite.read(path)
    assert out == suite.as_markdown([machine]) + "\n"
    assert [row["variant"] for row in machine["rows"]] == ["cifar-8", "18"]
    for row in machine["rows"]:
        assert row[STEP]["images_per_second"] > 0 and row[FORWARD]["images_per_second"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--suite", "--model=resnet"],
            "--suite and --results have networks of their own: leave out the network",
        ),
        (["--model=resnet", "--compile"], "--compile goes with --suite or --versus=torchvision"),
        (["--model=resnet", "--quick"], "--quick goes with --suite"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, message):
    assert exit_code(benchmark.cli, *arguments) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
