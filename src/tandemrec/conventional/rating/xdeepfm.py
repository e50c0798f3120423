"""xDeepFM: the compressed interaction network beside a deep part (Lian et al., KDD 2018)."""

from __future__ import annotations

from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from tandemrec.conventional.rating.deep import Deep, Widths
from tandemrec.conventional.rating.predictor import InteractionConfig, InteractionPredictor

COLUMNS = 1024
"""Columns of a block on a CPU."""


class XDeepFMConfig(InteractionConfig):
    """The interaction network costs most of the time: its widths matter more than those of the deep part."""

    model: Literal["xdeepfm"] = "xdeepfm"
    """Which model this is."""

    cin_layers: Widths = Field((64, 32), min_length=1)
    """Feature maps H_k of every layer of the compressed interaction network."""

    cin_activation: Literal["relu", "identity"] = "relu"
    """Of the feature maps: that of the authors' code and of libraries, or the paper's, which is none."""

    split_half: bool = True
    """Half of every layer but the last goes on and half is pooled, as in the authors' code; false: all go both ways."""

    layers: Widths = (128, 64)
    """Widths of the deep part; empty: none."""

    dropout: float = Field(0.3, ge=0, lt=1)
    """Of the deep part."""

    @model_validator(mode="after")
    def _halves(self) -> Self:
        odd = [size for size in self.cin_layers[:-1] if size % 2]
        if self.split_half and odd:
            raise ValueError(f"split_half needs even cin_layers, found {odd[0]}")
        return self

    def interactions(self, fields: int) -> nn.Module:
        """Compressed interaction network beside the deep part."""
        return XDeepFMInteractions(fields, self)


class CompressedLayer(torch.autograd.Function):
    """Σ_ij W_hij (x_i ⊙ y_j) + b_h, columns in blocks: their outer products fit a cache, are never kept, and are made
    again for the gradients.
    """

    @staticmethod
    def forward(ctx: Any, hidden_HX: Tensor, first_FX: Tensor, weight_OK: Tensor, bias_O: Tensor) -> Tensor:
        """From x (H, X), y (F, X), W (O, H · F) and b (O,) → (O, X); X are the dimensions of all examples."""
        out_OX = hidden_HX.new_empty(len(weight_OK), hidden_HX.shape[1])
        for columns in _blocks(hidden_HX):
            outer_KX = _outer(hidden_HX[:, columns], first_FX[:, columns])
            torch.addmm(bias_O[:, None], weight_OK, outer_KX, out=out_OX[:, columns])
        ctx.save_for_backward(hidden_HX, first_FX, weight_OK)
        return out_OX

    @staticmethod
    def backward(ctx: Any, gradient_OX: Tensor) -> tuple[Tensor, ...]:
        """By x, y, W and b."""
        hidden_HX, first_FX, weight_OK = ctx.saved_tensors
        by_hidden, by_first, by_weight = (torch.zeros_like(x) for x in (hidden_HX, first_FX, weight_OK))
        for columns in _blocks(hidden_HX):
            hidden, first, gradient = (x[:, columns] for x in (hidden_HX, first_FX, gradient_OX))
            by_weight.addmm_(gradient, _outer(hidden, first).T)
            by_outer_HFX = (weight_OK.T @ gradient).view(len(hidden), len(first), -1)
            torch.sum(by_outer_HFX * first, 1, out=by_hidden[:, columns])
            torch.sum(by_outer_HFX.mul_(hidden[:, None]), 0, out=by_first[:, columns])
        return by_hidden, by_first, by_weight, gradient_OX.sum(1)


def _outer(hidden_HX: Tensor, first_FX: Tensor) -> Tensor:
    return (hidden_HX[:, None] * first_FX).flatten(0, 1)


def _blocks(inputs_HX: Tensor) -> list[slice]:
    size = COLUMNS if inputs_HX.device.type == "cpu" else inputs_HX.shape[1]
    return [slice(at, at + size) for at in range(0, inputs_HX.shape[1], max(1, size))]


class CompressedInteraction(nn.Module):
    """X^k_h = σ(Σ_ij W^{k,h}_ij (X^{k−1}_i ⊙ X^0_j) + b_h) (eq. 6), each map then summed over D (eq. 7).

    σ is the identity in the paper; in the authors' code and in libraries it is ReLU.
    """

    def __init__(self, fields: int, config: XDeepFMConfig) -> None:
        super().__init__()
        layers, split_half, self.activation = config.cin_layers, config.split_half, config.cin_activation
        self.pass_on = [size // 2 if split_half else size for size in layers[:-1]]
        inputs = [fields, *self.pass_on]
        self.maps = nn.ModuleList([nn.Linear(n * fields, size) for n, size in zip(inputs, layers, strict=True)])
        pooled = [size // 2 if split_half else size for size in layers[:-1]]
        self.split_half, self.width = split_half, sum(pooled) + layers[-1]

    def forward(self, vectors_BFD: Tensor) -> Tensor:
        """(B, F, D) → (B, width)."""
        batch, _, dim = vectors_BFD.shape
        first_FX = vectors_BFD.permute(1, 2, 0).flatten(1)
        hidden_HX, pooled = first_FX, []
        with torch.autocast(vectors_BFD.device.type, enabled=False):
            for place, linear in enumerate(self.maps):
                out_HX = CompressedLayer.apply(hidden_HX, first_FX, linear.weight, linear.bias)  # type: ignore[no-untyped-call]
                out_HX = F.relu(out_HX) if self.activation == "relu" else out_HX
                if place < len(self.pass_on) and self.split_half:
                    hidden_HX, kept = out_HX[: self.pass_on[place]], out_HX[self.pass_on[place] :]
                else:
                    hidden_HX = kept = out_HX
                pooled.append(kept.view(-1, dim, batch).sum(1))
        return torch.cat(pooled).T


class XDeepFMInteractions(nn.Module):
    """Linear maps of the pooled feature maps and of the deep part, added."""

    def __init__(self, fields: int, config: XDeepFMConfig) -> None:
        super().__init__()
        self.cin = CompressedInteraction(fields, config)
        self.deep = Deep(fields * config.dim, config.layers, config.dropout) if config.layers else None
        self.out = nn.Linear(self.cin.width + (self.deep.width if self.deep else 0), 1, bias=False)

    def forward(self, vectors_BFD: Tensor) -> Tensor:
        """(B, F, D) → (B,)."""
        parts = [self.cin(vectors_BFD)]
        if self.deep is not None:
            parts.append(self.deep(vectors_BFD.flatten(1)))
        predicted: Tensor = self.out(torch.cat(parts, 1))[:, 0]
        return predicted


class XDeepFM(InteractionPredictor):
    """ŷ = b + Σ w_f + wᵀ [CIN(e_1 … e_F) ; DNN(e_1 … e_F)]."""

    config_class = XDeepFMConfig
