"""AutoInt: self-attention over fields (Song et al., CIKM 2019), optionally with a deep part (AutoInt+)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from tandemrec.conventional.rating.deep import Deep, Widths
from tandemrec.conventional.rating.predictor import InteractionConfig, InteractionPredictor


class AutoIntConfig(InteractionConfig):
    """Attention layers keep the size of the vectors; a head has D / heads of it."""

    model: Literal["autoint"] = "autoint"
    """Which model this is."""

    attention_layers: int = Field(3, ge=1)
    """Number of attention layers."""

    heads: int = Field(2, ge=1)
    """Heads of a layer; they divide `dim`."""

    layers: Widths = (128, 64)
    """Widths of the deep part of AutoInt+; empty: AutoInt itself."""

    dropout: float = Field(0.3, ge=0, lt=1)
    """Of the deep part."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"heads must divide dim, found {self.heads} heads and dim {self.dim}")
        return self

    def interactions(self, fields: int) -> nn.Module:
        """Attention over fields beside the deep part."""
        return AutoIntInteractions(fields, self)


class FieldMixing(torch.autograd.Function):
    """Σ_k α_mk v_k with α_m = softmax_k ⟨q_m, k_k⟩.

    Fields are few and heads narrow: with the batch as innermost axis plain products beat tiny matrix products. Written
    out because autograd would keep the products, and add up slopes of either factor in whichever order comes first.
    """

    @staticmethod
    def forward(ctx: Any, query_HXFB: Tensor, key_HXFB: Tensor, value_HXFB: Tensor) -> Tensor:
        """(H, X, F, B) each → (H, X, F, B)."""
        weight_HFFB = _inner(query_HXFB, key_HXFB).softmax(2)
        ctx.save_for_backward(query_HXFB, key_HXFB, value_HXFB, weight_HFFB)
        return _mixed(weight_HFFB, value_HXFB)

    @staticmethod
    def backward(ctx: Any, gradient_HXFB: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """By query, key and value."""
        query_HXFB, key_HXFB, value_HXFB, weight_HFFB = ctx.saved_tensors
        by_weight_HFFB = _inner(gradient_HXFB, value_HXFB).mul_(weight_HFFB)
        by_score_HFFB = by_weight_HFFB.addcmul_(weight_HFFB, by_weight_HFFB.sum(2, keepdim=True), value=-1)
        by_key = _mixed(by_score_HFFB.transpose(1, 2), query_HXFB)
        by_value = _mixed(weight_HFFB.transpose(1, 2), gradient_HXFB)
        return _mixed(by_score_HFFB, key_HXFB), by_key, by_value


def _inner(left_HXFB: Tensor, right_HXFB: Tensor) -> Tensor:
    """Σ_x l_hxm r_hxk, (H, F, F, B)."""
    return _added(left_HXFB[:, :, :, None].unbind(1), right_HXFB[:, :, None].unbind(1))


def _mixed(weight_HFFB: Tensor, value_HXFB: Tensor) -> Tensor:
    """Σ_k w_hmk v_hxk, (H, X, F, B)."""
    return _added(weight_HFFB[:, None].unbind(3), value_HXFB[:, :, None].unbind(3))


def _added(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Sum of products, one after the other: nothing larger than the sum is ever made."""
    total = left[0] * right[0]
    for one, other in zip(left[1:], right[1:], strict=True):
        total.addcmul_(one, other)
    return total


class FieldAttention(nn.Module):
    """ReLU(concat_h Σ_k α^h_mk W_V^h e_k + W_Res e_m), α^h_m = softmax_k ⟨W_Q^h e_m, W_K^h e_k⟩ (eq. 5–8).

    Scores are not scaled by √D, as in the paper.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.maps = nn.Parameter(torch.empty(4, dim, dim))
        """W_Q, W_K, W_V, W_Res, each (D, D), the heads side by side in its columns."""
        nn.init.normal_(self.maps, std=0.05)

    def forward(self, vectors_DFB: Tensor) -> Tensor:
        """(D, F, B) → (D, F, B), in full precision."""
        with torch.autocast(vectors_DFB.device.type, enabled=False):
            mapped = self.maps.transpose(1, 2).flatten(0, 1) @ vectors_DFB.flatten(1)
            *three, residual_DFB = mapped.view(4, *vectors_DFB.shape)
            mixed_HXFB = FieldMixing.apply(*(part.unflatten(0, (self.heads, -1)) for part in three))  # type: ignore[no-untyped-call]
            return F.relu(mixed_HXFB.flatten(0, 1) + residual_DFB)


class AutoIntInteractions(nn.Module):
    """wᵀ [e_1^Res … e_F^Res ; DNN(e_1 … e_F)] (eq. 9, and AutoInt+'s deep part)."""

    def __init__(self, fields: int, config: AutoIntConfig) -> None:
        super().__init__()
        width = fields * config.dim
        self.attention = nn.Sequential(
            *(FieldAttention(config.dim, config.heads) for _ in range(config.attention_layers))
        )
        self.deep = Deep(width, config.layers, config.dropout) if config.layers else None
        self.out = nn.Linear(width + (self.deep.width if self.deep else 0), 1, bias=False)

    def forward(self, vectors_BFD: Tensor) -> Tensor:
        """(B, F, D) → (B,)."""
        attended_DFB = self.attention(vectors_BFD.permute(2, 1, 0).contiguous())
        parts = [attended_DFB.permute(2, 1, 0).flatten(1)]
        if self.deep is not None:
            parts.append(self.deep(vectors_BFD.flatten(1)))
        predicted: Tensor = self.out(torch.cat(parts, 1))[:, 0]
        return predicted


class AutoInt(InteractionPredictor):
    """ŷ = b + Σ w_f + wᵀ [attention(e_1 … e_F) ; DNN(e_1 … e_F)]."""

    config_class = AutoIntConfig
