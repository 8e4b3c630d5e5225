"""Opens a folder of images with one sub-folder per class."""

import hashlib
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from cnn_papers.data.split import DamagedExample, Split
from cnn_papers.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
_HELD_OUT = ("val", "validation", "valid", "test")  # names of a sub-folder for evaluation


class _FolderExamples(Sequence):
    """Image files below one folder; the first part of a file's path is its class."""

    def __init__(self, folder: pathlib.Path, files: list[str], class_names: Sequence[str]):
        self._folder, self._files = folder, files
        label_of = {name: label for label, name in enumerate(class_names)}
        self.labels = [label_of[file.split("/")[0]] for file in files]

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        file = self._files[index]
        try:
            image = (self._folder / file).read_bytes()
        except OSError as error:
            raise DamagedExample(f"cannot read {self._folder / file}: {error.strerror}") from error
        return {"image": image, "label": self.labels[index], "id": file}


def folder_splits(path: str) -> dict[str, pathlib.Path]:
    """Returns the folder of every split of a folder of images.

    The splits are sub-folders such as PATH/train and PATH/val; if there are none, all of PATH is
    the split `train`.
    """
    root = pathlib.Path(path).expanduser()
    if not path or not root.is_dir():
        raise UserError(
            f"no folder {path!r}: write folder:PATH with one sub-folder of images for each class"
        )
    names = _subfolders(root)
    splits = [name for name in names if name in ("train", *_HELD_OUT)]
    if splits and (splits == names or ("train" in splits and _subfolders(root / "train"))):
        return {name: root / name for name in splits}
    return {"train": root}


def open_folder(path: str, split: str) -> Split:
    """Opens a split of the folder of images `path`, as `sources.open_split` says."""
    folders = folder_splits(path)
    parsed = re.fullmatch(r"(\w+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?", split)
    if not parsed:
        raise UserError(
            f"cannot read the split {split!r}: "
            "write for example train, val, train[:90%] or train[:1000]"
        )
    base, start, stop = parsed.groups()
    if base in _HELD_OUT and base not in folders:
        base = next((name for name in _HELD_OUT if name in folders), base)
    if base not in folders:
        hint = ""
        if len(folders) == 1:
            hint = "; take fractions of it, such as train[:90%] and train[90%:]"
        raise UserError(f"{path} has no split {base!r}: it has {', '.join(folders)}{hint}")
    folder = folders[base]
    class_names = _subfolders(folders.get("train", folder))
    if unknown := sorted(set(_subfolders(folder)) - set(class_names)):
        raise UserError(f"{folder} has classes that {folders['train']} lacks: {', '.join(unknown)}")
    files = image_files(folder)
    first = _bound(start, len(files), 0, split, folder)
    end = _bound(stop, len(files), len(files), split, folder)
    chosen = files[first:end]
    if not chosen:
        raise UserError(
            f"split {split!r} of {folder} is empty: the folder has {len(files):,} images"
        )
    full_name = f"folder:{path}[{base}{split[len(parsed[1]) :]}]"
    examples = _FolderExamples(folder, chosen, class_names)
    return Split(full_name, examples, tuple(class_names), str(folder), examples.labels)


def _subfolders(folder: pathlib.Path) -> list[str]:
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )


def image_files(folder: pathlib.Path) -> list[str]:
    """Returns the paths of all images relative to `folder`, in an order that mixes the classes.

    The parts of a path are separated by `/`. The order is that of the paths' SHA-256: the same on
    every machine, and a file that is added or removed does not change the order of the others.
    Hidden files and folders are left out, and links to folders below a class folder are not
    followed.
    """
    names = _subfolders(folder)
    if not names:
        raise UserError(
            f"{folder} has no class sub-folders: "
            "put the images of each class in a folder of its own"
        )
    files = []
    for name in names:
        before = len(files)
        for parent, folders, entries in os.walk(folder / name):
            folders[:] = [entry for entry in folders if not entry.startswith(".")]
            relative_parent = pathlib.Path(parent).relative_to(folder).as_posix()
            for entry in entries:
                if entry.lower().endswith(IMAGE_SUFFIXES) and not entry.startswith("."):
                    files.append(f"{relative_parent}/{entry}")
        if len(files) == before:
            raise UserError(
                f"class folder {folder / name} holds no images ({', '.join(IMAGE_SUFFIXES)})"
            )
    return sorted(files, key=lambda file: hashlib.sha256(os.fsencode(file)).digest())


def _bound(text: str | None, count: int, default: int, split: str, folder: pathlib.Path) -> int:
    """Returns one end of a slice, such as `90%`, `-10%` or `1000`, as an index in 0 … count."""
    if not text:
        return default
    value = int(text.rstrip("%"))
    if text.endswith("%"):
        value = round(value * count / 100) if abs(value) <= 100 else count + 1
    index = value + count if value < 0 else value
    if not 0 <= index <= count:
        raise UserError(f"split {split!r} reaches beyond the {count:,} images of {folder}")
    return index
