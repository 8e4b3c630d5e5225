"""Keeps compiled programs in the user's cache folder."""

import contextlib
import logging
import os
import pathlib
import re
import warnings
from typing import Any

from cnn_papers import files

VARIABLE = "JAX_COMPILATION_CACHE_DIR"
MAX_BYTES = 2 * 2**30
MIN_COMPILE_S = 0.5  # programs that compile faster are not kept


def enable() -> None:
    """Lets JAX keep compiled programs in the user's cache folder, up to MAX_BYTES.

    The environment variable JAX_COMPILATION_CACHE_DIR names another folder; "" disables the cache.
    Without it, nothing is kept for a user without a home folder.
    """
    import jax

    from cnn_papers.data.statistics import cache_folder

    user_cache = cache_folder()
    folder = os.environ.get(VARIABLE, str(user_cache / "xla") if user_cache else "")
    if not folder:
        return
    folder = files.expand(folder, f"{VARIABLE}=")
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_S)
    _handle_warnings(pathlib.Path(folder))


def _handle_warnings(folder: pathlib.Path) -> None:
    """Logs only the first of JAX's warnings about the cache, and removes entries it cannot read.

    A kill while an entry is written leaves a damaged one. JAX would compile its program at every
    start and never replace it.
    """
    show, logged = warnings.showwarning, []

    def handle(message: Any, *others: Any) -> None:
        match = re.match(
            r"Error (read|writ)ing persistent compilation cache entry for '(.*?)': (.*)",
            str(message),
        )
        if not match:
            return show(message, *others)
        action, program, reason = match.groups()
        if action == "read":
            for entry in folder.glob("*"):
                if entry.name.startswith(f"{program}-"):
                    with contextlib.suppress(OSError):  # another process may have removed it
                        entry.unlink()
        if not logged:
            logged.append(reason)
            text = "compilation cache %s: %s; the run continues and compiles what is missing"
            logging.getLogger(__name__).warning(text, folder, reason)

    warnings.showwarning = handle
