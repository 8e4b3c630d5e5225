"""The figures of a report: which ones there are, what they show, and how they are drawn."""

import base64
import json
import re
from typing import Any

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict
from support.random_variables import random_variables
from support.written_sweeps import CLAIMS, write_sweep

from cnn_papers import zoo
from cnn_papers.claims import catalogue, plan
from cnn_papers.claims.metrics import Finished
from cnn_papers.data import augment
from cnn_papers.parallel import mesh as meshes
from cnn_papers.reporting import figure_data, gather, network_figures, svg
from cnn_papers.reporting.results import Line, Lines, Picture
from cnn_papers.runs import inputs, pictures
from cnn_papers.weights import trained
from configs import alexnet, maxout, nin


def finished(variant: str, lines: list[dict[str, Any]]) -> Finished:
    config = {"task": "classify", "model": {"variant": variant}, "batch_size": 4}
    return Finished(ConfigDict(config), lines, "done")


def test_curves_say_how_many_of_their_seeds_ended_early(tmp_path, own_claims):
    write_sweep(tmp_path / "s", {("A", 0): "diverged"})
    curves, *_ = gather.gather(tmp_path / "s", tmp_path).figures
    assert "1 of its 6 runs diverged" in curves.text


def test_figures_follow_from_the_metrics(sweep):
    found = gather.gather(sweep, sweep).figures
    assert [figure.title for figure in found] == ["ResNet", "ResNet: responses"]
    (curve,) = found[0].panels  # of the claim of training; the other claim reads only the end
    assert curve.level == 25.0 and [line.name for line in curve.series] == ["A", "B"]
    line = curve.series[1]
    batch_size = plan.load(plan.make_job("configs/resnet.py", {"seed": 0})).batch_size
    assert line.x[0] == 10 * batch_size and line.mean[0] == pytest.approx(75.0)
    assert (line.low[0], line.high[0]) == (pytest.approx(74.0), pytest.approx(76.0))
    (layers,) = found[1].panels
    assert layers.series[0].mean == pytest.approx([1.1, 1.2, 2.0])  # conv1, conv2, conv10


def test_what_runs_were_analysed_by_is_drawn_though_no_claim_is_judged_by_it(sweep, monkeypatch):
    fewer = {name: claim for name, claim in CLAIMS["resnet"].items() if name != "resnet_responses"}
    monkeypatch.setattr(catalogue, "claims_of", lambda: {"resnet": fewer})
    asked = json.loads((sweep / "sweep.json").read_text())
    del asked["claims"]["resnet_responses"]
    (sweep / "sweep.json").write_text(json.dumps(asked))
    found = gather.gather(sweep, sweep).figures
    assert [figure.title for figure in found] == ["ResNet", "ResNet: response std"]
    assert found[1].panels[0].series[0].mean == pytest.approx([1.1, 1.2, 2.0])


# --- analyses -------------------------------------------------------------------------------------


def test_feature_reuse_is_a_matrix_of_sources_by_readers():
    row = {"step": 1} | {
        f"analysis/feature_reuse/block1/{reader}/from{source}": value
        for reader, source, value in [
            ("layer1", 0, 1.0),
            ("layer2", 0, 2.0),
            ("layer2", 1, 3.0),
            ("out", 0, 4.0),
        ]
    }
    runs = {"one": {"a": finished("x", [row]), "b": finished("x", [row])}}
    (panel,) = figure_data.ANALYSES["feature_reuse"]("reuse", "feature_reuse", runs)
    assert panel.values == [[1.0, 2.0, 4.0], [None, 3.0, None]]
    assert svg.describe(panel).endswith(
        "2 by 3, greatest at source (1: the block's input) 1, "
        "reading layer (the last: behind the block) 3 (4.00)."
    )
    assert svg.draw([panel]).startswith("<svg")


def test_a_layer_is_the_mean_of_the_seeds_that_have_it():
    whole = {f"analysis/gradient_norm/conv{n}": float(n) for n in (1, 2, 10)}
    part = {f"analysis/gradient_norm/conv{n}": 3.0 * n for n in (1, 10)}  # conv2's was not finite
    runs = {
        "one": {"a": finished("x", [{"step": 1} | part]), "b": finished("x", [{"step": 1} | whole])}
    }
    (panel,) = figure_data.ANALYSES["gradient_norm"]("norms", "gradient_norm", runs)
    (line,) = panel.series
    assert (line.mean, line.low, line.high) == (
        [2.0, 2.0, 20.0],
        [1.0, 2.0, 10.0],
        [3.0, 2.0, 30.0],
    )


def test_percentiles_are_of_each_arm_over_training():
    lines = [
        {"step": step, **{f"analysis/input_percentiles/p{p}": p * step for p in (15, 50, 85)}}
        for step in (1, 2)
    ]
    runs = {"with": {"a": finished("x", lines)}, "without": {"b": finished("x", lines)}}
    panels = figure_data.ANALYSES["input_percentiles"]("bn", "input_percentiles", runs)
    assert [panel.title for panel in panels] == ["with", "without"]
    assert [(line.name, line.mean) for line in panels[0].series] == [
        ("85th percentile", [85, 170]),
        ("50th percentile", [50, 100]),
        ("15th percentile", [15, 30]),
    ]
    assert panels[0].series[0].x == [4, 8]


def test_lines_are_told_apart_without_colour():
    looks = [svg.look(i) for i in range(14)]
    assert len(set(looks)) == 14 and len({style for _, style in looks[:5]}) == 5
    assert [colour for colour, _ in looks[:7]] == list(svg.COLOURS)


def test_a_drawing_is_the_same_every_time():
    line = Line("a", [1, 2], [1.0, 2.0], [0.5, 1.0], [2.0, 3.0])
    panel = Lines("t", "x", "y", [line], level=1.0, log=True)
    assert svg.draw([panel]) == svg.draw([panel])
    assert svg.draw([panel]) != svg.draw([panel._replace(level=2.0)])
    assert "http://" not in re.sub('xmlns(:xlink)?="[^"]*"', "", svg.draw([panel]))


# --- networks -------------------------------------------------------------------------------------


@pytest.fixture
def networks(tiny_run, monkeypatch):
    """Runs by name: AlexNet in two columns, NIN, Maxout and its twin, narrow, with random weights,
    on real images.

    Before them stand others that could be taken for them: a plain convolutional net, rectifiers
    without dropout.
    """
    configs = {
        name: file.get_config()
        for name, file in (("alexnet", alexnet), ("plain", nin), ("nin", nin))
    }
    configs["plain"].model.plain = True
    for name, hidden, dropout in (
        ("without", "relu", 0.0),
        ("maxout", "maxout", 0.5),
        ("twin", "relu", 0.5),
    ):
        configs[name] = maxout.get_config()
        configs[name].model.hidden, configs[name].model.dropout = hidden, dropout
    found = {}
    for name, config in configs.items():
        config.model.width, config.data.eval_device = 0.05, "normalize((128.0,), (64.0,))"
        config.data.data_dir = str(tiny_run.parent / "data")
        model = zoo.build_model(config.model_name, **config.model)
        shape = inputs.configured_input(config)
        view = augment.compose(inputs.parse_data(config.data).eval_device, None, train=False)
        classes, mesh = tuple("0123456789"), meshes.make_mesh(1)
        variables = random_variables(model, shape)
        found[name] = trained.Trained(name, config, model, variables, mesh, view, shape, classes)
    monkeypatch.setattr(trained, "from_run", lambda folder: found[folder.name])
    return {name: Finished(network.config, [], "done") for name, network in found.items()}


def picture(panel: Picture) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(base64.b64decode(panel.png), np.uint8), cv2.IMREAD_COLOR)


def test_networks_are_shown(networks, tmp_path):
    filters, maps, activations = network_figures.of_paper("Paper", networks, tmp_path)
    assert [panel.title for panel in filters.panels] == ["column 1", "column 2"]
    assert "filters of" in filters.panels[0].alt and picture(filters.panels[0]).std() > 10
    assert "Of nin 'mnist' (last_bias=2.0, weight_init=he, width=0.05)" in maps.text
    (panel,) = maps.panels
    assert "8 test images of the classes" in panel.alt
    side = 28  # pixels of a desk image of NIN; a white line lies between any two
    shown = picture(panel)
    assert shown.shape == (2 * side + 1, 8 * (side + 1) - 1, 3) and (shown[side] == 255).all()
    assert shown[:side].std() > 10 and shown[side + 1 :].std() > 10
    assert (
        "dropout=0.5, hidden=maxout" in activations.text
        and "dropout=0.5, hidden=relu" in activations.text
    )
    (panel,) = activations.panels
    assert [line.name.split()[0] for line in panel.series] == ["maxout", "relu"]
    assert all(sum(line.mean) == pytest.approx(100) for line in panel.series)
    relu = panel.series[1]
    width = relu.x[1] - relu.x[0]
    assert (
        min(x for x, share in zip(relu.x, relu.mean, strict=True) if share) > -width
    )  # none is negative
    assert max(relu.mean) == sum(
        share for x, share in zip(relu.x, relu.mean, strict=True) if abs(x) <= width / 2
    )


def test_a_figure_whose_network_is_gone_says_so(tmp_path):
    (figure,) = network_figures.filters("Filters", tmp_path)
    assert not figure.panels and figure.text.startswith("Not drawn: there is no run in")


def test_small_filters_of_a_real_run_are_not_shown(tiny_run, monkeypatch):
    assert network_figures.filters("3×3", tiny_run) == []
    monkeypatch.setattr(pictures, "LEGIBLE", 3)
    (figure,) = network_figures.filters("3×3", tiny_run)
    assert figure.panels[0].alt == "8 filters of 3 by 3 pixels: first layer"
