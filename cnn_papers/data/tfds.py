"""Opens TFDS data sets that are prepared as array_record, without TensorFlow."""

import bisect
import contextlib
import difflib
import importlib
import io
import itertools
import os
import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from cnn_papers.data.split import DamagedExample, Split
from cnn_papers.data.tfds_objects import by_name, first_pixel, has_boxes, read_objects
from cnn_papers.errors import UserError

T = TypeVar("T")

_ID_FEATURES = ("id", "file_name", "image/filename", "filename")
# Those that array_record and TFDS raise on damaged files.
_READ_ERRORS = (RuntimeError, ValueError, LookupError, OSError)


def open_tfds(name: str, split: str, data_dir: str, max_bad_boxes: int = 0) -> Split:
    """Opens a split of a TFDS data set, as `sources.open_split` says."""
    # Imported in functions: it takes half a second, and is not installed with synthetic data only.
    import tensorflow_datasets as tfds

    builder = find_builder(name, data_dir)
    _check_features(name, builder.info.features)
    if builder.name == "digits" and not builder.info.initialized:
        builder = make_digits(name, data_dir)
    if not is_readable(builder):
        form = builder.info.file_format.value
        state = (
            f"prepared only as {form}, not as array_record,"
            if builder.info.initialized
            else "not prepared"
        )
        raise UserError(
            f"{name} is {state} in {builder.data_path}: run {prepare_command(name, data_dir)}"
        )
    shards = _shards(name, split, builder)
    source = builder.as_data_source(
        split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    for path, _ in shards:
        if not os.path.exists(path):
            raise UserError(
                f"{path} is missing: remove {builder.data_path}, "
                f"then run {prepare_command(name, data_dir)}"
            )
    class_names = class_names_of(builder.info.features)
    id_feature = next(
        (feature for feature in _ID_FEATURES if feature in builder.info.features), None
    )
    full_name = f"{name}[{split}]"
    examples = _TfdsExamples(source, full_name, id_feature, shards)
    objects = None
    if has_boxes(builder.info.features):
        objects = read_objects(examples, class_names, first_pixel(builder), max_bad_boxes)
    return Split(full_name, examples, class_names, str(builder.data_path), objects=objects)


class _TfdsExamples(Sequence):
    """The examples of a TFDS data source; an error names the file that cannot be read."""

    def __init__(
        self, source: Any, name: str, id_feature: str | None, shards: list[tuple[str, int]]
    ):
        self.name, self._source, self._id_feature = name, source, id_feature
        self._files = [path for path, _ in shards]
        self._ends = list(itertools.accumulate(length for _, length in shards))

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: Any) -> Any:
        chosen = range(len(self))[index]  # an int, or a range for a slice; raises IndexError
        if isinstance(chosen, int):
            return self._read_one(chosen, self._example)
        return self.__getitems__(chosen)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Reads the examples at `indices`, which is faster than one by one."""
        return self.read(indices, self._example)

    def read(self, indices: Sequence[int], convert: Callable[[int, Any], T]) -> list[T]:
        """Returns `convert(index, features)` for the records at `indices`.

        Raises:
          DamagedExample: a record cannot be read, or `convert` raises ValueError.
        """
        try:
            records = self._source.__getitems__(list(indices))
            return [
                convert(i, _parse_example(record))
                for i, record in zip(indices, records, strict=True)
            ]
        except _READ_ERRORS:
            # Slower, and names the damaged record.
            return [self._read_one(i, convert) for i in indices]

    def _read_one(self, index: int, convert: Callable[[int, Any], T]) -> T:
        try:
            return convert(index, _parse_example(self._source[index]))
        except _READ_ERRORS as error:
            file = self._files[bisect.bisect(self._ends, index)]
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DamagedExample(
                f"cannot read example {index} of {self.name}: {file} is damaged, "
                f"remove its folder and prepare it again ({reason})"
            ) from error

    def identifier(self, index: int, features: Any) -> str:
        """Returns the id of an example: its own, or its place in the split."""
        if not self._id_feature:
            return f"{self.name}:{index}"
        return features[self._id_feature].bytes_list.value[0].decode()

    def _example(self, index: int, features: Any) -> dict[str, Any]:
        image = features["image"].bytes_list.value[0]
        example = {"image": image, "id": self.identifier(index, features)}
        if "label" in features:
            example["label"] = features["label"].int64_list.value[0]
        return example


def find_builder(name: str, data_dir: str = "") -> Any:
    """Returns the TFDS builder of `name`, which need not be prepared.

    Raises:
      UserError: no such data set or configuration.
    """
    import tensorflow_datasets as tfds

    importlib.import_module("cnn_papers.data.digits")  # registers `digits` with TFDS
    try:
        return tfds.builder(name, data_dir=data_dir or None)
    except tfds.core.DatasetNotFoundError:
        near = difflib.get_close_matches(
            name.split("/")[0], tfds.list_builders(with_community_datasets=False)
        )
        hint = (
            f"did you mean {', '.join(near)}?"
            if near
            else "see https://www.tensorflow.org/datasets/catalog"
        )
        raise UserError(
            f"no data set is called {name!r}: {hint} (your own images: folder:PATH)"
        ) from None
    except (ValueError, AssertionError, TypeError, ImportError) as error:
        base, *config = re.split(r"[/:]", name)[: 1 + ("/" in name)]
        hint = str(error).splitlines()[0]
        if config and base in tfds.list_builders(with_community_datasets=False):
            configs = list(tfds.builder_cls(base).builder_configs)
            if config[0] not in configs:
                names = ", ".join(f"{base}/{config_name}" for config_name in configs)
                hint = f"there is {names}" if names else f"{base} has no configurations"
        raise UserError(f"no data set is called {name!r}: {hint}") from error


def make_digits(name: str, data_dir: str = "") -> Any:
    """Writes the embedded `digits` or `digits/scenes`, and returns its builder.

    Several processes may do so at the same time.
    """
    check_place(data_dir)
    builder = find_builder(name, data_dir)
    print(f"making {name} in {builder.data_path} (once, seconds, no download)", flush=True)
    discarded = io.StringIO()  # TFDS announces a download of unknown size
    reason = "the folder exists but holds no data set: remove it"
    try:
        with contextlib.redirect_stdout(discarded), contextlib.redirect_stderr(discarded):
            builder.download_and_prepare()
    # TFDS renames a finished folder into place, which only the first of several processes can.
    except OSError as error:
        reason = str(error)
    builder = find_builder(name, data_dir)
    if not builder.info.initialized:
        raise UserError(
            f"cannot make {name} in {builder.data_path}: {reason}, or choose another data_dir"
        )
    return builder


def check_place(data_dir: str) -> None:
    """Raises UserError if TFDS would write to a folder called `~`, which lacks a home folder."""
    if not (data_dir or os.environ.get("TFDS_DATA_DIR")) and os.path.expanduser("~") == "~":
        raise UserError(
            "data sets are kept in your home folder, which is not known: "
            "set HOME or TFDS_DATA_DIR, or give a data_dir"
        )


def is_readable(builder: Any) -> bool:
    """Tells whether a builder's data is on disk as array_record, also beside another format."""
    # Of the proto, since `info.alternative_file_formats` is not read from disk (TFDS 4.9.10).
    info = builder.info.as_proto
    formats = (info.file_format, *info.alternative_file_formats)
    return builder.info.initialized and "array_record" in formats


def prepare_command(name: str, data_dir: str = "") -> str:
    """Returns the command line that prepares `name`."""
    option = f" --data_dir={shlex.quote(data_dir)}" if data_dir else ""
    return f"python -m cnn_papers.prepare {shlex.quote(name)}{option}"


def _check_features(name: str, features: Any) -> None:
    import tensorflow_datasets as tfds

    of_image = by_name(features)
    names = ", ".join(of_image)
    if not isinstance(of_image.get("image"), tfds.features.Image):
        raise UserError(
            f"{name} has no `image` (it has {names or 'no named features'}): choose another"
        )
    if not class_names_of(features):
        raise UserError(
            f"{name} has no single label per image, and no `objects` with `bbox` and `label` "
            f"(it has {names}): choose another"
        )


def class_names_of(features: Any) -> tuple[str, ...]:
    """Returns the classes of a data set's images or, if they have no label, of its objects.

    Returns () if it has neither.
    """
    import tensorflow_datasets as tfds

    label = by_name(features).get("label")
    if not isinstance(label, tfds.features.ClassLabel) and has_boxes(features):
        label = features["objects"]["label"]
    return tuple(label.names) if isinstance(label, tfds.features.ClassLabel) else ()


def _parse_example(record: bytes) -> Any:
    """Returns the features of a serialized tf.train.Example by name.

    TFDS's own parser takes as long as decoding a small PNG.
    """
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    messages: Any = tf_example_pb2  # its classes are made when it is imported
    try:
        return messages.Example.FromString(record).features.feature
    except DecodeError as error:
        raise ValueError(f"it is no tf.train.Example: {error}") from error


def _shards(name: str, split: str, builder: Any) -> list[tuple[str, int]]:
    """Returns the files of a split, with the number of the split's examples in each."""
    if builder.info.file_format.value != "array_record":  # it is the second format on disk
        builder.info.set_file_format("array_record", override=True, override_if_initialized=True)
    splits = builder.info.splits
    listed = ", ".join(f"{key} ({info.num_examples:,})" for key, info in splits.items())
    try:
        shards = [(part.filename, part.take) for part in splits[split].file_instructions]
    except (ValueError, AssertionError):
        raise UserError(
            f"{name} has no split {split!r}: "
            f"it has {listed} and slices of these such as train[:90%]"
        ) from None
    if not shards or any(length <= 0 for _, length in shards):
        raise UserError(f"split {split!r} of {name} is empty: it has {listed}")
    return shards
