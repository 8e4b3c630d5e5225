"""Trains or tests a network: python -m cnn_papers.main --config=configs/googlenet.py.

- `--workdir=DIR`: starts the run in that folder, or continues it.
- `--mode=eval`: tests the run by the protocols of `config.eval.protocol`; with `--workdir=a,b,c`
  several runs and the mean of their predictions.
- `--mode=eval --weights=vgg16.safetensors --config=configs/vgg.py:torchvision`: tests published
  weights.
- `--config.KEY=VALUE`: sets a value of the recipe, such as `--config.optim.lr=0.05`. The config
  file has all keys; a mistyped one is an error that names the nearest.
"""

import os
import pathlib

from absl import flags

from cnn_papers import doors, files
from cnn_papers.runs import compile_cache, host_memory


def main(argv: list[str]) -> int:
    """Trains or tests as the flags say; returns the exit code."""
    # Imported after flags are parsed, so that a typo is reported without waiting for JAX.
    from cnn_papers import evaluate, train
    from cnn_papers.errors import UserError
    from cnn_papers.runs import ranges

    if len(argv) > 1:
        raise UserError(
            f"unexpected argument '{argv[1]}'; overrides are written --config.key=value"
        )
    weights = flags.FLAGS.weights
    if weights and (flags.FLAGS.mode != "eval" or flags.FLAGS.workdir):
        raise UserError(
            "--weights goes with --mode=eval and without --workdir; "
            "to start training from weights, write --config.init_from"
        )
    config = doors.config_value()
    workdir = flags.FLAGS.workdir or f"runs/{config.name}-{config.recipe}"
    host_memory.keep_freed()
    compile_cache.enable()
    with doors.joined_hosts():
        if flags.FLAGS.mode == "eval":
            ranges.check_ranges(config)
            if weights:
                evaluate.evaluate_weights(weights, config)
                return 0
            evaluate.evaluate_runs(_folders(workdir), config, doors.config_overrides())
            return 0
        return train.train_and_evaluate(config, pathlib.Path(workdir)).code


def _folders(workdir: str) -> list[pathlib.Path]:
    """Returns the folders of `--workdir=a,b,c`; the name of one folder may have commas too."""
    if os.path.isdir(workdir):
        return [pathlib.Path(workdir)]
    return [pathlib.Path(files.expand(name, "--workdir=")) for name in workdir.split(",")]


def define_flags() -> None:
    """Defines the flags of this command."""
    doors.config_flag()
    doors.hosts_flags()
    doors.path_flag(
        "workdir",
        "folder of the run, by default runs/<config>-<recipe>; several with --mode=eval: a,b,c",
    )
    flags.DEFINE_enum(
        "mode",
        "train",
        ["train", "eval"],
        "start or continue a run, or test runs at their best checkpoints",
    )
    doors.path_flag(
        "weights",
        "with --mode=eval: published weights, a file or a name on the hub, instead of a run",
    )


def cli() -> None:
    """Runs the command line."""
    doors.run(main, define_flags)


if __name__ == "__main__":
    cli()
