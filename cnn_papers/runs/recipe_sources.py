"""Finds the source of every value of a recipe: the comment where the config file sets it.

A comment belongs to the lines of a statement, or of one argument of a call, if it is on them or
directly above. A value that a function only passes on has its source where the caller gives it.
"""

import ast
import functools
import io
import pathlib
import runpy
import sys
import tokenize
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from cnn_papers.errors import UserError
from cnn_papers.runs import config_files
from configs import common

# The keys that name a recipe and its network.
NAMES = ("name", "recipe", "paper_recipe", "model_name", "model.variant", "model.num_classes")
# They set what every recipe starts from.
COMMON, BASE = pathlib.Path(str(common.__file__)), ("base", "_data", "_eval", "_optim")


class Call(NamedTuple):
    """A line that was being executed: its file, its number, and the function that it is in."""

    file: str
    line: int
    function: str


class Setting(NamedTuple):
    """One key of a recipe.

    Attributes:
      key: dotted.
      value: in the finished recipe.
      source: the comment where it is set; "" if there is none.
      place: file and line of the code that the comment belongs to.
      from_base: the recipe leaves it as every recipe starts.
    """

    key: str
    value: Any
    source: str
    place: str
    from_base: bool


def settings(config: str) -> list[Setting]:
    """Returns the keys of a recipe but NAMES, without model fields that are left to the variant.

    `config` is its file and name, such as "configs/alexnet.py:cifar10". Raises UserError for a
    missing file or recipe, and for a config that does not start from `common.base`.
    """
    path, recipe = config_files.place_of(config)
    plain, common.ConfigDict = common.ConfigDict, _Recorder
    try:
        recorded = runpy.run_path(path)["get_config"](recipe)
    finally:
        common.ConfigDict = plain
    if not isinstance(recorded, _Recorder):
        raise UserError(f"{config} does not start from configs.common.base: it has no sources")
    return [
        setting
        for setting in _settings(recorded, "")
        if setting.key not in NAMES and setting.value is not None
    ]


def recipes(file: str) -> list[str]:
    """Returns the recipes of a config file, such as "configs/alexnet.py"."""
    plain, common.choose = common.choose, lambda recipes, *_, **__: recipes
    try:
        return [*runpy.run_path(config_files.find_file(file))["get_config"]()]
    finally:
        common.choose = plain


class _Recorder(ConfigDict):
    """Notes for every key the calls that led to its last value, the innermost first."""

    calls_by_key: dict[str, list[Call]]

    def __init__(self, *arguments: Any, **options: Any):
        object.__setattr__(self, "calls_by_key", {})
        super().__init__(*arguments, **options)

    def __setitem__(self, key: str, value: Any) -> None:
        self.calls_by_key[key] = _calls()
        super().__setitem__(key, value)


def _calls() -> list[Call]:
    """Returns the calls of config files that are under way."""
    calls = []
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not settings.__code__:
        module = str(frame.f_globals.get("__name__"))
        if not module.startswith(("ml_collections", __name__, "runpy")):
            calls.append(Call(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    return calls


def _settings(group: Any, prefix: str) -> list[Setting]:
    found = []
    for name, calls in group.calls_by_key.items():
        value, key = group[name], f"{prefix}{name}"
        if isinstance(value, ConfigDict):
            found += _settings(value, f"{key}.")
            continue
        given = _given(calls, name)
        found.append(
            Setting(
                key=key,
                value=value,
                source=given.comment,
                place=f"{pathlib.Path(given.file).name}:{given.line}",
                from_base=pathlib.Path(given.file) == COMMON and calls[0].function in BASE,
            )
        )
    return found


# --- where a value is given -----------------------------------------------------------------------


class Given(NamedTuple):
    """The place in the source where a value is given, and the comment there."""

    file: str
    line: int
    comment: str


def _given(calls: list[Call], name: str) -> Given:
    """Returns the place of the value that the innermost of `calls` gave the key `name`."""
    call, *callers = calls
    statement = _read(call.file).statements[call.line]
    for target, value in _assigned(statement):
        if isinstance(target, ast.Attribute) and target.attr == name:
            return _follow(calls, value, statement)
        if isinstance(target, ast.Subscript):  # config.model[field] = …
            here = _place(call, value, statement)
            return here if here.comment or not callers else _named(callers, name)
    return _named(calls, name)


def _named(calls: list[Call], name: str) -> Given:
    """Returns the place of the value that a dictionary or a call has under `name`."""
    statement = _read(calls[0].file).statements[calls[0].line]
    return _follow(calls, _entry(statement, name) or statement, statement)


def _follow(calls: list[Call], node: ast.AST, statement: ast.stmt) -> Given:
    """Returns the place of `node`, a value in `statement` or all of it.

    Of a parameter that is where the caller gives it, if there is a comment.
    """
    call, *callers = calls
    here = _place(call, node, statement)
    value = node.value if isinstance(node, ast.keyword) else node
    if not callers or not isinstance(value, ast.Name):
        return here
    parameters = _read(call.file).parameters(call)
    if value.id not in parameters:
        return here
    above = _read(callers[0].file).statements[callers[0].line]
    argument = _argument(above, call.function, value.id, parameters.index(value.id))
    if argument is None:
        return here
    there = _follow(callers, argument, above)
    return there if there.comment or not here.comment else here


def _place(call: Call, node: ast.AST, statement: ast.stmt) -> Given:
    """Returns the place of `node` with its comment, or else that of its statement."""
    file = _read(call.file)
    is_own = isinstance(statement, ast.Assign) and node is statement.value
    first, last = file.lines(statement if is_own else node)
    comment = file.comment(first, last)
    if not comment:
        comment = file.comment(statement.lineno, statement.lineno - 1)  # the lines above it
        comment = comment or file.comments.get(statement.end_lineno or first, "")
    return Given(call.file, first, comment)


def _assigned(statement: ast.stmt) -> list[tuple[ast.expr, ast.expr]]:
    """Returns the targets of an assignment, each with its value; none of another statement."""
    if not isinstance(statement, ast.Assign):
        return []
    pairs = []
    for target in statement.targets:
        if isinstance(target, ast.Tuple) and isinstance(statement.value, ast.Tuple):
            pairs += zip(target.elts, statement.value.elts, strict=True)
        else:
            pairs.append((target, statement.value))
    return pairs


def _entry(statement: ast.stmt, name: str) -> ast.AST | None:
    """Returns what `statement` gives for the key `name` in a dictionary or as an argument."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == name:
                    return value
        if isinstance(node, ast.keyword) and node.arg == name:
            return node
    return None


def _argument(statement: ast.stmt, function: str, name: str, position: int) -> ast.AST | None:
    """Returns the argument of the call of `function` in `statement`, None if it is not there."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == function:
            for keyword in node.keywords:
                if keyword.arg == name:
                    return keyword
            if position < len(node.args):
                return node.args[position]
    return None


# --- source files ---------------------------------------------------------------------------------


class File(NamedTuple):
    """A source file.

    Attributes:
      tree: its syntax.
      comments: by line.
      alone: lines that hold only a comment.
      statements: by line, the shortest over it.
    """

    tree: ast.Module
    comments: dict[int, str]
    alone: set[int]
    statements: dict[int, ast.stmt]

    def parameters(self, call: Call) -> list[str]:
        """Returns the names of the parameters of the function that `call` was in."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef) and node.name == call.function:
                return [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]
        return []

    def lines(self, node: Any) -> tuple[int, int]:
        """Returns the first and the last line of a node."""
        return node.lineno, node.end_lineno

    def comment(self, first: int, last: int) -> str:
        """Returns the comments on these lines, and on those directly above that hold no code."""
        above = first - 1
        while above in self.alone:
            above -= 1
        lines = range(above + 1, last + 1)
        return " ".join(self.comments[line] for line in lines if line in self.comments)


@functools.cache
def _read(file: str) -> File:
    text = pathlib.Path(file).read_text()
    comments, alone = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.lstrip("#").strip()
            if token.line.lstrip().startswith("#"):
                alone.add(token.start[0])
    tree = ast.parse(text, file)
    return File(tree, comments, alone, _statements(tree))


def _statements(tree: ast.Module) -> dict[int, ast.stmt]:
    """Returns the shortest statement over each line."""
    found: dict[int, ast.stmt] = {}
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    for node in sorted(nodes, key=lambda node: (node.end_lineno or 0) - node.lineno):
        for line in range(node.lineno, (node.end_lineno or 0) + 1):
            found.setdefault(line, node)
    return found
