"""What every door shares: flags, logging, the compilation cache, and errors as one line with exit code 2."""

import difflib
import logging
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from absl import app, flags
from absl import logging as absl_logging

from cnn_papers.errors import UserError

COMPILE_CACHE_BYTES = 2 * 2**30


def run(main: Callable[[list[str]], int | None]) -> None:
    """Parses the flags and calls `main` with what is left of the command line; exits with its code.

    A UserError from anywhere becomes one line on stderr and exit code 2.
    """
    try:
        app.run(main, flags_parser=_parse)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def config_flag() -> None:
    """Defines `--config=FILE[:RECIPE]` and its `--config.key=value` overrides."""
    from ml_collections import config_flags

    if "config" not in flags.FLAGS:
        config_flags.DEFINE_config_file("config", None, "configs/PAPER.py or configs/PAPER.py:RECIPE", lock_config=True)


def config_value() -> Any:
    """The ConfigDict that `--config` and its overrides give."""
    config = flags.FLAGS.config
    if config is None:
        raise UserError(f"--config is missing; for example --config=configs/googlenet.py. {_config_files()}")
    return config


def use_compile_cache() -> None:
    """Keeps compiled programs in the user's cache folder, bounded; JAX_COMPILATION_CACHE_DIR names another, "" none."""
    import jax

    from cnn_papers.data.statistics import cache_folder

    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(cache_folder() / "xla"))
    if not folder:
        return
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_compilation_cache_max_size", COMPILE_CACHE_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _parse(argv: list[str]) -> list[str]:
    """Absl's parser, with config files found from anywhere and every mistake as a UserError."""
    argv = [_find_config(argument) for argument in argv]
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        raise UserError(str(error)) from error
    except (AttributeError, KeyError) as error:
        raise _unknown_key(argv) or error from error
    _set_up_logging()
    if "config" in flags.FLAGS and type(flags.FLAGS.config).__name__ == "_ErrorConfig":
        path = next(a.partition("=")[2] for a in argv if a.startswith(("--config=", "-config=")))
        raise UserError(f"there is no config file {path.partition(':')[0]}. {_config_files()}")
    return rest


def _set_up_logging() -> None:
    """Our own messages and other people's warnings, one line each; absl's handler would repeat them with a prefix."""
    logging.getLogger().removeHandler(absl_logging.get_absl_handler())
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    absl_logging.set_verbosity(absl_logging.WARNING)
    logging.getLogger("cnn_papers").setLevel(logging.INFO)


def _find_config(argument: str) -> str:
    """`--config=configs/x.py` away from the repository means the installed one."""
    flag, _, path = argument.partition("=")
    file = path.partition(":")[0]
    installed = pathlib.Path(__file__).parents[1]
    if flag.lstrip("-") == "config" and not os.path.exists(file) and (installed / file).is_file():
        return f"{flag}={installed / path}"
    return argument


def _config_files() -> str:
    files = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))
    return "There are: " + ", ".join(f"configs/{f.name}" for f in files if f.stem not in ("__init__", "common"))


def _unknown_key(argv: list[str]) -> UserError | None:
    """The first `--config.…` override that names no key, with the nearest that exists."""
    config: Any = flags.FLAGS["config"].value
    for argument in argv:
        path = argument.lstrip("-").partition("=")[0]
        if not path.startswith("config."):
            continue
        node: Any = config
        for i, part in enumerate(path.split(".")[1:], 1):
            if not hasattr(node, "keys") or part not in node:
                parent = ".".join(path.split(".")[:i])
                keys = list(node.keys()) if hasattr(node, "keys") else []
                near = difflib.get_close_matches(part, keys, 1)
                hint = f"did you mean {parent}.{near[0]}?" if near else f"{parent} has: {', '.join(sorted(keys))}"
                return UserError(f"there is no config key {parent}.{part}; {hint}")
            node = node[part]
    return None
