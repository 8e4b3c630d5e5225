"""Parses strings of operations, such as "resize_short(256)|random_crop(224)", into calls of one
module's functions.

Sweeps change pipelines, schedules and protocols as text; only literal arguments are read, nothing
is evaluated.
"""

import ast
import inspect
import types
import typing
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from cnn_papers.errors import UserError, did_you_mean

CONTEXT = (
    "rng",
    "epoch",
    "key",
    "statistics",
    "whitening",
)  # keyword-only parameters: the pipeline's, not the string's


class Op(NamedTuple):
    """A function of a module with the arguments the string gives it; call it with what the pipeline
    adds.
    """

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    context: frozenset[str] = frozenset()  # those of CONTEXT that the function declares

    def __call__(self, *leading: Any, **context: Any) -> Any:
        """Calls the function with `leading`, the string's arguments, and those of `context` that it
        names.
        """
        wanted = {key: value for key, value in context.items() if key in self.context}
        return self.function(*leading, *self.args, **self.kwargs, **wanted)

    def needs(self, name: str) -> bool:
        """Whether the function declares the keyword-only parameter `name`, one of CONTEXT."""
        return name in self.context


def functions(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """The public functions a string may name: those defined in `module` itself."""
    found = inspect.getmembers(module, inspect.isfunction)
    return {
        name: f for name, f in found if f.__module__ == module.__name__ and not name.startswith("_")
    }


def parse(text: str, module: ModuleType, *, leading: int, key: str) -> tuple[Op, ...]:
    """The operations of `text`, in order; an empty text has none.

    Args:
      text: names with literal arguments, separated by `|`.
      module: where the functions live.
      leading: how many arguments the pipeline passes before those of the string (the image, the
      epoch, …).
      key: the config key the text comes from, for messages.

    Raises:
      UserError: text that does not parse, an operation that does not exist, arguments that do not
      fit.
    """
    return tuple(_parse_one(part, module, leading, key) for part in split(text))


def split(text: str) -> list[str]:
    """The operations of `text` as texts: what stands between the `|` outside brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        depth += 0 if quote else (character in "([{") - (character in ")]}")
        if character == "|" and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _parse_one(part: str, module: ModuleType, leading: int, key: str) -> Op:
    try:
        node = ast.parse(part, mode="eval").body
        call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
        if not isinstance(call.func, ast.Name) or not all(word.arg for word in call.keywords):
            raise ValueError("not a call by name")
        name = call.func.id
        args = tuple(ast.literal_eval(arg) for arg in call.args)
        kwargs = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    except (
        SyntaxError,
        ValueError,
        TypeError,
        RecursionError,
        MemoryError,
    ) as error:  # all that `ast` says of bad text
        raise UserError(
            f"config.{key}: cannot read '{part}'; write name or name(literal, …), joined by '|'"
        ) from error
    known = functions(module)
    if name not in known:
        hint = did_you_mean(name, known)
        hint = f" ({hint})" if hint else ""
        raise UserError(f"config.{key}: there is no '{name}'{hint}; there are: {', '.join(known)}")
    op = Op(name, known[name], args, kwargs, _context(known[name]))
    try:
        _check_arguments(op, leading)
    except TypeError as error:
        parameters = list(inspect.signature(op.function).parameters.values())[leading:]
        usage = ", ".join(str(p) for p in parameters if p.name not in CONTEXT)
        raise UserError(f"config.{key}: '{part}' does not fit {name}({usage}): {error}") from error
    return op


def _context(function: Callable[..., Any]) -> frozenset[str]:
    parameters = inspect.signature(function).parameters.values()
    return frozenset(
        p.name for p in parameters if p.name in CONTEXT and p.kind is inspect.Parameter.KEYWORD_ONLY
    )


def _check_arguments(op: Op, leading: int) -> None:
    """Raises TypeError unless the arguments of `op` fit the function's parameters and their
    annotations.
    """
    if own := [name for name in op.kwargs if name in CONTEXT]:
        raise TypeError(f"'{own[0]}' is the pipeline's to give")
    signature, hints = inspect.signature(op.function), typing.get_type_hints(op.function)
    bound = signature.bind(*[None] * leading, *op.args, **op.kwargs, **dict.fromkeys(op.context))
    for name in [
        name
        for name in list(signature.parameters)[leading:]
        if name in bound.arguments and name in hints
    ]:
        several = signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
        for value in bound.arguments[name] if several else [bound.arguments[name]]:
            if name not in op.context and not _fits(value, hints[name]):
                raise TypeError(
                    f"{name}={value!r} is not {getattr(hints[name], '__name__', hints[name])}"
                )


def _fits(value: Any, hint: Any) -> bool:
    """Whether a literal is what a parameter's annotation says; a whole number will do for a float."""
    if isinstance(hint, types.UnionType):
        return any(_fits(value, choice) for choice in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        parts = typing.get_args(hint)
        parts = parts[:1] * len(value) if ... in parts and isinstance(value, tuple) else parts
        return (
            isinstance(value, tuple) and len(value) == len(parts) and all(map(_fits, value, parts))
        )
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return not isinstance(hint, type) or isinstance(value, hint)
