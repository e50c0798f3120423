"""DCN: deep and cross network (Wang et al., ADKDD 2017), and the cross layers of its second version (WWW 2021)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from tandemrec.conventional.rating.deep import Deep, Widths
from tandemrec.conventional.rating.predictor import InteractionConfig, InteractionPredictor


class DCNConfig(InteractionConfig):
    """Cross layers and a deep part side by side."""

    model: Literal["dcn"] = "dcn"
    """Which model this is."""

    cross: Literal["vector", "matrix"] = "vector"
    """`vector`: a weight vector a layer (2017); `matrix`: a weight matrix (DCN-V2)."""

    cross_layers: int = Field(2, ge=1)
    """Number of cross layers."""

    layers: Widths = (128, 64)
    """Widths of the deep part; empty: cross layers alone."""

    dropout: float = Field(0.3, ge=0, lt=1)
    """Of the deep part."""

    def interactions(self, fields: int) -> nn.Module:
        """Cross layers beside the deep part."""
        return DCNInteractions(fields, self)


class VectorCrosses(nn.Module):
    """x_{l+1} = x_0 (x_lᵀ w_l) + b_l + x_l (eq. 3 of DCN), all L layers at once.

    Every x_l is α_l x_0 + β_l, with a number α_l for each example and one vector β_l for all: α_{l+1} = α_l + x_lᵀ w_l
    and β_{l+1} = β_l + b_l. So the products of x_0 with the weights are all that has to be computed.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(layers, width))
        nn.init.normal_(self.weight, std=width**-0.5)
        self.bias = nn.Parameter(torch.zeros(layers, width))

    def forward(self, first_BX: Tensor, out_X: Tensor) -> Tensor:
        """x_0 (B, X) and w → wᵀ x_L (B,)."""
        rows_RX = torch.cat([self.weight, out_X[None]])  # w_0 … w_{L−1} and w
        beta_RX = torch.cat([torch.zeros_like(out_X)[None], self.bias.cumsum(0)])
        *products, last_B = (first_BX @ rows_RX.T).unbind(1)  # x_0ᵀ w_l
        *constants, last = (beta_RX * rows_RX).sum(1).unbind()  # β_lᵀ w_l
        alpha_B = torch.ones_like(last_B)
        for product_B, constant in zip(products, constants, strict=True):
            alpha_B = torch.addcmul(alpha_B + constant, alpha_B, product_B)
        return torch.addcmul(last, alpha_B, last_B)


class MatrixCrosses(nn.Module):
    """x_{l+1} = x_0 ⊙ (W_l x_l + b_l) + x_l (eq. 1 of DCN-V2)."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList([nn.Linear(width, width) for _ in range(layers)])

    def forward(self, first_BX: Tensor, out_X: Tensor) -> Tensor:
        """x_0 (B, X) and w → wᵀ x_L (B,)."""
        crossed_BX = first_BX
        for linear in self.maps:
            crossed_BX = torch.addcmul(crossed_BX, first_BX, linear(crossed_BX))
        return crossed_BX @ out_X


class DCNInteractions(nn.Module):
    """wᵀ [x_L ; h_L] over the cross layers' output x_L and the deep part's h_L (eq. 5 of DCN)."""

    def __init__(self, fields: int, config: DCNConfig) -> None:
        super().__init__()
        self.width = fields * config.dim
        kind = VectorCrosses if config.cross == "vector" else MatrixCrosses
        self.crosses = kind(self.width, config.cross_layers)
        self.deep = Deep(self.width, config.layers, config.dropout) if config.layers else None
        self.out = nn.Linear(self.width + (self.deep.width if self.deep else 0), 1, bias=False)

    def forward(self, vectors_BFD: Tensor) -> Tensor:
        """(B, F, D) → (B,)."""
        first_BX, out_X = vectors_BFD.flatten(1), self.out.weight[0]
        predicted: Tensor = self.crosses(first_BX, out_X[: self.width])
        return predicted if self.deep is None else predicted + self.deep(first_BX) @ out_X[self.width :]


class DCN(InteractionPredictor):
    """ŷ = b + Σ w_f + wᵀ [cross(e_1 … e_F) ; DNN(e_1 … e_F)]."""

    config_class = DCNConfig
