"""Class activation maps, and the sheet of images that shows them beside predictions."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from support.commands import exit_code

from cnn_papers import predict, zoo
from cnn_papers.data import contact_sheet
from cnn_papers.errors import UserError
from cnn_papers.parallel import mesh as meshes
from cnn_papers.weights import class_maps, prediction_sheet
from cnn_papers.weights.prediction_sheet import Tile
from cnn_papers.weights.trained import Trained

# ml_collections reads configs with load_module
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def untrained(name: str, side: int, **fields) -> Trained:
    model = zoo.build_model(name, **fields)
    shape = (side, side, 3)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *shape)))
    mesh = meshes.make_mesh(1)
    config = ConfigDict({"model": {"num_classes": 10}})
    return Trained(name, config, model, variables, mesh, lambda x, key: x / 255, shape, ())


@pytest.mark.parametrize(
    ("name", "side", "fields"),
    [
        ("resnet", 32, {"variant": "cifar-8"}),
        ("resnet", 64, {"variant": "18", "width": 0.125, "num_classes": 10}),
        ("googlenet", 64, {"variant": "paper", "width": 0.125, "num_classes": 10}),
        ("densenet", 32, {"variant": "BC-40-12"}),
        ("nin", 32, {"variant": "cifar10", "width": 0.25}),
    ],
)
def test_the_mean_of_a_class_map_is_the_logit_of_its_class(name, side, fields):
    network = untrained(name, side, **fields)
    images = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    maps = class_maps.make_class_maps(network)(images)
    logits = network.model.apply(network.variables, images / np.float32(255))[0]
    assert maps.shape[0] == 2 and maps.shape[1] > 1 and maps.shape[-1] == 10
    np.testing.assert_allclose(maps.mean((1, 2)), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "side", "fields"),
    [
        ("vgg", 32, {"variant": "A", "width": 0.0625}),
        ("alexnet_cifar", 32, {}),
        ("nin", 32, {"variant": "cifar10_fc", "width": 0.25}),
    ],
)
def test_a_network_that_ends_otherwise_is_refused(name, side, fields):
    with pytest.raises(UserError, match=f"{name} has no class activation maps: .*GoogLeNet"):
        class_maps.make_class_maps(untrained(name, side, **fields))


def test_a_map_is_bright_where_the_class_is_and_dark_where_it_speaks_against_it():
    image = np.full((4, 8, 3), 100, np.uint8)
    covered = prediction_sheet.under_map(image, np.array([[-1.0, 2.0]]))
    left, right = covered[0, 0].astype(int), covered[0, -1].astype(int)
    assert (left <= 52).all()  # half of the image, and black
    assert right.sum() > left.sum() + 250


def test_a_sheet_has_every_image_up_to_64_and_its_map(tmp_path):
    image = np.zeros((8, 8, 1), np.uint8)
    tile = Tile(tmp_path / "a.png", image, 1, ["99.00% cat", "1.00% dog"])
    asked = []

    def maps(images):
        asked.append(images.shape)
        return np.ones((1, 2, 2, 3), np.float32)

    prediction_sheet.write(tmp_path / "sheet.png", [tile] * 70, maps)
    assert asked == [(1, 8, 8, 1)] * 64
    cell_height = 192 + 3 * contact_sheet.LINE + contact_sheet.MARGIN
    cell_width = 2 * 192 + contact_sheet.MARGIN
    height, width, _ = cv2.imread(str(tmp_path / "sheet.png")).shape
    assert (height, width) == (16 * cell_height + 6, 4 * cell_width + 6)


def test_predict_shows_its_images_and_says_how_many(tiny_run, tmp_path, capsys):
    images = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in images:
        cv2.imwrite(str(path), np.full((40, 40, 3), 90, np.uint8))
    sheet = tmp_path / "sheet.png"
    arguments = [f"--workdir={tiny_run}", *map(str, images), str(tmp_path / "gone.png")]
    assert exit_code(predict.cli, *arguments, f"--show={sheet}", "--cam", "--top=2") == 2
    assert f"{sheet} shows 2 images" in capsys.readouterr().err
    assert cv2.imread(str(sheet)) is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--show=sheet.jpg"], "--show=sheet.jpg: the name ends in .png"),
        (["--cam"], "--cam draws maps on the sheet of --show=FILE.png"),
        (
            ["--show=a.png", "--layer=fc", "--out=f.npz"],
            "--show is of predictions, and --layer makes none",
        ),
    ],
)
def test_a_sheet_that_cannot_be(tiny_run, tmp_path, capsys, arguments, message):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 40, 3), np.uint8))
    image = str(tmp_path / "a.png")
    assert exit_code(predict.cli, f"--workdir={tiny_run}", image, *arguments) == 2
    assert message in capsys.readouterr().err
