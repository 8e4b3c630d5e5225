"""The final test of runs: errors against NumPy, ensembles, rows, recomputed batch norms."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from cnn_papers import evaluate, train
from cnn_papers.data.pipeline import parse_host
from cnn_papers.data.sources import open_split
from cnn_papers.errors import UserError
from cnn_papers.evaluation import passes, support
from cnn_papers.parallel.mesh import make_mesh
from cnn_papers.runs import final_tests, inputs
from cnn_papers.runs.rows import METRICS, TIMING, read_rows
from cnn_papers.weights import trained
from configs import resnet

CROPS = "single_view|ten_crop(32, 36)"


@pytest.fixture
def run(tiny_run, tmp_path) -> pathlib.Path:
    """A copy of the tiny run, to be written to."""
    return shutil.copytree(tiny_run, tmp_path / "run")


def test_folder(*folders, **overrides):
    return evaluate.evaluate_runs(
        folders, resnet.get_config(), {k.replace("__", "."): v for k, v in overrides.items()}
    )


test_folder.__test__ = False


def logits_of(network):
    """Returns logits of every image of the evaluation split, in one view, and the labels."""
    data = network.config["data"]
    pipeline = inputs.open_pipeline(
        open_split(data["name"], data["eval_split"], data["data_dir"]),
        network.config,
        parse_host(data["eval_host"], key="data.eval_host"),
        network.mesh,
    )
    (batch,) = pipeline.eval_batches(len(pipeline))
    apply = jax.jit(
        lambda image: network.model.apply(
            network.variables, network.normalise(image, jax.random.key(0))
        )[0]
    )
    return np.asarray(apply(batch["image"]), np.float64)[:360], np.asarray(batch["label"])[:360]


def errors_of(scores, label):
    rank = (scores > scores[np.arange(len(label)), label][:, None]).sum(1)
    return 100 * (rank >= 1).mean(), 100 * (rank >= 5).mean()


def test_single_views_give_the_errors_of_training(run, capsys):
    best = min(
        (row for row in read_rows(run / METRICS) if "val/loss" in row),
        key=lambda row: row["val/top1_error"],
    )
    (result,) = test_folder(run)
    assert tuple(result.values.values()) == pytest.approx(
        (best["val/top1_error"], best["val/top5_error"])
    )
    assert (result.images, result.programs) == (360, 1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"resnet 'cifar-8' trained on digits, step 3 in {run}/best"
    assert lines[1] == "tested on digits[test], 360 images"
    assert lines[2].split() == [
        "protocol",
        "top-1",
        "error",
        "top-5",
        "error",
        "images/s",
    ]
    assert evaluate.IMAGES_PER_SECOND in lines
    assert lines[3].split()[:3] == [
        "single_view",
        *(f"{result.values[name]:.2f}%" for name in ("top1_error", "top5_error")),
    ]


def test_rows_are_kept_once_and_the_clock_elsewhere(run, capsys):
    before = (run / METRICS).read_text()
    results = test_folder(run, eval__protocol=CROPS)
    assert (
        "360 images are smaller than a protocol's scale: they were scaled up"
        in capsys.readouterr().out
    )
    added = [
        json.loads(line) for line in (run / METRICS).read_text().removeprefix(before).splitlines()
    ]
    assert [row.pop("test/top1_error") for row in added] == [
        result.values["top1_error"] for result in results
    ]
    assert [row.pop("test/top5_error") for row in added] == [
        result.values["top5_error"] for result in results
    ]
    assert [row.pop("test/mean_class_error") for row in added] == [
        result.by_class.mean for result in results
    ]
    settings = {"test/mirror": False, "test/precise_bn": 0, "test/classes": 10}
    assert added == [
        {
            "step": 3,
            "test/protocol": name,
            "test/split": "digits[test]",
            "test/images": 360,
            **settings,
        }
        for name in CROPS.split("|")
    ]
    clock = read_rows(run / TIMING)[-2:]
    assert [row["test/protocol"] for row in clock] == CROPS.split("|")
    assert all(row["test/images_per_second"] > 0 and row["programs"] == 1 for row in clock)
    kept = (run / METRICS).read_bytes()
    test_folder(run, eval__protocol=CROPS)
    assert (run / METRICS).read_bytes() == kept
    assert "val/top1_error" in json.loads(before.splitlines()[-1])  # rows of training stay


def test_an_ensemble_averages_probabilities(tiny_run):
    network = trained.from_run(tiny_run)
    other = network._replace(
        variables=jax.tree.map(lambda leaf: leaf[..., ::-1] * 1.5, network.variables)
    )
    other = other._replace(class_names=network.class_names)
    results = evaluate.evaluate([network, other], make_mesh(2), [None, None])
    logits, labels = zip(*map(logits_of, (network, other)), strict=True)
    exponentials = [np.exp(x - x.max(1, keepdims=True)) for x in logits]
    first, second = (x / x.sum(1, keepdims=True) for x in exponentials)
    expected = [errors_of(scores, labels[0]) for scores in (first, second, (first + second) / 2)]
    assert len({top1 for top1, _ in expected}) == 3  # an ensemble of networks that differ
    wrong = ((first + second) / 2).argmax(1) != labels[0]
    errors = [100 * wrong[labels[0] == c].mean() for c in range(10)]
    assert results[-1].by_class.values == pytest.approx(errors)
    assert len({*errors}) > 1 and results[-1].by_class.mean == pytest.approx(np.mean(errors))
    assert [tuple(result.values.values()) for result in results] == [
        pytest.approx(pair) for pair in expected
    ]
    assert [result.who for result in results][-1] == "mean of 2"


def test_runs_are_averaged_and_the_first_keeps_the_row(run, tmp_path, capsys):
    twin = shutil.copytree(run, tmp_path / "twin")
    alone, again, mean = test_folder(run, twin)
    assert alone.values == again.values == mean.values
    rows = read_rows(run / METRICS)[-2:]
    assert "test/ensemble" not in rows[0] and rows[1]["test/ensemble"] == [str(run), str(twin)]
    assert "test/ensemble" not in read_rows(twin / METRICS)[-1]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines].count("mean of 2") == 1
    assert lines[-1].split()[-1] == f"{mean.by_class.mean:.2f}%"


def test_an_override_changes_the_test_and_not_the_run(run):
    kept = (run / "run.json").read_bytes()
    (whole,) = test_folder(run)
    (part,) = test_folder(run, data__eval_split="test[:100]", eval__batch_size=7)
    assert (whole.images, part.images) == (360, 100)
    assert read_rows(run / METRICS)[-1]["test/split"] == "digits[test[:100]]"
    assert (run / "run.json").read_bytes() == kept


def test_batch_norms_are_recomputed_over_training_batches(run):
    (plain,) = test_folder(run)
    (precise,) = test_folder(run, eval__precise_bn=4)
    # Three steps of momentum 0.9 are far from any mean.
    assert precise.values["top1_error"] != plain.values["top1_error"]
    rows = read_rows(run / METRICS)[-2:]
    assert [row["test/precise_bn"] for row in rows] == [0, 4]


def test_mirror_images_can_be_left_out(run):
    for mirror in (True, False):
        network = trained.from_run(run, {"eval.mirror": mirror, "eval.protocol": CROPS})
        parts = (network.model, network.variables, network.normalise, network.image_shape)
        protocols = support.supported(CROPS, *parts, mirror=mirror)
        assert [part.mirrored for protocol in protocols.values() for part in protocol] == [
            False,
            mirror,
        ]
        test_folder(run, eval__mirror=mirror)
        assert read_rows(run / METRICS)[-1]["test/mirror"] == mirror


# --- what a user gets wrong -----------------------------------------------------------------------


def test_a_run_of_another_network_is_refused(run):
    config = resnet.get_config()
    config.model_name = "vgg"
    with pytest.raises(UserError, match=rf"^{run} holds a run of resnet, and --config names vgg$"):
        evaluate.evaluate_runs([run], config, {})


def test_a_checkpoint_of_other_shapes_is_refused(run):
    with pytest.raises(UserError, match="is of another network than the config's"):
        test_folder(run, model__width=2.0)


def test_runs_on_other_data_or_with_other_protocols_are_not_averaged(tiny_run):
    network = trained.from_run(tiny_run)
    rest = trained.from_run(tiny_run, {"data.eval_split": "train[:360]"})
    with pytest.raises(UserError, match="evaluated on different data"):
        evaluate.evaluate([network, rest], make_mesh(1), [None, None])
    more = trained.from_run(tiny_run, {"eval.protocol": CROPS})
    with pytest.raises(UserError, match="different numbers of protocols"):
        evaluate.evaluate([network, more], make_mesh(1), [None, None])


def test_a_protocol_that_cannot_be_served_is_refused_before_anything_is_read(run, monkeypatch):
    monkeypatch.setattr(passes, "run", lambda *args, **kwargs: pytest.fail("it ran"))
    with pytest.raises(
        UserError, match=r"overfeat_dense needs .*; this one can serve: crops_144, "
    ):
        test_folder(run, eval__protocol="single_view|overfeat_dense")


def test_a_result_that_cannot_be_kept_is_shown_all_the_same(run, monkeypatch, caplog):
    def full(path, row):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(final_tests, "_append", full)
    (result,) = test_folder(run)
    assert (
        result.images == 360
        and f"the result is not kept in {run}: No space left on device" in caplog.text
    )


# --- with training --------------------------------------------------------------------------------


def tiny_config(tiny_run, **changes):
    config = resnet.get_config()
    config.total_steps, config.model.blocks, config.model.widths = 1, (1,), (8,)
    config.data.data_dir = str(tiny_run.parent / "data")
    config.update_from_flattened_dict(
        {key.replace("__", "."): value for key, value in changes.items()}
    )
    return config


def test_training_ends_with_the_tests_that_its_config_names(tiny_run, tmp_path, capsys):
    config = tiny_config(
        tiny_run, eval__protocol="single_view|resnet_dense((32, 40))", eval__precise_bn=2
    )
    assert train.train_and_evaluate(config, tmp_path / "run") == train.DONE
    rows = [row for row in read_rows(tmp_path / "run" / METRICS) if "test/protocol" in row]
    assert [row["test/protocol"] for row in rows] == ["single_view", "resnet_dense((32, 40))"]
    assert "resnet_dense((32, 40)) " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval__protocol": "spp_full"}, "spp_full needs a network with a spatial pyramid"),
        ({"eval__protocol": "vgg_dense(32)", "data__eval_device": "subtract_mean_image"}, ""),
        (
            {"eval__protocol": "vgg_dense(40)", "data__eval_device": "subtract_mean_image"},
            "fits only images of 32×32",
        ),
    ],
)
def test_training_refuses_a_test_that_would_fail_at_its_end(tiny_run, tmp_path, changes, message):
    config = tiny_config(tiny_run, **changes)
    if message:
        with pytest.raises(UserError, match=message):
            train.train_and_evaluate(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()
    else:
        assert train.train_and_evaluate(config, tmp_path / "run") == train.DONE


def test_networks_without_batch_norm_have_none_to_recompute(tiny_run):
    network = trained.from_run(tiny_run, {"eval.precise_bn": 1})
    with pytest.raises(UserError, match="precise_bn: this network has no batch normalisation"):
        support.supported(
            "single_view",
            network.model,
            {"params": {}},
            network.normalise,
            (32, 32, 3),
            precise_bn=1,
        )
