"""Starts runs in processes of their own, and compares two runs to the bit."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp

from cnn_papers.runs.rows import METRICS

ROOT = pathlib.Path(__file__).parents[2]
NETWORK = {"blocks": (1,), "widths": (8,)}  # one stage of one block compiles in seconds
TINY = [
    "--config=configs/resnet.py",
    *(f"--config.model.{field}={value}" for field, value in NETWORK.items()),
    "--config.batch_size=32",
]
MAIN = ("-m", "cnn_papers.main")


def start(
    home: pathlib.Path,
    workdir: pathlib.Path,
    *flags: str,
    quick: bool = True,
    devices: int = 1,
    program: tuple[str, ...] = MAIN,
    cache: pathlib.Path | None = None,
    log: pathlib.Path | None = None,
) -> subprocess.Popen:
    """Starts the command line with the data and caches of `home`; its output comes through pipes.

    Args:
      home: folder with data and caches.
      workdir: folder of the run.
      flags: of the command.
      quick: compile in the haste of the tests; False compiles as a user's process does.
      devices: number of CPU devices.
      program: arguments of Python instead of the command.
      cache: folder for compiled programs instead of that in `home`.
      log: a file to append the output to, instead of the pipes.
    """
    command = [sys.executable, *program, f"--workdir={workdir}", *flags]
    env = {**os.environ, "TFDS_DATA_DIR": str(home / "tfds"), "XDG_CACHE_HOME": str(home / "cache")}
    env |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": str(int(quick)), "JAX_PLATFORMS": "cpu"}
    env |= {"JAX_NUM_CPU_DEVICES": str(devices)} | ({} if quick else {"XLA_FLAGS": ""})
    env |= {"JAX_COMPILATION_CACHE_DIR": str(cache)} if cache else {}
    if log:
        with log.open("a") as file:
            return subprocess.Popen(command, cwd=ROOT, env=env, stdout=file, stderr=file)
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True)


def run(home: pathlib.Path, workdir: pathlib.Path, *flags: str, **options) -> tuple[int, str, str]:
    """Runs the command line; returns exit code, stdout and stderr."""
    child = start(home, workdir, *flags, **options)
    out, err = child.communicate()
    return child.returncode, out, err


def wait_for(child: subprocess.Popen, beginning: str) -> None:
    """Reads the output of `child` up to a line with this beginning."""
    assert child.stdout
    for line in child.stdout:
        if line.startswith(beginning):
            return
    raise AssertionError(f"no line '{beginning}…'; stderr: {child.stderr and child.stderr.read()}")


def arrays(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns every array of every checkpoint in `folder`, by step, item and path."""
    by_name = {}
    for item in sorted(folder.glob("*/model")) + sorted(folder.glob("*/training")):
        reader = ocp.PyTreeCheckpointer()
        as_numpy = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray),
            reader.metadata(item).item_metadata.tree,
        )
        tree = reader.restore(item, restore_args=as_numpy)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            name = f"{item.relative_to(folder)}{jax.tree_util.keystr(path)}"
            by_name[name] = np.asarray(leaf)
    return by_name


def assert_same_run(ours: pathlib.Path, golden: pathlib.Path) -> None:
    """Compares metrics byte by byte, and the newest checkpoints bit by bit."""
    assert (ours / METRICS).read_bytes() == (golden / METRICS).read_bytes()
    for kind in ("checkpoints", "best"):
        expected = arrays(golden / kind)
        newest = max(name[:8] for name in expected)
        expected = {name: value for name, value in expected.items() if name.startswith(newest)}
        actual = {
            name: value for name, value in arrays(ours / kind).items() if name.startswith(newest)
        }
        assert actual.keys() == expected.keys() and len(actual) > 20
        for name, value in actual.items():
            assert value.dtype == expected[name].dtype, name
            assert value.tobytes() == expected[name].tobytes(), name
