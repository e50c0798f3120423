"""`BidirectionalEncoder`: post-norm transformer layers in which every item of a row sees the whole row."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BidirectionalEncoder(nn.Module):
    """Layers of multi-head attention and a GELU net of inner size 4D, each followed by dropout, residual and norm."""

    def __init__(self, dim: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList([EncoderLayer(dim, heads, dropout) for _ in range(layers)])

    def forward(self, hidden_BTD: Tensor, lengths_B: Tensor) -> Tensor:
        """States (B, T, D) of rows aligned to the left; what lies beyond a row's length is seen by no real item."""
        real_BT = torch.arange(hidden_BTD.shape[1], device=hidden_BTD.device) < lengths_B[:, None]
        for layer in self.layers:
            hidden_BTD = layer(hidden_BTD, real_BT[:, None, None])
        return hidden_BTD


class EncoderLayer(nn.Module):
    """h ← LN(h + drop(MH(h))), then h ← LN(h + drop(W₂ GELU(W₁ h)))."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.attention_norm = nn.LayerNorm(dim, eps=1e-12)
        self.first, self.second = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.forward_norm = nn.LayerNorm(dim, eps=1e-12)

    def forward(self, hidden_BTD: Tensor, real_B11T: Tensor) -> Tensor:
        """One layer; shapes (B, T, D) in and out, `real_B11T` says which positions may be looked at."""
        q, k, v = (
            projection(hidden_BTD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=real_B11T, dropout_p=dropout)
        attended = self.out(mixed.transpose(1, 2).flatten(-2))
        hidden: Tensor = self.attention_norm(hidden_BTD + F.dropout(attended, self.dropout, self.training))
        inner = self.second(F.gelu(self.first(hidden)))
        out: Tensor = self.forward_norm(hidden + F.dropout(inner, self.dropout, self.training))
        return out
