"""FM: factorization machine (Rendle, ICDM 2010). With no attributes it is matrix factorization with biases."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from tandemrec.conventional.rating.predictor import InteractionConfig, InteractionPredictor


def pair_products(vectors_BFD: Tensor) -> Tensor:
    """Σ_{i<j} e_i ⊙ e_j = ½ ((Σ e)² − Σ e²), (B, D): all pairs in linear time (lemma 3.1 of the FM paper)."""
    return (vectors_BFD.sum(1).square() - vectors_BFD.square().sum(1)) / 2


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
