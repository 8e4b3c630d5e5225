"""A task of tests that finds objects: one box around the bright pixels of each half of an image."""

from typing import Any

import numpy as np

from cnn_papers.detection import detections
from cnn_papers.detection.detections import Detections
from cnn_papers.tasks import classify

BACKGROUND, NEEDS = 0, "boxes"
HEADLINE, MEASURES = detections.HEADLINE, detections.MEASURES
Totals = classify.Totals


def protocols(text: str, *network: Any, **settings: Any) -> dict[str, Any]:
    return {one: one for one in text.split("|")}


def detector(protocol: Any, network: Any, fitted: Any) -> Any:
    """Finds pixels above 200; the class of a box is the number of its half, its score the mean."""

    def detect(image: np.ndarray, proposals: np.ndarray | None) -> Detections:
        assert image.dtype == np.uint8 and image.shape[2] == 3
        middle, found = image.shape[1] // 2, []
        for label, left in enumerate((0, middle)):
            half = image[:, left : middle if label == 0 else None].mean(-1)
            rows, columns = np.nonzero(half > 200)
            if len(rows):
                box = rows.min(), left + columns.min(), rows.max() + 1, left + columns.max() + 1
                found.append((half[rows, columns].mean() / 255, label, box))
        found.sort(reverse=True)
        return Detections(
            np.array([box for *_, box in found], np.float32).reshape(-1, 4),
            np.array([label for _, label, _ in found], np.int32),
            np.array([score for score, *_ in found], np.float32),
        )

    return detect
