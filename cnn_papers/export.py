"""Exports a trained network: python -m cnn_papers.export --workdir=RUN --out=FILE.

- FILE.safetensors: the weights in torch's layout, under torchvision's names if it publishes the
  family. Its metadata name the classes.
- FILE.stablehlo: a serialised program (`jax.export.deserialize`) that includes weights and device
  operations and runs on CPU, CUDA and TPU. It takes uint8 images [batch, h, w, c], prepared by the
  `eval_host` operations, and returns float32 class probabilities [batch, classes], or scores where
  an image may show several classes. Any batch size.
"""

import pathlib

import jax
import jax.numpy as jnp
from absl import flags

from cnn_papers import doors, files
from cnn_papers.errors import UserError
from cnn_papers.weights import predictor, trained, weight_files

PLATFORMS = ("cpu", "cuda", "tpu")


def main(argv: list[str]) -> None:
    """Writes the network that the flags name."""
    values = flags.FLAGS
    if len(argv) > 1:
        raise UserError(f"unexpected argument '{argv[1]}'")
    if not values.workdir or not values.out:
        raise UserError(
            "write python -m cnn_papers.export --workdir=RUN "
            "--out=FILE.safetensors or FILE.stablehlo"
        )
    path = pathlib.Path(values.out)
    if path.suffix.lower() not in (".safetensors", ".stablehlo"):
        raise UserError(f"--out={path}: the name ends in .safetensors or .stablehlo")
    network = trained.from_run(pathlib.Path(values.workdir))
    if path.suffix.lower() == ".safetensors":
        model_name = network.config.model_name
        weight_files.write(path, network.variables, model_name, network.model, network.class_names)
    else:
        write_program(path, network)
    print(f"{path}: {network.description}, {path.stat().st_size:,} bytes")


def write_program(path: pathlib.Path, network: trained.Trained) -> None:
    """Writes `network` as a program: uint8 [batch, h, w, c] -> float32 [batch, classes]."""
    variables = jax.device_get(network.variables)

    def outputs(image: jax.Array) -> jax.Array:
        logits, _ = network.model.apply(variables, network.normalise(image, jax.random.key(0)))
        return predictor.of_classes(network, logits)

    batch = jax.export.symbolic_shape("batch")
    image = jax.ShapeDtypeStruct((*batch, *network.image_shape), jnp.uint8)
    exported = jax.export.export(jax.jit(outputs), platforms=PLATFORMS)(image)
    with files.atomic_write(path) as part:
        part.write_bytes(exported.serialize())


def define_flags() -> None:
    """Defines the flags of this command."""
    doors.path_flag("workdir", "folder of the run")
    doors.path_flag("out", "FILE.safetensors or FILE.stablehlo")


def cli() -> None:
    """Runs the command line."""
    doors.run(main, define_flags)


if __name__ == "__main__":
    cli()
