"""GoogLeNet: Table 1's multiply-adds, and the differences of the variants."""

import jax
import numpy as np
import pytest
from support.random_variables import random_variables

from cnn_papers import counting
from cnn_papers.models import googlenet


def params(variant):
    return counting.abstract_variables(googlenet.Model(variant), (224, 224, 3))["params"]


def rows(variant):
    return {row.name: row for row in counting.count(googlenet.Model(variant), (224, 224, 3)).layers}


def test_modules_cost_what_table_1_says_in_millions():
    millions = {
        name: row.macs / 1e6 for name, row in rows("paper").items() if name.startswith("inception")
    }
    printed = {"3a": 128, "3b": 304, "4a": 73, "4b": 88, "4c": 100, "4d": 119, "4e": 170, "5b": 71}
    for name, ops in printed.items():
        assert abs(millions[f"inception_{name}"] - ops) < 0.7, name
    assert round(millions["inception_5a"], 1) == 51.1  # the table's 54 is a slip


def test_the_large_branch_is_5x5_and_torchvisions_is_3x3():
    for name in googlenet.AUXILIARY:
        assert params("paper")[name]["5x5"]["kernel"].shape[:2] == (5, 5)
        assert params("batch_norm")[name]["5x5"]["kernel"].shape[:2] == (5, 5)
        assert params("torchvision")[name]["5x5"]["kernel"].shape[:2] == (3, 3)


def test_the_separable_stem_is_table_1s_first_row():
    separable, full = rows("separable_stem"), rows("paper")
    stem = [separable[name] for name in ("conv1_depthwise", "conv1")]
    assert sum(row.params for row in stem) == 2_712 + 64  # and a bias for each channel
    assert round(sum(row.macs for row in stem) / 1e6) == 34
    assert {name for name in full if full[name].macs != separable[name].macs} == {"conv1"}
    assert round(googlenet.FACTS["separable_stem"].macs / 1e9, 2) == 1.50


def test_modules_without_reduction_cost_more_than_the_1x1_convolutions_save():
    naive, reduced = rows("naive"), rows("paper")
    assert naive["inception_3a"].shape == (28, 28, 64 + 128 + 32 + 192)
    assert naive["inception_3a"].macs == 28 * 28 * 192 * (64 + 9 * 128 + 25 * 32)
    assert all(
        naive[name].macs > 2 * reduced[name].macs for name in naive if name.startswith("inception")
    )
    assert set(params("naive")["inception_4b"]) == {"1x1", "3x3", "5x5"}


def test_batch_normalisation_replaces_biases():
    tree = params("batch_norm")
    assert set(tree["conv1"]) == {"kernel"} and set(tree["conv1_bn"]) == {"scale", "bias"}
    assert set(tree["aux_4a"]) == {"conv", "conv_bn", "fc1", "fc2"}
    convolutions = 3 + 9 * 6
    assert len(jax.tree.leaves(params("batch_norm_without_aux"))) == 3 * convolutions + 2


def test_auxiliary_heads_have_logits_only_in_training():
    model = googlenet.Model(width=0.0625, num_classes=5)
    variables = random_variables(model, (64, 64, 3))
    image = np.zeros((2, 64, 64, 3), np.float32)
    heads = {"aux_4a": (2, 5), "aux_4d": (2, 5)}
    for train, want in ((True, heads), (False, {})):
        _, ends = jax.eval_shape(
            lambda v, x, train=train: model.apply(
                v, x, train=train, rngs={"dropout": jax.random.key(0)}
            ),
            variables,
            image,
        )
        assert {name: end.shape for name, end in ends.items() if name.startswith("aux_")} == want


@pytest.mark.parametrize("name", ["paper", "batch_norm", "torchvision"])
def test_variants_without_auxiliary_heads_differ_only_in_them(name):
    assert set(params(name)) - set(params(f"{name}_without_aux")) == {"aux_4a", "aux_4d"}
    assert googlenet.Model(f"{name}_without_aux") == googlenet.Model(name, aux_heads=False)


def test_an_unknown_stem_is_refused():
    with pytest.raises(
        ValueError, match=r"^unknown model\.stem 'depthwise'; there are: full, separable$"
    ):
        googlenet.Model(stem="depthwise")
