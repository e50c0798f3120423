"""The feed-forward part that several models share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class Deep(nn.Module):
    """a_{l+1} = dropout(ReLU(W_l a_l + b_l)); without layers the identity. `width` is that of its output."""

    def __init__(self, width: int, layers: Sequence[int], dropout: float) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        for size in layers:
            steps += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout)]
            width = size
        self.steps, self.width = nn.Sequential(*steps), width

    def forward(self, inputs_BX: Tensor) -> Tensor:
        """(B, X) → (B, width)."""
        out: Tensor = self.steps(inputs_BX)
        return out
