"""Opens a folder of images with one sub-folder per class."""

import collections
import hashlib
import logging
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from cnn_papers.data import image_files, slices
from cnn_papers.data.split import DamagedExample, Split
from cnn_papers.errors import UserError, listed

# The usual names of the folders of splits, in any case, each with the split that it is.
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_SPLIT_NAME = re.compile(rf"({'|'.join(_SPLITS)})([ _-]?set)?", re.IGNORECASE)
_VOC = {"Annotations", "JPEGImages"}  # of a folder with boxes, which is opened otherwise
# Folders that programs put beside people's own, which may contain images.
_NOT_DATA = ("__MACOSX", "@eaDir", "lost+found")
# Files of these suffixes lie beside many images, and are not opened to see that they are none.
_NOT_IMAGES = (".txt", ".json", ".xml", ".csv")
_said: set[str] = set()  # what the log says of a folder, it says once


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
    """Returns the folder of every split of a folder of images, by the name that it has on disk.

    The splits are sub-folders such as PATH/train and PATH/val, or PATH/Training and PATH/Testing;
    if there are none, all of PATH is the split `train`.
    """
    root = pathlib.Path(path)
    if not path or not root.is_dir():
        raise UserError(
            f"no folder {path!r}: write folder:PATH with one sub-folder of images for each class"
        )
    names = subfolders(root)
    if set(names) >= _VOC:
        raise UserError(f"{path} is a folder in VOC's format: write voc_folder:{path}")
    splits = [name for name in names if _kind_of_split(name)]
    has_train = any(_kind_of_split(name) == "train" and subfolders(root / name) for name in splits)
    if not splits or not (splits == names or has_train):
        return {"train": root}
    if others := [name for name in names if name not in splits]:
        say_once(f"{root}: took {listed(splits, 5)}, left out {listed(others, 5)}")
    return {name: root / name for name in splits}


def open_folder(path: str, split: str) -> Split:
    """Opens a split of the folder of images `path`, as `sources.open_split` says."""
    folders = folder_splits(path)
    part = slices.parse(split)
    name = _find_split(path, folders, part.name)
    if name is None:
        hint = ""
        if list(folders) == ["train"]:
            class_folders(folders["train"])  # its error says more
            hint = "; take fractions of it, such as train[:90%] and train[90%:]"
        raise UserError(f"{path} has no split {part.name!r}: it has {', '.join(folders)}{hint}")
    folder = folders[name]
    class_names, files = split_images(path, folders, name)
    chosen = slices.take(files, part, str(folder))
    full_name = f"folder:{path}[{name}{part.suffix}]"
    examples = _FolderExamples(folder, chosen, class_names)
    return Split(full_name, examples, tuple(class_names), str(folder), examples.labels)


def _kind_of_split(name: str) -> str:
    """Returns "train", "val" or "test" if a folder's name says that it is a split, else ""."""
    parsed = _SPLIT_NAME.fullmatch(name)
    return _SPLITS[parsed[1].lower()] if parsed else ""


def _find_split(path: str, folders: dict[str, pathlib.Path], asked: str) -> str | None:
    """Returns the name of the split that `asked` means, None if there is none.

    It is the name itself, else another name of the same split, else `test` for `val` and the
    reverse.
    """
    if asked in folders or not (kind := _kind_of_split(asked)):
        return asked if asked in folders else None
    for wanted in [kind] if kind == "train" else [kind, "val", "test"]:
        names = [name for name in folders if _kind_of_split(name) == wanted]
        if len(names) > 1:
            raise UserError(
                f"{path} has {listed(names, 5)}: name one of them in place of {asked!r}"
            )
        if names:
            return names[0]
    return None


# --- classes --------------------------------------------------------------------------------------


def class_folders(folder: pathlib.Path) -> list[str]:
    """Returns the classes in the folder of a split, which are the names of its sub-folders.

    Raises:
      UserError: there are none, or they are not classes but splits, or a folder around the classes.
    """
    names = subfolders(folder)
    if not names:
        raise UserError(
            f"{folder} has no class sub-folders: "
            "put the images of each class in a folder of its own"
        )
    inner = {name: _unwrapped(folder / name) for name in names}
    without_images = [name for name in names if _holds_folders(inner[name])]
    if len(names) == 1 and without_images:
        if _kind_of_split(folder.name):
            advice = f"move what is in {inner[names[0]]} to {folder}"
        else:
            advice = f"write folder:{inner[names[0]]}"
        raise UserError(f"{folder} holds one folder, {names[0]}, in place of classes: {advice}")
    if len(without_images) > max(1, len(names) / 2):
        shared = set.intersection(*(set(subfolders(inner[name])) for name in without_images))
        if len(shared) > 1:
            likeliest = max(without_images, key=lambda name: "train" in name.lower())
            raise UserError(
                f"{folder}: {listed(without_images, 5)} hold no images, but each holds the folders "
                f"{listed(sorted(shared), 5)}, as splits do: rename them train and val, or write "
                f"folder:{inner[likeliest]}"
            )
    return names


def split_images(
    path: str, folders: dict[str, pathlib.Path], name: str
) -> tuple[list[str], list[str]]:
    """Returns the classes and the images of one split of `folders`, the splits of `path`.

    The classes are those of the split `train`, or the split's own if there is no such split. Images
    are paths relative to the split's folder, with `/` between their parts, in an order that mixes
    the classes: that of the paths' SHA-256, the same on every machine, so that a file that is added
    or removed does not change the order of the others. Hidden files and folders are left out, and
    links to folders below a class folder are not followed. The log says which other files are left
    out, and which classes have no images here.

    Raises:
      UserError: sub-folders that are no classes, a class that `train` lacks, a class of `train`
        without images.
    """
    folder = folders[name]
    train = folders[_find_split(path, folders, "train") or name]
    class_names = class_folders(train)
    names = class_names if folder == train else class_folders(folder)
    if unknown := sorted(set(names) - set(class_names)):
        raise UserError(f"{folder} has classes that {train} lacks: {', '.join(unknown)}")
    images: list[str] = []
    others: list[str] = []
    empty = set(class_names) - set(names)
    for class_name in names:
        images_of_class, others_of_class = files_of_class(folder, class_name)
        if not images_of_class and folder == train:
            found = f", but {_by_suffix(others_of_class)}" if others_of_class else ""
            raise UserError(
                f"class folder {folder / class_name} holds no images "
                f"(JPEG, PNG, BMP or WebP){found}"
            )
        if not images_of_class:
            empty.add(class_name)
        images += images_of_class
        others += others_of_class
    if empty:
        say_once(f"{folder} has no images of {listed(sorted(empty), 5)}")
    say_left_out(folder, others)
    if loose := sum(entry.suffix.lower() in image_files.SUFFIXES for entry in entries(folder)):
        say_once(f"{folder}: left out {loose:,} images that are in no class folder")
    return class_names, sorted(images, key=lambda file: hashlib.sha256(os.fsencode(file)).digest())


def files_of_class(folder: pathlib.Path, class_name: str) -> tuple[list[str], list[str]]:
    """Returns the images and the other files of a class, relative to `folder`."""
    images: list[str] = []
    others: list[str] = []

    def refuse(error: OSError) -> None:
        raise _unreadable(error) from error

    for parent, folders, files in os.walk(folder / class_name, onerror=refuse):
        folders[:] = [name for name in folders if _is_data(name)]
        relative_parent = pathlib.Path(parent).relative_to(folder).as_posix()
        for file in files:
            if not file.startswith("."):
                kind = images if is_image(f"{parent}/{file}") else others
                kind.append(f"{relative_parent}/{file}")
    return images, others


def is_image(file: str) -> bool:
    """Tells whether a file is an image: by its suffix, or by its first bytes if that is unusual."""
    lower = file.lower()
    if lower.endswith(image_files.SUFFIXES):
        return True
    try:
        if lower.endswith(_NOT_IMAGES) or not os.path.isfile(file):  # opening a pipe would wait
            return False
        with open(file, "rb", buffering=0) as opened:
            return bool(image_files.kind(opened.read(image_files.HEAD)))
    except OSError:
        return False


def say_left_out(folder: pathlib.Path, others: Sequence[str]) -> None:
    """Logs how many files of which suffix are not taken for images; once for each folder."""
    if others:
        say_once(
            f"{folder}: left out {len(others):,} files that are no JPEG, PNG, BMP or WebP: "
            f"{_by_suffix(others)}"
        )


def _by_suffix(files: Sequence[str]) -> str:
    counts = collections.Counter(pathlib.PurePath(file).suffix.lower() for file in files)
    most_first = sorted(counts, key=lambda suffix: (-counts[suffix], suffix))
    return listed([f"{counts[suffix]:,} {suffix or 'without suffix'}" for suffix in most_first], 5)


def say_once(message: str) -> None:
    """Logs a warning, unless this process has logged it before."""
    if message not in _said:
        _said.add(message)
        logging.getLogger(__name__).warning("%s", message)


def entries(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns what is in a folder, in the order of the names; UserError if it cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> UserError:
    return UserError(f"cannot read the folder {error.filename}: {error.strerror}")


def _is_data(name: str) -> bool:
    return not name.startswith(".") and name not in _NOT_DATA


def subfolders(folder: pathlib.Path) -> list[str]:
    """Returns the names of the folders in a folder, in their order; hidden ones are left out.

    So are those that programs put beside people's own.

    Raises:
      UserError: the folder cannot be read.
    """
    return [entry.name for entry in entries(folder) if entry.is_dir() and _is_data(entry.name)]


def _holds_folders(folder: pathlib.Path) -> bool:
    """Tells whether a folder has sub-folders and no images beside them."""
    has_folders = False
    try:
        with os.scandir(folder) as scanned:
            for entry in scanned:
                if entry.name.lower().endswith(image_files.SUFFIXES) and entry.name[0] != ".":
                    return False
                has_folders = has_folders or (_is_data(entry.name) and entry.is_dir())
    except OSError as error:
        raise _unreadable(error) from error
    return has_folders


def _unwrapped(folder: pathlib.Path) -> pathlib.Path:
    """Returns the first folder, from `folder` inwards, that is not only around one other."""
    while _holds_folders(folder) and len(names := subfolders(folder)) == 1:
        folder = folder / names[0]
    return folder
