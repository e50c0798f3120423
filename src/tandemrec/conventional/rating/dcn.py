"""DCN: deep and cross network (Wang et al., ADKDD 2017), and the cross layers of its second version (WWW 2021)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from tandemrec.conventional.rating.deep import Deep
from tandemrec.conventional.rating.predictor import InteractionConfig, InteractionPredictor


class DCNConfig(InteractionConfig):
    """Cross layers and a deep part side by side."""

    model: Literal["dcn"] = "dcn"
    """Which model this is."""

    cross: Literal["vector", "matrix"] = "vector"
    """`vector`: a weight vector a layer (2017); `matrix`: a weight matrix (DCN-V2)."""

    cross_layers: int = Field(2, ge=1)
    """Number of cross layers."""

    layers: tuple[int, ...] = (128, 64)
    """Widths of the deep part; empty: cross layers alone."""

    dropout: float = Field(0.3, ge=0, lt=1)
    """Of the deep part."""

    def interactions(self, fields: int) -> nn.Module:
        """Cross layers beside the deep part."""
        return DCNInteractions(fields, self)


class VectorCross(nn.Module):
    """x_{l+1} = x_0 (x_lᵀ w_l) + b_l + x_l (eq. 3 of DCN)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        nn.init.normal_(self.weight, std=width**-0.5)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, first_BX: Tensor, inputs_BX: Tensor) -> Tensor:
        """x_0 and x_l → x_{l+1}, (B, X) each."""
        return torch.addcmul(inputs_BX + self.bias, first_BX, (inputs_BX @ self.weight)[:, None])


class MatrixCross(nn.Module):
    """x_{l+1} = x_0 ⊙ (W_l x_l + b_l) + x_l (eq. 1 of DCN-V2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, width)

    def forward(self, first_BX: Tensor, inputs_BX: Tensor) -> Tensor:
        """x_0 and x_l → x_{l+1}, (B, X) each."""
        return torch.addcmul(inputs_BX, first_BX, self.map(inputs_BX))


class DCNInteractions(nn.Module):
    """wᵀ [x_L ; h_L] over the cross layers' output x_L and the deep part's h_L (eq. 5 of DCN)."""

    def __init__(self, fields: int, config: DCNConfig) -> None:
        super().__init__()
        width = fields * config.dim
        kind = VectorCross if config.cross == "vector" else MatrixCross
        self.crosses = nn.ModuleList([kind(width) for _ in range(config.cross_layers)])
        self.deep = Deep(width, config.layers, config.dropout) if config.layers else None
        self.out = nn.Linear(width + (self.deep.width if self.deep else 0), 1, bias=False)

    def forward(self, vectors_BFD: Tensor) -> Tensor:
        """(B, F, D) → (B,)."""
        first_BX = vectors_BFD.flatten(1)
        crossed_BX = first_BX
        for cross in self.crosses:
            crossed_BX = cross(first_BX, crossed_BX)
        both = crossed_BX if self.deep is None else torch.cat([crossed_BX, self.deep(first_BX)], 1)
        predicted: Tensor = self.out(both)[:, 0]
        return predicted


class DCN(InteractionPredictor):
    """ŷ = b + Σ w_f + wᵀ [cross(e_1 … e_F) ; DNN(e_1 … e_F)]."""

    config_class = DCNConfig
