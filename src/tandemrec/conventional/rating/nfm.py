"""NFM: neural factorization machine (He and Chua, SIGIR 2017)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from tandemrec.conventional.rating.deep import Deep, Widths
from tandemrec.conventional.rating.fm import pair_products
from tandemrec.conventional.rating.predictor import InteractionConfig, InteractionPredictor
from tandemrec.training.dropout import drop


class NFMConfig(InteractionConfig):
    """Without layers it is FM with a weight for every dimension, as the paper notes."""

    model: Literal["nfm"] = "nfm"
    """Which model this is."""

    layers: Widths = (128, 64)
    """Widths of the hidden layers."""

    dropout: float = Field(0.3, ge=0, lt=1)
    """Of the hidden layers."""

    pooling_dropout: float = Field(0.0, ge=0, lt=1)
    """Of the pooled products, the paper's main regulariser."""

    def interactions(self, fields: int) -> nn.Module:
        """Pooled products and hidden layers."""
        return NFMInteractions(self)


class NFMInteractions(nn.Module):
    """hᵀ σ(W_L … σ(W_1 f_BI + b_1) …) with f_BI = Σ_{i<j} e_i ⊙ e_j (eq. 3–6)."""

    def __init__(self, config: NFMConfig) -> None:
        super().__init__()
        self.dropout = config.pooling_dropout
        self.deep = Deep(config.dim, config.layers, config.dropout)
        self.out = nn.Linear(self.deep.width, 1, bias=False)

    def forward(self, vectors_BFD: Tensor) -> Tensor:
        """(B, F, D) → (B,)."""
        pooled_BD = drop(pair_products(vectors_BFD), self.dropout, self.training)
        predicted: Tensor = self.out(self.deep(pooled_BD))[:, 0]
        return predicted


class NFM(InteractionPredictor):
    """ŷ = b + Σ w_f + hᵀ DNN(Σ_{i<j} e_i ⊙ e_j)."""

    config_class = NFMConfig
