"""Proposals: the same boxes at every call, kept beside the data, or read from a file of boxes."""

import concurrent.futures
import importlib.metadata
import logging
import pathlib
import types

import cv2
import numpy as np
import pytest
from support import faults
from support.commands import exit_code
from support.image_folders import write_images

from cnn_papers import prepare
from cnn_papers.boxes import iou
from cnn_papers.data import box_file, proposals, proposers, statistics
from cnn_papers.data.proposers import selective_search
from cnn_papers.data.sources import open_split
from cnn_papers.data.split import DamagedExample, Objects, Split
from cnn_papers.errors import UserError
from cnn_papers.runs import run, splits, workdir
from cnn_papers.weights import trained
from configs import resnet


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> pathlib.Path:
    """The user's cache folder, for this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cnn_papers"


def drawing(seed: int = 0) -> np.ndarray:
    """An image of 60×80 pixels with a red and a blue rectangle on a noisy grey ground."""
    noise = np.random.default_rng(seed).integers(0, 8, (60, 80, 3))
    image = np.full((60, 80, 3), 120) + noise
    image[10:30, 20:50] = (220, 30, 30)
    image[35:55, 5:25] = (30, 30, 220)
    return image.astype(np.uint8)


def encoded(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def make_split(folder: pathlib.Path, images: list[bytes], objects: list | None = None) -> Split:
    examples = [{"image": image, "id": f"image{i}"} for i, image in enumerate(images)]
    return Split("made[train]", examples, ("one", "two"), str(folder), objects=objects)


def objects(*boxes, difficult=(), size=(60, 80)) -> Objects:
    marks = np.zeros(len(boxes), bool)
    marks[list(difficult)] = True
    classes = np.zeros(len(boxes), np.int32)
    return Objects(np.array(boxes, np.float32).reshape(-1, 4), classes, marks, size)


def kept(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.rglob("proposals-*.npz"))


class Counted:
    """Stands in for selective search, and counts its calls; one box of the image's first pixel."""

    def __init__(self, monkeypatch, fail_at: int | None = None):
        self.calls, self.fail_at = 0, fail_at
        monkeypatch.setattr(proposers, "_new_search", self.search)

    def search(self):
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        shape: list[tuple[int, ...]] = []
        return types.SimpleNamespace(
            setBaseImage=lambda image: shape.append(image.shape),
            switchToSelectiveSearchFast=lambda: None,
            process=lambda: np.array([[0, 0, shape[0][1], shape[0][0]], [0, 0, 1, 1]], np.int32),
        )


# --- selective search -----------------------------------------------------------------------------


def test_objects_are_among_the_boxes_in_our_convention():
    boxes = selective_search(drawing())
    assert boxes.dtype == np.float32 and boxes.shape[1] == 4
    for box in ([10, 20, 30, 50], [35, 5, 55, 25]):
        assert iou(np.array(box, np.float32), boxes).max() > 0.8
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= [60, 80]).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()


def test_boxes_differ_and_are_ordered_by_their_edges():
    boxes = selective_search(drawing())
    rows = [tuple(box) for box in boxes.tolist()]
    assert rows == sorted(set(rows)) and len(rows) > 2


def test_boxes_are_equal_at_every_call_and_in_every_thread():
    images = [drawing(seed) for seed in range(4)]
    first = [selective_search(image) for image in images]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for again in pool.map(selective_search, images * 6):
            assert any(np.array_equal(again, boxes) for boxes in first)
        repeated = list(pool.map(selective_search, images))
    assert all(np.array_equal(a, b) for a, b in zip(first, repeated, strict=True))


def test_boxes_of_photographs_are_equal_at_every_call(test_data):
    files = sorted((test_data / "voc_sample" / "JPEGImages").glob("*.jpg"))[:4]
    images = [cv2.imread(str(file))[..., ::-1] for file in files]
    first, again = ([selective_search(image, size=160) for image in images] for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert min(map(len, first)) > 50


def test_a_grey_image_has_the_boxes_of_its_copy_in_three_channels():
    grey = drawing()[..., :1]
    np.testing.assert_array_equal(
        selective_search(grey), selective_search(np.repeat(grey, 3, axis=2))
    )


@pytest.mark.parametrize("size", [80, 160])
def test_a_scaled_image_has_boxes_in_its_own_pixels(size):
    """The large image has every pixel of the small one twice, and is scaled to it exactly."""
    small = drawing()
    large = small.repeat(2, axis=0).repeat(2, axis=1)
    if size == 80:
        np.testing.assert_array_equal(selective_search(large, size=80), 2 * selective_search(small))
    else:
        up = cv2.resize(small, (160, 120), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(
            selective_search(small, size=160), np.unique(selective_search(up) / 2, axis=0)
        )


def test_the_edges_of_a_scaled_image_are_exactly_its_own():
    image = np.random.default_rng(0).integers(0, 255, (61, 97, 3), np.uint8)
    boxes = selective_search(image, size=33)
    assert boxes[:, :2].min() == 0 and boxes[:, 2].max() == 61 and boxes[:, 3].max() == 97


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 50, 3), (40, 1, 1), (30, 40, 3)])
@pytest.mark.parametrize("size", [0, 20])
def test_an_image_of_one_colour_is_one_box(shape, size):
    boxes = selective_search(np.full(shape, 90, np.uint8), size=size)
    assert boxes.tolist() == [[0, 0, *shape[:2]]]


def test_a_limit_draws_by_a_seed_and_keeps_the_order():
    image = np.random.default_rng(1).integers(0, 255, (80, 80, 3), np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 3)
    whole = selective_search(image).tolist()
    drawn = selective_search(image, max_proposals=5).tolist()
    assert len(whole) > 10 and len(drawn) == 5
    assert drawn == [box for box in whole if box in drawn]
    assert drawn == selective_search(image, max_proposals=5).tolist()
    assert drawn != selective_search(image, max_proposals=5, seed=1).tolist()
    assert selective_search(image, max_proposals=len(whole)).tolist() == whole


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("selective_search(size=-1)", "selective_search: size=-1 must be zero or more"),
        ("selective_search(max_proposals=-2)", "max_proposals=-2 must be zero or more"),
        ("selective_search(size=20000)", "size=20000 must be at most 10,000"),
        ("selective_search(sise=3)", r"'selective_search\(sise=3\)' does not fit"),
        ("selective_serch()", "no 'selective_serch' .did you mean 'selective_search'"),
        ("boxes.mat", "must name one proposer, .* or a file of boxes, which ends in .npz"),
        ("selective_search()|selective_search()", "must name one proposer"),
        ("/nowhere/boxes.npz", "config.data.proposals=/nowhere/boxes.npz: there is no such file"),
    ],
)
def test_what_proposes_nothing_is_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        proposals.of_split(make_split(tmp_path, [encoded(drawing())]), text)
    assert not kept(tmp_path)


@pytest.mark.fault(
    "beside: OpenCV without selective search", "one line: what to uninstall and install"
)
@pytest.mark.parametrize(
    ("wheels", "advice"),
    [
        (
            ("opencv-python-headless", "opencv-contrib-python-headless"),
            "pip uninstall -y opencv-python-headless opencv-contrib-python-headless && pip install "
            "opencv-contrib-python-headless",
        ),
        (
            ("opencv-python",),
            "pip uninstall -y opencv-python && pip install opencv-contrib-python-headless",
        ),
        ((), "installed over it: pip install opencv-contrib-python-headless"),
    ],
)
@pytest.mark.parametrize("left", ["an empty module", "nothing"])
def test_opencv_without_selective_search_is_one_line(monkeypatch, tmp_path, wheels, advice, left):
    def version(name):
        if name not in wheels:
            raise importlib.metadata.PackageNotFoundError(name)
        return "5.0"

    monkeypatch.setattr(proposers.importlib.metadata, "version", version)
    if left == "nothing":
        monkeypatch.delattr(cv2, "ximgproc")
    else:
        monkeypatch.setattr(cv2, "ximgproc", types.ModuleType("cv2.ximgproc"))
    with pytest.raises(UserError) as caught:
        proposals.of_split(make_split(tmp_path, [encoded(drawing())] * 3), "selective_search()")
    assert str(caught.value).startswith(f"OpenCV {cv2.__version__} has no selective search here")
    assert str(caught.value).endswith(advice) and not kept(tmp_path)


# --- kept on disk ---------------------------------------------------------------------------------


def test_proposals_are_those_of_each_image_and_are_made_once(tmp_path, monkeypatch):
    images = [drawing(seed) for seed in range(3)]
    split = make_split(tmp_path / "data", [encoded(image) for image in images])
    made = proposals.of_split(split, "selective_search(size=40)")
    for boxes, image in zip(made, images, strict=True):
        np.testing.assert_array_equal(boxes, selective_search(image, size=40))
    counted = Counted(monkeypatch)
    again = proposals.of_split(split, "selective_search( size = 40, max_proposals=0 )")
    assert counted.calls == 0 and len(kept(tmp_path / "data" / ".statistics")) == 1
    for boxes, first in zip(again, made, strict=True):
        assert boxes.dtype == np.float32
        np.testing.assert_array_equal(boxes, first)


def test_other_images_or_arguments_are_proposed_again(tmp_path, monkeypatch):
    counted = Counted(monkeypatch)
    images = [encoded(drawing(seed)) for seed in range(40)]
    proposals.of_split(make_split(tmp_path, images), "selective_search")
    assert counted.calls == 40
    changed = [*images[:17], encoded(drawing(99)), *images[18:]]
    for count, chosen, text in [
        (40, images, "selective_search()"),
        (80, changed, "selective_search()"),  # one image of many
        (119, images[1:], "selective_search()"),
        (159, images, "selective_search(size=9)"),
        (199, images, "selective_search(max_proposals=1)"),
        (199, changed, "selective_search()"),
    ]:
        assert len(proposals.of_split(make_split(tmp_path, chosen), text)) == len(chosen)
        assert counted.calls == count
    monkeypatch.setattr(cv2, "__version__", "1.2.3")  # another one may segment differently
    proposals.of_split(make_split(tmp_path, changed), "selective_search()")
    assert counted.calls == 239


@pytest.mark.fault("damage: the file of a data set's proposals", "made again")
@pytest.mark.parametrize("damage", ["a flipped bit", "cut off", "emptied", "of other images"])
def test_a_damaged_file_is_made_again(tmp_path, monkeypatch, damage, caplog):
    counted = Counted(monkeypatch)
    split = make_split(tmp_path, [encoded(drawing(seed)) for seed in range(3)])
    first = proposals.of_split(split, "selective_search()")
    (file,) = kept(tmp_path)
    if damage == "of other images":
        np.savez(file, boxes=np.zeros((5, 4), np.float32), counts=np.ones(5, np.int32))
    elif damage == "a flipped bit":
        faults.flip(file, file.read_bytes().index(np.stack(first).tobytes()))
    else:
        faults.DAMAGE[damage](file)
    again = proposals.of_split(split, "selective_search()")
    assert counted.calls == 6 and f"{file} cannot be read" in caplog.text
    np.testing.assert_array_equal(np.stack(again), np.stack(first))
    proposals.of_split(split, "selective_search()")
    assert counted.calls == 6


@pytest.mark.fault("kill: while proposals are made", "goes on from the last save")
def test_a_pass_that_is_interrupted_goes_on(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(proposals, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(proposals.os, "cpu_count", lambda: 1)
    split = make_split(tmp_path, [encoded(drawing(seed)) for seed in range(10)])
    Counted(monkeypatch, fail_at=8)
    with pytest.raises(KeyboardInterrupt):
        proposals.of_split(split, "selective_search()")
    counted = Counted(monkeypatch)
    found = proposals.of_split(split, "selective_search()")
    assert counted.calls == 3 and len(found) == 10
    assert "(10 images) by selective_search(), from image 8 on" in caplog.text


def test_where_nothing_can_be_written_they_are_still_there(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    for name in ("data", "cache"):
        (tmp_path / name).write_text("a file")
    counted = Counted(monkeypatch)
    split = make_split(tmp_path / "data", [encoded(drawing())])
    for times in (1, 2):
        (boxes,) = proposals.of_split(split, "selective_search()")
        assert boxes.tolist() == [[0, 0, 1, 1], [0, 0, 60, 80]] and counted.calls == times
    assert "kept nowhere" in caplog.text


def test_a_data_folder_that_is_read_only_has_them_in_the_users_cache(tmp_path, monkeypatch, cache):
    counted = Counted(monkeypatch)
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o555)
    split = make_split(tmp_path / "data", [encoded(drawing())])
    for _ in range(2):
        proposals.of_split(split, "selective_search()")
    assert counted.calls == 1 and len(kept(cache)) == 1


class OneDamaged(list):
    def __getitem__(self, index):
        if index == 1:
            raise DamagedExample("record 1 is damaged")
        return super().__getitem__(index)


def test_images_that_cannot_be_decoded_have_none(tmp_path, caplog):
    split = make_split(tmp_path, [encoded(drawing()), b"", b"no image", encoded(drawing())])
    found = proposals.of_split(
        split._replace(examples=OneDamaged(split.examples)), "selective_search()"
    )
    assert [len(boxes) > 0 for boxes in found] == [True, False, False, True]
    assert found[1].shape == (0, 4) and found[1].dtype == np.float32
    assert "cannot be decoded have no proposals: example 1, image2" in caplog.text


# --- a file of boxes ------------------------------------------------------------------------------


def write_boxes(file: pathlib.Path, **boxes) -> str:
    np.savez(file, **{name: np.array(rows, float) for name, rows in boxes.items()})
    return str(file)


@pytest.mark.parametrize("has_objects", [True, False])
def test_a_file_of_boxes_is_taken_as_it_is(tmp_path, has_objects):
    boxes = {"image1": [[5, 5, 60, 80], [0.5, 1, 2, 3], [0.5, 1, 2, 3]], "image0": np.zeros((0, 4))}
    file = write_boxes(tmp_path / "boxes.npz", **boxes, other=[[0, 0, 9999, 9999]])
    split = make_split(
        tmp_path / "data", [encoded(drawing())] * 2, [objects()] * 2 if has_objects else None
    )
    found = proposals.of_split(split, file)
    assert [rows.tolist() for rows in found] == [[], boxes["image1"]]
    assert all(rows.dtype == np.float32 for rows in found) and not kept(tmp_path)


@pytest.mark.fault(
    "config: a file of boxes of other images, or with a box outside its image",
    "refused, the image named",
)
@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ({}, r"lacks 1 of the 2 images of made\[train\]: image1; did you mean 'image0'"),
        ({"image1": [[0, 0, 61, 80]]}, r"image image1: box 0 \[0, 0, 61, 80\] is not .* 60×80"),
        ({"image1": [[0, 0, 6, 8], [-1, 0, 6, 8]]}, r"image image1: box 1 \[-1, 0, 6, 8\] is not"),
        ({"image1": [[5, 5, 5, 9]]}, r"image image1: box 0 \[5, 5, 5, 9\] is not"),
        ({"image1": [[0, np.nan, 6, 8]]}, r"image image1: box 0 \[0, nan, 6, 8\] is not"),
        ({"image1": [0, 0, 6, 8]}, r"image image1: float64 \[4\] is no array of boxes \[p, 4\]"),
        ({"image1": [[0, 0, 6]]}, r"image image1: float64 \[1, 3\] is no array of boxes"),
    ],
)
def test_a_file_of_other_boxes_is_refused(tmp_path, boxes, message):
    file = write_boxes(tmp_path / "boxes.npz", image0=[[0, 0, 1, 1]], **boxes)
    split = make_split(tmp_path / "data", [encoded(drawing())] * 2, [objects()] * 2)
    with pytest.raises(UserError, match=f"config.data.proposals={file}") as caught:
        box_file.read(pathlib.Path(file), split)
    assert caught.match(message)


@pytest.mark.fault("hostile: a file of boxes with a pickle, or compressed", "refused")
@pytest.mark.parametrize("kind", ["pickle", "pickled array", "compressed"])
def test_a_file_of_boxes_made_to_harm_is_refused(tmp_path, kind):
    file = tmp_path / "boxes.npz"
    if kind == "pickle":
        faults.write_pickle(file, tmp_path / "touched")
    elif kind == "pickled array":
        np.savez(file, image0=np.array([faults.Touches(tmp_path / "touched")]))
    else:
        np.savez_compressed(file, image0=np.zeros((1_000_000, 4)))
    with pytest.raises(UserError, match=r"boxes.npz cannot be read .*: write it with numpy.savez,"):
        box_file.read(file, make_split(tmp_path, [encoded(drawing())]))
    assert not (tmp_path / "touched").exists()


def test_a_file_has_no_boxes_of_another_image():
    with pytest.raises(UserError, match=r"boxes of its own images only: .*'selective_search\(\)'"):
        proposals.parse("boxes.npz")


# --- what uses them -------------------------------------------------------------------------------


def test_recall_counts_true_boxes_that_a_proposal_meets():
    found = [
        np.array([[0, 0, 10, 10], [20, 20, 40, 40]], np.float32),
        np.zeros((0, 4), np.float32),
        np.array([[0, 0, 5, 5]], np.float32),
    ]
    true = [
        objects([0, 0, 10, 20], [20, 20, 40, 61], [50, 50, 60, 60], difficult=[2]),  # 0.5, 0.49
        objects([0, 0, 9, 9]),
        objects(),
    ]
    assert proposals.recall(found, true) == 1 / 3
    assert proposals.recall(found, true, overlap=0.51) == 0
    assert np.isnan(proposals.recall(found[2:], true[2:]))


@pytest.fixture
def config(tmp_path):
    config = resnet.get_config()
    with config.unlocked():
        config.data.name = write_images(
            tmp_path / "images", {f"{s}/{c}": 2 for s in ("train", "val") for c in ("ant", "bee")}
        )
        config.data.eval_split, config.data.proposals = "val", "selective_search()"
    return config


def test_a_run_and_its_final_test_have_the_proposals_of_their_config(config):
    train, held_out = splits.open_splits(config)
    nothing: dict = dict.fromkeys(["model", "variables", "mesh", "normalise"])
    network = trained.Trained(
        "a network", config, image_shape=(32, 32, 3), class_names=("bee", "ant"), **nothing
    )
    tested = trained.open_labelled(network, "val")
    for split in (train, held_out, tested):
        decoded = [proposals.host_ops.decode(example["image"]) for example in split.examples]
        for boxes, image in zip(split.proposals, decoded, strict=True):
            np.testing.assert_array_equal(boxes, selective_search(image))
    with config.unlocked():
        config.data.proposals = ""
    assert [split.proposals for split in splits.open_splits(config)] == [None, None]
    with config.unlocked():
        del config.data.proposals  # a run that is older than the key
    assert trained.open_labelled(network, "val").proposals is None


@pytest.mark.fault("config: going on with other boxes in the file of boxes", "said; goes on")
def test_a_run_tells_other_proposals_by_a_digest(config, tmp_path, monkeypatch):
    digests = []

    def stop(*arguments):
        digests.append(arguments[-1])
        raise UserError("it would go on")

    monkeypatch.setattr(workdir, "check_same_data", stop)
    names = [f"{c}/{i:03}.png" for c in ("ant", "bee") for i in range(2)]
    for size in (None, 9, 9, 8):
        with config.unlocked():
            config.data.proposals = "" if size is None else f"{tmp_path}/boxes.npz"
        boxes = np.array([[0, 0, size or 1, 5]], np.float32)
        np.savez(tmp_path / "boxes.npz", **dict.fromkeys(names, boxes))
        with pytest.raises(UserError, match="it would go on"):
            run.assemble(config, tmp_path / "run")
    without, nine, again, eight = digests
    assert nine == again and len({without, nine, eight}) == 3
    monkeypatch.setattr(workdir, "check_same_data", lambda *arguments: None)
    with config.unlocked():
        config.data.train_device = config.data.eval_device = "scale(0.01)"
        config.batch_size, config.mesh.data = 2, 1
    assert run._facts(run.assemble(config, tmp_path / "run"))["digests"] == eight
    splits = [open_split(config.data.name, name) for name in ("train", "val")]
    assert without == tuple(statistics.fingerprint(split, "") for split in splits)


# ml_collections reads configs with load_module
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_they_are_prepared_ahead(config, capsys, monkeypatch):
    flags = ["--proposals", "--config=configs/resnet.py", f"--config.data.name={config.data.name}"]
    flags += ["--config.data.eval_split=val"]
    assert exit_code(prepare.cli, *flags) == 2
    assert capsys.readouterr().err.startswith("error: config.data.proposals is empty")
    Counted(monkeypatch)
    assert exit_code(prepare.cli, *flags, "--config.data.proposals=selective_search(size=20)") == 0
    line = "4 images, 2 proposals an image (2 to 2)"
    assert capsys.readouterr().out == (
        f"{config.data.name}[train]: {line}\n{config.data.name}[val]: {line}\n"
    )
    assert len(kept(pathlib.Path(config.data.name.removeprefix("folder:")))) == 2


# --- real photographs -----------------------------------------------------------------------------


@pytest.mark.slow  # a second an image
def test_the_objects_of_voc_are_met_at_the_full_size(test_data, tmp_path):
    """VOC's 100 images: 0.949 of the 235 objects that are not difficult, 1,557 boxes an image."""
    name = f"voc_folder:{test_data}/voc/VOCdevkit/VOC2007"
    split = open_split(name, "train+val+test")._replace(location=str(tmp_path))
    assert split.objects is not None
    found = proposals.of_split(split, "selective_search()")
    assert len(found) == 100 and 1500 < np.mean([len(boxes) for boxes in found]) < 1600
    assert proposals.recall(found, split.objects) >= 0.94
    for boxes, image in zip(found, split.objects, strict=True):
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= image.size).all()
