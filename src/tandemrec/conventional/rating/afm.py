"""AFM: attentional factorization machine (Xiao et al., IJCAI 2017)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from tandemrec.conventional.rating.deep import drop
from tandemrec.conventional.rating.predictor import InteractionConfig, InteractionPredictor


class AFMConfig(InteractionConfig):
    """A weighted sum of all pair products; no deep part."""

    model: Literal["afm"] = "afm"
    """Which model this is."""

    attention_dim: int = Field(8, ge=1)
    """Size of the attention net's hidden layer."""

    dropout: float = Field(0.2, ge=0, lt=1)
    """Of the pooled products."""

    def interactions(self, fields: int) -> nn.Module:
        """Attention over pairs."""
        return AFMInteractions(fields, self)


class AFMInteractions(nn.Module):
    """pᵀ Σ_{i<j} a_ij (e_i ⊙ e_j), a = softmax over pairs of hᵀ ReLU(W (e_i ⊙ e_j) + b) (eq. 4–6)."""

    first: Tensor
    second: Tensor

    def __init__(self, fields: int, config: AFMConfig) -> None:
        super().__init__()
        first, second = torch.triu_indices(fields, fields, 1)
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("second", second, persistent=False)
        self.attention = nn.Linear(config.dim, config.attention_dim)
        self.score = nn.Linear(config.attention_dim, 1, bias=False)
        self.dropout = config.dropout
        # A mean over P pairs times P is the plain sum: with even attention the model starts as FM.
        self.out = nn.Parameter(torch.full((config.dim,), float(len(first))))

    def forward(self, vectors_BFD: Tensor) -> Tensor:
        """(B, F, D) → (B,)."""
        products_BPD = vectors_BFD[:, self.first] * vectors_BFD[:, self.second]
        weight_BP1 = self.score(F.relu(self.attention(products_BPD))).softmax(1)
        pooled_BD = (weight_BP1 * products_BPD).sum(1)
        return drop(pooled_BD, self.dropout, self.training) @ self.out


class AFM(InteractionPredictor):
    """ŷ = b + Σ w_f + pᵀ Σ_{i<j} a_ij (e_i ⊙ e_j)."""

    config_class = AFMConfig
