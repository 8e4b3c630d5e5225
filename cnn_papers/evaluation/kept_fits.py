"""Keeps what a test fits, such as SVMs, in the folder of a run: fitted-<digest>.npz.

What is wanted is a NamedTuple of settings: its `repr` is part of the digest, its `words` name it in
messages, and its `result` makes what it becomes of the arrays `weights` and `bias`.
"""

import hashlib
import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from cnn_papers import files
from cnn_papers.data import statistics
from cnn_papers.data.split import Split
from cnn_papers.errors import UserError

Fitted = dict[Any, Any]  # results by what was wanted


def digest_of_network(network: Any, look: str) -> str:
    """Returns a digest of all that features depend on, but the images.

    It is of the weights of a `weights.trained.Trained`, of its network and device operations, and
    of `look`, a text that says which outputs of which views or windows the features are.
    """
    config = network.config
    settings = (look, config.model_name, config.model.to_dict(), config.data.eval_device)
    digest = hashlib.sha256(repr(settings).encode())
    for path, leaf in jax.tree.leaves_with_path(network.variables):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def digest_of_training(split: Split) -> str:
    """Returns a digest of the images of `split`, their labels, objects and proposals."""
    digest = hashlib.sha256(statistics.fingerprint(split, "decode").encode())
    digest.update(repr(split.class_names).encode())
    if split.labels is not None:
        digest.update(np.asarray(split.labels, np.int64).tobytes())
    for image in split.objects or ():
        digest.update(repr(tuple(image.size)).encode())
        for array in (image.boxes, image.classes, image.difficult):
            digest.update(np.ascontiguousarray(array).tobytes())
    for proposals in split.proposals or ():
        digest.update(len(proposals).to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(proposals).tobytes())
    return digest.hexdigest()[:16]


def load_or_fit(
    folder: pathlib.Path | None,
    wanted: Sequence[Any],
    others: Sequence[Any],
    of_network: str,
    of_training: str,
    fit: Callable[[Sequence[Any]], Fitted],
) -> Fitted:
    """Returns all that is `wanted`: read from `folder`, and what is not there fitted and kept.

    Args:
      folder: of the run; None keeps nothing.
      others: fitted and kept too where they are not there and something wanted is not.
      of_network, of_training: digests, from the functions above.
      fit: returns what it is given, fitted.

    Raises:
      UserError: a file is damaged, or cannot be written.
    """
    if folder is None:
        return fit(list(dict.fromkeys(wanted)))
    paths = {}
    for each in (*wanted, *others):
        digest = hashlib.sha256(repr((each, of_network, of_training)).encode()).hexdigest()[:16]
        paths[each] = folder / f"fitted-{digest}.npz"
    kept = {each: path for each, path in paths.items() if path.is_file()}
    missing = [each for each in paths if each not in kept]
    # A damaged file of a later protocol is found now, not after hours.
    fitted: Fitted = {each: _result(_load(path), each) for each, path in kept.items()}
    for each in wanted:
        if each in kept:
            logging.getLogger(__name__).info("%s: read from %s", each.words, kept[each])
    if not set(missing).isdisjoint(wanted):
        for each, result in fit(missing).items():
            _save(paths[each], each, of_network, result)
            fitted[each] = result
    return {each: fitted[each] for each in wanted}


def find(folder: pathlib.Path, wanted: Sequence[Any], of_network: str) -> Fitted:
    """Returns all that is `wanted`, as the last test of the run in `folder` fitted it.

    Raises:
      UserError: no test has fitted it to this network, or a file is damaged.
    """
    newest_first = sorted(folder.glob("fitted-*.npz"), key=lambda path: -path.stat().st_mtime)
    contents = [_load(path) for path in newest_first]
    fitted: Fitted = {}
    for each in wanted:
        identity = (repr(each), of_network)
        matching = [c for c in contents if (str(c["wanted"]), str(c["network"])) == identity]
        if not matching:
            raise UserError(
                f"{folder} has no {each.words} of this network: test the run by the protocol "
                "that needs them (main with --mode=eval), which fits them"
            )
        fitted[each] = _result(matching[0], each)
    return fitted


def _save(path: pathlib.Path, wanted: Any, of_network: str, result: Any) -> None:
    identity: Any = {"wanted": np.array(repr(wanted)), "network": np.array(of_network)}
    with files.atomic_write(path) as part, part.open("wb") as file:
        np.savez(file, **result._asdict(), **identity)


def _load(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the arrays of one file; UserError if it is damaged."""
    try:
        arrays = files.read_npz(path)
        return {name: arrays[name] for name in ("weights", "bias", "wanted", "network")}
    except (ValueError, KeyError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); delete the file, and the next test fits it again"
        ) from error


def _result(arrays: dict[str, np.ndarray], wanted: Any) -> Any:
    return wanted.result(arrays["weights"], arrays["bias"])
