"""The pictures of the README."""

import pathlib
import re

import pictures
import pytest

from cnn_papers.reporting import results_file

ROOT = pathlib.Path(__file__).parents[2]
PICTURE = re.compile(r"!\[([^]]*)\]\(([^)]+)\)")


@pytest.fixture(scope="module")
def claims():
    return pictures.in_points(results_file.read(ROOT / "results" / "desk.json").claims)


def test_every_picture_of_the_readme_is_small_and_has_a_text():
    found = PICTURE.findall((ROOT / "README.md").read_text())
    assert len(found) == 2
    for text, file in found:
        assert len(text) > 40
        assert (ROOT / file).stat().st_size < 100_000


def test_what_the_paper_says_lies_to_the_right(claims):
    claim = claims[0]._replace(expect="lower", estimate=-2.0, low=-3.0, high=-1.0)
    assert pictures.towards_the_claim(claim) == (2.0, 1.0, 3.0)
    claim = claim._replace(expect="higher")
    assert pictures.towards_the_claim(claim) == (-2.0, -3.0, -1.0)


def test_the_picture_has_a_row_for_every_claim_about_top1_error_that_has_a_verdict(
    claims, tmp_path, monkeypatch
):
    monkeypatch.setitem(pictures.SETTINGS, "svg.fonttype", "none")  # text as text
    pictures.draw_claims(claims, tmp_path / "claims.svg")
    drawn = (tmp_path / "claims.svg").read_text()
    assert len(claims) > 20
    assert all(f">{claim.label}</text>" in drawn for claim in claims)
    assert "disagrees" not in drawn or any(claim.word == "disagrees" for claim in claims)
