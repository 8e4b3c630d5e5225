"""Reads config files and overrides their keys from Python, as strictly as flags do."""

import functools
import os
import pathlib
import runpy
from collections.abc import Iterable, Mapping
from typing import Any

from cnn_papers import files
from cnn_papers.errors import UserError, did_you_mean

ROOT = pathlib.Path(__file__).parents[2]  # of the repository, or of the installed packages
# The keys that hold a path, with the texts that may precede the path.
PATH_KEYS = {
    "data.data_dir": ("",),
    "data.name": ("folder:", "voc_folder:"),
    "data.proposals": ("",),
    "init_from": ("",),
}


def read(config: str, overrides: Iterable[tuple[str, Any]] = ()) -> Any:
    """Returns the locked ConfigDict of `config`, such as "configs/alexnet.py:cifar10".

    Args:
      config: config file and recipe.
      overrides: pairs of dotted key and value.

    Raises:
      UserError: no such config file or recipe, an unknown key, a value of the wrong type.
    """
    values = _read(*place_of(config))
    for key, value in overrides:
        parent, name = find_key(values, key)
        kind = parent.get_type(name)
        if type(value) is not kind and (type(value), kind) != (int, float):
            raise UserError(
                f"config.{key}={value!r} is {type(value).__name__}, not {kind.__name__}"
            )
        parent[name] = expanded(key, value)
    return values


def expand_paths(config: Any) -> None:
    """Replaces `~` in the paths of `config`; raises UserError for a user that does not exist.

    A run may be older than one of the keys.
    """
    for key in PATH_KEYS:
        group, _, name = key.rpartition(".")
        parent = config[group] if group else config
        if name in parent:
            parent[name] = expanded(key, parent[name])


def expanded(key: str, value: Any) -> Any:
    """Returns the value of a dotted key, with `~` replaced if the value is a path.

    Raises:
      UserError: there is no such user.
    """
    start = next((start for start in PATH_KEYS.get(key, ()) if value.startswith(start)), None)
    if start is None:
        return value
    return start + files.expand(value.removeprefix(start), f"config.{key}={start}")


def type_of(config: Any, key: str) -> type:
    """Returns the type of the values of a dotted key; raises UserError if there is no such key."""
    parent, name = find_key(config, key)
    return parent.get_type(name)


def changes(config: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those of `overrides` that differ from the values of the recipe itself.

    A whole number for a float key is converted to float.

    Raises:
      UserError: no such config file or recipe, an unknown key.
    """
    recipe, changed = _read_once(*place_of(config)), {}
    for key, value in overrides.items():
        parent, name = find_key(recipe, key)
        value = float(value) if (type(value), parent.get_type(name)) == (int, float) else value
        if type(value) is not type(parent[name]) or value != parent[name]:
            changed[key] = value
    return changed


def find_key(config: Any, key: str) -> tuple[Any, str]:
    """Returns the group of `config` that holds the dotted `key`, and the last part of the key.

    Raises:
      UserError: `config` has no such key.
    """
    group: Any = None
    value = config
    path = "config"
    name = ""
    for name in key.split("."):
        names = list(value.keys()) if hasattr(value, "keys") else []
        if not names:
            raise UserError(f"{path} is a value, not a group: it has no key '{name}'")
        path = f"{path}.{name}"
        if name not in names:
            hint = did_you_mean(name, names) or f"there are: {', '.join(sorted(names))}"
            raise UserError(f"there is no config key {path}; {hint}")
        group, value = value, value[name]
    return group, name


def find_file(file: str) -> str:
    """Returns the path of a config file: `file` if it exists here, else the installed one.

    Raises:
      UserError: neither exists.
    """
    file = files.expand(file, "--config=")
    for path in (file, str(ROOT / file)):
        if os.path.isfile(path):
            return path
    raise UserError(f"there is no config file '{file}'. {list_files()}")


def list_files() -> str:
    """Returns "There are: configs/alexnet.py, …", with all config files."""
    return "There are: " + ", ".join(all_files())


def all_files() -> list[str]:
    """Returns "configs/alexnet.py", …, the package's config files."""
    names = sorted(path.name for path in (ROOT / "configs").glob("*.py"))
    return [f"configs/{name}" for name in names if name not in ("__init__.py", "common.py")]


def place_of(config: str) -> tuple[str, str]:
    """Returns the absolute path of a config file, and the recipe ("" for the default one)."""
    file, _, recipe = config.partition(":")
    return os.path.abspath(find_file(file)), recipe


def _read(path: str, recipe: str) -> Any:
    config = runpy.run_path(path)["get_config"](recipe).lock()
    expand_paths(config)
    return config


@functools.cache
def _read_once(path: str, recipe: str) -> Any:
    """A recipe to look at, not to change: planning a sweep asks for the same few repeatedly."""
    return _read(path, recipe)
