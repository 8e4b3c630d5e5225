"""The evaluation and the final test of OverFeat's two tasks, `localize` and `detect_dense`."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from flax.errors import FlaxError

from cnn_papers import boxes as geometry
from cnn_papers.boxes import NONE
from cnn_papers.data.augment import DeviceTransform, augment_batch
from cnn_papers.data.split import Objects
from cnn_papers.detection import overfeat, watching
from cnn_papers.detection.detections import Detections, Outcome
from cnn_papers.detection.overfeat import Maps
from cnn_papers.detection.watching import Step
from cnn_papers.errors import UserError
from cnn_papers.training.step import Batch

FINDER = overfeat.Finder(overfeat.merged(1.0, weighted=True), top=5, least=0.5, most=50)


def make_eval_step(
    model: Any,
    normalise: DeviceTransform,
    *,
    background: int,
    scales: Sequence[int],
    sums: Callable[[dict[str, jax.Array], Batch], dict[str, jax.Array]],
) -> Step:
    """Returns the function (variables, batch) -> outputs of every image of the batch.

    They are the batch's `mask` and objects, `maps` for every scale with boxes in pixels of the
    prepared image, and `sums` over the batch.

    Args:
      background: as in `overfeat.maps`.
      scales: shorter sides to which the prepared images are resized; () takes them as they are.
      sums: (endpoints, the batch of prepared images) -> what is added up for the loss.
    """
    overfeat.check(model)

    def look(variables: Any, image: jax.Array) -> dict[str, jax.Array]:
        return model.apply(variables, image)[1]

    def at_scale(variables: Any, image: jax.Array, scale: int) -> Maps:
        size = image.shape[1:3]
        height, width = (round(side * scale / min(size)) for side in size)
        shape = (len(image), height, width, image.shape[3])
        ends = look(variables, jax.image.resize(image, shape, "linear"))
        scores, boxes = overfeat.maps(model, ends, background)
        return Maps(scores, geometry.scale(boxes, size[0] / height, size[1] / width))

    def step(variables: Any, batch: Batch) -> dict[str, Any]:
        batch = augment_batch(normalise, batch, jax.random.key(0))
        # the copies that fill up a batch have no objects to be trained on
        batch["classes"] = jax.numpy.where(batch["mask"][:, None], batch["classes"], NONE)
        image = batch["image"]
        ends = look(variables, image)
        maps = tuple(at_scale(variables, image, scale) for scale in scales)
        return {
            **{name: batch[name] for name in ("mask", "boxes", "classes", "difficult")},
            "maps": maps or (overfeat.maps(model, ends, background),),
            "sums": sums(ends, batch),
        }

    return step


def evaluate(
    step: Step,
    variables: Any,
    batches: Iterable[Batch],
    total: int,
    give_up: Callable[[], int],
    *,
    loss: Callable[[dict[str, Any]], Any],
    values: Callable[[list[Detections], list[Objects]], dict[str, float]],
) -> dict[str, float] | None:
    """Returns what `watching.evaluate` does; `loss` takes the sums added up over all batches."""

    def find(outputs: dict[str, Any], row: int, size: tuple[int, int]) -> Detections:
        return FINDER([Maps(*(m[row] for m in maps)) for maps in outputs["maps"]], size)

    def loss_of(sums: Sequence[dict[str, Any]]) -> Any:
        return loss(jax.tree.map(lambda *parts: functools.reduce(np.add, parts), *sums))

    return watching.evaluate(
        step, variables, batches, total, give_up, find=find, loss=loss_of, values=values
    )


# The modules of the final test need OpenCV, which measuring a train step does not.


def parse_protocols(text: str) -> dict[str, Any]:
    """Parses `config.eval.protocol`: those of `overfeat_protocols`, each by its own text."""
    from cnn_papers.detection import overfeat_protocols
    from cnn_papers.evaluation import support

    return support.parse(text, overfeat_protocols)


def protocols(
    text: str,
    model: Any,
    variables: Any,
    normalise: DeviceTransform,
    shape: tuple[int, ...],
    *,
    mirror: bool = True,
    precise_bn: int = 0,
) -> dict[str, Any]:
    """Returns the protocols of `parse_protocols`; those take no mirror images.

    Raises:
      UserError: a network that finds no boxes or cannot look at a scale, or no batch statistics to
        recompute.
    """
    from cnn_papers.evaluation import support

    support.check_precise_bn(precise_bn, variables)
    overfeat.check(model)
    parsed = parse_protocols(text)
    for name, protocol in parsed.items():
        scale = min(protocol.scales)
        image = jax.ShapeDtypeStruct((1, scale, scale, shape[-1]), np.uint8)
        try:
            jax.eval_shape(
                lambda v, x: model.apply(v, normalise(x, jax.random.key(0))), variables, image
            )
        except (TypeError, ValueError, FlaxError, UserError) as error:
            raise UserError(
                f"config.{support.KEY}: {name} looks at images of {scale}×{scale}: "
                f"{str(error).splitlines()[0]}"
            ) from error
    return parsed


def test(detect: Any, tested: Any, *, name: str) -> Outcome:
    """Returns what a detector finds in the images of `tested`, an `evaluate.Member`."""
    from cnn_papers.detection import passes

    return passes.run(detect, detect, tested.source, name=name)
