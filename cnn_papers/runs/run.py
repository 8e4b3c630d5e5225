"""Assembles the parts of a run from its config, and writes what predicting from it needs."""

import functools
import pathlib
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from cnn_papers import counting, zoo
from cnn_papers.data import statistics
from cnn_papers.data.class_weights import in_numbers
from cnn_papers.evaluation import run_analyses, single_view, support
from cnn_papers.parallel import mesh as meshes
from cnn_papers.runs import inputs, summary, workdir
from cnn_papers.runs.checkpoint import evaluation_variables
from cnn_papers.runs.rows import METRICS, read_rows
from cnn_papers.training import placement
from cnn_papers.training.optim import OptimizerSettings
from cnn_papers.training.step import DeviceTransform, StepSettings, make_predict_step


class Run(NamedTuple):
    """The parts of a run that do not change from its first step to its last.

    Attributes:
      config: a locked ConfigDict.
      folder: of the run.
      model, data, length: network, both splits and the number of steps.
      training: the train step and the placement of its state.
      eval_step: jitted (variables, batch) -> sums of errors over the batch.
    """

    config: Any
    folder: pathlib.Path
    model: nn.Module
    data: inputs.Data
    length: inputs.Length
    training: placement.Training
    eval_step: Any


def assemble(config: Any, folder: pathlib.Path) -> Run:
    """Assembles and checks the run of `config`, and prints its summary; `folder` stays as it is.

    Raises:
      UserError: a part that does not exist, or parts that do not fit together.
    """
    mesh = meshes.make_mesh(config.mesh.data, config.mesh.column)
    # A wrong batch size is an error before a pass over the data for their statistics.
    meshes.check_batch(mesh, config.batch_size, config.optim.accumulate)
    model = zoo.build_model(config.model_name, **config.model)
    data = inputs.open_data(config, mesh)
    length = inputs.run_length(config, len(data.train))
    weights = in_numbers(config.loss.class_weights, data.train.split, config.model.num_classes)
    training = configured_training(
        config, model, data.train.image_shape, data.augment, mesh, length, weights
    )
    variables = evaluation_variables(training.abstract)
    eval_step = jax.jit(
        single_view.make_step(make_predict_step(training.net, data.normalise)),
        in_shardings=(placement.places_of(variables), meshes.data_sharding(mesh)),
        out_shardings=meshes.replicated(mesh),
    )
    inputs.check_images(data, functools.partial(eval_step.eval_shape, variables), config.batch_size)
    evaluation = (model, variables, data.normalise, data.held_out.image_shape)
    settings = {"mirror": config.eval.mirror, "precise_bn": config.eval.precise_bn}
    support.supported(config.eval.protocol, *evaluation, **settings)
    run_analyses.check(config.eval.analyses, *evaluation)
    network = counting.count(model, data.train.image_shape)
    summary.print_start(config, network, data, length.total, mesh, folder)
    summary.print_fine_tuning(
        training.abstract.params, training.optimizer.frozen, weights, data.train.split.class_names
    )
    return Run(config, folder, model, data, length, training, eval_step)


def configured_training(
    config: Any,
    model: nn.Module,
    image_shape: tuple[int, ...],
    augment: DeviceTransform,
    mesh: jax.sharding.Mesh,
    length: inputs.Length,
    class_weights: tuple[float, ...] = (),
) -> placement.Training:
    """Returns `placement.make_training` of `config` for images of `image_shape` (h, w, c)."""
    return placement.make_training(
        model,
        image_shape,
        mesh,
        augment,
        OptimizerSettings.from_config(config),
        StepSettings.from_config(config, class_weights),
        batch_size=config.batch_size,
        steps_per_epoch=length.per_epoch,
        total_steps=length.total,
        shard_params=config.mesh.shard_params,
    )


def save_for_prediction(run: Run) -> None:
    """Writes `run.json` and the statistics, so that predicting does not need the data set.

    Raises:
      UserError: the disk has no room for the checkpoints of the run.
    """
    leaves = jax.tree.leaves(run.training.abstract)
    state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    workdir.check_space(run.folder, state_bytes, run.config.checkpoint.keep)
    train, held_out = run.data.train, run.data.held_out
    facts = {
        "class_names": train.split.class_names,
        "train_image": train.image_shape,
        "eval_image": held_out.image_shape,
        "machine": workdir.describe_machine(),
        "total_steps": run.length.total,
    }
    workdir.write_run(run.folder, run.config, facts)
    if run.data.statistics is not None:
        statistics.save(run.folder / statistics.FILE, run.data.statistics)


def is_finished(run: Run, step: int) -> bool:
    """Returns True if `step` is the last one and its evaluation, if it is due, is recorded."""
    evaluations = [
        row["step"] for row in read_rows(run.folder / METRICS) if "val/top1_error" in row
    ]
    return step >= run.length.total and (step in evaluations or not run.length.evaluates(step))


def compile_steps(run: Run, key: jax.Array) -> None:
    """Compiles the train and evaluation steps before the first one.

    Until then a signal ends the process at once. Analyses are small and compiled at first use.
    """
    data, abstract = run.data, run.training.abstract
    for batch in data.train.batch_shapes(run.config.batch_size):
        run.training.step.lower(abstract, batch, key).compile()
    (batch,) = data.held_out.batch_shapes(inputs.eval_batch_size(run.config), mask=True)
    run.eval_step.lower(evaluation_variables(abstract), batch).compile()
