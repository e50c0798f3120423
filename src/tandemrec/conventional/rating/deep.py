"""The feed-forward part that several models share, and a dropout that is fast on CPUs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 1 << 16
"""Dropout probabilities are rounded to multiples of 1 / LEVELS on a CPU."""


def drop(inputs: Tensor, probability: float, training: bool) -> Tensor:
    """Dropout. On a CPU one random 64-bit number serves four entries: torch draws one an entry, which costs more time
    than the layer it regularises.
    """
    if not training or probability == 0:
        return inputs
    if inputs.device.type != "cpu":
        return F.dropout(inputs, probability)
    dropped = round(probability * LEVELS)
    bits = torch.empty(-(-inputs.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    kept = bits.view(torch.int16)[: inputs.numel()].view(inputs.shape) >= dropped - LEVELS // 2
    return inputs * (kept * (LEVELS / (LEVELS - dropped)))


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
            inputs_BX = drop(F.relu(linear(inputs_BX)), self.dropout, self.training)
        return inputs_BX
