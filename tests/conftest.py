"""Shared by all tests: fake CPU devices, strict numerics, a compilation cache, data, and a run."""

import gc
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator

import jax
import pytest

CACHE = "JAX_COMPILATION_CACHE_DIR"
CACHE_FOLDER = pytest.StashKey[str]()
# A shell's background job ignores SIGINT, and so would the processes that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Most tests compile programs that do little. In haste that takes a third of the time and
# less, and programs run slower; so do those of the processes that tests start.
HASTE = "--xla_cpu_parallel_codegen_split_count=1"
if jax.__version_info__ < (0, 11):  # XLA ends a process that names a flag it no longer has
    HASTE += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{HASTE} {os.environ.get('XLA_FLAGS', '')}"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
jax.config.update("jax_disable_most_optimizations", True)
# The cache is for processes that tests start; tests themselves compile nothing twice.
jax.config.update("jax_compilation_cache_dir", None)


def pytest_configure(config: pytest.Config) -> None:
    """Gives the processes that tests start one compilation cache for the whole test run."""
    if not hasattr(config, "workerinput"):  # the process that starts the workers
        config.stash[CACHE_FOLDER] = os.environ[CACHE] = tempfile.mkdtemp(prefix="cnn_papers-xla-")
        # A limit makes JAX note when an entry was last read; without, entries lack that note.
        os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(2**31)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes the compilation cache of the test run."""
    shutil.rmtree(config.stash.get(CACHE_FOLDER, ""), ignore_errors=True)


def pytest_collection_finish() -> None:
    """Has the garbage collector pass over all that imports made, which lives as long as tests do.

    It still looks for what a test leaves open, and each look takes less time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def test_data() -> pathlib.Path:
    """The folder of prepared real data; skips with the reason if it is absent."""
    folder = pathlib.Path(os.environ.get("CNN_PAPERS_TEST_DATA", "../shared/data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set CNN_PAPERS_TEST_DATA")
    return folder


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user has no home folder: HOME is unset, and the system does not know the user."""

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, digits_folder: pathlib.Path) -> pathlib.Path:
    """The folder of a finished run of three steps, not to be written to; `data` is beside it.

    The data set is `digits`. The network has one stage of one block and compiles in seconds.
    """
    from cnn_papers import train  # imported here: most tests need neither
    from configs import resnet

    folder = tmp_path_factory.mktemp("tiny")
    config = resnet.get_config()
    config.total_steps, config.model.blocks, config.model.widths = 3, (1,), (8,)
    config.data.data_dir = str(shutil.copytree(digits_folder, folder / "data"))
    assert train.train_and_evaluate(config, folder / "run") == train.DONE
    return folder / "run"


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A data_dir in which `digits` lies ready. Not to be written to."""
    from cnn_papers.data.tfds import make_digits  # here: most tests need none

    folder = tmp_path_factory.mktemp("digits")
    make_digits("digits", str(folder))
    return folder


@pytest.fixture(scope="session")
def scenes_folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A data_dir in which `digits/scenes` lies ready. Not to be written to."""
    from cnn_papers.data.tfds import make_digits  # here: most tests need none

    folder = tmp_path_factory.mktemp("scenes")
    make_digits("digits/scenes", str(folder))
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, digits_folder: pathlib.Path) -> pathlib.Path:
    """The folder for data, statistics and runs of a module's processes; `digits` is in `tfds`."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copytree(digits_folder, folder / "tfds")
    return folder


@pytest.fixture
def slurm(tmp_path: pathlib.Path) -> Iterator[dict[str, str]]:
    """The environment of a SLURM on this machine; skips with the reason if it cannot be started."""
    script = pathlib.Path(__file__).with_name("support") / "slurm_here.sh"
    folder = tmp_path / "slurm"
    begun = subprocess.run([script, "start", folder], capture_output=True, text=True)
    if begun.returncode == 77:
        pytest.skip(begun.stdout.strip())
    assert begun.returncode == 0, begun.stderr
    yield {"SLURM_CONF": str(folder / "slurm.conf")}
    subprocess.run([script, "stop", folder])
