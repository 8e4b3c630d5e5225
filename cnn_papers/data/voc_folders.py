"""Opens a folder of VOC's layout: JPEGImages, Annotations and ImageSets/Main.

An image set is a text file with the name of an image a line, without its suffix; it is one split,
in the order of the file. An image is any JPEG, PNG, BMP or WebP in JPEGImages, whatever its suffix.
A file CLASS_SET beside a set, which says of each image whether it shows the class, must agree with
the annotations.

The classes are the names in the annotations of the training images, sorted: of the set `train` for
`train` and `val`, of `trainval` for all other sets. VOC's own order of its 20 classes is the same.
"""

import collections
import concurrent.futures
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cnn_papers.data import image_files, slices, voc_annotations, voc_sets
from cnn_papers.data.folders import entries, is_image, say_once
from cnn_papers.data.objects import check_bad_boxes, to_objects
from cnn_papers.data.split import DamagedExample, Objects, Split
from cnn_papers.data.voc_annotations import Annotation
from cnn_papers.errors import UserError, did_you_mean, listed

_PARTS = ("JPEGImages", "Annotations", voc_sets.FOLDER)
_SYNONYMS = {"validation": "val"}  # TFDS's name
_FIRST_PIXEL = 1  # VOC counts rows and columns from 1, and includes the last


class _VocExamples(Sequence):
    """Image files of one folder, by name."""

    def __init__(self, folder: pathlib.Path, files: list[str]):
        self._folder, self._files = folder, files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        path = self._folder / self._files[index]
        try:
            return {"image": path.read_bytes(), "id": path.name}
        except OSError as error:
            raise DamagedExample(f"cannot read {path}: {error.strerror}") from error


def image_sets(path: str) -> dict[str, list[str]]:
    """Returns the names of the images of every set of a folder, by the name of the set.

    Raises:
      UserError: the folder has another layout, or no set; a set that names an image twice.
    """
    root = _check_layout(path)
    sets = {file.stem: voc_sets.read_lines(file) for file in (root / voc_sets.FOLDER).glob("*.txt")}
    names = [name for name, lines in sets.items() if not voc_sets.is_of_one_class(name, lines)]
    if not names:
        raise UserError(
            f"{root / voc_sets.FOLDER} has no image sets: write the names of the training images "
            "to train.txt, without their suffix, one a line"
        )
    names.sort(
        key=lambda name: (
            voc_sets.USUAL.index(name) if name in voc_sets.USUAL else len(voc_sets.USUAL),
            name,
        )
    )
    for name in names:
        twice = [image for image, count in collections.Counter(sets[name]).items() if count > 1]
        if twice:
            raise UserError(f"{root / voc_sets.FOLDER}/{name}.txt names {listed(twice)} twice")
    return {name: sets[name] for name in names}


def open_voc_folder(path: str, split: str, max_bad_boxes: int = 0) -> Split:
    """Opens a split of the folder `path`, as `sources.open_split` says."""
    opened, bad = read_split(path, split)
    check_bad_boxes(bad, opened.name, max_bad_boxes)
    return opened


def read_split(path: str, split: str) -> tuple[Split, list[str]]:
    """Returns a split of the folder `path`, and a description of every box that is left out as bad.

    All annotations are read, and the size of every image is compared with its annotation.

    Raises:
      UserError: as `open_voc_folder`, except for bad boxes.
    """
    sets = image_sets(path)
    root = pathlib.Path(path)
    parts = _parse(path, split, sets)
    folder = root / "JPEGImages"
    names = [
        name
        for part in parts
        for name in slices.take(sets[part.name], part, f"{root}/{voc_sets.FOLDER}/{part.name}.txt")
    ]
    training = _training_images(sets, {part.name for part in parts})
    images = _images_by_name(folder)
    annotations = _read_annotations(root, dict.fromkeys([*training, *names]), images, sets)
    for part in parts:
        voc_sets.check_sets_of_classes(root / voc_sets.FOLDER, part.name, annotations)
    class_names = _class_names(annotations[name] for name in training)
    files = [_file_of(name, images, root) for name in names]
    full_name = f"voc_folder:{path}[{'+'.join(part.name + part.suffix for part in parts)}]"
    described = [annotations[name] for name in names]
    objects, bad = _objects(root, files, described, class_names)
    if not any(len(image.classes) for image in objects):
        raise UserError(f"no image of {full_name} has an object in its annotation")
    examples = _VocExamples(folder, files)
    return Split(full_name, examples, class_names, str(folder), objects=objects), bad


def class_names_of(path: str, split: str) -> tuple[str, ...]:
    """Returns the classes of a split of the folder `path`, without looking at its images."""
    sets = image_sets(path)
    root = pathlib.Path(path)
    training = _training_images(sets, {part.name for part in _parse(path, split, sets)})
    images = _images_by_name(root / "JPEGImages")
    return _class_names(_read_annotations(root, training, images, sets).values())


def _parse(path: str, split: str, sets: Iterable[str]) -> list[slices.SplitSlice]:
    """Returns the slices of image sets that `split` joins; UserError for one of no set."""
    parts = [slices.parse(text) for text in split.split("+")]
    parts = [part._replace(name=_SYNONYMS.get(part.name, part.name)) for part in parts]
    for part in parts:
        if part.name not in sets:
            raise UserError(f"{path} has no split {part.name!r}: it has {', '.join(sets)}")
    return parts


def _class_names(annotations: Iterable[Annotation]) -> tuple[str, ...]:
    return tuple(sorted({found.name for image in annotations for found in image.objects}))


def _check_layout(path: str) -> pathlib.Path:
    """Returns the folder `path`; UserError if it is not of VOC's layout."""
    root = pathlib.Path(path)
    if not path or not root.is_dir():
        raise UserError(
            f"no folder {path!r}: write voc_folder:PATH with {', '.join(_PARTS)} in PATH"
        )
    missing = [part for part in _PARTS if not (root / part).is_dir()]
    if not missing:
        return root
    inner = [
        folder
        for pattern in ("*", "*/*")
        for folder in sorted(root.glob(pattern))
        if all((folder / part).is_dir() for part in _PARTS)
    ]
    if inner:
        raise UserError(
            f"{path} holds {listed([str(folder.relative_to(root)) for folder in inner])}: "
            f"write voc_folder:{inner[0]}"
        )
    for outer in list(root.parents)[:2]:
        if all((outer / part).is_dir() for part in _PARTS):
            raise UserError(f"{path} is a part of {outer}: write voc_folder:{outer}")
    for folder in root.glob("*/*" if "/" in missing[0] else "*"):
        found = folder.relative_to(root).as_posix()
        if found.lower() == missing[0].lower():
            raise UserError(f"{path} has {found} in place of {missing[0]}: rename it")
    hint = f"; images in folders of classes are folder:{path}" if missing == [*_PARTS] else ""
    raise UserError(f"{path} has no {missing[0]}: VOC's layout is {', '.join(_PARTS)}{hint}")


def _training_images(sets: dict[str, list[str]], asked: set[str]) -> list[str]:
    """Returns the images whose annotations name the classes of the sets `asked`."""
    candidates = ("train", "trainval") if asked <= {"train", "val"} else ("trainval", "train")
    name = next((name for name in candidates if name in sets), None)
    return [image for part in ([name] if name else sorted(asked)) for image in sets[part]]


def _images_by_name(folder: pathlib.Path) -> dict[str, list[str]]:
    """Returns the image files of a folder, by their name without the suffix."""
    files = collections.defaultdict(list)
    for entry in entries(folder):
        if is_image(str(entry)):
            files[entry.stem].append(entry.name)
    return files


def _read_annotations(
    root: pathlib.Path,
    names: Iterable[str],
    images: dict[str, list[str]],
    sets: dict[str, list[str]],
) -> dict[str, Annotation]:
    """Returns the annotations of images by name; UserError for an image that has none."""

    def read(name: str) -> tuple[str, Annotation]:
        path = root / "Annotations" / f"{name}.xml"
        try:
            return name, voc_annotations.read(path)
        except FileNotFoundError:
            if name in images:
                raise UserError(
                    f"{root / 'JPEGImages' / images[name][0]} has no annotation: write {path}, "
                    "without objects if the image shows none"
                ) from None
            part = next(part for part, lines in sets.items() if name in lines)
            # With a suffix or a folder, or with a label of the image behind its name.
            likely = [
                text for text in (pathlib.PurePath(name).stem, name.split()[0]) if text in images
            ]
            hint = f": write {likely[0]!r}" if likely else ""
            raise UserError(
                f"{root / voc_sets.FOLDER}/{part}.txt names {name!r}, "
                f"which has neither an image nor an annotation{hint}"
            ) from None

    with concurrent.futures.ThreadPoolExecutor() as pool:
        return dict(pool.map(read, names))


def _file_of(name: str, images: dict[str, list[str]], root: pathlib.Path) -> str:
    """Returns the file of the image `name`; UserError if there is none, or more than one."""
    files = images.get(name, [])
    if not files:
        folder = root / "JPEGImages"
        others = [entry.name for entry in entries(folder) if entry.stem == name]
        hint = f": {listed(others)} is no JPEG, PNG, BMP or WebP" if others else ""
        raise UserError(f"{root}/Annotations/{name}.xml has no image {name} in {folder}{hint}")
    if len(files) > 1:
        raise UserError(f"{root}/JPEGImages has {' and '.join(files)}: remove all but one")
    return files[0]


def _objects(
    root: pathlib.Path,
    files: Sequence[str],
    annotations: Sequence[Annotation],
    class_names: Sequence[str],
) -> tuple[list[Objects], list[str]]:
    """Returns the objects of images, and a description of every box that is left out."""
    label_of = {name: label for label, name in enumerate(class_names)}
    paths = [str(root / "JPEGImages" / file) for file in files]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        sizes = [*pool.map(_declared_size, paths)]
    objects, bad, unclear = [], [], []
    for path, annotation, declared in zip(paths, annotations, sizes, strict=True):
        size = _checked_size(path, annotation.size, declared)
        if annotation.objects and _may_be_unturned(annotation.size, declared):
            unclear.append(pathlib.Path(path).name)
        file = f"{pathlib.Path(path).stem}.xml"
        names = [found.name for found in annotation.objects]
        described = [f"object {i} ({name}) of {file}" for i, name in enumerate(names, 1)]
        for what, name in zip(described, names, strict=True):
            if name not in label_of:
                known = listed(class_names) or "no objects"
                hint = did_you_mean(name, class_names) or f"they have {known}"
                raise UserError(
                    f"{root}/Annotations: {what} is of a class that the training images lack; "
                    f"{hint}"
                )
        of_image, bad_of_image = to_objects(
            np.array([found.edges for found in annotation.objects]).reshape(-1, 4),
            [label_of[name] for name in names],
            [found.is_difficult for found in annotation.objects],
            size,
            first=_FIRST_PIXEL,
            describe=described.__getitem__,
        )
        objects.append(of_image)
        bad += bad_of_image
    if unclear:
        say_once(
            f"{root}: EXIF turns or mirrors {listed(unclear)}; their boxes are taken for those of "
            "the upright images, since the sizes in their annotations do not tell"
        )
    return objects, bad


def _declared_size(path: str) -> image_files.DeclaredSize | None:
    try:
        return image_files.read_declared_size(path)
    except OSError:
        return None  # the reader of its pixels counts it as damaged


def _checked_size(
    path: str, annotated: tuple[int, int] | None, declared: image_files.DeclaredSize | None
) -> tuple[int, int]:
    """Returns the (height, width) of the upright image `path`.

    Of an image that declares none, which decoding will refuse, it is that of the annotation.

    Raises:
      UserError: the annotation has another size, or neither has one.
    """
    if declared is None:
        if annotated is None:
            raise UserError(f"{path} cannot be read, and its annotation does not give its size")
        return annotated
    height, width = declared.upright
    if annotated is None or annotated == declared.upright:
        return declared.upright
    if declared.orientation >= 5 and annotated == (width, height):
        raise UserError(
            f"{path} is turned to {width}×{height} pixels by its EXIF orientation, and its "
            f"annotation describes it unturned, as {height}×{width}: "
            "remove the orientation from the image, or annotate it upright"
        )
    raise UserError(
        f"{path} has {width}×{height} pixels, and its annotation says "
        f"{annotated[1]}×{annotated[0]}: it belongs to another image or size"
    )


def _may_be_unturned(
    annotated: tuple[int, int] | None, declared: image_files.DeclaredSize | None
) -> bool:
    """Tells whether an annotation may describe an image unturned, without a size that shows it."""
    if declared is None or declared.orientation == 1:
        return False
    height, width = declared.upright
    return declared.orientation < 5 or annotated is None or height == width
