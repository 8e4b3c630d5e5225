"""A warm-up until an error: it ends by the reports of a run, and a run that goes on repeats it."""

import shutil

import jax
import pytest
from support.processes import NETWORK, arrays

from cnn_papers import train
from cnn_papers.runs.rows import METRICS, read_rows
from configs import resnet


@pytest.mark.process
def test_the_rate_rises_after_the_first_report_below_the_error_also_in_a_run_that_goes_on(
    home, tmp_path
):
    def run(name: str) -> None:
        config = resnet.get_config()
        config.model.update(NETWORK)
        config.batch_size, config.total_steps, config.log_every_steps = 32, 24, 2
        config.checkpoint.every_steps, config.checkpoint.keep = 3, 99
        config.optim.schedule, config.optim.lr, config.optim.lr_batch = "constant", 0.1, 32
        config.optim.warmup_until_error = (82.0, 0.1)
        config.mesh.data, config.data.data_dir = 1, str(home / "tfds")
        assert train.train_and_evaluate(config, tmp_path / name) == train.DONE

    run("golden")
    rows = [row for row in read_rows(tmp_path / "golden" / METRICS) if "train/lr" in row]
    below = [row["train/top1_error"] < 82.0 for row in rows]
    first = below.index(True)
    assert 0 < first < len(rows) - 2
    rates = [0.01] * (first + 1) + [0.1] * (len(rows) - first - 1)
    assert [row["train/lr"] for row in rows] == pytest.approx(rates)

    for cut in (3, 18):  # in the warm-up, and after it
        assert (cut // 2 > first) == (cut == 18)
        shutil.copytree(tmp_path / "golden", tmp_path / f"cut{cut}")
        for folder in ("checkpoints", "best"):
            for step in (tmp_path / f"cut{cut}" / folder).glob("[0-9]*"):
                if int(step.name) > cut:
                    shutil.rmtree(step)
        run(f"cut{cut}")
        assert (tmp_path / f"cut{cut}" / METRICS).read_bytes() == (
            tmp_path / "golden" / METRICS
        ).read_bytes()
        ours, theirs = (arrays(tmp_path / name / "checkpoints") for name in (f"cut{cut}", "golden"))
        assert jax.tree.map(bytes, ours) == jax.tree.map(bytes, theirs)
