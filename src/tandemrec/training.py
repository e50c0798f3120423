"""The one training loop: conventional models, language-model pre-training and fine-tuning all run through it.

A `Task` says which batches an epoch has, what a batch costs and how good the model is; the loop does the rest:
accumulation, schedule, clipping, early stopping, keeping the best epoch, progress and resuming after a kill.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch
from pydantic import Field
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tandemrec.recommender import Config, FitReport

BatchT = TypeVar("BatchT")
BatchT_contra = TypeVar("BatchT_contra", contravariant=True)


class TrainingConfig(Config):
    """How long and how fast to learn."""

    epochs: int = Field(100, ge=1)
    """Upper limit of epochs."""

    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW."""

    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay."""

    beta2: float = Field(0.999, gt=0, lt=1)
    """Second moment decay of AdamW (the first is .9)."""

    warmup_steps: int = Field(0, ge=0)
    """Steps of linear warm-up."""

    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Decay after warm-up: none, or to zero at the last step of the last epoch."""

    clip_norm: float | None = Field(1.0, gt=0)
    """Largest gradient norm; null: no clipping."""

    patience: int | None = Field(10, ge=1)
    """Validations without improvement (a tie is none) before stopping; null: never stop early."""

    validate_every: int = Field(1, ge=1)
    """Epochs between validations; the last epoch is always validated."""

    checkpoint_seconds: float = Field(60.0, ge=0)
    """Least time between two checkpoints within an epoch."""


class Task(Protocol[BatchT]):
    """What the loop trains. All randomness of `steps` must come from its arguments, so that resuming repeats it."""

    @property
    def module(self) -> nn.Module:
        """Its trainable parameters are optimised; its trainable state is what checkpoints and `best` hold."""
        ...

    def steps(self, epoch: int) -> Sequence[Sequence[BatchT]]:
        """Optimiser steps of an epoch (numbered from 0), each a list of micro-batches whose gradients add up."""
        ...

    def weight(self, batch: BatchT) -> float:
        """How many terms (tokens, positions) the loss of this micro-batch sums over."""
        ...

    def loss(self, batch: BatchT) -> Tensor:
        """Sum of the loss terms of a micro-batch; the loop divides by the weight of the whole step."""
        ...

    def validate(self) -> dict[str, float]:
        """Validation figures with the module in eval mode; the first one is maximised."""
        ...


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
    uninterrupted one: parameters, optimiser, random state and position are all stored.

    Returns:
        The curve (one row a validated epoch: epoch, loss, validation figures, seconds), the best epoch and its value.
    """
    state = _State(task.module, config, workspace)
    steps_per_epoch = len(task.steps(0))
    total_steps = max(1, steps_per_epoch * config.epochs)
    if not state.restore():
        torch.manual_seed(seed)
    with _progress() as progress:
        bar = progress.add_task(label, total=total_steps, completed=state.step, info="")
        while state.epoch < config.epochs and not state.stopped:
            _train_epoch(task, config, state, total_steps, lambda: progress.advance(bar))
            state.finish_epoch(task, config)
            progress.update(bar, info=state.describe())
        progress.update(bar, completed=total_steps)
    state.load_best()
    return state.report()


def _train_epoch(task: Task[BatchT], config: TrainingConfig, state: _State, total_steps: int, advance: Any) -> None:
    task.module.train()
    steps = task.steps(state.epoch)
    last_save = time.monotonic()
    for index in range(state.step_in_epoch, len(steps)):
        micro_batches = steps[index]
        weight = sum(task.weight(batch) for batch in micro_batches)
        for group in state.optimizer.param_groups:
            group["lr"] = config.learning_rate * learning_rate_factor(config, state.step, total_steps)
        state.optimizer.zero_grad(set_to_none=True)
        for batch in micro_batches:
            loss = task.loss(batch)
            torch.autograd.backward(loss / weight)
            state.loss_sum += float(loss.detach())
        state.weight_sum += weight
        if config.clip_norm is not None:
            nn.utils.clip_grad_norm_(state.parameters, config.clip_norm)
        state.optimizer.step()
        state.step += 1
        state.step_in_epoch = index + 1
        advance()
        if time.monotonic() - last_save >= config.checkpoint_seconds and state.step_in_epoch < len(steps):
            state.save()
            last_save = time.monotonic()


def learning_rate_factor(config: TrainingConfig, step: int, total_steps: int) -> float:
    """Share of the peak learning rate at a step (0-based): linear warm-up, then the schedule."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    done = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    return 1.0 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))


def default_device() -> torch.device:
    """`$TANDEMREC_DEVICE`, else the first CUDA device, else the CPU."""
    named = os.environ.get("TANDEMREC_DEVICE")
    if named:
        return torch.device(named)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def show_progress() -> bool:
    """Progress bars are drawn unless `TANDEMREC_PROGRESS=0`."""
    return os.environ.get("TANDEMREC_PROGRESS", "1") != "0"


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[info]}"),
    )
    return Progress(*columns, transient=True, disable=not show_progress())


class _State:
    """Everything a checkpoint holds, and its two files: `last.safetensors` and `best.safetensors`."""

    def __init__(self, module: nn.Module, config: TrainingConfig, workspace: Path | None) -> None:
        self.module = module
        self.names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=config.learning_rate,
            betas=(0.9, config.beta2),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.workspace = workspace
        self.epoch = self.step = self.step_in_epoch = self.bad_validations = 0
        self.best_epoch: int | None = None
        self.best_value: float | None = None
        self.loss_sum = self.weight_sum = 0.0
        self.curve: list[dict[str, float]] = []
        self.stopped = False
        self.seconds_before = 0.0
        self.started = time.monotonic()
        self.best: dict[str, Tensor] = {}
        if workspace is not None:
            workspace.mkdir(parents=True, exist_ok=True)

    def finish_epoch(self, task: Task[BatchT], config: TrainingConfig) -> None:
        self.epoch += 1
        self.step_in_epoch = 0
        if self.epoch % config.validate_every == 0 or self.epoch == config.epochs:
            task.module.eval()
            with torch.no_grad():
                figures = task.validate()
            value = next(iter(figures.values()))
            row = {"epoch": float(self.epoch), "loss": self.loss_sum / max(self.weight_sum, 1e-12)}
            self.curve.append(row | figures | {"seconds": self.seconds()})
            if self.best_value is None or value > self.best_value:
                self.best_value, self.best_epoch, self.bad_validations = value, self.epoch, 0
                self.best = self.weights()
                self._write("best", self.best, {})
            else:
                self.bad_validations += 1
                self.stopped = config.patience is not None and self.bad_validations >= config.patience
        self.loss_sum = self.weight_sum = 0.0
        self.save()

    def weights(self) -> dict[str, Tensor]:
        tensors = {name: p.detach().clone() for name, p in zip(self.names, self.parameters, strict=True)}
        return tensors | {f"buffer:{name}": buffer.detach().clone() for name, buffer in self.module.named_buffers()}

    def seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    def describe(self) -> str:
        if self.best_value is None:
            return ""
        return f"epoch {self.epoch}, best {self.best_value:.4f} at {self.best_epoch}"

    def report(self) -> FitReport:
        return FitReport(
            seconds=self.seconds(),
            epochs=self.epoch,
            best_epoch=self.best_epoch,
            best_value=self.best_value,
            curve=self.curve,
        )

    def save(self) -> None:
        if self.workspace is None:
            return
        tensors = self.weights() | {"rng:cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors["rng:cuda"] = torch.cuda.get_rng_state()
        for name, parameter in zip(self.names, self.parameters, strict=True):
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"adam:{key}:{name}"] = torch.as_tensor(value).detach().clone()
        numbers = {
            key: getattr(self, key)
            for key in (
                *("epoch", "step", "step_in_epoch", "bad_validations", "best_epoch", "best_value"),
                *("loss_sum", "weight_sum", "curve", "stopped"),
            )
        }
        self._write("last", tensors, numbers | {"seconds_before": self.seconds()})

    def restore(self) -> bool:
        """Continue from the workspace; False where there is nothing to continue from."""
        if self.workspace is None or not (self.workspace / "last.safetensors").exists():
            return False
        tensors, numbers = self._read("last")
        for key, value in numbers.items():
            setattr(self, key, value)
        self._load_weights(tensors)
        for name, parameter in zip(self.names, self.parameters, strict=True):
            stored = {
                key.split(":", 2)[1]: value
                for key, value in tensors.items()
                if key.startswith("adam:") and key.split(":", 2)[2] == name
            }
            if stored:
                self.optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in stored.items()}
        torch.set_rng_state(tensors["rng:cpu"])
        if "rng:cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng:cuda"])
        if self.best_epoch is not None:
            self.best, _ = self._read("best")
        return True

    def load_best(self) -> None:
        if self.best:
            self._load_weights(self.best)

    def _load_weights(self, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in zip(self.names, self.parameters, strict=True):
                parameter.copy_(tensors[name])
            for name, buffer in self.module.named_buffers():
                buffer.copy_(tensors[f"buffer:{name}"])

    def _write(self, name: str, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Write beside and rename: a kill leaves the previous file or the new one, never half a file."""
        if self.workspace is None:
            return
        path = self.workspace / f"{name}.safetensors"
        draft = path.with_suffix(".draft")
        save_file(
            {key: value.cpu().contiguous() for key, value in tensors.items()}, draft, {"state": json.dumps(numbers)}
        )
        draft.replace(path)

    def _read(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        assert self.workspace is not None
        with safe_open(self.workspace / f"{name}.safetensors", "pt") as file:
            numbers = json.loads(file.metadata()["state"])
            return {key: file.get_tensor(key) for key in file.keys()}, numbers  # noqa: SIM118
