"""The documentation site in a real browser: light and dark, narrow and wide, without a network.

`CNN_PAPERS_SITE` names a folder in which it has been built; without, it is built here.
"""

import functools
import http.server
import importlib.util
import os
import pathlib
import shutil
import threading

import build_site
import pytest

pytestmark = pytest.mark.process
WIDTHS = (390, 1280)  # a telephone, a laptop
SCHEMES = ("light", "dark")
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and prints nothing."""

    def log_message(self, format, *args):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site."""
    if folder := os.environ.get("CNN_PAPERS_SITE"):
        return pathlib.Path(folder)
    if not all(importlib.util.find_spec(name) for name in ("sphinx", "myst_nb")):
        pytest.skip('no site: pip install ".[docs]", or name one in CNN_PAPERS_SITE')
    folder = tmp_path_factory.mktemp("docs") / "site"
    assert build_site.main(folder) == 0
    return folder


@pytest.fixture(scope="module")
def address(site):
    """The address of the site on this machine."""
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window."""
    api = pytest.importorskip("playwright.sync_api", reason='no playwright: pip install ".[dev]"')
    if (chromium := shutil.which("chromium")) is None:
        pytest.skip("no chromium on this machine")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """A page; at the end no script has complained, and nothing was asked of another host."""
    page = browser.new_page()
    complaints, elsewhere = [], []
    page.on(
        "console",
        lambda message: complaints.append(message.text) if message.type == "error" else None,
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: elsewhere.append(request.url))
    yield page
    page.close()
    assert complaints == []
    assert [url for url in elsewhere if not url.startswith((address, "data:"))] == []


def test_no_page_is_wider_than_its_window(page, site, address):
    places = [str(path.relative_to(site)) for path in site.rglob("*.html")]
    left_out = ("_static/", "source/")  # a page of a source file is one block, which scrolls
    places = sorted(place for place in places if not place.startswith(left_out))
    assert {"index.html", "recipes.html", "faults.html", "papers/googlenet.html"} < {*places}
    too_wide = []
    for place in places:
        page.goto(address + place)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            if overflow := page.evaluate(OVERFLOW):
                too_wide.append((place, width, overflow))
    assert too_wide == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_colours_follow_the_system(page, address, scheme):
    page.emulate_media(color_scheme=scheme)
    page.goto(address)
    assert page.locator("html").get_attribute("data-theme") == scheme
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    red, green, blue = map(int, colour.removeprefix("rgb(").removesuffix(")").split(", "))
    assert (red + green + blue > 3 * 128) == (scheme == "light")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_search_finds_googlenet(page, address, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(address)
    page.keyboard.press("Control+k")
    page.keyboard.type("GoogLeNet")
    page.keyboard.press("Enter")
    results = page.locator("#search-results a")
    results.first.wait_for()
    page.get_by_text("Search finished").first.wait_for()
    found = [link.get_attribute("href") for link in results.all()]
    assert any(link.startswith("papers/googlenet.html") for link in found)
    assert not any(link.startswith("source/") for link in found)


def test_a_name_of_the_reference_has_an_address(page, address):
    page.goto(f"{address}papers/nin.html#cnn_papers.models.nin.NIN")
    assert page.locator("dt[id='cnn_papers.models.nin.NIN']").is_visible()
