"""Copies of data sets whose images are stored at a small size, so that few cores decode them fast
enough.

An image whose shorter side is longer than asked for is scaled down to it (AlexNet §2 stored
ImageNet at 256) and written again, a JPEG at quality QUALITY, a PNG as a PNG. Others, and those
that cannot be decoded, are copied as they are. What an interrupted copy has written is kept, and
nothing can read it before it is whole.
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
PART = 256  # records worked on at once


def shrink_tfds(builder: Any, data_dir: pathlib.Path, side: int) -> pathlib.Path:
    """Copies a prepared data set under `data_dir`, from where TFDS reads it by the same name;
    returns its folder.

    Features but `image` stay as they are; boxes are relative and stay true.
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
        for path, _ in reported(
            missing, sum(n for _, n in missing), f"shrinking {builder.name}", size=lambda x: x[1]
        ):
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
    """Copies a folder of images, with all of its splits, to `target` and returns that."""
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
    """An encoded image with a shorter side of at most `side`; as it is where it has, or cannot be
    decoded.
    """
    try:
        pixels = host_ops.decode(image)
    except ValueError:
        return image  # whoever reads it will say so
    if min(pixels.shape[:2]) <= side:
        return image
    small = cv2.cvtColor(host_ops.resize_short(pixels, side), cv2.COLOR_RGB2BGR)
    jpeg = image.startswith(b"\xff\xd8")
    ok, data = cv2.imencode(
        ".jpg" if jpeg else ".png", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY] if jpeg else []
    )
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
    """Says in a copy's metadata that it is array_record, how large it is, and what was done."""
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
    """Where a copy grows before it is whole: hidden, so that nobody takes it for a data set."""
    return target.with_name(f".{target.name}.short{side}.incomplete")
