"""OverFeat's regressor of boxes: its size, its windows, and one pass against window by window."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_papers import counting
from cnn_papers.errors import UserError
from cnn_papers.models import overfeat

# The accurate network without padding, so that a window sees its own pixels only: 209×209.
UNPADDED = {
    name: (*row[:3], 0) if "conv" in name else row
    for name, row in overfeat.TABLE["accurate"][0].items()
}
UNPADDED_SIDE, UNPADDED_STEP = 209, 12


@pytest.mark.parametrize(
    ("boxes", "parameters"), [("shared", 109_061_124), ("per_class", 113_157_024)]
)
def test_parameters_of_the_regressor(boxes, parameters):
    """5×5×1024 to 4096 to 1024 to 4 numbers, or to 4 for each of the 1000 classes."""
    shapes = counting.abstract_variables(overfeat.Model(boxes=boxes), (221, 221, 3))["params"]
    counted = {
        name: sum(leaf.size for leaf in jax.tree.leaves(layer)) for name, layer in shapes.items()
    }
    regressor = sum(size for name, size in counted.items() if name.startswith("box"))
    assert regressor == parameters
    assert sum(counted.values()) - regressor == overfeat.FACTS["accurate"].params


@pytest.mark.parametrize(
    ("fields", "side", "fine", "coarse"),
    [
        ({"variant": "accurate", "window": 221}, 221, 12, 36),
        ({"variant": "fast", "window": 231}, 231, 16, 32),
        ({"variant": "fast", "window": 36, "conv1_stride": 1}, 34, 4, 8),
        ({"variant": "fast", "window": 64, "conv1_stride": 2}, 57, 8, 16),
    ],
)
def test_geometry(fields, side, fine, coarse):
    """A window is as many pixels as one position needs, at most those it was initialised with."""
    model = overfeat.Model(**fields)
    assert model.geometry() == (side, coarse)
    assert model.clone(fine=True).geometry() == (side, fine)
    assert model.clone(fine=True).geometry(train=True) == (side, coarse)
    assert model.clone(fine=True, fine_in_training=True).geometry(train=True) == (side, fine)


def endpoints(model, variables, image, **options):
    return model.apply(variables, image, **options)[1]


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("fields", [{"conv1_stride": 1}, {"net": "accurate", "conv1_stride": 1}])
def test_the_map_has_as_many_positions_as_windows_fit(fields, fine, train):
    fields = {"width": 0.02, "num_classes": 3, "window": 45, "boxes": "shared"} | fields
    model = overfeat.Model("fast", fine=fine, fine_in_training=True, **fields)
    variables = counting.abstract_variables(model, (60, 60, 3))
    geometry = model.geometry(train=train)
    rngs = {"dropout": jax.random.key(0)}
    apply = functools.partial(endpoints, model, train=train, rngs=rngs)
    for height, width in ((45, 45), (46, 61), (70, 53), (90, 47)):
        image = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
        ends = jax.eval_shape(apply, variables, image)
        shape = geometry.shape(height, width)
        assert overfeat.score_map(ends).shape == (1, *shape, 3)
        assert ends["box3"].shape == (1, *shape, 4)
    windows = geometry.windows(2, 3)
    assert windows.shape == (2, 3, 4)
    side, stride = geometry
    assert windows[1, 2].tolist() == [stride, 2 * stride, stride + side, 2 * stride + side]


def test_it_is_initialised_with_its_window():
    fields = {"width": 0.02, "num_classes": 3, "conv1_stride": 1}
    of_window = counting.abstract_variables(
        overfeat.Model("fast", window=36, **fields), (90, 70, 3)
    )
    of_image = counting.abstract_variables(overfeat.Model("fast", **fields), (36, 36, 3))
    assert jax.tree.map(jnp.shape, of_window) == jax.tree.map(jnp.shape, of_image)
    small = overfeat.Model("fast", window=48, **fields)
    with pytest.raises(UserError, match=r"an image of 40×64 is smaller than model\.window=48"):
        counting.abstract_variables(small, (40, 64, 3))


def integers(shapes, rng):
    """Draws about three weights of ±1 a unit: float32 sums of integers are exact in any order."""

    def draw(shape):
        nonzero = rng.random(shape) < 3 / np.prod(shape[:-1])
        return jnp.asarray(np.where(nonzero, rng.choice([-1.0, 1.0, 1.0], shape), 0.0), jnp.float32)

    return jax.tree.map(
        lambda leaf: draw(leaf.shape) if leaf.ndim == 4 else jnp.zeros(leaf.shape), shapes
    )


@pytest.mark.parametrize("boxes", overfeat.BOXES)
def test_one_pass_is_the_regressor_on_every_window(monkeypatch, boxes):
    """Edges over a large image equal those of crops bit for bit, at every offset of the pooling."""
    monkeypatch.setitem(overfeat.TABLE, "unpadded", (UNPADDED, overfeat.TABLE["accurate"][1]))
    model = overfeat.OverFeat(
        net="unpadded", width=0.03, num_classes=5, boxes=boxes, window=UNPADDED_SIDE, fine=True
    )
    assert model.geometry() == (UNPADDED_SIDE, UNPADDED_STEP)
    rng = np.random.default_rng(0)
    shapes = counting.abstract_variables(model, (UNPADDED_SIDE, UNPADDED_SIDE, 3))["params"]
    variables = {"params": integers(shapes, rng)}
    rows, columns = 4, 3
    size = [UNPADDED_SIDE + UNPADDED_STEP * (count - 1) for count in (rows, columns)]
    image = jnp.asarray(rng.integers(-1, 2, (1, *size, 3)), jnp.float32)
    apply = jax.jit(functools.partial(endpoints, model))
    whole = apply(variables, image)

    windows = model.geometry().windows(rows, columns).astype(int).reshape(-1, 4)
    crops = jnp.concatenate([image[:, y1:y2, x1:x2] for y1, x1, y2, x2 in windows.tolist()])
    edges = apply(variables, crops)["box3"]
    assert len(np.unique(edges)) > 10  # it does tell windows apart
    per_window = (4,) if boxes == "shared" else (5, 4)
    assert whole["box3"].shape == (1, rows, columns, *per_window)
    np.testing.assert_array_equal(whole["box3"].reshape(-1, *per_window), edges[:, 0, 0])


def test_the_classifier_is_the_same_with_a_regressor():
    fields = {"width": 0.02, "num_classes": 3, "conv1_stride": 1, "window": 36}
    plain = overfeat.Model("fast", **fields)
    model = overfeat.Model("fast", boxes="shared", **fields)
    image = jnp.asarray(np.random.default_rng(0).normal(size=(1, 44, 44, 3)), jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(0), image)
    without = {name: layer for name, layer in variables["params"].items() if "box" not in name}
    alone = jax.jit(plain.init)(jax.random.key(0), image)["params"]
    jax.tree.map(np.testing.assert_array_equal, without, alone)
    logits, _ = jax.jit(model.apply)(variables, image)
    expected, _ = jax.jit(plain.apply)({"params": without}, image)
    np.testing.assert_array_equal(logits, expected)
    names: list[str] = []
    jax.eval_shape(lambda v, x: names.extend(model.apply(v, x)[1]), variables, image)
    assert names[-1] == "fc8"  # `evaluation.scores` takes the last endpoint for the map of scores


@pytest.mark.parametrize("boxes", overfeat.BOXES)
def test_the_regressor_starts_from_the_window_itself(boxes):
    fields = {"width": 0.05, "num_classes": 3, "conv1_stride": 1, "window": 36}
    model = overfeat.Model("fast", boxes=boxes, weight_init="he", **fields)
    blank = jnp.zeros((1, 44, 44, 3))
    (_, ends), _ = jax.jit(model.init_with_output)(jax.random.key(0), blank)
    edges = np.asarray(ends["box3"])
    np.testing.assert_array_equal(edges, np.broadcast_to([0.0, 0.0, 1.0, 1.0], edges.shape))


def test_an_unknown_regressor_is_refused():
    with pytest.raises(ValueError, match=r"unknown model\.boxes 'both'; there are: None, shared"):
        overfeat.Model("fast", boxes="both")
