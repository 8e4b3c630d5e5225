"""Opens the images of a final test, and those that a test fits to."""

import inspect
from collections.abc import Sequence
from typing import Any

import jax

from cnn_papers.data import host_ops
from cnn_papers.data.pipeline import Pipeline, parse_host
from cnn_papers.data.split import Split
from cnn_papers.evaluation import passes
from cnn_papers.opstrings import Op, OpString
from cnn_papers.runs import inputs

SIZING = ("resize", "crop", "fit")  # names of operations that set an image's size have one of these


def open_source(
    split: Split,
    config: Any,
    mesh: jax.sharding.Mesh,
    *,
    num_classes: int = 0,
    max_skips: int = 0,
) -> passes.Source:
    """Opens the images of `split` as they are evaluated, before and after they get their size.

    Args:
      split: with the labels that the test needs.
      config: of the network.
      mesh: of the test.
      num_classes: the number of classes if it is not that of the network's head.
      max_skips: as for `pipeline.Pipeline`.
    """
    eval_host = parse_host(config.data.eval_host, key="data.eval_host")
    sizing = [i for i, op in enumerate(eval_host.ops) if _sizes_or_describes(op)]
    before_sizing = eval_host.first(sizing[0]) if sizing else eval_host

    def open_pipeline(host: OpString) -> Pipeline:
        return inputs.open_pipeline(
            split,
            config,
            host,
            mesh,
            max_skips=max_skips,
            resident="never",
            num_classes=num_classes,
        )

    prepared = open_pipeline(eval_host)
    height, width = prepared.image_shape[:2]
    batch_size = inputs.eval_batch_size(config)
    return passes.Source(
        raw=open_pipeline(before_sizing),
        prepared=prepared,
        method=_resize_method(eval_host.ops),
        pixels=batch_size * height * width,
    )


def protocol_settings(config: Any) -> dict[str, Any]:
    """Returns the keyword arguments of a task's `protocols` that `config` sets.

    A run may be older than one of the keys. Where the network takes descriptors, `describe` is the
    host operation that makes them of an image.
    """
    settings = {
        "mirror": config.eval.get("mirror", True),
        "precise_bn": config.eval.get("precise_bn", 0),
    }
    ops = parse_host(config.data.eval_host, key="data.eval_host").ops
    if ops and ops[-1].name in host_ops.DESCRIPTORS:
        settings["describe"] = ops[-1]
    return settings


def _sizes_or_describes(op: Op) -> bool:
    """Tells whether the views of a protocol take the place of what `op` makes of an image."""
    return op.name in host_ops.DESCRIPTORS or any(word in op.name for word in SIZING)


def _resize_method(ops: Sequence[Op]) -> str:
    """Returns the method of the first operation that has one, for other views to use too."""
    for op in ops:
        signature = inspect.signature(op.function)
        if "method" in signature.parameters:
            arguments = signature.bind_partial(None, *op.args, **op.kwargs)
            arguments.apply_defaults()
            return arguments.arguments["method"]
    return "area"
