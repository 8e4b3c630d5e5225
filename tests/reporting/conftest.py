"""The sweep that tests of reports share."""

import pytest
from support.written_sweeps import CLAIMS, write_sweep

from cnn_papers.claims import catalogue


@pytest.fixture
def own_claims(monkeypatch):
    monkeypatch.setattr(catalogue, "claims_of", lambda: CLAIMS)


@pytest.fixture
def sweep(tmp_path, own_claims):
    """A sweep's folder whose runs are finished."""
    write_sweep(tmp_path / "sweep")
    return tmp_path / "sweep"
