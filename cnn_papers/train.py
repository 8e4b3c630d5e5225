"""Trains a network: the whole run on one page, from a config and a folder to a tested network."""

import collections
import contextlib
import pathlib
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from cnn_papers import evaluate
from cnn_papers.evaluation import run_analyses
from cnn_papers.parallel import processes
from cnn_papers.runs import inputs, pictures, summary, workdir
from cnn_papers.runs.checkpoint import Checkpoints, evaluation_variables
from cnn_papers.runs.ranges import check_ranges
from cnn_papers.runs.rows import METRICS, evaluations, is_best, read_rows
from cnn_papers.runs.run import (
    Run,
    assemble,
    check_folder,
    compile_steps,
    describe_end,
    is_finished,
    print_new_length,
    save_for_prediction,
)
from cnn_papers.runs.signals import Stop, stop_on_signal
from cnn_papers.runs.writer import Writer
from cnn_papers.training.step import State, zero_totals
from cnn_papers.weights import initial

RUN_AHEAD = 2  # the host reads the scalars of a step this many steps later


class Outcome(NamedTuple):
    """The way a run ended: `code` is the exit code of its process, 128 + n after signal n."""

    code: int


DONE, DIVERGED = Outcome(0), Outcome(3)


class RunFolder(NamedTuple):
    """The writers to a run's folder while it trains."""

    writer: Writer
    checkpoints: Checkpoints
    best: Checkpoints


def train_and_evaluate(config: Any, folder: str | pathlib.Path) -> Outcome:
    """Starts or continues the run of `config` (a locked ConfigDict) in `folder`, and tests it.

    Returns DONE; DIVERGED after too many steps in a row whose loss is not finite or too large; or
    the outcome of a signal, with the state saved.

    Raises:
      UserError: a mistake in the config, missing data, the folder of another run, damaged
        checkpoints.
    """
    # 1. Check the values of the config.
    folder = pathlib.Path(folder)
    check_ranges(config)

    # 2. Lock the folder, which must hold this run or none.
    with workdir.hold(folder), stop_on_signal() as stop:
        processes.raise_on_all(lambda: workdir.check_same_run(folder, config))

        # 3. Assemble data, network and steps. Nothing is written to the folder until all of them,
        #    the run that it holds, and the weights to start from, are known to fit.
        saved = workdir.read_run(folder)
        has_steps = processes.broadcast(lambda: any((folder / "checkpoints").glob("[0-9]*")))
        if not has_steps:
            processes.raise_on_all(lambda: initial.check_exists(config))
        run = assemble(config, folder)
        processes.broadcast(lambda: check_folder(run))
        arrays = None if has_steps else _initial_arrays(run)
        checkpoints = Checkpoints(folder / "checkpoints", keep=config.checkpoint.keep)
        with (
            contextlib.closing(checkpoints),
            contextlib.closing(Checkpoints(folder / "best")) as best,
        ):
            # 4. Restore the newest good checkpoint, or start.
            state = _restore_or_init(run, checkpoints, best, arrays)
            summary.print_split(state.params)

            # 5. Train, unless the run is finished.
            step = int(state.step)
            finished = processes.broadcast(lambda: is_finished(run, step))
            processes.broadcast(lambda: save_for_prediction(run, finished=finished))
            if finished:
                print(describe_end(run, step))
                outcome = DONE
            else:
                if saved and step:
                    print_new_length(run, saved, state)
                outcome = _train(run, state, checkpoints, best, stop)
        if outcome == DONE and processes.is_first():
            _show_result(run)

    # 6. Test the best state as the paper does, and set the run beside the paper.
    if outcome == DONE and (config.eval.protocol != "single_view" or config.eval.precise_bn):
        keys = ("protocol", "mirror", "precise_bn")  # a finished run may have others in run.json
        evaluate.evaluate_runs([folder], config, {f"eval.{key}": config.eval[key] for key in keys})
    elif outcome == DONE and processes.is_first():
        summary.print_reported(config, read_rows(folder / METRICS))
    return outcome


def _show_result(run: Run) -> None:
    """Prints and draws the evaluations; a run that ends earlier than it was begun may have none."""
    evaluated = evaluations(read_rows(run.folder / METRICS), run.task.HEADLINE)
    if evaluated:
        summary.print_result(evaluated, run.task.MEASURES)
        pictures.draw_curves(run.folder, run.task.HEADLINE)


def _initial_arrays(run: Run) -> Any:
    return initial.read_or_fit(run.config, run.model, run.data.train)


def _restore_or_init(run: Run, checkpoints: Checkpoints, best: Checkpoints, arrays: Any) -> State:
    """Returns the state of the newest good checkpoint, or a fresh one that starts from `arrays`.

    Later checkpoints are removed.
    """
    step = checkpoints.newest_good()
    checkpoints.remove_after(-1 if step is None else step)
    best.remove_after(-1 if step is None else step)
    if step is not None:
        print(f"going on from step {step} of {run.length.total}")
        return checkpoints.restore(step, run.training.abstract)
    if processes.is_first() and (run.folder / METRICS).exists():
        print(f"there is no checkpoint in {checkpoints.folder}: the run and {METRICS} start anew")
    if arrays is None:  # the only checkpoint is that of a first save that was cut off
        arrays = _initial_arrays(run)
    return initial.insert(run.training.init(jax.random.key(run.config.seed)), arrays, run.model)


def _train(
    run: Run, state: State, checkpoints: Checkpoints, best: Checkpoints, stop: Stop
) -> Outcome:
    """Steps until the end, a signal, or divergence, and saves the state in each case.

    A state is saved before it is evaluated: a signal abandons the evaluation, and the next start
    repeats it first.
    """
    config, length = run.config, run.length
    start, start_time = int(state.step), time.monotonic()
    pending = length.evaluates(start)
    writer = Writer(
        run.folder,
        start_step=start,
        total_steps=length.total,
        steps_per_epoch=length.per_epoch,
        measures=run.task.MEASURES,
        pending=pending,
    )
    folder = RunFolder(writer, checkpoints, best)
    key = jax.random.key(config.seed)
    with contextlib.closing(writer):
        compile_steps(run, key)
        outcome = None
        if pending:
            best.remove_after(start - 1)
            state, outcome = _evaluate(run, state, start, folder, stop)
        steps = range(start, length.total) if outcome is None else range(0)
        batches = run.data.train.train_batches(config.batch_size, seed=config.seed, steps=steps)
        under_way: collections.deque[Any] = collections.deque()
        for step, batch in enumerate(batches, start + 1):
            state, scalars = run.training.step(state, batch, key)
            under_way.append(scalars)
            skipped = 0
            if len(under_way) > RUN_AHEAD:
                skipped = int(under_way.popleft()["skipped_in_a_row"])
            if step == start + 1:
                jax.block_until_ready(state)
                stop.save_first()
                writer.say(f"first step after {time.monotonic() - start_time:.1f} s")
                writer.resume_clock(step)
            state, outcome = _after_step(run, state, scalars, step, skipped, folder, stop)
            if outcome is not None:
                break
        checkpoints.finish()
    return outcome or DONE


def _after_step(
    run: Run,
    state: State,
    scalars: dict[str, jax.Array],
    step: int,
    skipped: int,
    folder: RunFolder,
    stop: Stop,
) -> tuple[State, Outcome | None]:
    """Reports, saves and evaluates when due; returns the state, and an outcome if the run ends."""
    config = run.config
    code = stop.agreed()
    outcome = Outcome(code) if code else None
    if step % config.log_every_steps == 0 or step == run.length.total:
        state = _report(run, state, scalars, step, folder.writer)
    if skipped >= config.optim.max_skipped_in_a_row:
        outcome = DIVERGED
        folder.writer.say(
            f"diverged: {skipped} steps in a row left out (loss not finite or too large); "
            "lower config.optim.lr"
        )
    due = step % config.checkpoint.every_steps == 0
    if due or run.length.evaluates(step) or outcome is not None:
        folder.checkpoints.save(step, state)
        folder.writer.resume_clock(step)
    if run.length.evaluates(step) and outcome is None:
        state, outcome = _evaluate(run, state, step, folder, stop)
    return state, outcome


def _report(
    run: Run, state: State, scalars: dict[str, jax.Array], step: int, writer: Writer
) -> State:
    """Writes the means since the last report, and informs the warm-up.

    Returns the state with new totals.
    """
    totals = jax.device_get(state.totals)._asdict()
    steps = int(totals.pop("steps")) or np.nan  # without a step that counts there is no mean
    values = {name: float(value) / steps for name, value in totals.items()}
    error = values.get(run.task.HEADLINE.name, np.nan)  # not every task has it of a step
    values |= {"lr": float(scalars["lr"]), "skipped_steps": int(state.skipped)}
    writer.report_training(step, values, run.config.batch_size)
    return state._replace(
        totals=processes.put(zero_totals(run.task.Totals), run.training.abstract.step.sharding),
        opt_state=run.training.optimizer.observe_training(state.opt_state, error),
    )


def _evaluate(
    run: Run, state: State, step: int, folder: RunFolder, stop: Stop
) -> tuple[State, Outcome | None]:
    """Evaluates, reports, informs the schedule, and keeps the state if it is the best so far.

    Returns the new state; or, if a signal came meanwhile, the old state and the outcome.
    """
    variables = evaluation_variables(state)
    held_out = run.data.held_out
    batches = held_out.eval_batches(inputs.eval_batch_size(run.config))
    values = run.task.evaluate(run.eval_step, variables, batches, len(held_out), stop.agreed)
    if values is None:
        return state, Outcome(stop.code)
    analyses = {}
    if run.config.eval.analyses:
        batch = next(iter(held_out.eval_batches(inputs.eval_batch_size(run.config))))
        analyses = run_analyses.compute(
            run.config.eval.analyses, run.model, variables, batch, run.data.normalise
        )
    headline = run.task.HEADLINE
    best = processes.broadcast(lambda: is_best(values, read_rows(run.folder / METRICS), headline))
    folder.writer.report_evaluation(step, values, "  (best)" if best else "", analyses)
    columns = getattr(run.model, "columns", 1)
    folder.writer.draw_filters(step, state.params, run.data.train.image_shape[-1], columns)
    state = state._replace(
        opt_state=run.training.optimizer.observe(
            state.opt_state, headline.cost(values[headline.name])
        )
    )
    if best:
        folder.best.save(step, state)
        folder.best.finish()
    folder.writer.resume_clock(step)
    return state, None
