"""FM: factorization machine (Rendle, ICDM 2010). With no attributes it is matrix factorization with biases."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from tandemrec.conventional.rating.predictor import InteractionConfig, InteractionPredictor


class PairProducts(torch.autograd.Function):
    """Σ_{i<j} e_i ⊙ e_j = ½ ((Σ e)² − Σ e²): all pairs in linear time (lemma 3.1 of the FM paper).

    Its slope by e_i is what stands beside it, Σ_{j≠i} e_j.
    """

    @staticmethod
    def forward(ctx: Any, vectors_BFD: Tensor) -> Tensor:
        """(B, F, D) → (B, D)."""
        total_BD = vectors_BFD.sum(1)
        ctx.save_for_backward(vectors_BFD, total_BD)
        return total_BD.square().sub_(vectors_BFD.square().sum(1)).div_(2)

    @staticmethod
    def backward(ctx: Any, gradient_BD: Tensor) -> Tensor:
        """By the vectors."""
        vectors_BFD, total_BD = ctx.saved_tensors
        slope: Tensor = (total_BD[:, None] - vectors_BFD).mul_(gradient_BD[:, None])
        return slope


def pair_products(vectors_BFD: Tensor) -> Tensor:
    """Σ_{i<j} e_i ⊙ e_j, (B, F, D) → (B, D)."""
    products_BD: Tensor = PairProducts.apply(vectors_BFD)  # type: ignore[no-untyped-call]
    return products_BD


class FMConfig(InteractionConfig):
    """Defaults as for the other models."""

    model: Literal["fm"] = "fm"
    """Which model this is."""

    def interactions(self, fields: int) -> nn.Module:
        """Σ_{i<j} ⟨e_i, e_j⟩."""
        return PairSum()


class PairSum(nn.Module):
    """Σ_{i<j} ⟨e_i, e_j⟩, the last term of eq. 1 of the FM paper."""

    def forward(self, vectors_BFD: Tensor) -> Tensor:
        """(B, F, D) → (B,)."""
        return pair_products(vectors_BFD).sum(1)


class FM(InteractionPredictor):
    """ŷ = b + Σ w_f + Σ_{i<j} ⟨e_i, e_j⟩."""

    config_class = FMConfig
