"""Every network of the zoo: exact facts of every variant, and the behaviour of a small instance."""

import functools
import importlib
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import InvalidRngError
from support.random_variables import random_variables

from cnn_papers import counting, zoo

ZOO = zoo.model_names()
# DenseNets with hundreds of shapes, which take seconds to trace
SLOW = ("BC-250-24", "BC-190-40", "100-12", "100-24", "201", "264")
VARIANTS = [
    pytest.param(name, variant, marks=[pytest.mark.slow] if variant in SLOW else [])
    for name in ZOO
    for variant in importlib.import_module(f"cnn_papers.models.{name}").VARIANTS
]
CLASSES = 7


class Small(NamedTuple):
    """A network shrunk by its own fields, with seven classes, for images of `input`."""

    name: str
    variant: str
    fields: dict[str, Any]
    input: tuple[int, int, int]


SMALL = [
    Small("alexnet", "paper", {"width": 0.1, "conv1_stride": 1}, (32, 32, 3)),
    Small("alexnet_cifar", "relu_lrn", {"width": 0.25}, (32, 32, 3)),
    Small("cnn_fms", "F", {"width": 0.1, "conv1_stride": 1}, (48, 48, 3)),
    Small("densenet", "BC-40-12", {"width": 0.5, "blocks": (2, 2, 2), "dropout": 0.2}, (16, 16, 3)),
    Small("googlenet", "paper", {"width": 0.25}, (40, 40, 3)),
    Small("ifv", "256-xy", {"width": 0.02, "dims": 8}, (60, 130, 1)),
    Small("lenet", "original", {}, (32, 32, 1)),
    Small("maxout", "cifar10", {"width": 0.1}, (32, 32, 3)),
    Small("nin", "cifar10", {"width": 0.1}, (32, 32, 3)),
    Small("overfeat", "fast", {"width": 0.05, "conv1_stride": 1}, (96, 96, 3)),
    Small("resnet", "50", {"width": 0.1, "blocks": (1, 2, 1, 1)}, (32, 32, 3)),
    Small("resnet", "cifar-20", {"width": 0.5, "blocks": (3, 1, 1), "scan": True}, (16, 16, 3)),
    Small("resnet", "cifar-pre-29", {"width": 0.5, "blocks": (1, 1, 1)}, (16, 16, 3)),
    Small("spp", "zf5", {"width": 0.1}, (96, 96, 3)),
    Small("vgg", "A-LRN", {"width": 0.1}, (32, 32, 3)),
    Small("vgg", "A-BN", {"width": 0.1}, (32, 32, 3)),
]


def module(name: str) -> Any:
    return importlib.import_module(f"cnn_papers.models.{name}")


@functools.cache
def counted(name: str, variant: str) -> counting.Network:
    return counting.count(module(name).Model(variant), module(name).FACTS[variant].input)


@pytest.mark.parametrize("name", ZOO)
def test_every_variant_has_facts(name):
    assert set(module(name).FACTS) == set(module(name).VARIANTS)
    for variant, facts in module(name).FACTS.items():
        assert facts.params > 0 and facts.macs > 0 and facts.shapes and facts.source, variant


@pytest.mark.parametrize("name", ZOO)
def test_every_file_has_a_small_instance(name):
    assert any(small.name == name for small in SMALL), f"add a row for {name} to SMALL"


@pytest.mark.parametrize("name, variant", VARIANTS)
def test_facts_are_exact(name, variant):
    network, facts = counted(name, variant), module(name).FACTS[variant]
    shapes = {layer.name: layer.shape for layer in network.layers}
    assert network.params == facts.params
    assert network.macs == facts.macs
    assert sum(layer.params for layer in network.layers) == facts.params
    assert sum(layer.macs for layer in network.layers) == facts.macs
    assert {layer: shapes.get(layer) for layer in facts.shapes} == facts.shapes


@pytest.mark.parametrize("name", ZOO)
def test_an_unknown_variant_gets_the_list(name):
    with pytest.raises(ValueError, match=r"unknown model\.variant 'nonesuch'") as error:
        module(name).Model("nonesuch")
    assert str(error.value).endswith("there are: " + ", ".join(module(name).VARIANTS))


@pytest.mark.parametrize("name", ZOO)
def test_an_unknown_field_gets_the_list(name):
    with pytest.raises(
        ValueError, match=r"unknown model field 'colour'; there are: variant, .*num_classes.*width"
    ):
        module(name).Model(colour=1)


@pytest.mark.parametrize("name", ZOO)
def test_none_means_as_the_variant_says(name):
    assert module(name).Model(num_classes=None, width=None) == module(name).Model()


class Net(NamedTuple):
    """A small network with random parameters, three images and its compiled functions."""

    model: Any
    variables: dict[str, Any]
    image: np.ndarray
    evaluate: Any  # (variables, image) -> logits, endpoints
    train: Any  # (variables, image, dropout seed) -> gradients, new statistics, logits


@pytest.fixture(scope="module", params=SMALL, ids=lambda small: f"{small.name}-{small.variant}")
def net(request) -> Net:
    small: Small = request.param
    model = module(small.name).Model(small.variant, num_classes=CLASSES, **small.fields)
    image = np.random.default_rng(0).normal(size=(3, *small.input)).astype(np.float32)
    variables = random_variables(model, small.input)

    def evaluate(variables, image):
        return model.apply(variables, image)

    def train(variables, image, seed):
        rest = {name: tree for name, tree in variables.items() if name != "params"}

        def loss(params):
            (logits, ends), changed = model.apply(
                {"params": params, **rest},
                image,
                train=True,
                rngs={"dropout": jax.random.key(seed)},
                mutable=["batch_stats"],
            )
            heads = [logits, *(end for name, end in ends.items() if name.startswith("aux_"))]
            nll = -sum(jax.nn.log_softmax(head)[:, :3].trace() for head in heads)
            return nll, (changed, logits)

        gradients, (changed, logits) = jax.grad(loss, has_aux=True)(variables["params"])
        return gradients, changed, logits

    return Net(model, variables, image, jax.jit(evaluate), jax.jit(train))


def has_dropout(model: Any) -> bool:
    fields = [field for field in model.__dataclass_fields__ if "dropout" in field]
    return any(getattr(model, field) > 0 for field in fields)


def test_logits_are_float32_for_every_image_and_class(net):
    logits, ends = net.evaluate(net.variables, net.image)
    assert logits.shape == (3, CLASSES) and logits.dtype == jnp.float32
    assert bool(jnp.isfinite(logits).all())
    assert all(end.shape[0] == 3 and end.size > 0 for end in ends.values())


def test_a_gradient_reaches_every_parameter(net):
    gradients, _, _ = net.train(net.variables, net.image, 0)
    unreached = [
        jax.tree_util.keystr(path)
        for path, g in jax.tree.leaves_with_path(gradients)
        if not np.asarray(g).any()
    ]
    assert unreached == []


def test_batch_statistics_move_only_in_training(net):
    _, changed, _ = net.train(net.variables, net.image, 0)
    before = net.variables.get("batch_stats", {})
    assert jax.tree.structure(changed.get("batch_stats", {})) == jax.tree.structure(before)
    still = jax.tree.map(
        lambda old, new: bool((old == new).all()), before, changed.get("batch_stats", {})
    )
    assert not any(jax.tree.leaves(still)), still
    _, state = jax.eval_shape(
        lambda v, x: net.model.apply(v, x, mutable=True), net.variables, net.image
    )
    assert set(state) == set(net.variables)  # evaluation adds no collection


def test_dropout_differs_by_key_and_is_off_in_evaluation(net):
    _, _, first = net.train(net.variables, net.image, 0)
    _, _, again = net.train(net.variables, net.image, 0)
    _, _, other = net.train(net.variables, net.image, 1)
    np.testing.assert_array_equal(first, again)
    assert bool((first != other).any()) == has_dropout(net.model)

    def without_key(train):
        apply = functools.partial(net.model.apply, train=train, mutable=["batch_stats"])
        return jax.eval_shape(apply, net.variables, net.image)

    without_key(train=False)
    if has_dropout(net.model):
        with pytest.raises(InvalidRngError):
            without_key(train=True)


def test_an_image_gives_the_same_logits_in_any_batch(net):
    together, _ = net.evaluate(net.variables, net.image)
    single, _ = net.evaluate(net.variables, net.image[:1])
    scale = float(jnp.abs(together).max())
    np.testing.assert_allclose(single, together[:1], rtol=1e-4, atol=1e-5 * scale)


def test_bfloat16_stays_near_float32(net):
    exact, _ = net.evaluate(net.variables, net.image)
    rounded, ends = jax.jit(net.model.clone(dtype=jnp.bfloat16).apply)(net.variables, net.image)
    assert rounded.dtype == jnp.float32
    assert jnp.dtype(jnp.bfloat16) in {end.dtype for end in ends.values()}
    assert float(jnp.abs(rounded - exact).max()) < 0.05 * float(jnp.abs(exact).max())
    assert float(jnp.abs(rounded - exact).max()) > 0


def test_an_image_too_small_names_its_size_and_the_empty_layer(net):
    def endpoints(height, width):
        image = jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32)
        (_, ends), _ = jax.eval_shape(net.model.init_with_output, jax.random.key(0), image)
        return ends

    _, height, width, channels = net.image.shape
    names = endpoints(height, width).keys()
    message = rf"an image of 1×{width} is too small: (.*) has no pixels left"
    try:
        endpoints(1, width)
    except ValueError as error:
        match = re.fullmatch(message, str(error))
        assert match and match[1] in names
    else:  # padded convolutions take any image, a Fisher vector any number of descriptors
        assert net.model.__class__.__name__ in ("ResNet", "FisherVector")
