"""Splits with the labels of a head: classes are known by their names."""

from collections.abc import Sequence

import pytest
from support.image_folders import write_images

from cnn_papers.data.sources import open_split, open_to_test
from cnn_papers.data.split import Split, with_classes_of
from cnn_papers.errors import UserError


class Readable(list):
    """Examples that can be read several at once."""

    def __getitems__(self, indices: Sequence[int]) -> list:
        return [self[i] for i in indices]


def made(names: Sequence[str], labels: Sequence[int], kind: type = list) -> Split:
    examples = kind({"image": b"", "label": label, "id": str(i)} for i, label in enumerate(labels))
    return Split("made[test]", examples, tuple(names), "", tuple(labels))


@pytest.mark.parametrize("kind", [list, Readable])
@pytest.mark.parametrize(
    ("own", "head", "expected"),
    [
        (("dog", "owl"), ("cat", "dog", "owl"), [1, 2, 1]),
        (("cat", "dog"), ("cat", "dog", "owl"), [0, 1, 0]),  # the head's other names come with it
        (("owl", "dog"), ("dog", "owl"), [1, 0, 1]),
        (("dog", "owl"), ("owl", "output 1", "dog"), [2, 0, 2]),
    ],
)
def test_labels_are_mapped_by_name(own, head, expected, kind):
    split = with_classes_of(made(own, [0, 1, 0], kind), head)
    assert split.class_names == head and split.labels == expected
    assert [example["label"] for example in split.examples] == expected
    assert [example["label"] for example in split.examples.__getitems__([2, 1])] == [
        expected[2],
        expected[1],
    ]
    assert [example["label"] for example in split.examples[:2]] == expected[:2]
    assert [example["id"] for example in split.examples] == ["0", "1", "2"]


@pytest.mark.parametrize("head", [("cat", "dog"), ()])
def test_a_split_of_the_same_classes_in_their_order_stays_itself(head):
    split = made(("cat", "dog"), [1, 0])
    assert with_classes_of(split, head) is split


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_without_a_class_stays_without_one(label):
    split = with_classes_of(
        made(("dog", "cat"), [label])._replace(labels=None), ("cat", "dog", "owl")
    )
    assert split.labels is None and split.examples[0]["label"] == -1


@pytest.mark.fault(
    "config: tested on a class that the run does not know", "refused with the name of the class"
)
@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            ("cat", "dgo"),
            "know: dgo; did you mean 'dog'? it knows cat, dog, owl",
        ),
        (
            ("ant", "bee", "elk", "fly", "gnu"),
            "know: ant, bee, elk and 2 more; it knows cat, dog, owl",
        ),
    ],
)
def test_a_class_that_the_head_does_not_know_is_refused_by_name(own, message):
    with pytest.raises(UserError) as refused:
        with_classes_of(made(own, [0]), ("cat", "dog", "owl"))
    assert str(refused.value) == f"made[test] has classes that the network does not {message}"


def test_a_folder_knows_its_labels_without_reading(tmp_path):
    name = write_images(tmp_path, {"train/cat": 3, "train/dog": 2, "val/dog": 1})
    for wanted in ("train", "train[:3]", "val"):
        split = open_split(name, wanted)
        assert split.labels == [example["label"] for example in split.examples]
    assert open_split(name, "val").labels == [1]


def test_a_folder_without_splits_is_tested_whole_and_never_trained_on_beside_it(tmp_path):
    name = write_images(tmp_path, {"dog": 3, "owl": 2})
    split = open_to_test(name, "test")
    assert (split.name, len(split.examples), split.class_names) == (name, 5, ("dog", "owl"))
    assert open_to_test(name, "train[:2]").name == f"{name}[train[:2]]"
    with pytest.raises(UserError, match="has no split 'test'"):
        open_split(name, "test")
    nested = write_images(tmp_path / "split", {"train/dog": 1, "test/dog": 2})
    assert open_to_test(nested, "test").name == f"{nested}[test]"
