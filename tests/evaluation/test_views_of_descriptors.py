"""Augmentation and pooling of a shallow network: views are cut out of images, then described."""

import math
import tracemalloc
from typing import Any

import jax
import numpy as np
import pytest
from support.image_folders import write_images

from cnn_papers import evaluate, zoo
from cnn_papers.data import augment, host_ops, mirror
from cnn_papers.errors import UserError
from cnn_papers.evaluation import layer_svms, passes, views
from cnn_papers.parallel import mesh as meshes
from cnn_papers.weights.trained import Trained
from configs import ifv

SIDE, CROP, SHORT = 32, 24, 28
SIFT: dict[str, Any] = {"step": 4, "bin_size": 4, "longest": SIDE}
SPLITS = ("train", "val")
CROPS = f"ten_crop({CROP}, {SHORT}, whole=True)"


@pytest.fixture(scope="module")
def tested(tmp_path_factory) -> Trained:
    """An encoder of random words, its classifier not trained, on images of two classes."""
    folder = tmp_path_factory.mktemp("images")
    images = {f"{split}/{name}": 3 for split in SPLITS for name in "ab"}
    config = ifv.get_config("folder")
    config.data.name, config.batch_size = write_images(folder, images), 4
    arguments = ", ".join(f"{name}={value}" for name, value in SIFT.items())
    config.data.eval_host = f"decode|dense_sift({arguments})"
    config.model.update({"num_classes": 2, "words": 3, "dims": 8, "width": 1.0})
    model = zoo.build_model(config.model_name, **config.model)
    shape = host_ops.dense_sift(np.zeros((SIDE, SIDE, 3), np.uint8), **SIFT).shape
    variables: Any = jax.jit(model.init)(jax.random.key(0), np.zeros((1, *shape), np.float32))
    kernel = variables["params"]["classifier"]["kernel"]
    variables["params"]["classifier"]["kernel"] = jax.random.normal(jax.random.key(1), kernel.shape)
    normalise = augment.compose(augment.parse_device("", key="eval_device"), None, train=False)
    mesh = meshes.make_mesh(1)
    return Trained(
        "ifv", config, model, variables, mesh, normalise, shape, ("a", "b"), trained_on=""
    )


def opened(tested: Trained, protocol: str, **changes: Any) -> evaluate.Member:
    config = tested.config.copy_and_resolve_references()
    config.update_from_flattened_dict({"eval.protocol": protocol, **changes})
    return evaluate._open_member(tested._replace(config=config), tested.mesh, None)


def descriptors(member: evaluate.Member, kind: str) -> np.ndarray:
    """Those of the views of each image, [images, views, k, 130, 1]; a mirror image follows each."""
    rows = []
    for example in member.source.raw.split.examples[:]:
        image = host_ops.decode(example["image"])
        cut = [image]
        if kind == "C":
            cut = views.five_crops(image, "area", size=CROP, short=SHORT, whole=True)
        described = [host_ops.dense_sift(np.ascontiguousarray(view), **SIFT) for view in cut]
        mirrored = [[view, mirror.descriptors(view)] for view in described]
        rows.append(np.concatenate([both[: 1 if kind == "none" else 2] for both in mirrored]))
    return np.stack(rows)


def outputs(tested: Trained, described: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Softmax outputs and Fisher vectors of [images, views, k, 130, 1]."""
    flat = described.reshape(-1, *described.shape[2:]).astype(np.float32)
    logits, ends = jax.jit(tested.model.apply)(tested.variables, flat)
    both = jax.nn.softmax(logits), ends["fisher"]
    probabilities, fisher = (np.asarray(x).reshape(*described.shape[:2], -1) for x in both)
    return probabilities, fisher


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


VIEWS = {"none": "", "F": "mirror=True", "C": f"views='{CROPS}'"}


@pytest.mark.parametrize(("kind", "count"), [("none", 1), ("F", 2), ("C", 10)])
def test_the_papers_table_is_asked_of_a_fisher_vector(tested, kind, count):
    """No augmentation, mirror images and crops, each pooled as f ("separate"), s and t."""
    member = opened(tested, f"svm('fisher', {VIEWS[kind]})")
    (protocol,) = member.protocols.values()
    _, fisher = outputs(tested, descriptors(member, kind))
    images, views_of_each, size = fisher.shape
    assert views_of_each == count
    expected = {
        "separate": fisher.reshape(-1, size),
        "mean": fisher.mean(1),
        "stack": fisher.reshape(images, -1),
    }
    for pooled, rows in expected.items():
        found = layer_svms._features(protocol, pooled, member, member.source, member.programs, kind)
        np.testing.assert_allclose(found.values, unit(rows), rtol=1e-4, atol=1e-5)


def test_crops_are_averaged_by_the_classifier_too(tested):
    member = opened(tested, CROPS)
    outcome = passes.run(
        member.protocols[CROPS], member.programs, member.network.variables, member.source, name="C"
    )
    probabilities, _ = outputs(tested, descriptors(member, "C"))
    np.testing.assert_allclose(outcome.scores, probabilities.mean(1), rtol=1e-4, atol=1e-5)


def test_without_mirror_images_crops_are_five(tested):
    member = opened(tested, f"svm('fisher', views='{CROPS}')", **{"eval.mirror": False})
    (protocol,) = member.protocols.values()
    found = layer_svms._features(protocol, "mean", member, member.source, member.programs, "crops")
    _, fisher = outputs(tested, descriptors(member, "C")[:, ::2])
    np.testing.assert_allclose(found.values, unit(fisher.mean(1)), rtol=1e-4, atol=1e-5)


def test_memory_is_flat_over_a_split(tested, tmp_path):
    """The descriptors of 96 images take 4 MB, and are never all in memory."""
    peaks = {}
    for count in (12, 12, 96):  # the first compiles
        data = write_images(tmp_path / str(count), {f"{split}/a": count for split in SPLITS})
        changes = {"data.name": data, "data.eval_host": "decode|dense_sift(step=1, bin_size=4)"}
        member = opened(tested, "svm('fisher')", **changes)
        (protocol,) = member.protocols.values()
        tracemalloc.start()
        layer_svms._features(protocol, "mean", member, member.source, member.programs, "all")
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    size = math.prod(member.source.prepared.image_shape)
    assert 84 * size > 3e6 and peaks[96] - peaks[12] < 0.3 * 84 * size


@pytest.mark.fault("config: crops too small for one descriptor", "refused with both sizes")
@pytest.mark.parametrize(
    "protocol", ["ten_crop(12, 16)", "svm('fisher', views='ten_crop(12, 16)')"]
)
def test_crops_too_small_for_one_descriptor_are_refused(tested, protocol):
    with pytest.raises(UserError, match=r"ten_crop.*an image of 12×12 is too small for one desc"):
        opened(tested, protocol)
