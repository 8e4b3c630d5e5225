"""Copies a data set with its images at a smaller size, which decode several times faster.

An image with a longer shorter side than `side` is scaled down to it (AlexNet §2 stored ImageNet at
256) and encoded again, a JPEG at quality QUALITY, a PNG as a PNG. Other images, and those that
cannot be decoded, are copied as they are. Files that an interrupted copy wrote are kept, and
nothing can read the copy before it is complete.
"""

import concurrent.futures
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import cv2

from cnn_papers.data import host_ops
from cnn_papers.data.convert import check_space, shard_files, write_shard
from cnn_papers.data.folders import folder_splits, image_files
from cnn_papers.data.progress import reported
from cnn_papers.errors import UserError
from cnn_papers.files import atomic_write

QUALITY = 95  # of JPEGs, 0 … 100
PART = 256  # records that are worked on at once


def shrink_tfds(builder: Any, data_dir: pathlib.Path, side: int) -> pathlib.Path:
    """Copies a prepared data set to `data_dir`, and returns the folder of the copy.

    TFDS reads it from there by the same name. Only the feature `image` changes; boxes are relative
    to the image and stay true.
    """
    source = pathlib.Path(builder.data_dir)
    target = data_dir / source.relative_to(builder.data_dir_root)
    if target.exists():
        return target
    part = _part(target, side)
    part.mkdir(parents=True, exist_ok=True)
    shards = shard_files(builder, "array_record")
    missing = [(path, length) for path, length in shards if not (part / path.name).exists()]
    check_space(sum(path.stat().st_size for path, _ in missing), str(part))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        total = sum(length for _, length in missing)
        title = f"shrinking {builder.name}"
        for path, _ in reported(missing, total, title, size=lambda shard: shard[1]):
            with atomic_write(part / path.name) as file:
                write_shard(file, _shrunk_records(path, side, pool))
    for path in source.iterdir():
        if path.is_file() and ".array_record" not in path.name and ".tfrecord" not in path.name:
            shutil.copy(path, part / path.name)
    _rewrite_info(
        part, f"Images at a shorter side of at most {side} pixels (JPEG quality {QUALITY})."
    )
    os.replace(part, target)
    return target


def shrink_folder(path: str, target: pathlib.Path, side: int) -> pathlib.Path:
    """Copies a folder of images, with all of its splits, to `target`, and returns `target`."""
    if target.exists():
        return target
    splits = folder_splits(path)
    part = _part(target, side)
    several = len(splits) > 1
    pairs = [
        (folder / file, (part / name if several else part) / file)
        for name, folder in splits.items()
        for file in image_files(folder)
    ]
    missing = [pair for pair in pairs if not pair[1].exists()]
    check_space(sum(source.stat().st_size for source, _ in missing), str(target))

    def copy(pair: tuple[pathlib.Path, pathlib.Path]) -> None:
        with atomic_write(pair[1]) as file:
            file.write_bytes(shrunk(pair[0].read_bytes(), side))

    with concurrent.futures.ThreadPoolExecutor() as pool:
        for _ in reported(pool.map(copy, missing), len(missing), f"shrinking to {target}"):
            pass
    os.replace(part, target)
    return target


def shrunk(image: bytes, side: int) -> bytes:
    """Returns an encoded image with a shorter side of at most `side`.

    An image that has one already, or that cannot be decoded, is returned as it is.
    """
    try:
        pixels = host_ops.decode(image)
    except ValueError:
        return image  # the pipeline that reads it will report it
    if min(pixels.shape[:2]) <= side:
        return image
    small = cv2.cvtColor(host_ops.resize_short(pixels, side), cv2.COLOR_RGB2BGR)
    if image.startswith(b"\xff\xd8"):
        ok, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    else:
        ok, data = cv2.imencode(".png", small)
    assert ok, "OpenCV could not encode an image"
    return data.tobytes()


def _shrunk_records(
    path: pathlib.Path, side: int, pool: concurrent.futures.Executor
) -> Iterator[bytes]:
    from array_record.python.array_record_data_source import ArrayRecordDataSource
    from tensorflow_datasets.proto import tf_example_pb2

    messages: Any = tf_example_pb2  # its classes are made when it is imported

    def convert(record: bytes) -> bytes:
        example = messages.Example.FromString(record)
        (image,) = example.features.feature["image"].bytes_list.value
        example.features.feature["image"].bytes_list.value[0] = shrunk(image, side)
        return example.SerializeToString(deterministic=True)

    with ArrayRecordDataSource([os.fspath(path)]) as source:
        for start in range(0, len(source), PART):
            try:
                records = source.__getitems__(list(range(start, min(start + PART, len(source)))))
            except (RuntimeError, ValueError, OSError) as error:
                raise UserError(
                    f"{path} is damaged near example {start}: prepare the data set again"
                ) from error
            yield from pool.map(convert, records)


def _rewrite_info(folder: pathlib.Path, note: str) -> None:
    """Writes to a copy's metadata its format and size, and `note` to its description."""
    from tensorflow_datasets.core import dataset_info

    info = dataset_info.read_proto_from_builder_dir(folder)
    info.file_format = "array_record"
    del info.alternative_file_formats[:]
    info.description = f"{info.description.rstrip()}\n\n{note}"
    for split in info.splits:
        split.num_bytes = sum(
            path.stat().st_size for path in folder.glob(f"*-{split.name}.array_record*")
        )
    with atomic_write(folder / "dataset_info.json") as file:
        file.write_text(dataset_info.get_dataset_info_json(info))


def _part(target: pathlib.Path, side: int) -> pathlib.Path:
    """Returns the folder of an unfinished copy, hidden so that nobody takes it for a data set."""
    return target.with_name(f".{target.name}.short{side}.incomplete")
