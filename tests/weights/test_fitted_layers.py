"""The fit of a Fisher vector's components and words: from a seeded sample, once, and kept."""

import cv2
import jax
import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from support.image_folders import write_images

from cnn_papers import train
from cnn_papers.errors import UserError
from cnn_papers.models import ifv
from cnn_papers.runs.run import assemble
from cnn_papers.weights import convert, fitting, initial, trained
from cnn_papers.weights.predictor import make_predictor
from configs import ifv as recipes


def sample(size=400, seed=0):
    """Random descriptors with places, uint8 [size, 130]."""
    return np.random.default_rng(seed).integers(1, 160, (size, 130)).astype(np.uint8)


def tiny(tmp_path, **overrides):
    """The recipe `folder` on images of two classes, for one epoch."""
    config = recipes.get_config("folder")
    config.data.name = write_images(
        tmp_path / "images", {f"{split}/{c}": 6 for split in ("train", "val") for c in "ab"}
    )
    config.data.train_host = config.data.eval_host = "decode|dense_sift(step=2, bin_size=4)"
    config.model.update({"num_classes": 2, "words": 4, "width": 1.0, "dims": 8, "sample": 200})
    config.batch_size, config.total_epochs, config.eval.protocol = 8, 1.0, "single_view"
    config.update_from_flattened_dict(overrides)
    return config


# --- the fit --------------------------------------------------------------------------------------


def test_components_and_words_are_scikit_learns(capsys):
    model = ifv.Model(words=3, dims=10, xy=True)
    mean, kernel, log_weight, means, variances = fitting.fit_to(model, sample(), seed=7)
    values = sample()[:, :128].astype(np.float32)
    values = np.sqrt(values / values.sum(1, keepdims=True))
    pca = PCA(10, svd_solver="covariance_eigh").fit(values)
    np.testing.assert_allclose(mean, pca.mean_, atol=1e-6)
    np.testing.assert_allclose(kernel, pca.components_.T, atol=1e-4)
    x = np.concatenate([pca.transform(values), sample()[:, 128:] / 255 - 0.5], 1)
    gmm = GaussianMixture(
        3, covariance_type="diag", init_params="k-means++", random_state=7, max_iter=100
    ).fit(x.astype(np.float32))
    np.testing.assert_allclose(np.exp(log_weight), gmm.weights_, atol=1e-3)
    np.testing.assert_allclose(means, gmm.means_, atol=1e-3)
    np.testing.assert_allclose(variances, gmm.covariances_, atol=1e-4)
    assert "fitted 3 words of 12 dimensions in " in capsys.readouterr().out


def test_colours_are_fitted_to_the_rows_that_have_some():
    rows = np.concatenate([sample()[:, :128], sample(seed=1)[:, :98]], 1)
    rows[:50, 128:224], rows[50:80, :128] = 0, 0  # each kind lacks some
    model = ifv.Model(words=3, dims=10, xy=True, colours="beside")
    mean, kernel, log_weight, means, variances = fitting.fit_to(model, rows, 7, ifv.COLOURS)
    values = rows[50:, 128:224].astype(np.float32) / 255
    pca = PCA(10, svd_solver="covariance_eigh").fit(values)
    np.testing.assert_allclose(mean, pca.mean_, atol=1e-6)
    np.testing.assert_allclose(kernel, pca.components_.T, atol=1e-4)
    assert (log_weight.shape, means.shape, variances.shape) == ((3,), (3, 10), (3, 10))
    of_sift = fitting.fit_to(model, rows, 7)
    only_sift = np.delete(rows[np.r_[:50, 80:400]], np.r_[128:224], 1)
    plain = fitting.fit_to(ifv.Model(words=3, dims=10, xy=True), only_sift, 7)
    for ours, expected in zip(of_sift, plain, strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert of_sift[3].shape == (3, 12)


def test_a_sample_has_as_many_descriptors_of_each_image():
    images = np.stack([np.full((30, 130, 1), i + 1, np.uint8) for i in range(8)])
    images[3] = 0
    images[4, 2:] = 0
    drawn = fitting.draw(40, iter(images), len(images), seed=0)
    values, counts = np.unique(drawn[:, 0], return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {
        1: 5, 2: 5, 3: 5, 5: 2, 6: 5, 7: 5, 8: 5
    }  # fmt: skip
    assert len(fitting.draw(9, iter(images), len(images), seed=0)) == 9


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run of the recipe `tiny`, beside its images."""
    folder = tmp_path_factory.mktemp("fitted")
    assert train.train_and_evaluate(tiny(folder), folder / "run").code == 0
    return folder / "run"


def test_a_run_fits_before_its_first_step_and_only_the_classifier_moves(finished, tmp_path, capsys):
    config = tiny(tmp_path)
    run = assemble(config, tmp_path / "run")
    arrays = initial.read_or_fit(config, run.model, run.data.train)
    said = capsys.readouterr()
    assert "fits components and words to 200 descriptors of 12 images" in said.out
    assert "at random" not in said.err
    network = trained.from_run(finished)
    params = convert.flatten({"params": network.variables["params"]}, network.model)
    assert len(arrays) == 5
    for path, array in arrays.items():
        np.testing.assert_array_equal(params[path], array)  # bit for bit, and never moved
    assert np.abs(params["params/classifier/kernel"]).max() > 0
    other = fitting.fit(run.model, run.data.train, seed=1)
    assert not np.array_equal(other["params/gmm/mean"], arrays["params/gmm/mean"])


def test_a_prediction_takes_the_vector_of_an_image(finished):
    predictor = make_predictor(trained.from_run(finished), "fisher")
    (path, *_) = sorted((finished.parent / "images/val/a").iterdir())
    image = predictor.prepare(path.read_bytes())
    vectors = predictor.outputs(np.stack([image] * jax.device_count()))
    assert vectors.shape[1:] == (1, 1, 2 * 4 * 8)
    np.testing.assert_allclose(np.linalg.norm(vectors[0]), 1, rtol=1e-5)


def test_a_run_that_starts_from_another_keeps_its_fit(finished, tmp_path, capsys):
    config = tiny(tmp_path, init_from=str(finished), seed=1)
    run = assemble(config, tmp_path / "second")
    arrays = initial.read_or_fit(config, run.model, run.data.train)
    assert "fits layers" not in capsys.readouterr().out
    network = trained.from_run(finished)
    np.testing.assert_array_equal(
        arrays["params/gmm/mean"], network.variables["params"]["gmm"]["mean"]
    )


def test_resident_and_streamed_images_give_one_sample(tmp_path):
    config = tiny(tmp_path)
    images = {}
    for resident in ("always", "never"):
        config.data.resident = resident
        train_images = assemble(config, tmp_path / "run").data.train
        images[resident] = np.stack([*train_images.shuffled_images(3)])
    assert images["always"].shape == (12, 81 + 16 + 1, 130, 1)
    np.testing.assert_array_equal(images["always"], images["never"])


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.fault(
    "config: a Fisher vector of fewer descriptors than words", "refused with both numbers"
)
def test_fewer_descriptors_than_words_are_refused():
    with pytest.raises(UserError, match="sample has 60 descriptors, fewer than the 64 words"):
        fitting.fit_to(ifv.Model(words=64), sample(60), seed=0)


@pytest.mark.fault("config: more components than the sample's rank", "refused with both numbers")
def test_more_components_than_the_rank_are_refused():
    with pytest.raises(UserError, match=r"dims=80 .* sample of 50 descriptors has rank 49"):
        fitting.fit_to(ifv.Model(words=4), sample(50), seed=0)
    flat = sample(300)
    flat[:, 20:128] = 0
    with pytest.raises(UserError, match=r"dims=80 .* sample of 300 descriptors has rank (19|20)"):
        fitting.fit_to(ifv.Model(words=4), flat, seed=0)


@pytest.mark.fault("config: a word that no descriptor belongs to", "refused with its number")
def test_a_word_that_dies_is_refused():
    weights = np.array([0.5, 0.4999, 0.0001])
    with pytest.raises(
        UserError, match=r"1 of 3 words have died, the first is word 2 with 0\.1 of 1,"
    ):
        fitting.check_alive(weights, 1000)
    fitting.check_alive(np.array([0.5, 0.499, 0.001]), 1000)
    with pytest.raises(UserError, match="2 of 2 words have died"):
        fitting.check_alive(np.array([np.nan, np.nan]), 1000)


@pytest.mark.fault(
    "config: components and words of other descriptors than the run's", "refused with both values"
)
def test_a_run_does_not_start_from_words_of_other_descriptors(finished, tmp_path):
    config = tiny(tmp_path, init_from=str(finished))
    run = assemble(config, tmp_path / "second")
    config.data.train_host = "decode|dense_sift(step=2, bin_size=5)"
    with pytest.raises(
        UserError,
        match=rf"{finished} has components .* of other .* \(bin_size=4 there, 5 now\): take the",
    ):
        initial.read_or_fit(config, run.model, run.data.train)
    config.data.train_host = "decode|dense_sift(step=1, bin_size=4, longest=99)"
    assert len(initial.read_or_fit(config, run.model, run.data.train)) > 4


def test_images_without_any_descriptor_are_refused():
    with pytest.raises(
        UserError, match="no descriptor in 3 training images: all are of one colour"
    ):
        fitting.draw(10, iter(np.zeros((3, 20, 130, 1), np.uint8)), 3, seed=0)


def test_layers_that_are_fitted_cannot_be_trained(tmp_path):
    config = tiny(tmp_path, **{"optim.frozen": "pca"})
    with pytest.raises(UserError, match=r"frozen='pca': gmm would be trained, .* write 'pca\|gmm'"):
        train.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "data.train_device",
            "flip",
            "'flip' is for images, and config.data.train_host gives desc",
        ),
        (
            "data.train_host",
            "decode|resize(32)",
            "'flip_descriptors' is for descriptors, and config",
        ),
        (
            "data.eval_host",
            "decode|resize(32)",
            "it takes descriptors, 130×1 values each, not image",
        ),
    ],
)
def test_images_and_descriptors_are_not_mixed_up(tmp_path, key, value, message):
    with pytest.raises(UserError, match=message):
        assemble(tiny(tmp_path, **{key: value}), tmp_path / "run")


def test_images_of_other_sizes_are_refused_in_a_prediction(finished):
    predictor = make_predictor(trained.from_run(finished))
    pixels = np.random.default_rng(0).integers(0, 255, (48, 32, 3), np.uint8)
    encoded = cv2.imencode(".png", pixels)[1].tobytes()
    with pytest.raises(ValueError, match="has 198 descriptors, not 98: bring images to one size"):
        predictor.prepare(encoded)


def test_an_image_too_small_for_one_descriptor_is_said_in_a_prediction(finished):
    predictor = make_predictor(trained.from_run(finished))
    encoded = cv2.imencode(".png", np.zeros((12, 32, 3), np.uint8))[1].tobytes()
    with pytest.raises(
        ValueError, match=r"^cannot be prepared by dense_sift: an image of 12×32 is too small"
    ):
        predictor.prepare(encoded)
