"""Shared parts of all commands: flags, logging, and errors as one line with exit code 2."""

import contextlib
import errno
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from absl import app, flags
from absl import logging as absl_logging

from cnn_papers import files, terminal
from cnn_papers.errors import UserError
from cnn_papers.parallel import hosts
from cnn_papers.runs import config_files

NO_CONFIG = "--config is missing; for example --config=configs/googlenet.py. "
OVERRIDE = re.compile("--?(?:no)?config[.](?P<key>[^=]*)")


def run(main: Callable[[list[str]], int | None], define_flags: Callable[[], None]) -> None:
    """Parses the flags, calls `main` with the remaining arguments, and exits with its code.

    A UserError becomes one line on stderr and exit code 2; so does a full disk. Output that nobody
    reads any more ends the process silently, with SIGPIPE's code. A process may run several
    commands, one after another.
    """
    terminal.take_any_text()

    def main_and_flush(argv: list[str]) -> int | None:
        code = main(argv)
        sys.stdout.flush()  # here an error is handled; Python would print it when it exits
        return code

    try:
        with _defined(define_flags):
            app.run(main_and_flush, flags_parser=_parse)
    except BrokenPipeError:
        if not terminal.is_output_gone():
            raise
        terminal.discard_output()
        sys.exit(128 + signal.SIGPIPE)
    except UserError as error:
        _show(error)
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        name = f": {error.filename}" if error.filename else ""
        _show(UserError(f"a file cannot be written{name}: {error.strerror}"))
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as error:
        code = error.code if isinstance(error, SystemExit) else 128 + signal.SIGINT
        is_interactive = hasattr(sys, "ps1")  # a notebook, say, whose variables would be lost
        if isinstance(code, int) and code > 128 and not is_interactive:
            _leave(code)
        raise


@contextlib.contextmanager
def _defined(define_flags: Callable[[], None]) -> Iterator[None]:
    """Defines the flags of a command while it runs; the next one may have the same names."""
    before = set(flags.FLAGS)
    define_flags()
    own = set(flags.FLAGS) - before
    try:
        yield
    finally:
        for name in set(flags.FLAGS):
            if name in own or name.startswith("config."):  # overrides are defined when parsed
                delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()  # absl's verbosity too
        _silence_absl()


def _leave(code: int) -> None:
    """Ends the process at once.

    An ordinary exit waits for threads, and crashes while a program is being compiled.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _show(error: UserError) -> None:
    line = " ".join(str(error).split())  # messages of libraries may have several
    print("error:", line, file=sys.stderr)
    for choice in error.choices:
        print(f"  {choice}", file=sys.stderr)


def hosts_flags() -> None:
    """Defines the flags of a run over several processes."""
    text = "of several processes: {}; SLURM and TPU pods provide it"
    flags.DEFINE_string(
        "coordinator", "", text.format("HOST:PORT where process 0 listens, or auto on a TPU pod")
    )
    flags.DEFINE_integer("num_processes", None, text.format("their number"))
    flags.DEFINE_integer("process_id", None, text.format("the number of this one, from 0"))
    flags.DEFINE_integer(
        "join_timeout_s", 300, "seconds to wait for the other processes", lower_bound=1
    )
    flags.DEFINE_integer(
        "heartbeat_timeout_s", 100, "seconds after which a silent process is lost", lower_bound=1
    )


@contextlib.contextmanager
def joined_hosts() -> Iterator[None]:
    """Joins the other processes of the run, if there are any, before anything uses a device.

    An error that ends this process ends all of them.
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
        # The others cannot continue without this process, and an orderly exit would wait for them.
        from cnn_papers.parallel import processes

        code = 1
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else 1
        elif isinstance(error, UserError):
            _show(error)
            code = 2
        elif processes.is_loss(error):
            reason = str(error)[:200]
            _show(
                UserError(f"another process of this run is gone; start it again to go on: {reason}")
            )
        else:
            traceback.print_exc()
        _leave(code)


def config_flag() -> None:
    """Defines `--config=FILE[:RECIPE]` and its `--config.key=value` overrides."""
    from ml_collections import config_flags

    config_flags.DEFINE_config_file(
        "config", None, "configs/PAPER.py or configs/PAPER.py:RECIPE", lock_config=True
    )


class _PathParser(flags.ArgumentParser):
    """Reads the value of a flag that names a file or folder, as `files.expand` does.

    It refuses a name that does not end in `suffix`.
    """

    syntactic_help = "a path"

    def __init__(self, name: str, suffix: str):
        self.name, self.suffix = name, suffix

    def parse(self, argument: str) -> str:
        path = files.expand(argument, f"--{self.name}=")
        if path and not path.lower().endswith(self.suffix):
            raise UserError(f"--{self.name}={argument}: the name ends in {self.suffix}")
        return path


def path_flag(name: str, text: str, default: str = "", suffix: str = "") -> None:
    """Defines a flag that names a file or folder; `text` describes it.

    With a `suffix`, such as ".svg", names must end in it.
    """
    parser = _PathParser(name, suffix)
    flags.DEFINE(parser, name, default, text, serializer=flags.ArgumentSerializer())


def config_value() -> Any:
    """Returns the locked ConfigDict of `--config` with its overrides applied.

    Raises:
      UserError: there is none, or an override has no effect.
    """
    config = flags.FLAGS.config
    if config is None:
        raise UserError(NO_CONFIG + config_files.list_files())
    if "total_epochs" in config_overrides() and config.total_steps:
        raise UserError(
            f"config.total_epochs={config.total_epochs} has no effect beside "
            f"config.total_steps={config.total_steps}: set that to 0, too"
        )
    return config


def config_file() -> str:
    """Returns the config file of `--config` with its recipe, as it was written."""
    from ml_collections import config_flags

    return config_flags.get_config_filename(flags.FLAGS["config"])


def config_overrides() -> dict[str, Any]:
    """Returns the overrides of `--config` on the command line, by dotted key; {} without it."""
    from ml_collections import config_flags

    if flags.FLAGS.config is None:
        return {}
    overrides = config_flags.get_override_values(flags.FLAGS["config"])
    return {key: config_files.expanded(key, value) for key, value in overrides.items()}


def _parse(argv: list[str]) -> list[str]:
    """Parses flags as absl does; raises UserError for every mistake in them."""
    argv, path = _find_config(_without_earlier_values(argv))
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        if not path and any(OVERRIDE.match(argument) for argument in argv):
            # Without a config file no override means anything.
            raise UserError(NO_CONFIG + config_files.list_files()) from error
        # absl includes the traceback of an error within the config file.
        message, has_traceback, _ = str(error).partition("Traceback")
        if has_traceback:
            message += str(error).splitlines()[-1]
        raise UserError(message) from error
    except (AttributeError, KeyError, TypeError):
        _check_overrides(argv, path)
        raise
    if path and not isinstance(flags.FLAGS.config, str):  # it is where ml_collections is missing
        config_files.expand_paths(flags.FLAGS.config)
    _set_up_logging()
    return rest


def _without_earlier_values(argv: list[str]) -> list[str]:
    """Returns the arguments with only the last value of each `--config.KEY=VALUE`.

    ml_collections joins the values of a tuple that is given twice.
    """
    keys = [
        match["key"] if "=" in argument and (match := OVERRIDE.match(argument)) else None
        for argument in argv
    ]
    return [
        argument
        for place, (argument, key) in enumerate(zip(argv, keys, strict=True))
        if key is None or key not in keys[place + 1 :]
    ]


def _find_config(argv: list[str]) -> tuple[list[str], str]:
    """Returns the arguments with `--config FILE` as one, and the path of FILE with its recipe.

    A FILE that does not exist here is that of the installed package.
    """
    joined, path = [], ""
    arguments = iter(argv)
    for argument in arguments:
        if argument in ("-config", "--config"):
            argument = f"{argument}={next(arguments, '')}"
        if re.match("--?config=", argument):
            file, colon, recipe = argument.partition("=")[2].partition(":")
            path = config_files.find_file(file) + colon + recipe
            argument = f"--config={path}"
        joined.append(argument)
    return joined, path


def _check_overrides(argv: list[str], path: str) -> None:
    """Raises UserError for the first `--config.…` override that is not a key of the config."""
    config = flags.FLAGS["config"].parser.parse(path)
    for argument in argv:
        if match := OVERRIDE.match(argument):
            config_files.find_key(config, match["key"])


def _set_up_logging() -> None:
    """Logs our own messages and other libraries' warnings, one line each."""
    # absl's handler would repeat them with a prefix.
    logging.getLogger().removeHandler(absl_logging.get_absl_handler())
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    # Errors of orbax are raised again as ours, and with them those of its unawaited tasks.
    _silence_absl()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    logging.getLogger("cnn_papers").setLevel(logging.INFO)
    _replace_unraisable_hook()


def _silence_absl() -> None:
    absl_logging.set_verbosity(absl_logging.FATAL)


def _replace_unraisable_hook() -> None:
    """Handles errors in callbacks and destructors, which Python can only print.

    The SystemExit of a signal still ends the process. The traceback for each array whose write
    fails is left out: orbax has given up by then, and its threads have not.
    """
    show = sys.unraisablehook

    def handle_unraisable(unraisable: Any) -> None:
        error = unraisable.exc_value
        if isinstance(error, SystemExit) and isinstance(error.code, int):
            _leave(error.code)
        if str(error) != "Event loop is closed":
            show(unraisable)

    if getattr(show, "__name__", "") != handle_unraisable.__name__:
        sys.unraisablehook = handle_unraisable
