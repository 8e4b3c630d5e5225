"""A task of tests: a network that classifies finds every class in an image, with a box over it."""

from typing import Any

import numpy as np

from cnn_papers.data.split import Objects
from cnn_papers.detection import detections
from cnn_papers.detection.detections import Detections, Outcome
from cnn_papers.tasks import classify

BACKGROUND, NEEDS = 0, "label"
HEADLINE, MEASURES = detections.HEADLINE, detections.MEASURES
Totals, prepare, loss, scalars = (
    classify.Totals,
    classify.prepare,
    classify.loss,
    classify.scalars,
)
protocols, parse_protocols = classify.protocols, classify.parse_protocols
result_of = detections.result_of
BOX = np.array([[0, 0, 8, 8]], np.float32)


def test(protocol: Any, tested: Any, *, name: str) -> Outcome:
    outcome = classify.test(protocol, tested, name=name)
    found = []
    for probabilities in outcome.scores:
        order = np.argsort(-probabilities).astype(np.int32)
        found.append(Detections(BOX.repeat(len(order), 0), order, probabilities[order]))
    objects = [
        Objects(BOX, np.array([label], np.int32), np.zeros(1, bool), (8, 8))
        for label in outcome.labels
    ]
    return Outcome(found, objects, outcome.programs, outcome.seconds, outcome.compiling)
