"""Training at sizes that change with the epoch (SPP-net §2.3): a program for each size."""

import json

import jax
import pytest

from cnn_papers import train
from cnn_papers.errors import UserError
from cnn_papers.runs.run import assemble
from configs import spp


def config(folder):
    """Six epochs of two steps on 40 digits."""
    config = spp.get_config("desk_multi_size")
    config.data.data_dir = str(folder / "data")
    config.data.train_split, config.data.eval_split = "train[:40]", "test[:20]"
    config.data.train_host = "decode|resize_by_epoch(40, 32)"
    config.data.eval_host = "decode|resize(40)"
    config.model.width, config.batch_size = 0.05, 20
    config.total_epochs, config.eval.every_epochs, config.log_every_steps = 6.0, 6.0, 1
    config.checkpoint.every_steps, config.mesh.data = 5, 1
    return config


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.process
def test_sizes_take_turns_over_shared_weights_in_one_program_each(tmp_path, capsys):
    assert train.train_and_evaluate(config(tmp_path), tmp_path / "whole") == train.DONE
    assert "at 40×40×3 and by epoch 32×32×3 (2 programs)" in capsys.readouterr().out
    run = assemble(config(tmp_path), tmp_path / "by_hand")
    state, sides = run.training.init(jax.random.key(0)), []
    for batch in run.data.train.train_batches(20, seed=0, steps=range(12)):
        state, _ = run.training.step(state, batch, jax.random.key(0))
        sides.append(batch["image"].shape[1])
    assert sides == [40, 40, 32, 32] * 3
    assert run.training.step._cache_size() == 2
    losses = [row["train/loss"] for row in rows(tmp_path / "whole") if "train/loss" in row]
    assert len(losses) == 12 and all(loss < 10 for loss in losses)


@pytest.mark.parametrize(
    ("host", "device", "message"),
    [
        (
            "resize_by_epoch(40, 32)",
            "subtract_mean_image",
            "train_device: 'subtract_mean_image' fails on images of 32×",
        ),
        (
            "resize_by_epoch(40, 6)",
            "",
            r"cannot take those of \(6, 6, 3\) \(config.data.train_host\)",
        ),
    ],
)
def test_what_cannot_be_done_at_a_later_size_is_refused_before_the_first_step(
    tmp_path, host, device, message
):
    small = config(tmp_path)
    small.data.train_host = f"decode|{host}"
    small.data.train_device = small.data.eval_device = device
    with pytest.raises(UserError, match=message):
        train.train_and_evaluate(small, tmp_path / "run")
