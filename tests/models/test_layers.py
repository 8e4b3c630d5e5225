"""Shared layers against the papers' formulas and against torch."""

import contextlib
import functools
import itertools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_papers.models.shared import fusion, kernel_gradients, layers, pooling


def random(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def nchw(x):
    torch = pytest.importorskip("torch")
    return torch.from_numpy(np.asarray(x).transpose(0, 3, 1, 2).copy())


def nhwc(x):
    return x.numpy().transpose(0, 2, 3, 1)


def paper_response_norm(a, n, k, alpha, beta):
    """Returns b_i = a_i / (k + alpha · Σ a_j²)^beta, channel by channel (AlexNet §3.3).

    The sum is over j from max(0, i - n/2) to min(N - 1, i + n/2).
    """
    b = np.empty_like(a)
    channels = a.shape[-1]
    for i in range(channels):
        total = np.zeros(a.shape[:-1])
        for j in range(max(0, i - n // 2), min(channels - 1, i + n // 2) + 1):
            total += a[..., j].astype(np.float64) ** 2
        b[..., i] = a[..., i] / (k + alpha * total) ** beta
    return b


@pytest.mark.parametrize(
    "n, k, alpha, beta", [(5, 2.0, 1e-4, 0.75), (5, 1.0, 0.1, 0.75), (3, 2.0, 0.5, 0.5)]
)
def test_response_normalisation_is_the_papers_formula(n, k, alpha, beta):
    a = 10 * random(2, 3, 4, 7)
    got = layers.local_response_norm(a, n=n, k=k, alpha=alpha, beta=beta)
    np.testing.assert_allclose(got, paper_response_norm(a, n, k, alpha, beta), rtol=1e-5)


def test_response_normalisation_of_fewer_channels_than_neighbours():
    a = random(1, 2, 2, 2)
    np.testing.assert_allclose(
        layers.local_response_norm(a), paper_response_norm(a, 5, 2.0, 1e-4, 0.75), rtol=1e-5
    )


@pytest.mark.parametrize("n", [3, 5])
def test_torch_and_caffe_divide_alpha_by_the_neighbours(n):
    torch = pytest.importorskip("torch")
    a, alpha = 10 * random(2, 3, 4, 9), 0.02
    theirs = nhwc(torch.nn.LocalResponseNorm(n, alpha=alpha * n, beta=0.75, k=2.0)(nchw(a)))
    np.testing.assert_allclose(layers.local_response_norm(a, n=n, alpha=alpha), theirs, rtol=1e-5)
    same_alpha = nhwc(torch.nn.LocalResponseNorm(n, alpha=alpha, beta=0.75, k=2.0)(nchw(a)))
    assert np.abs(layers.local_response_norm(a, n=n, alpha=alpha) - same_alpha).max() > 0.01


def test_response_normalisation_sums_in_float32_and_keeps_the_type():
    a = 30 * random(1, 2, 2, 8)
    got = layers.local_response_norm(jnp.asarray(a, jnp.bfloat16))
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got.astype(jnp.float32), layers.local_response_norm(a), rtol=0.02)


@pytest.mark.parametrize(
    "window, stride, padding", [(2, 2, 0), (3, 2, 0), (3, 2, 1), (3, 3, 0), (3, 1, 1), (2, 3, 1)]
)
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_max_pooling_is_torchs(window, stride, padding, ceil_mode):
    torch = pytest.importorskip("torch")
    pool = torch.nn.MaxPool2d(window, stride, padding, ceil_mode=ceil_mode)
    ours = jax.jit(
        lambda x: pooling.max_pool(x, window, stride, padding=padding, ceil_mode=ceil_mode)
    )
    for h, w in ((3, 5), (4, 6), (7, 9), (8, 13), (5, 4)):
        x = random(1, h, w, 2) - 5  # below zero: padding by zeros would show
        np.testing.assert_array_equal(ours(x), nhwc(pool(nchw(x))), err_msg=f"{h}×{w}")


@pytest.mark.parametrize("one_cpu", [True, False])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("window, stride, padding", [(2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 0)])
def test_the_gradient_of_max_pooling_is_that_of_flax_to_the_bit(
    window, stride, padding, dtype, one_cpu
):
    """Ties too, of which there are many among four values: the first maximum takes all."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 4, (3, 2, 7, 8, 2)), dtype)

    def ours(x):
        return pooling.max_pool(x, window, stride, padding=padding)

    def flax(x):
        pads = ((padding, padding), (padding, padding))
        return nn.max_pool(x, (window, window), (stride, stride), pads)

    shape = jax.eval_shape(jax.vmap(ours), x).shape
    gradient = jnp.asarray(rng.normal(size=shape), dtype)

    def vjp(pool, x, gradient):
        with fusion.on_one_cpu() if one_cpu else contextlib.nullcontext():
            return jax.vjp(jax.vmap(pool), x)[1](gradient)[0]

    got, expected = (jax.jit(functools.partial(vjp, pool))(x, gradient) for pool in (ours, flax))
    np.testing.assert_array_equal(got, expected)


def test_a_program_apart_stays_one_when_compiled():
    def program(x):
        doubled = fusion.apart(lambda x: jnp.where(x > 0, 2 * x, 0), x)
        return jnp.maximum(doubled[1:], doubled[:-1])

    assert jax.jit(program).lower(random(9)).compile().as_text().count(" call(") == 1


def test_the_papers_maps_need_ceil_mode():
    def side(ceil_mode):
        pool = functools.partial(pooling.max_pool, window=3, stride=2, ceil_mode=ceil_mode)
        return jax.eval_shape(pool, jnp.zeros((1, 112, 112, 1))).shape[1]

    assert (side(True), side(False)) == (56, 55)  # GoogLeNet, Table 1


@pytest.mark.parametrize("m, h, w", [(1, 5, 7), (2, 5, 7), (4, 14, 13), (6, 13, 13), (4, 3, 2)])
def test_pooling_into_bins_is_torchs_adaptive_pooling(m, h, w):
    torch = pytest.importorskip("torch")
    x = random(2, h, w, 3)
    mean, largest = torch.nn.AdaptiveAvgPool2d(m), torch.nn.AdaptiveMaxPool2d(m)
    ours = jax.jit(pooling.pool_into_bins, static_argnums=(1, 2))
    np.testing.assert_allclose(ours(x, m, jnp.mean), nhwc(mean(nchw(x))), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(ours(x, m, jnp.max), nhwc(largest(nchw(x))))


def test_fully_connected_at_its_own_size_is_a_matrix_product():
    x, layer = random(3, 4, 5, 2), layers.FullyConnected(6, bias_init=jax.nn.initializers.normal())
    params = jax.jit(layer.init)(jax.random.key(0), x)
    kernel, bias = params["params"]["kernel"], params["params"]["bias"]
    assert kernel.shape == (4, 5, 2, 6)
    want = x.reshape(3, -1) @ np.asarray(kernel).reshape(-1, 6) + np.asarray(bias)
    np.testing.assert_allclose(layer.apply(params, x), want[:, None, None, :], rtol=1e-4, atol=1e-5)


def test_fully_connected_slides_over_a_larger_map():
    layer = layers.FullyConnected(6, bias_init=jax.nn.initializers.normal())
    params = jax.jit(layer.init)(jax.random.key(0), random(1, 3, 2, 4))
    larger = random(2, 5, 6, 4)
    scores = layer.apply(params, larger)
    assert scores.shape == (2, 3, 5, 6)
    for top, left in itertools.product(range(3), range(5)):
        window = layer.apply(params, larger[:, top : top + 3, left : left + 2])
        np.testing.assert_allclose(scores[:, top, left], window[:, 0, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "size, groups, stride, padding",
    [
        (5, 1, 1, 0),
        (5, 2, 1, 1),
        (5, 3, 2, 2),
        (1, 1, 1, 0),
        (1, 1, 2, 0),
        (1, 2, 3, 0),
        (1, 1, 2, 1),
    ],
)
def test_convolution_and_its_gradients_are_torchs(size, groups, stride, padding):
    torch = pytest.importorskip("torch")
    x = random(2, 9, 10, 6)
    layer = layers.Conv(
        12, size, stride, padding, groups=groups, bias_init=jax.nn.initializers.normal()
    )
    params = jax.jit(layer.init)(jax.random.key(0), x)
    gradient = random(*jax.eval_shape(layer.apply, params, x).shape)

    @jax.jit
    def values_and_gradients(params, x):
        values, vjp = jax.vjp(layer.apply, params, x)
        return values, *vjp(gradient)

    ours, of_params, of_x = values_and_gradients(params, x)

    kernel, bias = (np.array(params["params"][name]) for name in ("kernel", "bias"))
    assert kernel.shape == (size, size, 6 // groups, 12)
    weight = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()).requires_grad_()
    their_bias, their_x = torch.from_numpy(bias).requires_grad_(), nchw(x).requires_grad_()
    theirs = torch.nn.functional.conv2d(their_x, weight, their_bias, stride, padding, groups=groups)
    theirs.backward(nchw(gradient))
    pairs = (
        (ours, nhwc(theirs.detach())),
        (of_x, nhwc(their_x.grad)),
        (of_params["params"]["kernel"], weight.grad.numpy().transpose(2, 3, 1, 0)),
        (of_params["params"]["bias"], their_bias.grad.numpy()),
    )
    for our_values, their_values in pairs:
        np.testing.assert_allclose(our_values, their_values, rtol=1e-4, atol=1e-4)


def test_a_grouped_convolution_is_not_xlas():
    x = random(1, 5, 5, 4)
    layer = layers.Conv(4, 3, groups=2)
    program = str(jax.make_jaxpr(layer.init_with_output)(jax.random.key(0), x))
    assert program.count("conv_general_dilated") == 2
    assert program.count("feature_group_count=1") == 2


@pytest.mark.parametrize(
    "platform, products, convolutions", [("cpu", 3, 0), ("cuda", 0, 3), ("tpu", 0, 3)]
)
def test_a_1x1_convolution_is_a_product_on_cpu_only(platform, products, convolutions):
    """XLA's compiler for GPUs aborts on some of the products.

    XLA on CPU copies transposed activations where three axes are contracted.
    """
    x, layer = random(2, 3, 5, 4), layers.Conv(6, size=1, stride=2, use_bias=False)
    params = jax.jit(layer.init)(jax.random.key(0), x)
    step = jax.jit(
        jax.value_and_grad(lambda params, x: (layer.apply(params, x) ** 2).sum(), (0, 1))
    )
    program = step.trace(params, x).lower(lowering_platforms=(platform,)).as_text()
    assert program.count("stablehlo.dot_general") == products
    assert program.count("stablehlo.convolution") == convolutions
    contracted = re.findall(r"contracting_dims = \[([\d, ]+)\]", program)
    assert [len(axes.split(",")) for axes in contracted] == [1] * products


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_1x1_convolution_and_its_product_are_equal(stride):
    """On a CPU, the values of what other platforms run."""
    x, kernel = random(2, 7, 5, 4), random(1, 1, 4, 6)
    pairs = []
    for layer in (layers.product, layers._one_by_one):
        output, vjp = jax.vjp(functools.partial(layer, stride), x, kernel)
        pairs.append((output, *vjp(jnp.cos(output))))
    for ours, theirs in zip(*pairs, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def gradients_of(layer, params, x, gradient, *, one_cpu):
    @jax.jit
    def vjp(params, x):
        with kernel_gradients.on_one_cpu() if one_cpu else contextlib.nullcontext():
            return jax.vjp(layer.apply, params, x)[1](gradient)

    return vjp(params, x)


@pytest.mark.parametrize(
    "size, groups, stride, padding, shape, block, dtype",
    [
        (3, 1, 1, 1, (3, 9, 10, 4), 1, jnp.float32),
        (3, 1, 1, 1, (3, 9, 10, 4), 300, jnp.float32),
        (3, 1, 1, 1, (3, 9, 10, 4), 300, jnp.bfloat16),
        (3, 1, 2, 1, (3, 9, 10, 4), 100, jnp.float32),
        (3, 2, 2, 0, (2, 8, 11, 4), 100, jnp.float32),
        (7, 1, 2, 3, (2, 15, 12, 3), 100_000, jnp.float32),
        (2, 1, 3, 0, (2, 8, 9, 2), 50, jnp.float32),  # a stride beyond the kernel
        (3, 1, 1, 1, (1, 1, 1, 4), 1, jnp.float32),
        (3, 1, 1, 1, (3, 9, 10, 4), None, jnp.float32),  # all at once
        (3, 1, 1, 1, (3, 9, 10, 4), None, jnp.bfloat16),
        (7, 2, 2, 3, (2, 15, 12, 4), None, jnp.float32),
        (2, 1, 3, 0, (2, 8, 9, 2), None, jnp.float32),
        (3, 1, 1, 1, (3, 9, 10, 4), "products", jnp.float32),
        (3, 1, 1, 1, (3, 9, 10, 4), "products", jnp.bfloat16),
        (7, 2, 2, 3, (2, 15, 12, 4), "products", jnp.float32),
        (2, 1, 3, 0, (2, 8, 9, 2), "products", jnp.float32),
        (1, 1, 1, 0, (2, 7, 5, 4), None, jnp.float32),
        (1, 2, 2, 0, (2, 7, 5, 4), None, jnp.bfloat16),
        (1, 1, 1, 1, (2, 7, 5, 4), None, jnp.float32),  # padded
    ],
)
def test_gradients_on_one_cpu_are_those_of_the_plain_convolution(
    size, groups, stride, padding, shape, block, dtype, monkeypatch
):
    """A block is one row, some rows that cross images, or everything."""
    x = jnp.asarray(random(*shape), dtype)
    layer = layers.Conv(6, size, stride, padding, groups=groups, dtype=dtype)
    params = jax.jit(layer.init)(jax.random.key(0), x)
    gradient = jnp.asarray(random(*jax.eval_shape(layer.apply, params, x).shape), dtype)
    plain = gradients_of(layer, params, x, gradient, one_cpu=False)
    if block == "products":
        monkeypatch.setattr(kernel_gradients, "WIDE", 0)
    elif block:
        monkeypatch.setattr(kernel_gradients, "BLOCK", block)
        monkeypatch.setattr(kernel_gradients, "SMALLEST", 0)
    ours = gradients_of(layer, params, x, gradient, one_cpu=True)
    tolerance = 1e-4 if dtype == jnp.float32 else 0.02
    for got, want in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        assert got.dtype == want.dtype
        got, want = (np.asarray(value, np.float32) for value in (got, want))
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max())


def test_gradients_in_blocks_under_vmap(monkeypatch):
    monkeypatch.setattr(kernel_gradients, "BLOCK", 50)
    monkeypatch.setattr(kernel_gradients, "SMALLEST", 0)
    x, kernel = random(3, 2, 6, 5, 2), random(3, 3, 2, 4)

    def of_kernel(convolve, x):
        return jax.grad(lambda kernel: jnp.sin(convolve(x, kernel, 1, 1)).sum())(kernel)

    ours, plain = (
        jax.vmap(functools.partial(of_kernel, module.convolve))(x)
        for module in (kernel_gradients, layers)
    )
    np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-4)


def test_a_small_map_has_no_loop():
    def program(shape):
        kernel, x = jnp.zeros((3, 3, 4, 64)), jnp.zeros(shape)
        values = functools.partial(kernel_gradients.convolve, stride=1, padding=1)
        return str(jax.make_jaxpr(jax.grad(lambda kernel: values(x, kernel).sum()))(kernel))

    assert "while" in program((8, 32, 32, 4)) or "scan" in program((8, 32, 32, 4))
    assert not {"while", "scan"} & set(program((8, 31, 32, 4)).replace("[", " ").split())
