"""Folders of VOC's layout: splits, objects, and one line for everything that is wrong in them."""

import collections
import pathlib

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict
from support.commands import exit_code
from support.voc_folders import annotation, write_voc

from cnn_papers import prepare
from cnn_papers.data import image_files
from cnn_papers.data.sources import open_split, open_to_test
from cnn_papers.data.split import Split, with_classes_of
from cnn_papers.data.statistics import fingerprint
from cnn_papers.data.voc_folders import image_sets
from cnn_papers.errors import UserError
from cnn_papers.runs import splits
from cnn_papers.weights import trained

CAT, DOG = ("cat", (2, 3, 20, 30)), ("dog", (1, 1, 40, 60))
IMAGES = {"a": [CAT, DOG], "b": [DOG], "c": [], "d": [CAT]}


@pytest.fixture
def pets(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder of four images: a, b and c train, d is of the test; a, b are of no other set."""
    sets = {"train": ["a", "b"], "val": ["c"], "trainval": ["a", "b", "c"], "test": ["d"]}
    write_voc(tmp_path, IMAGES, **sets)
    return tmp_path


def _open(folder: pathlib.Path, split: str = "train", *, max_bad_boxes: int = 0) -> Split:
    return open_split(f"voc_folder:{folder}", split, max_bad_boxes=max_bad_boxes)


def _ids(split: Split) -> list[str]:
    return [example["id"] for example in split.examples[:]]


# --- real data ------------------------------------------------------------------------------------


@pytest.mark.parametrize("split, count", [("train", 109), ("validation", 84), ("test", 80)])
def test_a_voc_folder_and_tfds_give_the_same_boxes(test_data, split, count):
    folder = _open(test_data / "voc/VOCdevkit/VOC2007", split)
    tfds = open_split("voc/2007", split, str(test_data / "tfds"))
    assert folder.class_names == tfds.class_names and len(tfds.class_names) == 20
    assert folder.objects is not None and tfds.objects is not None
    place = {name: index for index, name in enumerate(_ids(folder))}
    assert sorted(place) == sorted(_ids(tfds)) and "label" not in tfds.examples[0]
    for index, name in enumerate(_ids(tfds)):
        assert tfds.examples[index] == folder.examples[place[name]]
        for ours, theirs in zip(folder.objects[place[name]], tfds.objects[index], strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert np.asarray(ours).dtype == np.asarray(theirs).dtype
    assert sum(len(image.classes) for image in folder.objects) == count


def test_a_sample_of_voc_has_its_official_objects(test_data):
    folder = test_data / "voc_sample"
    sizes = {split: len(_open(folder, split).examples) for split in ("train", "val", "test")}
    assert sizes == {"train": 422, "val": 391, "test": 395}
    whole = _open(folder, "trainval+test")
    assert whole.objects is not None and len(whole.examples) == 1208
    assert sum(len(image.classes) for image in whole.objects) == 2907
    assert sum(int(image.difficult.sum()) for image in whole.objects) == 426
    dog, person = whole.objects[_ids(whole).index("000001.jpg")].boxes
    assert dog.tolist() == [239, 47, 371, 195] and person.tolist() == [11, 7, 498, 352]
    assert whole.objects[_ids(whole).index("000001.jpg")].size == (500, 353)


@pytest.mark.fault(
    "damage: boxes without area, or beyond their image",
    "refused by name; `data.max_bad_boxes` leaves out so many",
)
def test_blood_cells_have_two_bad_boxes_that_may_be_left_out(test_data, caplog):
    with pytest.raises(UserError) as error:
        _open(test_data / "bccd", "trainval", max_bad_boxes=1)
    boxes = (
        "object 13 (RBC) of BloodImage_00338.xml has no area "
        "(ymin, xmin, ymax, xmax = 337, 504, 337, 504); "
        "object 4 (RBC) of BloodImage_00343.xml has no area "
        "(ymin, xmin, ymax, xmax = 329, 181, 329, 181)"
    )
    name = f"voc_folder:{test_data}/bccd[trainval]"
    assert str(error.value) == (
        f"{name} has 2 bad boxes: {boxes} "
        "(correct the annotations; config.data.max_bad_boxes=2 leaves out so many)"
    )
    split = _open(test_data / "bccd", "trainval", max_bad_boxes=2)
    assert caplog.messages == [f"{name}: left out 2 bad boxes: {boxes}"]
    assert split.objects is not None and split.class_names == ("Platelets", "RBC", "WBC")
    counts = collections.Counter(label for image in split.objects for label in image.classes)
    assert counts == {0: 292, 1: 3348, 2: 301}


# --- splits and classes ---------------------------------------------------------------------------


def test_pixels_counted_from_one_and_included_become_exclusive_edges(pets):
    split = _open(pets)
    assert split.name == f"voc_folder:{pets}[train]" and split.class_names == ("cat", "dog")
    assert _ids(split) == ["a.jpg", "b.jpg"] and split.location == f"{pets}/JPEGImages"
    assert split.objects is not None
    assert split.objects[0].boxes.tolist() == [[1, 2, 20, 30], [0, 0, 40, 60]]
    assert split.objects[0].classes.tolist() == [0, 1] and split.objects[0].size == (40, 60)
    assert split.examples[1] == {
        "image": (pets / "JPEGImages/b.jpg").read_bytes(),
        "id": "b.jpg",
    }


@pytest.mark.parametrize(
    "split, ids",
    [
        ("trainval", "abc"),
        ("validation+train", "cab"),
        ("trainval[1:]", "bc"),
        ("train[:50%]", "a"),
        ("trainval[-1:]+test", "cd"),
        ("test", "d"),
        ("mini_train.v2", "b"),
    ],
)
def test_splits_are_image_sets_in_their_order_and_slices_of_them(pets, split, ids):
    sets = pets / "ImageSets/Main"
    (sets / "cat_train.txt").write_text("a  1\nb -1\n")  # labels of one class: no split
    (sets / "mini_train.v2.txt").write_text("\ufeffb\r\n\r\n")
    assert [*image_sets(str(pets))] == ["train", "val", "trainval", "test", "mini_train.v2"]
    assert _ids(_open(pets, split)) == [f"{name}.jpg" for name in ids]


def test_an_image_without_objects_is_a_negative(pets):
    split = _open(pets, "trainval")
    assert split.objects is not None and split.objects[2].boxes.shape == (0, 4)
    assert split.objects[2].classes.shape == split.objects[2].difficult.shape == (0,)


def test_a_split_has_the_classes_of_the_training_images(pets):
    assert _open(pets, "test").class_names == ("cat", "dog")  # though it shows no dog
    (pets / "ImageSets/Main/trainval.txt").unlink()
    assert _open(pets, "test").class_names == ("cat", "dog")
    (pets / "ImageSets/Main/train.txt").unlink()
    (pets / "ImageSets/Main/val.txt").unlink()
    split = open_to_test(f"voc_folder:{pets}", "test")
    assert split.class_names == ("cat",)
    mapped = with_classes_of(split, ("owl", "cat"))
    assert mapped.objects is not None and mapped.objects[0].classes.tolist() == [1]


def test_coordinates_may_be_floats_and_difficult_may_be_unspecified(tmp_path):
    name = write_voc(tmp_path, {"a": [("cat", (1.5, 2.25, 20.5, 30))]})
    text = annotation([("cat", (1.5, 2.25, 20.5, 30))], difficult="Unspecified")
    (tmp_path / "Annotations/a.xml").write_text(text)
    split = open_split(name, "train")
    assert split.objects is not None
    assert split.objects[0].boxes.tolist() == [[0.5, 1.25, 20.5, 30]]
    assert not split.objects[0].difficult.any()
    (tmp_path / "Annotations/a.xml").write_text(annotation([CAT], difficult="1"))
    difficult = open_split(name, "train").objects
    assert difficult is not None and difficult[0].difficult.tolist() == [True]


def test_a_class_whose_name_is_broken_over_lines_is_one_class(pets):
    (pets / "Annotations/a.xml").write_text(annotation([("traffic\n   light ", (1, 1, 4, 6))]))
    assert _open(pets).class_names == ("dog", "traffic light")


def test_an_image_is_known_by_its_content_where_the_suffix_is_unusual(pets):
    (pets / "JPEGImages/a.jpg").rename(pets / "JPEGImages/a")
    (pets / "JPEGImages/b.jpg").rename(pets / "JPEGImages/b.JFIF_")
    (pets / "JPEGImages/a.json").write_text("{}")
    assert _ids(_open(pets)) == ["a", "b.JFIF_"]


def test_another_annotation_is_other_data(pets):
    before = fingerprint(_open(pets), "")
    assert before == fingerprint(_open(pets), "")
    (pets / "Annotations/a.xml").write_text(annotation([CAT, ("dog", (1, 1, 40, 59))]))
    assert fingerprint(_open(pets), "") != before
    (pets / "Annotations/a.xml").write_text(annotation([CAT, DOG]))
    assert fingerprint(_open(pets), "") == before


def test_the_classes_of_a_split_are_known_without_its_images(pets):
    for image in (pets / "JPEGImages").iterdir():
        image.unlink()
    data = ConfigDict({"name": f"voc_folder:{pets}", "data_dir": "", "train_split": "train[:1]"})
    assert trained.class_names_of(data) == ("cat", "dog")


def test_a_run_that_is_older_than_bad_boxes_leaves_out_none(pets):
    data = {"name": f"voc_folder:{pets}", "data_dir": ""}
    config = ConfigDict({"data": data, "seed": 0})
    assert len(splits.open_one(config, "train").examples) == 2
    (pets / "Annotations/a.xml").write_text(annotation([CAT, ("dog", (5, 6, 5, 9))]))
    with pytest.raises(UserError, match="has 1 bad box"):
        splits.open_one(config, "train")
    config.data.max_bad_boxes = 1
    objects = splits.open_one(config, "train").objects
    assert objects is not None and [len(image.classes) for image in objects] == [1, 1]
    assert len(splits.open_one_to_test(config, "train").examples) == 2


# --- prepare --------------------------------------------------------------------------------------


def test_a_voc_folder_is_checked_and_nothing_is_written(pets, capsys):
    before = {path: path.read_bytes() for path in pets.rglob("*") if path.is_file()}
    for name in ("trainval", "test"):
        (pets / f"ImageSets/Main/{name}.txt").unlink()
    (pets / "ImageSets/Main/val.txt").write_text("c\nd\n")
    assert exit_code(prepare.cli, f"voc_folder:{pets}") == 0
    name = f"voc_folder:{pets}"
    assert capsys.readouterr().out == (
        f"{name}[train]: 2 images, 3 objects (0 difficult) of 2 classes; 0 images without objects\n"
        "         1  cat\n         2  dog\n"
        f"{name}[val]: 2 images, 1 object (0 difficult) of 2 classes; 1 image without objects\n"
        "         1  cat\n         0  dog\n"
        "0 images cannot be decoded\n"
    )
    assert {*before} >= {path for path in pets.rglob("*") if path.is_file()}
    (pets / "Annotations/a.xml").write_text(annotation([CAT, ("dog", (5, 6, 5, 9))]))
    (pets / "JPEGImages/d.jpg").write_bytes(b"damaged")
    assert exit_code(prepare.cli, name) == 1
    out = capsys.readouterr().out
    assert (
        "bad box: object 2 (dog) of a.xml has no area (ymin, xmin, ymax, xmax = 5, 6, 5, 9)\n"
        "1 bad box: correct the annotations, or leave so many out with "
        "--config.data.max_bad_boxes=1\n"
    ) in out
    assert out.endswith(f"cannot be decoded: {pets}/JPEGImages/d.jpg\n1 image cannot be decoded\n")


def test_a_voc_folder_has_no_smaller_copy(pets, capsys):
    assert exit_code(prepare.cli, f"voc_folder:{pets}", "--short_side=20") == 2
    assert capsys.readouterr().err == (
        "error: --short_side copies data sets of TFDS and folder:PATH, not voc_folder:PATH\n"
    )


# --- sizes of images ------------------------------------------------------------------------------


def _with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """Returns a JPEG with an EXIF segment that gives it an orientation."""
    entry = b"\x01\x12\x00\x03\x00\x00\x00\x01" + orientation.to_bytes(2, "big") + b"\x00\x00"
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01" + entry + b"\x00\x00\x00\x00"
    return jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
def test_a_file_declares_the_size_that_it_decodes_to(tmp_path, suffix):
    image = cv2.imencode(suffix, np.zeros((30, 50, 3), np.uint8))[1].tobytes()
    path = tmp_path / f"a{suffix}"
    for orientation in range(1, 9) if suffix == ".jpg" else (1,):
        path.write_bytes(_with_orientation(image, orientation) if suffix == ".jpg" else image)
        declared = image_files.read_declared_size(str(path))
        assert declared is not None
        assert declared.upright == image_files.read(path.read_bytes()).shape[:2]
        assert declared.orientation == orientation


def test_a_size_behind_a_long_header_is_found_and_damage_declares_none(tmp_path):
    image = cv2.imencode(".jpg", np.zeros((30, 50, 3), np.uint8))[1].tobytes()
    comment = b"\xff\xfe\xff\xff" + b"x" * 65533
    (tmp_path / "a.jpg").write_bytes(image[:2] + comment * 2 + image[2:])
    assert image_files.read_declared_size(str(tmp_path / "a.jpg")) == ((30, 50), 1)
    for content in (b"", b"no image", image[:20]):
        assert image_files.declared_size(content) is None


def test_an_image_that_cannot_be_read_is_left_to_the_reader(pets):
    (pets / "JPEGImages/a.jpg").write_bytes(b"damaged")
    split = _open(pets)
    assert split.objects is not None and split.objects[0].size == (40, 60)


# --- what bad input gets --------------------------------------------------------------------------


@pytest.mark.fault("damage: boxes and sizes that annotations get wrong", "named, before training")
@pytest.mark.parametrize(
    "text, message",
    [
        (
            annotation([("cat", (5, 6, 5, 9))]),
            "has 1 bad box: object 1 (cat) of a.xml has no area "
            "(ymin, xmin, ymax, xmax = 5, 6, 5, 9)",
        ),
        (annotation([DOG, ("cat", (9, 6, 5, 9))]), "object 2 (cat) of a.xml ends before it begins"),
        (
            annotation([("cat", (0, 1, 5, 9))]),
            "a.xml begins before the image, whose first row and column are 1",
        ),
        (annotation([("cat", (1, 1, 41, 60))]), "a.xml ends beyond the image of 60×40 pixels"),
        (
            annotation([CAT]).replace("<ymin>2", "<ymin>x"),
            "a.xml (cat): <ymin> is 'x', not a number",
        ),
        (
            annotation([CAT]).replace("<ymin>2", "<ymin>nan"),
            "a.xml (cat): <ymin> is 'nan', not a number",
        ),
        (
            annotation([DOG, CAT], difficult="2"),
            "object 1 of {}/Annotations/a.xml (dog): <difficult> is '2', neither 0 nor 1",
        ),
        (
            annotation([CAT], height=60, width=40),
            "{}/JPEGImages/a.jpg has 60×40 pixels, and its annotation says 40×60",
        ),
        (annotation([CAT])[:-4], "cannot read the annotation {}/Annotations/a.xml: unclosed token"),
        ("", "cannot read the annotation {}/Annotations/a.xml: no element found"),
        ("<html/>", "a.xml is no annotation: it begins with <html>, not <annotation>"),
        (annotation([("", (1, 1, 4, 6))]), "object 1 of {}/Annotations/a.xml has no <name>"),
        (annotation([CAT]).replace("bndbox", "box"), "a.xml (cat) has no <bndbox>"),
    ],
)
def test_a_wrong_annotation_is_one_line(pets, text, message):
    (pets / "Annotations/a.xml").write_text(text)
    with pytest.raises(UserError) as error:
        _open(pets)
    assert message.format(pets) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.fault("damage: an image turned by EXIF, annotated unturned", "named, with both sizes")
def test_an_image_that_is_annotated_unturned_is_refused(pets):
    path = pets / "JPEGImages/a.jpg"
    path.write_bytes(_with_orientation(path.read_bytes(), 6))
    with pytest.raises(UserError) as error:
        _open(pets)
    assert str(error.value) == (
        f"{path} is turned to 40×60 pixels by its EXIF orientation, and its annotation describes "
        "it unturned, as 60×40: remove the orientation from the image, or annotate it upright"
    )
    upright = annotation([("dog", (1, 1, 60, 40))], height=60, width=40)
    (pets / "Annotations/a.xml").write_text(upright)
    objects = _open(pets).objects
    assert objects is not None and objects[0].size == (60, 40)


@pytest.mark.fault(
    "damage: an image turned or mirrored by EXIF, where no size tells how it is annotated",
    "a warning that names it: its boxes are of the upright image",
)
@pytest.mark.parametrize("orientation, shape", [(2, (40, 60)), (3, (40, 60)), (6, (40, 40))])
def test_boxes_of_an_image_that_may_be_annotated_unturned_are_said_to_be_upright(
    pets, caplog, orientation, shape
):
    image = cv2.imencode(".jpg", np.zeros((*shape, 3), np.uint8))[1].tobytes()
    (pets / "JPEGImages/a.jpg").write_bytes(_with_orientation(image, orientation))
    height, width = shape
    text = annotation([("cat", (1, 2, 20, 30)), ("dog", (1, 1, 9, 9))], height=height, width=width)
    (pets / "Annotations/a.xml").write_text(text)
    objects = _open(pets).objects
    assert objects is not None and objects[0].boxes[0].tolist() == [0, 1, 20, 30]
    assert caplog.messages == [
        f"{pets}: EXIF turns or mirrors a.jpg; their boxes are taken for those of the upright "
        "images, since the sizes in their annotations do not tell"
    ]


def test_a_size_that_tells_needs_no_warning_and_none_tells_nothing(pets, caplog):
    path = pets / "JPEGImages/a.jpg"
    path.write_bytes(_with_orientation(path.read_bytes(), 6))
    upright = annotation([("dog", (1, 1, 60, 40)), CAT], height=60, width=40)
    (pets / "Annotations/a.xml").write_text(upright)
    assert _open(pets).class_names == ("cat", "dog") and not caplog.messages
    size = upright[upright.index("<size>") : upright.index("</size>") + len("</size>")]
    (pets / "Annotations/a.xml").write_text(upright.replace(size, ""))
    assert _open(pets).class_names == ("cat", "dog") and "a.jpg" in caplog.text


@pytest.mark.parametrize(
    "removed, message",
    [
        (["JPEGImages/a.jpg"], r"/Annotations/a\.xml has no image a in .*/JPEGImages$"),
        (
            ["Annotations/a.xml"],
            r"/JPEGImages/a\.jpg has no annotation: write .*/a\.xml, without objects if the image",
        ),
        (
            ["Annotations/a.xml", "JPEGImages/a.jpg"],
            r"/Main/train.txt names 'a', which has neither an image nor an annotation$",
        ),
    ],
)
def test_an_image_without_its_annotation_and_the_reverse_are_named(pets, removed, message):
    for file in removed:
        (pets / file).unlink()
    with pytest.raises(UserError, match=message):
        _open(pets)


@pytest.mark.parametrize("line", ["a.jpg", "JPEGImages/a.jpg", "a  1"])
def test_a_line_with_more_than_the_name_of_an_image_is_told_the_name(pets, line):
    (pets / "ImageSets/Main/val.txt").write_text(f"{line}\n")
    with pytest.raises(UserError, match=rf"/val.txt names '{line}', which .*: write 'a'$"):
        _open(pets, "val")


def test_a_file_in_place_of_an_image_is_named(pets):
    (pets / "JPEGImages/a.jpg").unlink()
    (pets / "JPEGImages/a.tif").write_bytes(b"II*\x00 of another kind")
    with pytest.raises(UserError) as error:
        _open(pets)
    assert str(error.value) == (
        f"{pets}/Annotations/a.xml has no image a in {pets}/JPEGImages: "
        "a.tif is no JPEG, PNG, BMP or WebP"
    )


def test_an_image_set_in_another_encoding_is_named(pets):
    (pets / "ImageSets/Main/val.txt").write_text("c\n", "utf-16")
    with pytest.raises(UserError) as error:
        _open(pets)
    assert str(error.value) == (
        f"the image set {pets}/ImageSets/Main/val.txt is no text in UTF-8: save it as such"
    )


def test_a_class_that_training_lacks_is_refused_with_the_nearest_name(pets):
    (pets / "Annotations/d.xml").write_text(annotation([DOG, ("catt", (1, 1, 4, 6))]))
    with pytest.raises(UserError) as error:
        _open(pets, "test")
    assert str(error.value) == (
        f"{pets}/Annotations: object 2 (catt) of d.xml is of a class that the training images "
        "lack; did you mean 'cat'?"
    )


def test_data_without_any_object_is_refused(pets):
    with pytest.raises(UserError, match=r"no image of .*\[val\] has an object in its annotation$"):
        _open(pets, "val")
    for name in "ab":
        (pets / f"Annotations/{name}.xml").write_text(annotation([]))
    with pytest.raises(
        UserError, match=r"\(cat\) of d.xml is of a class .*; they have no objects$"
    ):
        _open(pets, "test")


@pytest.mark.parametrize(
    "split, message",
    [
        ("minival", r"has no split 'minival': it has train, val, trainval, test$"),
        ("train[", r"cannot read the split 'train\['"),
        ("train[:0]", r"split 'train\[:0\]' of .*/ImageSets/Main/train.txt is empty: there are 2"),
        ("train[:3]", r"reaches beyond the 2 images of .*/train.txt$"),
    ],
)
def test_a_wrong_split_is_one_line(pets, split, message):
    with pytest.raises(UserError, match=message):
        _open(pets, split)


def test_a_folder_of_another_layout_is_told_the_layout(pets, tmp_path_factory):
    outer = tmp_path_factory.mktemp("outer")
    inner = f"{outer}/VOCdevkit/VOC2007"
    assert write_voc(pathlib.Path(inner), {"a": [CAT]}) == f"voc_folder:{inner}"
    for path in (outer, outer / "VOCdevkit"):
        with pytest.raises(UserError, match=rf"^{path} holds .*VOC2007: write voc_folder:{inner}$"):
            _open(path)
    for path in (f"{inner}/Annotations", f"{inner}/ImageSets/Main"):
        with pytest.raises(
            UserError, match=rf"^{path} is a part of {inner}: write voc_folder:{inner}$"
        ):
            _open(pathlib.Path(path))
    with pytest.raises(UserError, match=r"^no folder '/no/such': write voc_folder:PATH with JPEG"):
        open_split("voc_folder:/no/such", "train")
    (pets / "ImageSets/Main/train.txt").write_text("a\nb\na\n")
    with pytest.raises(UserError, match=r"train.txt names a twice$"):
        _open(pets)
    for file in (pets / "ImageSets/Main").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"Main has no image sets: write the names of the training"):
        _open(pets)
    (pets / "ImageSets/Main").rmdir()
    with pytest.raises(
        UserError, match=r"has no ImageSets/Main: VOC's layout is .*ImageSets/Main$"
    ):
        _open(pets)
    with pytest.raises(UserError) as error:
        open_split(f"folder:{pets}", "train")
    assert str(error.value) == f"{pets} is a folder in VOC's format: write voc_folder:{pets}"


def test_a_folder_of_classes_is_named(tmp_path):
    (tmp_path / "cats").mkdir()
    with pytest.raises(UserError) as error:
        _open(tmp_path)
    assert str(error.value) == (
        f"{tmp_path} has no JPEGImages: VOC's layout is JPEGImages, Annotations, ImageSets/Main; "
        f"images in folders of classes are folder:{tmp_path}"
    )


@pytest.mark.parametrize("part", ["JPEGImages", "Annotations", "ImageSets/Main"])
def test_a_folder_whose_name_has_another_case_is_named(pets, part):
    renamed = pathlib.PurePath(part).with_name(pathlib.PurePath(part).name.lower())
    (pets / part).rename(pets / renamed)
    with pytest.raises(UserError) as error:
        _open(pets)
    assert str(error.value) == f"{pets} has {renamed} in place of {part}: rename it"


def test_two_files_of_one_name_are_refused(pets):
    (pets / "JPEGImages/a.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"/JPEGImages has a\.jpg and a\.png: remove all but one$"):
        _open(pets)
