"""Trees of factors from options by path: (regex, factor) pairs and lists of regexes.

`optim.lr_mults`, `wd_mults`, `max_norms` and `constant_lr` name parameters by their whole paths.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax

from cnn_papers.errors import UserError

Multipliers = Sequence[tuple[str, float]]


def multipliers(params: Any, patterns: Multipliers, key: str, default: float = 1.0) -> Any:
    """Returns a tree like `params` with the factor of the first pattern that matches each path.

    It has `default` where none matches.

    Raises:
      UserError: `patterns` (of `config.<key>`) are not pairs of a regular expression and a number,
        or one of them is the first match of no parameter.
    """
    _check_patterns(patterns, key)
    used = set()

    def factor(path: Any, _: Any) -> float:
        for pattern, value in patterns:
            if re.fullmatch(pattern, _name(path)):
                used.add(pattern)
                return float(value)
        return default

    tree = jax.tree_util.tree_map_with_path(factor, params)
    if unused := [pattern for pattern, _ in patterns if pattern not in used]:
        names = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        raise UserError(
            f"config.{key}: '{unused[0]}' matches no parameter that an earlier pattern does not; "
            f"parameters are named like {', '.join(names[:4])}"
        )
    return tree


def matches(params: Any, patterns: Sequence[str], key: str) -> Any:
    """Returns a tree like `params` of whether any of `patterns` matches the whole path.

    Raises:
      UserError: `patterns` (of `config.<key>`) are not regular expressions, or one of them is the
        first match of no parameter.
    """
    if isinstance(patterns, str):
        raise UserError(f"config.{key}={patterns!r} takes (regex, …), such as ('.*/bias',)")
    pairs = [(pattern, 1.0) for pattern in patterns]
    return jax.tree.map(bool, multipliers(params, pairs, key, default=0.0))


def _name(path: Any) -> str:
    return "/".join(str(part.key) for part in path)


def _check_patterns(patterns: Any, key: str) -> None:
    for pair in patterns:
        if not (
            isinstance(pair, tuple | list)
            and [type(part) for part in pair] in ([str, float], [str, int])
        ):
            raise UserError(
                f"config.{key}={patterns!r} takes ((regex, factor), …), such as (('fc8/.*', 10.0),)"
            )
        try:
            re.compile(pair[0])
        except re.error as error:
            raise UserError(
                f"config.{key}: '{pair[0]}' is not a regular expression: {error}"
            ) from error
