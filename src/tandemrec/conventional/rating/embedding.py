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
    """Vectors (B, F, D), summed linear weights (B,) and penalty Σ_bf s_bf (λ ‖v_bf‖² + λ' w_bf²) of the fields' rows.

    Written out because its parts are small: a step of differentiation each, and copies of the rows between them, would
    cost more than the arithmetic. The gradient touches the rows of the batch alone.
    """

    @staticmethod
    def forward(
        ctx: Any,
        table_NE: Tensor,
        members: Members,
        widths: Sequence[int],
        rates: tuple[float, float],
        share_BF: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The table's last column are linear weights; `rates` are λ and λ', `share_BF` are s, or 1."""
        rows_BFE = field_rows(table_NE, members, widths)
        vectors_BFD, weights_BF = rows_BFE[..., :-1].contiguous(), rows_BFE[..., -1]
        penalty = table_NE.new_zeros(())
        for rate, part in zip(rates, (vectors_BFD, weights_BF), strict=True):
            if rate:  # `dot` stays in full precision where products of matrices do not
                penalty += rate * torch.dot(part.flatten(), _paid(part, share_BF).flatten())
        ctx.save_for_backward(vectors_BFD, weights_BF, *members, share_BF)
        ctx.widths, ctx.rates, ctx.height = widths, rates, len(table_NE)
        return vectors_BFD, weights_BF.sum(1), penalty

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        """By the table."""
        by_vectors_BFD, by_linear_B, by_penalty = gradients
        vectors_BFD, weights_BF, ids_BK, inverse_BG, share_BF = ctx.saved_tensors
        rate, linear_rate = ctx.rates
        by_row_BFE = vectors_BFD.new_empty(*weights_BF.shape, vectors_BFD.shape[-1] + 1)
        paid_BFD = _paid(vectors_BFD, share_BF)
        torch.addcmul(by_vectors_BFD, paid_BFD, by_penalty, value=2 * rate, out=by_row_BFE[..., :-1])
        paid_BF = _paid(weights_BF, share_BF)
        torch.addcmul(by_linear_B[:, None], paid_BF, by_penalty, value=2 * linear_rate, out=by_row_BFE[..., -1])
        by_member_BKE = _spread(by_row_BFE, ids_BK.shape[1], inverse_BG, ctx.widths)
        by_table_NE = by_row_BFE.new_zeros(ctx.height, by_row_BFE.shape[-1])
        by_table_NE.index_add_(0, ids_BK.flatten(), by_member_BKE.flatten(0, 1))
        by_table_NE[0] = 0
        return by_table_NE, None, None, None, None


def _paid(part: Tensor, share_BF: Tensor | None) -> Tensor:
    """Vectors or linear weights of the fields, (B, F, …), times the weights of their penalty."""
    if share_BF is None:
        return part
    return part * (share_BF[..., None] if part.dim() > 2 else share_BF)


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
    table_NE: Tensor,
    members: Members,
    widths: Sequence[int],
    rates: tuple[float, float],
    share_BF: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`FieldVectors`, typed."""
    vectors_BFD, linear_B, penalty = FieldVectors.apply(table_NE, members, widths, rates, share_BF)  # type: ignore[no-untyped-call]
    return vectors_BFD, linear_B, penalty
