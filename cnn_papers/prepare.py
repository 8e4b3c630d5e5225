"""Puts a data set where the pipeline can read it: python -m cnn_papers.prepare NAME [--data_dir=DIR].

NAME is a TFDS name (`cifar10`, `imagenet2012`, `digits/scenes`): it is downloaded where TFDS can do so and written as
array_record, which takes TensorFlow (pip install -e ".[prepare]") for everything but `digits`. A preparation as
TFRecord that is already there is converted beside itself, without TensorFlow. `folder:PATH` checks a folder of your
own images and writes nothing. With `--short_side=256` the prepared set or the folder is then copied with its images at
that size, which decode several times faster.

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
from cnn_papers.data import host_ops, shrink, sources
from cnn_papers.data.convert import check_space, convert
from cnn_papers.errors import UserError

_IMAGENET_ARCHIVES = (("ILSVRC2012_img_train.tar", 147_897_477_120), ("ILSVRC2012_img_val.tar", 6_744_924_160))


def main(argv: list[str]) -> int:
    """Does what the command line asks for; returns the exit code."""
    wanted = flags.FLAGS
    if wanted.stats or wanted.show:
        if len(argv) > 1:
            raise UserError(f"unexpected argument '{argv[1]}': --stats and --show take the data of --config")
        from cnn_papers.runs import preview  # JAX, which preparing does without

        config = doors.config_value()
        if wanted.stats:
            preview.compute_statistics(config)
        if wanted.show:
            preview.draw_first_step(config, pathlib.Path(wanted.out or f"{config.name}-{config.recipe}.png"))
        return 0
    if len(argv) != 2:
        raise UserError("write one NAME: python -m cnn_papers.prepare cifar10 [--data_dir=DIR] [--manual_dir=DIR]")
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
    """Copies a prepared data set or a folder of images, at shorter sides of at most `side`, to the folder `out`."""
    folder = os.path.expanduser(name.removeprefix("folder:")).rstrip("/") if name.startswith("folder:") else ""
    builder: Any = None if folder else sources.find_builder(name, data_dir)
    root = pathlib.Path(out or (f"{folder}-short{side}" if folder else f"{builder.data_dir_root}/short{side}"))
    try:
        target = shrink.shrink_tfds(builder, root, side) if builder else shrink.shrink_folder(folder, root, side)
    except OSError as error:
        raise UserError(f"cannot copy {name} to {root}: {error}; give another folder with --out") from error
    use = f"--config.data.name=folder:{root}" if folder else f"--config.data.data_dir={root}"
    print(f"{name} at shorter sides of at most {side} is in {target}: {use}")


def prepare(name: str, data_dir: str = "", manual_dir: str = "") -> None:
    """Makes `name` readable by `sources.open_split`: nothing to do, converted, or downloaded and prepared."""
    builder = sources.find_builder(name, data_dir)
    if sources.is_readable(builder):
        print(f"{name} is already prepared in {_describe(builder)}")
        return
    if builder.info.initialized:
        convert(builder)
    elif builder.name == "digits":
        sources.make_digits(name, data_dir)
    else:
        archives = _find_archives(builder, manual_dir)
        need = _bytes_to_write(builder)
        print(f"{name} takes about {need / 1e9:,.2f} GB" if need else f"how much space {name} takes is not known")
        check_space(need, builder.data_dir)
        if importlib.util.find_spec("tensorflow") is None:
            raise UserError(f'preparing {name} needs TensorFlow (no run does): pip install -e ".[prepare]"')
        _download(builder, archives)
    print(f"{name} is ready in {_describe(sources.find_builder(name, data_dir))}")


def _describe(builder: Any) -> str:
    splits = ", ".join(f"{key} {info.num_examples:,}" for key, info in builder.info.splits.items())
    return f"{builder.data_dir}: {splits}"


# --- downloading ---------------------------------------------------------------------------------------------------


def _find_archives(builder: Any, manual_dir: str) -> pathlib.Path:
    """The folder of the archives that only the user may download, checked where their names and sizes are known."""
    root = pathlib.Path(os.path.expanduser(manual_dir or os.path.join(builder.data_dir_root, "downloads", "manual")))
    if builder.name == "imagenet2012":
        needed = " and ".join(f"{file} ({size:,} bytes)" for file, size in _IMAGENET_ARCHIVES)
        for file, size in _IMAGENET_ARCHIVES:
            found = (root / file).stat().st_size if (root / file).is_file() else None
            if found != size:
                state = "is not there" if found is None else f"has {found:,} bytes: download it again"
                raise UserError(
                    f"imagenet2012 needs {needed} in {root}, and {file} {state}; get both from "
                    "https://image-net.org/download-images (with an account), or give their folder as --manual_dir"
                )
    elif builder.MANUAL_DOWNLOAD_INSTRUCTIONS and not root.is_dir():
        steps = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        raise UserError(f"{builder.name} must be downloaded by hand into {root} (or --manual_dir): {steps}")
    return root


def _bytes_to_write(builder: Any) -> int:
    """Download and data set twice over (TFDS sorts on disk before it writes); 0 where TFDS knows no size."""
    if builder.name == "imagenet2012":
        return 2 * sum(size for _, size in _IMAGENET_ARCHIVES)  # the archives themselves are already there
    several = len(builder.BUILDER_CONFIGS) > 1  # the list of files is that of all configurations together
    listed = 0 if several else sum(url.size for url in (builder.url_infos or {}).values())
    download = int(builder.info.download_size or listed)
    return 2 * (download + int(builder.info.dataset_size or download))


def _download(builder: Any, archives: pathlib.Path) -> None:
    import requests
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.extractor import ExtractError

    advice = (
        f"cannot download {builder.name}: check the network and HTTPS_PROXY, or prepare it on another machine and copy "
        f"{builder.data_dir} from there"
    )
    urls = [url for url in builder.url_infos or {} if url.startswith("http")]
    by_hand = builder.MANUAL_DOWNLOAD_INSTRUCTIONS is not None
    if (
        urls and not by_hand and not any(pathlib.Path(builder.data_dir_root, "downloads").glob("*.INFO"))
    ):  # nothing fetched earlier
        try:
            requests.head(urls[0], timeout=20)  # TFDS itself would try for minutes
        except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
            raise UserError(f"{advice} ({_first_line(error)})") from error
    config = tfds.download.DownloadConfig(manual_dir=os.fspath(archives), try_download_gcs=False)
    try:
        builder.download_and_prepare(download_config=config, file_format="array_record")
    except (requests.exceptions.RequestException, tfds.download.DownloadError) as error:
        raise UserError(f"{advice} ({_first_line(error)})") from error
    except ImportError as error:
        raise UserError(f"preparing {builder.name} needs another package: {_first_line(error)}") from error
    except (OSError, ExtractError) as error:
        raise UserError(f"cannot prepare {builder.name} in {builder.data_dir}: {_first_line(error)}") from error
    if not pathlib.Path(builder.data_dir, "dataset_info.json").exists():
        raise UserError(f"{builder.data_dir} exists but holds no data set: remove it and try again")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


# --- a folder of images --------------------------------------------------------------------------------------------


def check_folder(path: str) -> int:
    """Prints the classes and counts of a folder of images and which cannot be decoded; 1 if there are any, else 0."""
    bad = []
    for name in sources.folder_splits(path):
        split = sources.open_split(f"folder:{path}", name)
        counts = collections.Counter()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for start in range(0, len(split.examples), 1000):
                indices = range(start, min(start + 1000, len(split.examples)))
                for label, key, decodes in pool.map(functools.partial(_try_to_decode, split.examples), indices):
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
    flags.DEFINE_string("data_dir", "", "where data sets are prepared; TFDS's default folder if empty")
    flags.DEFINE_string("manual_dir", "", "where the archives are that only you may download (imagenet2012)")
    flags.DEFINE_integer("short_side", 0, "copy with images of at most so many pixels on the shorter side")
    flags.DEFINE_bool("stats", False, "compute the statistics that --config asks for")
    flags.DEFINE_bool("show", False, "draw the images of the first step of --config")
    flags.DEFINE_string("out", "", "of --show: the PNG, of --short_side: the folder to write to")
    doors.run(main)


if __name__ == "__main__":
    cli()
