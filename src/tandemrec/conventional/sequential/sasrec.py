"""SASRec: self-attentive sequential recommendation (Kang and McAuley, ICDM 2018), with modern losses."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from tandemrec.conventional.sequential.model import SequenceModel
from tandemrec.conventional.sequential.module import (
    SequenceConfig,
    SequenceModule,
    init_normal,
)


class AttentionConfig(SequenceConfig):
    """The fields of SASRec's network."""

    dropout: float = Field(0.1, ge=0, lt=1)
    """Of embeddings, attention weights and both feed-forward maps."""

    blocks: int = Field(2, ge=1)
    """Attention blocks."""

    heads: int = Field(1, ge=1)
    """Attention heads; they divide `dim`."""

    norm: Literal["original", "pre"] = "original"
    """`original`: the residual runs around the normalised query, as in the authors' code; `pre`: the usual pre-LN."""

    scale_embedding: bool = True
    """Multiply item vectors by √D at the input, as the authors' code does."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"heads must divide dim, found {self.heads} heads and dim {self.dim}")
        return self


class SASRecConfig(AttentionConfig):
    """Defaults are those behind the best public figures on MovieLens-1M; sparse data want one block and length 50.

    The paper's own: loss bce, dim 50, dropout .2 (MovieLens) or .5, length 200 or 50, two blocks, one head.
    """

    model: Literal["sasrec"] = "sasrec"
    """Which model this is."""


class Block(nn.Module):
    """Causal self-attention and a position-wise feed-forward net of two D → D maps (eq. 2–5 of the paper)."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        dim = config.dim
        self.heads, self.dropout, self.original = config.heads, config.dropout, config.norm == "original"
        self.attention_norm = nn.LayerNorm(dim, eps=1e-8)
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.forward_norm = nn.LayerNorm(dim, eps=1e-8)
        self.first, self.second = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        """One block; shapes (B, T, D) in and out."""
        normed = self.attention_norm(hidden_BTD)
        if self.original:
            attended = normed + self._attend(normed, hidden_BTD)
            base: Tensor = self.forward_norm(attended)
            return base + self._feed_forward(base)
        attended = hidden_BTD + self._attend(normed, normed)
        return attended + self._feed_forward(self.forward_norm(attended))

    def _attend(self, query_BTD: Tensor, context_BTD: Tensor) -> Tensor:
        q, k, v = (
            projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projected in (self.query(query_BTD), self.key(context_BTD), self.value(context_BTD))
        )
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(-2))
        return out

    def _feed_forward(self, normed_BTD: Tensor) -> Tensor:
        inner = F.relu(F.dropout(self.first(normed_BTD), self.dropout, self.training))
        return F.dropout(self.second(inner), self.dropout, self.training)


class SASRecModule(SequenceModule):
    """Item and position tables, the blocks and a last layer norm; items are scored with the item table itself.

    Sequences are aligned to the left, so position p is the p-th item of the row, and padded on the right: under the
    causal mask no real position sees a pad, whatever item it holds.
    """

    def __init__(self, config: AttentionConfig, n_items: int, seed: int) -> None:
        super().__init__()
        self.item = nn.Embedding(n_items, config.dim)
        self.position = nn.Embedding(config.max_length, config.dim)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.blocks)])
        self.last_norm = nn.LayerNorm(config.dim, eps=1e-8)
        self.scale = config.dim**0.5 if config.scale_embedding else 1.0
        self.dropout = config.dropout
        init_normal(self, config.init_std, seed)

    def embed(self, items_BT: Tensor) -> Tensor:
        """Item vectors (B, T, D)."""
        vectors: Tensor = self.item(items_BT)
        return vectors

    def forward(self, items_BT: Tensor) -> Tensor:
        """Hidden states (B, T, D): the state at position t has seen items 0…t."""
        hidden = self.embed(items_BT) * self.scale + self.position(
            torch.arange(items_BT.shape[1], device=items_BT.device)
        )
        hidden = F.dropout(hidden, self.dropout, self.training)
        for block in self.blocks:
            hidden = block(hidden)
        out: Tensor = self.last_norm(hidden)
        return out


class SASRec(SequenceModel[SASRecConfig, SASRecModule]):
    """Scores items by the inner product of the last hidden state of a history with the item table, which input and
    output share (section III-E of the paper); `loss: bce` is the paper's objective (section III-F).
    """

    config_class: ClassVar[type[SASRecConfig]] = SASRecConfig

    def make_module(self, n_items: int, seed: int) -> SASRecModule:
        """An untrained network."""
        return SASRecModule(self.config, n_items, seed)
