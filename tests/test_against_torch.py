"""Logits of the published families equal to torch's, on random weights and perturbed batch statistics."""

import functools
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import numpy as np
import pytest
import torch_names
from compiling import hasty_compiler

from cnn_papers import counting
from cnn_papers.models import alexnet, densenet, googlenet, resnet, vgg

torch = pytest.importorskip("torch", reason="the references are written in torch")
import torch_reference  # noqa: E402  (it needs torch)

CLASSES = 6
SMALL = {"width": 0.125, "num_classes": CLASSES}


class Pair(NamedTuple):
    """Our network, torch's, the names of one in the other, the sizes of image to compare them on (native first)."""

    model: Any
    reference: Any
    names: Any
    sizes: tuple[tuple[int, int], ...]


def vgg_pair(variant: str) -> Pair:
    model = vgg.Model(variant, **SMALL)
    counts = tuple(len(sizes) for sizes in model.stages)
    reference = functools.partial(torch_reference.vgg, counts, model.batch_norm, *SMALL.values())
    return Pair(model, reference, torch_names.vgg, ((224, 224), (231, 225)))  # beyond, theirs averages and ours slides


def resnet_pair(variant: str) -> Pair:
    model = resnet.Model(variant, **SMALL)
    kind = (model.blocks, model.bottleneck, model.stride_in == "3x3")
    reference = functools.partial(torch_reference.ResNet, *kind, *SMALL.values())
    return Pair(model, reference, torch_names.resnet, ((64, 64), (75, 61)))


def densenet_pair() -> Pair:
    model = densenet.Model("121", blocks=(3, 4, 2, 3), **SMALL)
    reference = functools.partial(torch_reference.densenet, model.blocks, 4, CLASSES)
    return Pair(model, reference, torch_names.densenet, ((64, 64), (75, 61)))


PAIRS = {
    "alexnet": lambda: Pair(
        alexnet.Model("one_weird_trick", **SMALL),
        functools.partial(torch_reference.alexnet, *SMALL.values()),
        torch_names.alexnet,
        ((224, 224), (191, 256)),
    ),
    "vgg-A": lambda: vgg_pair("A"),
    "vgg-D-BN": lambda: vgg_pair("D-BN"),
    "resnet-18": lambda: resnet_pair("18"),
    "resnet-50": lambda: resnet_pair("50"),
    "resnet-50-v1.5": lambda: resnet_pair("50-v1.5"),
    "densenet-121": densenet_pair,
    "googlenet-torchvision": lambda: Pair(
        googlenet.Model("torchvision", dropout=0.0, aux_dropout=0.0, **SMALL),
        functools.partial(torch_reference.GoogLeNet, googlenet.TABLE, *SMALL.values()),
        torch_names.googlenet,
        ((64, 64), (107, 93)),
    ),
}


@pytest.fixture(autouse=True, scope="module")
def hasty():
    with hasty_compiler():
        yield


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
    return {name: tensor.numpy() for name, tensor in module.state_dict().items() if "num_batches" not in name}


def images(h: int, w: int) -> tuple[np.ndarray, Any]:
    """The same two images for us, [n, h, w, c], and for torch."""
    image = np.random.default_rng(1).normal(size=(2, h, w, 3)).astype(np.float32)
    return image, torch.from_numpy(image.transpose(0, 3, 1, 2).copy())


def assert_close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-4 * float(theirs.abs().max()))


@pytest.fixture(scope="module", params=PAIRS)
def pair(request):
    model, make, names, sizes = PAIRS[request.param]()
    with torch.no_grad():
        reference = make().eval()
        state = perturb(reference)
    like = counting.abstract_variables(model, (*sizes[0], 3))
    return model, reference, state, names(model), like, sizes


def test_every_tensor_has_a_place(pair):
    _, _, state, names, like, _ = pair
    paths = flax.traverse_util.flatten_dict(like)
    used = [f"{names['/'.join(path[1:-1])]}.{torch_names.LEAVES[path[-1]]}" for path in paths]
    assert sorted(used) == sorted(state)


def test_logits_are_torchs_at_even_and_odd_sizes(pair):
    model, reference, state, names, like, sizes = pair
    variables = torch_names.variables_from_torch(state, names, like)
    apply = jax.jit(lambda variables, image: model.apply(variables, image)[0])
    for size in sizes:
        image, theirs = images(*size)
        with torch.no_grad():
            expected = reference(theirs)
        expected = expected[0] if isinstance(expected, tuple) else expected
        assert float(expected.std()) > 0.01
        assert_close(apply(variables, image), expected)


def test_auxiliary_heads_of_googlenet_are_torchs_in_training():
    model, make, names, _ = PAIRS["googlenet-torchvision"]()
    with torch.no_grad():
        reference = make().train()
        state = perturb(reference)
        like = counting.abstract_variables(model, (96, 96, 3))
        variables = torch_names.variables_from_torch(state, names(model), like)
        image, theirs = images(96, 96)
        expected = reference(theirs)

    def train(variables, image):
        (logits, ends), _ = model.apply(variables, image, train=True, mutable=["batch_stats"])
        return logits, ends["aux_4a"], ends["aux_4d"]

    for mine, their in zip(jax.jit(train)(variables, image), expected, strict=True):
        assert_close(mine, their)
