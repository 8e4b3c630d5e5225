"""Input pipelines of other libraries: tf.data, and torch's DataLoader over Pillow.

`benchmark --input_versus` compares ours with them. They do the same operations, and read encoded
images from memory; ours reads them from disk.
"""

import importlib.util
import io
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from cnn_papers.errors import UserError
from cnn_papers.opstrings import Op

LIBRARIES = {"tf.data": ("tensorflow",), "torch": ("torch", "PIL")}  # and the packages they need
OPERATIONS = ("decode", "resize", "resize_short", "random_crop", "center_crop")  # of both
FILTERS = {"area": "BOX", "bilinear": "BILINEAR", "bicubic": "BICUBIC", "nearest": "NEAREST"}


class Work(NamedTuple):
    """The work of a pipeline.

    Attributes:
      images, labels: encoded images and their classes.
      ops: parsed operations of `data.host_ops`.
      threads: number of images that are read at once.
    """

    images: list[bytes]
    labels: list[int]
    ops: tuple[Op, ...]
    batch_size: int
    threads: int


def check(names: Sequence[str], ops: Sequence[Op]) -> None:
    """Raises UserError if a library is unknown or not installed, or lacks one of `ops`."""
    for name in names:
        if name not in LIBRARIES:
            raise UserError(f"--input_versus={name}: there are {', '.join(LIBRARIES)}")
        for package in LIBRARIES[name]:
            if importlib.util.find_spec(package) is None:
                raise UserError(f"--input_versus={name} needs {package}, which is not installed")
    if names and (lacking := [op.name for op in ops if op.name not in OPERATIONS]):
        raise UserError(
            f"--input_versus: other libraries have no '{lacking[0]}' here; "
            f"they have {', '.join(OPERATIONS)}"
        )


def batches(name: str, work: Work) -> Iterator[dict[str, np.ndarray]]:
    """Yields shuffled training batches without end, uint8 `image` and `label`, by `name`."""
    return {"tf.data": _tf_data, "torch": _torch}[name](work)


def describe(name: str) -> str:
    """Returns the library with its version and settings, in words."""
    package = LIBRARIES[name][0]
    version = importlib.import_module(package).__version__
    how = {"tf.data": "AUTOTUNE", "torch": "DataLoader over Pillow, a process a core"}
    return f"{package} {version}, {how[name]}"


def _tf_data(work: Work) -> Iterator[dict[str, np.ndarray]]:
    tf: Any = importlib.import_module("tensorflow")

    tf.config.set_visible_devices([], "GPU")

    def transform(image: Any, label: Any) -> tuple[Any, Any]:
        for op in work.ops:
            if op.name == "decode":
                image = tf.image.decode_image(
                    image, channels=(*op.args, 3)[0], expand_animations=False
                )
            elif op.name == "resize":
                image = _tf_resize(tf, image, (op.args * 2)[:2], op)
            elif op.name == "resize_short":
                shape = tf.cast(tf.shape(image)[:2], tf.float32)
                shape = tf.cast(tf.round(shape * (op.args[0] / tf.reduce_min(shape))), tf.int32)
                image = _tf_resize(tf, image, shape, op)
            elif op.name == "random_crop":
                image = tf.image.random_crop(image, (op.args[0], op.args[0], tf.shape(image)[-1]))
            else:
                image = tf.image.resize_with_crop_or_pad(image, op.args[0], op.args[0])
        return image, label

    data = tf.data.Dataset.from_tensor_slices((work.images, work.labels))
    data = data.shuffle(len(work.images)).repeat()
    data = data.map(transform, num_parallel_calls=tf.data.AUTOTUNE)
    for image, label in data.batch(work.batch_size).prefetch(2).as_numpy_iterator():
        yield {"image": image, "label": label}


def _tf_resize(tf: Any, image: Any, size: Any, op: Op) -> Any:
    resized = tf.image.resize(image, size, op.kwargs.get("method", "area"))
    return tf.cast(tf.round(resized), tf.uint8)


def _torch(work: Work) -> Iterator[dict[str, np.ndarray]]:
    torch: Any = importlib.import_module("torch")

    loader = torch.utils.data.DataLoader(
        PillowImages(work),  # type: ignore[arg-type]
        work.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=work.threads,
        multiprocessing_context="spawn",
        persistent_workers=True,
    )
    while True:
        for image, label in loader:
            yield {"image": image.numpy(), "label": label.numpy()}


class PillowImages:
    """A torch dataset: images decoded and transformed by Pillow, uint8 [h, w, c], with labels."""

    def __init__(self, work: Work):
        self._images, self._labels = work.images, work.labels
        self._ops = [(op.name, op.args, op.kwargs.get("method", "area")) for op in work.ops]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        import PIL.Image

        image = PIL.Image.open(io.BytesIO(self._images[index]))
        for name, args, method in self._ops:
            image = _with_pillow(image, name, args, PIL.Image.Resampling[FILTERS[method]])
        return np.array(image).reshape(image.height, image.width, -1), self._labels[index]


def _with_pillow(image: Any, name: str, args: Any, resampling: Any) -> Any:
    """Returns a Pillow image after the host operation `name`."""
    if name == "decode":
        return image.convert("L" if args == (1,) else "RGB")
    if name == "resize":
        return image.resize((args * 2)[1::-1], resampling)  # Pillow wants the width first
    if name == "resize_short":
        scale = args[0] / min(image.size)
        return image.resize([round(side * scale) for side in image.size], resampling)
    spare = image.width - args[0], image.height - args[0]
    if name == "center_crop":
        left, top = spare[0] // 2, spare[1] // 2
    else:
        left, top = np.random.randint(spare[0] + 1), np.random.randint(spare[1] + 1)
    return image.crop((left, top, left + args[0], top + args[0]))
