"""Sweeps before anything runs: requests, refusals, the files of a folder, SLURM's queue."""

import datetime
import fcntl
import json
import os
import pathlib
import re
import shlex
import subprocess
import time

import pytest
from support.commands import exit_code

from cnn_papers.claims import catalogue, plan
from cnn_papers.claims.records import Record
from cnn_papers.errors import UserError
from cnn_papers.facts import Claim, Scale
from cnn_papers.sweeps import code_digest, execute, local, process, request, slurm
from cnn_papers.sweeps.process import Place
from configs import lenet
from launch import sweep

pytestmark = pytest.mark.filterwarnings(
    "ignore:the load_module:DeprecationWarning"
)  # ml_collections reads configs so
ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / "cnn_papers"
GRID = ["--config=configs/lenet.py", "--grid=optim.lr=0.01,0.02", "--seeds=2"]


def dry(*flags: str, capsys) -> tuple[list[str], list[str]]:
    """The commands and the other lines that --dry_run prints."""
    assert exit_code(sweep.cli, *flags, "--dry_run") == 0
    lines = capsys.readouterr().out.splitlines()
    commands = [line for line in lines if line.startswith("python ")]
    return commands, [line for line in lines if line not in commands]


# --- grids ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "axis, values",
    [
        ("optim.lr=0.01,2,1e-3", [0.01, 2.0, 0.001]),
        ("batch_size=32", [32]),
        ("optim.lr_mults=('a',2),()", [("a", 2), ()]),
        ("optim.lr_mults=(3,2);(2,2)", [(3, 2), (2, 2)]),
        ("model.pooling=average,max", ["average", "max"]),
        ("data.train_device=;flip|pad(1, 2)", ["", "flip|pad(1, 2)"]),
        (
            "data.train_host=decode|resize(8, method='a,b'),decode",
            ["decode|resize(8, method='a,b')", "decode"],
        ),
        ("eval.mirror=true,False", [True, False]),
    ],
)
def test_values_of_a_grid_have_the_type_of_their_key(axis, values):
    (found,) = request.grid_of([axis], lenet.get_config()).values()
    assert found == values and [type(value) for value in found] == [type(value) for value in values]


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--grid=optim.lrr=1"], "there is no config key config.optim.lrr; did you mean 'lr'?"),
        (
            ["--grid=optim.lr.x=1"],
            "config.optim.lr is a value, not a group: it has no key 'x'",
        ),
        (
            ["--grid=optim.lr=0.1,fast"],
            "--grid=optim.lr=fast: the values of optim.lr are of type float",
        ),
        (
            ["--grid=batch_size=1.5"],
            "--grid=batch_size=1.5: the values of batch_size are of type int",
        ),
        (["--grid=batch_size="], "--grid=batch_size=: the values of batch_size are of type int"),
        (
            ["--grid=eval.mirror=1"],
            "--grid=eval.mirror=1: the values of eval.mirror are of type bool",
        ),
        (
            ["--grid=optim.lr={[]:1}"],
            "--grid=optim.lr={[]:1}: the values of optim.lr are of type float",
        ),
        ([f"--grid=optim.lr={'-' * 5000}1"], "--grid=optim.lr=---"),
        (["--grid=optim=1"], "--grid=optim=1: the values of optim are of type ConfigDict"),
        (
            ["--grid=optim.lr"],
            "--grid=optim.lr must be --grid=KEY=VALUE,VALUE or --grid=KEY=VALUE;VALUE",
        ),
        (["--grid=seed=1,2"], "--grid=seed=1,2: seeds are given by --seeds=N"),
        (["--config.seed=1"], "--config.seed: seeds are given by --seeds=N"),
        (
            ["--grid=batch_size=1", "--grid=batch_size=2"],
            "--grid=batch_size=2: batch_size has values already; give",
        ),
        (
            ["--config.batch_size=1", "--grid=batch_size=2"],
            "batch_size is given by --config.batch_size and by --grid",
        ),
        (
            ["optim.lr=1"],
            "unexpected argument 'optim.lr=1'; values of a grid are written --grid=KEY=VALUE,VALUE",
        ),
        (["--seeds=0"], "flag --seeds=0: 0 is not a positive integer"),
    ],
)
def test_a_mistake_in_a_grid_is_one_line_before_anything_starts(flags, message, tmp_path, capsys):
    assert exit_code(sweep.cli, "--config=configs/lenet.py", f"--runs={tmp_path}/runs", *flags) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"error: {message}") and err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_nothing_asked_says_how_to_ask(capsys):
    assert exit_code(sweep.cli) == 2
    assert capsys.readouterr().err.startswith(
        "error: nothing to run: give --claim=NAME, --all_claims, or --config=FILE"
    )


def test_a_dry_run_prints_commands_with_stable_ids_and_starts_nothing(tmp_path, capsys):
    folder = tmp_path / "runs"
    commands, others = dry(*GRID, f"--runs={folder}", "--config.total_steps=5", capsys=capsys)
    assert others == [f"runs in {folder}: 4 new"] and not folder.exists()
    ids = []
    for line, (lr, seed) in zip(
        commands, [(0.01, 0), (0.02, 0), (0.01, 1), (0.02, 1)], strict=True
    ):
        words = shlex.split(line, comments=True)
        overrides = [f"--config.optim.lr={lr}", f"--config.seed={seed}", "--config.total_steps=5"]
        assert words[:-1] == [
            "python",
            "-m",
            "cnn_papers.main",
            "--config=configs/lenet.py",
            *overrides,
        ]
        ids.append(words[-1].removeprefix(f"--workdir={folder}/"))
    assert all(re.fullmatch("lenet-[0-9a-f]{10}", name) for name in ids) and len(set(ids)) == 4
    assert (
        ids[0]
        == plan.make_job(
            "configs/lenet.py:desk", {"total_steps": 5, "seed": 0, "optim.lr": 0.01}
        ).id
    )
    again, _ = dry(*GRID, f"--runs={folder}", "--grid=total_steps=5", capsys=capsys)
    assert again == commands
    same, _ = dry(
        "--config=./configs/lenet.py:desk",
        *GRID[1:],
        f"--runs={folder}",
        "--grid=total_steps=5",
        capsys=capsys,
    )
    assert same == commands


def test_a_folder_of_its_own_by_what_is_asked(capsys):
    _, others = dry(*GRID, capsys=capsys)
    assert others == ["runs in runs/sweep-lenet-desk: 4 new"]


# --- claims ---------------------------------------------------------------------------------------


@pytest.fixture
def three_claims(monkeypatch):
    """One at two scales, one that needs no training, one for a GPU only."""
    arms = {"average": {"model.pooling": "average"}, "max": {"model.pooling": "max"}}
    mnist, desk = (
        {"config": "configs/lenet.py:mnist"},
        {"config": "configs/lenet.py", "total_steps": 5},
    )
    exact = Scale({"config": "configs/lenet.py"})

    def claim(scales: dict[str, Scale]) -> Claim:
        return Claim("Statement.", "§1", arms, "last('val/top1_error')", "lower", "", scales)

    known = {
        "pooling": claim({"desk": Scale(desk), "gpu": Scale(mnist)}),
        "size": claim({"exact": exact}),
        "mnist_only": claim({"gpu": Scale(mnist)}),
    }
    monkeypatch.setattr(catalogue, "claims_of", lambda: {"lenet": known})


@pytest.mark.usefixtures("three_claims")
def test_a_claim_is_its_arms_by_seed(tmp_path, capsys):
    flags = [f"--runs={tmp_path}", "--seeds=2"]
    commands, others = dry("--claim=pooling", *flags, capsys=capsys)
    assert others == [f"runs in {tmp_path}: 4 new"]
    found = [
        re.search(r"model.pooling=(\w+) .*seed=(\d) .*total_steps=(\d)", line) for line in commands
    ]
    assert [match and match.groups() for match in found] == [
        *(("average", "0", "5"), ("max", "0", "5"), ("average", "1", "5"), ("max", "1", "5"))
    ]
    on_mnist, _ = dry("--claim=pooling", "--config=configs/lenet.py:mnist", *flags, capsys=capsys)
    assert on_mnist == dry("--claim=pooling", "--scale=gpu", *flags, capsys=capsys)[0]
    assert "configs/lenet.py:mnist" in on_mnist[0]
    both, _ = dry("--claim=pooling,mnist_only", "--scale=gpu", *flags, capsys=capsys)
    assert both == on_mnist  # what two claims share runs once


@pytest.mark.usefixtures("three_claims")
def test_all_claims_are_those_of_the_scale_and_nothing_is_run_for_exact_ones(tmp_path, capsys):
    commands, others = dry("--all_claims", "--seeds=1", f"--runs={tmp_path}", capsys=capsys)
    assert len(commands) == 2
    assert others == [
        "no runs at scale desk: mnist_only",
        "needs no training: size",
        f"runs in {tmp_path}: 2 new",
    ]
    commands, others = dry("--claim=size", f"--runs={tmp_path}", capsys=capsys)
    assert (commands, others) == (
        [],
        ["needs no training: size", f"runs in {tmp_path}: none to start"],
    )


@pytest.mark.usefixtures("three_claims")
@pytest.mark.parametrize(
    "flags, lines",
    [
        (
            ["--claim=poolin"],
            [
                "error: there is no claim 'poolin'; did you mean 'pooling'? there are 3:",
                *(
                    "  pooling     Statement.",
                    "  size        Statement.",
                    "  mnist_only  Statement.",
                ),
            ],
        ),
        (
            ["--claim=mnist_only"],
            [
                "error: the claim mnist_only has no runs at --scale=desk; it has runs at: "
                "--scale=gpu (configs/lenet.py:mnist)"
            ],
        ),
        (
            ["--claim=pooling", "--config=configs/resnet.py"],
            [
                "error: the claim pooling has no runs of configs/resnet.py; it has runs at: "
                "--scale=desk (configs/lenet.py); --scale=gpu (configs/lenet.py:mnist)"
            ],
        ),
        (
            ["--claim=pooling", "--grid=optim.lr=1"],
            [
                "error: claims have their own overrides: "
                "give --grid and --config.key=value with --config only, not with a claim"
            ],
        ),
        (
            ["--claim=pooling", "--config=configs/lenet.py:mnist", "--scale=desk"],
            [
                "error: --config=configs/lenet.py:mnist belongs to pooling at --scale=gpu; "
                "give one of the two flags"
            ],
        ),
        (
            ["--all_claims", "--claim=size"],
            ["error: --all_claims cannot be combined with --claim or --config"],
        ),
    ],
)
def test_a_claim_that_cannot_be_asked_is_refused(flags, lines, capsys):
    assert exit_code(sweep.cli, *flags) == 2
    assert capsys.readouterr().err.splitlines() == lines


# --- the folder -----------------------------------------------------------------------------------


def test_a_folder_takes_what_it_was_asked_for_and_more(tmp_path):
    before = request.Request({}, "configs/lenet.py", {"model.blocks": [(1,)], "optim.lr": [0.1]}, 2)
    request.write_request(tmp_path, before, request.jobs_of(before))
    more = before._replace(grid={"optim.lr": [0.2, 0.1], "model.blocks": [(1,)]}, seeds=3)
    request.check_extends(tmp_path, before)
    request.check_extends(tmp_path, more)
    jobs = request.jobs_of(before)
    assert [request.read_job(tmp_path, job.id) for job in jobs] == jobs  # tuples, too
    assert set(jobs) < set(request.jobs_of(more))
    with pytest.raises(UserError, match="there is no run lenet-0 in"):
        request.read_job(tmp_path, "lenet-0")


@pytest.mark.parametrize(
    "change, said",
    [
        ({"seeds": 1}, "2 seeds there, 1 now"),
        ({"config": "configs/vgg.py"}, "config configs/lenet.py there, configs/vgg.py now"),
        ({"grid": {"optim.lr": [0.2]}}, "optim.lr 0.1 there, 0.2 now"),
        ({"grid": {"optim.lr": [0.1], "batch_size": [8]}}, "batch_size unset there, 8 now"),
        (
            {"claims": {"a": "gpu", "c": "desk"}, "seeds": 1},
            "a at desk there, gpu now; b at exact there, not requested now",
        ),
    ],
)
def test_another_sweep_in_the_folder_is_said_not_mixed(change, said, tmp_path):
    before = request.Request(
        {"a": "desk", "b": "exact"}, "configs/lenet.py", {"optim.lr": [0.1]}, 2
    )
    request.write_request(tmp_path, before, [])
    with pytest.raises(UserError, match=re.escape(f"holds another sweep ({said}")):
        request.check_extends(tmp_path, before._replace(**change))


def make_record(
    folder: pathlib.Path, outcome: str, *, digest: str, config: str = "configs/lenet.py"
) -> plan.Job:
    """The record and the folder that a run of seed 0 leaves."""
    job = plan.make_job(config, {"seed": 0})
    (folder / job.id / "checkpoints" / "00000005").mkdir(parents=True)
    (folder / job.id / "run.json").write_text("{}")
    code = {"done": 0, "failed": 1}.get(outcome)
    record = Record(outcome, code, digest[:4], digest, "2026-01-01 00:00:00", 12.0, 1)
    (folder / f"{job.id}.json").write_text(
        json.dumps({"config": config, "overrides": {"seed": 0}, **record._asdict()})
    )
    (folder / f"{job.id}.log").write_text("first line\nValueError: no luck\n\n")
    return job


ONE = ["--config=configs/lenet.py", "--seeds=1"]


def test_runs_of_other_code_are_said_not_mixed(tmp_path, capsys):
    job = make_record(tmp_path, "done", digest="0123456789abcdef")
    refusal = (
        f"error: {tmp_path} holds runs of other code or of another recipe than now: 1, "
        f"such as {job.id}; give another folder with --runs, remove these runs, "
        "or count and continue them with --accept_other_code\n"
    )
    assert exit_code(sweep.cli, *ONE, f"--runs={tmp_path}") == 2
    assert capsys.readouterr().err == refusal
    commands, others = dry(*ONE, f"--runs={tmp_path}", "--accept_other_code", capsys=capsys)
    assert (commands, others) == ([], [f"runs in {tmp_path}: 1 done"])
    request.write_request(tmp_path, request.Request({}, "configs/lenet.py", {}, 1), [job])
    assert exit_code(sweep.cli, f"--runs={tmp_path}", f"--task={job.id}") == 2  # as SLURM starts it
    assert capsys.readouterr().err == refusal
    assert (
        exit_code(sweep.cli, f"--runs={tmp_path}", f"--task={job.id}", "--accept_other_code") == 0
    )
    assert capsys.readouterr().out == f"{job.id} has finished already\n"
    (tmp_path / f"{job.id}.json").unlink()  # what its checkpoints are of, nothing says any more
    assert exit_code(sweep.cli, *ONE, f"--runs={tmp_path}") == 2
    assert capsys.readouterr().err == refusal


@pytest.mark.parametrize(
    "change", [lambda path: path.write_text("rate = 0.2"), lambda path: path.unlink()]
)
def test_code_that_changes_under_a_sweep_stops_it(change, tmp_path, monkeypatch, capsys):
    imported = tmp_path / "common.py"
    imported.write_text("rate = 0.1")
    monkeypatch.setattr(code_digest, "config_files", lambda jobs: [imported])

    def run_all(todo, places, begin, *_):
        change(imported)
        begin(todo[0], places[0])

    monkeypatch.setattr(local, "run_all", run_all)
    assert exit_code(sweep.cli, *ONE, f"--runs={tmp_path / 'runs'}") == 2
    assert capsys.readouterr().err.startswith(
        "error: the code or a config file has changed since this sweep began"
    )
    assert [path.name for path in (tmp_path / "runs").glob("*.json")] == ["sweep.json"]


def test_config_files_are_watched_with_what_they_import():
    jobs = [plan.make_job("configs/lenet.py:mnist", {"seed": 0})]
    names = {str(path.relative_to(ROOT)) for path in code_digest.config_files(jobs)}
    assert names >= {"configs/lenet.py", "configs/common.py"} and "configs/vgg.py" not in names


CHAIN = Claim(
    "Fine-tuning helps.",
    "Table 2",
    {
        "fresh": {"start": None},
        "tuned": {"start": {"config": "configs/lenet.py", "total_steps": 2}},
    },
    "last('val/top1_error')",
    "lower",
    "",
    {"desk": Scale({"config": "configs/lenet.py", "total_steps": 3})},
)
CHAINED = ["--claim=chain", "--seeds=1"]


@pytest.fixture
def chain(monkeypatch) -> list[plan.Job]:
    """The runs of a claim, one of which starts from another."""
    monkeypatch.setattr(catalogue, "claims_of", lambda: {"lenet": {"chain": CHAIN}})
    return request.jobs_of(request.Request({"chain": "desk"}, "", {}, 1))


def test_a_run_finds_the_one_that_it_starts_from_in_the_folder(chain, tmp_path, capsys):
    fresh, start, tuned = chain
    assert tuned.start == start and start.start is None and fresh.start is None
    commands, _ = dry(*CHAINED, f"--runs={tmp_path}", capsys=capsys)
    assert ["init_from" in line for line in commands] == [False, False, True]
    assert f"--config.init_from={tmp_path}/{start.id} --workdir" in commands[2]
    request.write_request(tmp_path, request.Request({"chain": "desk"}, "", {}, 1), chain)
    assert [request.read_job(tmp_path, job.id) for job in chain] == chain


def test_a_run_does_not_start_from_one_that_failed(chain, tmp_path, monkeypatch, capsys):
    """As SLURM starts it too, which gets only what may begin."""
    fresh, start, tuned = chain
    begun = []

    def begin(folder, job, *_):
        begun.append(job.id)
        failed = subprocess.Popen(["false"])
        return process.Running(job, process.Place(), failed, Record(), time.monotonic())

    monkeypatch.setattr(process, "start", begin)
    flags = [*CHAINED, f"--runs={tmp_path}"]
    assert exit_code(sweep.cli, *flags) == 1
    assert begun == [fresh.id, start.id]
    said = f"not started, since the runs that they start from failed: {tuned.id}"
    assert said in capsys.readouterr().out
    assert exit_code(sweep.cli, f"--runs={tmp_path}", f"--task={tuned.id}") == 2
    assert f"{tuned.id} starts from {start.id}, which has not finished" in capsys.readouterr().err


def test_slurm_gets_a_run_after_the_one_that_it_starts_from(chain, fake_slurm, tmp_path, capsys):
    flags = [*CHAINED, "--executor=slurm", f"--runs={tmp_path / 'runs'}"]
    assert exit_code(sweep.cli, *flags) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "submitted to SLURM: 2, as job 70; repeat the command to see how they go",
        "not submitted: 1, which start from others; repeat the command after those",
    ]


def test_what_has_not_trained_may_be_run_by_other_code(tmp_path, capsys):
    job = make_record(tmp_path, "failed", digest="0123456789abcdef")
    (tmp_path / job.id / "checkpoints" / "00000005").rmdir()
    failed = f"failed: {tmp_path}/{job.id}.log (exit code 1): ValueError: no luck"
    commands, others = dry(*ONE, f"--runs={tmp_path}", capsys=capsys)
    assert (commands, others) == ([], [f"runs in {tmp_path}: 1 failed", failed])
    commands, others = dry(*ONE, f"--runs={tmp_path}", "--retry_failed", capsys=capsys)
    assert len(commands) == 1 and commands[0].endswith("  # failed")
    (tmp_path / f"{job.id}.log").unlink()
    assert dry(*ONE, f"--runs={tmp_path}", capsys=capsys)[1][1] == failed.removesuffix(
        "ValueError: no luck"
    )


def test_the_source_of_a_run_is_all_that_it_may_import():
    names = {str(path.relative_to(ROOT)) for path in code_digest.sources()}
    for room in ("data", "evaluation", "models", "models/shared", "training"):
        files = {f"cnn_papers/{room}/{path.name}" for path in (PACKAGE / room).glob("*.py")}
        assert files and files <= names
    assert names >= {
        "cnn_papers/main.py",
        "cnn_papers/opstrings.py",
        "cnn_papers/parallel/mesh.py",
        "cnn_papers/runs/checkpoint.py",
        "cnn_papers/train.py",
        "cnn_papers/weights/initial.py",
        "cnn_papers/zoo.py",
    }
    rooms = ("benchmarks", "claims", "reporting", "sweeps")  # of which a run imports nothing
    assert not {name for name in names if name.split("/")[1] in (*rooms, "describe.py")}


def test_the_code_of_a_run_is_its_source_and_configuration():
    one, other = (plan.make_job("configs/lenet.py", {"seed": seed}) for seed in (0, 1))
    paths = code_digest.sources()
    source, less = code_digest.source_digest(paths), code_digest.source_digest(paths[1:])
    assert code_digest.digest(source, one) == code_digest.digest(source, one)
    assert code_digest.digest(source, one) != code_digest.digest(source, other)
    assert code_digest.digest(source, one) != code_digest.digest(less, one)


@pytest.mark.parametrize(
    "outcome, left, stands",
    [
        ("running", True, "stopped"),
        ("done", True, "done"),
        ("done", False, "new"),
        ("stopped", False, "stopped"),
    ],
)
def test_how_a_run_stands(outcome, left, stands, tmp_path):
    job = make_record(tmp_path, outcome, digest="")
    if not left:
        (tmp_path / job.id / "run.json").unlink()
    assert process.read(tmp_path, job).outcome == stands


def test_the_time_of_a_killed_attempt_counts(tmp_path):
    job = make_record(tmp_path, "running", digest="")
    last_word = datetime.datetime(2026, 1, 1, 0, 0, 30).timestamp()
    os.utime(tmp_path / f"{job.id}.log", (last_word, last_word))
    assert process.read(tmp_path, job).seconds == 12.0 + 30.0


def test_a_run_that_another_process_has_is_waited_for_and_then_named(tmp_path, monkeypatch, capsys):
    """A task of SLURM, say."""
    job = make_record(tmp_path, "running", digest="")
    (tmp_path / job.id / ".lock").write_text("process 7 on node1 since long")
    monkeypatch.setattr(execute, "ORPHANS_S", 0.2)
    with (tmp_path / f"{job.id}.log").open() as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        assert exit_code(sweep.cli, *ONE, f"--runs={tmp_path}") == 2
        with pytest.raises(UserError, match="is being run by another process"):
            process.start(tmp_path, job, "", "", Place())
    out, err = capsys.readouterr()
    assert out == "waiting for runs of other processes: 1\n"
    owner = "(process 7 on node1 since long)"
    assert (
        err
        == f"error: {tmp_path}/{job.id} is being run by another process {owner}; wait, or stop it\n"
    )
    assert json.loads((tmp_path / f"{job.id}.json").read_text())["attempts"] == 1


def test_a_damaged_record_is_named(tmp_path, capsys):
    job = make_record(tmp_path, "done", digest="")
    (tmp_path / f"{job.id}.json").write_text('{"outcome": "do')
    assert exit_code(sweep.cli, *ONE, f"--runs={tmp_path}", "--dry_run") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path}/{job.id}.json cannot be read: ")
    assert error.endswith(f"; remove it and {job.id} to start that run again\n")


# --- SLURM's commands -----------------------------------------------------------------------------


def test_an_array_has_a_task_for_each_run(tmp_path, capsys):
    options = [
        "--executor=slurm",
        "--jobs=3",
        "--sbatch=--partition='a b' --time=5",
        f"--runs={tmp_path}",
    ]
    commands, (submit, _) = dry(*GRID, *options, capsys=capsys)
    words = shlex.split(submit)
    assert words[0] == "sbatch" and {
        "--array=0-3%3",
        "--partition=a b",
        "--time=5",
        "--nodes=1",
    } <= set(words)
    assert words[-3:-1] == [str(ROOT / "launch/slurm.sbatch"), f"--runs={tmp_path}"]
    ids = words[-1].removeprefix("--task=").split(",")
    assert [f"--workdir={tmp_path}/{name}" for name in ids] == [
        shlex.split(line, comments=True)[-1] for line in commands
    ]


def test_more_runs_than_an_array_takes_are_several():
    jobs = [plan.Job(f"a-{i}", "", ()) for i in range(2001)]
    lines = slurm.commands(pathlib.Path("/runs"), jobs, 0, "")
    assert [word for line in lines for word in line if "array" in word] == [
        *["--array=0-999"] * 2,
        "--array=0-0",
    ]
    assert lines[2][-1] == "--task=a-2000"


def test_a_task_knows_its_run(monkeypatch):
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    assert slurm.task_of(["a"]) == "a"
    with pytest.raises(UserError, match="--task names 2 runs, and task none of an array"):
        slurm.task_of(["a", "b"])
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    assert slurm.task_of(["a", "b"]) == "b"


@pytest.fixture
def fake_slurm(tmp_path, monkeypatch) -> pathlib.Path:
    """sbatch that gives jobs the numbers 70, 71 …, and squeue that shows the file `queue`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sbatch").write_text(
        '#!/bin/bash\necho "$MODULE $@" >> "${0%/*}/said"\n'
        'echo $((69 + $(wc -l < "${0%/*}/said")));'
    )
    (folder / "squeue").write_text('#!/bin/bash\ncat "${0%/*}/queue"')
    for path in folder.iterdir():
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_what_waits_in_slurm_is_not_submitted_again(fake_slurm, tmp_path, capsys):
    folder = tmp_path / "runs"
    flags = [*GRID, "--executor=slurm", f"--runs={folder}"]
    assert exit_code(sweep.cli, *flags) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"runs in {folder}: 4 new",
        "submitted to SLURM: 4, as job 70; repeat the command to see how they go",
    ]
    assert (fake_slurm / "said").read_text().startswith("launch.sweep --parsable")
    (fake_slurm / "queue").write_text("12_0\n70_1\n70_3\n13\n")
    assert exit_code(sweep.cli, *flags) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"runs in {folder}: 4 new",
        "running or waiting in SLURM: 2",
        "submitted to SLURM: 2, as job 71; repeat the command to see how they go",
    ]
    ids = [
        job.id
        for job in request.jobs_of(
            request.Request({}, "configs/lenet.py", {"optim.lr": [0.01, 0.02]}, 2)
        )
    ]
    assert json.loads((folder / "slurm.json").read_text()) == {"70": ids, "71": [ids[0], ids[2]]}


def test_what_slurm_refuses_is_one_line(fake_slurm, tmp_path, capsys):
    (fake_slurm / "sbatch").write_text(
        "#!/bin/bash\necho 'sbatch: error: invalid partition' >&2; exit 1"
    )
    assert exit_code(sweep.cli, *GRID, "--executor=slurm", f"--runs={tmp_path}/runs") == 2
    assert capsys.readouterr().err == "error: sbatch failed: sbatch: error: invalid partition\n"
