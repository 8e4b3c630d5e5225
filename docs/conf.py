"""Settings of the documentation site, which docs/build_site.py builds."""

import importlib.metadata
import re
from collections.abc import Iterator
from typing import Any

from pygments.filter import Filter
from pygments.lexers.shell import BashLexer
from pygments.token import Name, Text

project = "cnn_papers"
author = "the authors of cnn_papers"
version = release = importlib.metadata.version("cnn_papers")
html_title = "cnn_papers"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
default_role = "literal"  # docstrings write code in single backticks, as Markdown does

# Markdown and notebooks. Nothing is executed or loaded from elsewhere.
myst_enable_extensions: list[str] = []
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, dict[str, str]] = {}

# Docstrings.
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

# Pages.
html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_favicon = "_static/icon.svg"
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_use_index = False  # the search finds names
html_domain_indices = False
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
}


def _leave_out_field_numbers(
    app: object, what: str, name: str, value: object, options: object, lines: list[str]
) -> None:
    """Removes the docstrings that Python writes for the fields of a NamedTuple."""
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()


class _Words(Filter):
    """Makes each word of a command line one element, which a style keeps whole: `--config`."""

    def filter(self, lexer: Any, stream: Any) -> Iterator[tuple[Any, str]]:
        for kind, text in stream:
            if kind is not Text:
                yield kind, text
                continue
            for part in re.findall(r"\s+|\S+", text):
                yield Text if part.isspace() else Name, part


class _CommandLines(BashLexer):
    """Bash for command lines that wrap between words."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.add_filter(_Words())


def setup(app: Any) -> None:
    """Connects to Sphinx."""
    app.add_lexer("bash", _CommandLines)
    app.connect("autodoc-process-docstring", _leave_out_field_numbers)
