"""Several labels of an image: those of its objects, in batches, and files that contradict them."""

import pathlib

import numpy as np
import pytest
from support.voc_folders import annotation, write_voc

from cnn_papers.data.objects import labels_of_images
from cnn_papers.data.pipeline import Pipeline, parse_host
from cnn_papers.data.sources import open_split
from cnn_papers.data.split import Split, only, with_classes_of
from cnn_papers.errors import UserError
from cnn_papers.parallel import mesh as meshes

CAT, DOG, OWL = ("cat", (2, 3, 20, 30)), ("dog", (1, 1, 40, 60)), ("owl", (5, 5, 9, 9))
IMAGES = {"a": [CAT, DOG, DOG], "b": [DOG], "c": [], "d": [OWL], "e": [CAT, OWL]}
LABELS = {"a": [1, 1, -1], "b": [-1, 0, -1], "c": [-1, -1, -1], "d": [-1, -1, 1], "e": [1, -1, 1]}


@pytest.fixture
def pets(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder of five images; the dog of b is difficult."""
    write_voc(tmp_path, IMAGES)
    (tmp_path / "Annotations/b.xml").write_text(annotation([DOG], difficult="1"))
    return tmp_path


def opened(folder: pathlib.Path, split: str = "train") -> Split:
    return open_split(f"voc_folder:{folder}", split)


def pipeline(split: Split, ops: str = "decode", num_classes: int = 3, **options) -> Pipeline:
    mesh = meshes.make_mesh(1)
    return Pipeline(
        split,
        parse_host(ops, key="data.train_host"),
        num_classes=num_classes,
        boxes=False,
        many_labels=True,
        sharding=meshes.data_sharding(mesh),
        replicated=meshes.replicated(mesh),
        **options,
    )


def test_labels_are_those_of_the_objects(pets):
    """One object that is not difficult makes an image positive, whatever the others are."""
    text = annotation([DOG, DOG]).replace("<difficult>0", "<difficult>1", 1)
    (pets / "Annotations/d.xml").write_text(text)
    split = opened(pets)
    labels = labels_of_images(split.objects, len(split.class_names))
    assert split.class_names == ("cat", "dog", "owl") and labels.dtype == np.int8
    assert labels.tolist() == [*(LABELS | {"d": [-1, 1, -1]}).values()]


@pytest.mark.parametrize("resident", ["always", "never"])
def test_a_batch_has_the_labels_of_its_images(pets, resident):
    pipe = pipeline(opened(pets), resident=resident)
    (batch,) = pipe.eval_batches(5)
    assert batch.keys() == {"image", "labels", "mask"} and batch["labels"].dtype == np.int8
    assert batch["labels"].tolist() == [*LABELS.values()]
    assert pipe.class_counts().tolist() == [2, 1, 2] and not pipe.counts_labels
    (shapes,) = pipe.batch_shapes(5)
    assert (shapes["labels"].shape, shapes["labels"].dtype) == ((5, 3), np.int8)


def test_an_output_without_a_class_has_no_label(pets):
    (batch,) = pipeline(opened(pets), num_classes=5).eval_batches(5)
    assert batch["labels"][:, 3:].tolist() == [[0, 0]] * 5
    split = only(opened(pets), [0, 1])
    split = with_classes_of(split, ("bird", "owl", "dog", "cat"))
    (batch,) = pipeline(split, num_classes=5).eval_batches(2)
    assert batch["labels"].tolist() == [[-1, -1, 1, 1, 0], [-1, -1, 0, -1, 0]]


def test_an_image_with_a_label_of_its_own_has_one_class(pets):
    split = opened(pets)
    examples = [{**split.examples[i], "label": i % 3} for i in range(5)]
    plain = split._replace(examples=examples, objects=None, labels=[0, 1, 2, 0, 1])
    pipe = pipeline(plain, num_classes=4)
    (batch,) = pipe.eval_batches(5)
    expected = [[1 if c == i % 3 else -1 for c in range(3)] + [0] for i in range(5)]
    assert batch["labels"].tolist() == expected
    assert pipe.class_counts().tolist() == [2, 2, 1, 0] and pipe.counts_labels


# --- sets of one class ----------------------------------------------------------------------------


def write_set(folder: pathlib.Path, name: str, **labels: str) -> pathlib.Path:
    path = folder / "ImageSets/Main" / f"{name}.txt"
    path.write_text("".join(f"{image} {label:>2}\n" for image, label in labels.items()))
    return path


@pytest.mark.parametrize("test_set", ["train", "val", "trainval", "test"])
def test_the_sets_of_real_data_agree(test_data, test_set):
    split = open_split(f"voc_folder:{test_data}/voc_sample", test_set)
    labels = labels_of_images(split.objects, 20)
    places = {example["id"].partition(".")[0]: i for i, example in enumerate(split.examples[:])}
    for label, name in enumerate(split.class_names):
        path = test_data / "voc_sample/ImageSets/Main" / f"{name}_{test_set}.txt"
        lines = [line.split() for line in path.read_text().splitlines()]
        assert len(lines) == len(labels)
        for image, value in lines:
            assert labels[places[image], label] == int(value)


def test_sets_that_agree_are_no_image_sets(pets):
    write_set(pets, "dog_train", a="1", b="0", c="-1", d="-1", e="-1")
    write_set(pets, "zebra_train", a="-1", other="1")
    assert len(opened(pets).examples) == 5


@pytest.mark.fault(
    "damage: a file CLASS_SET.txt of VOC's layout that contradicts an annotation",
    "refused; file, image and class are named",
)
@pytest.mark.parametrize(
    ("image", "label", "words"),
    [
        ("a", "-1", "has an object of the class dog that is not difficult: write 1 there"),
        ("a", "0", "has an object of the class dog that is not difficult: write 1 there"),
        ("b", "1", "has only difficult objects of the class dog: write 0 there"),
        ("c", "1", "has no dog: write -1 there"),
    ],
)
def test_a_set_that_contradicts_the_boxes_is_refused(pets, image, label, words):
    path = write_set(pets, "dog_train", d="-1", **{image: label})
    with pytest.raises(UserError) as error:
        opened(pets)
    assert str(error.value) == (
        f"{path} has the label '{label}' for image {image}, whose annotation {words}, correct the "
        "annotation, or remove the file"
    )
