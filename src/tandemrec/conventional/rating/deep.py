"""The feed-forward part that several models share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from tandemrec.training.dropout import drop, kept_entries

Widths = tuple[Annotated[int, Field(ge=1)], ...]
"""Outputs of layer after layer."""


class DroppedLayer(torch.autograd.Function):
    """dropout(ReLU(x Wᵀ + b)) on a CPU as one step of differentiation."""

    @staticmethod
    def forward(ctx: Any, inputs_BX: Tensor, weight_YX: Tensor, bias_Y: Tensor, probability: float) -> Tensor:
        """Entries are dropped with this probability."""
        out_BY = torch.addmm(bias_Y, inputs_BX, weight_YX.t()).clamp_(min=0)
        kept, ctx.factor = kept_entries(out_BY, probability)
        out_BY.mul_(kept).mul_(ctx.factor)
        ctx.save_for_backward(inputs_BX, weight_YX, out_BY)
        return out_BY

    @staticmethod
    def backward(ctx: Any, gradient_BY: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """By inputs, weights and biases: what is positive afterwards had a slope."""
        inputs_BX, weight_YX, out_BY = ctx.saved_tensors
        slope_BY = torch.ops.aten.threshold_backward(gradient_BY, out_BY, 0).mul_(ctx.factor)
        return slope_BY @ weight_YX, slope_BY.t() @ inputs_BX, slope_BY.sum(0), None


def dropped_layer(linear: nn.Linear, inputs_BX: Tensor, probability: float, training: bool) -> Tensor:
    """dropout(ReLU(x Wᵀ + b)), (B, X) → (B, Y)."""
    if training and probability and inputs_BX.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
        out_BY: Tensor = DroppedLayer.apply(inputs_BX, linear.weight, linear.bias, probability)  # type: ignore[no-untyped-call]
        return out_BY
    return drop(F.relu(linear(inputs_BX)), probability, training)


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
            assert isinstance(linear, nn.Linear)
            inputs_BX = dropped_layer(linear, inputs_BX, self.dropout, self.training)
        return inputs_BX
