"""Sweeps whose runs are written."""

import pytest
from support.asked_sweeps import CLAIMS, WrittenRuns

from cnn_papers.claims import catalogue
from cnn_papers.sweeps import local, process


@pytest.fixture
def written(monkeypatch):
    """The runs of a sweep over three claims, in the order of their start."""
    runs = WrittenRuns()
    monkeypatch.setattr(catalogue, "claims_of", lambda: {"resnet": CLAIMS})
    monkeypatch.setattr(local, "run_all", runs.run_all)
    monkeypatch.setattr(process, "end", lambda folder, run: process.read(folder, run.job))
    return runs
