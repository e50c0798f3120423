"""Vectors, linear weights and penalty of a batch, from one fused table, as one step of differentiation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Members(NamedTuple):
    """Which rows of the table B pairs use.

    Attributes:
        ids_BK: the fields with one value, then the places of every set one after the other, padded with row 0.
        inverse_BG: 1 / members of each of the G sets.
    """

    ids_BK: Tensor
    inverse_BG: Tensor


def field_rows(table_NE: Tensor, members: Members, widths: Sequence[int]) -> Tensor:
    """Rows of B pairs (B, F, E): one a single-valued field, the mean of its members a set. `widths` are the places of
    the sets; row 0 of the table is zero.
    """
    ids_BK, inverse_BG = members
    rows_BKE = table_NE.index_select(0, ids_BK.flatten()).view(*ids_BK.shape, -1)
    if not widths:
        return rows_BKE
    at = ids_BK.shape[1] - sum(widths)
    parts = [rows_BKE[:, :at]]
    for place, width in enumerate(widths):
        parts.append((rows_BKE[:, at : at + width].sum(1) * inverse_BG[:, place, None])[:, None])
        at += width
    return torch.cat(parts, 1)


class FieldVectors(torch.autograd.Function):
    """Vectors (B, F, D), summed linear weights (B,) and penalty Σ_bf s_bf Σ_e λ_e row² of the fields' rows.

    Written out because its parts are small: a step of differentiation each, and copies of the rows between them, would
    cost more than the arithmetic. The gradient touches the rows of the batch alone.
    """

    @staticmethod
    def forward(
        ctx: Any, table_NE: Tensor, members: Members, widths: Sequence[int], rate_E: Tensor, share_BF: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The table's last column are linear weights; `rate_E` are the penalties λ, `share_BF` their weights s or 1."""
        rows_BFE = field_rows(table_NE, members, widths)
        squares_BFE = rows_BFE.square() if share_BF is None else rows_BFE.square().mul_(share_BF[..., None])
        # Sums, no product of matrices: those would be of half precision where the rest of a step is.
        penalty = (squares_BFE.sum((0, 1)) * rate_E).sum()
        ctx.save_for_backward(rows_BFE, *members, rate_E, share_BF)
        ctx.widths, ctx.height = widths, len(table_NE)
        return rows_BFE[..., :-1].contiguous(), rows_BFE[..., -1].sum(1), penalty

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        """By the table."""
        vectors_BFD, linear_B, penalty = gradients
        rows_BFE, ids_BK, inverse_BG, rate_E, share_BF = ctx.saved_tensors
        by_row_BFE = torch.empty_like(rows_BFE)
        by_row_BFE[..., :-1] = vectors_BFD
        by_row_BFE[..., -1] = linear_B[:, None]
        paid_BFE = rows_BFE if share_BF is None else rows_BFE * share_BF[..., None]
        by_row_BFE.addcmul_(paid_BFE, 2 * penalty * rate_E)
        by_member_BKE = _spread(by_row_BFE, ids_BK.shape[1], inverse_BG, ctx.widths)
        by_table_NE = rows_BFE.new_zeros(ctx.height, rows_BFE.shape[-1])
        by_table_NE.index_add_(0, ids_BK.flatten(), by_member_BKE.flatten(0, 1))
        by_table_NE[0] = 0
        return by_table_NE, None, None, None, None


def _spread(by_row_BFE: Tensor, places: int, inverse_BG: Tensor, widths: Sequence[int]) -> Tensor:
    """Gradients of the members of every field, (B, K, E)."""
    if not widths:
        return by_row_BFE
    by_member_BKE = by_row_BFE.new_empty(len(by_row_BFE), places, by_row_BFE.shape[-1])
    single = at = places - sum(widths)
    by_member_BKE[:, :at] = by_row_BFE[:, :at]
    for place, width in enumerate(widths):
        by_member_BKE[:, at : at + width] = (by_row_BFE[:, single + place] * inverse_BG[:, place, None])[:, None]
        at += width
    return by_member_BKE


def field_vectors(
    table_NE: Tensor, members: Members, widths: Sequence[int], rate_E: Tensor, share_BF: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """`FieldVectors`, typed."""
    vectors_BFD, linear_B, penalty = FieldVectors.apply(table_NE, members, widths, rate_E, share_BF)  # type: ignore[no-untyped-call]
    return vectors_BFD, linear_B, penalty
