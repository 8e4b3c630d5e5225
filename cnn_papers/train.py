"""The whole run on one page: from a config and a folder to a trained network."""

import collections
import functools
import pathlib
import time
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from cnn_papers import counting, evaluate, trained, zoo
from cnn_papers.data import statistics
from cnn_papers.evaluation import run_analyses, single_view, support
from cnn_papers.parallel import mesh as meshes
from cnn_papers.parallel import processes
from cnn_papers.runs import inputs, pictures, ranges, summary, workdir
from cnn_papers.runs.checkpoint import Checkpoints, evaluated
from cnn_papers.runs.rows import METRICS, read_rows
from cnn_papers.runs.signals import Stop, stop_on_signal
from cnn_papers.runs.writer import Writer
from cnn_papers.training import placement
from cnn_papers.training.optim import OptimizerSettings
from cnn_papers.training.placement import make_training
from cnn_papers.training.step import State, StepSettings, make_predict_step, zero_totals

DONE, DIVERGED = 0, 3
RUN_AHEAD = 2  # steps under way on the devices before the host looks at the figures of one


class Run(NamedTuple):
    """The pieces of a run that stay; `eval_step` is jitted."""

    config: Any
    folder: pathlib.Path
    model: nn.Module
    data: inputs.Data
    length: inputs.Length
    training: placement.Training
    eval_step: Any
    start: Any  # () -> arrays of other weights to start from, by path


def train_and_evaluate(config: Any, folder: pathlib.Path) -> int:
    """Trains as `config` (a ConfigDict) says, or goes on where the run in `folder` stopped; returns the exit code.

    Exit codes: 0 done; 3 diverged (too many non-finite steps in a row); 128 + n stopped by signal n, state saved.

    Raises:
      UserError: a mistake in the config, data that is not there, a folder of another run, damaged checkpoints.
    """
    ranges.check_ranges(config)
    with workdir.hold(folder), stop_on_signal() as stop:
        processes.raise_on_all(lambda: workdir.check_same_run(folder, config.to_dict()))
        run = assemble(config, folder)
        if not processes.broadcast(lambda: any((folder / "checkpoints").glob("[0-9]*"))):
            run.start()  # what is wrong with other weights shows before anything is written
        processes.broadcast(lambda: _write_run(run))
        checkpoints = Checkpoints(folder / "checkpoints", keep=config.checkpoint.keep)
        best = Checkpoints(folder / "best")
        try:
            state = _restore_or_init(run, checkpoints, best)
            if processes.broadcast(lambda: _is_finished(run, int(state.step))):
                print(f"this run is finished: {run.length.total} steps in {folder}")
                code = DONE
            else:
                code = _train(run, state, checkpoints, best, stop)
        finally:
            checkpoints.close()
            best.close()
        if code == DONE and processes.is_first():
            summary.show_result(config, read_rows(folder / METRICS))
            pictures.draw_curves(folder)
    if code == DONE and (config.eval.protocol != "single_view" or config.eval.precise_bn):
        evaluate.evaluate_runs([folder], config, {})
    return code


def assemble(config: Any, folder: pathlib.Path) -> Run:
    """Everything that `config` names, checked and put together; prints the start-up summary."""
    mesh = meshes.make_mesh(config.mesh.data, config.mesh.column)
    model = zoo.build_model(config.model_name, **config.model)
    data = inputs.open_data(config, mesh)
    length = inputs.run_length(config, len(data.train))
    image_shape = data.train.image_shape
    training = make_training(
        model,
        image_shape,
        mesh,
        data.augment,
        OptimizerSettings.from_config(config),
        StepSettings.from_config(config),
        batch_size=config.batch_size,
        steps_per_epoch=length.per_epoch,
        total_steps=length.total,
        shard_params=config.mesh.shard_params,
    )
    variables = evaluated(training.abstract.params, training.abstract.batch_stats, training.abstract.ema)
    eval_step = jax.jit(
        single_view.make_step(make_predict_step(training.net, data.view)),
        in_shardings=(placement.places_of(variables), meshes.data_sharding(mesh)),
        out_shardings=meshes.replicated(mesh),
    )
    inputs.check_images(data, functools.partial(eval_step.eval_shape, variables), config.batch_size)
    support.supported(
        config.eval.protocol,
        model,
        variables,
        data.view,
        data.held_out.image_shape,
        mirror=config.eval.mirror,
        precise_bn=config.eval.precise_bn,
    )
    run_analyses.check(config.eval.analyses, model, variables, data.view, data.held_out.image_shape)
    summary.show(config, counting.count(model, image_shape), data, length.total, mesh, folder)
    start = functools.cache(functools.partial(trained.start, config, model, image_shape) if config.init_from else dict)
    return Run(config, folder, model, data, length, training, eval_step, start)


def _write_run(run: Run) -> None:
    """Keeps with the run what predicting from it takes, so that its data set need not be there."""
    workdir.check_space(run.folder, summary.tree_bytes(run.training.abstract), run.config.checkpoint.keep)
    train, held_out = run.data.train, run.data.held_out
    facts = {
        "class_names": train.split.class_names,
        "train_image": train.image_shape,
        "eval_image": held_out.image_shape,
        "machine": workdir.describe_machine(),
        "total_steps": run.length.total,
    }
    workdir.write_run(run.folder, run.config.to_dict(), facts)
    if run.data.statistics is not None:
        statistics.save(run.folder / statistics.FILE, run.data.statistics)


def _is_finished(run: Run, step: int) -> bool:
    """Whether the last step is taken, and evaluated too."""
    evaluations = [row["step"] for row in read_rows(run.folder / METRICS) if "val/top1_error" in row]
    return step >= run.length.total and (step in evaluations or not run.length.evaluates(step))


def _restore_or_init(run: Run, checkpoints: Checkpoints, best: Checkpoints) -> State:
    """The state of the newest good checkpoint, or a fresh one; what lies beyond it is removed."""
    step = checkpoints.newest_good()
    checkpoints.remove_after(-1 if step is None else step)
    best.remove_after(-1 if step is None else step)
    if step is None:
        if processes.is_first() and (run.folder / METRICS).exists():
            print(f"there is no checkpoint in {checkpoints.folder}: from the start, and {METRICS} too")
        return trained.put_in(run.training.init(jax.random.key(run.config.seed)), run.start(), run.model)
    print(f"going on from step {step} of {run.length.total}")
    return checkpoints.restore(step, run.training.abstract)


def _train(run: Run, state: State, checkpoints: Checkpoints, best: Checkpoints, stop: Stop) -> int:
    """Steps until the end, a signal, or divergence; the state is saved in each case. Returns the exit code.

    A state is saved before it is evaluated, so that an evaluation can be abandoned, and comes first in the next start.
    """
    config, length, start, began = run.config, run.length, int(state.step), time.monotonic()
    pending = length.evaluates(start)
    writer = Writer(
        run.folder, start_step=start, pending=pending, total_steps=length.total, steps_per_epoch=length.per_epoch
    )
    code, key = DONE, jax.random.key(config.seed)
    under_way: collections.deque[Any] = collections.deque()
    batches = run.data.train.train_batches(config.batch_size, seed=config.seed, steps=range(start, length.total))
    try:
        _compile(run, key)
        if pending:
            best.remove_after(start - 1)
            state, code = _evaluate(run, state, start, writer, best, stop)
        for step, batch in zip(range(start + 1, length.total + 1), batches, strict=True):
            if code:
                break
            state, scalars = run.training.step(state, batch, key)
            under_way.append(scalars)
            skipped = int(under_way.popleft()["skipped_in_a_row"]) if len(under_way) > RUN_AHEAD else 0
            if step == start + 1:
                jax.block_until_ready(state)
                stop.save_first()
                writer.say(f"first step after {time.monotonic() - began:.1f} s")
                writer.resume_clock(step)
            code = stop.agreed()
            if step % config.log_every_steps == 0 or step == length.total:
                state = _report(run, state, scalars, step, writer)
            if skipped >= config.optim.max_skipped_in_a_row:
                code = DIVERGED
                writer.say(
                    f"diverged: {skipped} steps in a row left out (loss not finite or too large); lower config.optim.lr"
                )
            if step % config.checkpoint.every_steps == 0 or length.evaluates(step) or code:
                checkpoints.save(step, state)
                writer.resume_clock(step)
            if length.evaluates(step) and not code:
                state, code = _evaluate(run, state, step, writer, best, stop)
        checkpoints.finish()
    finally:
        writer.close()
    return code


def _compile(run: Run, key: jax.Array) -> None:
    """Compiles training and evaluation (analyses are small), while a signal may still end the process at once."""
    data, config = run.data, run.config
    for batch in data.train.batch_shapes(config.batch_size):
        run.training.step.lower(run.training.abstract, batch, key).compile()
    variables = evaluated(run.training.abstract.params, run.training.abstract.batch_stats, run.training.abstract.ema)
    (batch,) = data.held_out.batch_shapes(_eval_batch_size(run), mask=True)
    run.eval_step.lower(variables, batch).compile()


def _report(run: Run, state: State, scalars: dict[str, jax.Array], step: int, writer: Writer) -> State:
    """Writes the means since the last report and starts the next."""
    totals = jax.device_get(state.totals)
    steps = int(totals.steps) or np.nan  # all skipped: there is no mean
    values = {name: float(value) / steps for name, value in totals._asdict().items() if name != "steps"}
    values |= {"lr": float(scalars["lr"]), "skipped_steps": int(state.skipped)}
    writer.train(step, values, run.config.batch_size)
    return state._replace(totals=processes.put(zero_totals(), run.training.abstract.step.sharding))


def _evaluate(run: Run, state: State, step: int, writer: Writer, best: Checkpoints, stop: Stop) -> tuple[State, int]:
    """Evaluates, reports, tells the schedule, and keeps the state if it is the best so far.

    Returns the state and the exit code of a signal that came meanwhile, which leaves everything as it was.
    """
    variables = evaluated(state.params, state.batch_stats, state.ema)
    batches = run.data.held_out.eval_batches(_eval_batch_size(run))
    values = single_view.evaluate(run.eval_step, variables, batches, len(run.data.held_out), stop.agreed)
    if values is None:
        return state, stop.code
    looked_at = {}
    if text := run.config.eval.analyses:
        batch = next(iter(run.data.held_out.eval_batches(_eval_batch_size(run))))
        looked_at = run_analyses.compute(text, run.model, variables, batch, run.data.view)
    is_best = processes.broadcast(lambda: single_view.is_best(values, read_rows(run.folder / METRICS)))
    writer.evaluation(step, values, "  (best)" if is_best else "", looked_at)
    columns = getattr(run.model, "columns", 1)
    writer.filters(step, state.params, run.data.train.image_shape[-1], columns)
    state = state._replace(opt_state=run.training.optimizer.observe(state.opt_state, values["top1_error"]))
    if is_best:
        best.save(step, state)
        best.finish()
    writer.resume_clock(step)
    return state, DONE


def _eval_batch_size(run: Run) -> int:
    return run.config.eval.batch_size or run.config.batch_size
