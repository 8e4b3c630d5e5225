"""The picture of a recipe's first step, and statistics computed ahead of time."""

import pathlib
import shutil

import cv2
import numpy as np
import pytest
from support.voc_folders import write_voc

from cnn_papers.data import contact_sheet
from cnn_papers.data.sources import open_split
from cnn_papers.errors import UserError
from cnn_papers.parallel import mesh as meshes
from cnn_papers.runs import inputs, preview, splits
from configs import googlenet, lenet, resnet


def random_images(n=10, side=8, c=3):
    return np.random.default_rng(0).integers(0, 256, (n, side, side, c), np.uint8)


def picture(path):
    image = cv2.imread(str(path))
    assert image is not None
    return image[..., ::-1]


@pytest.mark.parametrize(("factor", "offset"), [(1.0, 0.0), (1 / 255, 0.0), (1 / 60, -2.0)])
def test_a_normalisation_of_each_channel_is_undone_exactly(factor, offset):
    pixels = random_images()
    view = pixels * np.array([factor, 2 * factor, factor]) + offset
    np.testing.assert_array_equal(contact_sheet.displayable(view, view, pixels), pixels)
    darker = contact_sheet.displayable(view - 10 * factor, view, pixels)
    np.testing.assert_array_equal(darker[..., 0], np.maximum(pixels[..., 0].astype(int) - 10, 0))


def test_an_image_of_one_colour_can_be_shown():
    pixels = np.full((2, 4, 4, 1), 7, np.uint8)
    view = np.zeros((2, 4, 4, 1))
    np.testing.assert_array_equal(contact_sheet.displayable(view, view, pixels), pixels)


@pytest.mark.parametrize(("n", "side", "c"), [(10, 8, 3), (3, 60, 1), (8, 200, 3)])
def test_every_image_is_on_the_sheet_with_ink_below_it(n, side, c):
    images = random_images(n, side, c)
    sheet = contact_sheet.draw(images, ["a rather long class name of åäö"] * n)
    enlarged = max(1, round(112 / side))
    tile, columns = side * enlarged, min(8, n)
    assert sheet.shape == (-(-n // 8) * (tile + 22) + 6, columns * (tile + 6) + 6, 3)
    for i, image in enumerate(images):
        top, left = 6 + i // 8 * (tile + 22), 6 + i % 8 * (tile + 6)
        shown = sheet[top : top + tile : enlarged, left : left + tile : enlarged]
        np.testing.assert_array_equal(shown, np.broadcast_to(image, (side, side, 3)))
        text = sheet[top + tile : top + tile + 16, left : left + tile]
        assert text.min() < 100 and (text == 255).mean() > 0.5


def test_the_first_step_is_drawn(tmp_path, digits_folder, capsys):
    config = googlenet.get_config()
    config.data.data_dir = str(shutil.copytree(digits_folder, tmp_path / "data"))
    config.data.train_device = config.data.eval_device = "standardize"
    preview.draw_first_step(config, tmp_path / "new" / "sheet.png")
    out = capsys.readouterr().out
    assert out.endswith(f"{tmp_path}/new/sheet.png shows 32 images of digits[train] at 32×32×3\n")
    mesh = meshes.make_mesh(1)
    pipeline = inputs.open_pipeline(
        open_split("digits", "train", config.data.data_dir),
        config,
        inputs.parse_data(config.data).train_host,
        mesh,
    )
    batch = next(pipeline.train_batches(32, seed=config.seed, steps=range(1)))
    sheet = picture(tmp_path / "new" / "sheet.png")
    assert sheet.shape == (4 * (128 + 22) + 6, 8 * (128 + 6) + 6, 3)
    for i in range(32):
        top, left = 6 + i // 8 * 150, 6 + i % 8 * 134
        np.testing.assert_array_equal(
            sheet[top : top + 128 : 4, left : left + 128 : 4], batch["image"][i]
        )


def test_whitened_images_are_drawn(tmp_path, digits_folder):
    config = resnet.get_config()
    config.data.data_dir = str(shutil.copytree(digits_folder, tmp_path / "data"))
    config.data.train_host = config.data.eval_host = "decode|resize(16)"
    config.data.train_device = "gcn(55.0)|zca|pad_crop(2)|flip"
    config.data.eval_device = "gcn(55.0)|zca"
    preview.draw_first_step(config, tmp_path / "sheet.png")
    sheet = picture(tmp_path / "sheet.png")
    assert 60 < sheet[6:118, 6:118].mean() < 200 and sheet[6:118, 6:118].std() > 20


def test_a_picture_is_a_png(tmp_path):
    with pytest.raises(
        UserError, match=r"--out=sheet\.jpg: the name of the picture must end in \.png"
    ):
        preview.draw_first_step(googlenet.get_config(), pathlib.Path("sheet.jpg"))


def test_statistics_are_computed_ahead_of_time_and_found_by_the_run(
    tmp_path, digits_folder, capsys, monkeypatch
):
    config = resnet.get_config()
    config.data.data_dir = str(shutil.copytree(digits_folder, tmp_path / "data"))
    config.data.train_host = config.data.eval_host = "decode|resize(6)"
    config.data.train_device = config.data.eval_device = "gcn|zca"
    preview.compute_statistics(config)
    lines = dict(
        line.split("  ", 1)
        for line in map(str.strip, capsys.readouterr().out.splitlines())
        if "  " in line
    )
    assert lines.keys() == {
        "mean",
        "deviation",
        "colour eigenvalues",
        "whitening eigenvalues",
        "kept in",
    }
    kept = pathlib.Path(lines["kept in"].strip())
    assert kept.is_file() and kept.parent == tmp_path / "data/digits/plain/1.0.0/.statistics"
    monkeypatch.setattr(inputs.Pipeline, "images", None)  # nothing goes through the images again
    split = open_split("digits", "train", config.data.data_dir)
    figures = inputs.open_statistics(
        split, config, inputs.parse_data(config.data), meshes.make_mesh(1)
    )
    assert (
        figures is not None and figures.whitening is not None and figures.fingerprint == kept.stem
    )
    config.data.train_device = config.data.eval_device = "scale(2)"
    preview.compute_statistics(config)
    assert "no operation" in capsys.readouterr().out


def test_statistics_ahead_of_time_are_of_the_images_with_an_object_to_cut_out(tmp_path, capsys):
    config = lenet.get_config()
    cat, dog = ("cat", (2, 3, 20, 30)), ("dog", (1, 1, 40, 60))
    images = {"a": [cat, dog], "b": [], "c": [dog]}
    config.data.name = write_voc(tmp_path / "voc", images, train=[*images], val=["a"])
    config.data.eval_split = "val"
    config.data.train_host = "decode(1)|random_object(0.1)|resize(28)|pad(2)"
    config.data.eval_host = "decode(1)|largest_object(0.1)|resize(28)|pad(2)"
    preview.compute_statistics(config)
    kept = pathlib.Path(capsys.readouterr().out.split()[-1])
    config.batch_size = 2
    data = inputs.open_data(config, *splits.open_splits(config), meshes.make_mesh(1))
    assert len(data.train) == 2 and data.statistics is not None
    assert data.statistics.fingerprint == kept.stem
    preview.draw_first_step(config, tmp_path / "sheet.png")
    assert [*kept.parent.iterdir()] == [kept]
