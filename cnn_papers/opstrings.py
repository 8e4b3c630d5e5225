"""Parses op strings, such as "resize_short(256)|random_crop(224)".

An op string names functions of one module and gives them literal arguments; nothing is evaluated.
Pipelines, schedules and protocols are op strings in a config, so that sweeps can change them.
"""

import ast
import inspect
import types
import typing
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from cnn_papers.errors import UserError, did_you_mean

# Keyword-only parameters that the pipeline fills in, and that a string may not.
CONTEXT = ("rng", "epoch", "key", "statistics", "whitening", "objects")


class Op(NamedTuple):
    """A function of a module with the arguments that an op string gives it.

    Call it with the leading arguments and the context that the pipeline adds.
    """

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    context: frozenset[str] = frozenset()  # those of CONTEXT that the function declares

    def __call__(self, *leading: Any, **context: Any) -> Any:
        """Calls the function with `leading`, the string's arguments and the `context` it names."""
        wanted = {key: value for key, value in context.items() if key in self.context}
        return self.function(*leading, *self.args, **self.kwargs, **wanted)

    def needs(self, name: str) -> bool:
        """Tells whether the function declares the keyword-only parameter `name` of CONTEXT."""
        return name in self.context


class OpString(NamedTuple):
    """An op string of the config, parsed.

    Attributes:
      key: the config key that it stands under, such as "data.eval_host", for messages.
      text: the op string itself.
      ops: its operations, in order.
    """

    key: str
    text: str
    ops: tuple[Op, ...]

    def first(self, count: int) -> "OpString":
        """Returns the first `count` operations."""
        return OpString(self.key, "|".join(split(self.text)[:count]), self.ops[:count])


def functions(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """Returns the public functions defined in `module` itself, which an op string may name."""
    return {
        name: function
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }


def parse(text: str, module: ModuleType, *, leading: int, key: str) -> tuple[Op, ...]:
    """Returns the operations of `text`, in order; an empty text has none.

    Args:
      text: names with literal arguments, separated by `|`.
      module: the module that defines the functions.
      leading: number of arguments that are passed before those of the string (the image, the
        epoch, …).
      key: the config key of the text, for messages.

    Raises:
      UserError: text that does not parse, an operation that does not exist, arguments that do not
        fit.
    """
    return tuple(_parse_one(part, module, leading, key) for part in split(text))


def split(text: str) -> list[str]:
    """Splits `text` at each `|` outside brackets and quotes, into one text per operation."""
    parts = [""]
    depth = 0  # of brackets
    quote = ""  # the mark of the string that we are within
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
    # All that `ast` raises for bad text.
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise UserError(
            f"config.{key}: cannot read '{part}'; write name or name(literal, …), joined by '|'"
        ) from error
    functions_by_name = functions(module)
    if name not in functions_by_name:
        hint = did_you_mean(name, functions_by_name)
        hint = f" ({hint})" if hint else ""
        names = ", ".join(functions_by_name)
        raise UserError(f"config.{key}: there is no '{name}'{hint}; there are: {names}")
    function = functions_by_name[name]
    op = Op(name, function, args, kwargs, _context(function))
    try:
        _check_arguments(op, leading)
    except TypeError as error:
        parameters = list(inspect.signature(op.function).parameters.values())[leading:]
        usage = ", ".join(str(p) for p in parameters if p.name not in CONTEXT)
        raise UserError(f"config.{key}: '{part}' does not fit {name}({usage}): {error}") from error
    return op


def _context(function: Callable[..., Any]) -> frozenset[str]:
    """Returns the parameters of CONTEXT that `function` declares."""
    parameters = inspect.signature(function).parameters.values()
    return frozenset(
        p.name for p in parameters if p.name in CONTEXT and p.kind is inspect.Parameter.KEYWORD_ONLY
    )


def _check_arguments(op: Op, leading: int) -> None:
    """Raises TypeError unless the arguments of `op` fit its function's signature."""
    if reserved := [name for name in op.kwargs if name in CONTEXT]:
        raise TypeError(f"'{reserved[0]}' is filled in by the pipeline")
    signature, hints = inspect.signature(op.function), typing.get_type_hints(op.function)
    bound = signature.bind(*[None] * leading, *op.args, **op.kwargs, **dict.fromkeys(op.context))
    for parameter in list(signature.parameters.values())[leading:]:
        name = parameter.name
        if name not in bound.arguments or name not in hints or name in op.context:
            continue
        is_variadic = parameter.kind is inspect.Parameter.VAR_POSITIONAL
        values = bound.arguments[name] if is_variadic else [bound.arguments[name]]
        for value in values:
            if not _fits(value, hints[name]):
                type_name = getattr(hints[name], "__name__", hints[name])
                raise TypeError(f"{name}={value!r} is not {type_name}")


def _fits(value: Any, hint: Any) -> bool:
    """Tells whether a literal fits a parameter's annotation; an integer fits a float."""
    if isinstance(hint, types.UnionType):
        return any(_fits(value, choice) for choice in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, tuple):
            return False
        parts = typing.get_args(hint)
        if ... in parts:  # tuple[int, ...]
            parts = parts[:1] * len(value)
        return len(value) == len(parts) and all(map(_fits, value, parts))
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return not isinstance(hint, type) or isinstance(value, hint)
