"""Puts a data set where the pipeline can read it: python -m cnn_papers.prepare NAME
[--data_dir=DIR].

NAME is a TFDS name (`cifar10`, `imagenet2012`, `digits/scenes`): it is downloaded where TFDS can do
so and written as array_record, which takes TensorFlow (pip install -e ".[prepare]") for everything
but `digits`. A preparation as TFRecord that is already there is converted beside itself, without
TensorFlow. `folder:PATH` checks a folder of your own images and writes nothing. With
`--short_side=256` the prepared set or the folder is then copied with its images at that size, which
decode several times faster.

`--stats --config=…` computes what a recipe needs to know of its training images ahead of time, and
`--show --config=…` draws the images of its first step as the network sees them.
"""

import collections
import concurrent.futures
import functools
import importlib.util
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags

from cnn_papers import doors
from cnn_papers.data import download, folders, host_ops, shrink, sources, tfds
from cnn_papers.data.convert import check_space, convert
from cnn_papers.errors import UserError


def main(argv: list[str]) -> int:
    """Does what the command line asks for; returns the exit code."""
    wanted = flags.FLAGS
    if wanted.stats or wanted.show:
        if len(argv) > 1:
            raise UserError(
                f"unexpected argument '{argv[1]}': --stats and --show take the data of --config"
            )
        from cnn_papers.runs import preview  # JAX, which preparing does without

        config = doors.config_value()
        if wanted.stats:
            preview.compute_statistics(config)
        if wanted.show:
            preview.draw_first_step(
                config, pathlib.Path(wanted.out or f"{config.name}-{config.recipe}.png")
            )
        return 0
    if len(argv) != 2:
        raise UserError(
            "write one NAME: python -m cnn_papers.prepare cifar10 [--data_dir=DIR] [--manual_dir=DIR]"
        )
    if wanted.short_side < 0:
        raise UserError(f"--short_side={wanted.short_side} must be positive")
    name, code = argv[1], 0
    if name.startswith("folder:"):
        code = check_folder(name.removeprefix("folder:"))
    else:
        prepare(name, wanted.data_dir, wanted.manual_dir)
    if wanted.short_side:
        copy_small(name, wanted.data_dir, wanted.short_side, wanted.out)
    return code


def copy_small(name: str, data_dir: str, side: int, out: str = "") -> None:
    """Copies a prepared data set or a folder of images, at shorter sides of at most `side`, to the
    folder `out`.
    """
    folder = (
        os.path.expanduser(name.removeprefix("folder:")).rstrip("/")
        if name.startswith("folder:")
        else ""
    )
    builder: Any = None if folder else tfds.find_builder(name, data_dir)
    root = pathlib.Path(
        out or (f"{folder}-short{side}" if folder else f"{builder.data_dir_root}/short{side}")
    )
    try:
        target = (
            shrink.shrink_tfds(builder, root, side)
            if builder
            else shrink.shrink_folder(folder, root, side)
        )
    except OSError as error:
        raise UserError(
            f"cannot copy {name} to {root}: {error}; give another folder with --out"
        ) from error
    use = f"--config.data.name=folder:{root}" if folder else f"--config.data.data_dir={root}"
    print(f"{name} at shorter sides of at most {side} is in {target}: {use}")


def prepare(name: str, data_dir: str = "", manual_dir: str = "") -> None:
    """Makes `name` readable by `sources.open_split`: nothing to do, converted, or downloaded and
    prepared.
    """
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
        need = download.bytes_to_write(builder)
        print(
            f"{name} takes about {need / 1e9:,.2f} GB"
            if need
            else f"how much space {name} takes is not known"
        )
        check_space(need, builder.data_dir)
        if importlib.util.find_spec("tensorflow") is None:
            raise UserError(
                f'preparing {name} needs TensorFlow (no run does): pip install -e ".[prepare]"'
            )
        download.download(builder, archives)
    print(f"{name} is ready in {_describe(tfds.find_builder(name, data_dir))}")


def _describe(builder: Any) -> str:
    splits = ", ".join(f"{key} {info.num_examples:,}" for key, info in builder.info.splits.items())
    return f"{builder.data_dir}: {splits}"


# --- downloading ----------------------------------------------------------------------------------


# --- a folder of images ---------------------------------------------------------------------------


def check_folder(path: str) -> int:
    """Prints the classes and counts of a folder of images and which cannot be decoded; 1 if there
    are any, else 0.
    """
    bad = []
    for name in folders.folder_splits(path):
        split = sources.open_split(f"folder:{path}", name)
        counts = collections.Counter()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for start in range(0, len(split.examples), 1000):
                indices = range(start, min(start + 1000, len(split.examples)))
                for label, key, decodes in pool.map(
                    functools.partial(_try_to_decode, split.examples), indices
                ):
                    counts[label] += 1
                    if not decodes:
                        bad.append(os.path.join(split.location, key))
        print(f"{split.name}: {len(split.examples):,} images of {len(split.class_names)} classes")
        for label, class_name in enumerate(split.class_names):
            print(f"  {counts[label]:8,}  {class_name}")
    for file in sorted(bad):
        print(f"cannot be decoded: {file}")
    print(f"{len(bad):,} images cannot be decoded")
    return 1 if bad else 0


def _try_to_decode(examples: Sequence[dict[str, Any]], index: int) -> tuple[int, str, bool]:
    """Label, id and whether the image decodes in full (OpenCV refuses a file that is cut off)."""
    example = examples[index]
    try:
        host_ops.decode(example["image"])
    except ValueError:
        return example["label"], example["id"], False
    return example["label"], example["id"], True


def cli() -> None:
    """The command line."""
    doors.config_flag()
    flags.DEFINE_string(
        "data_dir", "", "where data sets are prepared; TFDS's default folder if empty"
    )
    flags.DEFINE_string(
        "manual_dir", "", "where the archives are that only you may download (imagenet2012)"
    )
    flags.DEFINE_integer(
        "short_side", 0, "copy with images of at most so many pixels on the shorter side"
    )
    flags.DEFINE_bool("stats", False, "compute the statistics that --config asks for")
    flags.DEFINE_bool("show", False, "draw the images of the first step of --config")
    flags.DEFINE_string("out", "", "of --show: the PNG, of --short_side: the folder to write to")
    doors.run(main)


if __name__ == "__main__":
    cli()
