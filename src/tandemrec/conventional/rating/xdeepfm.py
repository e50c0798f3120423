"""xDeepFM: the compressed interaction network beside a deep part (Lian et al., KDD 2018)."""

from __future__ import annotations

from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from tandemrec.conventional.rating.deep import Deep
from tandemrec.conventional.rating.predictor import InteractionConfig, InteractionPredictor


class XDeepFMConfig(InteractionConfig):
    """The interaction network costs most of the time: its widths matter more than those of the deep part."""

    model: Literal["xdeepfm"] = "xdeepfm"
    """Which model this is."""

    cin_layers: tuple[int, ...] = Field((64, 32), min_length=1)
    """Feature maps H_k of every layer of the compressed interaction network."""

    split_half: bool = True
    """Half of every layer but the last goes on and half is pooled, as in the authors' code; false: all go both ways."""

    layers: tuple[int, ...] = (128, 64)
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


class CompressedInteraction(nn.Module):
    """X^k_h = ReLU(Σ_ij W^{k,h}_ij (X^{k−1}_i ⊙ X^0_j) + b_h) (eq. 6), each map then summed over D (eq. 7).

    The paper's activation is the identity; the authors' code and libraries use ReLU, as here.
    """

    def __init__(self, fields: int, layers: tuple[int, ...], split_half: bool) -> None:
        super().__init__()
        self.pass_on = [size // 2 if split_half else size for size in layers[:-1]]
        inputs = [fields, *self.pass_on]
        self.maps = nn.ModuleList([nn.Linear(n * fields, size) for n, size in zip(inputs, layers, strict=True)])
        pooled = [size // 2 if split_half else size for size in layers[:-1]]
        self.split_half, self.width = split_half, sum(pooled) + layers[-1]

    def forward(self, vectors_BFD: Tensor) -> Tensor:
        """(B, F, D) → (B, width). Vectors are handled as (B, D, F), so that a layer is one matrix product."""
        first_BDF = vectors_BFD.transpose(1, 2).contiguous()
        hidden_BDH, pooled = first_BDF, []
        for place, linear in enumerate(self.maps):
            outer = (hidden_BDH[..., :, None] * first_BDF[..., None, :]).flatten(-2)
            out_BDH = F.relu(linear(outer))
            if place < len(self.pass_on) and self.split_half:
                hidden_BDH, kept = out_BDH[..., : self.pass_on[place]], out_BDH[..., self.pass_on[place] :]
            else:
                hidden_BDH = kept = out_BDH
            pooled.append(kept.sum(1))
        return torch.cat(pooled, 1)


class XDeepFMInteractions(nn.Module):
    """Linear maps of the pooled feature maps and of the deep part, added."""

    def __init__(self, fields: int, config: XDeepFMConfig) -> None:
        super().__init__()
        self.cin = CompressedInteraction(fields, config.cin_layers, config.split_half)
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
