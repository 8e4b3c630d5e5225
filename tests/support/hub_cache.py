"""A cache of the Hugging Face hub, as huggingface_hub lays it out."""

import hashlib
import pathlib
from collections.abc import Mapping

COMMIT = "a" * 40


def write(
    cache: pathlib.Path,
    repository: str,
    files: Mapping[str, bytes],
    *,
    commit: str = COMMIT,
    branch: str = "main",
) -> None:
    """Puts files of a repository into the cache, as downloaded at a commit of a branch.

    A snapshot is a folder of links to blobs, which are called by their digest.
    """
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    for part in (snapshot, folder / "blobs", folder / "refs"):
        part.mkdir(parents=True, exist_ok=True)
    (folder / "refs" / branch).write_text(commit)
    for name, content in files.items():
        digest = hashlib.sha256(content).hexdigest()
        (folder / "blobs" / digest).write_bytes(content)
        (snapshot / name).symlink_to(f"../../blobs/{digest}")
