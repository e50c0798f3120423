"""A dropout that is fast on CPUs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 1 << 16
"""Dropout probabilities are rounded to multiples of 1 / LEVELS on a CPU, and to no less than one."""


def drop(inputs: Tensor, probability: float, training: bool) -> Tensor:
    """Dropout. On a CPU one random 64-bit number serves four entries: torch draws one an entry, which costs more time
    than the layer it regularises.
    """
    if not training or probability == 0:
        return inputs
    if inputs.device.type != "cpu":
        return F.dropout(inputs, probability)
    kept, factor = kept_entries(inputs, probability)
    return inputs * kept.mul_(factor)


def kept_entries(inputs: Tensor, probability: float) -> tuple[Tensor, float]:
    """0 where an entry is dropped, else 1; and the factor that makes up for those."""
    dropped = max(1, round(probability * LEVELS))
    bits = torch.empty(-(-inputs.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    level = bits.view(torch.int16)[: inputs.numel()].view(inputs.shape)
    # Whole numbers from −LEVELS / 2 up: cut to 0 and 1, which is faster than comparisons and their booleans.
    least = dropped - LEVELS // 2 - 1
    return level.clamp_(least, least + 1).sub_(least).to(inputs.dtype), LEVELS / (LEVELS - dropped)


class Dropout(nn.Module):
    """`drop` as a module."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, inputs: Tensor) -> Tensor:
        """Entries are dropped in training."""
        return drop(inputs, self.probability, self.training)
