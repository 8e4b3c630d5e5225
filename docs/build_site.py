"""Builds the documentation site: python docs/build_site.py [FOLDER], by default build/site.

Needs the extra `docs`. The site has the pages of docs/, those that are generated (a page for each
paper, the API reference), the notebooks, WORKSPACE.md, and every source file that a page links to.
A comment of a page that is in INSERTED makes room for another text. All are put together beside
FOLDER, in `FOLDER.pages`. A warning of Sphinx is an error, and so is a link to a file that does not
exist.
"""

import os
import pathlib
import re
import shutil
import sys

import api_pages
import paper_pages

ROOT = pathlib.Path(__file__).parents[1]
LINK = re.compile(r"(?<=\]\()([^)\s#]*)(?=[)#])")  # the address in [text](address#part)
PICTURE_ELSEWHERE = re.compile(r"!\[([^]]*)\]\(https?:[^)]*\)")  # ![text](address)
ELSEWHERE = {"README.md": "index.md", "WORKSPACE.md": "design.md"}  # pages outside docs/
INTRODUCTION = re.compile(r"^# cnn_papers\n\n(.*?)\n\n(?=To run the tests:)", re.DOTALL)
LANGUAGES = {".py": "python", ".sh": "bash", ".sbatch": "bash", ".yaml": "yaml", ".json": "json"}


def pages(notebooks: pathlib.Path) -> dict[str, tuple[str, str]]:
    """Returns the pages by their place on the site: (file of the repository, text).

    The links of a text are as seen from that file. `notebooks` is a folder of notebooks, which may
    have been executed.
    """
    texts = {}
    for path in sorted((ROOT / "docs").rglob("*.md")):
        file = path.relative_to(ROOT)
        texts[str(file.relative_to("docs"))] = (str(file), with_insertions(path.read_text()))
    for path in sorted(notebooks.glob("*.ipynb")):
        texts[f"notebooks/{path.name}"] = (f"notebooks/{path.name}", path.read_text())
    design = (ROOT / "WORKSPACE.md").read_text().replace("# WORKSPACE", "# Design", 1)
    texts["design.md"] = ("WORKSPACE.md", design)
    for place, text in {**paper_pages.pages(), **api_pages.pages()}.items():
        texts[place] = (f"docs/{place}", text)
    return texts


def introduction() -> str:
    """Returns the beginning of README.md, up to its tests, with links as seen from docs/."""
    found = INTRODUCTION.match((ROOT / "README.md").read_text())
    assert found, "README.md does not begin as INTRODUCTION says"
    return found[1].replace("](docs/", "](")


INSERTED = {
    "<!-- the introduction of README.md -->": introduction,
    "<!-- verdicts by paper -->": paper_pages.verdicts_by_paper,
}


def with_insertions(text: str) -> str:
    """Returns a page with what is in INSERTED for its comments."""
    for comment, write in INSERTED.items():
        if comment in text:
            text = text.replace(comment, write())
    return text


def with_sources(texts: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Returns the pages with links as on the site, and a page for every source that they link to.

    A picture of another host, such as a notebook's badge, becomes its text: the site asks nothing
    of other hosts.

    Raises:
      FileNotFoundError: a page links to a file that does not exist.
    """
    on_site = {file: place for place, (file, _) in texts.items()} | ELSEWHERE
    sources: dict[str, str] = {}

    def address(link: re.Match[str], place: str, file: str) -> str:
        if not link[0] or ":" in link[0]:  # a part of this page, or another host
            return link[0]
        linked = os.path.normpath(os.path.join(os.path.dirname(file), link[0]))
        if linked.startswith("docs/_static/"):
            return os.path.relpath(linked.removeprefix("docs/"), os.path.dirname(place))
        if linked not in on_site:
            if not (ROOT / linked).is_file():
                raise FileNotFoundError(f"{file} links to {link[0]}, which is no file")
            sources[linked] = on_site[linked] = f"source/{linked}.md"
        return os.path.relpath(on_site[linked], os.path.dirname(place))

    rewritten = {}
    for place, (file, text) in texts.items():

        def replace(link: re.Match[str], place: str = place, file: str = file) -> str:
            return address(link, place, file)

        rewritten[place] = LINK.sub(replace, PICTURE_ELSEWHERE.sub(r"\1", text))
    return rewritten | {place: source_page(file) for file, place in sources.items()}


def source_page(file: str) -> str:
    """Returns the page of a source file, which the search leaves out."""
    language = LANGUAGES.get(pathlib.PurePath(file).suffix, "text")
    source = (ROOT / file).read_text()
    return f"---\norphan: true\nnosearch: true\n---\n# {file}\n\n``````{language}\n{source}``````\n"


def main(folder: pathlib.Path) -> int:
    """Builds the site in `folder`; returns the exit code of Sphinx."""
    from sphinx.cmd.build import main as sphinx_build

    together = folder.with_name(f"{folder.name}.pages")
    for old in (folder, together):
        shutil.rmtree(old, ignore_errors=True)
    notebooks = pathlib.Path(os.environ.get("CNN_PAPERS_NOTEBOOKS", ROOT / "notebooks"))
    for place, text in with_sources(pages(notebooks)).items():
        path = together / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    shutil.copytree(ROOT / "docs" / "_static", together / "_static")  # the pictures of the pages
    return sphinx_build(
        ["-W", "--keep-going", "-q", "-c", str(ROOT / "docs"), str(together), str(folder)]
    )


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "site")))
