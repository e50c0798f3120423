"""The loop: accumulation, schedule, clipping, early stopping, keeping the best epoch, progress, resuming."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tandemrec.recommender import FitReport
from tandemrec.training.config import TrainingConfig, learning_rate_factor
from tandemrec.training.engine import Engine
from tandemrec.training.processes import show_progress
from tandemrec.training.state import TrainingState
from tandemrec.training.task import BatchT, Task
from tandemrec.training.watch import told_to_stop


def train(
    task: Task[BatchT],
    config: TrainingConfig,
    *,
    seed: int,
    workspace: Path | None = None,
    label: str = "training",
) -> FitReport:
    """Train and leave the best validated weights in `task.module`.

    With a `workspace`, a run that was killed continues from its last checkpoint and ends with the same weights as an
    uninterrupted one: parameters, optimiser, random state and position are all stored. Several processes (`torchrun`)
    share the micro-batches of a step and end with the weights that one process would have, dropout aside.

    Returns:
        The curve (one row a validated epoch: epoch, loss, validation figures, seconds), the best epoch and its value.
    """
    device = next(task.module.parameters()).device
    engine = Engine(config, device, workspace, label, may_shard=task.may_shard)
    state = TrainingState(task.module, config, engine, workspace)
    task.prepared = state.prepared
    if not state.restore():
        torch.manual_seed(seed + engine.rank)
    try:
        with _progress() as progress:
            total_steps = max(1, len(task.steps(0)) * config.epochs)
            bar = progress.add_task(label, total=total_steps, completed=state.step, info="")
            while state.epoch < config.epochs and not state.stopped and not told_to_stop(state.curve):
                _train_epoch(task, config, state, total_steps, lambda: progress.advance(bar))
                state.gather()
                state.train(False)
                state.finish_epoch(_validated(task, config, state.epoch + 1), config)
                progress.update(bar, info=state.describe())
            progress.update(bar, completed=total_steps)
    finally:
        task.prepared = None
        engine.close(state.prepared)
    state.load_best()
    return state.report()


def _train_epoch(
    task: Task[BatchT], config: TrainingConfig, state: TrainingState, total_steps: int, advance: Callable[[], None]
) -> None:
    task.begin_epoch(state.epoch, state.curve, state.memory)
    state.train(True)
    steps = task.steps(state.epoch)
    last_save = time.monotonic()
    for index in range(state.step_in_epoch, len(steps)):
        micro_batches = steps[index]  # may be made when asked for
        weight = sum(task.weight(batch) for batch in micro_batches)
        factor = learning_rate_factor(config, state.step, total_steps)
        loss = _step(task, micro_batches, weight, factor, config, state)
        state.loss_sum += loss
        state.weight_sum += weight
        state.step += 1
        state.step_in_epoch = index + 1
        if state.step % config.log_every == 0:
            state.log({"loss": state.engine.total(loss) / weight, "learning_rate": config.learning_rate * factor})
        advance()
        due = time.monotonic() - last_save >= config.checkpoint_seconds and state.step_in_epoch < len(steps)
        if state.engine.first_says(due):
            state.save()
            last_save = time.monotonic()


def _step(
    task: Task[BatchT],
    micro_batches: Sequence[BatchT],
    weight: float,
    factor: float,
    config: TrainingConfig,
    state: TrainingState,
) -> float:
    """One optimiser step; the sum of this process's loss terms."""
    engine, total = state.engine, 0.0
    for group, peak in zip(state.optimizer.param_groups, state.peaks, strict=True):
        group["lr"] = peak * factor
    state.stepper.zero_grad()
    mine = engine.share(micro_batches)
    for place, (batch, counts) in enumerate(mine):
        with engine.holding_back(state.prepared, hold=place + 1 < len(mine)):
            loss = task.loss(batch)
            # Gradients are averaged over processes, but the step's loss is their sum over its whole weight.
            engine.backward(loss * (engine.processes / weight if counts else 0.0))
        total += float(loss.detach()) if counts else 0.0
    if config.clip_norm is not None:
        engine.accelerator.clip_grad_norm_(state.parameters, config.clip_norm)
    state.stepper.step()
    return total


def _validated(task: Task[BatchT], config: TrainingConfig, epoch: int) -> dict[str, float] | None:
    """Figures after epoch number `epoch` (from 1), if it is one to validate."""
    if epoch % config.validate_every and epoch != config.epochs:
        return None
    with torch.no_grad():
        return task.validate()


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[info]}"),
    )
    return Progress(*columns, transient=True, disable=not show_progress())
