"""Trains or evaluates: python -m cnn_papers.main --config=configs/googlenet.py [--workdir=DIR] [--mode=eval]."""

import pathlib

from absl import flags

from cnn_papers import doors


def main(argv: list[str]) -> int:
    """The run that the flags describe; returns the exit code."""
    from cnn_papers import train  # after the flags: a typo should not wait for JAX
    from cnn_papers.errors import UserError

    if len(argv) > 1:
        raise UserError(f"unexpected argument '{argv[1]}'; overrides are written --config.key=value")
    config = doors.config_value()
    folder = pathlib.Path(flags.FLAGS.workdir or f"runs/{config.name}-{config.recipe}")
    doors.use_compile_cache()
    if flags.FLAGS.mode == "eval":
        train.evaluate_run(config, folder)
        return train.DONE
    return train.train_and_evaluate(config, folder)


def cli() -> None:
    """The command line."""
    doors.config_flag()
    flags.DEFINE_string("workdir", "", "folder of the run; runs/<config>-<recipe> by default")
    flags.DEFINE_enum("mode", "train", ["train", "eval"], "train (or go on), or evaluate a run's best checkpoint")
    doors.run(main)


if __name__ == "__main__":
    cli()
