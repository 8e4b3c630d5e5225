"""The Fisher vector: its formula, its sizes, its regions and norms, and rows that do not count."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from cnn_papers.models import ifv

WORDS, DIMS = 5, 6


def mixture(words=WORDS, dims=DIMS, seed=0):
    random = np.random.default_rng(seed)
    weights = random.uniform(0.5, 2, words)
    return ifv.Mixture(
        jnp.asarray(np.log(weights / weights.sum()), jnp.float32),
        jnp.asarray(random.normal(0, 0.2, (words, dims)), jnp.float32),
        jnp.asarray(random.uniform(0.01, 0.05, (words, dims)), jnp.float32),
    )


def as_scikit_learns(mixture):
    gmm = GaussianMixture(len(mixture.mean), covariance_type="diag")
    gmm.weights_ = np.exp(np.asarray(mixture.log_weight, np.float64))
    gmm.means_, gmm.covariances_ = np.float64(mixture.mean), np.float64(mixture.var)
    gmm.precisions_cholesky_ = 1 / np.sqrt(gmm.covariances_)
    return gmm


def variables_of(model, mixture, seed=0):
    """Variables of a small model with the words of `mixture` and random components."""
    random = np.random.default_rng(seed)
    kernel = np.linalg.qr(random.normal(size=(128, model.dims)))[0]
    params = {
        "pca": {
            "mean": jnp.asarray(random.uniform(0, 0.1, 128), jnp.float32),
            "kernel": jnp.asarray(kernel, jnp.float32),
        },
        "gmm": mixture._asdict(),
    }
    image = jax.ShapeDtypeStruct((1, 8, 130, 1), jnp.float32)
    size = jax.eval_shape(model.init, jax.random.key(0), image)["params"]["classifier"]["kernel"]
    kernel = random.normal(size=size.shape)
    return {"params": params | {"classifier": {
        "kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.ones(size.shape[-1])}}}  # fmt: skip


def images(count, rows, seed=0):
    """Random descriptors, sparse as real ones are."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 160, (count, rows, 130, 1)) * random.integers(0, 2, (rows, 130, 1))
    image[:, :, 128:] = random.integers(0, 256, (count, rows, 2, 1))
    return image.astype(np.float32)


def small(**fields):
    return ifv.Model(words=WORDS, dims=DIMS - 2 * fields.get("xy", False), num_classes=3, **fields)


def encoded(model, variables, image):
    return np.asarray(jax.jit(model.apply)(variables, image)[1]["fisher"])[:, 0, 0]


def components(model, variables, image):
    """The values that the words are of, of one image: float64 [k, dims], by NumPy."""
    values = image[:, :128, 0].astype(np.float64)
    values = np.sqrt(values / values.sum(1, keepdims=True))
    pca = {name: np.float64(array) for name, array in variables["params"]["pca"].items()}
    x = (values - pca["mean"]) @ pca["kernel"]
    places = image[:, 128:, 0] / 255 - 0.5
    return np.concatenate([x, places], 1) if model.xy else x


def by_loops(x, gmm):
    """The Fisher vector of x [k, d], written as the formula is: means of all words, variances."""
    shares = gmm.predict_proba(x)
    u, v = np.zeros(gmm.means_.shape), np.zeros(gmm.means_.shape)
    for i, row in enumerate(x):
        for k, weight in enumerate(gmm.weights_):
            z = (row - gmm.means_[k]) / np.sqrt(gmm.covariances_[k])
            u[k] += shares[i, k] * z / (len(x) * math.sqrt(weight))
            v[k] += shares[i, k] * (z**2 - 1) / (len(x) * math.sqrt(2 * weight))
    return np.concatenate([u.ravel(), v.ravel()])


# --- the formula ----------------------------------------------------------------------------------


def test_posteriors_are_scikit_learns():
    gmm = as_scikit_learns(mixture())
    x = np.random.default_rng(1).normal(0, 0.3, (50, DIMS))
    ours = ifv.posteriors(jnp.asarray(x, jnp.float32), mixture())
    np.testing.assert_allclose(ours, gmm.predict_proba(x), atol=1e-5)


@pytest.mark.parametrize("xy", [False, True])
def test_the_vector_is_a_naive_loops(xy):
    model, words = small(norm="none", xy=xy), mixture()
    variables, (image,) = variables_of(model, words), images(1, 70)
    x = components(model, variables, image)
    expected = by_loops(x, as_scikit_learns(words))
    np.testing.assert_allclose(encoded(model, variables, image[None])[0], expected, atol=1e-5)


def test_the_vector_is_scikit_images_but_for_two_differences():
    """Theirs begins with the gradients by weight, and has the variances with the other sign."""
    from skimage.feature import fisher_vector

    words, (image,) = mixture(), images(1, 90)
    for norm in ("none", "improved"):
        model = small(norm=norm)
        variables = variables_of(model, words)
        x = components(model, variables, image)
        theirs = fisher_vector(x, as_scikit_learns(words))[WORDS:]
        theirs[WORDS * DIMS :] *= -1
        if norm == "improved":
            theirs = np.sign(theirs) * np.sqrt(np.abs(theirs))
            theirs /= np.linalg.norm(theirs)
        ours = encoded(model, variables, image[None])[0]
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_descriptors_are_summed_chunk_by_chunk(monkeypatch):
    model, image = small(), images(2, 300)
    variables = variables_of(model, mixture())
    whole = encoded(model, variables, image)
    monkeypatch.setattr(ifv, "CHUNK", 64)
    np.testing.assert_allclose(encoded(small(), variables, image), whole, atol=1e-6)


@pytest.mark.parametrize("spm", [False, True])
def test_a_padded_batch_is_image_by_image(spm):
    counts = (40, 64, 1)
    model = small(spm=spm)
    variables, image = variables_of(model, mixture()), images(3, 64)
    for i, count in enumerate(counts):
        image[i, count:] = 0
    together = encoded(model, variables, image)
    for i, count in enumerate(counts):
        one = encoded(model, variables, image[i : i + 1, :count])
        np.testing.assert_allclose(together[i], one[0], atol=1e-6)


# --- sizes, regions, norms ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "size"),
    [
        ("256", 40_960),
        ("256-spm", 327_680),
        ("512-xy", 83_968),
        ("512-colours", 81_920),
        ("512-xy-colours", 165_888),
    ],
)
def test_sizes_are_the_papers(variant, size):
    columns = ifv.FACTS[variant].input[1]
    image = jax.ShapeDtypeStruct((1, 100, columns, 1), jnp.float32)
    (logits, ends), _ = jax.eval_shape(
        ifv.Model(variant).init_with_output, jax.random.key(0), image
    )
    assert ends["fisher"].shape == (1, 1, 1, size) and logits.shape == (1, 20)


def test_a_pyramid_is_the_vector_of_each_region():
    model, plain = small(spm=True), small()
    variables, (image,) = variables_of(model, mixture()), images(1, 200)
    image[image[:, 128, 0] >= 128, :] = 0  # nothing in the lower half
    parts = encoded(model, variables, image[None])[0].reshape(8, -1)
    y, x = image[:, 128, 0] / 256, image[:, 129, 0] / 256
    members = [
        y >= 0,
        (y < 1 / 2) & (x < 1 / 2),
        (y < 1 / 2) & (x >= 1 / 2),
        (y >= 1 / 2) & (x < 1 / 2),
        (y >= 1 / 2) & (x >= 1 / 2),
        y < 1 / 3,
        (y >= 1 / 3) & (y < 2 / 3),
        y >= 2 / 3,
    ]
    of_plain = variables_of(plain, mixture())
    expected = np.stack(
        [encoded(plain, of_plain, np.where(m[:, None, None], image, 0)[None])[0] for m in members]
    )
    assert expected.any(1).tolist() == [True, True, True, False, False, True, True, False]
    np.testing.assert_allclose(parts, expected / math.sqrt(5), atol=1e-6)


@pytest.mark.parametrize("norm", ["none", "improved"])
def test_colours_have_words_of_their_own_beside_sift(norm):
    sift, both = small(norm=norm, xy=True), small(norm=norm, xy=True, colours="beside")
    colours = small(norm=norm, xy=True, colours="only")
    random, rows = np.random.default_rng(3), images(2, 60)
    values = random.integers(0, 256, (2, 60, 96, 1)).astype(np.float32)
    rows[:, 50:, :128], values[:, :5] = 0, 0  # each kind lacks some
    joined = np.concatenate([rows[:, :, :128], values, rows[:, :, 128:]], 2)
    of_colours = mixture(dims=colours.dims, seed=1)
    params = variables_of(sift, mixture())["params"]
    pca = {"mean": jnp.full(96, 0.5), "kernel": jnp.eye(96, colours.dims)}
    colour_params = {"colour_pca": pca, "colour_gmm": of_colours._asdict()}

    def vectors(model, params, image):
        abstract = jax.eval_shape(model.init, jax.random.key(0), image)["params"]["classifier"]
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), abstract)
        return encoded(model, {"params": params | {"classifier": zeros}}, image)

    sift_params = {name: params[name] for name in ("pca", "gmm")}
    parts = [
        vectors(sift, sift_params, rows),
        vectors(colours, colour_params, np.concatenate([values, rows[:, :, 128:]], 2)),
    ]
    assert parts[1].shape == (2, 2 * WORDS * colours.dims)
    x = values[0, 5:, :, 0].astype(np.float64) / 255
    if norm == "none":
        naive = by_loops(x[:, : colours.dims] - 0.5, as_scikit_learns(of_colours))
        np.testing.assert_allclose(parts[1][0], naive, rtol=1e-4, atol=1e-4)
    expected = np.concatenate(parts, 1) / (1 if norm == "none" else math.sqrt(2))
    together = vectors(both, sift_params | colour_params, joined)
    np.testing.assert_allclose(together, expected, rtol=1e-5, atol=1e-6)


def test_norms():
    words, image = mixture(), images(2, 80)
    vectors = {}
    for norm in ifv.CHOICES["norm"]:
        model = small(norm=norm)
        vectors[norm] = encoded(model, variables_of(model, words), image)
    plain = vectors["none"]

    def unit(x):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    rooted = np.sign(plain) * np.sqrt(np.abs(plain))
    np.testing.assert_allclose(vectors["l2"], unit(plain), atol=1e-6)
    np.testing.assert_allclose(vectors["improved"], unit(rooted), atol=1e-6)
    blocks = rooted.reshape(2, 2, WORDS, DIMS).swapaxes(1, 2)  # a block of each word
    blocks = unit(blocks.reshape(2, WORDS, -1)).reshape(2, WORDS, 2, DIMS)
    np.testing.assert_allclose(
        vectors["intra"], unit(blocks.swapaxes(1, 2).reshape(2, -1)), atol=1e-6
    )


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, {"spm": True}, {"xy": True}, {"norm": "intra"}])
def test_an_image_without_descriptors_is_zero_and_never_nan(fields):
    model = small(**fields)
    variables = variables_of(model, mixture())
    logits, ends = jax.jit(model.apply)(variables, np.zeros((1, 20, 130, 1), np.float32))
    assert not ends["fisher"].any()
    np.testing.assert_array_equal(logits, np.ones((1, 3)))


@pytest.mark.parametrize(
    ("variant", "shape", "message"),
    [
        ("256", (32, 32, 3), r"130×1 values each, not images of 32×32×3: .* with dense_sift\n"),
        ("512-xy-colours", (9, 130, 1), r"226×1 values .* with dense_sift\(colours=True\)"),
        ("512-colours", (9, 130, 1), "98×1 values .* with dense_colours"),
    ],
)
def test_images_in_place_of_descriptors_are_refused(variant, shape, message):
    with pytest.raises(ValueError, match=f"it takes descriptors, {message}"):
        jax.eval_shape(ifv.Model(variant).init, jax.random.key(0), jnp.zeros((1, *shape)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dims": 129}, r"model\.dims=129 must be from 1 to 128"),
        ({"dims": 97, "colours": "beside"}, r"model\.dims=97 must be from 1 to 96"),
        ({"dims": 0}, r"model\.dims=0 must be from 1 to 128"),
        ({"words": 0}, r"model\.words and model\.sample must be positive"),
        ({"norm": "l3"}, r"unknown model\.norm 'l3'; there are: none, l2, improved, intra"),
    ],
)
def test_fields_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ifv.Model(**fields)
