"""The package as others get it: an sdist, the wheel made of it, its commands in another folder."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from typing import NamedTuple

import cv2
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
TINY = [
    "--config=configs/resnet.py",
    "--config.model.blocks=(1,)",
    "--config.model.widths=(8,)",
    "--config.total_steps=2",
]
BUILD = "import sys; from setuptools import build_meta as b; print(getattr(b, sys.argv[1])('..'))"
ROOMS = ("cnn_papers", "configs", "launch", "docs", "notebooks", "results", "tests", ".ci")

pytestmark = pytest.mark.process


def run(*command: str | pathlib.Path, cwd: pathlib.Path, **environment: str) -> str:
    """Returns what a command that succeeds prints; the checkout is not on its path."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=env | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(root: pathlib.Path, room: str) -> set[pathlib.Path]:
    """Returns the paths, from `root`, of the files in a folder of it."""
    paths = [path.relative_to(root) for path in (root / room).rglob("*") if path.is_file()]
    return {path for path in paths if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The unpacked sdist; the wheel that is made of it lies beside it."""
    pytest.importorskip("setuptools", minversion="77", reason="builds the package")
    home = tmp_path_factory.mktemp("dist")
    for room in ROOMS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / room, home / "checkout" / room, ignore=ignored)
    for path in ROOT.iterdir():
        if path.is_file() and path.name != ".git":
            shutil.copy(path, home / "checkout")
    name = run(sys.executable, "-c", BUILD, "build_sdist", cwd=home / "checkout").split()[-1]
    with tarfile.open(home / name) as archive:
        archive.extractall(home, filter="data")
    folder = home / name.removesuffix(".tar.gz")
    run(sys.executable, "-c", BUILD, "build_wheel", cwd=folder)
    return folder


class Installed(NamedTuple):
    """An environment with the wheel, and an empty folder far from the checkout."""

    python: pathlib.Path
    packages: pathlib.Path
    folder: pathlib.Path

    def run(self, *command: str | pathlib.Path) -> str:
        home = self.folder.parent
        folders = {"TFDS_DATA_DIR": home / "tfds", "XDG_CACHE_HOME": home / "cache", "HOME": home}
        path = f"{self.python.parent}{os.pathsep}{os.environ['PATH']}"
        environment = {"PATH": path, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
        environment |= {name: str(place) for name, place in folders.items()}
        return run(*command, cwd=self.folder, **environment)


@pytest.fixture(scope="module")
def installed(sdist: pathlib.Path) -> Installed:
    """Its dependencies are those of this environment, whose own installation of us is not seen."""
    home = sdist.parent
    run(sys.executable, "-m", "venv", home / "venv", cwd=home)
    packages = home / "venv" / pathlib.Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    (home / "away").mkdir()
    ours = Installed(home / "venv" / "bin" / "python", packages, home / "away")
    (wheel,) = home.glob("*.whl")
    ours.run("python", "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", wheel)
    return ours


def test_the_sdist_has_what_the_repository_has(sdist):
    for name in ROOMS:
        assert files(sdist, name) == files(ROOT, name)
    pages = {path.name for path in ROOT.glob("*.md")} | {"LICENSE", "CITATION.cff"}
    assert pages <= {path.name for path in sdist.iterdir()}


def test_the_wheel_has_every_module_and_the_launchers(installed):
    for name in ("cnn_papers", "configs", "launch"):
        assert files(installed.packages, name) == files(ROOT, name)
    places = installed.run("python", "-c", "import cnn_papers, configs; print(configs.__file__)")
    assert places.strip() == str(installed.packages / "configs" / "__init__.py")
    assert os.access(installed.packages / "launch" / "local.sh", os.X_OK)


def test_every_command_works_from_another_folder(installed):
    def command(name: str, *arguments: str) -> str:
        return installed.run("python", "-m", name, *arguments)

    assert "step 2/2" in command("cnn_papers.main", *TINY)
    assert "this run is finished" in installed.run("cnn_papers", *TINY)  # the console script
    run = "runs/resnet-desk"
    image = installed.folder / "digit.png"
    cv2.imwrite(str(image), np.zeros((8, 8, 3), np.uint8))
    assert "digit.png" in command("cnn_papers.predict", f"--workdir={run}", image.name)
    command("cnn_papers.export", f"--workdir={run}", "--out=run.safetensors")
    assert (installed.folder / "run.safetensors").is_file()
    assert "report.html" in command("cnn_papers.report", run)
    assert "13,378,280" in command(
        "cnn_papers.describe", "--config=configs/googlenet.py:imagenet2012"
    )
    assert command("cnn_papers.describe", "--sources") == (ROOT / "docs/recipes.md").read_text()
    assert "already prepared" in command("cnn_papers.prepare", "digits")
    assert "2 new" in command(
        "launch.sweep", "--claim=overlapping_pooling", "--seeds=1", "--dry_run"
    )
    assert "images/s" in command("cnn_papers.benchmark", "--model=lenet", "--seconds=0")
    launcher = installed.packages / "launch" / "local.sh"
    again = installed.run(launcher, "1", *TINY, f"--workdir={run}")
    assert f"this run is finished: 2 steps in {run}" in again
