"""Config files read and overridden from Python, as strictly as flags do it on the command line."""

import functools
import os
import pathlib
import runpy
from collections.abc import Iterable, Mapping
from typing import Any

from cnn_papers.errors import UserError, did_you_mean


def read(config: str, overrides: Iterable[tuple[str, Any]] = ()) -> Any:
    """The locked ConfigDict of "configs/alexnet.py:cifar10" with `overrides` by dotted key.

    Raises:
      UserError: no such config file or recipe, an unknown key, a value of the wrong type.
    """
    found = _read(*place_of(config))
    for key, value in overrides:
        parent, last = _parent_of(found, key)
        kind = parent.get_type(last)
        if type(value) is not kind and (type(value), kind) != (int, float):
            raise UserError(
                f"config.{key}={value!r} is {type(value).__name__}, not {kind.__name__}"
            )
        parent[last] = value
    return found


def type_of(config: Any, key: str) -> type:
    """The type of the values of a dotted key; UserError for one that `config` does not have."""
    parent, last = _parent_of(config, key)
    return parent.get_type(last)


def changes(config: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `overrides` that say something else than the recipe itself; whole numbers for a
    float become one.

    Raises:
      UserError: no such config file or recipe, an unknown key.
    """
    recipe, found = _kept(*place_of(config)), {}
    for key, value in overrides.items():
        parent, last = _parent_of(recipe, key)
        value = float(value) if (type(value), parent.get_type(last)) == (int, float) else value
        if type(value) is not type(parent[last]) or value != parent[last]:
            found[key] = value
    return found


def _parent_of(config: Any, key: str) -> tuple[Any, str]:
    """The part of `config` that holds the dotted `key`, and the key's last name."""
    node = parent = config
    for depth, part in enumerate(key.split(".")):
        keys = list(node.keys()) if hasattr(node, "keys") else []
        if part not in keys:
            place = ".".join(["config", *key.split(".")[:depth]])
            if not keys:
                raise UserError(f"{place} is a value, not a group: it has no key '{part}'")
            hint = did_you_mean(part, keys) or f"there are: {', '.join(sorted(keys))}"
            raise UserError(f"there is no config key config.{key}; {hint}")
        parent, node = node, node[part]
    return parent, key.rpartition(".")[2]


def place_of(config: str) -> tuple[str, str]:
    """The absolute path of a config file, which lies here or, away from the repository, beside the
    package; recipe.
    """
    file, _, recipe = config.partition(":")
    path = file if os.path.isfile(file) else str(pathlib.Path(__file__).parents[2] / file)
    if not os.path.isfile(path):
        raise UserError(f"there is no config file '{file}'")
    return os.path.abspath(path), recipe


def _read(path: str, recipe: str) -> Any:
    return runpy.run_path(path)["get_config"](recipe).lock()


@functools.cache
def _kept(path: str, recipe: str) -> Any:
    """A recipe to look at, not to change: planning asks for the same few again and again."""
    return _read(path, recipe)
