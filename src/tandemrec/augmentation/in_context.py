"""LLM-CF's in-context module: a small decoder reads examples with their thoughts, then the question."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DecoderLayer(nn.Module):
    """A layer as in Llama: h ← h + Attention(RMSNorm(h)), h ← h + W₂(SiLU(W₁ n) ⊙ W₃ n), n = RMSNorm(h); no biases."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.forward_norm = nn.RMSNorm(dim, eps=1e-5), nn.RMSNorm(dim, eps=1e-5)
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(dim, 2 * dim, bias=False) for _ in range(2))
        self.down = nn.Linear(2 * dim, dim, bias=False)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        """One layer; shapes (B, T, D) in and out."""
        normed = self.attention_norm(hidden_BTD)
        q, k, v = (
            projection(normed).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(rotated(q), rotated(k), v, is_causal=True)
        hidden_BTD = hidden_BTD + self.out(mixed.transpose(1, 2).flatten(-2))
        normed = self.forward_norm(hidden_BTD)
        out: Tensor = hidden_BTD + self.down(F.silu(self.gate(normed)) * self.up(normed))
        return out


def rotated(vectors_BHTd: Tensor) -> Tensor:
    """Rotary positions: the first half of the dimensions with the second, frequencies 10,000^(−2i/d)."""
    steps, dim = vectors_BHTd.shape[2:]
    frequency = 10000.0 ** (-torch.arange(0, dim, 2, device=vectors_BHTd.device) / dim)
    angle_Td = torch.outer(torch.arange(steps, device=vectors_BHTd.device).float(), frequency).repeat(1, 2)
    first, second = vectors_BHTd.chunk(2, dim=-1)
    return vectors_BHTd * angle_Td.cos() + torch.cat([-second, first], -1) * angle_Td.sin()


class InContext(nn.Module):
    """Reads [pair, thought, label] of E examples and the pair of the question; its last state is the feature f.

    A pair is what a history is to a network (D), its mean title, the item's vector (D) and title, by an MLP; titles and
    thoughts come in the encoder's size Z and share one map. The question's item is unknown: both of its vectors are 0.
    """

    def __init__(self, dim: int, z: int, layers: int, heads: int, *, rebuilds: bool, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.text = nn.Sequential(nn.Linear(z, dim), nn.ReLU(), nn.Linear(dim, dim))
            self.pair = nn.Sequential(nn.Linear(4 * dim, dim), nn.ReLU(), nn.Linear(dim, dim))
            self.label = nn.Embedding(2, dim)
            self.layers = nn.ModuleList([DecoderLayer(dim, heads) for _ in range(layers)])
            self.rebuild = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, z)) if rebuilds else None
        self.norm = nn.RMSNorm(dim, eps=1e-5)

    def pairs(self, state: Tensor, titles: Tensor, item: Tensor, title: Tensor) -> Tensor:
        """Pair tokens (…, D) of states (…, D), mean titles (…, Z), item vectors (…, D) and titles (…, Z)."""
        token: Tensor = self.pair(torch.cat([state, self.text(titles), item, self.text(title)], -1))
        return token

    def forward(
        self, pair_BED: Tensor, thought_BED: Tensor, label_BE: Tensor, question_BD: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Read the examples, then the question.

        Args:
            pair_BED: pair tokens of E examples for each of B questions.
            thought_BED: their thoughts, mapped by `text`.
            label_BE: their labels.
            question_BD: pair tokens of the questions.

        Returns:
            f (B, D), and the states before the thoughts (B, E, D), those of the pairs.
        """
        triples_BE3D = torch.stack([pair_BED, thought_BED, self.label(label_BE)], 2)
        hidden_BTD = torch.cat([triples_BE3D.flatten(1, 2), question_BD[:, None]], 1)
        for layer in self.layers:
            hidden_BTD = layer(hidden_BTD)
        hidden_BTD = self.norm(hidden_BTD)
        return hidden_BTD[:, -1], hidden_BTD[:, :-1:3]

    def missed(self, before_BED: Tensor, thought_BEZ: Tensor) -> Tensor:
        """How far what is expected from the states before the thoughts is from these: mean of 1 − cosine, (B,)."""
        assert self.rebuild is not None
        rebuilt_BEZ = self.rebuild(before_BED)
        return (1 - F.cosine_similarity(rebuilt_BEZ, thought_BEZ, dim=-1)).mean(1)
