"""Finds weights by name on the Hugging Face hub: "hf:timm/resnet50.tv_in1k".

The name is `hf:OWNER/NAME`, with `@REVISION` (a branch, tag or commit) if it is not the newest, or
`hf:OWNER/NAME/FILE` for a file of another name than those of FILES. Files lie in the cache of
huggingface_hub, which its variables HF_HOME, HF_HUB_OFFLINE and HF_TOKEN govern.
"""

import importlib
import importlib.util
import logging
import pathlib
import re
from typing import Any, NamedTuple

from cnn_papers.errors import UserError

PREFIX = "hf:"
FILES = ("model.safetensors", "pytorch_model.bin")  # the first of them that a repository has
LOG_IN = "give a token, with hf auth login or the variable HF_TOKEN"


class Name(NamedTuple):
    """The parts of a name; `file` and `revision` are "" if it does not have them."""

    repository: str
    file: str
    revision: str


def is_name(weights: str | pathlib.Path) -> bool:
    """Tells whether weights are named on the hub, not by a path."""
    return str(weights).startswith(PREFIX)


def parse(weights: str | pathlib.Path) -> Name:
    """Returns the parts of a name; raises UserError if it is none."""
    match = re.fullmatch(
        r"hf:(?P<repository>[^/@\s]+/[^/@\s]+)(/(?P<file>[^@]+))?(@(?P<revision>.+))?", str(weights)
    )
    if not match:
        raise UserError(
            f"weights {weights}: a name on the hub is hf:OWNER/NAME or hf:OWNER/NAME@REVISION, "
            "such as hf:timm/resnet50.tv_in1k"
        )
    return Name(match["repository"], match["file"] or "", match["revision"] or "")


def local_path(weights: str | pathlib.Path) -> pathlib.Path:
    """Returns the path of a weights file; one that is named on the hub is downloaded first.

    A file that is in the cache is not downloaded again, and is taken where there is no network.

    Raises:
      UserError: the hub has no such repository, revision or file, or cannot be reached; a token is
        needed; huggingface_hub is not installed.
    """
    if not is_name(weights):
        return pathlib.Path(weights)
    name = parse(weights)
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UserError(f"weights {weights}: names on the hub need pip install huggingface_hub")
    library: Any = importlib.import_module("huggingface_hub")
    errors: Any = importlib.import_module("huggingface_hub.errors")
    # It warns of each of its attempts; we say how it ends.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    files = (name.file,) if name.file else FILES
    missing: Any = None
    for file in files:
        try:
            path = library.hf_hub_download(
                name.repository,
                file,
                revision=name.revision or None,
                # What cannot be reached for the first file is not asked for the second.
                local_files_only=isinstance(missing, errors.LocalEntryNotFoundError),
            )
        except errors.EntryNotFoundError as error:
            missing = missing or error
        # The errors of its HTTP library, which depends on its version, are among them.
        except Exception as error:
            raise UserError(f"weights {weights}: {_reason(error, name)}") from error
        else:
            logging.getLogger(__name__).info("weights %s are in %s", weights, path)
            return pathlib.Path(path)
    raise UserError(f"weights {weights}: {_missing(missing, files)}") from missing


def _missing(error: Any, files: tuple[str, ...]) -> str:
    """Says why none of `files` could be had, from the error of the first."""
    constants: Any = importlib.import_module("huggingface_hub.constants")
    errors: Any = importlib.import_module("huggingface_hub.errors")
    if not isinstance(error, errors.LocalEntryNotFoundError):
        return f"the repository has no {' and no '.join(files)}"
    place = f"the cache {constants.HF_HUB_CACHE} does not have them"
    if constants.HF_HUB_OFFLINE:
        return f"{place}, and HF_HUB_OFFLINE forbids to download them"
    return f"{place}, and {constants.ENDPOINT} cannot be reached: {_first_line(error.__cause__)}"


def _reason(error: Exception, name: Name) -> str:
    """Says what an error of the hub means, and what to do."""
    constants: Any = importlib.import_module("huggingface_hub.constants")
    errors: Any = importlib.import_module("huggingface_hub.errors")
    page = f"{constants.ENDPOINT}/{name.repository}"
    if isinstance(error, errors.GatedRepoError):
        return f"access is granted on {page}; then {LOG_IN}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the hub has no such repository; if it is private, {LOG_IN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the repository has no revision '{name.revision}': {page}/commits lists them"
    if getattr(getattr(error, "response", None), "status_code", 0) == 401:
        return f"the hub refuses the token: {LOG_IN}"
    return f"they cannot be downloaded: {_first_line(error)}"


def _first_line(error: BaseException | None) -> str:
    lines = str(error or "").splitlines()
    return lines[0] if lines else type(error).__name__
