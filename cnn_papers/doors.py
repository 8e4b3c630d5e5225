"""What every door shares: flags, logging, the compilation cache, and errors as one line with exit
code 2.
"""

import contextlib
import errno
import logging
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from absl import app, flags
from absl import logging as absl_logging

from cnn_papers.errors import UserError, did_you_mean
from cnn_papers.parallel import hosts

NO_CONFIG = "--config is missing; for example --config=configs/googlenet.py. "


def run(main: Callable[[list[str]], int | None]) -> None:
    """Parses the flags and calls `main` with what is left of the command line; exits with its code.

    A UserError from anywhere becomes one line on stderr and exit code 2; so does a full disk.
    """
    try:
        app.run(main, flags_parser=_parse)
    except UserError as error:
        _show(error)
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _show(
            UserError(
                f"a file cannot be written{f': {error.filename}' if error.filename else ''}: {error.strerror}"
            )
        )
        sys.exit(2)
    except KeyboardInterrupt:
        _leave(130)
    except SystemExit as error:
        if isinstance(error.code, int) and error.code > 128:  # by a signal
            _leave(error.code)
        raise


def _leave(code: int) -> None:
    """Ends the process at once: Python's own way out waits for threads, and crashes in the midst of
    a compilation.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _show(error: UserError) -> None:
    print(
        "error:", " ".join(str(error).split()), file=sys.stderr
    )  # one line, whatever libraries put into it
    for choice in error.choices:
        print(f"  {choice}", file=sys.stderr)


def hosts_flags() -> None:
    """Defines the flags of a run over several processes."""
    text = "of several processes: {}; SLURM and TPU pods say so themselves"
    flags.DEFINE_string(
        "coordinator", "", text.format("HOST:PORT where process 0 listens, or auto on a TPU pod")
    )
    flags.DEFINE_integer("num_processes", None, text.format("how many they are"))
    flags.DEFINE_integer("process_id", None, text.format("which this one is, from 0"))
    flags.DEFINE_integer(
        "join_timeout_s", 300, "seconds to wait for the other processes", lower_bound=1
    )
    flags.DEFINE_integer(
        "heartbeat_timeout_s", 100, "seconds after which a silent process is lost", lower_bound=1
    )


@contextlib.contextmanager
def joined_hosts() -> Iterator[None]:
    """Joins the other processes of the run, if there are any; an error that ends this one ends all.

    Nothing may touch a device before.
    """
    values = flags.FLAGS
    place = hosts.find_place(
        values.coordinator, values.num_processes, values.process_id, os.environ
    )
    if place is None:
        yield
        return
    hosts.join(
        place, timeout_s=values.join_timeout_s, heartbeat_timeout_s=values.heartbeat_timeout_s
    )
    try:
        yield
    except BaseException as error:
        # The others cannot go on without this process: no orderly goodbye, which would wait for
        # them.
        from cnn_papers.parallel import processes

        code = 1
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else 1
        elif isinstance(error, UserError):
            _show(error)
            code = 2
        elif processes.is_loss(error):
            _show(
                UserError(
                    f"another process of this run is gone; start it again to go on: {str(error)[:200]}"
                )
            )
        else:
            traceback.print_exc()
        _leave(code)


def config_flag() -> None:
    """Defines `--config=FILE[:RECIPE]` and its `--config.key=value` overrides."""
    from ml_collections import config_flags

    if "config" not in flags.FLAGS:
        config_flags.DEFINE_config_file(
            "config", None, "configs/PAPER.py or configs/PAPER.py:RECIPE", lock_config=True
        )


def config_value() -> Any:
    """The ConfigDict that `--config` and its overrides give."""
    config = flags.FLAGS.config
    if config is None:
        raise UserError(NO_CONFIG + _config_files())
    return config


def config_overrides() -> dict[str, Any]:
    """What the command line overrides in the config, by dotted key."""
    from ml_collections import config_flags

    return dict(config_flags.get_override_values(flags.FLAGS["config"]))


def _parse(argv: list[str]) -> list[str]:
    """Absl's parser, with config files found from anywhere and every mistake as a UserError."""
    argv, path = _find_config(argv)
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        if not path and any(re.match("--?(no)?config[.]", argument) for argument in argv):
            raise UserError(
                NO_CONFIG + _config_files()
            ) from error  # no override means anything without it
        head, traceback, _ = str(error).partition(
            "Traceback"
        )  # of an error in the config file itself
        raise UserError(head + str(error).splitlines()[-1] if traceback else str(error)) from error
    except (AttributeError, KeyError, TypeError) as error:
        raise _unknown_key(argv, path) or error from error
    _set_up_logging()
    return rest


def _set_up_logging() -> None:
    """Our own messages and other people's warnings, one line each; absl's handler would repeat them
    with a prefix.
    """
    logging.getLogger().removeHandler(absl_logging.get_absl_handler())
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    absl_logging.set_verbosity(
        absl_logging.FATAL
    )  # what orbax has to say comes back as an error of ours,
    logging.getLogger("asyncio").setLevel(
        logging.CRITICAL
    )  # and so do tasks of its that nobody waited for
    logging.getLogger("cnn_papers").setLevel(logging.INFO)
    _heed_unraisable()


def _heed_unraisable() -> None:
    """Minds what Python can but print, since it came up in a callback or a destructor.

    A signal's SystemExit still ends the process. The user is spared a traceback for each array
    whose write fails: orbax has left by then, its threads have not.
    """
    show = sys.unraisablehook

    def heed(unraisable: Any) -> None:
        if isinstance(error := unraisable.exc_value, SystemExit) and isinstance(error.code, int):
            _leave(error.code)
        if str(error) != "Event loop is closed":
            show(unraisable)

    if getattr(show, "__name__", "") != heed.__name__:
        sys.unraisablehook = heed


def _find_config(argv: list[str]) -> tuple[list[str], str]:
    """The arguments with `--config FILE` as one, and that FILE; away from the repository it means
    the installed one.
    """
    found, path = [], ""
    arguments = iter(argv)
    for argument in arguments:
        if argument.lstrip("-") == "config" and argument.startswith("-"):
            argument = f"{argument}={next(arguments, '')}"
        if re.match("--?config=", argument):
            path = argument.partition("=")[2]
            file, installed = path.partition(":")[0], pathlib.Path(__file__).parents[1]
            if not os.path.isfile(file) and not (installed / file).is_file():
                raise UserError(f"there is no config file '{file}'. {_config_files()}")
            path = path if os.path.isfile(file) else str(installed / path)
            argument = f"--config={path}"
        found.append(argument)
    return found, path


def _config_files() -> str:
    files = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))
    return "There are: " + ", ".join(
        f"configs/{f.name}" for f in files if f.stem not in ("__init__", "common")
    )


def _unknown_key(argv: list[str], path: str) -> UserError | None:
    """The first `--config.…` override that names no key of the config in `path`, with the nearest
    that exists.
    """
    config: Any = flags.FLAGS["config"].parser.parse(path)
    for argument in argv:
        match = re.match("--?(?:no)?config[.]([^=]*)", argument)
        node: Any = config
        parents = ["config"]
        for part in match[1].split(".") if match else []:
            parent, keys = ".".join(parents), list(node.keys()) if hasattr(node, "keys") else []
            if not keys:
                return UserError(f"{parent} is a value, not a group: write --{parent}=value")
            if part not in keys:
                hint = did_you_mean(part, keys) or f"{parent} has: {', '.join(sorted(keys))}"
                return UserError(f"there is no config key {parent}.{part}; {hint}")
            node = node[part]
            parents.append(part)
    return None
