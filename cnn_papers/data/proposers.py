"""Proposers of `config.data.proposals`: an image in, boxes that may hold an object out.

A proposer takes uint8 RGB or grey [h, w, c], the upright image at its original size, and returns
float32 [p, 4] in its pixels, see `boxes`. It gives the same boxes in the same order each time.
"""

import importlib.metadata
from typing import Any

import cv2
import numpy as np

from cnn_papers.data import host_ops
from cnn_papers.errors import UserError

MAX_SIZE = 10_000  # pixels; a square of it has fewer than image_files.MAX_PIXELS
_OPENCV = "opencv-contrib-python-headless"  # the wheel that the package depends on
# All wheels write to the folder `cv2`, one over the other.
_OPENCV_WHEELS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


def selective_search(
    image: np.ndarray, size: int = 0, max_proposals: int = 0, seed: int = 0
) -> np.ndarray:
    """Returns the boxes of selective search in its fast mode (Uijlings et al., IJCV 2013).

    OpenCV segments the image with k = 150 and 300 in the colour spaces HSV and Lab, merges the most
    similar neighbours by two measures of similarity, and takes the box of every region.

    Args:
      image: uint8 [h, w, 1 or 3].
      size: the image is scaled, also up, so that its longer side has so many pixels; 0: as it is.
        500×375 pixels take about a second on one core and have 1,500 boxes, 2,000×1,500 take more
        than a minute.
      max_proposals: as many boxes are drawn of an image that has more; 0: all.
      seed: of that draw.

    Returns:
      Different boxes in the order of their edges y1, x1, y2, x2. There is at least one.

    Raises:
      UserError: OpenCV has no selective search, or an argument is negative or too large.
    """
    if size > MAX_SIZE:
        raise UserError(f"selective_search: size={size} must be at most {MAX_SIZE:,}")
    for name, value in {"size": size, "max_proposals": max_proposals, "seed": seed}.items():
        if value < 0:
            raise UserError(f"selective_search: {name}={value} must be zero or more")
    height, width = image.shape[:2]
    scale = size / max(height, width) if size else 1.0
    shape = max(1, round(height * scale)), max(1, round(width * scale))
    pixels = host_ops.resize(image, *shape) if shape != (height, width) else image
    conversion = cv2.COLOR_GRAY2BGR if image.shape[2] == 1 else cv2.COLOR_RGB2BGR
    search = _new_search()
    search.setBaseImage(cv2.cvtColor(pixels, conversion))
    search.switchToSelectiveSearchFast()
    x, y, w, h = search.process().T
    scales = np.array([height / shape[0], width / shape[1]] * 2)
    found = (np.stack([y, x, y + h, x + w], -1) * scales).astype(np.float32)
    # OpenCV's own order changes from call to call: it sorts by random numbers.
    boxes = np.unique(found, axis=0)
    if max_proposals and len(boxes) > max_proposals:
        drawn = np.random.default_rng(seed).permutation(len(boxes))[:max_proposals]
        boxes = boxes[np.sort(drawn)]
    return boxes


def _new_search() -> Any:
    """Returns OpenCV's selective search; UserError if another wheel of OpenCV is installed."""
    segmentation = getattr(getattr(cv2, "ximgproc", None), "segmentation", None)
    create = getattr(segmentation, "createSelectiveSearchSegmentation", None)
    if create is None:
        installed = [name for name in _OPENCV_WHEELS if _is_installed(name)]
        uninstall = f"pip uninstall -y {' '.join(installed)} && " if installed else ""
        raise UserError(
            f"OpenCV {cv2.__version__} has no selective search here: {_OPENCV} has it, where no "
            f"other wheel of OpenCV is installed over it: {uninstall}pip install {_OPENCV}"
        )
    return create()


def _is_installed(wheel: str) -> bool:
    try:
        importlib.metadata.version(wheel)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
