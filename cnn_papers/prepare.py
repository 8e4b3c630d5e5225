"""Prepares a data set for the pipeline: python -m cnn_papers.prepare NAME [--data_dir=DIR].

NAME is a TFDS data set (`cifar10`, `imagenet2012`, `digits/scenes`). It is downloaded if TFDS can
do so, and written as array_record; this needs TensorFlow (pip install -e ".[prepare]"), except for
`digits`. A data set that is prepared as TFRecord is converted, without TensorFlow. With
`folder:PATH` or `voc_folder:PATH`, a folder of your own images is checked and nothing is written.
With `--short_side=256`, the data set or `folder:PATH` is then copied with its images at that size,
which decode several times faster; a folder's copy is brought up to date if there is one.

`--stats --config=…` computes the statistics of the training images that a recipe needs,
`--proposals --config=…` the boxes that may hold an object, and `--show --config=…` draws the images
of its first step as the network sees them.
"""

import collections
import concurrent.futures
import importlib.util
import os
import pathlib
from collections.abc import Collection, Iterable
from typing import Any

from absl import flags

from cnn_papers import doors
from cnn_papers.data import download, folders, host_ops, shrink, sources, tfds, voc_folders
from cnn_papers.data.convert import check_space, convert
from cnn_papers.data.split import Split
from cnn_papers.errors import UserError
from cnn_papers.runs import config_files
from cnn_papers.terminal import counted


def main(argv: list[str]) -> int:
    """Runs the command line, and returns the exit code."""
    values = flags.FLAGS
    if values.stats or values.proposals or values.show:
        if len(argv) > 1:
            raise UserError(
                f"unexpected argument '{argv[1]}': --stats, --proposals and --show take the data "
                "of --config"
            )
        from cnn_papers.runs import preview  # imports JAX, which preparing does not need

        config = doors.config_value()
        if values.stats:
            preview.compute_statistics(config)
        if values.proposals:
            preview.compute_proposals(config)
        if values.show:
            path = values.out or f"{config.name}-{config.recipe}.png"
            preview.draw_first_step(config, pathlib.Path(path))
        return 0
    if len(argv) != 2:
        raise UserError(
            "write one NAME: "
            "python -m cnn_papers.prepare cifar10 [--data_dir=DIR] [--manual_dir=DIR]"
        )
    if values.short_side < 0:
        raise UserError(f"--short_side={values.short_side} must be positive")
    name, code = config_files.expanded("data.name", argv[1]), 0
    if values.short_side and name.startswith(sources.VOC):
        raise UserError(
            "--short_side copies data sets of TFDS and folder:PATH, not voc_folder:PATH"
        )
    if name.startswith("folder:"):
        code = check_folder(name.removeprefix("folder:"))
    elif name.startswith(sources.VOC):
        code = check_voc_folder(name.removeprefix(sources.VOC))
    else:
        prepare(name, values.data_dir, values.manual_dir)
    if values.short_side:
        copy_small(name, values.data_dir, values.short_side, values.out)
    return code


def copy_small(name: str, data_dir: str, side: int, out: str = "") -> None:
    """Copies a data set or a folder of images to `out`, with shorter sides of at most `side`."""
    try:
        if name.startswith("folder:"):
            folder = name.removeprefix("folder:").rstrip("/")
            root = target = pathlib.Path(out or f"{folder}-short{side}")
            flag = f"--config.data.name=folder:{target}"
            print(shrink.shrink_folder(folder, target, side))
        else:
            builder = tfds.find_builder(name, data_dir)
            root = pathlib.Path(out or f"{builder.data_dir_root}/short{side}")
            flag = f"--config.data.data_dir={root}"
            target = shrink.shrink_tfds(builder, root, side)
    except OSError as error:
        raise UserError(
            f"cannot copy {name} to {root}: {error}; give another folder with --out"
        ) from error
    print(f"{name} at shorter sides of at most {side} is in {target}: {flag}")


def prepare(name: str, data_dir: str = "", manual_dir: str = "") -> None:
    """Prepares `name` for `sources.open_split`: converts it or downloads it, if it is not ready."""
    tfds.check_place(data_dir)
    builder = tfds.find_builder(name, data_dir)
    if tfds.is_readable(builder):
        print(f"{name} is already prepared in {_describe(builder)}")
        return
    if builder.info.initialized:
        convert(builder)
    elif builder.name == "digits":
        tfds.make_digits(name, data_dir)
    else:
        archives = download.find_archives(builder, manual_dir)
        needed_bytes = download.bytes_to_write(builder)
        if needed_bytes:
            print(f"{name} takes about {needed_bytes / 1e9:,.2f} GB")
        else:
            print(f"the space that {name} needs is not known")
        check_space(needed_bytes, builder.data_dir)
        if importlib.util.find_spec("tensorflow") is None:
            raise UserError(
                f'preparing {name} needs TensorFlow (no run does): pip install -e ".[prepare]"'
            )
        download.download(builder, archives)
    print(f"{name} is ready in {_describe(tfds.find_builder(name, data_dir))}")


def _describe(builder: Any) -> str:
    splits = ", ".join(f"{key} {info.num_examples:,}" for key, info in builder.info.splits.items())
    return f"{builder.data_dir}: {splits}"


def check_folder(path: str) -> int:
    """Prints the classes of a folder of images, and the images that cannot be decoded.

    Returns 1 if there are any of the latter, else 0.
    """
    undecodable = []
    for name in folders.folder_splits(path):
        split = sources.open_split(f"folder:{path}", name)
        undecodable += _undecodable(split)
        images = counted(len(split.examples), "image")
        print(f"{split.name}: {images} of {counted(len(split.class_names), 'class', 'classes')}")
        _print_counts(split, split.labels or ())
    return _print_undecodable(undecodable)


def check_voc_folder(path: str) -> int:
    """Prints the classes of a VOC folder, its bad boxes, and the images that cannot be decoded.

    Returns 1 if there are bad boxes or such images, else 0.
    """
    undecodable: set[str] = set()
    has_bad_boxes = False
    for name in voc_folders.image_sets(path):
        split, bad = voc_folders.read_split(path, name)
        undecodable |= {*_undecodable(split)}
        objects = split.objects or ()
        labels = [label for image in objects for label in image.classes]
        empty = sum(not len(image.classes) for image in objects)
        difficult = sum(int(image.difficult.sum()) for image in objects)
        print(
            f"{split.name}: {counted(len(objects), 'image')}, {counted(len(labels), 'object')} "
            f"({difficult:,} difficult) of {counted(len(split.class_names), 'class', 'classes')}; "
            f"{counted(empty, 'image')} without objects"
        )
        _print_counts(split, labels)
        for what in bad:
            print(f"bad box: {what}")
        if bad:
            has_bad_boxes = True
            print(
                f"{counted(len(bad), 'bad box', 'bad boxes')}: correct the annotations, or "
                f"leave so many out with --config.data.max_bad_boxes={len(bad)}"
            )
    return max(_print_undecodable(undecodable), int(has_bad_boxes))


def _print_counts(split: Split, labels: Iterable[int]) -> None:
    """Prints how often each class is among `labels`."""
    counts = collections.Counter(map(int, labels))
    for label, class_name in enumerate(split.class_names):
        print(f"  {counts[label]:8,}  {class_name}")


def _undecodable(split: Split) -> list[str]:
    """Returns the files of a split that OpenCV cannot decode; it refuses one that is cut off."""

    def file_if_damaged(index: int) -> str:
        try:
            example = split.examples[index]
            host_ops.decode(example["image"])
        except ValueError:
            return os.path.join(split.location, example["id"])
        return ""

    with concurrent.futures.ThreadPoolExecutor() as pool:
        return [*filter(None, pool.map(file_if_damaged, range(len(split.examples))))]


def _print_undecodable(files: Collection[str]) -> int:
    """Prints the files that cannot be decoded; returns 1 if there are any, else 0."""
    for file in sorted(files):
        print(f"cannot be decoded: {file}")
    print(f"{counted(len(files), 'image')} cannot be decoded")
    return 1 if files else 0


def define_flags() -> None:
    """Defines the flags of this command."""
    doors.config_flag()
    doors.path_flag(
        "data_dir", "folder where data sets are prepared; TFDS's default folder if empty"
    )
    doors.path_flag(
        "manual_dir", "folder of the archives that only you can download (imagenet2012)"
    )
    flags.DEFINE_integer(
        "short_side", 0, "also copy, with at most this many pixels on the shorter side of images"
    )
    flags.DEFINE_bool("stats", False, "compute the statistics that --config needs")
    flags.DEFINE_bool("proposals", False, "compute the proposals that --config needs")
    flags.DEFINE_bool("show", False, "draw the images of the first step of --config")
    doors.path_flag("out", "where to write: the PNG of --show, the folder of --short_side")


def cli() -> None:
    """Runs the command line."""
    doors.run(main, define_flags)


if __name__ == "__main__":
    cli()
