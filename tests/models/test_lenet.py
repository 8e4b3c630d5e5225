"""LeNet-5 against the paper: parameters and connections, Table I, subsampling, squashing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_papers import counting
from cnn_papers.models import lenet

# Table I as printed: rows are maps of S2, columns maps of C3.
TABLE_I = """
X . . . X X X . . X X X X . X X
X X . . . X X X . . X X X X . X
X X X . . . X X X . . X . X X X
. X X X . . X X X X . . X . X X
. . X X X . . X X X X . X X . X
. . . X X X . . X X X X . X X X
"""


def build(variant="original", **fields):
    """Returns the network's compiled `apply` and random variables."""
    model = lenet.Model(variant, **fields)
    random = np.random.default_rng(0)
    shapes = counting.abstract_variables(model, (32, 32, 1))
    variables = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), shapes)
    return jax.jit(model.apply), variables


def test_layers_have_the_parameters_the_paper_prints():
    rows = {row.name: row for row in counting.count(lenet.Model(), (32, 32, 1)).layers}
    printed = {"C1": 156, "S2": 12, "C3": 1_516, "S4": 32, "C5": 48_120, "F6": 10_164}
    assert {name: rows[name].params for name in printed} == printed
    assert sum(printed.values()) == 60_000
    assert rows["C1"].macs + 6 * 28 * 28 == 122_304  # the paper's connections count the bias
    assert rows["C3"].macs + 16 * 10 * 10 == 151_600


def test_c3_reads_the_maps_that_table_i_marks():
    marked = np.array(
        [[cell == "X" for cell in line.split()] for line in TABLE_I.strip().splitlines()]
    )
    assert marked.sum() == 60
    layer = lenet.TableConv(lenet.CONNECTIONS, lenet.uniform_by_fan_in)
    only = np.eye(6, dtype=np.float32)[:, None, None]  # image k is zero on all maps but k
    maps = np.broadcast_to(only, (6, 5, 5, 6))
    variables = jax.jit(layer.init)(jax.random.key(1, impl="rbg"), maps)
    np.testing.assert_array_equal(jax.jit(layer.apply)(variables, maps)[:, 0, 0] != 0, marked)
    largest = jnp.abs(variables["params"]["map15"]["kernel"]).max()
    assert 0.8 * 2.4 / 150 < largest <= 2.4 / 150


def test_subsampling_sums_scales_and_shifts_each_map():
    layer = lenet.Subsampling()
    maps = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    coefficient, bias = (
        np.array([0.5, -1.0, 2.0], np.float32),
        np.array([0.0, 1.0, -3.0], np.float32),
    )
    got = jax.jit(layer.apply)({"params": {"coefficient": coefficient, "bias": bias}}, maps)
    sums = maps.reshape(2, 2, 2, 3, 2, 3).sum((2, 4))
    np.testing.assert_allclose(got, sums * coefficient + bias, rtol=1e-5, atol=1e-5)


def test_squashing_passes_through_one_and_saturates_at_its_amplitude():
    values = lenet.squash(jnp.array([-1.0, 0.0, 1.0, 100.0]))
    np.testing.assert_allclose(values, [-1, 0, 1, 1.7159], atol=1e-4)


def test_the_original_squashes_up_to_f6_and_is_linear_after():
    apply, variables = build()
    _, ends = apply(variables, np.random.default_rng(1).normal(size=(2, 32, 32, 1)))
    for name in ("C1", "S2", "C3", "S4", "C5", "F6"):
        assert 1.5 < jnp.abs(ends[name]).max() <= 1.7159, name
    assert jnp.abs(ends["output"]).max() > 1.7159


def test_weights_start_within_two_point_four_over_fan_in():
    image = np.zeros((1, 32, 32, 1), np.float32)
    params = jax.jit(lenet.Model(connections="full").init)(jax.random.key(0, impl="rbg"), image)[
        "params"
    ]
    for name, inputs in {"C1": 25, "C3": 150, "C5": 400, "F6": 120, "output": 84}.items():
        largest = jnp.abs(params[name]["kernel"]).max()
        assert 0.8 * 2.4 / inputs < largest <= 2.4 / inputs, name
        assert not params[name]["bias"].any()
    assert 0 < jnp.abs(params["S4"]["coefficient"]).max() <= 2.4 / 4


def test_larger_images_give_maps_of_scores():
    apply, variables = build("relu")
    image = np.random.default_rng(1).normal(size=(2, 36, 40, 1)).astype(np.float32)
    logits, ends = apply(variables, image)
    assert ends["output"].shape == (2, 2, 3, 10)
    corner, _ = apply(variables, image[:, :32, :32])
    np.testing.assert_allclose(ends["output"][:, 0, 0], corner, rtol=1e-4)
    np.testing.assert_allclose(logits, ends["output"].mean((1, 2)), rtol=1e-4)


@pytest.mark.parametrize("width, maps", [(0.25, (3, 4)), (0.5, (3, 8)), (2.0, (12, 32))])
def test_width_keeps_every_map_connected(width, maps):
    params = counting.abstract_variables(lenet.Model(width=width), (32, 32, 1))["params"]
    read = [layer["kernel"].shape[2] for layer in params["C3"].values()]
    assert params["C1"]["kernel"].shape[-1] == maps[0] and len(read) == maps[1]
    assert min(read) >= 1
    if width > 1:
        assert sum(read) == 4 * 60  # Table I's connections, with twice the maps on both sides


def test_unknown_values_and_small_images_are_refused():
    with pytest.raises(
        ValueError, match=r"unknown model\.variant 'lenet1'; there are: original, relu"
    ):
        lenet.Model("lenet1")
    with pytest.raises(
        ValueError, match=r"unknown model\.pooling 'average'; there are: subsample, max"
    ):
        lenet.Model(pooling="average")
    jax.eval_shape(lenet.Model().init, jax.random.key(0), jnp.zeros((1, 16, 16, 1)))
    with pytest.raises(ValueError, match="an image of 15×15 is too small: S4 has no pixels left"):
        jax.eval_shape(lenet.Model().init, jax.random.key(0), jnp.zeros((1, 15, 15, 1)))
