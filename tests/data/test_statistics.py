"""Pixel statistics: NumPy's values, kept on disk, and computed again when the data changes."""

import io
import os
import pathlib
import zipfile

import cv2
import numpy as np
import pytest
from support import faults

from cnn_papers.data import progress, statistics
from cnn_papers.data.sources import open_split
from cnn_papers.data.split import Split
from cnn_papers.data.statistics import (
    Statistics,
    compute,
    compute_whitening,
    load_or_compute,
    with_whitening,
)
from cnn_papers.errors import UserError


@pytest.fixture
def images():
    """300 images of 6×5 pixels whose colours have a known, far from diagonal covariance."""
    mix = np.array([[30.0, 5, 0], [25, 12, 2], [-10, 8, 20]])
    noise = np.random.default_rng(0).uniform(-1, 1, (300, 6, 5, 3))
    slope = np.linspace(-20, 20, 6)[None, :, None, None]  # a mean image that is not flat
    return np.clip(128 + slope + noise @ mix.T, 0, 255).round().astype(np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> pathlib.Path:
    """The user's cache folder, for this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cnn_papers"


def make_split(folder, images) -> Split:
    examples = [
        {"image": image.tobytes(), "label": 0, "id": str(i)} for i, image in enumerate(images)
    ]
    return Split("made[train]", examples, ("one",), str(folder))


class Batches:
    """Hands out images in batches and counts how often it is asked to."""

    def __init__(self, images, size=64):
        self.images, self.size, self.asked = images, size, 0

    def __call__(self):
        self.asked += 1
        return (self.images[i : i + self.size] for i in range(0, len(self.images), self.size))


def stored(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def assert_same(ours: Statistics, theirs: Statistics):
    for a, b in zip(ours[:5], theirs[:5], strict=True):
        np.testing.assert_array_equal(a, b)


def test_figures_are_numpys(images):
    figures = compute(Batches(images)())
    pixels = images.reshape(-1, 3).astype(np.float64)
    covariance = np.cov(pixels.T, bias=True)
    assert all(figure.dtype == np.float32 for figure in figures[:5]) and figures.whitening is None
    np.testing.assert_allclose(figures.mean, pixels.mean(0), rtol=1e-5)
    np.testing.assert_allclose(figures.std, pixels.std(0), rtol=1e-5)
    np.testing.assert_allclose(figures.mean_image, images.mean(0), rtol=1e-5)
    np.testing.assert_allclose(figures.eigenvalues, np.linalg.eigvalsh(covariance)[::-1], rtol=1e-5)
    p, eigenvalues = figures.eigenvectors.astype(float), figures.eigenvalues.astype(float)
    np.testing.assert_allclose(
        p @ np.diag(eigenvalues) @ p.T, covariance, rtol=1e-5, atol=1e-5 * covariance.max()
    )
    np.testing.assert_allclose(p.T @ p, np.eye(3), atol=1e-6)


def test_eigen_pairs_of_known_colours_are_found():
    """Pixels are ±√λ along known axes, so that the covariance and its eigen-pairs are known."""
    axes = np.linalg.qr(np.array([[1.0, 1, 1], [0, 1, 2], [1, 0, -1]]))[0]
    spread = np.array([3600.0, 400, 25])
    pixels = np.stack(
        [128 + sign * np.sqrt(3 * spread[i]) * axes[:, i] for i in range(3) for sign in (1, -1)]
    )
    figures = compute([pixels.reshape(6, 1, 1, 3)])
    np.testing.assert_allclose(figures.eigenvalues, spread, rtol=1e-5)
    np.testing.assert_allclose(np.abs((figures.eigenvectors * axes).sum(0)), 1, rtol=1e-5)
    values, vectors = np.linalg.eigh(np.cov(pixels.T, bias=True))
    np.testing.assert_allclose(figures.eigenvalues, values[::-1], rtol=1e-5)
    np.testing.assert_allclose(
        np.abs((figures.eigenvectors * vectors[:, ::-1]).sum(0)), 1, rtol=1e-5
    )


def test_whitening_figures_are_numpys():
    images = np.random.default_rng(0).normal(5, 2, (200, 3, 2, 2)).astype(np.float32)
    images[..., 1] += images[..., 0]
    flat = images.reshape(200, -1).astype(float)
    figures = compute_whitening([images[:150], images[150:]])
    np.testing.assert_allclose(figures.mean, flat.mean(0), rtol=1e-5)
    values = figures.eigenvalues.astype(float)
    assert (np.diff(values) <= 0).all()
    covariance = figures.eigenvectors.astype(float) @ np.diag(values) @ figures.eigenvectors.T
    np.testing.assert_allclose(covariance, np.cov(flat.T, bias=True), atol=1e-4)


def test_images_too_large_to_whiten_are_refused():
    with pytest.raises(UserError, match="zca whitens images of up to 12,288 values, not 150,528"):
        compute_whitening([np.zeros((1, 224, 224, 3))])


def test_whitening_is_kept_and_belongs_to_the_operations_before_it(tmp_path, images):
    split, batches = make_split(tmp_path / "data", images), Batches(images / np.float32(255))
    pixels = load_or_compute(split, "decode", Batches(images))
    first = with_whitening(pixels, split, "decode gcn", batches)
    again = with_whitening(pixels, split, "decode gcn", batches)
    assert batches.asked == 1 and first.whitening is not None and again.whitening is not None
    for a, b in zip(first.whitening, again.whitening, strict=True):
        np.testing.assert_array_equal(a, b)
    assert_same(again, pixels)
    with_whitening(pixels, split, "decode lcn", batches)
    assert batches.asked == 2
    assert load_or_compute(split, "decode", batches).whitening is None
    assert len({pixels.fingerprint, first.fingerprint}) == 2


def test_statistics_of_other_images_are_refused(tmp_path, images):
    mine, theirs = (
        make_split(tmp_path / name, data)
        for name, data in (("data", images), ("other", images[1:]))
    )
    ours, others = (load_or_compute(split, "decode", Batches(images)) for split in (mine, theirs))
    (file,) = stored(tmp_path / "data")
    (other,) = stored(tmp_path / "other")
    file.write_bytes(other.read_bytes())
    with pytest.raises(
        UserError, match=f"the statistics in {file} belong to other images than made"
    ):
        load_or_compute(mine, "decode", Batches(images))
    run = tmp_path / "run" / statistics.FILE
    statistics.save(run, ours)
    statistics.save(run, ours)
    with pytest.raises(
        UserError, match=f"the statistics in {run} belong to other images .* in another folder"
    ):
        statistics.save(run, others)
    assert_same(statistics.load(run), ours)


def test_a_long_pass_says_how_far_it_is(tmp_path, images, monkeypatch, caplog):
    ticks = iter(np.arange(0, 1000, 4.0))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(ticks))
    with caplog.at_level("INFO", "cnn_papers"):
        load_or_compute(make_split(tmp_path, images), "decode", Batches(images))
    assert [record.getMessage() for record in caplog.records] == [
        "computing the pixel statistics of made[train] (300 images)",
        "pixel statistics of made[train]: 192 of 300 images, 16 images/s, about 7 s left",
    ]


def test_batches_may_be_of_any_size(images):
    assert_same(compute(Batches(images, 300)()), compute(Batches(images, 7)()))


def test_a_large_even_offset_costs_no_precision():
    images = np.random.default_rng(0).integers(254, 256, (500, 16, 16, 1), np.uint8)
    figures = compute([images[:250], images[250:]])
    np.testing.assert_allclose(figures.std, images.astype(float).std((0, 1, 2)), rtol=1e-5)


def test_a_channel_that_never_varies_has_no_deviation(images):
    images[..., 2] = 77
    figures = compute([images])
    assert figures.std[2] == 0 and figures.mean[2] == 77
    assert figures.eigenvalues[2] < 1e-6 < figures.eigenvalues[1]


def test_they_are_kept_beside_the_data_and_read_back(tmp_path, images, cache):
    split, batches = make_split(tmp_path / "data", images), Batches(images)
    first = load_or_compute(split, "decode", batches)
    second = load_or_compute(split, "decode", batches)
    assert batches.asked == 1
    assert_same(first, compute([images]))
    assert_same(first, second)
    assert len(stored(tmp_path / "data")) == 1 and not cache.exists()


def test_others_may_read_what_is_kept(tmp_path, images):
    load_or_compute(make_split(tmp_path / "data", images), "decode", Batches(images))
    (file,) = stored(tmp_path / "data")
    umask = os.umask(0)
    os.umask(umask)
    assert file.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("change", ["a pixel", "an image less", "the operations"])
def test_other_data_has_other_statistics(tmp_path, images, change):
    load_or_compute(make_split(tmp_path / "data", images), "decode", Batches(images))
    other, ops = images.copy(), "decode"
    if change == "a pixel":
        other[0, 0, 0, 0] += 1
    elif change == "an image less":
        other = other[:-1]
    else:
        ops = "decode|resize(6, 5)"
    batches = Batches(other)
    figures = load_or_compute(make_split(tmp_path / "data", other), ops, batches)
    assert batches.asked == 1
    assert_same(figures, compute([other]))
    assert len(stored(tmp_path / "data")) == 2


def test_where_the_data_cannot_be_written_to_the_cache_keeps_them(tmp_path, images, cache):
    (tmp_path / "data").write_text("a file: no folder can be made in it, not even by root")
    split, batches = make_split(tmp_path / "data", images), Batches(images)
    first = load_or_compute(split, "decode", batches)
    assert len(stored(cache)) == 1
    assert_same(load_or_compute(split, "decode", batches), first)
    assert batches.asked == 1


def test_where_nothing_can_be_written_they_are_still_there(tmp_path, images, monkeypatch):
    for name in ("data", "cache"):
        (tmp_path / name).write_text("a file")
    batches = Batches(images)
    for times in (1, 2):
        figures = load_or_compute(make_split(tmp_path / "data", images), "decode", batches)
        assert batches.asked == times
        assert_same(figures, compute([images]))


def test_a_save_that_fails_leaves_nothing_half_written(tmp_path, images, cache, monkeypatch):
    def full(file, **arrays):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(statistics.np, "savez", full)
    load_or_compute(make_split(tmp_path / "data", images), "decode", Batches(images))
    assert stored(tmp_path / "data") == [] and stored(cache) == []


@pytest.mark.fault("damage: the file of pixel statistics", "one line that names it")
@pytest.mark.parametrize("damage", ["empty", "cut off", "a bit", "text", "another file"])
def test_a_damaged_file_is_named(tmp_path, images, damage):
    split = make_split(tmp_path / "data", images)
    load_or_compute(split, "decode", Batches(images))
    (file,) = stored(tmp_path / "data")
    whole = file.read_bytes()
    if damage == "another file":
        np.savez(file, mean=np.zeros(3))
    else:
        middle = len(whole) // 3
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        file.write_bytes(
            {"empty": b"", "cut off": whole[:-100], "a bit": flipped, "text": b"hello"}[damage]
        )
    with pytest.raises(UserError) as caught:
        load_or_compute(split, "decode", Batches(images))
    assert str(file) in str(caught.value) and "delete the file" in str(caught.value)


def test_statistics_beside_a_folder_of_images_do_not_become_a_class(tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(3):
            cv2.imwrite(
                str(tmp_path / "images" / name / f"{i}.png"), np.full((4, 4, 3), 9 * i, np.uint8)
            )
    for _ in range(2):
        split = open_split(f"folder:{tmp_path}/images", "train")
        assert split.class_names == ("ant", "bee")
        load_or_compute(split, "decode", Batches(np.zeros((6, 4, 4, 3), np.uint8)))


def test_the_cache_folder_is_the_users(monkeypatch, tmp_path):
    assert statistics.cache_folder() == tmp_path / "cache" / "cnn_papers"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert statistics.cache_folder() == pathlib.Path("/home/somebody/.cache/cnn_papers")


def test_a_folder_marked_read_only_is_left_alone_even_by_root(tmp_path, images, cache):
    split, batches = make_split(tmp_path / "data", images), Batches(images)
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data").chmod(0o555)
    load_or_compute(split, "decode", batches)
    assert not (tmp_path / "data" / ".statistics").exists() and len(list(cache.rglob("*.npz"))) == 1


# --- made to harm ---------------------------------------------------------------------------------


@pytest.mark.fault(
    "hostile: a run's statistics.npz with a pickle, or of few bytes that unpack to many", "refused"
)
@pytest.mark.parametrize(
    "kind", ["pickle", "pickled array", "one array alone", "bomb", "header of terabytes"]
)
def test_a_file_made_to_harm_is_refused(tmp_path, kind):
    file, arrays = tmp_path / "statistics.npz", {"mean": np.zeros(20_000_000)}
    if kind == "pickle":
        faults.write_pickle(file, tmp_path / "touched")
    elif kind == "pickled array":
        np.savez(file, mean=np.array([faults.Touches(tmp_path / "touched")]))
    elif kind == "one array alone":
        with file.open("wb") as npy:
            np.save(npy, np.zeros(3))
    elif kind == "bomb":
        np.savez_compressed(file, **arrays)
        assert file.stat().st_size < 500_000
    else:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
        )
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("mean.npy", header.getvalue())
    with pytest.raises(UserError, match=r"the statistics in .*statistics.npz cannot be read"):
        statistics.load(file)
    assert not (tmp_path / "touched").exists()
