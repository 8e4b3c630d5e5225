"""Puts a data set where the pipeline can read it: python -m cnn_papers.prepare NAME [--data_dir=DIR].

NAME is a TFDS name (`cifar10`, `imagenet2012`, `digits/scenes`): it is downloaded where TFDS can do so and written as
array_record, which takes TensorFlow (pip install -e ".[prepare]") for everything but `digits`. A preparation as
TFRecord that is already there is converted beside itself, without TensorFlow. `folder:PATH` checks a folder of your
own images and writes nothing.
"""

import collections
import concurrent.futures
import contextlib
import functools
import importlib.util
import os
import pathlib
import shutil
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from absl import flags

from cnn_papers import doors
from cnn_papers.data import sources
from cnn_papers.errors import UserError

_DATA_DIR = flags.DEFINE_string("data_dir", "", "where data sets are prepared; TFDS's default folder if empty")
_MANUAL_DIR = flags.DEFINE_string("manual_dir", "", "where the archives are that only you may download (imagenet2012)")

_IMAGENET_ARCHIVES = (("ILSVRC2012_img_train.tar", 147_897_477_120), ("ILSVRC2012_img_val.tar", 6_744_924_160))


def main(argv: list[str]) -> int:
    """Prepares or checks the data set named on the command line; returns the exit code."""
    if len(argv) != 2:
        raise UserError("write one NAME: python -m cnn_papers.prepare cifar10 [--data_dir=DIR] [--manual_dir=DIR]")
    name = argv[1]
    if name.startswith("folder:"):
        return check_folder(name.removeprefix("folder:"))
    prepare(name, _DATA_DIR.value, _MANUAL_DIR.value)
    return 0


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


def check_space(need: int, folder: str) -> None:
    """Raises UserError unless the disk that `folder` is or will be on has `need` bytes free."""
    place = pathlib.Path(folder).absolute()
    while not place.exists():
        place = place.parent
    have = shutil.disk_usage(place).free
    if need > have:
        raise UserError(
            f"not enough space on the disk of {place}: need {need / 1e9:,.2f} GB, have {have / 1e9:,.2f} GB; free some "
            "or choose another --data_dir"
        )


def _download(builder: Any, archives: pathlib.Path) -> None:
    import requests
    import tensorflow_datasets as tfds

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
    except OSError as error:
        raise UserError(f"cannot prepare {builder.name} in {builder.data_dir}: {_first_line(error)}") from error
    if not pathlib.Path(builder.data_dir, "dataset_info.json").exists():
        raise UserError(f"{builder.data_dir} exists but holds no data set: remove it and try again")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


# --- TFRecord → array_record ---------------------------------------------------------------------------------------


def convert(builder: Any) -> None:
    """Writes array_record files beside the TFRecord files of a prepared data set and notes them in its metadata.

    TFDS's own converter imports TensorFlow and Apache Beam; this one reads the records directly. It verifies their
    framing and number, not their CRC-32C sums. Files written by an interrupted conversion are kept.
    """
    from tensorflow_datasets.core import dataset_info, file_adapters

    if builder.info.file_format is not file_adapters.FileFormat.TFRECORD:
        raise UserError(f"cannot convert {builder.info.file_format.value} in {builder.data_dir}: only TFRecord")
    shards = []
    for split in builder.info.splits.values():
        template = split.filename_template
        for i, length in enumerate(split.shard_lengths):
            source = template.sharded_filepath(shard_index=i, num_shards=split.num_shards)
            target = template.replace(filetype_suffix="array_record").sharded_filepath(
                shard_index=i, num_shards=split.num_shards
            )
            shards.append((pathlib.Path(source), pathlib.Path(target), length))
    missing = [(source, target, length) for source, target, length in shards if not target.exists()]
    write = file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat.ARRAY_RECORD].write_examples
    try:
        check_space(sum(source.stat().st_size for source, _, _ in missing), builder.data_dir)
        for done, (source, target, length) in enumerate(missing, 1):
            print(f"converting {source.name} ({done} of {len(missing)})", flush=True)
            with _written_whole(target) as partial:
                write(partial, enumerate(_read_tfrecord(source, length)))
        info = dataset_info.read_proto_from_builder_dir(builder.data_dir)
        info.alternative_file_formats.append("array_record")
        with _written_whole(pathlib.Path(builder.data_dir, "dataset_info.json")) as partial:
            partial.write_text(dataset_info.get_dataset_info_json(info))
    except OSError as error:
        raise UserError(f"cannot convert {builder.data_dir}: {error}") from error


@contextlib.contextmanager
def _written_whole(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to write to that becomes `target` only when all has gone well."""
    partial = target.with_name(f"incomplete.{os.getpid()}.{target.name}")
    try:
        yield partial
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _read_tfrecord(path: pathlib.Path, length: int) -> Iterator[bytes]:
    """The `length` records of a TFRecord file: each is its size (uint64), a sum, its bytes and another sum."""
    with open(path, "rb") as file:
        largest = os.fstat(file.fileno()).st_size
        for i in range(length):
            header = file.read(12)
            size = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else -1
            record = file.read(size + 4) if 0 <= size <= largest else b""
            if len(record) != size + 4:
                raise UserError(f"{path} is damaged: record {i} of {length} is cut off; prepare the data set again")
            yield record[:-4]
        if file.read(1):
            raise UserError(f"{path} is damaged: more than the {length} records it should have")


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
    data = np.frombuffer(example["image"], np.uint8)
    return example["label"], example["id"], bool(data.size) and cv2.imdecode(data, cv2.IMREAD_COLOR) is not None


if __name__ == "__main__":
    doors.run(main)
