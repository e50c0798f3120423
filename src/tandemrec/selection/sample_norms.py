"""Norms of per-sample gradients from one backward pass for a whole batch.

A linear map z_t = W a_t + b has the per-sample gradients Σ_t δ_t a_tᵀ and Σ_t δ_t, δ_t = ∂L/∂z_t. Their squared norms
are formed from a and δ without a backward pass, or a copy of the network, for every sample.
"""

from __future__ import annotations

import torch
from torch import Tensor

GHOST_COST = 2
"""A multiplication inside the small batched products of ghost norms takes about so much longer."""


def weight_square_norms(input_BTI: Tensor, slope_BTO: Tensor) -> Tensor:
    """‖Σ_t δ_t a_tᵀ‖² of every sample, (B,).

    Short sequences go by inner products of their positions (ghost norms, Σ_{t,t'} (δ_t·δ_t')(a_t·a_t')), which never
    form the gradient; long ones form it, I × O numbers a sample.
    """
    length, into, out = input_BTI.shape[1], input_BTI.shape[2], slope_BTO.shape[2]
    if GHOST_COST * length * (into + out) < into * out:
        alike = (input_BTI @ input_BTI.mT) * (slope_BTO @ slope_BTO.mT)
        return alike.flatten(1).sum(1)
    return (slope_BTO.mT @ input_BTI).square().flatten(1).sum(1)


def vector_square_norms(slope_BTD: Tensor) -> Tensor:
    """‖Σ_t δ_t‖² of every sample, (B,): the gradient of a bias."""
    return slope_BTD.sum(1).square().sum(1)


def row_square_norms(sample_M: Tensor, row_M: Tensor, slope_MD: Tensor, n_samples: int, n_rows: int) -> Tensor:
    """Squared norms (B,) of the gradients of a table of which sample `sample_M[m]` uses row `row_M[m]` with slope m.

    Slopes of one sample that meet in one row are added before they are squared.
    """
    key, place = torch.unique(sample_M * n_rows + row_M, return_inverse=True)
    added = slope_MD.new_zeros(len(key), slope_MD.shape[1]).index_add(0, place, slope_MD)
    total = slope_MD.new_zeros(n_samples)
    return total.index_add(0, key // n_rows, added.square().sum(1))
