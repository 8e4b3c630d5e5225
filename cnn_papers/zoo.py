"""Finds a network by its file's name and builds it; selects layers. Needs only JAX and Flax."""

import importlib
import pkgutil
import re
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

import cnn_papers.models
from cnn_papers.errors import UserError


def model_names() -> list[str]:
    """Returns the names of the files of `cnn_papers.models`, one for each paper."""
    return [
        module.name
        for module in pkgutil.iter_modules(cnn_papers.models.__path__)
        if not module.ispkg
    ]


def model_module(name: str) -> Any:
    """Returns the module `cnn_papers.models.<name>`, which has `Model`, `VARIANTS` and `FACTS`.

    Raises:
      UserError: an unknown name (with the list).
    """
    if name not in model_names():
        raise UserError(
            f"unknown config.model_name '{name}'; there are: {', '.join(model_names())}"
        )
    return importlib.import_module(f"cnn_papers.models.{name}")


def build_model(name: str, *, dtype: str = "float32", **fields: Any) -> nn.Module:
    """Returns the network `name` with its `variant` and other fields.

    A field that is None is left to the variant.

    Raises:
      UserError: an unknown name, variant, field or dtype, or a value that the network refuses.
    """
    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"config.model.dtype is float32 or bfloat16, not '{dtype}'")
    if fields.get("num_classes", 1) < 1:
        raise UserError(f"config.model.num_classes={fields['num_classes']} must be positive")
    try:
        return model_module(name).Model(**fields, dtype=jnp.dtype(dtype))
    except (ValueError, TypeError) as error:
        raise UserError(f"config.model: {error}") from error


def full_name(name: str, *, variant: str, **fields: Any) -> str:
    """Returns a network's variant and those of its fields that are set, in words.

    Its number of classes and its dtype are left out.
    """
    others = ", ".join(
        f"{field}={value}"
        for field, value in fields.items()
        if field not in ("num_classes", "dtype") and value is not None
    )
    return f"{name} '{variant}'" + (f" ({others})" if others else "")


def matching_layers(layers: Iterable[str], pattern: str, *, key: str) -> set[str]:
    """Returns those of `layers` whose whole name matches the regular expression `pattern`.

    Args:
      layers: names of layers, such as "inception_3a/1x1".
      pattern: the value of `config.<key>`.
      key: for messages.

    Raises:
      UserError: no layer matches (with the list), or `pattern` is not a regular expression.
    """
    names = list(dict.fromkeys(layers))
    try:
        matching = {name for name in names if re.fullmatch(pattern, name)}
    except re.error as error:
        raise UserError(
            f"config.{key}: '{pattern}' is not a regular expression: {error}"
        ) from error
    if not matching:
        raise UserError(
            f"config.{key}: no layer is called '{pattern}'; there are: {', '.join(names)}"
        )
    return matching
