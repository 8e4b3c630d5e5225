"""Launchers: the local one and SLURM for real, TPU pods and Kubernetes by what they print."""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time

import pytest
import yaml

from cnn_papers.data.tfds import make_digits
from cnn_papers.parallel import hosts
from cnn_papers.runs.rows import METRICS, read_rows

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = sorted(
    str(path.relative_to(ROOT))
    for path in [*ROOT.glob("launch/*.s[hb]*"), *ROOT.glob("tests/support/*.sh")]
)
RUN = [
    "--config=configs/resnet.py",
    "--config.data.train_host=decode|resize(32, method='bi\"cubic')",
    "a b$(c)",
]
GKE = [
    *(
        "--name=resnet",
        "--image=registry/cnn_papers:1",
        "--accelerator=tpu-v5-lite-podslice",
        "--topology=4x4",
    ),
    *("--hosts=4", "--chips=4", "--claim=runs"),
]
FAKE = """#!/usr/bin/env bash
# Stands for python: the first process does what $FIRST says, the others wait to be asked to stop
if [[ "$1" == -c ]]; then exec {python} "$@"; fi
if [[ "$*" == *--process_id=0* ]]; then eval "$FIRST"; exit; fi
trap 'echo "$@" asked to stop; exit 143' TERM
mktemp "$0.waiting.XXXX" > /dev/null
for _ in {{1..600}}; do sleep 0.05; done
"""


def when_waiting(others: int) -> str:
    """Bash for the first process: goes on once so many others wait."""
    waiting = '$(find "${0%/*}" -name "*.waiting.*" | wc -l)'
    return f"until (({waiting} == {others})); do sleep 0.05; done; "


def launch(*command: str, **environment: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "JAX_PLATFORMS": "cpu", **environment}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_clean(script):
    assert len(SCRIPTS) >= 5
    assert "\nset -euo pipefail\n" in (ROOT / script).read_text()
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck on this machine")
    done = launch("shellcheck", script)
    assert (done.returncode, done.stdout) == (0, "")


# --- several processes on this machine ------------------------------------------------------------


@pytest.fixture
def fake(tmp_path) -> str:
    """A stand-in for python that needs no second to start."""
    path = tmp_path / "python"
    path.write_text(FAKE.format(python=sys.executable))
    path.chmod(0o755)
    return str(path)


def test_all_processes_get_the_flags_and_their_number(fake):
    done = launch("launch/local.sh", "1", *RUN, PYTHON=fake, FIRST='printf "%s\\n" "$@"')
    coordinator, *rest = done.stdout.splitlines()[2:]
    assert re.fullmatch(r"--coordinator=127\.0\.0\.1:\d+", coordinator)
    assert (done.returncode, rest) == (0, ["--num_processes=1", "--process_id=0", *RUN])


def test_when_one_fails_the_others_are_stopped(fake):
    done = launch("launch/local.sh", "3", "flag", PYTHON=fake, FIRST=when_waiting(2) + "exit 7")
    assert done.returncode == 7
    said = done.stdout.splitlines()
    assert len(said) == 2 and all(line.endswith("flag asked to stop") for line in said)


def test_what_does_not_stop_is_killed(fake, tmp_path):
    script = pathlib.Path(fake)
    script.write_text(script.read_text().replace("trap '", "trap '' TERM #"))
    began = time.monotonic()
    done = launch(
        "launch/local.sh", "2", PYTHON=fake, FIRST=when_waiting(1) + "exit 7", GRACE_S="1"
    )
    assert done.returncode == 7 and 1 <= time.monotonic() - began < 20


@pytest.mark.fault("signal: to `launch/local.sh`", "every process gets it")
@pytest.mark.parametrize("number", ["TERM", "INT", "USR1"])
def test_a_signal_reaches_every_process(fake, number):
    passed = {"INT": "TERM"}.get(number, number)
    first = f"trap 'echo first got {passed}; exit 143' {passed}; kill -{number} $PPID; "
    first += "for _ in {1..200}; do sleep 0.05; done"
    script = pathlib.Path(fake)
    script.write_text(script.read_text().replace("exit 143' TERM", f"exit 143' {passed}"))
    done = launch("launch/local.sh", "2", "flag", PYTHON=fake, FIRST=when_waiting(1) + first)
    assert done.returncode == 143
    assert "first got" in done.stdout and "flag asked to stop" in done.stdout


@pytest.mark.parametrize("arguments", [[], ["0"], ["--config=x"]])
def test_the_number_of_processes_comes_first(arguments):
    done = launch("launch/local.sh", *arguments)
    assert (done.returncode, done.stderr) == (
        2,
        "usage: launch/local.sh N --config=configs/PAPER.py [FLAGS...]\n",
    )


def test_gpus_are_shared_out(fake):
    done = launch(
        "launch/local.sh",
        "1",
        PYTHON=fake,
        FIRST="echo $CUDA_VISIBLE_DEVICES",
        CUDA_VISIBLE_DEVICES="4,6",
    )
    assert done.stdout == "4,6\n"
    done = launch(
        "launch/local.sh",
        "2",
        PYTHON=fake,
        FIRST="echo $CUDA_VISIBLE_DEVICES; exit 3",
        CUDA_VISIBLE_DEVICES="4,6",
    )
    assert done.stdout.splitlines()[0] == "4"
    done = launch("launch/local.sh", "3", PYTHON=fake, CUDA_VISIBLE_DEVICES="4,6")
    assert done.returncode == 2 and "2 GPUs do not divide over 3 processes" in done.stderr


# --- TPU pods and Kubernetes ----------------------------------------------------------------------


def test_a_tpu_pod_is_made_filled_run_and_removed():
    options = [
        "--name=pod",
        "--zone=z1",
        "--create=v5litepod-16",
        "--spot",
        "--delete",
        "--project=p",
        "--dry_run",
    ]
    done = launch("launch/tpu_pod.sh", *options, "--", *RUN, TMPDIR="/tmp")
    assert (done.returncode, done.stderr) == (0, "")
    make, pack, copy, install, train, remove = map(shlex.split, done.stdout.splitlines())
    where, tpu = ["--zone=z1", "--project=p"], ["gcloud", "compute", "tpus", "tpu-vm"]
    version = "--version=v2-alpha-tpuv5-lite"
    assert make == [
        *tpu,
        "create",
        "pod",
        *where,
        "--accelerator-type=v5litepod-16",
        version,
        "--spot",
    ]
    assert pack == [
        "git",
        "archive",
        "--format=tar.gz",
        "--output=/tmp/cnn_papers-pod.tar.gz",
        "HEAD",
    ]
    file = "cnn_papers-pod.tar.gz"
    assert copy == [*tpu, "scp", f"/tmp/{file}", f"pod:{file}", *where, "--worker=all"]
    assert install[:-1] == train[:-1] == [*tpu, "ssh", "pod", *where, "--worker=all"]
    assert file in install[-1] and "'cnn_papers[tpu]'" in install[-1]
    enter, start = train[-1].removeprefix("--command=").split(" && ")
    assert enter == "cd cnn_papers"
    assert shlex.split(start) == ["python3", "-m", "cnn_papers.main", "--coordinator=auto", *RUN]
    assert remove == [*tpu, "delete", "pod", *where, "--quiet"]


def test_a_jobset_places_its_processes():
    done = launch("launch/gke.sh", *GKE, "--restarts=3", "--dry_run", "--", *RUN)
    assert (done.returncode, done.stderr) == (0, "")
    jobset = yaml.safe_load(done.stdout)
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert jobset["metadata"] == {"name": "resnet"} and jobset["spec"]["failurePolicy"] == {
        "maxRestarts": 3
    }
    (job,) = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert (spec["completionMode"], spec["parallelism"], spec["completions"]) == ("Indexed", 4, 4)
    pod = spec["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
    }
    (container,) = pod["containers"]
    assert [*container["command"], *container["args"]] == ["python", "-m", "cnn_papers.main", *RUN]
    assert container["resources"] == {"limits": {"google.com/tpu": 4}}
    environment = {item["name"]: item.get("value", "2") for item in container["env"]}
    # Pods of a JobSet are found as <jobset>-<job>-<replica>-<index>.<jobset>.
    assert hosts.find_place("", None, None, environment) == hosts.Place(
        "resnet-hosts-0-0.resnet:8476", 4, 2
    )
    assert "${" not in done.stdout


@pytest.mark.parametrize(
    "command, message",
    [
        (["launch/tpu_pod.sh", "--", "x"], "--name and --zone are missing"),
        (
            ["launch/tpu_pod.sh", "--nme=x"],
            "unknown option '--nme=x'; flags of the run come after --",
        ),
        (
            ["launch/tpu_pod.sh", "--name=A b", "--zone=z", "--", "x"],
            "--name=A b: small letters, digits and hyphens",
        ),
        (
            ["launch/tpu_pod.sh", "--name=a", "--zone=z"],
            "the run's flags are missing: -- --config=configs/PAPER.py",
        ),
        (["launch/gke.sh", "--name=run", "--", "x"], "--image=… is missing"),
        (["launch/gke.sh", *GKE], "the run's flags are missing: -- --config=configs/PAPER.py"),
        (["launch/gke.sh", *GKE, "--hosts=many", "--", "x"], "--hosts=many must be a number"),
        (
            ["launch/gke.sh", *GKE, "--claim=", "--", "x"],
            "--claim=: small letters, digits, hyphens",
        ),
        (["launch/gke.sh", *GKE, "--image=a: {b}", "--", "x"], "--image=a: {b} is no image's name"),
        (["launch/gke.sh", *GKE, "--", "a\nb"], "a flag holds a line break"),
    ],
)
def test_mistakes_are_one_line(command, message):
    done = launch(*command, PATH=os.environ["PATH"])
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {message}\n")


# --- SLURM ----------------------------------------------------------------------------------------


@pytest.mark.fault("signal: SLURM's time limit", "saved, requeued, gone on")
@pytest.mark.slow
def test_a_slurm_job_saves_at_its_time_limit_and_goes_on(slurm, tmp_path):
    make_digits("digits", str(tmp_path / "tfds"))
    environment = {**slurm, "PYTHON": sys.executable, "TFDS_DATA_DIR": str(tmp_path / "tfds")}
    environment |= {"JAX_NUM_CPU_DEVICES": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    output, workdir = tmp_path / "job.txt", tmp_path / "run"
    options = [
        "--parsable",
        "--nodes=1",
        "--ntasks-per-node=2",
        "--time=1",
        "--signal=USR1@30",
        f"--output={output}",
    ]
    flags = [
        "--config=configs/resnet.py",
        "--config.model.blocks=(1,)",
        "--config.model.widths=(8,)",
    ]
    flags += [
        "--config.total_steps=1000000",
        "--config.log_every_steps=5",
        "--config.eval.every_epochs=1000",
    ]
    flags += ["--config.checkpoint.every_steps=1000000", f"--workdir={workdir}"]
    begun = launch("sbatch", *options, "launch/slurm.sbatch", *flags, **environment)
    assert begun.returncode == 0, begun.stderr
    job = begun.stdout.strip()

    def wait_for(pattern: str) -> str:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            if found := re.search(pattern, output.read_text() if output.exists() else ""):
                return found[1]
            time.sleep(0.2)
        raise AssertionError(f"no '{pattern}' in {output.exists() and output.read_text()}")

    wait_for(f"(job {job} on .*, start 1\n)")
    wait_for("(time limit: saved, back into the queue)")
    step = wait_for("going on from step ([0-9]+) of")
    assert "2 × cpu of 2 processes" in output.read_text() and f"job {job} on" in output.read_text()
    assert int(step) > 0 and (workdir / "checkpoints" / f"{int(step):08d}").is_dir()
    assert all(row["step"] > 0 for row in read_rows(workdir / METRICS))
    launch("scancel", job, **environment)
    wait_for("(CANCELLED AT .*)")
    deadline = time.monotonic() + 60
    while (
        left := launch("squeue", "--noheader", **environment).stdout.strip()
    ) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == ""  # what is cancelled does not come back
    shown = launch("scontrol", "--json", "show", "job", job, **environment)
    if shown.returncode == 0 and shown.stdout.startswith("{"):
        assert "CANCELLED" in json.dumps(json.loads(shown.stdout)["jobs"][0]["job_state"])
