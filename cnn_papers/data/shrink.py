"""Copies a data set with its images at a smaller size, which decode several times faster.

An image with a longer shorter side than `side` is scaled down to it (AlexNet §2 stored ImageNet at
256) and encoded again as the same kind of file, a JPEG or WebP at quality QUALITY. Other images,
and those that cannot be decoded, are copied as they are. Files that an interrupted copy wrote are
kept, and nothing can read the copy before it is complete.

A copy of a folder says in ORIGIN what it was made of, and is brought up to date by the next copy of
the same folder at the same size. Any other folder is left alone.
"""

import concurrent.futures
import json
import logging
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import cv2

from cnn_papers.data import host_ops, image_files
from cnn_papers.data.convert import check_space, shard_files, write_shard
from cnn_papers.data.folders import folder_splits, is_image, split_images
from cnn_papers.data.progress import reported
from cnn_papers.data.tfds_objects import first_pixel
from cnn_papers.errors import UserError
from cnn_papers.files import atomic_write

QUALITY = 95  # of JPEGs, 0 … 100
PART = 256  # records that are worked on at once
ORIGIN = ".copy_of.json"  # in a copy of a folder: which folder, and at which size
_ENCODINGS = {  # OpenCV's suffix and options
    "JPEG": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, QUALITY]),
    "PNG": (".png", []),
    "BMP": (".bmp", []),
    "WebP": (".webp", [cv2.IMWRITE_WEBP_QUALITY, QUALITY]),
}


def shrink_tfds(builder: Any, data_dir: pathlib.Path, side: int) -> pathlib.Path:
    """Copies a prepared data set to `data_dir`, and returns the folder of the copy.

    TFDS reads it from there by the same name. Only the feature `image` changes; boxes are relative
    to the image and stay true, except that those of `voc` count from 1, which is a larger part of
    a smaller image. A copy that is there already is left as it is.

    Raises:
      UserError: the folder exists and is no copy of the data set at this size.
      OSError: the copy cannot be written.
    """
    source = pathlib.Path(builder.data_dir)
    target = data_dir / source.relative_to(builder.data_dir_root)
    note = f"Images at a shorter side of at most {side} pixels (JPEG quality {QUALITY})."
    if target.exists():
        _check_is_copy(target, builder, note)
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
                write_shard(file, _shrunk_records(path, side, pool, first_pixel(builder)))
    for path in source.iterdir():
        if path.is_file() and ".array_record" not in path.name and ".tfrecord" not in path.name:
            shutil.copy(path, part / path.name)
    _rewrite_info(part, note)
    os.replace(part, target)
    return target


def _check_is_copy(target: pathlib.Path, builder: Any, note: str) -> None:
    """Raises UserError unless `target` has the splits of `builder`, and `note` in its text."""
    from tensorflow_datasets.core import dataset_info

    try:
        info = dataset_info.read_proto_from_builder_dir(target)
    except (OSError, ValueError):  # it is no data set
        info = None
    lengths = {name: list(split.shard_lengths) for name, split in builder.info.splits.items()}
    if (
        info is None
        or not info.description.endswith(note)
        or {split.name: list(split.shard_lengths) for split in info.splits} != lengths
    ):
        raise UserError(
            f"{target} exists and is no copy of {builder.data_dir} as it is now, at this size: "
            "remove it, or give another folder with --out"
        )


def shrink_folder(path: str, target: pathlib.Path, side: int) -> str:
    """Copies a folder of images, with all of its splits, to `target`; returns what it changed.

    If `target` is such a copy already, images that are missing or have changed since are copied
    again, and those that `path` no longer has are removed. Meanwhile the copy has another name, so
    that no run takes it for whole.

    Raises:
      UserError: `target` lies within `path`, or exists and is no copy of it at this size.
      OSError: the copy cannot be written.
    """
    root = pathlib.Path(path).resolve()
    if target.resolve().is_relative_to(root):
        raise UserError(f"--out={target} lies within {root}: a copy there would be part of it")
    origin = {"folder": str(root), "short_side": side}
    part = _part(target, side)
    before = target if target.exists() else part
    if before.exists() and _origin(before) != origin:
        raise UserError(
            f"{before} exists and is no copy of {root} at a shorter side of {side}: "
            "remove it, or give another folder with --out"
        )
    sources = _files_to_copy(path)
    present = _copied_files(before)
    stale = [file for file in sources if not _is_current(before / file, sources[file])]
    gone = sorted(present - set(sources))
    if not stale and not gone and target.exists():
        return "images: no changes"
    check_space(sum(sources[file].stat().st_size for file in stale), str(target))
    if target.exists():
        logging.getLogger(__name__).info("%s is called %s until it is up to date", target, part)
        os.replace(target, part)
    with atomic_write(part / ORIGIN) as file:
        file.write_text(json.dumps(origin))
    for file in gone:
        (part / file).unlink()

    def copy(file: str) -> None:
        modified = sources[file].stat().st_mtime_ns  # before its bytes: a later change is seen
        with atomic_write(part / file) as copied:
            copied.write_bytes(shrunk(sources[file].read_bytes(), side))
            os.utime(copied, ns=(modified, modified))

    with concurrent.futures.ThreadPoolExecutor() as pool:
        for _ in reported(pool.map(copy, stale), len(stale), f"shrinking to {target}"):
            pass
    _remove_empty_folders(part)
    os.replace(part, target)
    renewed = len(present & set(stale))
    return f"images: {len(stale) - renewed:,} added, {renewed:,} renewed, {len(gone):,} removed"


def _origin(copy: pathlib.Path) -> Any:
    """Returns what a copy was made of, None for a folder that is no copy."""
    try:
        return json.loads((copy / ORIGIN).read_text())
    except (OSError, ValueError):
        return None


def _files_to_copy(path: str) -> dict[str, pathlib.Path]:
    """Returns every image of a folder, by its path in a copy."""
    root = pathlib.Path(path)
    splits = folder_splits(path)
    files = [
        folder / file
        for name, folder in splits.items()
        for file in split_images(path, splits, name)[1]
    ]
    return {file.relative_to(root).as_posix(): file for file in files}


def _copied_files(copy: pathlib.Path) -> set[str]:
    """Returns the files in a copy that a run would take for images; none without a copy."""
    return {
        path.relative_to(copy).as_posix()
        for path in copy.rglob("*")
        if path.is_file() and is_image(str(path))
    }


def _is_current(copy: pathlib.Path, source: pathlib.Path) -> bool:
    """Tells whether a copied file exists and is of the present state of its source."""
    try:
        # Not every file system keeps nanoseconds.
        return copy.stat().st_mtime_ns // 1000 == source.stat().st_mtime_ns // 1000
    except FileNotFoundError:
        return False


def _remove_empty_folders(copy: pathlib.Path) -> None:
    """Removes folders without files, which would be classes without images."""
    for folder, _, _ in os.walk(copy, topdown=False):
        if not os.listdir(folder):
            os.rmdir(folder)


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
    suffix, options = _ENCODINGS[image_files.kind(image)]
    ok, data = cv2.imencode(suffix, small, options)
    assert ok, "OpenCV could not encode an image"
    return data.tobytes()


def _shrunk_records(
    path: pathlib.Path, side: int, pool: concurrent.futures.Executor, first: int
) -> Iterator[bytes]:
    """Yields the records of a shard; `first` is the number of the first row and column in boxes."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource
    from tensorflow_datasets.proto import tf_example_pb2

    messages: Any = tf_example_pb2  # its classes are made when it is imported

    def convert(record: bytes) -> bytes:
        example = messages.Example.FromString(record)
        (image,) = example.features.feature["image"].bytes_list.value
        small = shrunk(image, side)
        example.features.feature["image"].bytes_list.value[0] = small
        if first and (before := image_files.declared_size(image)) and small is not image:
            after = image_files.declared_size(small)
            assert after is not None, "an image that was written declares its size"
            height, width = (
                first / new - first / old
                for old, new in zip(before.upright, after.upright, strict=True)
            )
            boxes = example.features.feature["objects/bbox"].float_list.value
            for i in range(0, len(boxes), 4):
                boxes[i] += height
                boxes[i + 1] += width
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
