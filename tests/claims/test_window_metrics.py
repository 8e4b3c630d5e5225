"""What exact claims measure on windows of an image: work that is shared, and scores that stay the
same.
"""

import jax
import pytest

from cnn_papers.claims import metrics
from cnn_papers.claims.metrics import Finished
from cnn_papers.models.spp import FACTS
from configs import overfeat, resnet, spp

CLASSIFIER = 50 * 256 * 4096 + 4096 * 4096 + 4096 * 1000  # multiply-adds of ZF-5 behind its pyramid


def configured(module, recipe="", **overrides):
    config = module.get_config(recipe)
    config.update_from_flattened_dict(
        {key.replace("__", "."): value for key, value in overrides.items()}
    )
    return Finished(config, [], "done")


@pytest.fixture(scope="module")
def zf5():
    return configured(spp, "imagenet2012")


@pytest.mark.parametrize("features_only", [False, True])
def test_one_window_of_the_networks_own_size_saves_nothing(zf5, features_only):
    assert metrics.window_saving(zf5, 224, 224, 1, features_only).value == 1.0


def test_windows_share_convolutions_and_not_the_classifier(zf5):
    features = FACTS["zf5"].macs - CLASSIFIER
    assert metrics.window_saving(zf5, 224, 224, 10, features_only=True).value == 10.0
    expected = 10 * FACTS["zf5"].macs / (features + 10 * CLASSIFIER)
    assert metrics.window_saving(zf5, 224, 224, 10).value == pytest.approx(expected, rel=1e-12)


def test_a_larger_image_costs_more_once(zf5):
    """Its maps have about four times the cells."""
    assert metrics.window_saving(zf5, 448, 448, 10, features_only=True).value == pytest.approx(
        10 / 4, rel=0.1
    )


def test_a_map_of_scores_says_how_many_windows_there_are():
    """OverFeat's accurate network scores 7×10 windows of its largest scale."""
    accurate = configured(
        overfeat,
        "imagenet2012",
        model__variant="accurate",
        data__eval_host="decode|resize_short(256)|center_crop(221)",
    )
    saving = metrics.window_saving(accurate, 461, 569)
    assert saving == metrics.window_saving(accurate, 461, 569, windows=70)
    assert metrics.window_saving(accurate, 221, 221).value == 1.0


@pytest.fixture
def narrow():
    """OverFeat's fast network on 64 pixels, where fc6 sees 2×2 cells."""
    return configured(overfeat, model__width=0.02)


def test_sliding_gives_each_window_what_it_gets_alone(narrow):
    assert 0 <= metrics.sliding_difference(narrow, 96, 80).value < 1e-5


def test_a_classifier_that_slides_otherwise_is_seen(narrow, monkeypatch):
    """The convolution that slides is made two per cent too large; a window alone is a matrix
    product.
    """
    convolve = jax.lax.conv_general_dilated
    monkeypatch.setattr(
        jax.lax, "conv_general_dilated", lambda *args, **kwargs: 1.02 * convolve(*args, **kwargs)
    )
    assert (
        0.01 < metrics.sliding_difference(narrow, 96, 80).value < 0.02
    )  # of outputs with their biases


def test_behind_global_average_pooling_there_is_nothing_to_slide_over():
    run = configured(resnet, model__blocks=(1,), model__widths=(4,))
    assert metrics.sliding_difference(run, 48, 64).value == 0.0
