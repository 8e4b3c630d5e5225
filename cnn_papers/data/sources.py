"""Opens a split of a data set by its name: a TFDS data set, a folder of images or of VOC's form."""

import pathlib

from cnn_papers.data import folders, labels, slices, tfds, voc_folders
from cnn_papers.data.split import Split, only
from cnn_papers.errors import UserError, listed

VOC = "voc_folder:"


def open_split(name: str, split: str, data_dir: str = "", *, max_bad_boxes: int = 0) -> Split:
    """Opens `split` of the data set `name`, without TensorFlow.

    Args:
      name: a TFDS data set that is prepared as array_record and has a feature `image`, and `label`
        or `objects` with boxes (`digits` and `digits/scenes` are made when they are first opened);
        or `folder:PATH`, a folder of images with one sub-folder (of any depth) per class, which are
        directly in PATH or below PATH/train and PATH/val (or other usual names of splits, in any
        case); or `voc_folder:PATH`, a folder with JPEGImages, Annotations and ImageSets/Main.
      split: a name, or a slice in TFDS's notation: `train[:90%]`, `train[90%:]`, `train[:45000]`.
        Those of TFDS and of VOC folders may be joined: `train+validation`. A split of images with
        one label may end with a part of each class, in an order drawn by a seed (0 if left out):
        `train[:30/class, seed=1]` has 30 of each, `train[30:80/class, seed=1]` up to 50 others.
      data_dir: where TFDS data sets are prepared; TFDS's default folder if empty.
      max_bad_boxes: how many boxes may be left out, which have no area or reach beyond their image.

    Raises:
      UserError: no such data set or split; data that is missing or not prepared; annotations that
        are wrong.
    """
    part = slices.parse_of_classes(split)
    if part is not None:
        return _take_of_classes(
            open_split(name, part.split, data_dir, max_bad_boxes=max_bad_boxes), part
        )
    if name.startswith(VOC):
        return voc_folders.open_voc_folder(name.removeprefix(VOC), split, max_bad_boxes)
    if name.startswith("folder:"):
        return folders.open_folder(name.removeprefix("folder:"), split)
    return tfds.open_tfds(name, split, data_dir, max_bad_boxes)


def _take_of_classes(split: Split, part: slices.ClassSlice) -> Split:
    """Returns a part of each class of `split`."""
    if split.objects is not None and split.labels is None:
        raise UserError(
            f"split {part.split + part.suffix!r}: the images of {split.name} may show several "
            "classes, and a part of each class is of images with one label"
        )
    of_images = labels.of_images(split, f"reading the labels of {split.name}")
    chosen, short = slices.take_of_classes(of_images, split.class_names, part, split.name)
    name = f"{split.name.removesuffix(']')}{part.suffix}]"
    if short:
        folders.say_once(f"{name} has fewer images of {listed(short, 5)}, which have no more")
    return only(split, chosen)._replace(name=name)


def open_to_test(name: str, split: str, data_dir: str = "", *, max_bad_boxes: int = 0) -> Split:
    """Opens a split as `open_split` does, for what needs no other split of the data set.

    A folder of images without sub-folders for splits may then be the split itself: all its images,
    whatever the name of the split.
    """
    if name.startswith("folder:") and "[" not in split:
        path = name.removeprefix("folder:")
        if list(folders.folder_splits(path).values()) == [pathlib.Path(path)]:
            return folders.open_folder(path, "train")._replace(name=name)
    return open_split(name, split, data_dir, max_bad_boxes=max_bad_boxes)
