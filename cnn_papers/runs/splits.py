"""Opens the splits of a data set as a config says, and checks that a task can learn from them."""

from typing import Any

import numpy as np

from cnn_papers import tasks
from cnn_papers.data import proposals, slices
from cnn_papers.data.pipeline import parse_host
from cnn_papers.data.reader import cutting_out, with_object_to_cut_out
from cnn_papers.data.sources import open_split, open_to_test
from cnn_papers.data.split import DamagedExample, Split, with_classes_of
from cnn_papers.errors import UserError
from cnn_papers.opstrings import OpString
from cnn_papers.parallel import processes


def open_one(config: Any, split: str, *, name: str = "") -> Split:
    """Opens a split of `config.data`, or of another data set `name`.

    A random part of each class that names no seed is drawn by `config.seed`.
    """
    data, split = config.data, slices.with_seed(split, config.seed)
    return open_split(name or data.name, split, data.data_dir, max_bad_boxes=_max_bad_boxes(data))


def open_one_to_test(config: Any, split: str) -> Split:
    """Opens a split as `open_one` does, for what needs no other split of the data set."""
    data, split = config.data, slices.with_seed(split, config.seed)
    return open_to_test(data.name, split, data.data_dir, max_bad_boxes=_max_bad_boxes(data))


def _max_bad_boxes(data: Any) -> int:
    return data.get("max_bad_boxes", 0)  # a run may be older than the key


def open_splits(config: Any) -> tuple[Split, Split]:
    """Opens the splits of `config.data` to train and to evaluate on; both have the same labels.

    They have the proposals that `config.data.proposals` names, which may take hours: what is wrong
    is found before them.

    Raises:
      UserError: data that is missing, or without objects where an operation cuts them out; a class
        to evaluate on that is not trained on; as `with_proposals` and, with proposals, as
        `check_classes`.
    """
    data, train = config.data, open_train(config)
    _check_boxes(train, config.task)
    if data.get("proposals", ""):
        check_classes(config, train)
    held_out = with_classes_of(open_one(config, data.eval_split), train.class_names)
    eval_host = parse_host(data.eval_host, key="data.eval_host")
    held_out = with_object_to_cut_out(held_out, eval_host)
    return with_proposals(train, config), with_proposals(held_out, config)


def open_train(config: Any) -> Split:
    """Opens the split of `config.data` to train on, with the images that `open_splits` gives it.

    It has no proposals. What is computed ahead of a run, such as statistics, is of these images.

    Raises:
      UserError: as `open_splits`, about this split.
    """
    train_host = parse_host(config.data.train_host, key="data.train_host")
    return with_object_to_cut_out(open_one(config, config.data.train_split), train_host)


def with_proposals(split: Split, config: Any) -> Split:
    """Returns `split` with the proposals that `config.data.proposals` names; "" names none.

    Process 0 loads or makes them and sends them to the others. A run may be older than the key.

    Raises:
      UserError: no such proposer or file of boxes, or a file of other images; data without boxes,
        where the task needs them.
    """
    text = config.data.get("proposals", "")
    if not text:
        return split
    _check_boxes(split, config.task)
    found: list[np.ndarray] = []  # stays empty on other processes than the first

    def load() -> None:
        found.extend(proposals.packed(proposals.of_split(split, text)))

    processes.broadcast(load)
    boxes, counts = processes.arrays_from_first(found)
    return split._replace(proposals=proposals.unpacked(boxes, counts))


def check_classes(config: Any, train: Split) -> None:
    """Raises UserError unless the network's head has the outputs that the classes need."""
    classes, outputs = len(train.class_names), config.model.num_classes
    background = tasks.task_module(config.task).BACKGROUND
    if classes + background < 2:
        raise UserError(
            f"{train.name} has one class, {train.class_names[0]}: training needs two or more"
        )
    if background and classes + background != outputs:
        raise UserError(
            f"{train.name} has {classes} classes, and config.task={config.task} needs one more "
            f"output for the background; the network's head has {outputs}: "
            f"set --config.model.num_classes={classes + background}"
        )
    if classes > outputs:
        raise UserError(
            f"{train.name} has {classes} classes, the network's head {outputs}: "
            f"set --config.model.num_classes={classes}"
        )


def check_needs(split: Split, task: str, host: OpString) -> None:
    """Raises UserError unless the examples of `split` have what `task` needs after `host`."""
    _check_boxes(split, task)
    needs, cut_out = tasks.task_module(task).NEEDS, cutting_out(host)
    if needs == "labels" and cut_out is not None:
        raise UserError(
            f"config.task={task} learns all classes of an image, and '{cut_out.name}' in "
            f"config.{host.key} cuts out one object: take config.task=classify, or whole images"
        )
    if needs == "label" and cut_out is None and not _has_labels(split):
        raise UserError(
            f"config.task={task} needs a label of every image, and those of {split.name} have "
            "boxes only: to learn the classes of objects cut out, write random_object(0.1) after "
            "decode in config.data.train_host, and largest_object(0.1) in config.data.eval_host"
        )


def _check_boxes(split: Split, task: str) -> None:
    """Raises UserError if `task` learns from boxes and `split` has none."""
    if tasks.task_module(task).NEEDS == "boxes" and split.objects is None:
        raise UserError(
            f"config.task={task} learns from boxes, and {split.name} has none: name other data "
            "with --config.data.name, such as voc_folder:PATH"
        )


def _has_labels(split: Split) -> bool:
    """Tells whether the images have labels, by the first that can be read."""
    if split.objects is None or split.labels is not None:
        return True
    for i in range(len(split.examples)):
        try:
            return "label" in split.examples[i]
        except DamagedExample:
            continue
    return True
