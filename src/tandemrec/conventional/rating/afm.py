"""AFM: attentional factorization machine (Xiao et al., IJCAI 2017)."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from tandemrec.conventional.rating.predictor import InteractionConfig, InteractionPredictor
from tandemrec.training.dropout import drop


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


class Pairs(torch.autograd.Function):
    """e_i ⊙ e_j of all pairs i < j. A field's products with all later ones are one product, and so are their slopes;
    picking both factors of every pair would copy them, and add up their gradients one by one.
    """

    @staticmethod
    def forward(ctx: Any, vectors_DFB: Tensor) -> Tensor:
        """(D, F, B) → (D, P, B), pairs in the order 01, 02, …, 12, …"""
        ctx.save_for_backward(vectors_DFB)
        parts = [vectors_DFB[:, i, None] * vectors_DFB[:, i + 1 :] for i in range(vectors_DFB.shape[1] - 1)]
        return torch.cat(parts, 1)

    @staticmethod
    def backward(ctx: Any, gradient_DPB: Tensor) -> Tensor:
        """By the vectors."""
        (vectors_DFB,) = ctx.saved_tensors
        slope_DFB, at = torch.zeros_like(vectors_DFB), 0
        for i in range(vectors_DFB.shape[1] - 1):
            later = vectors_DFB[:, i + 1 :]
            part = gradient_DPB[:, at : at + later.shape[1]]
            slope_DFB[:, i] += (part * later).sum(1)
            slope_DFB[:, i + 1 :].addcmul_(part, vectors_DFB[:, i, None])
            at += later.shape[1]
        return slope_DFB


class AFMInteractions(nn.Module):
    """pᵀ Σ_{i<j} a_ij (e_i ⊙ e_j), a = softmax over pairs of hᵀ ReLU(W (e_i ⊙ e_j) + b) (eq. 4–6)."""

    def __init__(self, fields: int, config: AFMConfig) -> None:
        super().__init__()
        self.attention = nn.Linear(config.dim, config.attention_dim)
        self.score = nn.Linear(config.attention_dim, 1, bias=False)
        self.dropout = config.dropout
        # A mean over P pairs times P is the plain sum: with even attention the model starts as FM.
        self.out = nn.Parameter(torch.full((config.dim,), fields * (fields - 1) / 2))

    def forward(self, vectors_BFD: Tensor) -> Tensor:
        """(B, F, D) → (B,). Inside the batch is the innermost axis: fields and vectors are small, batches long."""
        products_DPB: Tensor = Pairs.apply(vectors_BFD.permute(2, 1, 0).contiguous())  # type: ignore[no-untyped-call]
        flat = products_DPB.flatten(1)
        hidden = F.relu(torch.addmm(self.attention.bias[:, None], self.attention.weight, flat))
        weight_PB = (self.score.weight @ hidden).view(products_DPB.shape[1:]).softmax(0)
        pooled_BD = (weight_PB * products_DPB).sum(1).T.contiguous()
        return drop(pooled_BD, self.dropout, self.training) @ self.out


class AFM(InteractionPredictor):
    """ŷ = b + Σ w_f + pᵀ Σ_{i<j} a_ij (e_i ⊙ e_j)."""

    config_class = AFMConfig
