"""Device operations: exact values, the papers' distributions, and one key per image."""

import collections
import itertools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_papers.data import device_ops
from cnn_papers.data.augment import before_whitening, compose, needs_statistics, parse_device
from cnn_papers.data.statistics import compute, compute_whitening
from cnn_papers.errors import UserError


def composed(text, statistics, *, train):
    key = "data.train_device" if train else "data.eval_device"
    return compose(parse_device(text, key=key), statistics, train=train)


def device(text):
    return parse_device(text, key="data.eval_device")


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def random_images(n=6, h=5, w=4, c=3):
    return np.random.default_rng(0).integers(0, 256, (n, h, w, c), np.uint8)


@pytest.fixture
def statistics():
    """Statistics of correlated colours: covariance far from diagonal, eigenvalues far apart."""
    mix = np.array([[40.0, 5, 0], [30, 20, 5], [10, 20, 15]])
    pixels = 128 + np.random.default_rng(0).uniform(-1, 1, (50, 4, 4, 3)) @ mix.T
    return compute([pixels.round().astype(np.uint8)])


def test_flip_mirrors_half_of_the_images_exactly():
    image = jnp.asarray(random_images()[0], jnp.float32)
    flipped = np.asarray(jax.vmap(lambda key: device_ops.flip(image, key=key))(keys(4000)))
    mirrored = (flipped == np.asarray(image)[:, ::-1]).all((1, 2, 3))
    as_it_was = (flipped == np.asarray(image)).all((1, 2, 3))
    np.testing.assert_array_equal(mirrored, ~as_it_was)
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / 4000**0.5  # four standard errors


def test_pad_crop_takes_every_window_of_the_padded_image():
    image = random_images()[0].astype(np.float32) + 1  # zeros are padding
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    windows = {padded[i : i + 5, j : j + 4].tobytes(): (i, j) for i in range(5) for j in range(5)}
    crop = jax.jit(jax.vmap(lambda key: device_ops.pad_crop(jnp.asarray(image), 2, key=key)))
    places = collections.Counter(
        windows[cropped.tobytes()] for cropped in np.asarray(crop(keys(5000)))
    )
    assert set(places) == {(i, j) for i in range(5) for j in range(5)}
    # 200 are expected, with a standard deviation of 14.
    assert all(140 < count < 260 for count in places.values()), places


def test_pad_crop_by_nothing_is_the_image():
    image = jnp.asarray(random_images()[0], jnp.float32)
    np.testing.assert_array_equal(device_ops.pad_crop(image, 0, key=jax.random.key(0)), image)


def test_invert_replaces_half_of_the_images_by_their_negatives():
    image = random_images()[0].astype(np.float32)
    inverted = np.asarray(jax.vmap(lambda key: device_ops.invert(image, key=key))(keys(4000)))
    is_negative = (inverted == 255 - image).all((1, 2, 3))
    np.testing.assert_array_equal(~is_negative, (inverted == image).all((1, 2, 3)))
    assert abs(is_negative.mean() - 0.5) < 4 * 0.5 / 4000**0.5  # four standard errors


def test_permute_channels_takes_every_order_in_half_of_the_images():
    image = random_images()[0].astype(np.float32)
    orders = {image[..., order].tobytes(): order for order in itertools.permutations(range(3))}
    permute = jax.vmap(lambda key: device_ops.permute_channels(jnp.asarray(image), key=key))
    counts = collections.Counter(orders[one.tobytes()] for one in np.asarray(permute(keys(6000))))
    # 3,500 of the order that it has are expected, 500 of each other, with deviations of 38 and 21.
    assert 3340 < counts.pop((0, 1, 2)) < 3660
    assert len(counts) == 5 and all(410 < count < 590 for count in counts.values()), counts


def test_subtract_own_mean_leaves_no_mean_colour():
    image = random_images()[0].astype(np.float32)
    centred = np.asarray(device_ops.subtract_own_mean(jnp.asarray(image)))
    np.testing.assert_allclose(centred, image - image.mean((0, 1)), atol=1e-4)


def test_scale_multiplies():
    image = jnp.asarray(random_images()[0], jnp.float32)
    np.testing.assert_array_equal(device_ops.scale(image, 0.5), image / 2)


def test_means_and_deviations_of_the_training_set_are_taken_out(statistics):
    image = jnp.asarray(random_images(h=4)[0], jnp.float32)
    mean, std = statistics.mean, statistics.std
    np.testing.assert_allclose(
        device_ops.subtract_mean(image, statistics=statistics), image - mean[None, None]
    )
    np.testing.assert_allclose(
        device_ops.subtract_mean_image(image, statistics=statistics), image - statistics.mean_image
    )
    np.testing.assert_allclose(
        device_ops.standardize(image, statistics=statistics),
        (image - mean[None, None]) / std[None, None],
        rtol=1e-6,
    )


def test_the_mean_image_is_warped_to_another_size():
    """Bilinearly, as pixels in the middle of their areas; its own size is left as it is."""
    mean_image = np.float32([[0.0, 8.0], [80.0, 88.0]])[..., None].repeat(3, -1)
    statistics = compute([mean_image[None].astype(np.uint8)])
    np.testing.assert_array_equal(statistics.mean_image, mean_image)
    same = jnp.full((2, 2, 3), 100.0)
    np.testing.assert_array_equal(
        device_ops.subtract_mean_image(same, warp=True, statistics=statistics),
        100.0 - mean_image,
    )
    larger = jnp.full((2, 4, 3), 100.0)
    warped = device_ops.subtract_mean_image(larger, warp=True, statistics=statistics)
    expected = 100 - np.float32([[0, 2, 6, 8], [80, 82, 86, 88]])[..., None].repeat(3, -1)
    np.testing.assert_allclose(warped, expected, rtol=1e-6)
    with pytest.raises((TypeError, ValueError), match="shapes"):
        device_ops.subtract_mean_image(larger, statistics=statistics)


def test_standardize_brings_the_training_set_to_mean_zero_and_deviation_one():
    images = random_images(20)
    standardize = composed("standardize", compute([images]), train=False)
    values = np.asarray(jax.jit(standardize)(images, jax.random.key(0)))
    np.testing.assert_allclose(values.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(values.std((0, 1, 2)), 1, rtol=1e-5)


def test_standardize_leaves_a_channel_that_never_varies_at_zero():
    images = random_images()
    images[..., 1] = 31
    standardize = composed("standardize", compute([images]), train=False)
    values = np.asarray(jax.jit(standardize)(images, jax.random.key(0)))
    assert np.isfinite(values).all()
    np.testing.assert_array_equal(values[..., 1], 0)


def test_pca_light_adds_colours_of_the_covariance_the_paper_states(statistics):
    count, std = 100_000, 0.1
    image = jnp.zeros((2, 3, 3))
    light = jax.jit(
        jax.vmap(lambda key: device_ops.pca_light(image, std, key=key, statistics=statistics))
    )
    added = np.asarray(light(keys(count)), np.float64)
    same_for_every_pixel = np.broadcast_to(added[:, :1, :1], added.shape)
    np.testing.assert_array_equal(added, same_for_every_pixel)
    colours = added[:, 0, 0]
    p, eigenvalues = statistics.eigenvectors.astype(float), statistics.eigenvalues.astype(float)
    expected = p @ np.diag((eigenvalues / 255 * std) ** 2) @ p.T  # α_i λ_i p_i: λ squared, not λ
    products = colours[:, :, None] * colours[:, None, :]
    error = products.std(0) / count**0.5
    assert (np.abs(products.mean(0) - expected) < 4 * error).all(), (
        products.mean(0),
        expected,
        error,
    )
    assert (
        error < 0.01 * np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    ).all()  # the test can tell
    assert (np.abs(colours.mean(0)) < 4 * colours.std(0) / count**0.5).all()


def test_pca_light_shifts_the_colours_of_real_images_a_little(test_data):
    """In grey levels: λ of values in 0 … 255 as they are would be thousands of them."""
    files = sorted((test_data / "imagenet_sample" / "images").glob("*.jpg"))[:500]
    images = [
        cv2.resize(cv2.imread(str(file))[:, :, ::-1], (32, 32), interpolation=cv2.INTER_AREA)
        for file in files
    ]
    statistics = compute([np.stack(images)])
    light = jax.jit(
        jax.vmap(
            lambda key: device_ops.pca_light(jnp.zeros((1, 1, 3)), key=key, statistics=statistics)
        )
    )
    shift = np.asarray(light(keys(10_000)))[:, 0, 0]
    # 0.1 · 0.2175 · 255 = 5.5 with the values in common use.
    assert 3 < np.sqrt((shift**2).sum(1).mean()) < 9


def test_pca_light_adds_the_same_to_every_image_for_the_same_key(statistics):
    first, second = jnp.asarray(random_images()[:2], jnp.float32)
    draw = [
        device_ops.pca_light(x, key=jax.random.key(5), statistics=statistics) - x
        for x in (first, second)
    ]
    np.testing.assert_allclose(draw[0], draw[1], atol=1e-4)


def blended(image, factors, order):
    """Brightness, contrast and saturation (0, 1, 2) in the given order, pixel by pixel."""
    for which in order:
        grey = image @ np.array([0.299, 0.587, 0.114])
        anchor = [0 * grey, np.full_like(grey, grey.mean()), grey][which][..., None]
        image = np.clip(anchor + factors[which] * (image - anchor), 0, 255)
    return image


def test_photometric_distortions_are_of_one_order_and_factors_within_their_ranges():
    image, ranges = random_images(1)[0].astype(float), ((0.5, 1.5), (0.8, 1.0), (0.25, 2.0))
    distort = jax.jit(
        jax.vmap(
            lambda key: device_ops.photometric(jnp.asarray(image, jnp.float32), *ranges, key=key)
        )
    )
    orders = collections.Counter()
    for key, distorted in zip(keys(60), np.asarray(distort(keys(60))), strict=True):
        order_key, factor_key = jax.random.split(key)
        order = jax.random.permutation(order_key, 3).tolist()
        low, high = np.array(ranges, np.float32).T
        factors = np.asarray(jax.random.uniform(factor_key, (3,), minval=low, maxval=high))
        np.testing.assert_allclose(distorted, blended(image, factors, order), atol=2e-3)
        orders[tuple(order)] += 1
    assert len(orders) == 6 and distorted.min() >= 0 and distorted.max() <= 255


def test_photometric_ranges_of_one_value_are_exact():
    image, key = jnp.asarray(random_images(1)[0], jnp.float32), jax.random.key(0)
    still = (1.0, 1.0)
    np.testing.assert_allclose(
        device_ops.photometric(image, still, still, still, key=key), image, atol=1e-4
    )
    half = device_ops.photometric(image, (0.5, 0.5), still, still, key=key)
    np.testing.assert_allclose(half, image / 2, atol=1e-4)
    grey = np.asarray(device_ops.photometric(image, still, still, (0.0, 0.0), key=key))
    np.testing.assert_allclose(
        grey, np.repeat(image @ np.array([0.299, 0.587, 0.114], np.float32), 3).reshape(5, 4, 3)
    )
    flat = device_ops.photometric(image[..., :1], still, (0.0, 0.0), still, key=key)
    np.testing.assert_allclose(flat, np.full((5, 4, 1), image[..., 0].mean()), rtol=1e-5)


def test_photometric_without_clipping_leaves_the_range_of_grey_levels():
    """As blend of fb.resnet.torch does: image · alpha + grey · (1 − alpha)."""
    image, key = jnp.asarray(random_images(1)[0], jnp.float32), jax.random.key(0)
    still, twice = (1.0, 1.0), (2.0, 2.0)
    bright = device_ops.photometric(image, twice, still, still, clip=False, key=key)
    np.testing.assert_allclose(bright, 2 * image, rtol=1e-5)
    assert bright.max() > 255
    grey = (np.asarray(image) @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    contrast = device_ops.photometric(image, still, twice, still, clip=False, key=key)
    np.testing.assert_allclose(contrast, 2 * image - grey.mean(), rtol=1e-5, atol=1e-3)
    colourful = device_ops.photometric(image, still, still, twice, clip=False, key=key)
    np.testing.assert_allclose(colourful, 2 * image - grey, rtol=1e-5, atol=1e-3)
    assert contrast.min() < 0 and colourful.min() < 0


@pytest.mark.parametrize(("scale", "sqrt_bias"), [(1.0, 0.0), (55.0, 0.0), (1.0, 10.0)])
def test_gcn_is_the_authors_formula(scale, sqrt_bias):
    for image in random_images():
        expected = image.astype(float) - image.mean()
        total = sum(value * value for value in expected.ravel())
        expected /= np.sqrt(sqrt_bias + total) / scale
        ours = device_ops.gcn(jnp.asarray(image, jnp.float32), scale, sqrt_bias)
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [0, 1, 37, 201, 255])
def test_gcn_leaves_an_image_of_one_colour_at_zero(value):
    normalize = jax.jit(composed("gcn(55.0)", None, train=False))
    plain, one_off = np.full((2, 32, 32, 3), value, np.uint8)
    one_off[0, 0, 0] ^= 1
    values = np.asarray(normalize(np.stack([plain, one_off]), jax.random.key(0)))
    np.testing.assert_array_equal(values[0], 0)
    np.testing.assert_allclose(np.linalg.norm(values[1]), 55, rtol=1e-4)


def test_zca_whitens_what_comes_to_it():
    images = correlated_images(4000)
    flat = images.reshape(4000, -1)
    whitening = compute_whitening([images[:1500], images[1500:]])
    whiten = jax.jit(jax.vmap(lambda image: device_ops.zca(image, 0.0, whitening=whitening)))
    white = np.asarray(whiten(images), np.float64).reshape(4000, -1)
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(24), atol=2e-3)
    matrix = np.linalg.lstsq(flat - flat.mean(0), white, rcond=None)[0]
    # Zero-phase: of all whitening matrices, the symmetric one.
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-3)


def test_zca_adds_its_bias_to_the_eigenvalues():
    images = correlated_images(500)
    flat = images.reshape(500, -1).astype(float)
    values, vectors = np.linalg.eigh(np.cov(flat.T, bias=True) + 0.1 * np.eye(24))
    expected = (flat - flat.mean(0)) @ (vectors / np.sqrt(values)) @ vectors.T
    whitening = compute_whitening([images])
    ours = jax.vmap(lambda image: device_ops.zca(image, whitening=whitening))(images)
    np.testing.assert_allclose(ours.reshape(500, -1), expected, atol=1e-3)


def correlated_images(count):
    """float32 [count, 4, 2, 3] whose 24 values are mixtures of each other."""
    rng = np.random.default_rng(0)
    mix = np.eye(24) + rng.normal(0, 0.3, (24, 24))
    return (3 + rng.normal(0, 1, (count, 24)) @ mix.T).astype(np.float32).reshape(count, 4, 2, 3)


def local_contrast(image, size, sigma, center):
    """Local contrast normalisation in loops over pixels and the window around each."""
    half, (h, w, c) = size // 2, image.shape
    offsets = [(i, j) for i in range(-half, half + 1) for j in range(-half, half + 1)]
    weights = {(i, j): np.exp(-(i * i + j * j) / (2 * sigma**2)) for i, j in offsets}
    total = sum(weights.values())

    def averaged(values):
        result = np.zeros_like(values)
        for y, x, (i, j) in itertools.product(range(h), range(w), offsets):
            if 0 <= y + i < h and 0 <= x + j < w:
                result[y, x] += weights[i, j] / total * values[y + i, x + j]
        return result

    centered = image - averaged(image)
    deviation = np.sqrt(averaged((centered if center else image) ** 2))
    for channel in range(c):
        centered[..., channel] /= np.maximum(
            deviation[..., channel], max(deviation[..., channel].mean(), 1e-4)
        )
    return centered


@pytest.mark.parametrize(("size", "center"), [(7, True), (7, False), (3, True), (1, False)])
def test_lcn_is_the_papers_formula(size, center):
    image = random_images(h=9, w=8)[0].astype(float)
    ours = jax.jit(lambda x: device_ops.lcn(x, size, 2.0, center))(jnp.asarray(image, jnp.float32))
    np.testing.assert_allclose(ours, local_contrast(image, size, 2.0, center), atol=2e-4)


def test_lcn_of_black_is_black():
    np.testing.assert_array_equal(device_ops.lcn(jnp.zeros((8, 8, 3))), 0)


# --- composition ----------------------------------------------------------------------------------


def test_no_operations_leave_the_values_as_float32():
    images = random_images()
    values = composed("", None, train=False)(jnp.asarray(images), jax.random.key(0))
    assert values.dtype == jnp.float32
    np.testing.assert_array_equal(values, images)


def test_operations_run_in_the_order_of_the_string(statistics):
    images, key = jnp.asarray(random_images(h=4)), jax.random.key(0)
    scaled_first = composed("scale(0.5)|subtract_mean", statistics, train=False)(images, key)
    scaled_last = composed("subtract_mean|scale(0.5)", statistics, train=False)(images, key)
    np.testing.assert_allclose(scaled_first, images / 2 - statistics.mean[None, None, None])
    np.testing.assert_allclose(scaled_last, (images - statistics.mean[None, None, None]) / 2)


def test_every_image_of_a_batch_gets_its_own_key(statistics):
    images = jnp.tile(jnp.asarray(random_images(1)), (64, 1, 1, 1))
    light = jax.jit(composed("pca_light(0.1)", statistics, train=True))
    once, again, other = (np.asarray(light(images, jax.random.key(seed))) for seed in (1, 1, 2))
    assert len({image.tobytes() for image in once}) == 64
    np.testing.assert_array_equal(once, again)
    assert not (once == other).any()


def test_every_operation_draws_for_itself(statistics):
    images = jnp.tile(jnp.asarray(random_images(1)), (400, 1, 1, 1))
    flip_twice = composed("flip|flip", None, train=True)
    twice = jax.jit(flip_twice)(images, jax.random.key(0))
    mirrored = (np.asarray(twice) == np.asarray(images)[:, :, ::-1]).all((1, 2, 3))
    assert 0.4 < mirrored.mean() < 0.6  # never, if both drew the same


def test_any_number_of_devices_draws_the_same(statistics):
    text = "flip|pad_crop(1)|pca_light(0.1)|standardize"
    transform = jax.jit(composed(text, statistics, train=True))
    images, key = jnp.asarray(random_images(8)), jax.random.key(3)
    expected = transform(images, key)
    for devices in (2, 8):
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        spread = jax.device_put(images, jax.NamedSharding(mesh, jax.P("data")))
        np.testing.assert_allclose(transform(spread, key), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["flip", "pad_crop(4)", "pca_light(0.1)", "photometric"])
def test_evaluation_may_not_draw(name, statistics):
    with pytest.raises(
        UserError, match=r"config.data.eval_device: '\w+' is random, which evaluation may not be"
    ):
        composed(f"subtract_mean|{name}", statistics, train=False)


def test_an_operation_that_is_not_there_is_refused_with_the_nearest():
    with pytest.raises(
        UserError, match=r"data.train_device: there is no 'flap' \(did you mean 'flip'\?\)"
    ):
        composed("flap", None, train=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pad_crop(-1)", "'pad_crop' fails on images of 5×4×3"),
        ("subtract_mean_image", "'subtract_mean_image' fails"),
        ("zca", "'zca' fails on images of 5×4×3: the whitening is of images of 48 values"),
    ],
)
def test_an_operation_that_fails_on_the_images_is_named(text, message, statistics):
    # The mean image and the whitening are of images of 4×4.
    statistics = statistics._replace(whitening=compute_whitening([np.zeros((2, 4, 4, 3))]))
    transform = composed(text, statistics, train=True)
    with pytest.raises(UserError, match=f"^config.data.train_device: {message}") as caught:
        jax.eval_shape(transform, jnp.asarray(random_images()), jax.random.key(0))
    assert "\n" not in str(caught.value)


def test_which_strings_need_statistics():
    assert not any(
        needs_statistics(device(text)) for text in ("flip|pad_crop(4)", "", "scale(2.0)")
    )
    assert all(
        needs_statistics(device(text))
        for text in ("flip|subtract_mean", "pca_light", "standardize|flip", "gcn|zca")
    )


@pytest.mark.parametrize(
    ("evaluation", "training", "before"),
    [
        ("standardize", "flip|standardize", None),
        ("zca", "zca|flip", ""),
        ("gcn(55.0) | zca | scale(2)", "gcn(55.0)|zca|scale(2)|flip", "gcn(55.0)"),
        ("standardize|gcn|zca", "pad_crop(4)|standardize|gcn|flip|zca", "standardize|gcn"),
        ("gcn|zca", "gcn", "gcn"),
    ],
)
def test_whitening_is_of_what_evaluation_brings_to_it(evaluation, training, before):
    train_device = parse_device(training, key="data.train_device")
    before_zca = before_whitening(device(evaluation), train_device)
    assert (before_zca.text if before_zca else None) == before


@pytest.mark.parametrize(
    ("evaluation", "training", "message"),
    [
        (
            "gcn",
            "gcn|zca",
            "config.data.train_device whitens other images than config.data.eval_device",
        ),
        ("gcn(55.0)|zca", "gcn|zca", "config.data.train_device whitens other images"),
        ("zca|zca", "zca", "config.data.eval_device whitens twice"),
    ],
)
def test_whitening_that_would_be_of_other_images_is_refused(evaluation, training, message):
    train_device = parse_device(training, key="data.train_device")
    with pytest.raises(UserError, match=message):
        before_whitening(device(evaluation), train_device)
