"""Every recipe of every config file, found by discovery."""

import importlib
import pathlib
from typing import Any

import pytest

import configs
from cnn_papers.errors import UserError

FOLDER = pathlib.Path(configs.__path__[0])
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "common"))


def config_file(name: str) -> Any:
    return importlib.import_module(f"configs.{name}")


def recipes(name: str) -> list[str]:
    """Returns the recipes of a config file, read from its message about an unknown one."""
    with pytest.raises(UserError) as caught:
        config_file(name).get_config("no such recipe")
    return str(caught.value).partition("there are: ")[2].split(", ")


RECIPES = [(name, recipe) for name in NAMES for recipe in recipes(name)]
