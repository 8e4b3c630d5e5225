"""DenseNet: connections, depth, memory."""

import functools
import math
import re

import jax
import numpy as np
import pytest
from support.random_variables import random_variables

from cnn_papers import counting
from cnn_papers.models import densenet

SMALL = {"blocks": (3, 2, 1), "width": 0.5, "num_classes": 5}
IMAGE = np.random.default_rng(1).normal(size=(2, 16, 16, 3)).astype(np.float32)


@pytest.mark.parametrize("variant", ["121", "40-12", "B-40-12", "C-40-12", "BC-100-12"])
def test_the_name_is_the_number_of_weight_layers(variant):
    image = densenet.FACTS[variant].input  # of which the network is traced already
    params = counting.abstract_variables(densenet.Model(variant), image)["params"]
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 4]
    assert len(kernels) == int(re.search(r"\d+", variant)[0])


def test_every_layer_reads_all_before_it_in_its_block():
    params = counting.abstract_variables(densenet.Model("BC-100-12"), (32, 32, 3))["params"]
    for i in range(1, 17):
        layer = params["block1"][f"layer{i}"]
        assert layer["conv1"]["kernel"].shape == (1, 1, 24 + 12 * (i - 1), 48)
        assert layer["conv2"]["kernel"].shape == (3, 3, 48, 12)
    assert params["transition1"]["conv"]["kernel"].shape == (1, 1, 216, 108)
    plain = counting.abstract_variables(densenet.Model("40-12"), (32, 32, 3))["params"]
    assert plain["block1"]["layer3"]["conv1"]["kernel"].shape == (3, 3, 16 + 24, 12)
    assert plain["transition1"]["conv"]["kernel"].shape == (1, 1, 160, 160)


@pytest.mark.process
def test_memory_efficient_computes_the_same_and_keeps_less():
    variables = random_variables(densenet.Model("BC-40-12", **SMALL), (16, 16, 3))

    def loss(params, model):
        (logits, _), _ = model.apply(
            {**variables, "params": params},
            IMAGE,
            train=True,
            rngs={"dropout": jax.random.key(0)},
            mutable=["batch_stats"],
        )
        return (logits**2).mean()

    gradients, kept = [], []
    for memory_efficient in (False, True):
        model = densenet.Model("BC-40-12", **SMALL, dropout=0.2, memory_efficient=memory_efficient)
        gradients.append(
            jax.jit(jax.grad(functools.partial(loss, model=model)))(variables["params"])
        )
        backward = jax.eval_shape(
            lambda params, model=model: jax.vjp(lambda p: loss(p, model), params)[1],
            variables["params"],
        )
        kept.append(sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(backward)))
    for plain, recomputed in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(recomputed, plain, rtol=1e-3, atol=1e-4 * np.abs(plain).max())
    assert kept[1] < kept[0] / 3


def test_an_unknown_stem_is_refused():
    with pytest.raises(
        ValueError, match=r"^unknown model\.stem 'vgg'; there are: imagenet, cifar$"
    ):
        densenet.Model("121", stem="vgg")
