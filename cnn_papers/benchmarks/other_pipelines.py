"""Other libraries' input pipelines doing what ours does: tf.data, and torch's DataLoader over
Pillow.

What `benchmark --input_versus` measures against. They read encoded images from memory; ours reads
them from disk.
"""

import importlib.util
import io
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from cnn_papers.errors import UserError
from cnn_papers.opstrings import Op

RIVALS = {"tf.data": ("tensorflow",), "torch": ("torch", "PIL")}
KNOWN = (
    "decode",
    "resize",
    "resize_short",
    "random_crop",
    "center_crop",
)  # operations that both copies have
FILTERS = {
    "area": "BOX",
    "bilinear": "BILINEAR",
    "bicubic": "BICUBIC",
    "nearest": "NEAREST",
}  # Pillow's names


class Work(NamedTuple):
    """What a pipeline is to do: the encoded images and labels, operations, images a batch, and
    readers at once.
    """

    images: list[bytes]
    labels: list[int]
    ops: tuple[Op, ...]
    batch_size: int
    threads: int


def check(names: Sequence[str], ops: Sequence[Op]) -> None:
    """Raises UserError for a rival that there is not, or that is not installed, and for operations
    that they lack.
    """
    for name in names:
        if name not in RIVALS:
            raise UserError(f"--input_versus={name}: there are {', '.join(RIVALS)}")
        if missing := [
            package for package in RIVALS[name] if importlib.util.find_spec(package) is None
        ]:
            raise UserError(f"--input_versus={name} needs {missing[0]}, which is not installed")
    if names and (lacking := [op.name for op in ops if op.name not in KNOWN]):
        raise UserError(
            f"the rivals of --input_versus have no '{lacking[0]}'; they have {', '.join(KNOWN)}"
        )


def batches(name: str, work: Work) -> Iterator[dict[str, np.ndarray]]:
    """Endless shuffled training batches, uint8 `image` and `label`, by the rival `name`."""
    return {"tf.data": _tf_data, "torch": _torch}[name](work)


def describe(name: str) -> str:
    """The rival in words."""
    version = importlib.import_module(RIVALS[name][0]).__version__
    how = {"tf.data": "AUTOTUNE", "torch": "DataLoader over Pillow, a process a core"}
    return f"{RIVALS[name][0]} {version}, {how[name]}"


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
    data = (
        data.shuffle(len(work.images)).repeat().map(transform, num_parallel_calls=tf.data.AUTOTUNE)
    )
    for image, label in data.batch(work.batch_size).prefetch(2).as_numpy_iterator():
        yield {"image": image, "label": label}


def _tf_resize(tf: Any, image: Any, size: Any, op: Op) -> Any:
    return tf.cast(
        tf.round(tf.image.resize(image, size, op.kwargs.get("method", "area"))), tf.uint8
    )


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
    """A torch dataset: images decoded and transformed by Pillow, uint8 [h, w, c], with their
    labels.
    """

    def __init__(self, work: Work):
        self._images, self._labels = work.images, work.labels
        self._ops = [(op.name, op.args, op.kwargs.get("method", "area")) for op in work.ops]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        import PIL.Image

        image: Any = PIL.Image.open(io.BytesIO(self._images[index]))
        for name, args, method in self._ops:
            if name == "decode":
                image = image.convert("L" if args == (1,) else "RGB")
            elif name.startswith("resize"):
                short = args[0] / min(image.size)
                size = (
                    (args * 2)[1::-1]
                    if name == "resize"
                    else [round(side * short) for side in image.size]
                )
                image = image.resize(size, PIL.Image.Resampling[FILTERS[method]])
            else:
                space = image.width - args[0], image.height - args[0]
                left, top = (
                    side // 2 if name == "center_crop" else np.random.randint(side + 1)
                    for side in space
                )
                image = image.crop((left, top, left + args[0], top + args[0]))
        return np.array(image).reshape(image.height, image.width, -1), self._labels[index]
