"""Trains or evaluates: python -m cnn_papers.main --config=configs/googlenet.py [--workdir=DIR]
[--mode=eval].

With `--mode=eval` the protocols of `config.eval.protocol` test the run, several runs
(`--workdir=a,b,c`) and their mean, or published weights (`--weights=vgg16.safetensors` with
`--config=configs/vgg.py:torchvision`).
"""

import pathlib

from absl import flags

from cnn_papers import doors
from cnn_papers.runs import compile_cache


def main(argv: list[str]) -> int:
    """The run that the flags describe; returns the exit code."""
    from cnn_papers import (
        evaluate,
        train,  # after the flags: a typo should not wait for JAX
    )
    from cnn_papers.errors import UserError
    from cnn_papers.runs import ranges

    if len(argv) > 1:
        raise UserError(
            f"unexpected argument '{argv[1]}'; overrides are written --config.key=value"
        )
    weights = flags.FLAGS.weights
    if weights and (flags.FLAGS.mode != "eval" or flags.FLAGS.workdir):
        raise UserError(
            "--weights goes with --mode=eval and without --workdir; to train on, write --config.init_from"
        )
    config = doors.config_value()
    workdir = flags.FLAGS.workdir or f"runs/{config.name}-{config.recipe}"
    compile_cache.use_compile_cache()
    with doors.joined_hosts():
        if flags.FLAGS.mode == "eval":
            ranges.check_ranges(config)
            if weights:
                evaluate.evaluate_weights(pathlib.Path(weights), config)
                return 0
            folders = [pathlib.Path(folder) for folder in workdir.split(",")]
            evaluate.evaluate_runs(folders, config, doors.config_overrides())
            return 0
        return train.train_and_evaluate(config, pathlib.Path(workdir)).code


def cli() -> None:
    """The command line."""
    doors.config_flag()
    doors.hosts_flags()
    flags.DEFINE_string(
        "workdir",
        "",
        "folder of the run, runs/<config>-<recipe> by default; with --mode=eval also several: a,b,c",
    )
    flags.DEFINE_enum(
        "mode",
        "train",
        ["train", "eval"],
        "train (or go on), or test runs at their best checkpoint, and their mean",
    )
    flags.DEFINE_string(
        "weights", "", "with --mode=eval: a file of published weights instead of a run"
    )
    doors.run(main)


if __name__ == "__main__":
    cli()
