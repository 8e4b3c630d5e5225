"""Test protocols against plain NumPy loops over their views, and bad input."""

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.random_variables import random_variables

from cnn_papers import counting, opstrings
from cnn_papers.data import host_ops, image_files, progress
from cnn_papers.data.augment import compose, parse_device
from cnn_papers.data.pipeline import Pipeline, parse_host
from cnn_papers.data.split import Split
from cnn_papers.data.statistics import compute
from cnn_papers.errors import UserError
from cnn_papers.evaluation import passes, protocols, scores, support, views
from cnn_papers.models import overfeat, spp, vgg
from cnn_papers.parallel.mesh import data_sharding, make_mesh, replicated

CLASSES = 6
draw = np.random.default_rng(3)
IMAGES = [draw.integers(0, 256, (*size, 3), np.uint8) for size in draw.integers(9, 26, (19, 2))]
KERNEL = draw.normal(size=(3, 2, 3, CLASSES)).astype(np.float32)


class Tiny(nn.Module):
    """A convolution whose kernel is no mirror image of itself, then the mean over positions."""

    @nn.compact
    def __call__(self, image, *, train=False):
        kernel = self.param("kernel", nn.initializers.zeros, KERNEL.shape)
        x = jax.lax.conv_general_dilated(
            image, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jnp.tanh(x).mean((1, 2)), {"map": x}


def view_of(image, key):
    return image.astype(jnp.float32) / 64 - 2


def tiny(image):
    """The probabilities of `Tiny` for one image, in NumPy."""
    image = image.astype(np.float64) / 64 - 2
    h, w = (image.shape[0] - 3) // 2 + 1, (image.shape[1] - 2) // 2 + 1
    rows = [
        np.einsum("abc,abck->k", image[2 * y : 2 * y + 3, 2 * x : 2 * x + 2], KERNEL)
        for y in range(h)
        for x in range(w)
    ]
    return softmax(np.tanh(np.array(rows)).mean(0))


def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def mean_over(looks):
    """The mean of `tiny` over views and their mirror images."""
    return np.mean([tiny(view) for look in looks for view in (look, look[:, ::-1])], 0)


def pipeline(images=IMAGES, ops="decode", devices=1, spoil=None):
    examples = [
        {
            "image": cv2.imencode(".png", image[..., ::-1])[1].tobytes(),
            "label": i % CLASSES,
            "id": f"image{i}",
        }
        for i, image in enumerate(images)
    ]
    if spoil is not None:
        examples[spoil]["image"] = b"no image"
    mesh = make_mesh(devices)
    return Pipeline(
        Split("test", examples, tuple(map(str, range(CLASSES))), ""),
        parse_host(ops, key="data.eval_host"),
        num_classes=CLASSES,
        resident="never",
        sharding=data_sharding(mesh),
        replicated=replicated(mesh),
    )


def run(protocol, model=None, variables=None, *, devices=1, pixels=2000, source=None):
    """One pass over IMAGES; a batch has up to `pixels` pixels."""
    model, variables = model or Tiny(), variables or {"params": {"kernel": KERNEL}}
    mesh = make_mesh(devices)
    variables = jax.device_put(variables, replicated(mesh))
    raw = source or pipeline(devices=devices)
    source = passes.Source(
        raw, pipeline(ops="decode|resize(8)", devices=devices), "bilinear", pixels
    )
    programs = passes.make_programs(model, variables, view_of, mesh)
    return passes.run(protocol, programs, variables, source, name="it")


CASES = {
    "ten_crop(7, 9)": lambda image: mean_over(
        views.five_crops(image, "bilinear", size=7, short=9, whole=False)
    ),
    "ten_crop(7, 9, whole=True)": lambda image: mean_over(
        views.five_crops(image, "bilinear", size=7, short=9, whole=True)
    ),
    "crops_144(7, (8, 10, 11, 13))": lambda image: mean_over(
        views.six_crops_of_squares(image, "bilinear", size=7, scales=(8, 10, 11, 13))
    ),
    "vgg_dense((8, 12), step=3)": lambda image: mean_over(
        views.whole(image, "bilinear", scales=(8, 12), step=3, longest=2.0)
    ),
    "vgg_multi_crop(11, 7, grid=3)": lambda image: mean_over(
        views.grid(image, "bilinear", size=7, scales=(11,), count=3)
    ),
    "resnet_dense(10, 2, 1.5)": lambda image: mean_over(
        views.whole(image, "bilinear", scales=(10,), step=2, longest=1.5)
    ),
    "vgg_both(12, 7, 3)": lambda image: (
        (
            mean_over(views.whole(image, "bilinear", scales=(12,), step=3, longest=2.0))
            + mean_over(views.grid(image, "bilinear", size=7, scales=(12,), count=5))
        )
        / 2
    ),
    "single_view": lambda image: tiny(host_ops.resize(image, 8)),
}


def protocol_of(text):
    (protocol,) = support.parse(text).values()
    return protocol


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("text", CASES)
def test_a_protocol_is_a_plain_loop_over_its_views(text, devices):
    outcome = run(protocol_of(text), devices=devices)
    expected = [CASES[text](IMAGES[i]) for i in (0, 7, 18)]
    np.testing.assert_allclose(outcome.scores[[0, 7, 18]], expected, rtol=2e-5)
    assert outcome.scores.shape == (19, CLASSES) and outcome.scores.dtype == np.float32
    np.testing.assert_array_equal(outcome.labels, np.arange(19) % CLASSES)


def test_mirror_images_matter_to_the_network_of_these_tests():
    assert np.abs(tiny(IMAGES[0]) - tiny(IMAGES[0][:, ::-1])).max() > 0.01


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixels", "devices"), [(1, 1), (700, 1), (10**6, 1), (1, 8), (1000, 2), (10**6, 8)]
)
def test_batches_change_nothing_and_every_image_counts_once(pixels, devices):
    """From one view a batch, with a partial last batch, to all in one."""
    outcome = run(protocols.vgg_dense(9, step=9), pixels=pixels, devices=devices)
    expected = [
        mean_over(views.whole(IMAGES[i], "bilinear", scales=(9,), step=9, longest=2.0))
        for i in range(19)
    ]
    np.testing.assert_allclose(outcome.scores, expected, rtol=2e-5)


@pytest.mark.parametrize("devices", [1, 8])
def test_a_shape_is_one_program_and_their_number_is_reported_and_bounded(devices):
    scales, step, longest = (9, 12), 3, 2.0
    (part,) = protocol = protocols.vgg_dense(scales, step, longest)
    shapes = {view.shape for image in IMAGES for view in part.views(image, "bilinear")}
    programs, made = (
        passes.make_programs(Tiny(), {"params": {"kernel": KERNEL}}, view_of, make_mesh(devices)),
        [],
    )

    def counted(score, mirrored, shape):
        made.append((shape, programs(score, mirrored, shape)))
        return made[-1][1]

    variables = jax.device_put({"params": {"kernel": KERNEL}}, replicated(make_mesh(devices)))
    raw = pipeline(devices=devices)
    outcome = passes.run(
        protocol, counted, variables, passes.Source(raw, raw, "bilinear", 500), name="it"
    )
    assert (
        outcome.programs
        == len({id(program) for _, program in made})
        == len(shapes)
        == len({s for s, _ in made})
    )
    assert 3 < len(shapes) <= sum(2 * int((longest - 1) * scale / step) + 1 for scale in scales)
    assert all(shape[0] % devices == 0 for shape, _ in made)
    assert all(shape[0] == devices or 2 * np.prod(shape[:3]) <= 500 for shape, _ in made)
    assert len(made) > len(shapes)  # several batches of one shape are the same program


def test_programs_serve_the_next_protocol_too():
    programs = passes.make_programs(Tiny(), {"params": {"kernel": KERNEL}}, view_of, make_mesh(1))
    assert programs(scores.softmax, True, (4, 8, 8, 3)) is programs(
        scores.softmax, True, (4, 8, 8, 3)
    )
    assert programs(scores.softmax, True, (4, 8, 8, 3)) is not programs(
        scores.softmax, False, (4, 8, 8, 3)
    )


def test_a_protocol_that_looks_at_some_images_more_often_is_refused():
    (part,) = protocols.ten_crop(7, 9)
    uneven = part._replace(
        views=lambda image, method: part.views(image, method)[: 4 + (image.shape[0] > 15)]
    )
    with pytest.raises(AssertionError, match=r"it scored \[ 8. 10.\] views of an image"):
        run((uneven,))


def test_images_smaller_than_the_scale_are_counted():
    short = np.array([min(image.shape[:2]) for image in IMAGES])
    for scale in (9, 12, 15):
        assert run(protocols.ten_crop(7, scale)).enlarged == (short < scale).sum()
    assert run(protocols.single_view()).enlarged == 0


def test_an_image_that_cannot_be_decoded_ends_it_and_is_named():
    source = pipeline(spoil=11)
    with pytest.raises(
        UserError, match=r"image11 of test cannot be decoded.*evaluation needs every image"
    ):
        run(protocols.ten_crop(7, 9), source=source)


def test_an_image_too_thin_to_be_scaled_is_named(monkeypatch):
    monkeypatch.setattr(image_files, "MAX_PIXELS", 10_000)
    source = pipeline([*IMAGES[:-1], np.zeros((1, 600, 3), np.uint8)])
    with pytest.raises(
        UserError, match=rf"^image image{len(IMAGES) - 1} of test cannot be scaled: 5,400×9 pixels"
    ):
        run(protocols.ten_crop(7, 9), source=source)


def test_a_long_pass_says_how_far_it_is(monkeypatch, caplog):
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    with caplog.at_level("INFO"):
        run(protocols.ten_crop(7, 9))
    assert "it: 18 of 19 images, " in caplog.text


# --- OverFeat and SPP-net -------------------------------------------------------------------------


def test_overfeat_takes_the_maximum_over_positions_then_the_mean():
    model = overfeat.Model("fast", width=0.01, num_classes=CLASSES, conv1_stride=2)
    variables = random_variables(model, (64, 64, 3))
    ends_of = jax.jit(
        lambda image: model.clone(fine=True).apply(variables, view_of(image, None))[1]
    )
    sizes = ((64, 64), (76, 92))
    protocol = protocols.overfeat_dense(sizes)
    outcome = run(protocol, model, variables, pixels=10**5)
    image, expected = IMAGES[4], []
    for look in views.covers(image, "bilinear", sizes=sizes):
        for view in (look, look[:, ::-1]):
            ends = ends_of(view[None])
            expected.append(softmax(np.asarray(ends["fc8"], np.float64)).max((1, 2))[0])
    expected = np.mean(expected, 0)
    assert expected.sum() > 1.001  # maxima of different positions
    np.testing.assert_allclose(outcome.scores[4], expected / expected.sum(), rtol=1e-4)
    coarse = run(protocols.overfeat_dense(sizes, fine=False), model, variables, pixels=10**5)
    assert np.abs(coarse.scores - outcome.scores).max() > 1e-4


@pytest.mark.process
def test_spp_views_are_windows_of_one_map_one_after_the_other():
    model = spp.Model("zf5", width=0.02, num_classes=CLASSES, levels=(2, 1))
    variables = random_variables(model, (64, 64, 3))
    protocol = protocols.spp_multi_view(scales=(64, 80), size=64, full=72, step=16)
    outcome = run(protocol, model, variables, pixels=10**5)
    looks = []

    @jax.jit
    def logits_of(image, boxes=None):
        return model.apply(variables, view_of(image, None), windows=boxes)[0]

    for scale, count in ((64, 6), (80, 18)):
        (whole,) = views.whole(IMAGES[2], "bilinear", scales=(scale,), step=16, longest=2.0)
        h, w = whole.shape[:2]
        rows = [0] if scale == 64 and h <= w else [0, (h - 64) // 2, h - 64]
        columns = [0] if scale == 64 and h > w else [0, (w - 64) // 2, w - 64]
        boxes = [(y, x, y + 64, x + 64) for y in rows for x in columns]
        assert 2 * len(boxes) == count
        for view in (whole, whole[:, ::-1]):
            for box in boxes:
                logits = logits_of(view[None], jnp.array([[box]], jnp.float32))
                looks.append(softmax(np.asarray(logits, np.float64))[0, 0])
    (whole,) = views.whole(IMAGES[2], "bilinear", scales=(72,), step=16, longest=2.0)
    for view in (whole, whole[:, ::-1]):
        looks.append(softmax(np.asarray(logits_of(view[None]), np.float64))[0])
    assert len(looks) == 6 + 18 + 2
    np.testing.assert_allclose(outcome.scores[2], np.mean(looks, 0), rtol=1e-4)


def test_the_full_image_view_is_the_pyramid_over_everything():
    """Table 3 is of single views: without the mirror image."""
    model = spp.Model("zf5", width=0.02, num_classes=CLASSES, levels=(2, 1))
    variables = random_variables(model, (64, 64, 3))
    outcome = run(protocols.spp_full(64, longest=1.0), model, variables, pixels=10**5)
    (whole,) = views.whole(IMAGES[2], "bilinear", scales=(64,), step=16, longest=1.0)
    (look,) = jax.jit(model.apply)(variables, view_of(whole[None], None))[0]
    np.testing.assert_allclose(outcome.scores[2], softmax(np.array(look)), rtol=1e-4)


def test_a_dense_network_averages_its_map_before_the_softmax():
    model = vgg.Model("A", width=0.02, num_classes=CLASSES)
    variables = random_variables(model, (32, 32, 3))
    outcome = run(protocols.vgg_dense(64, longest=1.0), model, variables, pixels=10**5)
    (whole,) = views.whole(IMAGES[2], "bilinear", scales=(64,), step=32, longest=1.0)
    apply = jax.jit(model.apply)
    maps = [
        apply(variables, view_of(view[None], None))[1]["fc8"][0] for view in (whole, whole[:, ::-1])
    ]
    assert maps[0].shape == (2, 2, CLASSES)
    expected = softmax(np.array(maps, np.float64).mean((1, 2))).mean(0)
    np.testing.assert_allclose(outcome.scores[2], expected, rtol=1e-4)


# --- bad input ------------------------------------------------------------------------------------

BAD = {
    "nine_crop": "config.eval.protocol: there is no 'nine_crop' (did you mean 'ten_crop'?); "
    "there are: crops_144, ",
    "": "config.eval.protocol='' must name one or more different protocols, "
    "joined by '|', of: crops_144, ",
    "ten_crop|ten_crop": "must name one or more different protocols",
    "ten_crop('a')": "'ten_crop('a')' does not fit "
    "ten_crop(size: int = 224, short: int = 256, whole: bool = False)",
    "ten_crop(224, 200)": "a crop of 224 does not fit images of shorter side 200; "
    "give larger scales or a smaller crop",
    "crops_144(224, (256, 220))": "a crop of 224 does not fit images of shorter side 220",
    "vgg_multi_crop((200, 300))": "a crop of 224 does not fit images of shorter side 200",
    "vgg_multi_crop(grid=0)": "grid=0 must be positive",
    "vgg_dense(())": "scales=(), step=32 and longest=2.0 must all be positive",
    "vgg_dense(256, step=0)": "scales=(256,), step=0 and longest=2.0 must all be positive",
    "spp_full(256, longest=0.5)": "longest=0.5 must all be positive, longest at least 1",
    "overfeat_dense(())": "sizes=() must be pairs of shorter and longer side, at least one",
    "overfeat_dense(((245,),))": "does not fit overfeat_dense(",
    "spp_multi_view((200, 224))": "a crop of 224 does not fit images of shorter side 200",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_protocols_say_what_is_wrong(text):
    with pytest.raises(UserError) as error:
        support.parse(text)
    assert BAD[text] in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", opstrings.functions(protocols))
def test_every_protocol_can_be_named_alone(name):
    assert list(support.parse(f"single_view|{name}" if name != "single_view" else name))[-1] == name
    protocol = protocol_of(name)
    parts = [protocol.part] if isinstance(protocol, protocols.Svm) else protocol
    assert all(part.weight > 0 for part in parts)


def refusal(text, model, side, view=view_of):
    variables = counting.abstract_variables(model, (side, side, 3))
    with pytest.raises(UserError) as error:
        for name, protocol in support.parse(text).items():
            support.check(name, protocol, model, variables, view, (side, side, 3))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_network_says_which_protocols_it_can_serve():
    net = vgg.Model("A", width=0.02, num_classes=CLASSES)
    everyone = (
        "crops_144, resnet_dense, single_view, svm, ten_crop, vgg_both, vgg_dense, vgg_multi_crop"
    )
    line = refusal("overfeat_dense", net, 32)
    assert line.endswith(
        f"pools last at every offset (model_name overfeat); this one can serve: {everyone}"
    )
    assert refusal("spp_full", net, 32).endswith(everyone)
    bare = spp.Model("zf5-no-spp", width=0.02, num_classes=CLASSES)
    assert "spp_multi_view needs a network with a spatial pyramid" in refusal(
        "spp_multi_view", bare, 64
    )
    line = refusal(
        "overfeat_dense", spp.Model("zf5", width=0.02, num_classes=CLASSES, levels=(1,)), 64
    )
    assert "spp_full, spp_multi_view" in line and "overfeat_dense" not in line.split("can serve")[1]


class Rigid(nn.Module):
    """A network for images of one size."""

    @nn.compact
    def __call__(self, image, *, train=False):
        return nn.Dense(CLASSES)(image.reshape(image.shape[0], -1)), {}


def test_a_network_that_cannot_slide_says_so():
    line = refusal("vgg_dense(32)", Rigid(), 16)
    assert "vgg_dense(32) needs a network that slides over images larger than its input" in line
    assert line.endswith(
        "this one can serve: crops_144, single_view, svm, ten_crop, vgg_multi_crop"
    )


def test_views_smaller_than_the_networks_field_name_the_empty_layer():
    net = vgg.Model("A", width=0.02, num_classes=CLASSES)
    line = refusal("vgg_dense((64, 40))", net, 64)
    assert "vgg_dense((64, 40)) has views of 40×40: an image of 40×40 is too small" in line
    assert line.endswith("fc6 has no pixels left")
    assert "ten_crop(50, 60) has views of 50×50" in refusal("ten_crop(50, 60)", net, 64)
    over = overfeat.Model("accurate", width=0.02, num_classes=CLASSES)
    assert "has views of 200×300" in refusal("overfeat_dense(((245, 245), (200, 300)))", over, 221)


@pytest.mark.parametrize("warp", [True, False])
def test_a_warped_mean_image_fits_the_views_of_every_protocol(warp):
    """SPP-net, Appendix A: its recipe tests whole images and six scales with one mean image."""
    statistics = compute([np.zeros((1, 64, 64, 3), np.uint8)])
    text = f"subtract_mean_image(warp={warp})"
    normalise = compose(parse_device(text, key="data.eval_device"), statistics, train=False)
    net = spp.Model("zf5", width=0.02, num_classes=CLASSES)
    variables = counting.abstract_variables(net, (64, 64, 3))
    tests = "single_view|ten_crop(64, 72)|spp_full(96)|spp_multi_view"
    if warp:
        assert len(support.supported(tests, net, variables, normalise, (64, 64, 3))) == 4
    else:
        line = refusal(tests, net, 64, normalise)
        assert "subtract_mean_image(warp=True) take any size" in line


def test_a_mean_image_fits_its_own_size_alone():
    def view(image, key):
        if image.shape[1:3] != (32, 32):
            raise UserError(
                "config.data.eval_device: 'subtract_mean_image' fails on images of 64×64×3: shapes"
            )
        return view_of(image, key)

    net = vgg.Model("A", width=0.02, num_classes=CLASSES)
    line = refusal("ten_crop(32, 40)|vgg_dense(64)", net, 32, view)
    expected = (
        "vgg_dense(64) has views of 64×64, but config.data.eval_device fits only images of 32×32"
    )
    assert expected in line
