"""Devices and processes, through Accelerate: a laptop's CPU, one GPU and many of them run the same loop."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from tandemrec.errors import InputError
from tandemrec.training.config import TrainingConfig
from tandemrec.training.task import BatchT


class Engine:
    """One training's `Accelerator`, with the sums over processes that the loop needs."""

    def __init__(self, config: TrainingConfig, device: torch.device, directory: Path | None, label: str) -> None:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        for tracker in config.trackers:
            if find_spec(tracker) is None:
                raise InputError(f"key 'training.trackers': found '{tracker}', whose package is not installed")
        # Accelerate keeps the first precision it was given for the whole process; each training has its own.
        AcceleratorState._reset_state()
        self.accelerator = Accelerator(
            cpu=device.type == "cpu",
            device_placement=False,
            mixed_precision=config.mixed_precision,
            log_with=list(config.trackers) or None,
            project_dir=directory,
        )
        self.processes, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        if config.trackers:
            self.accelerator.init_trackers(label.replace(" ", "-"), config=config.model_dump(mode="json"))

    def prepare(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """The module inside what several processes need (itself, for one), and the optimiser."""
        if any(isinstance(parameter, DTensor) for parameter in module.parameters()):
            return module, self.accelerator.prepare(optimizer)  # sharded by the caller
        from accelerate.optimizer import AcceleratedOptimizer

        prepared, stepper = self.accelerator.prepare(module, optimizer)
        # Without a scaler the wrapper only looks for absent packages, twice a step: a tenth of a small model's step.
        plain = type(stepper) is AcceleratedOptimizer and self.accelerator.scaler is None
        return prepared, stepper.optimizer if plain else stepper

    def share(self, micro_batches: Sequence[BatchT]) -> list[tuple[BatchT, bool]]:
        """Micro-batches of this process, and whether each counts: all processes must run equally many of them."""
        rounds = -(-len(micro_batches) // self.processes)
        mine = range(self.rank, rounds * self.processes, self.processes)
        return [(micro_batches[i % len(micro_batches)], i < len(micro_batches)) for i in mine]

    def holding_back(self, prepared: nn.Module, hold: bool) -> AbstractContextManager[None]:
        """Gradients stay in this process inside, if `hold`."""
        if hold and self.processes > 1:
            context: AbstractContextManager[None] = self.accelerator.no_sync(prepared)
            return context
        return nullcontext()

    def total(self, value: float) -> float:
        """Sum over processes."""
        if self.processes == 1:
            return value
        summed = self.accelerator.reduce(torch.tensor(value, dtype=torch.float64, device=self._device()), "sum")
        return float(summed)

    def first_says(self, flag: bool) -> bool:
        """What the first process says: clocks differ."""
        return flag if self.processes == 1 else self.total(float(flag and self.rank == 0)) > 0

    def every(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes, stacked."""
        if self.processes == 1:
            return tensor[None]
        return torch.stack(list(self.accelerator.gather(tensor[None].to(self._device())).cpu()))

    def log(self, values: dict[str, float], step: int) -> None:
        """To the trackers."""
        self.accelerator.log(values, step=step)

    def close(self, prepared: nn.Module) -> None:
        """Finish the trackers and take mixed precision off the module again."""
        self.accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
        for tracker in self.accelerator.trackers:  # `end_training` would end the process group too
            tracker.finish()
        self.accelerator.free_memory()

    def _device(self) -> torch.device:
        device: torch.device = self.accelerator.device
        return device


def whole_tensor(tensor: Tensor) -> Tensor:
    """A tensor, gathered where it is sharded over processes (all of them must ask)."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, model: Tensor) -> Tensor:
    """A whole tensor on another one's device, cut as that one is."""
    if isinstance(model, DTensor):
        return distribute_tensor(tensor.to(model.device), model.device_mesh, model.placements)
    return tensor.to(model.device)
