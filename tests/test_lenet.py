"""LeNet-5 against the text of the paper: parameters and connections of every layer, Table I, subsampling, squashing."""

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


def build(variant="original", side=32, **fields):
    model = lenet.Model(variant, **fields)
    image = jax.random.normal(jax.random.key(0), (2, side, side, 1))
    return model, jax.jit(model.init)(jax.random.key(1), image), image


def test_layers_have_the_parameters_the_paper_prints():
    rows = {row.name: row for row in counting.count(lenet.Model(), (32, 32, 1)).layers}
    printed = {"C1": 156, "S2": 12, "C3": 1_516, "S4": 32, "C5": 48_120, "F6": 10_164}
    assert {name: rows[name].params for name in printed} == printed
    assert sum(printed.values()) == 60_000
    assert rows["C1"].macs + 6 * 28 * 28 == 122_304  # the paper's connections count the bias
    assert rows["C3"].macs + 16 * 10 * 10 == 151_600


def test_c3_reads_the_maps_that_table_i_marks():
    marked = np.array([[cell == "X" for cell in line.split()] for line in TABLE_I.strip().splitlines()])
    assert marked.sum() == 60
    layer = lenet.TableConv(lenet.CONNECTIONS, lenet.uniform_by_fan_in)
    maps = jax.random.normal(jax.random.key(0), (1, 5, 5, 6))
    variables = layer.init(jax.random.key(1), maps)
    slopes = jax.jacobian(lambda x: layer.apply(variables, x)[0, 0, 0])(maps)[:, 0]  # [16, 5, 5, 6]
    np.testing.assert_array_equal((slopes != 0).all((1, 2)), marked.T)
    np.testing.assert_array_equal((slopes != 0).any((1, 2)), marked.T)


def test_subsampling_sums_scales_and_shifts_each_map():
    layer = lenet.Subsampling()
    maps = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    coefficient, bias = np.array([0.5, -1.0, 2.0], np.float32), np.array([0.0, 1.0, -3.0], np.float32)
    got = layer.apply({"params": {"coefficient": coefficient, "bias": bias}}, maps)
    sums = maps.reshape(2, 2, 2, 3, 2, 3).sum((2, 4))
    np.testing.assert_allclose(got, sums * coefficient + bias, rtol=1e-5, atol=1e-5)


def test_squashing_passes_through_one_and_saturates_at_its_amplitude():
    values = lenet.squash(jnp.array([-1.0, 0.0, 1.0, 100.0]))
    np.testing.assert_allclose(values, [-1, 0, 1, 1.7159], atol=1e-4)


def test_activations_of_the_original_are_squashed_up_to_f6_and_linear_after():
    model, variables, image = build()
    _, ends = model.apply(jax.tree.map(lambda p: 50 * p, variables), image)
    for name in ("C1", "S2", "C3", "S4", "C5", "F6"):
        assert 1.5 < jnp.abs(ends[name]).max() <= 1.7159, name
    assert jnp.abs(ends["output"]).max() > 1.7159


def test_weights_start_within_two_point_four_over_fan_in():
    _, variables, _ = build()
    params = variables["params"]
    fan_in = {"C1": 25, "C5": 400, "F6": 120, "output": 84}
    for name, inputs in fan_in.items():
        largest = jnp.abs(params[name]["kernel"]).max()
        assert 0.8 * 2.4 / inputs < largest <= 2.4 / inputs, name
    assert jnp.abs(params["C3"]["map15"]["kernel"]).max() <= 2.4 / 150
    assert jnp.abs(params["S4"]["coefficient"]).max() <= 2.4 / 4


def test_larger_images_give_maps_of_scores():
    model, variables, image = build()
    wide = jax.random.normal(jax.random.key(2), (2, 36, 40, 1))
    logits, ends = model.apply(variables, wide)
    assert ends["output"].shape == (2, 2, 3, 10)
    corner, _ = model.apply(variables, wide[:, :32, :32])
    np.testing.assert_allclose(ends["output"][:, 0, 0], corner, atol=1e-5)
    np.testing.assert_allclose(logits, ends["output"].mean((1, 2)), atol=1e-6)
    assert image.shape[1:3] == (32, 32)


@pytest.mark.parametrize("width, maps", [(0.25, (3, 4)), (0.5, (3, 8)), (2.0, (12, 32))])
def test_width_keeps_every_map_connected(width, maps):
    _, variables, _ = build(width=width)
    c3 = variables["params"]["C3"]
    assert variables["params"]["C1"]["kernel"].shape[-1] == maps[0] and len(c3) == maps[1]
    assert all(c3[name]["kernel"].shape[2] >= 1 for name in c3)
    assert c3[f"map{maps[1] - 1}"]["kernel"].shape[2] == maps[0]  # the last map reads all


def test_what_is_unknown_or_too_small_is_refused():
    with pytest.raises(ValueError, match="unknown model.variant 'lenet1'; there are: original, relu"):
        lenet.Model("lenet1")
    with pytest.raises(ValueError, match="unknown model.pooling 'average'; there are: subsample, max"):
        lenet.Model(pooling="average")
    with pytest.raises(ValueError, match=r"S4 has no pixels left; the smallest square image .* is 16×16"):
        build(side=15)
