"""Opens a split of a data set by its name: a TFDS data set, a folder of images or of VOC's form."""

import pathlib

from cnn_papers.data import folders, tfds, voc_folders
from cnn_papers.data.split import Split

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
        Those of TFDS and of VOC folders may be joined: `train+validation`.
      data_dir: where TFDS data sets are prepared; TFDS's default folder if empty.
      max_bad_boxes: how many boxes may be left out, which have no area or reach beyond their image.

    Raises:
      UserError: no such data set or split; data that is missing or not prepared; annotations that
        are wrong.
    """
    if name.startswith(VOC):
        return voc_folders.open_voc_folder(name.removeprefix(VOC), split, max_bad_boxes)
    if name.startswith("folder:"):
        return folders.open_folder(name.removeprefix("folder:"), split)
    return tfds.open_tfds(name, split, data_dir, max_bad_boxes)


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
