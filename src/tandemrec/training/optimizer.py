"""AdamW, or Muon for matrices beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tandemrec.training.config import TrainingConfig

MOMENTUM = 0.95
"""Of Muon's matrices, as its author has it."""


def make_optimizer(module: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Of the trainable parameters: AdamW, or Muon for linear maps and AdamW for whatever else there is."""
    matrices = [] if config.matrix_learning_rate is None else linear_weights(module)
    taken = set(matrices)
    others = [parameter for parameter in module.parameters() if parameter.requires_grad and parameter not in taken]
    return MuonAndAdamW(matrices, others, config) if matrices else _adamw(others, config)


def linear_weights(module: nn.Module) -> list[nn.Parameter]:
    """Trainable weights of linear maps that are no embeddings' as well: a tied head is a table of vectors."""
    tables = {part.weight for part in module.modules() if isinstance(part, nn.Embedding)}
    maps = [part.get_parameter("weight") for part in module.modules() if isinstance(part, nn.Linear)]
    return [weight for weight in dict.fromkeys(maps) if weight.requires_grad and weight not in tables]


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon for matrices, AdamW for the rest; they share one state, so that it is kept and restored like AdamW's.

    Muon's step is the momentum of the gradient with all its singular values set to about 1.
    """

    def __init__(self, matrices: list[nn.Parameter], others: list[nn.Parameter], config: TrainingConfig) -> None:
        assert config.matrix_learning_rate is not None
        rate, decay = config.matrix_learning_rate, config.weight_decay
        muon = torch.optim.Muon(matrices, lr=rate, weight_decay=decay, momentum=MOMENTUM)
        self.parts: list[torch.optim.Optimizer] = [_adamw(others, config), muon] if others else [muon]
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._share()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """State and groups are new objects then, which the parts share again."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of both."""
        assert closure is None
        for part in self.parts:
            part.step()


def _adamw(parameters: list[nn.Parameter], config: TrainingConfig) -> torch.optim.AdamW:
    betas = (0.9, config.beta2)
    return torch.optim.AdamW(
        parameters, lr=config.learning_rate, betas=betas, weight_decay=config.weight_decay, fused=True
    )
