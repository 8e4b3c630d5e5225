"""Networks by name, their weights, and trained networks on images: for Python and notebooks.

`import cnn_papers` offers these functions; docs/how-to/python.md shows them.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import cv2
import flax.linen as nn
import numpy as np

from cnn_papers import counting, files, zoo
from cnn_papers.errors import UserError
from cnn_papers.runs import config_files
from cnn_papers.weights import arithmetic, detector, hub, predictor, trained, weight_files

Place = str | pathlib.Path
# The path or the bytes of a JPEG, PNG, BMP or WebP, or its pixels, uint8 [h, w, 3], [h, w, 1] or
# [h, w], RGB or grey.
Image = Place | bytes | np.ndarray


def list_models() -> dict[str, tuple[str, ...]]:
    """Returns the variants of each network, by its name: {"resnet": ("18", "34", …), …}."""
    return {name: tuple(zoo.model_module(name).VARIANTS) for name in zoo.model_names()}


def create_model(name: str, variant: str = "", **fields: Any) -> nn.Module:
    """Returns a network as a Flax module, which holds no weights.

    `model.apply(variables, images)`, with float images [n, h, w, c], returns the logits, float32
    [n, num_classes], and a dict of the outputs of its layers under the paper's names: maps
    [n, h, w, c], also of fully connected layers, of 1×1 for images of the paper's size.

    Args:
      name: a name of `list_models`, such as "resnet".
      variant: one of its variants, such as "50"; "" is that of the paper's main result.
      fields: of the module, in place of the variant's: num_classes=10, width=0.5,
        dtype="bfloat16".

    Raises:
      UserError: an unknown name, variant or field, or a value that the network refuses.
    """
    return zoo.build_model(name, **({"variant": variant} if variant else {}), **fields)


def load_weights(
    model: nn.Module, weights: Place, image_shape: tuple[int, int, int] | None = None
) -> dict[str, Any]:
    """Returns the variables of `model` from a weights file: {"params": …, "batch_stats": …}.

    Args:
      model: of `create_model`.
      weights: a `.safetensors`, a file of `torch.save`, or a name such as
        "hf:timm/resnet50.tv_in1k".
      image_shape: (h, w, c) of the images, on which the size of the first fully connected layer
        depends; None is the paper's.

    Raises:
      UserError: there is no such file, it is damaged, or it is of another network.
    """
    name = type(model).__module__.rpartition(".")[-1]
    shape = image_shape or arithmetic.paper_input(model)
    return weight_files.read_variables(files.expand(str(weights)), name, model, shape)[0]


def read_config(config: str) -> Any:
    """Returns the ConfigDict of a recipe, such as "configs/resnet.py:cifar10".

    Its keys can be set (`config.total_epochs = 1.0`); one that does not exist is an error.

    Raises:
      UserError: there is no such config file or recipe.
    """
    return config_files.read(config)


def load_network(place: Place, config: Any = None) -> "Network":
    """Returns a trained network, with the preparation of images that belongs to it.

    Args:
      place: the folder of a run, which is read at its best checkpoint; or a weights file, or a
        name such as "hf:timm/resnet50.tv_in1k".
      config: for a file the recipe of its network, such as "configs/resnet.py:torchvision", or
        what `read_config` returns for it; None for a run, which keeps its own.

    Raises:
      UserError: there is no such run or file, it is damaged, or it is of another network.
    """
    place = files.expand(str(place))
    folder = pathlib.Path(place)
    if config is None and (folder.is_file() or hub.is_name(place)):
        raise UserError(
            f"{place} is a file of weights: give the recipe of its network too, "
            "such as config='configs/resnet.py:torchvision'"
        )
    if config is None:
        return Network(trained.from_run(folder), folder)
    if folder.is_dir():
        raise UserError(f"{place} is a folder, and a run has its own config: leave out config")
    values = read_config(config) if isinstance(config, str) else config
    return Network(trained.from_file(place, values))


class Network:
    """A trained network, of `load_network`.

    Its methods take one image or several, each of any size: the path or the bytes of a file, or
    pixels, uint8 [h, w, 3] RGB or [h, w] grey. What they return has the axis of the images also
    for one.

    Attributes:
      description: network, data set and source of the weights in words.
      config: the recipe, a ConfigDict.
      model, variables: for `model.apply(variables, images)`.
      image_shape: (h, w, c) of images when they are prepared.
      class_names: one for each output.
      layers: {name: shape of its output for one image}.
    """

    def __init__(self, network: trained.Trained, folder: pathlib.Path | None = None):
        self.description = network.description
        self.config, self.model, self.variables = network.config, network.model, network.variables
        self.image_shape, self.class_names = network.image_shape, network.output_names
        self._trained, self._folder = network, folder
        self._predictors: dict[str, predictor.Predictor] = {}  # by layer

    def __repr__(self) -> str:
        return f"<Network: {self.description}>"

    @property
    def layers(self) -> dict[str, tuple[int, ...]]:
        """The shape of the output of each layer for one image, without the axis of the images."""
        layers = counting.count(self.model, self.image_shape).layers
        return {layer.name: layer.shape for layer in layers if layer.shape}

    def prepare(self, images: Image | Sequence[Image]) -> np.ndarray:
        """Returns images as the network's evaluation takes them, uint8 [n, h, w, c].

        Raises:
          UserError: an image that cannot be read.
        """
        return np.stack([_prepared(image, self._of("").prepare) for image in _several(images)])

    def __call__(self, images: Image | Sequence[Image]) -> np.ndarray:
        """Returns the probabilities of classes, float32 [n, classes].

        Where an image may show several classes they are scores; one above 0 speaks for the class.

        Raises:
          UserError: an image that cannot be read, or a network that finds objects.
        """
        if detector.finds_objects(self._trained):
            raise UserError(f"{self.description} finds objects: call find_objects")
        return predictor.outputs_of(self._of(""), self.prepare(images))

    def predict(self, images: Image | Sequence[Image], top: int = 5) -> list[dict[str, float]]:
        """Returns the `top` classes of each image, the most probable first: [{"owl": 0.9, …}, …].

        Raises:
          UserError: as a call.
        """
        rows = self(images)
        best = np.argsort(-rows, axis=1, kind="stable")[:, :top]
        return [
            {self.class_names[i]: float(row[i]) for i in order}
            for row, order in zip(rows, best, strict=True)
        ]

    def features(self, images: Image | Sequence[Image], layer: str) -> np.ndarray:
        """Returns the outputs of a layer of `layers`, float32 [n, …].

        Raises:
          UserError: an image that cannot be read, or a layer that the network does not have.
        """
        return predictor.outputs_of(self._of(layer), self.prepare(images))

    def find_objects(self, images: Image | Sequence[Image]) -> list[detector.Found]:
        """Returns each image, uint8 RGB [h, w, 3], with the objects that are found on it.

        `detections` of each has `boxes`, float32 [m, 4] as [y1, x1, y2, x2] in pixels with the far
        edges exclusive, `classes` int32 [m], numbers in `class_names`, and `scores` float32 [m],
        the best first. They are found by the first protocol of the run's final test.

        Raises:
          UserError: an image that cannot be read, or a network that finds no objects.
        """
        if not detector.finds_objects(self._trained):
            raise UserError(f"{self.description} finds no objects: call predict")
        finder = detector.make_detector(self._trained, self._folder)
        return [
            detector.find_on(finder, _prepared(image, finder.prepare), _name(image))
            for image in _several(images)
        ]

    def _of(self, layer: str) -> predictor.Predictor:
        if layer not in self._predictors:
            self._predictors[layer] = predictor.make_predictor(self._trained, layer)
        return self._predictors[layer]


def _several(images: Image | Sequence[Image]) -> Sequence[Any]:
    """Returns one image or several as several; raises UserError if there are none."""
    is_one = isinstance(images, Place | bytes) or getattr(images, "ndim", 4) < 4
    several: Any = [images] if is_one else images
    if len(several) == 0:
        raise UserError("there are no images")
    return several


def _name(image: Image) -> str:
    return str(image) if isinstance(image, Place) else "an image"


def _prepared(image: Image, prepare: Any) -> Any:
    """Returns what `prepare` makes of the bytes of an image.

    Raises:
      UserError: the image cannot be read.
    """
    try:
        return prepare(_encoded(image))
    except OSError as error:
        raise UserError(f"{_name(image)} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{_name(image)} {error}") from error


def _encoded(image: Image) -> bytes:
    """Returns the bytes of an image file; pixels become a PNG, which keeps them."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, Place):
        return pathlib.Path(files.expand(str(image))).read_bytes()
    pixels = np.asarray(image)
    if (
        pixels.dtype != np.uint8
        or pixels.ndim not in (2, 3)
        or pixels.shape[2:] not in ((), (1,), (3,))
    ):
        raise ValueError(
            f"of {pixels.dtype} {list(pixels.shape)} cannot be taken: "
            "pixels are uint8 [h, w, 3] or [h, w]"
        )
    return cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1].tobytes()
