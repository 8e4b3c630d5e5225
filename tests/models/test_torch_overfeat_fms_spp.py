"""OverFeat, CNN-F/M/S and SPP-net against the same networks in torch, with random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_papers import counting
from cnn_papers.models import cnn_fms, overfeat, spp

torch = pytest.importorskip("torch", reason="the references are written in torch")
functional = torch.nn.functional


def compare(model, native, size, reference):
    """Asserts that `model` and `reference(layer, images)` agree on images of `size`.

    The tolerance is 1e-4 of the largest score. `layer(name, x, **options)` is torch's convolution
    with the parameters of the layer `name`.
    """
    rng = np.random.default_rng(0)
    params = counting.abstract_variables(model, (*native, 3))["params"]

    def draw(leaf):
        fan_in = np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 100
        return rng.normal(0, np.sqrt(2 / fan_in), leaf.shape).astype(np.float32)

    params = jax.tree.map(draw, params)

    def layer(name, x, **options):
        kernel = torch.from_numpy(params[name]["kernel"].transpose(3, 2, 0, 1).copy())
        return functional.conv2d(x, kernel, torch.from_numpy(params[name]["bias"]), **options)

    image = rng.normal(size=(2, *size, 3)).astype(np.float32)
    logits, _ = jax.jit(model.apply)({"params": params}, jnp.asarray(image))
    expected = (
        reference(layer, torch.from_numpy(image.transpose(0, 3, 1, 2).copy())).mean((2, 3)).numpy()
    )
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def norm(x):
    # torch divides alpha by the 5 channels
    return functional.local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2.0)


def fully_connected(layer, x, *names):
    *hidden, last = names
    for name in hidden:
        x = layer(name, x).relu()
    return layer(last, x)


def test_overfeat_fast():
    def reference(layer, x):
        x = functional.max_pool2d(layer("conv1", x, stride=4).relu(), 2)
        x = functional.max_pool2d(layer("conv2", x).relu(), 2)
        for name in ("conv3", "conv4", "conv5"):
            x = layer(name, x, padding=1).relu()
        return fully_connected(layer, functional.max_pool2d(x, 2), "fc6", "fc7", "fc8")

    compare(overfeat.Model("fast", width=0.02, num_classes=6), (231, 231), (266, 301), reference)


def test_overfeat_accurate():
    def reference(layer, x):
        x = functional.max_pool2d(layer("conv1", x, stride=2).relu(), 3)
        x = functional.max_pool2d(layer("conv2", x).relu(), 2)
        for name in ("conv3", "conv4", "conv5", "conv6"):
            x = layer(name, x, padding=1).relu()
        return fully_connected(layer, functional.max_pool2d(x, 3), "fc7", "fc8", "fc9")

    compare(
        overfeat.Model("accurate", width=0.03, num_classes=6), (221, 221), (260, 295), reference
    )


# conv1's stride, conv2's stride and padding, whether conv2 is normalised, and the three poolings.
CNN_FMS = {
    "F": (4, 1, 2, True, (3, 2), (3, 2), (3, 2)),
    "M": (2, 2, 1, True, (3, 2), (3, 2), (3, 2)),
    "S": (2, 1, 1, False, (3, 3), (2, 2), (3, 3)),
}


@pytest.mark.parametrize("variant", CNN_FMS)
def test_cnn_fms(variant):
    stride1, stride2, padding2, norm2, pool1, pool2, pool5 = CNN_FMS[variant]

    def reference(layer, x):
        x = functional.max_pool2d(
            norm(layer("conv1", x, stride=stride1).relu()), *pool1, ceil_mode=True
        )
        x = layer("conv2", x, stride=stride2, padding=padding2).relu()
        x = functional.max_pool2d(norm(x) if norm2 else x, *pool2, ceil_mode=True)
        for name in ("conv3", "conv4", "conv5"):
            x = layer(name, x, padding=1).relu()
        return fully_connected(
            layer, functional.max_pool2d(x, *pool5, ceil_mode=True), "fc6", "fc7", "fc8"
        )

    compare(cnn_fms.Model(variant, width=0.04, num_classes=6), (224, 224), (261, 247), reference)


def pyramid(x, levels):
    """torch's adaptive pooling has the bins of SPP-net's arbitrary windows."""
    pooled = [
        functional.adaptive_max_pool2d(x, level).permute(0, 2, 3, 1).flatten(1) for level in levels
    ]
    return torch.cat(pooled, 1)[:, :, None, None]


@pytest.mark.parametrize(
    ("variant", "levels"), [("zf5", (6, 3, 2, 1)), ("zf5-30bins", (4, 3, 2, 1)), ("zf5-no-spp", ())]
)
def test_spp_zf5(variant, levels):
    def reference(layer, x):
        x = functional.max_pool2d(norm(layer("conv1", x, stride=2, padding=2).relu()), 3, 2)
        x = functional.max_pool2d(norm(layer("conv2", x, stride=2, padding=1).relu()), 3, 2)
        for name in ("conv3", "conv4", "conv5"):
            x = layer(name, x, padding=1).relu()
        x = pyramid(x, levels) if levels else functional.max_pool2d(x, 3, 2)
        return fully_connected(layer, x, "fc6", "fc7", "fc8")

    compare(spp.Model(variant, width=0.04, num_classes=6), (224, 224), (245, 301), reference)


def test_spp_convnet5():
    def reference(layer, x):
        x = norm(layer("conv1", x, stride=4, padding=2).relu())
        x = functional.max_pool2d(norm(layer("conv2", x, padding=2).relu()), 3, 2)
        x = functional.max_pool2d(layer("conv3", x, padding=1).relu(), 3, 2)
        for name in ("conv4", "conv5"):
            x = layer(name, x, padding=1).relu()
        return fully_connected(layer, pyramid(x, (6, 3, 2, 1)), "fc6", "fc7", "fc8")

    compare(spp.Model("convnet5", width=0.04, num_classes=6), (224, 224), (180, 213), reference)


def test_spp_overfeat7():
    def reference(layer, x):
        x = norm(functional.max_pool2d(layer("conv1", x, stride=2).relu(), 3))
        x = functional.max_pool2d(layer("conv2", x, padding=2).relu(), 2)
        for name in ("conv3", "conv4", "conv5", "conv6", "conv7"):
            x = layer(name, x, padding=1).relu()
        return fully_connected(layer, pyramid(x, (6, 3, 2, 1)), "fc6", "fc7", "fc8")

    compare(spp.Model("overfeat7", width=0.03, num_classes=6), (224, 224), (180, 213), reference)
