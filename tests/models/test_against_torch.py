"""Logits equal to torch's, with random weights and perturbed batch statistics."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from cnn_papers.models import alexnet, densenet, googlenet, resnet, vgg
from cnn_papers.weights import arithmetic, convert

torch = pytest.importorskip("torch", reason="the references are written in torch")
from support import torch_reference  # noqa: E402  (it needs torch)

CLASSES = 6
SMALL = {"width": 0.125, "num_classes": CLASSES}


class Pair(NamedTuple):
    """Our network with its file's name, torch's, and the image sizes to compare (native first)."""

    name: str
    model: Any
    reference: Any
    sizes: tuple[tuple[int, int], ...]


def vgg_pair(variant: str) -> Pair:
    model = vgg.Model(variant, **SMALL)
    counts = tuple(len(sizes) for sizes in model.stages)
    reference = functools.partial(torch_reference.vgg, counts, model.batch_norm, *SMALL.values())
    sizes = ((224, 224), (231, 225))  # at larger ones torch's averages and ours slides
    return Pair("vgg", model, reference, sizes)


def resnet_pair(variant: str) -> Pair:
    model = resnet.Model(variant, **SMALL)
    kind = (model.blocks, model.bottleneck, model.stride_in == "3x3")
    reference = functools.partial(torch_reference.ResNet, *kind, *SMALL.values())
    return Pair("resnet", model, reference, ((64, 64), (75, 61)))


def densenet_pair() -> Pair:
    model = densenet.Model("121", blocks=(3, 4, 2, 3), **SMALL)
    reference = functools.partial(torch_reference.densenet, model.blocks, 4, CLASSES)
    return Pair("densenet", model, reference, ((64, 64), (75, 61)))


PAIRS = {
    "alexnet": lambda: Pair(
        "alexnet",
        alexnet.Model("one_weird_trick", **SMALL),
        functools.partial(torch_reference.alexnet, *SMALL.values()),
        ((224, 224), (191, 256)),
    ),
    "vgg-A": lambda: vgg_pair("A"),
    "vgg-D-BN": lambda: vgg_pair("D-BN"),
    "resnet-18": lambda: resnet_pair("18"),
    "resnet-50": lambda: resnet_pair("50"),
    "resnet-50-v1.5": lambda: resnet_pair("50-v1.5"),
    "densenet-121": densenet_pair,
    "googlenet-torchvision": lambda: Pair(
        "googlenet",
        googlenet.Model("torchvision", dropout=0.0, aux_dropout=0.0, **SMALL),
        functools.partial(torch_reference.GoogLeNet, googlenet.TABLE, *SMALL.values()),
        ((64, 64), (107, 93)),
    ),
}


def perturb(module: Any) -> dict[str, np.ndarray]:
    """Fills a torch module with random weights and batch statistics; returns them by name."""
    random = np.random.default_rng(0)
    for name, tensor in module.state_dict().items():
        normal = random.normal(size=tuple(tensor.shape))
        if tensor.ndim > 1:
            normal *= np.sqrt(2 / np.prod(tensor.shape[1:]))
        elif name.endswith(("running_var", "weight")):
            normal = np.exp(0.3 * normal)
        else:
            normal *= 0.3
        tensor.copy_(torch.from_numpy(normal))
    return {
        name: tensor.numpy()
        for name, tensor in module.state_dict().items()
        if "num_batches" not in name
    }


def images(h: int, w: int) -> tuple[np.ndarray, Any]:
    """Returns the same two images for us, [n, h, w, c], and for torch, [n, c, h, w]."""
    image = np.random.default_rng(1).normal(size=(2, h, w, 3)).astype(np.float32)
    return image, torch.from_numpy(image.transpose(0, 3, 1, 2).copy())


def assert_close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-4 * float(theirs.abs().max()))


@pytest.fixture(scope="module", params=PAIRS)
def pair(request):
    name, model, make, sizes = PAIRS[request.param]()
    with torch.no_grad():
        reference = make().eval()
        state = perturb(reference)
    return name, model, reference, state, variables_of(state, name, model, sizes[0]), sizes


def variables_of(state: dict[str, np.ndarray], name: str, model: Any, size: tuple[int, int]) -> Any:
    """Returns torch's weights in our layout; asserts that none of ours is left without."""
    origin = arithmetic.Origin(arithmetic.fields_of(model))
    source = convert.from_torch(state, name, model, (*size, 3), place="torch", origin=origin)
    arrays, fresh = convert.select(source, model, (*size, 3))
    assert not fresh
    return convert.put({}, arrays, model)


def test_logits_are_torchs_at_even_and_odd_sizes(pair):
    _, model, reference, _, variables, sizes = pair
    apply = jax.jit(lambda variables, image: model.apply(variables, image)[0])
    for size in sizes:
        image, theirs = images(*size)
        with torch.no_grad():
            expected = reference(theirs)
        expected = expected[0] if isinstance(expected, tuple) else expected
        assert float(expected.std()) > 0.01
        assert_close(apply(variables, image), expected)


def test_exported_weights_load_into_torch_and_are_the_same(pair):
    name, model, reference, state, variables, _ = pair
    exported = convert.to_torch(variables, name, model)
    assert exported.keys() == state.keys()
    for key, value in exported.items():
        np.testing.assert_array_equal(value, state[key], err_msg=key)
    reference.load_state_dict(
        {key: torch.from_numpy(value) for key, value in exported.items()}, strict=True
    )


def test_auxiliary_heads_of_googlenet_are_torchs_in_training():
    name, model, make, _ = PAIRS["googlenet-torchvision"]()
    with torch.no_grad():
        reference = make().train()
        state = perturb(reference)
        variables = variables_of(state, name, model, (96, 96))
        image, theirs = images(96, 96)
        expected = reference(theirs)

    def train(variables, image):
        (logits, ends), _ = model.apply(variables, image, train=True, mutable=["batch_stats"])
        return logits, ends["aux_4a"], ends["aux_4d"]

    for mine, their in zip(jax.jit(train)(variables, image), expected, strict=True):
        assert_close(mine, their)
