"""The feed-forward part that several models share, and a dropout that is fast on CPUs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

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
    return inputs * _kept(inputs, probability)


def _kept(inputs: Tensor, probability: float) -> Tensor:
    """0 where an entry is dropped, else what makes up for those."""
    dropped = max(1, round(probability * LEVELS))
    bits = torch.empty(-(-inputs.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    level = bits.view(torch.int16)[: inputs.numel()].view(inputs.shape)
    # Whole numbers from −LEVELS / 2 up: cut to 0 and 1, which is faster than comparisons and their booleans.
    least = dropped - LEVELS // 2 - 1
    return level.clamp_(least, least + 1).sub_(least).to(inputs.dtype).mul_(LEVELS / (LEVELS - dropped))


class DroppedReLU(torch.autograd.Function):
    """dropout(ReLU(x)) on a CPU as one step of differentiation."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, probability: float) -> Tensor:
        """Entries are dropped with this probability."""
        kept = _kept(inputs, probability)
        out = inputs.clamp(min=0).mul_(kept)
        ctx.save_for_backward(out, kept)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """By the inputs: what is positive afterwards had a slope."""
        out, kept = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradient * kept, out, 0), None


def drop_relu(inputs: Tensor, probability: float, training: bool) -> Tensor:
    """dropout(ReLU(x))."""
    if training and probability and inputs.device.type == "cpu":
        out: Tensor = DroppedReLU.apply(inputs, probability)  # type: ignore[no-untyped-call]
        return out
    return drop(F.relu(inputs), probability, training)


class Deep(nn.Module):
    """a_{l+1} = dropout(ReLU(W_l a_l + b_l)); without layers the identity. `width` is that of its output."""

    def __init__(self, width: int, layers: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        sizes = [width, *layers]
        self.maps = nn.ModuleList([nn.Linear(a, b) for a, b in pairwise(sizes)])
        self.width = sizes[-1]

    def forward(self, inputs_BX: Tensor) -> Tensor:
        """(B, X) → (B, width)."""
        for linear in self.maps:
            inputs_BX = drop_relu(linear(inputs_BX), self.dropout, self.training)
        return inputs_BX
