"""The embedded data set `digits`: a TFDS builder that makes it from scikit-learn's, offline.

`digits` (the default configuration, `digits/plain`) is the 1,797 grey 8×8 images of
`sklearn.datasets.load_digits`, in scikit-learn's order, not shuffled: the first 1,437 train, the
last 360 test. `digits/scenes` pastes them in colour, at random places and sizes, on textured
grounds of 64×64 pixels, with a box for every digit. Images are yielded as PNG bytes and written as
array_record, so neither making nor reading them needs TensorFlow.
"""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import cv2
import numpy as np
import tensorflow_datasets as tfds

_TRAIN_DIGITS = 1437
_CLASSES = tuple("0123456789")
# The number of a scene seeds it; those from 2400 came later.
_SCENES = {"train": (*range(2000), *range(2400, 6400)), "test": range(2000, 2400)}
_SCENE_SIDE = 64
_SCENE_SEED = 8


class Digits(tfds.core.GeneratorBasedBuilder):
    """Handwritten digits: to classify, or as scenes to classify, localize and detect."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First release."}
    BUILDER_CONFIGS: ClassVar[list[tfds.core.BuilderConfig]] = [
        tfds.core.BuilderConfig(name="plain", description="Grey 8x8 images, one digit each."),
        tfds.core.BuilderConfig(
            name="scenes",
            version="1.1.0",
            release_notes={"1.1.0": "6,000 training scenes.", "1.0.0": "2,000 training scenes."},
            description="Colour 64x64 scenes of one to three digits with boxes.",
        ),
    ]

    def __init__(self, *, file_format: Any = None, **kwargs: Any):
        super().__init__(file_format=file_format, **kwargs)
        if file_format is None and not self.info.initialized:
            # TFDS's own default needs TensorFlow.
            self.info.set_file_format("array_record", override=True)

    def _info(self) -> tfds.core.DatasetInfo:
        label = tfds.features.ClassLabel(names=_CLASSES)
        if self.builder_config_name == "plain":
            features = {
                "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                "label": label,
            }
        else:
            features = {
                "image": tfds.features.Image(
                    shape=(_SCENE_SIDE, _SCENE_SIDE, 3), encoding_format="png"
                ),
                "label": label,  # of the largest digit, by the area of its box
                "objects": tfds.features.Sequence(
                    {"bbox": tfds.features.BBoxFeature(), "label": label}
                ),
            }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits of the UCI Optical Recognition of Handwritten Digits "
            "data set.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage="https://scikit-learn.org/stable/modules/generated/"
            "sklearn.datasets.load_digits.html",
            citation="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998, "
            "doi:10.24432/C50P49",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        images, labels = _load_digits()
        train, test = slice(0, _TRAIN_DIGITS), slice(_TRAIN_DIGITS, None)
        return {
            "train": self._generate_examples(images[train], labels[train], _SCENES["train"]),
            "test": self._generate_examples(images[test], labels[test], _SCENES["test"]),
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray, scenes: Iterable[int]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        if self.builder_config_name == "plain":
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                yield i, {"image": _encode_png(image), "label": int(label)}
        else:
            for scene in scenes:
                rng = np.random.default_rng((_SCENE_SEED, scene))
                yield scene, _make_scene(rng, images, labels)


def _load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns all images, uint8 [1797, 8, 8, 1], and labels, int [1797].

    scikit-learn's values 0 … 16 become 0 … 255.
    """
    from sklearn.datasets import load_digits  # takes a second, and is needed once

    pixels, labels = load_digits(return_X_y=True)
    images = np.rint(np.asarray(pixels) * (255 / 16)).astype(np.uint8)
    return images.reshape(-1, 8, 8, 1), np.asarray(labels)


def _make_scene(rng: np.random.Generator, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Makes one scene as an example: one to three of `images` that do not overlap.

    The box of each is tight around its ink.
    """
    scene = _ground(rng)
    ground_color = scene.mean((0, 1))
    boxes: list[tuple[int, int, int, int]] = []
    classes: list[int] = []
    wanted = rng.integers(1, 4)
    for _ in range(20):  # tries: where three large digits leave no room, the scene keeps fewer
        if len(boxes) == wanted:
            break
        chosen = rng.integers(len(images))
        side = int(rng.integers(16, 41))
        top, left = rng.integers(0, _SCENE_SIDE - side + 1, 2)
        ink = cv2.resize(
            images[chosen].astype(np.float32) / 255, (side, side), interpolation=cv2.INTER_LINEAR
        )
        ink[ink < 0.1] = 0  # a faint rim would widen the box
        rows, columns = np.nonzero(ink.any(1))[0] + top, np.nonzero(ink.any(0))[0] + left
        box = int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
        if any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in boxes):
            continue
        color = _contrasting_color(rng, ground_color)
        place = scene[top : top + side, left : left + side]
        place += ink[..., None] * (color - place)
        boxes.append(box)
        classes.append(int(labels[chosen]))
    areas = [(bottom - top) * (right - left) for top, left, bottom, right in boxes]
    return {
        "image": _encode_png(np.rint(scene).astype(np.uint8)),
        "label": classes[int(np.argmax(areas))],
        "objects": [
            {"bbox": tfds.features.BBox(*(edge / _SCENE_SIDE for edge in box)), "label": label}
            for box, label in zip(boxes, classes, strict=True)
        ],
    }


def _ground(rng: np.random.Generator) -> np.ndarray:
    """Returns a colour with coarse or fine blotches, float32 [64, 64, 3] in 0 … 255."""
    grain = int(rng.choice((4, 8, 16)))
    blotches = rng.normal(0, 22, (grain, grain, 3)).astype(np.float32)
    texture = cv2.resize(blotches, (_SCENE_SIDE, _SCENE_SIDE), interpolation=cv2.INTER_CUBIC)
    return np.clip(rng.uniform(32, 224, 3).astype(np.float32) + texture, 0, 255)


def _contrasting_color(rng: np.random.Generator, ground_color: np.ndarray) -> np.ndarray:
    """Returns a colour, float32 [3], that differs from the ground's mean in some channel."""
    while True:
        color = rng.uniform(0, 255, 3).astype(np.float32)
        if np.abs(color - ground_color).max() > 100:
            return color


def _encode_png(image: np.ndarray) -> bytes:
    """Encodes uint8 [h, w, c], in RGB order, as PNG."""
    ok, data = cv2.imencode(".png", image if image.shape[-1] == 1 else image[..., ::-1])
    assert ok, "OpenCV could not write a PNG"
    return data.tobytes()
