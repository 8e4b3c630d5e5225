"""Generates the pages of the papers, from docstrings, facts, reported results and claims.

A page is of a paper; the config files of one paper share it. So a new paper needs no line here.
"""

import collections
import importlib
import inspect
import pathlib
import re
import textwrap
from collections.abc import Sequence
from types import ModuleType

from api_pages import autodoc

from cnn_papers import tasks, zoo
from cnn_papers.claims import catalogue, plan
from cnn_papers.facts import Claim
from cnn_papers.reporting import gather, results_file, wording
from cnn_papers.reporting.markdown import table
from cnn_papers.reporting.results import ASK_AGAIN, NOT_RUN, WORDS, ClaimResult
from cnn_papers.runs import config_files, recipe_sources, workdir

ROOT = pathlib.Path(__file__).parents[1]
RESULTS, LEDGER = ROOT / "results" / "desk.json", ROOT / "results" / "ledger.jsonl"
SAME_PAPER = {"ifv": "cnn_fms", "sppnet": "spp"}  # config files that belong to another's page
INDEX = """A page has the networks of a paper with their exact numbers, our deviations from it, the
results that it reports, the recipes, and its claims with our verdicts."""
ARXIV = re.compile(r"arXiv:(\d+\.\d+)")


def pages() -> dict[str, str]:
    """Returns the pages by their place on the site, and their index, in the order of the years."""
    verdicts = _verdicts()
    by_page = _files_by_page()
    texts = {f"papers/{page}.md": _page(files, verdicts) for page, files in by_page.items()}
    entries = [f"{_titled(page)} <{page}>" for page in by_page]
    index = ["# The papers", INDEX, "\n".join(["```{toctree}", *entries, "```"])]
    return texts | {"papers/index.md": "\n\n".join(index) + "\n"}


def verdicts_by_paper() -> str:
    """Returns a table of the number of claims of each paper by verdict, for `docs/results.md`."""
    verdicts = _verdicts()
    counts = {
        page: collections.Counter(
            verdicts[claim].word for name in files for claim in catalogue.claims_of().get(name, ())
        )
        for page, files in _files_by_page().items()
    }
    words = [*WORDS, ASK_AGAIN, NOT_RUN]
    rows = [
        (f"[{_titled(page)}](papers/{page}.md)", *(str(count[word] or "") for word in words))
        for page, count in counts.items()
        if count
    ]
    totals = [sum(count[word] for count in counts.values()) for word in words]
    return table(("paper", *words), [*rows, ("all", *map(str, totals))])


def _files_by_page() -> dict[str, list[str]]:
    """Returns the config files of every page, in the order of the papers' years."""
    by_page: dict[str, list[str]] = {}
    for file in config_files.all_files():
        name = pathlib.PurePath(file).stem
        by_page.setdefault(SAME_PAPER.get(name, name), []).append(name)
    for page, files in by_page.items():
        files.sort(key=lambda name: name != page)  # the file that gives the page its name first
    return {page: by_page[page] for page in sorted(by_page, key=lambda page: (_year(page), page))}


def _verdicts() -> dict[str, ClaimResult]:
    """Returns the verdicts on all claims by name: of the ledger, else of the desk sweep."""
    return gather.latest(results_file.read(RESULTS), LEDGER)


def _titled(page: str) -> str:
    return f"{_short_title(page)} ({_year(page)})"


def _config(name: str) -> ModuleType:
    return importlib.import_module(f"configs.{name}")


def _title(name: str) -> str:
    """Returns the first line of a config file: a paper's short name, authors and year."""
    return (_config(name).__doc__ or name).splitlines()[0].rstrip(".")


def _short_title(name: str) -> str:
    return _title(name).partition(" (")[0]


def _year(name: str) -> int:
    return int(re.findall(r"\b(?:19|20)\d\d\b", _title(name))[0])


def _page(files: Sequence[str], verdicts: dict[str, ClaimResult]) -> str:
    """Returns the page of a paper with its config files."""
    networks: dict[str, dict[str, None]] = {}  # the variants of the recipes, by network
    for name in files:
        for recipe in recipe_sources.recipes(f"configs/{name}.py"):
            config = config_files.read(f"configs/{name}.py:{recipe}")
            networks.setdefault(config.model_name, {})[config.model.variant] = None
    parts = [f"# {_short_title(files[0])}", _linked(f"{_title(files[0])}.")]
    for network, variants in networks.items():
        parts += _network(network, [*variants], whole=_owner(network) in files)
    for name in files:
        of_file = f" of `{name}`" if len(files) > 1 else ""
        parts += _reported(name, of_file)
        parts += _recipes(name, of_file)
        parts += _claims(name, of_file, verdicts)
    return "\n\n".join(parts) + "\n"


def _owner(network: str) -> str:
    """Returns the config file that has the name of a network, or the beginning of it."""
    names = [pathlib.PurePath(file).stem for file in config_files.all_files()]
    return max((name for name in names if network.startswith(name)), key=len, default=network)


# --- the network ----------------------------------------------------------------------------------


def _network(name: str, variants: Sequence[str], *, whole: bool) -> list[str]:
    """Returns the sections on a network; of another paper's only the table of these variants."""
    module = zoo.model_module(name)
    file = f"cnn_papers/models/{name}.py"
    head, link = f"## The network `{name}`", f"[`{file}`](../../{file})"
    if not whole:
        owner = _owner(name)
        about = f"{link} has it; [the page of its own paper]({owner}.md) has all of its variants."
        return [head, about, _variants(module, variants)]
    docstring = inspect.getdoc(module) or ""
    about, _, deviations = docstring.partition("Deviations:\n")
    _, *paragraphs = about.strip().split("\n\n")
    parts = [head, *map(_linked, paragraphs), f"The code: {link}."]
    if deviations:
        parts += ["### Deviations from the paper", textwrap.dedent(deviations).rstrip()]
    parts += ["### Variants", _variants(module, [*module.FACTS])]
    return [*parts, "### In Python", _reference(module)]


def _linked(text: str) -> str:
    """Returns text with links to arXiv."""
    return ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def _variants(module: ModuleType, names: Sequence[str]) -> str:
    header = ("variant", "fields", "input", "parameters", "multiply-adds", "the paper prints")
    rows = []
    for name in names:
        facts = module.FACTS[name]
        fields = ", ".join(f"`{key}={value!r}`" for key, value in module.VARIANTS[name].items())
        size = "×".join(map(str, facts.input))
        counts = (f"{facts.params:,}", f"{facts.macs:,}")
        rows.append((f"`{name}`", fields, size, *counts, facts.stated))
    return table(header, rows)


def _reference(module: ModuleType) -> str:
    """Returns the API of a network: how it is built, and its class."""
    build = module.Model
    kind = inspect.get_annotations(build, eval_str=True)["return"].__name__
    return "\n\n".join(
        [
            autodoc(f".. autofunction:: {module.__name__}.Model"),
            autodoc(f".. autoclass:: {module.__name__}.{kind}"),
        ]
    )


# --- results and recipes --------------------------------------------------------------------------


def _reported(name: str, of_file: str) -> list[str]:
    """Returns the section on what the paper reports; nothing of a config file without results."""
    results = _config(name).REPORTED
    if not results:
        return []
    header = ("recipe", "variant", "measure", "value", "data", "protocol", "ours", "source")
    rows = []
    for result in results:
        config = config_files.read(f"configs/{name}.py:{result.recipe}")
        measure = tasks.measures(config.task)[result.metric]
        row = (f"`{result.recipe}`", f"`{result.variant}`", measure.words)
        row += (measure.number(result.value), result.data, result.protocol)
        rows.append((*row, f"`{result.measured_by}`" if result.measured_by else "–", result.source))
    about = 'Column "ours" has the protocol of ours that measures in the same way.'
    return [f"## Reported results{of_file}", about, table(header, rows)]


def _recipes(name: str, of_file: str) -> list[str]:
    """Returns the section on the recipes of a config file: their commands, and how they differ."""
    file = f"configs/{name}.py"
    _, _, commands = (_config(name).__doc__ or "").partition("\n\n")
    parts = [f"## Recipes{of_file}", f"The file: [`{file}`](../../{file})."]
    parts.append(f"```text\n{textwrap.dedent(commands).strip()}\n```")
    recipes = recipe_sources.recipes(file)
    anchors = ", ".join(
        f"[`{recipe}`](../recipes.md#{_anchor(file, recipe)})" for recipe in recipes
    )
    parts.append(f"Every value with its source: {anchors}.")
    values = {recipe: _values(f"{file}:{recipe}") for recipe in recipes}
    keys = dict.fromkeys(key for of_recipe in values.values() for key in of_recipe)
    rows = []
    for key in keys:
        cells = [values[recipe].get(key, "–") for recipe in recipes]
        if len(set(cells)) > 1:
            rows.append((f"`{key}`", *cells))
    return [*parts, f"The recipes differ in {len(rows)} keys.", table(("", *recipes), rows)]


def _anchor(file: str, recipe: str) -> str:
    """Returns the part of the page of recipes that is about one of them."""
    return re.sub(r"[^\w-]", "", f"{file}:{recipe}".lower())


def _values(config: str) -> dict[str, str]:
    """Returns the values of a recipe by key, as code; fields that the variant sets are left out."""
    values = workdir.flat(config_files.read(config).to_dict())
    names = ("name", "recipe", "paper_recipe")
    return {
        key: f"`{value!r}`"
        for key, value in values.items()
        if key not in names and value is not None
    }


# --- claims ---------------------------------------------------------------------------------------


def _claims(name: str, of_file: str, verdicts: dict[str, ClaimResult]) -> list[str]:
    """Returns the section on the claims of a config file; nothing of one without claims."""
    if name not in catalogue.claims_of():
        return []
    file = f"configs/claims/{name}.py"
    parts = [f"## Claims{of_file}", f"The file: [`{file}`](../../{file})."]
    parts.append("[Results](../results.md) says how they were asked, and counts the verdicts.")
    for claim_name, claim in catalogue.claims_of()[name].items():
        parts += [f"### `{claim_name}`", _claim(claim_name, claim, verdicts[claim_name])]
    return parts


def _claim(name: str, claim: Claim, result: ClaimResult) -> str:
    """Returns what a claim says, how it is asked, and our verdict."""
    arms = _arms(claim)
    lines = [f"{claim.statement} ({claim.source})\n"]
    verdict = f"- Verdict: **{result.word}**"
    if result.word in WORDS:
        ours = f"{wording.ours(result)} {wording.interval(result)}".strip()
        seeds = f"{result.n} seed{'s' if result.n > 1 else ''}"
        verdict += f", {ours}, at scale {result.scale} with {seeds}"
    lines += [f"{verdict}.", f"- Paper: {wording.paper(result)}."]
    expected = wording.expected(result._replace(arms=dict.fromkeys(arms)))
    lines.append(f"- Measured: `{claim.metric}`, expected {expected}.")
    for arm, own in arms.items():
        values = ", ".join(f"`{key}={value!r}`" for key, value in own.items())
        lines.append(f"- Arm {arm}: {values or 'the recipe'}.")
    scale = next(iter(claim.scales))
    lines.append(f"- Ask it again: `python -m launch.sweep --claim={name} --scale={scale}`.")
    return "\n".join(lines)


def _arms(claim: Claim) -> plan.Arms:
    """Returns the arms of a claim at its first scale, each with what it sets for itself."""
    scale = claim.scales[next(iter(claim.scales))]
    return scale.arms or claim.arms
