"""Analyses of networks against values worked out by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_papers import counting, opstrings, zoo
from cnn_papers.errors import UserError
from cnn_papers.evaluation import analyses, run_analyses

DRAW = np.random.default_rng(0)
IMAGE = DRAW.normal(size=(6, 1, 1, 5)).astype(np.float32)
LABEL = DRAW.integers(0, 3, 6).astype(np.int32)


@pytest.fixture(autouse=True)
def same_draws():
    """Each test draws the same, whichever ran before it in this worker."""
    DRAW.bit_generator.state = np.random.default_rng(0).bit_generator.state


class Small(nn.Module):
    """One hidden layer of four units; what it reads can be dropped, what it gives normalised."""

    activation: str = "relu"
    normalise: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(self, image, *, train=False):
        x = nn.Dropout(self.dropout, deterministic=not train)(image)
        x = nn.Dense(4, name="fc1")(x)
        x = (
            nn.BatchNorm(use_running_average=not train, epsilon=1e-5, name="bn1")(x)
            if self.normalise
            else x
        )
        x = hidden = getattr(nn, self.activation)(x)
        x = nn.Dense(3, name="fc2")(x)
        return x.mean((1, 2)), {"fc1": hidden, "fc2": x}


def random_variables(model, shape):
    """Normally distributed parameters and statistics, the variances positive."""
    abstract = counting.abstract_variables(model, shape)
    variables = jax.tree.map(
        lambda leaf: DRAW.normal(scale=0.5, size=leaf.shape).astype(np.float32), abstract
    )
    if "batch_stats" in variables:
        variables["batch_stats"] = jax.tree.map(np.abs, variables["batch_stats"])
    return variables


def values_of(text, model, variables, image=IMAGE, label=LABEL):
    """Returns the values of one analysis as floats."""
    (op,) = run_analyses.parse(text)
    return jax.tree.map(float, jax.jit(lambda v, x, y: op(model, v, x, y))(variables, image, label))


def hidden_inputs(variables, image=IMAGE):
    """Returns the inputs of the hidden units of a `Small` without normalisation, [n, 4]."""
    layer = variables["params"]["fc1"]
    return image[:, 0, 0] @ layer["kernel"] + layer["bias"]


def logits_by_hand(variables):
    layer = variables["params"]["fc2"]
    return np.maximum(hidden_inputs(variables), 0) @ layer["kernel"] + layer["bias"]


# --- units ----------------------------------------------------------------------------------------


def test_a_rectified_unit_is_dead_if_nothing_wakes_it():
    variables = random_variables(Small(), (1, 1, 5))
    variables["params"]["fc1"]["bias"][[0, 3]] = -100
    variables["params"]["fc1"]["bias"][1] = 100
    assert values_of("dead_units", Small(), variables) == {
        "dead_units": 0.5,
        "dead_units/fc1": 0.5,
        "dead_units/fc2": 0,
    }
    zeros = (hidden_inputs(variables) <= 0).mean()
    assert values_of("saturated", Small(), variables)["saturated/fc1"] == pytest.approx(zeros)
    assert 0.5 < zeros < 0.75


@pytest.mark.parametrize("name", ["dead_units", "saturated"])
def test_other_nonlinearities_have_no_dead_units(name):
    variables = random_variables(Small(), (1, 1, 5))
    variables["params"]["fc1"]["bias"][:] = -3
    assert set(values_of(name, Small(activation="tanh"), variables).values()) == {0.0}


def test_a_piece_of_a_maxout_unit_is_dead_if_it_is_never_the_largest():
    # The last layer has four pieces, the others two.
    model = zoo.build_model("maxout", variant="mnist_conv", width=0.25)
    variables = random_variables(model, (28, 28, 1))
    image, label = DRAW.normal(size=(2, 28, 28, 1)).astype(np.float32), np.zeros(2, np.int32)
    alive = values_of("dead_units", model, variables, image, label)
    variables["params"]["h1"]["bias"][..., ::2] = -1000
    values = values_of("dead_units", model, variables, image, label)
    assert values["dead_units/h0"] == alive["dead_units/h0"] < 0.5
    assert values["dead_units/h1"] == 0.5
    assert set(values) == {
        "dead_units",
        *(f"dead_units/{name}" for name in ("h0", "h1", "h2", "y")),
    }


def test_where_a_unit_knows_a_constant_0_a_piece_must_exceed_it():
    # 12 units of five pieces.
    model = zoo.build_model("maxout", variant="mnist_fc", width=0.05, hidden="maxout_zero")
    variables = random_variables(model, (28, 28, 1))
    variables["params"]["h0"]["bias"][:30] = -1000  # six units that always give 0
    variables["params"]["h0"]["bias"][30::5] = 1000  # and six of which one piece always wins
    image = np.abs(DRAW.normal(size=(9, 28, 28, 1))).astype(np.float32)
    values = values_of("dead_units", model, variables, image, np.zeros(9, np.int32))
    assert values["dead_units/h0"] == pytest.approx((30 + 6 * 4) / 60)
    _, ends = model.apply(variables, image)
    assert (ends["h0"][..., :6] == 0).all() and (ends["h0"][..., 6:] > 500).all()


def test_the_whole_share_counts_every_unit_once():
    model = zoo.build_model("maxout", variant="mnist_fc_relu", width=0.05)  # 60 and 12 units
    variables = random_variables(model, (28, 28, 1))
    variables["params"]["h0"]["bias"][:30] = -1000
    variables["params"]["h1"]["bias"][:] = 1000
    image = DRAW.normal(size=(2, 28, 28, 1)).astype(np.float32)
    values = values_of("dead_units", model, variables, image, np.zeros(2, np.int32))
    dead = values["dead_units/h0"] * 60
    assert dead >= 30 and values["dead_units/h1"] == 0
    assert values["dead_units"] == pytest.approx(dead / 72)


# --- sizes and distributions ----------------------------------------------------------------------


def test_responses_are_those_of_layers_or_of_their_normalisations():
    variables = random_variables(Small(), (1, 1, 5))
    inside, outside = hidden_inputs(variables).std(), logits_by_hand(variables).std()
    values = values_of("response_std", Small(), variables)
    assert values["response_std/fc1"] == pytest.approx(inside, rel=1e-5)
    assert values["response_std"] == pytest.approx((inside + outside) / 2, rel=1e-5)
    normalised = random_variables(Small(normalise=True), (1, 1, 5))
    norm, stats = normalised["params"]["bn1"], normalised["batch_stats"]["bn1"]
    response = (hidden_inputs(normalised) - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * norm[
        "scale"
    ] + norm["bias"]
    values = values_of("response_std", Small(normalise=True), normalised)
    assert set(values) == {"response_std", "response_std/bn1"}
    assert (
        values["response_std/bn1"]
        == values["response_std"]
        == pytest.approx(response.std(), rel=1e-5)
    )


def test_gradients_are_of_the_mean_loss():
    variables = random_variables(Small(), (1, 1, 5))
    logits = logits_by_hand(variables)
    chance = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = (chance - np.eye(3)[LABEL]) / len(LABEL)
    hidden = hidden_inputs(variables)
    back = error @ variables["params"]["fc2"]["kernel"].T * (hidden > 0)
    expected = {"fc1": IMAGE[:, 0, 0].T @ back, "fc2": np.maximum(hidden, 0).T @ error}
    values = values_of("gradient_norm", Small(), variables)
    for name, grad in expected.items():
        assert values[f"gradient_norm/{name}"] == pytest.approx(np.linalg.norm(grad), rel=1e-4)
    assert values["gradient_norm"] == values["gradient_norm/fc1"]


@pytest.mark.process
def test_gradients_are_of_auxiliary_heads_too_as_their_weight_says():
    model = zoo.build_model("googlenet", variant="paper", width=0.125, num_classes=4)
    variables = random_variables(model, (64, 64, 3))
    image = DRAW.normal(size=(2, 64, 64, 3)).astype(np.float32)
    none, some, more = (
        values_of(f"gradient_norm(aux_weight={weight})", model, variables, image, np.array([0, 3]))
        for weight in (0.0, 0.3, 0.6)
    )
    heads = [name for name in none if "aux" in name]
    assert heads and all(none[name] == 0 for name in heads)
    for name in heads:
        assert more[name] == pytest.approx(2 * some[name], rel=1e-4) and some[name] > 0
    assert none["gradient_norm"] != some["gradient_norm"]


def test_percentiles_are_of_one_unit_and_of_all():
    variables = random_variables(Small(), (1, 1, 5))
    low, median, high = np.percentile(hidden_inputs(variables), (15, 50, 85), axis=0)
    values = values_of("input_percentiles(unit=2)", Small(), variables)
    expected = {"p15": low[2], "p50": median[2], "p85": high[2], "width": (high - low).mean()}
    for name, value in expected.items():
        assert values[f"input_percentiles/{name}"] == pytest.approx(value, rel=1e-5)
    assert [values[f"input_percentiles/median/{i}"] for i in range(4)] == pytest.approx(
        median, rel=1e-5
    )
    assert len(values) == 1 + 4 + 4
    assert values["input_percentiles"] == pytest.approx(np.sqrt((median**2).mean()), rel=1e-5)


def test_the_last_hidden_nonlinearity_reads_what_normalisation_gives():
    variables = random_variables(Small(normalise=True), (1, 1, 5))
    last, named, raw = (
        values_of(f"input_percentiles({layer})", Small(normalise=True), variables)
        for layer in ("", "'bn1'", "'fc1'")
    )
    assert last == named != raw


# --- dense blocks ---------------------------------------------------------------------------------


def test_feature_reuse_is_the_mean_weight_on_every_source():
    model = zoo.build_model(
        "densenet", variant="40-12", blocks=(2, 2), growth=3, stem_features=5, num_classes=4
    )
    variables = random_variables(model, (8, 8, 3))
    params = variables["params"]
    params["block1"]["layer2"]["conv1"]["kernel"][:] = -3  # on layer 1
    params["block1"]["layer2"]["conv1"]["kernel"][:, :, :5] = 1  # on the block's input
    image = np.zeros((2, 8, 8, 3), np.float32)
    values = values_of("feature_reuse", model, variables, image, np.zeros(2, np.int32))
    assert (
        values["feature_reuse/block1/layer2/from0"] == 1
        and values["feature_reuse/block1/layer2/from1"] == 3
    )
    classifier = np.abs(params["fc"]["kernel"])[0, 0]  # of 11, 3 and 3 channels
    assert values["feature_reuse/block2/out/from2"] == pytest.approx(
        classifier[14:].mean(), rel=1e-5
    )
    transition = np.abs(params["transition1"]["conv"]["kernel"])[0, 0]
    assert values["feature_reuse/block1/out/from0"] == pytest.approx(
        transition[:5].mean(), rel=1e-5
    )
    parts = [name.removeprefix("feature_reuse/") for name in values]
    assert len(parts) == 1 + 2 * (1 + 2 + 3)
    readers = {name.rpartition("/")[0] for name in parts} - {"", "block1/layer1", "block2/layer1"}
    ratios = []
    for reader in readers:
        weights = [
            values[f"feature_reuse/{name}"] for name in parts if name.rpartition("/")[0] == reader
        ]
        ratios.append(np.mean(weights[:-1]) / weights[-1])
    assert values["feature_reuse"] == pytest.approx(np.mean(ratios), rel=1e-5)


# --- dropout --------------------------------------------------------------------------------------


def test_without_dropout_the_mean_is_the_network():
    variables = random_variables(Small(), (1, 1, 5))
    assert abs(values_of("dropout_average(masks=3)", Small(), variables)["dropout_average"]) < 1e-6


def test_of_one_mask_it_is_the_divergence_from_its_network():
    model = Small(dropout=0.5)
    variables = random_variables(model, (1, 1, 5))
    (key,) = jax.random.split(jax.random.key(0), 1)
    (dropped, _), _ = model.apply(
        variables, IMAGE, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
    )
    p, q = (
        np.exp(z) / np.exp(z).sum(1, keepdims=True)
        for z in (np.asarray(dropped), logits_by_hand(variables))
    )
    divergence = values_of("dropout_average(masks=1)", model, variables)["dropout_average"]
    assert divergence == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=1e-3)
    assert divergence > 0.001


def test_of_a_linear_network_the_whole_one_is_the_geometric_mean():
    """The mean is exact in this case (Hinton et al. 2012), up to the noise of the masks."""
    variables = random_variables(Small(), (1, 1, 5))
    variables["params"]["fc1"]["bias"][:] = 1000  # every unit in its linear part
    variables["params"]["fc2"]["bias"] -= 1000 * variables["params"]["fc2"]["kernel"].sum(0)
    few, many = (
        values_of(f"dropout_average(masks={n})", Small(dropout=0.5), variables)["dropout_average"]
        for n in (2, 2000)
    )
    assert many < 0.002 < 0.02 < few


# --- as a config names them -----------------------------------------------------------------------


def _batch(size):
    draw = np.random.default_rng(1)
    image = draw.integers(0, 256, (size, 1, 1, 5), np.uint8)
    return {"image": image, "label": draw.integers(0, 3, size), "mask": np.ones(size, bool)}


def _view(image, key):
    return (image.astype(jnp.float32) - 128) / 64


def test_figures_come_by_name_and_are_of_the_images_the_network_sees():
    variables = random_variables(Small(), (1, 1, 5))
    batch = _batch(7)
    values = run_analyses.compute("dead_units|response_std", Small(), variables, batch, _view)
    expected = values_of(
        "response_std", Small(), variables, _view(batch["image"], None), batch["label"]
    )
    assert {name: value for name, value in values.items() if "response" in name} == pytest.approx(
        expected
    )
    assert list(values) == sorted(values) and "dead_units/fc1" in values
    assert run_analyses.compute("", Small(), variables, batch, _view) == {}


def test_what_fills_up_a_batch_adds_nothing():
    variables = random_variables(Small(), (1, 1, 5))
    padded = _batch(7)
    padded["mask"][4:] = False
    whole = {name: value[:4] for name, value in padded.items()}
    expected = run_analyses.compute("dead_units", Small(), variables, whole, _view)
    padded["image"][4:] = 255
    assert run_analyses.compute("dead_units", Small(), variables, padded, _view) == expected


def test_a_second_batch_compiles_nothing():
    variables = random_variables(Small(), (1, 1, 5))
    run_analyses.compute("saturated", Small(), variables, _batch(5), _view)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analyses, "saturated", None)  # called again, it would be looked up again
        run_analyses.compute("saturated", Small(), variables, _batch(5), _view)


EVERY = "|".join(name for name in opstrings.functions(analyses) if name != "feature_reuse")


@pytest.mark.parametrize(
    "name, fields, shape",
    [
        ("alexnet", {"variant": "batch_norm"}, (67, 67, 3)),
        ("lenet", {}, (32, 32, 1)),
        ("nin", {"variant": "cifar10_fc"}, (32, 32, 3)),
        pytest.param("googlenet", {"width": 0.25}, (64, 64, 3), marks=pytest.mark.process),
        ("resnet", {"variant": "cifar-20", "scan": True}, (32, 32, 3)),
        (
            "densenet",
            {"variant": "BC-40-12", "blocks": (2, 2), "memory_efficient": True},
            (32, 32, 3),
        ),
    ],
)
def test_networks_need_not_know_of_them(name, fields, shape):
    model = zoo.build_model(name, num_classes=10, **fields)
    variables = counting.abstract_variables(model, shape)
    run_analyses.check(EVERY, model, variables, _view, shape)


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "dead_unit",
            r"config\.eval\.analyses: there is no 'dead_unit' "
            r"\(did you mean 'dead_units'\?\); there are: ",
        ),
        ("compute", "there is no 'compute'"),
        (
            "dropout_average(masks='many')",
            r"does not fit dropout_average\(masks: int = 32\): masks='many' is not int",
        ),
        ("input_percentiles('fc9')", r"there is no layer 'fc9'; there are: fc1"),
        ("input_percentiles(unit=4)", "unit=4 is not one of the 4 units of fc1"),
        ("feature_reuse", "needs dense blocks, and this network has none"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_computed(text, message):
    variables = counting.abstract_variables(Small(), (1, 1, 5))
    with pytest.raises(UserError, match=message):
        run_analyses.check(text, Small(), variables, _view, (1, 1, 5))
