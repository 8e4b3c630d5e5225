"""The notebooks: stripped, each for Colab with the same first cell, and run from top to bottom."""

import json
import pathlib
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Outputs of each that a run from top to bottom gives, beside its pictures.
SHOWS = {
    "claims": ("without", "points ["),
    "detection": ("mAP",),
    "googlenet": ("13,378,280", "best"),
    "papers_tests": ("crops_144", "vgg_dense"),
    "two_columns": ("all-gather 36,864 B", "fc8"),
    "weights": ("largest difference", "'conv5_2': (1, 7, 7, 512)"),
}


def cells(path: pathlib.Path, kind: str) -> list[str]:
    """The sources of the cells of a kind, in their order."""
    notebook = json.loads(path.read_text())
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_every_notebook_has_its_outputs_below():
    assert {path.stem for path in NOTEBOOKS} == set(SHOWS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(path):
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and not any(cell.outputs or cell.execution_count for cell in code)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_opens_in_colab_installs_over_no_jax_and_shows_the_devices(path):
    repository = PROJECT["urls"]["Repository"]
    place = f"{repository.removeprefix('https://github.com/')}/blob/main/notebooks/{path.name}"
    address = f"https://colab.research.google.com/github/{place}"
    assert f"({address})" in cells(path, "markdown")[0]
    install, devices, *_ = cells(path, "code")
    assert f'"cnn_papers[hub] @ git+{repository}"' in install
    assert install == cells(NOTEBOOKS[0], "code")[0]
    assert "-c keep.txt" in install and '("jax", "jaxlib")' in install
    assert devices.endswith("jax.devices()")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_from_top_to_bottom(path, tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    if path.stem == "weights":
        pytest.importorskip("torchvision", exc_type=Exception)  # its build must fit that of torch
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    text = json.dumps(outputs)
    assert [words for words in SHOWS[path.stem] if words not in text] == []
    assert ("image/png" in text) == (path.stem != "weights")
