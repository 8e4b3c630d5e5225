"""One split of a data set as a random-access sequence of encoded examples, from TFDS or a folder of images."""

import bisect
import contextlib
import difflib
import hashlib
import importlib
import io
import itertools
import os
import pathlib
import re
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from cnn_papers.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
_HELD_OUT = ("val", "validation", "valid", "test")  # what people call the sub-folder that is not trained on
_ID_FEATURES = ("id", "file_name", "image/filename", "filename")
_READ_ERRORS = (RuntimeError, ValueError, LookupError, OSError)  # what array_record and TFDS raise on damaged files


class DamagedExample(UserError):
    """An example that cannot be read, with its place; training may leave some out."""


class Split(NamedTuple):
    """One split, opened for reading: `examples` may be read by many threads at once."""

    name: str  # 'cifar10[train[:45000]]' or 'folder:/x[train]'
    examples: Sequence[dict[str, Any]]  # {'image': JPEG or PNG bytes, 'label': int, 'id': str}
    class_names: tuple[str, ...]  # in the order of the labels
    location: str  # the folder that the bytes are read from


def open_split(name: str, split: str, data_dir: str = "") -> Split:
    """Opens `split` of the data set `name` without TensorFlow; raises UserError for whatever the user can mend.

    `name` is a TFDS name prepared as array_record under `data_dir` ("": TFDS's default folder) whose features have an
    `image` and a `label`; `digits` and `digits/scenes` are made there when first asked for. Or it is `folder:PATH`:
    a folder of images, one sub-folder (of any depth) a class, either below PATH/train, PATH/val or directly in PATH.
    `split` is a name, or a slice in TFDS's notation: `train[:90%]`, `train[90%:]`, `train[:45000]`.
    """
    if name.startswith("folder:"):
        return _open_folder(name.removeprefix("folder:"), split)
    import tensorflow_datasets as tfds  # here and below: half a second, and absent where only synthetic data is used

    builder = find_builder(name, data_dir)
    _check_features(name, builder.info.features)
    if builder.name == "digits" and not builder.info.initialized:
        builder = make_digits(name, data_dir)
    if not is_readable(builder):
        form = builder.info.file_format.value
        state = f"prepared only as {form}, not as array_record," if builder.info.initialized else "not prepared"
        raise UserError(f"{name} is {state} in {builder.data_path}: run {prepare_command(name, data_dir)}")
    shards = _shards(name, split, builder)
    source = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    for path, _ in shards:
        if not os.path.exists(path):
            raise UserError(
                f"{path} is missing: remove {builder.data_path}, then run {prepare_command(name, data_dir)}"
            )
    id_feature = next((feature for feature in _ID_FEATURES if feature in builder.info.features), None)
    full_name = f"{name}[{split}]"
    examples = _TfdsExamples(source, full_name, id_feature, shards)
    return Split(full_name, examples, tuple(builder.info.features["label"].names), str(builder.data_path))


# --- data sets that TFDS knows -------------------------------------------------------------------------------------


class _TfdsExamples(Sequence):
    """The examples of a TFDS data source; an error names the file that cannot be read."""

    def __init__(self, source: Any, name: str, id_feature: str | None, shards: list[tuple[str, int]]):
        self._source, self._name, self._id_feature = source, name, id_feature
        self._files = [path for path, _ in shards]
        self._ends = list(itertools.accumulate(length for _, length in shards))

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: Any) -> Any:
        chosen = range(len(self))[index]  # an int or, of a slice, a range; raises IndexError
        return self._one(chosen) if isinstance(chosen, int) else self.__getitems__(chosen)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The examples at `indices`, which is faster than one by one."""
        try:
            records = self._source.__getitems__(list(indices))
            return [self._example(i, record) for i, record in zip(indices, records, strict=True)]
        except _READ_ERRORS:
            return [self._one(i) for i in indices]  # slower, and says which record it is

    def _one(self, index: int) -> dict[str, Any]:
        try:
            return self._example(index, self._source[index])
        except _READ_ERRORS as error:
            file = self._files[bisect.bisect(self._ends, index)]
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DamagedExample(
                f"cannot read example {index} of {self._name}: {file} is damaged, remove its folder and prepare it"
                f" again ({reason})"
            ) from error

    def _example(self, index: int, record: bytes) -> dict[str, Any]:
        found = _parse_example(record)
        key = found[self._id_feature].bytes_list.value[0].decode() if self._id_feature else f"{self._name}:{index}"
        return {"image": found["image"].bytes_list.value[0], "label": found["label"].int64_list.value[0], "id": key}


def find_builder(name: str, data_dir: str = "") -> Any:
    """The TFDS builder of `name`, whether prepared or not; UserError for a name or configuration that is not there."""
    import tensorflow_datasets as tfds

    importlib.import_module("cnn_papers.data.digits")  # registers `digits` with TFDS
    try:
        return tfds.builder(name, data_dir=os.path.expanduser(data_dir) if data_dir else None)
    except tfds.core.DatasetNotFoundError:
        near = difflib.get_close_matches(name.split("/")[0], tfds.list_builders(with_community_datasets=False))
        hint = f"did you mean {', '.join(near)}?" if near else "see https://www.tensorflow.org/datasets/catalog"
        raise UserError(f"no data set is called {name!r}: {hint} (your own images: folder:PATH)") from None
    except (ValueError, AssertionError, TypeError, ImportError) as error:
        base, *config = re.split(r"[/:]", name)[: 1 + ("/" in name)]
        known = base in tfds.list_builders(with_community_datasets=False)
        configs = list(tfds.builder_cls(base).builder_configs) if known else []
        hint = str(error).splitlines()[0]
        if known and config and config[0] not in configs:
            listed = ", ".join(f"{base}/{each}" for each in configs)
            hint = f"there is {listed}" if listed else f"{base} has no configurations"
        raise UserError(f"no data set is called {name!r}: {hint}") from error


def make_digits(name: str, data_dir: str = "") -> Any:
    """Writes the embedded `digits` or `digits/scenes` and returns its builder; safe when several processes do so."""
    builder = find_builder(name, data_dir)
    print(f"making {name} in {builder.data_path} (once, seconds, no download)", flush=True)
    quiet = io.StringIO()  # TFDS announces a download of unknown size
    reason = "the folder exists but holds no data set: remove it"
    try:
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            builder.download_and_prepare()
    except OSError as error:  # TFDS renames a finished folder into place: only the first of several processes can
        reason = str(error)
    builder = find_builder(name, data_dir)
    if not builder.info.initialized:
        raise UserError(f"cannot make {name} in {builder.data_path}: {reason}, or choose another data_dir")
    return builder


def is_readable(builder: Any) -> bool:
    """Whether a builder's data is on disk as array_record, alone or beside another format."""
    info = builder.info.as_proto  # `info.alternative_file_formats` itself is not restored from disk (TFDS 4.9.10)
    return builder.info.initialized and "array_record" in (info.file_format, *info.alternative_file_formats)


def prepare_command(name: str, data_dir: str = "") -> str:
    """The command line that prepares `name`."""
    option = f" --data_dir={shlex.quote(data_dir)}" if data_dir else ""
    return f"python -m cnn_papers.prepare {shlex.quote(name)}{option}"


def _check_features(name: str, features: Any) -> None:
    import tensorflow_datasets as tfds

    kinds = {key: features[key] for key in features} if isinstance(features, tfds.features.FeaturesDict) else {}
    if not isinstance(kinds.get("image"), tfds.features.Image):
        raise UserError(f"{name} has no `image` (it has {', '.join(kinds) or 'no named features'}): choose another")
    if not isinstance(kinds.get("label"), tfds.features.ClassLabel):
        raise UserError(f"{name} has no single label per image (it has {', '.join(kinds)}): it is for detection")


def _parse_example(record: bytes) -> Any:
    """A serialized tf.train.Example's features by name; TFDS's own parser takes as long as decoding a small PNG."""
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    messages: Any = tf_example_pb2  # its classes are made when it is imported
    try:
        return messages.Example.FromString(record).features.feature
    except DecodeError as error:
        raise ValueError(f"it is no tf.train.Example: {error}") from error


def _shards(name: str, split: str, builder: Any) -> list[tuple[str, int]]:
    """The files of a split with the number of its examples in each."""
    if builder.info.file_format.value != "array_record":  # the first of two formats on disk
        builder.info.set_file_format("array_record", override=True, override_if_initialized=True)
    splits = builder.info.splits
    known = ", ".join(f"{key} ({info.num_examples:,})" for key, info in splits.items())
    try:
        shards = [(part.filename, part.take) for part in splits[split].file_instructions]
    except (ValueError, AssertionError):
        raise UserError(
            f"{name} has no split {split!r}: it has {known} and slices of these such as train[:90%]"
        ) from None
    if not shards or any(length <= 0 for _, length in shards):
        raise UserError(f"split {split!r} of {name} is empty: it has {known}")
    return shards


# --- folders of images ---------------------------------------------------------------------------------------------


class _FolderExamples(Sequence):
    """Image files below one folder; the first part of a file's path is its class."""

    def __init__(self, folder: pathlib.Path, files: list[str], class_names: Sequence[str]):
        self._folder, self._files = folder, files
        self._labels = {name: i for i, name in enumerate(class_names)}

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        file = self._files[index]
        try:
            image = (self._folder / file).read_bytes()
        except OSError as error:
            raise DamagedExample(f"cannot read {self._folder / file}: {error.strerror}") from error
        return {"image": image, "label": self._labels[file.split("/")[0]], "id": file}


def folder_splits(path: str) -> dict[str, pathlib.Path]:
    """The folder of every split of a folder of images: of PATH/train and PATH/val, or {'train': PATH}."""
    root = pathlib.Path(path).expanduser()
    if not path or not root.is_dir():
        raise UserError(f"no folder {path!r}: write folder:PATH with one sub-folder of images for each class")
    found = _subfolders(root)
    splits = [name for name in found if name in ("train", *_HELD_OUT)]
    if splits and (splits == found or ("train" in splits and _subfolders(root / "train"))):
        return {name: root / name for name in splits}
    return {"train": root}


def _open_folder(path: str, split: str) -> Split:
    folders = folder_splits(path)
    parsed = re.fullmatch(r"(\w+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?", split)
    if not parsed:
        raise UserError(f"cannot read the split {split!r}: write for example train, val, train[:90%] or train[:1000]")
    base, start, stop = parsed.groups()
    if base in _HELD_OUT and base not in folders:
        base = next((name for name in _HELD_OUT if name in folders), base)
    if base not in folders:
        slices = "" if len(folders) > 1 else "; take fractions of it, such as train[:90%] and train[90%:]"
        raise UserError(f"{path} has no split {base!r}: it has {', '.join(folders)}{slices}")
    folder = folders[base]
    class_names = _subfolders(folders.get("train", folder))
    if unknown := sorted(set(_subfolders(folder)) - set(class_names)):
        raise UserError(f"{folder} has classes that {folders['train']} lacks: {', '.join(unknown)}")
    files = image_files(folder)
    chosen = files[_bound(start, len(files), 0, split, folder) : _bound(stop, len(files), len(files), split, folder)]
    if not chosen:
        raise UserError(f"split {split!r} of {folder} is empty: the folder has {len(files):,} images")
    full_name = f"folder:{path}[{base}{split[len(parsed[1]) :]}]"
    return Split(full_name, _FolderExamples(folder, chosen, class_names), tuple(class_names), str(folder))


def _subfolders(folder: pathlib.Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def image_files(folder: pathlib.Path) -> list[str]:
    """Paths of all images relative to `folder`, `/` between the parts, in an order that mixes the classes.

    The order is that of the paths' SHA-256: the same on every machine, and a file more or less moves no other pair of
    files. Hidden files and folders are left out, and links to folders below a class folder are not followed.
    """
    names = _subfolders(folder)
    if not names:
        raise UserError(f"{folder} has no class sub-folders: put the images of each class in a folder of its own")
    files = []
    for name in names:
        before = len(files)
        for parent, folders, entries in os.walk(folder / name):
            folders[:] = [entry for entry in folders if not entry.startswith(".")]
            images = [e for e in entries if e.lower().endswith(IMAGE_SUFFIXES) and not e.startswith(".")]
            place = pathlib.Path(parent).relative_to(folder).as_posix()
            files.extend(f"{place}/{image}" for image in images)
        if len(files) == before:
            raise UserError(f"class folder {folder / name} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return sorted(files, key=lambda file: hashlib.sha256(os.fsencode(file)).digest())


def _bound(text: str | None, count: int, default: int, split: str, folder: pathlib.Path) -> int:
    """One end of a slice such as `90%`, `-10%` or `1000` as an index in 0…count."""
    if not text:
        return default
    value = int(text.rstrip("%"))
    if text.endswith("%"):
        value = round(value * count / 100) if abs(value) <= 100 else count + 1
    index = value + count if value < 0 else value
    if not 0 <= index <= count:
        raise UserError(f"split {split!r} reaches beyond the {count:,} images of {folder}")
    return index
