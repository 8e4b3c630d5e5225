"""Batches of data with boxes: what is in them, however they are read, and what is refused."""

import logging

import jax
import numpy as np
import pytest
from support.boxed_images import COUNT, HEIGHT, WIDTH, make_objects, make_split

from cnn_papers.boxes import NONE
from cnn_papers.data.pipeline import Pipeline, parse_host
from cnn_papers.data.split import Objects, only, with_classes_of
from cnn_papers.errors import UserError
from cnn_papers.parallel import mesh as meshes


def open_pipeline(split=None, ops="decode", *, devices=1, num_classes=4, **options) -> Pipeline:
    mesh = meshes.make_mesh(devices)
    return Pipeline(
        split or make_split(),
        parse_host(ops, key="data.train_host"),
        num_classes=num_classes,
        sharding=meshes.data_sharding(mesh),
        replicated=meshes.replicated(mesh),
        **options,
    )


def training(split=None, ops="decode", *, batch_size=8, seed=0, steps=range(5), **options):
    batches = open_pipeline(split, ops, **options).train_batches(batch_size, seed=seed, steps=steps)
    return jax.device_get(list(batches))


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
            assert a[name].dtype == b[name].dtype


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("resident", ["always", "never"])
@pytest.mark.parametrize("proposals", [False, True])
def test_a_batch_has_the_objects_of_its_images_and_rows_that_fill_up(resident, proposals):
    split = make_split(labels=True, proposals=proposals)
    batches = training(split, resident=resident)
    assert {int(i) for batch in batches for i in batch["image"][:, 0, 0, 0]} == set(range(COUNT))
    for batch in batches:
        others = {"proposals"} if proposals else set()
        assert batch.keys() == {"image", "label", "boxes", "classes", "difficult", "size", *others}
        assert batch["boxes"].shape == (8, 3, 4) and batch["boxes"].dtype == np.float32
        assert batch["classes"].dtype == batch["size"].dtype == batch["label"].dtype == np.int32
        assert batch["difficult"].dtype == bool
        assert batch["size"].tolist() == [[HEIGHT, WIDTH]] * 8
        for row, i in enumerate(batch["image"][:, 0, 0, 0].tolist()):
            objects, count = make_objects(i), i % 4
            assert batch["label"][row] == i % 3
            np.testing.assert_array_equal(batch["boxes"][row, :count], objects.boxes)
            np.testing.assert_array_equal(batch["classes"][row, :count], objects.classes)
            np.testing.assert_array_equal(batch["difficult"][row, :count], objects.difficult)
            assert not batch["boxes"][row, count:].any()
            assert not batch["difficult"][row, count:].any()
            assert (batch["classes"][row, count:] == NONE).all()
            if proposals:
                assert split.proposals is not None and batch["proposals"].shape == (8, 5, 4)
                np.testing.assert_array_equal(batch["proposals"][row, : i % 6], split.proposals[i])
                assert not batch["proposals"][row, i % 6 :].any()


@pytest.mark.parametrize("ops", ["decode|resize(10, 12)", "decode|random_crop(9)"])
def test_resident_streamed_and_spread_batches_are_the_same(ops):
    split = make_split(proposals=True)
    alone = training(split, ops, resident="never")
    assert_same(training(split, ops, resident="auto"), alone)
    for devices in (2, 8):
        assert_same(training(split, ops, devices=devices), alone)


def test_what_a_crop_leaves_nothing_of_is_no_object_of_the_batch():
    gone = 0
    for batch in training(ops="decode|random_crop(9)", steps=range(9)):
        areas = np.prod(batch["boxes"][..., 2:] - batch["boxes"][..., :2], -1)
        assert batch["boxes"].min() >= 0 and batch["boxes"].max() <= 9
        np.testing.assert_array_equal(areas > 0, batch["classes"] != NONE)
        assert not batch["boxes"][batch["classes"] == NONE].any()
        counts = batch["image"][:, 0, 0, 0] % 4
        is_object = np.arange(3) < counts[:, None]
        gone += (is_object & (batch["classes"] == NONE)).sum()
    assert gone > 10


@pytest.mark.parametrize("boxes", [False, True])
@pytest.mark.parametrize("labels", [False, True])
def test_the_shapes_of_batches_are_told_ahead(labels, boxes):
    split = make_split(labels=labels, proposals=True)
    pipe = open_pipeline(split, "decode|resize_by_epoch(6, 9)", boxes=boxes, devices=2)
    batches = [*pipe.train_batches(24, seed=0, steps=range(2))]
    shapes = pipe.batch_shapes(24)
    (masked,) = open_pipeline(split, boxes=boxes, devices=2).batch_shapes(7, mask=True)
    evaluated = next(open_pipeline(split, boxes=boxes, devices=2).eval_batches(7))
    for batch, shape in zip([*batches, evaluated], [*shapes, masked], strict=True):
        told = {name: (x.shape, x.dtype, x.sharding) for name, x in shape.items()}
        assert told == {name: (x.shape, x.dtype, x.sharding) for name, x in batch.items()}
    assert ("label" in masked) == labels and ("boxes" in masked) == boxes


def test_without_boxes_batches_are_those_of_data_that_has_none():
    split = make_split(labels=True, proposals=True)
    plain = split._replace(objects=None, proposals=None)
    assert_same(training(split, boxes=False), training(plain))


def test_data_without_any_object_has_one_row_that_fills_up():
    nothing = Objects(
        np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool), (HEIGHT, WIDTH)
    )
    split = make_split()._replace(
        objects=[nothing] * COUNT, proposals=[np.zeros((0, 4), np.float32)] * COUNT
    )
    (batch,) = training(split, steps=range(1))
    assert batch["classes"].tolist() == [[NONE]] * 8
    assert not batch["boxes"].any() and batch["proposals"].shape == (8, 1, 4)
    assert open_pipeline(split).class_counts().tolist() == [0, 0, 0, 0]


def test_an_image_that_is_left_out_is_replaced_with_its_objects(caplog):
    split = make_split()
    examples = [*split.examples]
    examples[6] = {"image": b"\xff\xd8\xff no JPEG", "id": "image_6"}
    split = split._replace(examples=examples)
    for batch in training(split, resident="never", steps=range(6), max_skips=1):
        for row, i in enumerate(batch["image"][:, 0, 0, 0].tolist()):
            np.testing.assert_array_equal(batch["boxes"][row, : i % 4], make_objects(i).boxes)
            assert i != 6


# --- objects cut out ------------------------------------------------------------------------------

USABLE = [i for i in range(COUNT) if i % 4 and not make_objects(i).difficult.all()]


def test_the_label_is_the_class_of_the_object_cut_out(caplog):
    with caplog.at_level(logging.WARNING, "cnn_papers"):
        pipe = open_pipeline(ops="decode|largest_object(0.1)|resize(8)", boxes=False)
    assert [record.getMessage() for record in caplog.records] == [
        f"{COUNT - len(USABLE)} of the {COUNT} images of made[train] have no object to cut out: "
        "they are passed over"
    ]
    assert len(pipe) == len(USABLE) < COUNT
    batches = jax.device_get(list(pipe.eval_batches(8)))
    seen = [
        (int(number), int(label))
        for batch in batches
        for number, label, real in zip(
            batch["image"][:, 0, 0, 0], batch["label"], batch["mask"], strict=True
        )
        if real
    ]
    expected = []
    for i in USABLE:
        objects = make_objects(i)
        sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
        areas = np.where(objects.difficult, -1, sides.prod(1))
        expected.append((i, int(objects.classes[areas.argmax()])))
    assert seen == expected
    assert batches[0].keys() == {"image", "label", "mask"}


def test_random_objects_are_of_all_easy_ones_and_depend_on_the_seed():
    ops = "decode|random_object(0.1)|resize(8)"
    seen = set()
    for batch in training(ops=ops, steps=range(40), boxes=False):
        seen |= set(zip(batch["image"][:, 0, 0, 0].tolist(), batch["label"].tolist(), strict=True))
    expected = {
        (i, int(label)) for i in USABLE for label in make_objects(i).classes[make_objects(i).easy()]
    }
    assert seen == expected
    first, again, other = (training(ops=ops, seed=seed, boxes=False) for seed in (0, 0, 1))
    assert_same(first, again)
    assert any((a["label"] != b["label"]).any() for a, b in zip(first, other, strict=True))


def test_objects_are_counted_by_class_but_for_difficult_ones():
    expected = np.zeros(4, int)
    for i in range(COUNT):
        for label in make_objects(i).classes[~make_objects(i).difficult]:
            expected[label] += 1
    for ops in ("decode", "decode|random_object(0.1)|resize(8)"):
        pipe = open_pipeline(ops=ops)
        assert pipe.counts_objects
        assert pipe.class_counts().tolist() == expected.tolist()
    pipe = open_pipeline(make_split(labels=True), boxes=False)
    assert not pipe.counts_objects
    assert pipe.class_counts().tolist() == [8, 8, 7, 0]
    assert open_pipeline(boxes=False).class_counts() is None


def test_some_examples_of_a_split_keep_all_that_is_known_of_them():
    split = make_split(labels=True, proposals=True)._replace(labels=[i % 3 for i in range(COUNT)])
    chosen = only(split, [4, 9, 2])
    assert chosen.labels == [1, 0, 2] and len(chosen.examples) == 3
    assert [example["id"] for example in chosen.examples] == ["image_4", "image_9", "image_2"]
    assert [example["id"] for example in chosen.examples[1:]] == ["image_9", "image_2"]
    assert chosen.objects is not None and chosen.proposals is not None
    for i, objects, proposals in zip([4, 9, 2], chosen.objects, chosen.proposals, strict=True):
        np.testing.assert_array_equal(objects.boxes, make_objects(i).boxes)
        assert len(proposals) == i % 6
    renamed = with_classes_of(chosen, chosen.class_names[::-1])
    assert [example["label"] for example in renamed.examples] == [2, 3, 1]


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.fault("config: an object cut out of data without boxes, or not first", "refused")
@pytest.mark.parametrize(
    ("objects", "ops", "message"),
    [
        (
            None,
            "decode|random_object(0.1)",
            "config.data.train_host: 'random_object' cuts out an object, and made[train] has no "
            "boxes",
        ),
        (
            [make_objects(0)] * COUNT,
            "decode|largest_object(0.1)",
            "config.data.train_host: made[train] has no object that can be cut out",
        ),
        (
            [make_objects(2)] * COUNT,
            "decode|resize(9)|largest_object(0.1)",
            "config.data.train_host: an object is cut out of the whole image: write "
            "'largest_object' once, right after 'decode'",
        ),
        (
            [make_objects(2)] * COUNT,
            "decode|random_object(0.1)|random_object(0.1)",
            "config.data.train_host: an object is cut out of the whole image: write "
            "'random_object' once, right after 'decode'",
        ),
        (
            [make_objects(2)] * COUNT,
            "decode(short=4)|random_object(0.1)",
            "config.data.train_host: boxes are of whole images: write 'decode' without 'short'",
        ),
    ],
)
def test_an_object_that_cannot_be_cut_out_is_refused(objects, ops, message):
    split = make_split()._replace(objects=objects)
    with pytest.raises(UserError) as caught:
        open_pipeline(split, ops)
    assert str(caught.value) == message


@pytest.mark.fault("config: objects of a class that the network has no output for", "refused")
@pytest.mark.parametrize("ops", ["decode", "decode|random_object(0.1)|resize(8)"])
def test_an_object_of_a_class_that_is_out_of_range_is_refused(ops):
    with pytest.raises(UserError) as caught:
        open_pipeline(ops=ops, num_classes=3)
    assert str(caught.value) == (
        "label 3 of an object of image_2 is out of range: the network has 3 classes "
        "(config.model.num_classes)"
    )


@pytest.mark.fault("damage: boxes of an image of another size", "one line that names the image")
def test_boxes_of_an_image_of_another_size_are_refused():
    split = make_split()
    objects = [make_objects(i) for i in range(COUNT)]
    objects[3] = objects[3]._replace(size=(WIDTH, HEIGHT))
    with pytest.raises(UserError) as caught:
        training(split._replace(objects=objects))
    assert str(caught.value) == (
        "image image_3 of made[train] has 20×30 pixels, its boxes are of an image of 30×20"
    )
