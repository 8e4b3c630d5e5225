"""Generates the API reference: a page for each group of the modules that a user imports."""

from typing import NamedTuple


class Group(NamedTuple):
    """A page of the reference.

    Attributes:
      title: of the page.
      about: a sentence below it.
      modules: those whose public functions and classes it lists.
    """

    title: str
    about: str
    modules: tuple[str, ...]


GROUPS = {
    "networks": Group(
        "Networks",
        "A network is found by the name of its file. The classes are on the pages of their papers.",
        (
            "cnn_papers",
            "cnn_papers.zoo",
            "cnn_papers.counting",
            "cnn_papers.weights.trained",
            "cnn_papers.weights.predictor",
            "cnn_papers.weights.features",
        ),
    ),
    "data": Group(
        "Images",
        "Op strings such as `decode|resize_short(256)` name these functions in a config.",
        ("cnn_papers.data.host_ops", "cnn_papers.data.device_ops", "cnn_papers.opstrings"),
    ),
    "training": Group(
        "The train step",
        "Pure functions of arrays, and the settings that they take from a config.",
        (
            "cnn_papers.training.step",
            "cnn_papers.training.losses",
            "cnn_papers.training.optim",
            "cnn_papers.training.schedules",
        ),
    ),
    "evaluation": Group(
        "Protocols and analyses",
        "`config.eval.protocol` and `config.eval.analyses` name these functions.",
        (
            "cnn_papers.evaluation.protocols",
            "cnn_papers.detection.overfeat_protocols",
            "cnn_papers.detection.window_protocols",
            "cnn_papers.evaluation.analyses",
        ),
    ),
    "claims": Group(
        "Facts, reported results and claims",
        "The types of what papers state, and the metrics that claims are measured by.",
        ("cnn_papers.facts", "cnn_papers.claims.catalogue", "cnn_papers.claims.metrics"),
    ),
    "commands": Group(
        "Commands",
        "`--helpfull` prints the flags of a command.",
        (
            "cnn_papers.main",
            "cnn_papers.describe",
            "cnn_papers.predict",
            "cnn_papers.export",
            "cnn_papers.prepare",
            "cnn_papers.benchmark",
            "cnn_papers.report",
            "launch.sweep",
        ),
    ),
}


def pages() -> dict[str, str]:
    """Returns the pages by their place on the site."""
    index = ["# API reference\n", "```{toctree}", *GROUPS, "```\n"]
    return {
        "api/index.md": "\n".join(index),
        **{f"api/{name}.md": _page(group) for name, group in GROUPS.items()},
    }


def _page(group: Group) -> str:
    """Returns one page; of commands only the docstrings of the modules."""
    members = [] if group.title == "Commands" else ["   :members:"]
    parts = [f"# {group.title}", group.about]
    for module in group.modules:
        parts.append(f"## `{module}`")
        parts.append(autodoc(f".. automodule:: {module}", *members))
    return "\n\n".join(parts) + "\n"


def autodoc(*lines: str) -> str:
    """Returns a directive of Sphinx's autodoc in a page of Markdown."""
    return "\n".join(["```{eval-rst}", *lines, "```"])
