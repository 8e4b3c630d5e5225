"""OverFeat: the paper's six scales, offsets of the last pooling, windows against dense maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_papers import counting
from cnn_papers.models import overfeat

# The accurate network at the paper's six scales: the image, the maps before and after the last
# pooling, and the map of scores.
SCALES = (
    ((245, 245), (17, 17), (5, 5), (3, 3)),
    ((281, 317), (20, 23), (6, 7), (6, 9)),
    ((317, 389), (23, 29), (7, 9), (9, 15)),
    ((389, 461), (29, 35), (9, 11), (15, 21)),
    ((425, 497), (32, 38), (10, 12), (18, 24)),
    ((461, 569), (35, 44), (11, 14), (21, 30)),
)
# The accurate network without padding: on 209 pixels it has 6×6 cells before the last pooling, all
# of which fc7 reads.
UNPADDED = {
    name: (*row[:3], 0) if "conv" in name else row
    for name, row in overfeat.TABLE["accurate"][0].items()
}
UNPADDED_SIZE, UNPADDED_STEP = 209, 12


def shapes(model, variables, image_size):
    image = jax.ShapeDtypeStruct((1, *image_size, 3), jnp.float32)
    ends = jax.eval_shape(
        lambda variables, image: model.apply(variables, image)[1], variables, image
    )
    return {name: end.shape[1:-1] for name, end in ends.items()}


@pytest.fixture(scope="module")
def accurate():
    """The paper's accurate network and the shapes of its variables, at its native 221×221."""
    model = overfeat.Model("accurate")
    return model, counting.abstract_variables(model, (221, 221, 3))


@pytest.mark.parametrize(("image", "before", "after", "scores"), SCALES)
def test_the_six_scales(accurate, image, before, after, scores):
    model, variables = accurate
    fine = shapes(model.clone(fine=True), variables, image)
    assert (fine["conv6"], fine["pool6"], fine["fc9"]) == (before, (3, 3, *after), scores)
    assert fine["fc7"] == fine["fc8"] == scores
    coarse = shapes(model, variables, image)
    assert (coarse["pool6"], coarse["fc9"]) == (after, (after[0] - 4, after[1] - 4))


@pytest.mark.parametrize(
    ("variant", "image", "scores"),
    [
        ("accurate", (221, 221), (1, 1)),
        ("accurate", (233, 256), (2, 3)),
        ("accurate", (222, 246), (1, 3)),
        ("fast", (231, 231), (1, 1)),
        ("fast", (247, 231), (2, 1)),
        ("fast", (256, 311), (2, 6)),
    ],
)
def test_fine_positions_at_any_size(variant, image, scores):
    """There is one more position for every 12 (accurate) or 16 pixels (fast) of a larger image."""
    model = overfeat.Model(variant, fine=True)
    variables = counting.abstract_variables(model, overfeat.FACTS[variant].input)
    assert shapes(model, variables, image)["fc8" if variant == "fast" else "fc9"] == scores


def random_parameters(model, side, rng):
    """Draws He et al.'s normal with NumPy: compiling `init` takes longer than these tests."""
    params = counting.abstract_variables(model, (side, side, 3))["params"]

    def draw(shape):
        return jnp.asarray(rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape), jnp.float32)

    return {"params": jax.tree.map(lambda leaf: draw(leaf.shape), params)}


def ends_of(model, variables, image):
    return jax.jit(lambda variables, image: model.apply(variables, image)[1])(variables, image)


def integer_parameters(params, rng):
    """Draws about three weights of ±1 a unit: float32 sums of integers are exact in any order."""

    def draw(shape):
        nonzero = rng.random(shape) < 3 / np.prod(shape[:-1])
        return jnp.asarray(np.where(nonzero, rng.choice([-1.0, 1.0, 1.0], shape), 0.0), jnp.float32)

    return jax.tree.map(
        lambda leaf: draw(leaf.shape) if leaf.ndim == 4 else jnp.zeros(leaf.shape), params
    )


def test_unpadded_map_is_the_classifier_on_every_window(monkeypatch):
    """Dense scores equal the classifier's on crops bit for bit, also at the pooling's offsets."""
    monkeypatch.setitem(overfeat.TABLE, "unpadded", (UNPADDED, overfeat.TABLE["accurate"][1]))
    model = overfeat.OverFeat(net="unpadded", width=0.03, num_classes=7)
    rng = np.random.default_rng(0)
    variables = counting.abstract_variables(model, (UNPADDED_SIZE, UNPADDED_SIZE, 3))
    variables = {"params": integer_parameters(variables["params"], rng)}
    rows, columns = 5, 4
    size = [UNPADDED_SIZE + UNPADDED_STEP * (count - 1) for count in (rows, columns)]
    image = jnp.asarray(rng.integers(-1, 2, (1, *size, 3)), jnp.float32)
    fine = ends_of(model.clone(fine=True), variables, image)["fc9"]
    assert fine.shape == (1, rows, columns, 7)

    corners = [(UNPADDED_STEP * y, UNPADDED_STEP * x) for y in range(rows) for x in range(columns)]
    crops = jnp.concatenate(
        [image[:, y : y + UNPADDED_SIZE, x : x + UNPADDED_SIZE] for y, x in corners]
    )
    windows = ends_of(model, variables, crops)["fc9"]
    assert len(np.unique(windows)) > 20  # it does tell windows apart
    np.testing.assert_array_equal(fine.reshape(-1, 7), windows.reshape(-1, 7))

    for dy, dx in ((0, 0), (1, 0), (2, 1)):
        shifted = image[:, UNPADDED_STEP * dy :, UNPADDED_STEP * dx :]
        np.testing.assert_array_equal(
            fine[:, dy::3, dx::3], ends_of(model, variables, shifted)["fc9"]
        )


def test_padded_map_is_the_shifted_coarse_one_away_from_the_border():
    """Padding reaches four cells: from the third position on, a shift changes nothing."""
    model = overfeat.Model("accurate", width=0.03, num_classes=5)
    rng = np.random.default_rng(0)
    variables = random_parameters(model, 221, rng)
    image = jnp.asarray(rng.normal(size=(1, 353, 221, 3)), jnp.float32)
    fine = ends_of(model.clone(fine=True), variables, image)["fc9"]
    coarse = ends_of(model, variables, image[:, 24:])["fc9"]
    assert fine.shape == (1, 12, 1, 5) and coarse.shape == (1, 4, 1, 5)
    np.testing.assert_allclose(coarse[:, 2:], fine[:, 8::3], rtol=1e-4, atol=1e-6)


def test_logits_are_the_mean_of_the_map_and_training_has_no_offsets():
    model = overfeat.Model("fast", width=0.02, num_classes=5, conv1_stride=2, fine=True)
    rng = np.random.default_rng(0)
    variables = random_parameters(model, 64, rng)
    image = jnp.asarray(rng.normal(size=(2, 88, 88, 3)), jnp.float32)
    logits, ends = jax.jit(model.apply)(variables, image)
    assert ends["fc8"].shape == (2, 4, 4, 5) and logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, ends["fc8"].mean((1, 2)), rtol=1e-5, atol=1e-6)

    rngs = {"dropout": jax.random.key(0)}
    training = jax.eval_shape(
        lambda v, x: model.apply(v, x, train=True, rngs=rngs)[1], variables, image
    )
    assert training["pool5"].shape[:3] == (2, 3, 3) and training["fc8"].shape == (2, 2, 2, 5)


def test_at_the_native_size_offsets_change_nothing():
    model = overfeat.Model("accurate", width=0.02, num_classes=5, conv1_stride=1)
    rng = np.random.default_rng(0)
    variables = random_parameters(model, 64, rng)
    image = jnp.asarray(rng.normal(size=(2, 64, 64, 3)), jnp.float32)
    coarse = ends_of(model, variables, image)
    fine = ends_of(model.clone(fine=True), variables, image)
    assert fine["fc9"].shape == (2, 1, 1, 5)
    np.testing.assert_allclose(fine["fc9"], coarse["fc9"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(fine["pool6"][:, 0, 0], coarse["pool6"])


@pytest.mark.parametrize("fine", [False, True])
def test_too_small_images_are_refused(fine):
    model = overfeat.Model("accurate", width=0.02, num_classes=5, fine=fine)
    with pytest.raises(ValueError, match="32×32 is too small: conv2 has no pixels left"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    variables = counting.abstract_variables(model, (221, 221, 3))
    jax.eval_shape(model.apply, variables, jnp.zeros((1, 221, 221, 3)))
    with pytest.raises(ValueError, match="an image of 220×300 is too small: fc7 has no pixels"):
        jax.eval_shape(model.apply, variables, jnp.zeros((1, 220, 300, 3)))


def test_bad_fields_are_refused():
    with pytest.raises(
        ValueError, match=r"unknown model\.variant 'slow'; there are: fast, accurate"
    ):
        overfeat.Model("slow")
    with pytest.raises(ValueError, match=r"unknown model\.net 'slow'; there are: fast, accurate"):
        overfeat.Model("fast", net="slow")
    with pytest.raises(ValueError, match=r"unknown model\.weight_init 'xavier'"):
        overfeat.Model("fast", weight_init="xavier")
