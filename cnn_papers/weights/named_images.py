"""Finds the image files that a user names, with their classes where their folders tell them."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from cnn_papers.data import folders
from cnn_papers.errors import UserError, did_you_mean, listed

NO_IMAGES = "holds no images (JPEG, PNG, BMP or WebP); sub-folders are searched only if they are"


class NamedImage(NamedTuple):
    """An image file.

    Attributes:
      path: its file, which need not exist.
      true_class: the class that its folder is named after; "" if that is none of the network's.
    """

    path: pathlib.Path
    true_class: str


def find_images(arguments: Sequence[str], class_names: Sequence[str] = ()) -> list[NamedImage]:
    """Returns the images that the arguments name, even if they do not exist.

    Of a folder they are its images in the order of their names. Of a folder without images of its
    own they are those of its sub-folders, if these are classes of the network.

    Args:
      arguments: paths of images and folders.
      class_names: of the network; () if they are unknown.

    Raises:
      UserError: a folder contains no images, has a class that the network does not know, or cannot
        be read.
    """
    images: list[NamedImage] = []
    for path in map(pathlib.Path, arguments):
        if not path.is_dir():
            images.append(NamedImage(path, _class_of_folder(path.absolute().parent, class_names)))
        elif files := _images_in(path):
            true_class = _class_of_folder(path.absolute(), class_names)
            images += [NamedImage(file, true_class) for file in files]
        else:
            images += _images_in_class_folders(path, class_names)
    return images


def _class_of_folder(folder: pathlib.Path, class_names: Sequence[str]) -> str:
    """Returns the class that a folder is named after, "" if there is none."""
    return folder.name if folder.name in class_names else ""


def _images_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the images that lie in a folder itself."""
    images: list[pathlib.Path] = []
    others: list[str] = []
    for file in folders.entries(folder):
        if file.is_dir() or file.name[0] == ".":
            continue
        if folders.is_image(str(file)):
            images.append(file)
        else:
            others.append(file.name)
    folders.say_left_out(folder, others)
    return images


def _images_in_class_folders(folder: pathlib.Path, class_names: Sequence[str]) -> list[NamedImage]:
    """Returns the images of the class folders in `folder`, at any depth, class by class."""
    names = folders.subfolders(folder)
    if not set(names) & set(class_names):
        splits = [
            name for name in names if set(folders.subfolders(folder / name)) & set(class_names)
        ]
        if splits:
            raise UserError(
                f"{folder} holds the network's classes in {listed(splits, 5)}: "
                f"give one of these folders, such as {folder / splits[-1]}"
            )
        raise UserError(f"{folder} {NO_IMAGES} the network's classes")
    if unknown := [name for name in names if name not in class_names]:
        known = (
            f"{did_you_mean(unknown[0], class_names)} it knows {listed(class_names, 5)}".lstrip()
        )
        raise UserError(
            f"{folder} has folders that are no classes of the network: {listed(unknown, 5)}; "
            f"{known}; give the folders of its classes one by one"
        )
    images: list[NamedImage] = []
    for name in names:
        files, others = folders.files_of_class(folder, name)
        folders.say_left_out(folder / name, others)
        images += [NamedImage(folder / file, name) for file in sorted(files)]
    if not images:
        raise UserError(f"{folder}: its class folders hold no images (JPEG, PNG, BMP or WebP)")
    return images
