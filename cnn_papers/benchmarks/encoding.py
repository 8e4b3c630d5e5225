"""Measures the shallow baseline: descriptors and encoding of an image, and the fits around it.

Photographs and vectors are synthetic. The times are of the CPU, of all threads of this process,
because they differ less from run to run than those by the clock; these stand beside them.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import cv2
import jax
import numpy as np
from threadpoolctl import threadpool_limits

from cnn_papers import zoo
from cnn_papers.benchmarks.workload import Workload
from cnn_papers.data import descriptors
from cnn_papers.errors import UserError
from cnn_papers.evaluation import svm
from cnn_papers.models import ifv

IMAGE = (375, 500)  # pixels of most images of VOC
STEP, BIN_SIZE, SCALES = 3, 8, (1.0, 0.707, 0.5, 0.354, 0.25)  # as in the recipe `voc2007`
GRAINS = (4, 8, 16, 32, 64)  # blotches along each side of a photograph
SAMPLE = 100_000  # descriptors that words are fitted to
IMAGES, CLASSES = 5011, 20  # that SVMs are fitted to: VOC 2007's trainval
REPEATS = 5  # of what takes less than a second

Fit = Callable[[Any, np.ndarray, int, ifv.Kind], Any]


def measure(work: Workload, fit: Fit) -> dict[str, Any]:
    """Returns the seconds of each part, as values of JSON.

    "descriptors" and "encoding" are of one image, medians; "words" and "svms" of one fit. Each has
    "cpu" and "clock".

    Args:
      work: names the network.
      fit: makes components and words of (model, sample, seed, kind); see `fitting.fit_to`.

    Raises:
      UserError: a network that encodes no descriptors.
    """
    model: Any = zoo.build_model(work.model_name, **work.model)
    if not isinstance(model, ifv.FisherVector):
        raise UserError("--measure=encoding takes the Fisher vector of descriptors: --model=ifv")
    random = np.random.default_rng(0)
    names = ["sift" if kind == ifv.SIFT else "colours" for kind in model.kinds]

    @threadpool_limits.wrap(limits=1, user_api="blas")  # as in a reader thread
    def describe(image: np.ndarray) -> np.ndarray:
        return descriptors.dense(image, names, STEP, BIN_SIZE, SCALES)

    image = _photograph(random)
    rows = describe(image)
    batch = rows[None, ..., None].astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), batch)
    encode = jax.jit(lambda variables, batch: model.apply(variables, batch)[1]["fisher"])
    vector = jax.block_until_ready(encode(variables, batch))  # compiles
    sample = rows
    while len(sample) < SAMPLE:
        sample = np.concatenate([sample, describe(_photograph(random))])
    sample = sample[random.permutation(len(sample))[:SAMPLE]]
    results = {
        "image": IMAGE,
        "descriptors_of_image": len(rows),
        "words": model.total_words,
        "values": vector.size,
        "sample": SAMPLE,
        "images": IMAGES,
        "classes": CLASSES,
        "descriptors": _seconds(lambda: describe(image), REPEATS),
        "encoding": _seconds(lambda: jax.block_until_ready(encode(variables, batch)), REPEATS),
        "fit": _seconds(lambda: [fit(model, sample, 0, kind) for kind in model.kinds], 1),
    }
    features, labels = _vectors(vector.size, random)
    class_names = [f"class {i}" for i in range(CLASSES)]
    results["svms"] = _seconds(
        lambda: svm.fit_one_vs_rest(features, labels, class_names, C=1.0, tolerance=0.01), 1
    )
    return results


def _photograph(random: np.random.Generator) -> np.ndarray:
    """Returns smooth noise with structure at every size, uint8 [h, w, 3]."""
    height, width = IMAGE
    image = np.full((height, width, 3), 128, np.float32)
    for grain in GRAINS:
        blotches = random.normal(0, 25, (grain, grain, 3)).astype(np.float32)
        image += cv2.resize(blotches, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(image, 0, 255).astype(np.uint8)


def _vectors(size: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns vectors of length one around one of each class, float32, and labels 1 and -1."""
    label = random.integers(0, CLASSES, IMAGES)
    centers = random.standard_normal((CLASSES, size), np.float32)
    features = random.standard_normal((IMAGES, size), np.float32)
    features += 0.1 * centers[label]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features, np.where(label[:, None] == np.arange(CLASSES), 1, -1)


def _seconds(work: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Returns the medians of the seconds that `work` takes, of the CPU and by the clock."""
    times: dict[str, list[float]] = {"cpu": [], "clock": []}
    for _ in range(repeats):
        cpu, clock = time.process_time(), time.perf_counter()
        work()
        times["cpu"].append(time.process_time() - cpu)
        times["clock"].append(time.perf_counter() - clock)
    return {name: statistics.median(seconds) for name, seconds in times.items()}
