"""Measures test protocols: their views in batches, as a test runs them, and one by one."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from cnn_papers.benchmarks import workload
from cnn_papers.benchmarks.timing import Contender, Speed, ratio
from cnn_papers.benchmarks.workload import Workload
from cnn_papers.data.pipeline import Pipeline, parse_host
from cnn_papers.data.split import Split
from cnn_papers.errors import UserError
from cnn_papers.evaluation import passes, support
from cnn_papers.evaluation.passes import Source
from cnn_papers.evaluation.protocols import Protocol, Svm
from cnn_papers.parallel import mesh as meshes

USUAL = "ten_crop|vgg_dense"
IMAGES = 4  # of a test
IMAGE = (375, 500)  # pixels of most images of ImageNet, for a network whose input is 224 pixels
SIDE = 224


def measure(
    work: Workload,
    text: str,
    speeds_of: Callable[[dict[str, Contender], int], dict[str, Speed]],
) -> dict[str, Any]:
    """Returns the speed of every protocol in `text`, as values of JSON by the protocol's text.

    Each has its images a second, those with one view at a time (`one_by_one`), and the ratio of
    both over the windows. The images are of noise and in proportion to the network's input; they
    are read as in a test, without decoding.

    Args:
      speeds_of: (contenders by name, images a batch) -> their speeds by name.

    Raises:
      UserError: a protocol that the network cannot serve, or that fits SVMs.
    """
    network = workload.make_network(work)
    model, variables, normalise, mesh = network
    protocols = support.supported(text, model, variables, normalise, work.image_shape)
    source = _source(work, mesh)
    programs = passes.make_programs(model, variables, normalise, mesh)

    def contender(name: str, protocol: Protocol, source: Source) -> Contender:
        def test(times: int) -> None:
            for _ in range(times):
                passes.run(protocol, programs, variables, source, name=name)

        return test

    results = {}
    for name, protocol in protocols.items():
        if isinstance(protocol, Svm):
            raise UserError(f"--protocols: {name} fits SVMs, which is not measured")
        contenders = {
            "batches": contender(name, protocol, source),
            "one_by_one": contender(name, protocol, source._replace(pixels=1)),
        }
        speeds = speeds_of(contenders, IMAGES)
        batches, one_by_one = speeds["batches"], speeds["one_by_one"]
        results[name] = {
            **batches._asdict(),
            "one_by_one": {**one_by_one._asdict(), **ratio(batches, one_by_one)},
        }
    return results


def _source(work: Workload, mesh: Any) -> Source:
    """Returns IMAGES images, with batches of as many pixels as a batch of `work` has."""
    height, width, channels = work.image_shape
    sides = [round(side * height / SIDE) for side in IMAGE]
    rng = np.random.default_rng(0)
    examples = [
        {
            "image": cv2.imencode(".bmp", rng.integers(0, 256, (*sides, 3), np.uint8))[1].tobytes(),
            "label": 0,
            "id": str(i),
        }
        for i in range(IMAGES)
    ]
    names = tuple(map(str, range(workload.num_classes(work))))
    split = Split("images of noise", examples, names, location="")

    def open_pipeline(operations: str) -> Pipeline:
        return Pipeline(
            split,
            parse_host(operations, key="data.eval_host"),
            num_classes=len(names),
            resident="never",
            sharding=meshes.data_sharding(mesh),
            replicated=meshes.replicated(mesh),
        )

    return Source(
        raw=open_pipeline(f"decode({channels})"),
        prepared=open_pipeline(f"decode({channels})|resize({height}, {width})"),
        method="area",
        pixels=work.batch_size * height * width,
    )
