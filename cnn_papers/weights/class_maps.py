"""Computes class activation maps: where in an image a network sees each class.

Zhou, Khosla, Lapedriza, Oliva, Torralba: Learning Deep Features for Discriminative Localization.
CVPR 2016. arXiv:1512.04150. Network in Network (§3.2) has such maps without a layer after them.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from cnn_papers.errors import UserError
from cnn_papers.weights.trained import Trained

HEAD = "fc"  # the only layer that may follow the average


def make_class_maps(network: Trained) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from images, uint8 [n, h, w, c], to maps, float32 [n, h', w', classes].

    The map of a class is the last map of features, weighted as the class weighs it. Its mean over
    all positions is the class's logit.

    Raises:
      UserError: the network does not end in an average over positions and at most one layer.
    """
    model: Any = network.model

    def maps(variables: Any, image: jax.Array) -> jax.Array:
        normalised = network.normalise(image, jax.random.key(0))
        _, endpoints = model.apply(variables, normalised)
        features = endpoints[_last_map(network, endpoints)]
        if HEAD not in endpoints:
            return features
        head = variables["params"][HEAD]
        return features @ head["kernel"][0, 0] + head["bias"][None, None, None]

    image = jax.ShapeDtypeStruct((1, *network.image_shape), np.uint8)
    jax.eval_shape(maps, network.variables, image)  # raises for a network without maps
    compiled = jax.jit(maps)
    return lambda images: np.asarray(compiled(network.variables, images), np.float32)


def _last_map(network: Trained, endpoints: dict[str, jax.Array]) -> str:
    """Returns the name of the layer whose positions are averaged."""
    names = list(endpoints)
    for before, pooled in itertools.pairwise(names):
        behind = names[names.index(pooled) + 1 :]
        averages = pooled.startswith("pool") and endpoints[pooled].shape[1:3] == (1, 1)
        if averages and set(behind) <= {HEAD}:
            return before
    raise UserError(
        f"{network.description} has no class activation maps: they are of networks that average "
        "their last map and have at most one layer after it, as GoogLeNet, ResNet, DenseNet and NIN"
    )
