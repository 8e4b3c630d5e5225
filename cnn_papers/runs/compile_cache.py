"""The compilation cache: compiled programs kept in the user's cache folder."""

import contextlib
import logging
import os
import pathlib
import re
import warnings
from typing import Any

COMPILE_CACHE_BYTES = 2 * 2**30


def use_compile_cache() -> None:
    """Keeps compiled programs in the user's cache folder, bounded; JAX_COMPILATION_CACHE_DIR names
    another, "" none.
    """
    import jax

    from cnn_papers.data.statistics import cache_folder

    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(cache_folder() / "xla"))
    if not folder:
        return
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_compilation_cache_max_size", COMPILE_CACHE_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    _mend_compile_cache(pathlib.Path(folder))


def _mend_compile_cache(folder: pathlib.Path) -> None:
    """From now on the first of JAX's warnings about the cache is one line; an entry that it cannot
    read is removed.

    JAX would compile the program at every start and never replace the entry, which a kill while it
    is written leaves.
    """
    show, told = warnings.showwarning, []

    def mend(message: Any, *others: Any) -> None:
        trouble = re.match(
            r"Error (read|writ)ing persistent compilation cache entry for '(.*?)': (.*)",
            str(message),
        )
        if not trouble:
            return show(message, *others)
        action, program, reason = trouble.groups()
        for entry in folder.glob("*") if action == "read" else ():
            if entry.name.startswith(f"{program}-"):
                with contextlib.suppress(OSError):  # another process may have done so
                    entry.unlink()
        if not told:
            told.append(reason)
            text = "compilation cache %s: %s; the run goes on, what is missing is compiled"
            logging.getLogger(__name__).warning(text, folder, reason)

    warnings.showwarning = mend
