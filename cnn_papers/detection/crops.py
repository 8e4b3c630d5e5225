"""Computes features of windows as R-CNN does: each is cropped, warped, and run through the network.

Girshick, Donahue, Darrell, Malik: Rich Feature Hierarchies for Accurate Object Detection and
Semantic Segmentation. CVPR 2014. arXiv:1311.2524, §2.1 and Appendix A.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnn_papers.data import host_ops
from cnn_papers.detection import windows
from cnn_papers.detection.programs import Programs
from cnn_papers.detection.windows import Stages
from cnn_papers.models.shared import pooling

SIDE = 224  # R-CNN has 227, the input of its network; SPP-net's is 224
CROPS = 32  # ours: that one call of the network takes; one program serves any number of windows


def usual_context(side: int) -> int:
    """Returns R-CNN's context in crops of `side` pixels: 16 of its 227 (Appendix A)."""
    return round(16 * side / 227)


class Crop(NamedTuple):
    """A window of an image, warped.

    Attributes:
      pixels: uint8 [side, side, c].
      inside: int [4], the part that is of the image, `[y1, x1, y2, x2]` in pixels of the crop. The
        pixels around it have the mean colour of those inside.
    """

    pixels: np.ndarray
    inside: np.ndarray


def stages(network: Any) -> Stages:
    """Returns the stages of a `weights.trained.Trained` over crops in place of windows.

    `convolve` takes (variables, uint8 crops [n, side, side, 3], int32 `inside` [n, 4]) and returns
    their feature maps; `pool` takes these and returns [n, bins·c]. Pixels outside the image are 0
    after normalisation, which is the mean (Appendix A).

    Raises:
      UserError: the network has no spatial pyramid.
    """
    model, normalise = network.model, network.normalise

    def convolve(variables: Any, pixels: jax.Array, inside: jax.Array) -> jax.Array:
        image = normalise(pixels, jax.random.key(0))
        rows, columns = (jnp.arange(side)[None] for side in image.shape[1:3])
        top, left, bottom, right = inside.T[..., None]
        is_inside = ((rows >= top) & (rows < bottom))[:, :, None, None]
        is_inside &= ((columns >= left) & (columns < right))[:, None, :, None]
        return model.apply(variables, jnp.where(is_inside, image, 0), method="convolve")[0]

    def pool(feature_map: jax.Array) -> jax.Array:
        return pooling.pyramid_pool(feature_map, model.levels)[:, 0, 0]

    return windows.stages(network)._replace(
        convolve=Programs(convolve, network.mesh), pool=Programs(pool, network.mesh)
    )


def features(
    stages: Stages,
    image: np.ndarray,
    boxes: np.ndarray,
    *,
    side: int = SIDE,
    context: int = usual_context(SIDE),
    method: str = "area",
) -> dict[str, np.ndarray]:
    """Returns what the network computes of each window of an image, as `windows.features` does.

    Args:
      stages: from `stages`.
      image: uint8 [h, w, 3].
      boxes: float32 [k, 4], windows in pixels of the image.
      side, context: as of `crop`.
      method: of the resize, one of `host_ops.METHODS`; R-CNN's is "bilinear".
    """
    parts = []
    for start in range(0, max(1, len(boxes)), CROPS):
        part = boxes[start : start + CROPS]
        # The last call has as many crops as the others; those that fill it up are of no window.
        crops = [crop(image, box, side=side, context=context, method=method) for box in part]
        pixels = np.zeros((CROPS, side, side, image.shape[2]), np.uint8)
        inside = np.zeros((CROPS, 4), np.int32)
        for i, each in enumerate(crops):
            pixels[i], inside[i] = each
        feature_map = stages.convolve(stages.variables, pixels, inside)
        parts.append(np.asarray(stages.pool(feature_map))[: len(part)])
    pooled = np.concatenate(parts)
    return {"spp": pooled, **windows.classified(stages, pooled)}


def crop(image: np.ndarray, box: np.ndarray, *, side: int, context: int, method: str) -> Crop:
    """Returns a window of an image with its surroundings, warped to side×side pixels (Appendix A).

    The window itself takes side - 2·context pixels along each side of the crop; what lies beyond
    the image is missing. Of a window without any pixel of the image, the nearest is taken.

    Args:
      image: uint8 [h, w, c].
      box: float [4].
    """
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    half = half * side / (side - 2 * context)
    low = np.round(centre - half).astype(int)
    high = np.maximum(np.round(centre + half).astype(int), low + 1)
    first = np.clip(low, 0, np.array(image.shape[:2]) - 1)
    last = np.clip(high, first + 1, image.shape[:2])
    factor = side / (high - low)
    start = np.clip(np.round((first - low) * factor).astype(int), 0, side - 1)
    stop = np.clip(start + np.round((last - first) * factor).astype(int), start + 1, side)
    part = image[first[0] : last[0], first[1] : last[1]]
    part = host_ops.resize(part, *(stop - start).tolist(), method=method)
    pixels = np.empty((side, side, image.shape[2]), np.uint8)
    pixels[:] = np.round(part.mean((0, 1)))
    pixels[start[0] : stop[0], start[1] : stop[1]] = part
    return Crop(pixels, np.concatenate([start, stop]))
