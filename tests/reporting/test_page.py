"""The page of a report: whole by itself, and shown and printed by a real browser."""

import html.parser
import json
import pathlib
import re
import shutil
import subprocess

import cv2
import numpy as np
import pytest
from support.commands import exit_code
from support.written_sweeps import CLAIMS, judged

from cnn_papers import report
from cnn_papers.reporting import page


@pytest.mark.parametrize(
    ("name", "arms", "texts"),
    [
        (
            "resnet_lower",
            ([50.0, 52.0, 99.0], [40.0, 43.0, None]),
            ("A<b> 51.0</b> (50.0, 52.0; not in every arm: 99.0)",),
        ),
        (
            "resnet_sooner",
            ([4.0, 16.0], [1.0, 4.0]),
            ("A<b> 8.00</b> (4.00, 16.0)", "B<b> 2.00</b> (1.00, 4.00)"),
        ),
        (
            "resnet_lower",
            ([[50.0], 52.0], [40.0, 43.0]),
            ("A<b> ≥ 51.0</b> (≥ 50.0, 52.0)", "B<b> 41.5</b>"),
        ),
        ("resnet_lower", ([50.0, None], [None, 43.0]), ("A<b></b> (not in every arm: 50.0)",)),
    ],
)
def test_the_means_of_arms_go_with_the_estimate(name, arms, texts):
    claim = judged(CLAIMS["resnet"][name], *arms)
    found = "; ".join(page._arm(name, arm, claim, None) for name, arm in claim.arms.items())
    assert all(text in found for text in texts), found


class Reader(html.parser.HTMLParser):
    """Collects what a page refers to; fails if its elements are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.heads: list[dict[str, str | None]] = []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.addresses += [
            values[key] or ""
            for key in ("src", "href", "srcset", "data", "action")
            if key in values
        ]
        if tag in ("img", "svg"):
            self.images.append(values)
        if tag == "th":
            self.heads.append(values)
        assert tag not in ("script", "link", "iframe", "object", "base")
        if tag not in ("meta", "img", "br", "line", "circle", "rect", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("line", "circle", "rect", "path"):
            assert self.open.pop() == tag


def test_the_page_is_whole_and_stands_alone(sweep):
    exit_code(report.cli, str(sweep))
    text = (sweep / "report.html").read_text()
    reader = Reader()
    reader.feed(text)
    assert not reader.open
    assert all(address.startswith(("data:image/", "./resnet-")) for address in reader.addresses)
    assert "http" not in re.sub('"data:[^"]*"|http-equiv', "", text) and "url(" not in text
    assert (
        all(image.get("alt") or image.get("aria-label") for image in reader.images)
        and len(reader.images) == 6
    )
    assert all(head["scope"] in ("col", "row", "rowgroup") for head in reader.heads)
    assert "B &amp; C reach 25 % &lt;sooner&gt;." in text and "default-src 'none'" in text


def browser() -> str:
    found = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if found is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    return found


def browse(place: pathlib.Path, *arguments: str) -> str:
    """Opens the page headless, without a network; returns what Chromium prints."""
    options = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--disable-background-networking",
    )
    nowhere = "--host-resolver-rules=MAP * ~NOTFOUND"
    profile = f"--user-data-dir={place.parent / 'profile'}"
    line = [browser(), *options, nowhere, profile, *arguments, place.as_uri()]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=True).stdout


def addresses_asked(place: pathlib.Path, *arguments: str) -> list[str]:
    """Returns what a page asks the network for; the browser's own services have no origin."""
    log = place.with_suffix(".log")
    browse(place, f"--log-net-log={log}", *arguments)
    events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    return [
        event["url"]
        for event in events
        if event.get("initiator", "not an origin") != "not an origin"
    ]


def test_a_browser_shows_the_page_and_asks_for_nothing(sweep, tmp_path):
    browser()
    exit_code(report.cli, str(sweep))
    shot = sweep / "shot.png"
    assert (
        addresses_asked(sweep / "report.html", f"--screenshot={shot}", "--window-size=1200,1600")
        == []
    )
    image = cv2.imread(str(shot))
    assert image.shape[:2] == (1600, 1200)
    words, drawing = image[:400], image[800:]
    assert 0.01 < (words < 128).mean() < 0.3 and len(np.unique(drawing.reshape(-1, 3), axis=0)) > 20
    (tmp_path / "other.html").write_text(
        '<img src="http://127.0.0.1:9/x.png">'
    )  # such a page would be noticed
    assert "http://127.0.0.1:9/x.png" in addresses_asked(tmp_path / "other.html", "--dump-dom")


def test_a_browser_prints_the_page(sweep):
    browser()
    exit_code(report.cli, str(sweep))
    browse(
        sweep / "report.html", f"--print-to-pdf={sweep / 'report.pdf'}", "--no-pdf-header-footer"
    )
    printed = (sweep / "report.pdf").read_bytes()
    assert printed.startswith(b"%PDF") and len(printed) > 20_000
