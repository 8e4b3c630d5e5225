"""What every test shares: eight fake CPU devices, strict numerics, and the folder of real data."""

import os
import pathlib

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def test_data() -> pathlib.Path:
    """The folder of prepared real data; skips with the reason where it is absent."""
    folder = pathlib.Path(os.environ.get("CNN_PAPERS_TEST_DATA", "../shared/data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set CNN_PAPERS_TEST_DATA")
    return folder
