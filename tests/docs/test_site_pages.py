"""The pages of the documentation site, before Sphinx makes HTML of them."""

import importlib.util
import pathlib
import re

import api_pages
import build_site
import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def texts():
    return build_site.pages(ROOT / "notebooks")


@pytest.fixture(scope="module")
def nin(texts):
    return texts["papers/nin.md"][1]


def test_no_link_of_a_page_leads_nowhere(texts):
    assert build_site.with_sources(texts).keys() > texts.keys()


@pytest.mark.parametrize(
    ("place", "file", "link", "rewritten"),
    [
        ("how-to/x.md", "docs/how-to/x.md", "../results.md", "../results.md"),
        ("x.md", "docs/x.md", "results.md#desk-recipes", "results.md#desk-recipes"),
        ("x.md", "docs/x.md", "#a-part", "#a-part"),
        ("x.md", "docs/x.md", "https://arxiv.org/abs/1", "https://arxiv.org/abs/1"),
        ("x.md", "docs/x.md", "../configs/nin.py", "source/configs/nin.py.md"),
        ("how-to/x.md", "docs/how-to/x.md", "../../LICENSE", "../source/LICENSE.md"),
        ("how-to/x.md", "docs/how-to/x.md", "../../WORKSPACE.md", "../design.md"),
        ("how-to/x.md", "docs/how-to/x.md", "../../README.md", "../index.md"),
        ("design.md", "WORKSPACE.md", "docs/results.md", "results.md"),
        ("index.md", "docs/index.md", "_static/claims.svg", "_static/claims.svg"),
        ("how-to/x.md", "docs/how-to/x.md", "../_static/claims.svg", "../_static/claims.svg"),
        ("notebooks/x.ipynb", "notebooks/x.ipynb", "../docs/results.md", "../results.md"),
    ],
)
def test_a_link_as_on_github_leads_to_the_page_of_the_site(place, file, link, rewritten):
    results = {"results.md": ("docs/results.md", "")}
    page = {place: (file, f"See [it]({link}).")}
    assert build_site.with_sources(results | page)[place] == f"See [it]({rewritten})."


def test_the_home_page_begins_as_the_readme_does(texts):
    page = texts["index.md"][1]
    introduction = build_site.introduction()
    assert page.startswith(f"# cnn_papers\n\n{introduction}\n\n")
    readme = (ROOT / "README.md").read_text()
    assert introduction.splitlines()[0] in readme and "](_static/curves.png)" in introduction
    assert "--config=configs/googlenet.py" in introduction and "pytest" not in introduction


def test_the_results_count_the_verdicts_of_every_paper_with_claims(texts):
    rows = [line.strip("| ").split(" | ") for line in texts["results.md"][1].splitlines()]
    papers = {row[0]: row[1:] for row in rows if "](papers/" in row[0]}
    claims_of = {page: text for page, (_, text) in texts.items() if "\n- Verdict: " in text}
    assert {name.partition("(papers/")[2].rstrip(")") for name in papers} == {
        page.removeprefix("papers/") for page in claims_of
    }
    (total,) = [row[1:] for row in rows if row[0] == "all"]
    verdicts = "".join(claims_of.values()).count("\n- Verdict: ")
    assert sum(map(int, total)) == verdicts > 90


def test_a_source_that_a_page_links_to_is_on_the_site_and_left_out_of_the_search():
    pages = build_site.with_sources({"x.md": ("docs/x.md", "[NIN](../configs/nin.py)")})
    page = pages["source/configs/nin.py.md"]
    assert page.startswith("---\norphan: true\nnosearch: true\n---\n# configs/nin.py\n")
    assert (ROOT / "configs" / "nin.py").read_text() in page


def test_a_link_to_a_missing_file_is_an_error_that_names_page_and_link():
    with pytest.raises(FileNotFoundError, match=r"docs/x\.md links to \.\./configs/gone\.py"):
        build_site.with_sources({"x.md": ("docs/x.md", "[it](../configs/gone.py)")})


def test_every_guide_has_its_place_in_the_contents():
    index = (ROOT / "docs" / "index.md").read_text().splitlines()
    guides = {path.stem for path in (ROOT / "docs" / "how-to").glob("*.md")}
    assert guides == {line[len("how-to/") :] for line in index if line.startswith("how-to/")}


def test_every_config_file_is_on_the_page_of_a_paper(texts):
    papers = "\n".join(text for place, (_, text) in texts.items() if place.startswith("papers/"))
    files = {path.stem for path in (ROOT / "configs").glob("*.py")} - {"__init__", "common"}
    assert set(re.findall(r"The file: \[`configs/(\w+)\.py`\]", papers)) == files
    networks = {path.stem for path in (ROOT / "cnn_papers" / "models").glob("*.py")} - {"__init__"}
    assert set(re.findall(r"The code: \[`cnn_papers/models/(\w+)\.py`\]", papers)) == networks


def test_papers_are_in_the_order_of_their_years(texts):
    years = re.findall(r"\((\d{4})\) <", texts["papers/index.md"][1])
    assert len(years) == 12 and years == sorted(years)


@pytest.mark.parametrize(
    "text",
    [
        "# Network in Network\n",
        "[arXiv:1312.4400](https://arxiv.org/abs/1312.4400)",
        "\n- The paper does not print its channel counts; they are those of",
        "| `cifar10_fc` | `head='fc'` | 32×32×3 | 973,396 | 222,492,928 |  |",
        ".. autoclass:: cnn_papers.models.nin.NIN\n",
        "| `cifar100` | `cifar100` | top-1 error | 35.68% | cifar100[test] | no augmentation |",
        "[`cifar10`](../recipes.md#configsninpycifar10)",
        "| `optim.weight_decay` | `0.0001` | `0.0001` | `0.0005` |",
        "### `average_pooling_is_smaller`\n",
        "- Verdict: **agrees**, −6,410, at scale exact with 1 seed.",
        "- Measured: `last('val/top1_error')`, expected lower in mlpconv.",
        "- Arm without: `model.dropout=0.0`.",
        "`python -m launch.sweep --claim=mlpconv --scale=desk`",
    ],
)
def test_the_page_of_a_paper_has(nin, text):
    assert text in nin


def test_a_value_that_all_recipes_share_is_not_among_their_differences(nin):
    assert "| `optim.momentum` |" not in nin


def test_a_network_of_another_paper_has_only_the_variants_of_the_recipes(texts):
    page = texts["papers/batch_norm.md"][1]
    assert "[the page of its own paper](alexnet.md)" in page
    assert "| `batch_norm` |" in page and "| `one_tower` |" not in page


def test_modules_of_the_reference_exist():
    modules = [module for group in api_pages.GROUPS.values() for module in group.modules]
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []
