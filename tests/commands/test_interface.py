"""The names that `import cnn_papers` offers to Python and notebooks."""

import subprocess
import sys

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.random_variables import random_variables

import cnn_papers
from cnn_papers import zoo
from cnn_papers.errors import UserError
from cnn_papers.weights import arithmetic, trained, weight_files
from cnn_papers.weights.predictor import make_predictor

# ml_collections reads configs with load_module
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


@pytest.fixture(scope="module")
def network(tiny_run) -> cnn_papers.Network:
    return cnn_papers.load_network(str(tiny_run))


@pytest.fixture
def photo(tmp_path) -> str:
    """A PNG of PIXELS."""
    path = str(tmp_path / "photo.png")
    assert cv2.imwrite(path, PIXELS[..., ::-1])
    return path


def test_the_import_brings_nothing_else():
    code = "import sys, cnn_papers; print(*sys.modules.keys() & {'jax', 'numpy', 'flax', 'absl'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_every_name_is_there_and_no_other():
    for name in cnn_papers.__all__:
        assert getattr(cnn_papers, name).__doc__
    assert set(cnn_papers.__all__) <= set(dir(cnn_papers))
    assert cnn_papers.UserError is UserError
    with pytest.raises(AttributeError, match="module 'cnn_papers' has no attribute 'create'"):
        _ = cnn_papers.create


def test_models_by_name():
    models = cnn_papers.list_models()
    assert list(models) == zoo.model_names()
    assert models["lenet"][0] == "original"
    for name, variants in models.items():
        assert cnn_papers.create_model(name) == zoo.model_module(name).Model(
            dtype=jnp.dtype("float32")
        )
        assert cnn_papers.create_model(name, variants[-1]) is not None
    model = cnn_papers.create_model("resnet", variant="18", num_classes=7, dtype="bfloat16")
    assert (model.num_classes, model.dtype) == (7, jnp.bfloat16)


@pytest.mark.parametrize(
    ("arguments", "fields", "message"),
    [
        (("resnet50",), {}, "'resnet50'; there are: alexnet, "),
        (("resnet", "51"), {}, "unknown model.variant '51'; there are: 18, "),
        (("resnet",), {"classes": 3}, "unknown model field 'classes'"),
        (("resnet",), {"dtype": "int8"}, "float32 or bfloat16, not 'int8'"),
    ],
)
def test_a_mistyped_name_is_said_with_those_that_there_are(arguments, fields, message):
    with pytest.raises(UserError, match=message):
        cnn_papers.create_model(*arguments, **fields)


@pytest.mark.parametrize(
    ("name", "variant", "fields", "shape"),
    [
        ("alexnet", "paper", {}, (227, 227, 3)),
        ("alexnet", "one_weird_trick", {"num_classes": 3}, (224, 224, 3)),
        ("lenet", "original", {}, (32, 32, 1)),
        ("resnet", "cifar-20", {"width": 0.5}, (32, 32, 3)),
        ("resnet", "50-v1.5", {"scan": True}, (224, 224, 3)),
        ("overfeat", "fast", {}, (231, 231, 3)),
        ("vgg", "A", {"stages": ((3, 3),) * 5}, (224, 224, 3)),  # no network of the paper
    ],
)
def test_the_images_of_a_network_are_those_of_its_paper(name, variant, fields, shape):
    assert arithmetic.paper_input(cnn_papers.create_model(name, variant, **fields)) == shape


@pytest.mark.parametrize("shape", [None, (64, 64, 3)])
def test_weights_of_a_file_for_images_of_the_paper_or_another_size(tmp_path, shape):
    model = cnn_papers.create_model("vgg", "A", width=0.02, num_classes=3)
    variables = random_variables(model, shape or (224, 224, 3))
    path = tmp_path / "net.safetensors"
    weight_files.write(path, variables, "vgg", model)
    read = cnn_papers.load_weights(model, str(path), shape)
    jax.tree.map(np.testing.assert_array_equal, read["params"], variables["params"])
    with pytest.raises(UserError, match="another network"):
        cnn_papers.load_weights(model, path, (96, 96, 3))


def test_a_network_gives_the_same_of_paths_bytes_and_pixels(network, photo, tiny_run):
    predictor = make_predictor(trained.from_run(tiny_run))
    with open(photo, "rb") as file:
        encoded = file.read()
    image = predictor.prepare(encoded)
    expected = predictor.outputs(np.stack([image] * jax.device_count()))[0]
    for form in (photo, encoded, PIXELS):
        np.testing.assert_array_equal(network.prepare(form), image[None])
        np.testing.assert_array_equal(network(form), expected[None])
    several = network([photo, PIXELS, PIXELS[..., 0]])  # the last is grey
    assert several.shape == (3, 10)
    np.testing.assert_allclose(several[:2], [expected] * 2, rtol=1e-5)
    np.testing.assert_allclose(network(np.stack([PIXELS] * 2)), several[:2], rtol=1e-5)
    assert network.prepare(PIXELS[..., 0]).tolist() == network.prepare(PIXELS[..., :1]).tolist()


def test_the_classes_of_an_image_are_named_the_most_probable_first(network, photo):
    (classes,) = network.predict(photo, top=3)
    probabilities = dict(zip("0123456789", network(photo)[0].tolist(), strict=True))
    best = sorted(probabilities, key=lambda name: -probabilities[name])[:3]
    assert list(classes.items()) == [(name, probabilities[name]) for name in best]
    assert network.class_names == tuple("0123456789") and network.image_shape == (32, 32, 3)


def test_features_have_the_shapes_of_the_layers(network, photo):
    assert next(iter(network.layers)) == "conv1" and network.layers["conv2_1"] == (32, 32, 8)
    features = network.features([photo, photo], "conv2_1")
    assert (features.shape, features.dtype) == ((2, 32, 32, 8), np.float32)
    with pytest.raises(UserError, match="no layer 'conv9'; there are: conv1, "):
        network.features(photo, "conv9")


def test_a_path_may_begin_with_the_home_folder(network, photo, tiny_run, monkeypatch):
    monkeypatch.setenv("HOME", str(tiny_run.parent))
    assert cnn_papers.load_network(f"~/{tiny_run.name}").description == network.description
    monkeypatch.setenv("HOME", photo.removesuffix("/photo.png"))
    np.testing.assert_array_equal(network.prepare("~/photo.png"), network.prepare(photo))
    with pytest.raises(UserError, match="gs://bucket/net is an address: give a path on"):
        cnn_papers.load_network("gs://bucket/net")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("none.png", r"^none.png cannot be read: No such file"),
        (b"text", "^an image cannot be decoded: not a JPEG"),
        (PIXELS / 255, r"^an image of float64 \[40, 50, 3\] cannot be taken: pixels are uint8"),
        (PIXELS[..., :2], r"^an image of uint8 \[40, 50, 2\] cannot be taken"),
        ([], "^there are no images$"),
    ],
)
def test_what_is_no_image_is_refused_by_name(network, images, message):
    with pytest.raises(UserError, match=message):
        network(images)


def test_a_network_of_a_task_without_boxes_finds_no_objects(network, photo):
    with pytest.raises(UserError, match=r"step 3 in .* finds no objects: call predict"):
        network.find_objects(photo)


def test_a_file_needs_a_recipe_and_a_run_has_one(tiny_run, tmp_path):
    (tmp_path / "net.safetensors").write_bytes(b"-")
    for place in (tmp_path / "net.safetensors", "hf:timm/resnet18.tv_in1k"):
        with pytest.raises(UserError, match="give the recipe of its network too"):
            cnn_papers.load_network(place)
    with pytest.raises(UserError, match="a run has its own config: leave out config"):
        cnn_papers.load_network(tiny_run, "configs/resnet.py")
    with pytest.raises(UserError, match="there is no run in none"):
        cnn_papers.load_network("none")
    with pytest.raises(UserError, match=r"there is no weights file none\.pth to read"):
        cnn_papers.load_network("none.pth", "configs/resnet.py:torchvision")
