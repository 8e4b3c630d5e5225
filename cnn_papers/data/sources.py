"""Opens a split of a data set by its name: one that TFDS knows, or a folder of images."""

from cnn_papers.data import folders, tfds
from cnn_papers.data.split import Split


def open_split(name: str, split: str, data_dir: str = "") -> Split:
    """Opens `split` of the data set `name` without TensorFlow; raises UserError for whatever the
    user can mend.

    `name` is a TFDS name prepared as array_record under `data_dir` ("": TFDS's default folder)
    whose features have an `image` and a `label`; `digits` and `digits/scenes` are made there when
    first asked for. Or it is `folder:PATH`: a folder of images, one sub-folder (of any depth) a
    class, either below PATH/train, PATH/val or directly in PATH. `split` is a name, or a slice in
    TFDS's notation: `train[:90%]`, `train[90%:]`, `train[:45000]`.
    """
    if name.startswith("folder:"):
        return folders.open_folder(name.removeprefix("folder:"), split)
    return tfds.open_tfds(name, split, data_dir)
