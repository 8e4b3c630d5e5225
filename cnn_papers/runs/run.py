"""Assembles the parts of a run from its config, and writes what predicting from it needs."""

import functools
import pathlib
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from cnn_papers import counting, tasks, zoo
from cnn_papers.data import proposals, statistics
from cnn_papers.data.class_weights import in_numbers
from cnn_papers.data.split import Split
from cnn_papers.evaluation import run_analyses
from cnn_papers.parallel import mesh as meshes
from cnn_papers.runs import inputs, splits, summary, tested_images, workdir
from cnn_papers.runs.checkpoint import evaluation_variables
from cnn_papers.runs.rows import METRICS, evaluations, read_rows
from cnn_papers.training import placement
from cnn_papers.training.optim import OptimizerSettings, make_optimizer, rate_state
from cnn_papers.training.step import DeviceTransform, State, StepSettings


class Run(NamedTuple):
    """The parts of a run that do not change from its first step to its last.

    Attributes:
      config: a locked ConfigDict.
      folder: of the run.
      task: its module of `cnn_papers.tasks`.
      model, data, length: network, both splits and the number of steps.
      training: the train step and the placement of its state.
      eval_step: the task's, jitted: (variables, batch) -> what its `evaluate` takes of a batch.
    """

    config: Any
    folder: pathlib.Path
    task: Any
    model: nn.Module
    data: inputs.Data
    length: inputs.Length
    training: placement.Training
    eval_step: Any


def assemble(config: Any, folder: pathlib.Path) -> Run:
    """Assembles and checks the run of `config`, and prints its summary; `folder` stays as it is.

    Raises:
      UserError: a part that does not exist, or parts that do not fit together; data other than
        that of the run in `folder`.
    """
    mesh = meshes.make_mesh(config.mesh.data, config.mesh.column)
    # A wrong batch size is an error before a pass over the data for their statistics.
    meshes.check_batch(mesh, config.batch_size, config.optim.accumulate)
    task = tasks.task_module(config.task)
    model = zoo.build_model(config.model_name, **config.model)
    train, held_out = splits.open_splits(config)
    images = (len(train.examples), len(held_out.examples))
    digests = (_digest(train), _digest(held_out))
    workdir.check_same_data(folder, config, train.class_names, images, digests)
    data = inputs.open_data(config, train, held_out, mesh)
    length = inputs.run_length(config, len(data.train))
    counts = None if data.train.counts_labels else data.train.class_counts()
    weights = in_numbers(
        config.loss.class_weights, data.train.split, config.model.num_classes, counts
    )
    training = configured_training(
        config, model, data.train.image_shape, data.augment, mesh, length, weights
    )
    variables = evaluation_variables(training.abstract)
    eval_step = jax.jit(
        task.make_eval_step(training.net, data.normalise, StepSettings.from_config(config)),
        in_shardings=(placement.places_of(variables), meshes.data_sharding(mesh)),
        out_shardings=meshes.replicated(mesh),
    )
    inputs.check_images(data, functools.partial(eval_step.eval_shape, variables), config.batch_size)
    evaluation = (model, variables, data.normalise, data.held_out.image_shape)
    settings = tested_images.protocol_settings(config)
    task.protocols(config.eval.protocol, *evaluation, **settings)
    run_analyses.check(config.eval.analyses, *evaluation)
    network = counting.count(model, data.train.image_shape)
    summary.print_start(config, network, data, length.total, mesh, folder)
    summary.print_fine_tuning(
        training.abstract.params, training.optimizer.frozen, weights, data.train.split.class_names
    )
    return Run(config, folder, task, model, data, length, training, eval_step)


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
        tasks.task_module(config.task),
        batch_size=config.batch_size,
        steps_per_epoch=length.per_epoch,
        total_steps=length.total,
        shard_params=config.mesh.shard_params,
    )


def check_folder(run: Run) -> None:
    """Raises UserError unless the folder has space for checkpoints and no other statistics."""
    leaves = jax.tree.leaves(run.training.abstract)
    state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    workdir.check_space(run.folder, state_bytes, run.config.checkpoint.keep)
    if run.data.statistics is not None:
        statistics.check_same(run.folder / statistics.FILE, run.data.statistics)


def save_for_prediction(run: Run, *, finished: bool) -> None:
    """Writes `run.json` and the statistics, so that predicting does not need the data set.

    The `run.json` of a finished run stays as it is, but for the place of its data, unless an older
    version wrote it.
    """
    saved = workdir.read_run(run.folder)
    if not finished or saved is None or not saved.eval_image:
        workdir.write_run(run.folder, run.config, _facts(run))
    else:
        workdir.write_place_of_data(run.folder, run.config.data)
    path = run.folder / statistics.FILE
    if run.data.statistics is not None and not path.is_file():
        statistics.save(path, run.data.statistics)


def _facts(run: Run) -> dict[str, Any]:
    """Returns the fields of `workdir.SavedRun` by name, without config and versions."""
    train, held_out = run.data.train, run.data.held_out
    return {
        "class_names": train.split.class_names,
        "train_image": train.image_shape,
        "eval_image": held_out.image_shape,
        "images": (len(train), len(held_out)),
        "digests": (_digest(train.split), _digest(held_out.split)),
        "machine": workdir.describe_machine(),
        "total_steps": run.length.total,
    }


def print_new_length(run: Run, saved: workdir.SavedRun, state: State) -> None:
    """Prints, for a run that goes on, how its length has changed and what its rate does then.

    `saved` is the run before; `state` is the one to go on from.
    """
    per_epoch = saved.images[0] / run.config.batch_size if saved.images else run.length.per_epoch
    before = inputs.Length(saved.total_steps, per_epoch, run.length.eval_every)
    if not before.total or before[:2] == run.length[:2]:
        return
    params = run.training.abstract.params
    state_of_rate = jax.tree.map(np.asarray, rate_state(state.opt_state))
    settings = OptimizerSettings.from_config(run.config)
    old_rate, new_rate = (
        float(
            make_optimizer(
                params,
                settings,
                batch_size=run.config.batch_size,
                steps_per_epoch=length.per_epoch,
                total_steps=length.total,
            ).learning_rate(state_of_rate)
        )
        for length in (before, run.length)
    )
    if before.total != run.length.total:
        print(f"the length has changed: {before.total:,} steps before, {run.length.total:,} now")
    if old_rate != new_rate:
        print(
            f"the learning rate of '{settings.schedule}' after step {int(state.step):,} "
            f"was {old_rate:.4g} before and is {new_rate:.4g} now"
        )


def is_finished(run: Run, step: int) -> bool:
    """Tells whether nothing is left to do after `step`.

    It is beyond the last one, or the last one with its evaluation, if that is due, recorded.
    """
    rows, total = read_rows(run.folder / METRICS), run.length.total
    evaluated = [row["step"] for row in evaluations(rows, run.task.HEADLINE)]
    return step > total or (step == total and (step in evaluated or not run.length.evaluates(step)))


def describe_end(run: Run, step: int) -> str:
    """Returns why nothing is left to do after `step`, in a line."""
    if step > run.length.total:
        return (
            f"the run in {run.folder} has done {step} steps, more than the {run.length.total} "
            "that its config asks for: nothing to train"
        )
    return f"this run is finished: {run.length.total} steps in {run.folder}"


def compile_steps(run: Run, key: jax.Array) -> None:
    """Compiles the train and evaluation steps before the first one.

    Until then a signal ends the process at once. Analyses are small and compiled at first use.
    """
    data, abstract = run.data, run.training.abstract
    for batch in data.train.batch_shapes(run.config.batch_size):
        run.training.step.lower(abstract, batch, key).compile()
    (batch,) = data.held_out.batch_shapes(inputs.eval_batch_size(run.config), mask=True)
    run.eval_step.lower(evaluation_variables(abstract), batch).compile()


def _digest(split: Split) -> str:
    """Returns a digest of a split: of its images, objects and proposals."""
    return statistics.fingerprint(split, proposals.digest(split))
