"""The cost of saving: it is of real saves by a run's own code, which leave nothing behind."""

import json
import math

import jax
import pytest
from support.commands import exit_code

from cnn_papers import benchmark
from cnn_papers.benchmarks import saving, wording, workload
from cnn_papers.errors import UserError
from cnn_papers.runs import checkpoint, workdir

TINY = {
    "variant": "cifar-8",
    "blocks": (1,),
    "widths": (16,),
    "num_classes": 10,
    "dtype": "float32",
}


def tiny() -> workload.Workload:
    return workload.from_paper("resnet", "cifar-8", 8, 8, "float32")._replace(model=TINY)


def test_a_runs_own_code_is_timed(tmp_path, monkeypatch):
    """The whole state, saved, checked and removed again; the lock taken and let go."""
    steps, held, save, hold = [], [], checkpoint.Checkpoints.save, workdir.hold
    monkeypatch.setattr(
        checkpoint.Checkpoints,
        "save",
        lambda self, step, state: (steps.append((step, state.step)), save(self, step, state)),
    )
    monkeypatch.setattr(workdir, "hold", lambda folder: (held.append(folder), hold(folder))[1])
    found = saving.measure(tiny(), tmp_path, every_steps=50)
    assert [step for step, _ in steps] == list(range(saving.SAVES + 1))
    assert len(held) == saving.LOCKS
    seconds = found["seconds"]
    assert set(seconds) == {"step", "blocked", "step_meanwhile", "written", "digests", "lock"}
    assert min(seconds.values()) > 0 and seconds["written"] > seconds["blocked"]
    assert found["blocked_share"] == seconds["blocked"] / seconds["step"]
    assert found["added_share"] == (seconds["digests"] + seconds["lock"]) / (50 * seconds["step"])
    state = workload.make_step(tiny()).abstract
    whole = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    assert found["bytes"] > 0.8 * whole  # compressed
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_not_there(tmp_path):
    with pytest.raises(
        UserError,
        match=f"--workdir={tmp_path}/none cannot be written to: No such file or directory",
    ):
        saving.measure(tiny(), tmp_path / "none", every_steps=50)


def test_lines():
    seconds = {
        "step": 2.0,
        "blocked": 0.1,
        "step_meanwhile": 3.0,
        "written": 7.0,
        "digests": 0.5,
        "lock": 0.001,
    }
    shares = {"blocked_share": 0.05, "added_share": 0.00501}
    facts = {"seconds": seconds, "bytes": 204_000_000, "every_steps": 50, "disk": "/runs", **shares}
    network = {"model": "resnet", "variant": "50", "input": (8, 8, 3), "dtype": "float32"}
    results = {
        "network": network,
        "batch_size": 8,
        "jax": "0.10.2",
        "load_average": 0.4,
        "clock": "wall clock",
        "saving": facts,
    }
    results["devices"] = {"count": 1, "kind": "cpu", "cpu_threads": 2}
    assert wording.as_text(results).splitlines()[2:] == [
        "        saving  blocks 100.0 ms, 5.0% of a step of 2,000.0 ms",
        "     meanwhile  204.0 MB in 7.0 s in the background, "
        "where a step takes 1.50 times as long",
        "       digests  500.0 ms a save; the lock 1.0 ms a run",
        "         added  at most 0.50% of a run that saves every 50 steps, by digests and lock",
    ]


@pytest.mark.process
def test_the_command(capfd, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    options = ("--model=resnet", "--variant=cifar-8", "--batch_size=8", "--image_size=8")
    options += ("--measure=saving", f"--workdir={tmp_path}", "--json")
    assert exit_code(benchmark.cli, *options) in (0, None)
    found = json.loads(capfd.readouterr().out)["saving"]
    assert found["every_steps"] == benchmark.EVERY_STEPS == 200 and found["disk"] == str(tmp_path)
