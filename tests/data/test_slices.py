"""Parts of each class of a split, drawn by a seed: exact, disjoint, the same again; bad ones."""

import pytest
from ml_collections import ConfigDict
from support.image_folders import write_images
from support.voc_folders import write_voc

from cnn_papers.data import slices
from cnn_papers.data.sources import open_split
from cnn_papers.errors import UserError
from cnn_papers.runs import splits

COUNTS = {"a": 6, "b": 4, "c": 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder without splits, of three classes of as many images as COUNTS says."""
    return write_images(tmp_path_factory.mktemp("images"), COUNTS)


def ids(split):
    return [example["id"] for example in split.examples]


def counts(split):
    return {
        name: sum(path.startswith(f"{name}/") for path in ids(split)) for name in split.class_names
    }


def test_a_part_has_as_many_images_of_each_class_and_another_the_rest(folder):
    train = open_split(folder, "train[:4/class, seed=1]")
    rest = open_split(folder, "train[4:/class, seed=1]")
    assert counts(train) == {"a": 4, "b": 4, "c": 4}
    assert counts(rest) == {"a": 2, "b": 0, "c": 1}
    assert sorted(ids(train) + ids(rest)) == sorted(ids(open_split(folder, "train")))
    assert train.name == f"{folder}[train[:4/class, seed=1]]"
    assert train.labels == [train.class_names.index(path[0]) for path in ids(train)]
    assert [example["label"] for example in train.examples] == train.labels


def test_a_later_part_ends_where_a_class_does_and_says_so(folder, caplog):
    part = open_split(folder, "train[2:5/class, seed=3]")
    assert counts(part) == {"a": 3, "b": 2, "c": 3}
    assert "train[2:5/class, seed=3]] has fewer images of b, which have no more" in caplog.text


def test_the_same_seed_draws_the_same_images_and_another_seed_others(folder):
    draws = {seed: ids(open_split(folder, f"train[:3/class, seed={seed}]")) for seed in range(5)}
    assert draws[0] == ids(open_split(folder, "train[:3/class]"))
    assert len({tuple(draw) for draw in draws.values()}) > 1
    chosen = {path for draw in draws.values() for path in draw}
    assert len(chosen) > 9  # the draws are not nested either
    order = ids(open_split(folder, "train"))
    assert draws[2] == [path for path in order if path in draws[2]]


def test_a_tfds_split_and_joined_ones_are_parted_by_the_labels_of_their_records(tmp_path):
    joined = open_split("digits", "train+test[:20/class, seed=1]", str(tmp_path))
    rest = open_split("digits", "train+test[20:/class, seed=1]", str(tmp_path))
    labels = [example["label"] for example in joined.examples]
    assert [labels.count(digit) for digit in range(10)] == [20] * 10
    assert len(rest.examples) == 1797 - 200
    assert not {*ids(joined)} & {*ids(rest)}


def test_a_part_without_a_seed_is_drawn_by_that_of_the_run(folder):
    config = ConfigDict({"data": {"name": folder, "data_dir": ""}, "seed": 7})
    for part in ("[:3/class]", "[3:/class]"):
        drawn = splits.open_one(config, f"train{part}")
        assert ids(drawn) == ids(open_split(folder, f"train{part[:-1]}, seed=7]"))
    fixed = splits.open_one_to_test(config, "train[:3/class, seed=2]")
    assert ids(fixed) == ids(open_split(folder, "train[:3/class, seed=2]"))
    assert slices.with_seed("train[:90%]", 7) == "train[:90%]"


@pytest.mark.fault("config: a class with fewer images than asked for", "refused with its number")
def test_a_class_with_too_few_images_is_refused(folder):
    with pytest.raises(UserError, match=r"\[:5/class, seed=0\]': the class b of .* has 4 images"):
        open_split(folder, "train[:5/class]")
    with pytest.raises(UserError, match=r"\[6:/class, seed=0\]' is empty: no class of .* so many"):
        open_split(folder, "train[6:/class]")


@pytest.mark.parametrize("split", ["train[:30%/class]", "train[-3:/class]", "train[:3/classes]"])
def test_other_ways_to_write_it_are_refused(folder, split):
    with pytest.raises(UserError, match=r"cannot read the split .* train\[:30/class\]"):
        open_split(folder, split)


def test_images_of_several_classes_are_not_parted(tmp_path):
    folder = write_voc(tmp_path, {"a": [("cat", (2, 3, 20, 30))]})
    with pytest.raises(UserError, match="may show several classes, and a part of each class is"):
        open_split(folder, "train[:1/class]")
