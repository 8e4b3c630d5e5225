"""Converts a data set that is prepared as TFRecord to array_record, without TensorFlow."""

import os
import pathlib
import shutil
import struct
from collections.abc import Iterable, Iterator
from typing import Any

from cnn_papers.errors import UserError
from cnn_papers.files import atomic_write


def convert(builder: Any) -> None:
    """Writes array_record files beside the TFRecord files, and notes them in the metadata.

    TFDS's own converter imports TensorFlow and Apache Beam; this one reads the records directly. It
    verifies their framing and number, not their CRC-32C sums. Files that an interrupted conversion
    wrote are kept.

    Raises:
      UserError: another format than TFRecord, a damaged file, a full disk.
    """
    from tensorflow_datasets.core import dataset_info, file_adapters

    if builder.info.file_format is not file_adapters.FileFormat.TFRECORD:
        raise UserError(
            f"cannot convert {builder.info.file_format.value} in {builder.data_dir}: only TFRecord"
        )
    shards = list(
        zip(shard_files(builder, "tfrecord"), shard_files(builder, "array_record"), strict=True)
    )
    missing = [
        (source, target, length) for (source, length), (target, _) in shards if not target.exists()
    ]
    try:
        check_space(sum(source.stat().st_size for source, _, _ in missing), builder.data_dir)
        for done, (source, target, length) in enumerate(missing, 1):
            print(f"converting {source.name} ({done} of {len(missing)})", flush=True)
            with atomic_write(target) as partial:
                write_shard(partial, _read_tfrecord(source, length))
        info = dataset_info.read_proto_from_builder_dir(builder.data_dir)
        info.alternative_file_formats.append("array_record")
        with atomic_write(pathlib.Path(builder.data_dir, "dataset_info.json")) as partial:
            partial.write_text(dataset_info.get_dataset_info_json(info))
    except OSError as error:
        raise UserError(f"cannot convert {builder.data_dir}: {error}") from error


def shard_files(builder: Any, suffix: str) -> list[tuple[pathlib.Path, int]]:
    """Returns the files of all splits of a prepared data set, with the number of examples in each.

    `suffix` is the format: "tfrecord" or "array_record".
    """
    shards = []
    for split in builder.info.splits.values():
        template = split.filename_template.replace(filetype_suffix=suffix)
        for i, length in enumerate(split.shard_lengths):
            path = template.sharded_filepath(shard_index=i, num_shards=split.num_shards)
            shards.append((pathlib.Path(path), length))
    return shards


def write_shard(path: pathlib.Path, records: Iterable[bytes]) -> None:
    """Writes one array_record file, as TFDS would."""
    from tensorflow_datasets.core import file_adapters

    adapter = file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat.ARRAY_RECORD]
    adapter.write_examples(path, enumerate(records))


def check_space(need: int, folder: str) -> None:
    """Raises UserError unless the disk that `folder` is or will be on has `need` bytes free."""
    place = pathlib.Path(folder).absolute()
    while not place.exists():
        place = place.parent
    have = shutil.disk_usage(place).free
    if need > have:
        raise UserError(
            f"not enough space on the disk of {place}: need {need / 1e9:,.2f} GB, "
            f"have {have / 1e9:,.2f} GB; free some or choose another --data_dir"
        )


def _read_tfrecord(path: pathlib.Path, length: int) -> Iterator[bytes]:
    """Yields the `length` records of a TFRecord file.

    A record is its size (uint64), a checksum, its bytes and another checksum.
    """
    with open(path, "rb") as file:
        largest = os.fstat(file.fileno()).st_size
        for i in range(length):
            header = file.read(12)
            size = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else -1
            record = file.read(size + 4) if 0 <= size <= largest else b""
            if len(record) != size + 4:
                raise UserError(
                    f"{path} is damaged: record {i} of {length} is cut off; "
                    "prepare the data set again"
                )
            yield record[:-4]
        if file.read(1):
            raise UserError(f"{path} is damaged: more than the {length} records it should have")
