"""The state of a training and its files: `last.safetensors`, `best.safetensors` and `metrics.jsonl`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tandemrec.recommender import FitReport
from tandemrec.training.config import TrainingConfig
from tandemrec.training.engine import Engine
from tandemrec.training.optimizer import make_optimizer
from tandemrec.training.parts import assign, assign_moments, moments, whole

NUMBERS = (
    *("epoch", "step", "step_in_epoch", "bad_validations", "best_epoch", "best_value"),
    *("loss_sum", "weight_sum", "curve", "stopped", "memory"),
)
"""What a checkpoint holds beside tensors."""

METRICS = "metrics.jsonl"
"""Figures of every logged step and validated epoch, one JSON object a line."""


class TrainingState:
    """Everything a checkpoint holds. With several processes all of them keep it and the first one writes."""

    def __init__(self, module: nn.Module, config: TrainingConfig, engine: Engine, workspace: Path | None) -> None:
        self.module, self.engine, self.workspace = module, engine, workspace
        self.trainee = engine.trainee(module)
        self.optimizer = make_optimizer(self.trainee, config)
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.prepared, self.stepper = engine.prepare(self.trainee, self.optimizer)
        # Read after preparing: sharding puts other parameters into the same module.
        trained = [(name, p) for name, p in self.trainee.named_parameters() if p.requires_grad]
        self.names, self.parameters = [name for name, _ in trained], [p for _, p in trained]
        self.epoch = self.step = self.step_in_epoch = self.bad_validations = 0
        self.best_epoch: int | None = None
        self.best_value: float | None = None
        self.loss_sum = self.weight_sum = 0.0
        self.curve: list[dict[str, float]] = []
        self.memory: dict[str, float] = {}
        self.stopped = False
        self.seconds_before = 0.0
        self.started = time.monotonic()
        self.best: dict[str, Tensor] = {}
        if workspace is not None:
            workspace.mkdir(parents=True, exist_ok=True)

    def finish_epoch(self, figures: dict[str, float] | None, config: TrainingConfig) -> None:
        """Count the epoch; `figures` are those of its validation, None where there was none."""
        loss = self.engine.total(self.loss_sum) / max(self.weight_sum, 1e-12)
        self.epoch += 1
        self.step_in_epoch = 0
        if figures is not None:
            value = next(iter(figures.values()))
            row = {"epoch": float(self.epoch), "loss": loss} | figures
            self.log(row)
            self.curve.append(row | {"seconds": self.seconds()})
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
        """Trainable parameters and buffers; of those that are not part of a saved model there is no need."""
        tensors = {name: whole(parameter) for name, parameter in zip(self.names, self.parameters, strict=True)}
        return tensors | {f"buffer:{name}": buffer.detach().clone() for name, buffer in saved_buffers(self.trainee)}

    def gather(self) -> None:
        """Bring the weights of a sharded copy into the whole module."""
        if self.trainee is not self.module:
            self._load_weights(self.weights(), self.module)

    def train(self, mode: bool) -> None:
        """Dropout and the like on or off."""
        self.prepared.train(mode)
        self.module.train(mode)

    def seconds(self) -> float:
        """Wall time, that of killed attempts included."""
        return self.seconds_before + time.monotonic() - self.started

    def describe(self) -> str:
        """For the progress bar."""
        if self.best_value is None:
            return ""
        return f"epoch {self.epoch}, best {self.best_value:.4f} at {self.best_epoch}"

    def report(self) -> FitReport:
        """What training did."""
        return FitReport(
            seconds=self.seconds(),
            epochs=self.epoch,
            best_epoch=self.best_epoch,
            best_value=self.best_value,
            curve=self.curve,
            notes=dict(self.memory),
        )

    def log(self, values: dict[str, float]) -> None:
        """Append a line to `metrics.jsonl` and tell the trackers. No times: equal trainings write equal files."""
        self.engine.log(values, self.step)
        if self.workspace is not None and self.engine.rank == 0:
            with (self.workspace / METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": self.step} | values) + "\n")

    def save(self) -> None:
        """Write `last.safetensors`."""
        if self.workspace is None:
            return
        tensors = self.weights() | {"rng:cpu": self.engine.every(torch.get_rng_state())}
        if torch.cuda.is_available():
            tensors["rng:cuda"] = self.engine.every(torch.cuda.get_rng_state())
        for name, parameter in zip(self.names, self.parameters, strict=True):
            stored = moments(self.optimizer, parameter)
            tensors |= {f"adam:{key}:{name}": value for key, value in stored.items()}
        scaler = self.engine.accelerator.scaler
        numbers = {key: getattr(self, key) for key in NUMBERS} | {
            "seconds_before": self.seconds(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "loss_sum": self.engine.total(self.loss_sum),
        }
        self._write("last", tensors, numbers)

    def restore(self) -> bool:
        """Continue from the workspace; False where there is nothing to continue from."""
        if self.workspace is None or not (self.workspace / "last.safetensors").exists():
            self._cut_log()
            return False
        tensors, numbers = self._read("last")
        scaler = numbers.pop("scaler")
        if scaler is not None:
            self.engine.accelerator.scaler.load_state_dict(scaler)
        for key, value in numbers.items():
            setattr(self, key, value)
        if self.engine.rank:
            self.loss_sum = 0.0  # the first process carries the sum of all
        self._load_weights(tensors, self.trainee)
        self.gather()
        for name, parameter in zip(self.names, self.parameters, strict=True):
            stored = {
                key.split(":", 2)[1]: value
                for key, value in tensors.items()
                if key.startswith("adam:") and key.split(":", 2)[2] == name
            }
            if stored:
                assign_moments(self.optimizer, parameter, stored)
        self._restore_random(tensors)
        self._cut_log()
        if self.best_epoch is not None:
            self.best, _ = self._read("best")
        return True

    def load_best(self) -> None:
        """Put the best epoch's weights into the module."""
        if self.best:
            self._load_weights(self.best, self.module)

    def _restore_random(self, tensors: dict[str, Tensor]) -> None:
        """Each process goes on with its own random state; with another number of them there is none to go on with."""
        if len(tensors["rng:cpu"]) != self.engine.processes:
            torch.manual_seed(self.step + self.engine.rank)
            return
        # Clones: torch reads a state from the start of its storage, whatever the view says.
        torch.set_rng_state(tensors["rng:cpu"][self.engine.rank].clone())
        if "rng:cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["rng:cuda"][self.engine.rank].clone())

    def _cut_log(self) -> None:
        """Drop the lines that a killed attempt wrote behind its last checkpoint."""
        if self.workspace is None or self.engine.rank or not (self.workspace / METRICS).exists():
            return
        path = self.workspace / METRICS
        whole = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
        kept = [line for line in whole if self._was_saved(json.loads(line))]
        path.write_text("".join(kept), encoding="utf-8")

    def _was_saved(self, line: dict[str, float]) -> bool:
        return line["step"] < self.step or (line["step"] == self.step and line.get("epoch", 0) <= self.epoch)

    def _load_weights(self, tensors: dict[str, Tensor], module: nn.Module) -> None:
        parameters = dict(module.named_parameters())
        for name in self.names:
            assign(parameters[name], tensors[name])
        for name, buffer in saved_buffers(module):
            buffer.copy_(tensors[f"buffer:{name}"])

    def _write(self, name: str, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Write beside and rename: a kill leaves the previous file or the new one, never half a file."""
        if self.workspace is None or self.engine.rank:
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


def saved_buffers(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Names and buffers that are part of a saved module."""
    saved = module.state_dict().keys()
    return [(name, buffer) for name, buffer in module.named_buffers() if name in saved]
