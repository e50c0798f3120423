"""DeepFM: a factorization machine and a feed-forward net over the same vectors (Guo et al., IJCAI 2017)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from tandemrec.conventional.rating.deep import Deep, Widths
from tandemrec.conventional.rating.fm import pair_products
from tandemrec.conventional.rating.predictor import InteractionConfig, InteractionPredictor


class DeepFMConfig(InteractionConfig):
    """The paper's net has three layers of 400; ratings of public sets want a smaller one."""

    model: Literal["deepfm"] = "deepfm"
    """Which model this is."""

    layers: Widths = (128, 64)
    """Widths of the deep part."""

    dropout: float = Field(0.3, ge=0, lt=1)
    """Of the deep part."""

    def interactions(self, fields: int) -> nn.Module:
        """FM plus deep part."""
        return DeepFMInteractions(fields, self)


class DeepFMInteractions(nn.Module):
    """y_FM + y_DNN (eq. 1): pairwise products (eq. 2) and a net over the concatenated vectors (eq. 3, 4)."""

    def __init__(self, fields: int, config: DeepFMConfig) -> None:
        super().__init__()
        self.deep = Deep(fields * config.dim, config.layers, config.dropout)
        self.out = nn.Linear(self.deep.width, 1, bias=False)

    def forward(self, vectors_BFD: Tensor) -> Tensor:
        """(B, F, D) → (B,)."""
        deep: Tensor = self.out(self.deep(vectors_BFD.flatten(1)))[:, 0]
        return pair_products(vectors_BFD).sum(1) + deep


class DeepFM(InteractionPredictor):
    """ŷ = b + Σ w_f + Σ_{i<j} ⟨e_i, e_j⟩ + DNN(e_1 … e_F)."""

    config_class = DeepFMConfig
