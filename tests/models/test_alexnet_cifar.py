"""AlexNet's CIFAR network: cuda-convnet's pooling, initial weights, variants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_papers import counting
from cnn_papers.models import alexnet_cifar


@pytest.mark.parametrize("h, w, shape", [(16, 16, (8, 8)), (15, 8, (7, 4)), (5, 2, (2, 1))])
def test_average_pooling_rounds_up_and_ignores_pixels_outside(h, w, shape):
    x = np.random.default_rng(0).normal(size=(2, h, w, 3)).astype(np.float32)
    got = jax.jit(alexnet_cifar.average_pool)(x)
    expected = np.empty((2, *shape, 3), np.float32)
    for i in range(shape[0]):
        for j in range(shape[1]):
            expected[:, i, j] = x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].mean((1, 2))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_pooling_that_does_not_overlap_keeps_the_shapes_and_reads_every_pixel_once():
    image = np.random.default_rng(0).normal(size=(1, 5, 4, 2)).astype(np.float32)
    means = alexnet_cifar.average_pool(jnp.asarray(image), 2, 2)
    np.testing.assert_allclose(means[:, 1, 1], image[:, 2:4, 2:4].mean((1, 2)), rtol=1e-5)
    half_window = image[:, 4:, 2:4].mean((1, 2))
    np.testing.assert_allclose(means[:, 2, 1], half_window, rtol=1e-5)
    both = [
        counting.count(alexnet_cifar.Model(pool=pool), (32, 32, 3)) for pool in ((3, 2), (2, 2))
    ]
    assert both[0] == both[1]
    with pytest.raises(
        ValueError, match=r"unknown model\.pool '\(3, 3\)'; there are: \(3, 2\), \(2, 2\)"
    ):
        alexnet_cifar.Model(pool=(3, 3))


def test_weights_start_as_in_the_published_file():
    image = np.zeros((1, 32, 32, 3), np.float32)
    params = jax.jit(alexnet_cifar.Model().init)(jax.random.key(0, impl="rbg"), image)["params"]
    for name, std in {"conv1": 1e-4, "conv2": 1e-2, "conv3": 1e-2, "fc10": 1e-2}.items():
        np.testing.assert_allclose(params[name]["kernel"].std(), std, rtol=0.05, err_msg=name)
        assert not params[name]["bias"].any()


def test_variants_differ_only_in_activation_and_normalisation():
    random = np.random.default_rng(0)
    shapes = counting.abstract_variables(alexnet_cifar.Model(), (32, 32, 3))
    variables = jax.tree.map(
        lambda leaf: random.normal(scale=1e-3, size=leaf.shape).astype(np.float32), shapes
    )
    image = random.normal(size=(2, 32, 32, 3)).astype(np.float32)
    ends = {
        v: jax.jit(alexnet_cifar.Model(v).apply)(variables, image)[1]
        for v in alexnet_cifar.VARIANTS
    }
    relu, tanh, lrn = ends["relu"], ends["tanh"], ends["relu_lrn"]
    assert relu["conv1"].min() == 0 and tanh["conv1"].min() < 0
    np.testing.assert_allclose(tanh["conv1"].clip(0), np.tanh(relu["conv1"]), rtol=1e-5)
    assert set(lrn) - set(relu) == {"norm1", "norm2"}
    # the responses are so small that only k = 2 divides them
    np.testing.assert_allclose(lrn["norm1"], relu["pool1"] * 2**-0.75, rtol=1e-3)


def test_unknown_values_and_small_images_are_refused():
    with pytest.raises(
        ValueError, match=r"unknown model\.activation 'elu'; there are: relu, tanh, sigmoid"
    ):
        alexnet_cifar.Model(activation="elu")
    with pytest.raises(
        ValueError, match=r"unknown model\.variant 'paper'; there are: relu, tanh, relu_lrn"
    ):
        alexnet_cifar.Model("paper")
    init = alexnet_cifar.Model().init
    jax.eval_shape(init, jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    with pytest.raises(ValueError, match="an image of 7×7 is too small: pool3 has no pixels left"):
        jax.eval_shape(init, jax.random.key(0), np.zeros((1, 7, 7, 3), np.float32))
