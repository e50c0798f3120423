"""Devices and processes, through Accelerate: a laptop's CPU, one GPU and many of them run the same loop.

Several processes keep whole copies of the module (data parallel) or, where Accelerate is configured for FSDP2 or for
DeepSpeed's ZeRO-3, train a copy of which each holds a part, with its gradients and optimiser state; generation and
saving then use the whole one.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from tandemrec.errors import InputError
from tandemrec.training.config import TrainingConfig
from tandemrec.training.task import BatchT

SHARDING = {"fsdp": "ACCELERATE_USE_FSDP", "deepspeed": "ACCELERATE_USE_DEEPSPEED"}
"""What `accelerate launch` sets where its configuration asks for parts."""


class Engine:
    """One training's `Accelerator`, with the sums over processes that the loop needs."""

    def __init__(
        self, config: TrainingConfig, device: torch.device, directory: Path | None, label: str, *, may_shard: bool
    ) -> None:
        from accelerate import Accelerator, PartialState
        from accelerate.state import AcceleratorState
        from accelerate.utils import patch_environment

        for tracker in config.trackers:
            if find_spec(tracker) is None:
                raise InputError(f"key 'training.trackers': found '{tracker}', whose package is not installed")
        # Accelerate keeps the first precision it was given for the whole process; each training has its own.
        AcceleratorState._reset_state()
        PartialState(cpu=device.type == "cpu")  # first: with DeepSpeed, Accelerate forgets the other processes of a CPU
        asked = [kind for kind, name in SHARDING.items() if os.environ.get(name, "false").lower() == "true"]
        self.sharding = asked[0] if asked and may_shard else None
        if self.sharding and config.matrix_learning_rate is not None:
            raise InputError(
                "key 'training.matrix_learning_rate': Muon needs whole matrices, found processes that share parameters"
            )
        with patch_environment(**{name: str(kind == self.sharding).lower() for kind, name in SHARDING.items()}):
            self.accelerator = Accelerator(
                cpu=device.type == "cpu" and self.sharding != "deepspeed",
                device_placement=False,
                mixed_precision=config.mixed_precision,
                log_with=list(config.trackers) or None,
                project_dir=directory,
            )
        self.processes, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        self.alone = False
        if self.sharding == "deepspeed":  # it steps and clips inside `backward`
            self.accelerator.state.deepspeed_plugin.deepspeed_config |= {
                "train_micro_batch_size_per_gpu": 1,
                "gradient_accumulation_steps": 1,
                "gradient_clipping": config.clip_norm or 0.0,
            }
        if config.trackers:
            self.accelerator.init_trackers(label.replace(" ", "-"), config=config.model_dump(mode="json"))

    def trainee(self, module: nn.Module) -> nn.Module:
        """What the optimiser works on: the module itself, or the copy that is sharded over the processes."""
        if self.sharding is None or (self.sharding == "fsdp" and self.processes == 1):
            return module
        shared = copy.deepcopy(module)
        # Transformers names the classes that are cut as one; Accelerate asks the outermost module for them.
        wrapped = {name for part in module.modules() for name in getattr(part, "_no_split_modules", None) or ()}
        shared._no_split_modules = sorted(wrapped)  # type: ignore[assignment]
        if self.sharding == "fsdp" and self._device().type == "cpu":  # where Accelerate leaves its settings alone
            mesh = init_device_mesh("cpu", (self.processes,))
            for part in shared.modules():
                if type(part).__name__ in wrapped:
                    fully_shard(part, mesh=mesh)
            fully_shard(shared, mesh=mesh)
        return shared

    def prepare(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """The module inside what several processes need (itself, for one), and the optimiser."""
        if any(isinstance(parameter, DTensor) for parameter in module.parameters()):
            return module, self.accelerator.prepare(optimizer)  # sharded already
        prepared, stepper = self.accelerator.prepare(module, optimizer)
        # Accelerate's step looks for a package on the disk each time, a fifth of a small model's step; where there is
        # nothing to scale or to share, it does no more than the optimiser's own, nor does its `backward`.
        self.alone = self.processes == 1 and self.accelerator.scaler is None and prepared is module
        return prepared, optimizer if self.alone else stepper

    def backward(self, loss: Tensor) -> None:
        """Gradients of a loss, shared where several processes need them."""
        if self.alone:
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            self.accelerator.backward(loss)

    def share(self, micro_batches: Sequence[BatchT]) -> list[tuple[BatchT, bool]]:
        """Micro-batches of this process, and whether each counts: all processes must run equally many of them."""
        rounds = -(-len(micro_batches) // self.processes)
        mine = range(self.rank, rounds * self.processes, self.processes)
        return [(micro_batches[i % len(micro_batches)], i < len(micro_batches)) for i in mine]

    def holding_back(self, prepared: nn.Module, hold: bool) -> AbstractContextManager[None]:
        """Gradients stay in this process inside, if `hold`."""
        self.accelerator.gradient_state._set_sync_gradients(not hold)  # tells DeepSpeed whether to step
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
        if self.processes > 1 or self.sharding or self._device().type != "cpu":
            self.accelerator.free_memory()  # on a CPU it would only search for garbage, a quarter of a second
        if self.sharding == "deepspeed":  # or Transformers would load every further model in parts
            from transformers.integrations import unset_hf_deepspeed_config

            unset_hf_deepspeed_config()

    def _device(self) -> torch.device:
        device: torch.device = self.accelerator.device
        return device
