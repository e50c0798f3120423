"""SASRec: self-attentive sequential recommendation (Kang and McAuley, ICDM 2018), with modern losses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from tandemrec.conventional.negatives import NegativeSampler
from tandemrec.conventional.sequential.batches import (
    SequenceBatch,
    cut_by_tokens,
    epoch_batches,
    shared_negatives,
    training_rows,
)
from tandemrec.conventional.sequential.losses import bce_loss, sampled_softmax_loss, softmax_loss
from tandemrec.conventional.storage import load_model, save_model
from tandemrec.data.examples import Examples, IntArray, Ragged
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.evaluation.evaluate import validation_figures
from tandemrec.recommender import Config, FitReport, Scorer
from tandemrec.training import Task, TrainingConfig, default_device, train


class SASRecConfig(Config):
    """Defaults are those behind the best public figures on MovieLens-1M; sparse data want one block and length 50."""

    model: Literal["sasrec"] = "sasrec"
    """Which model this is."""

    loss: Literal["softmax", "sampled-softmax", "bce"] = "softmax"
    """Full cross-entropy; cross-entropy among `negatives` shared items; or the paper's, one negative a position."""

    negatives: int = Field(1000, ge=1)
    """Negatives of sampled softmax, shared by the positions of a step."""

    max_length: int = Field(200, ge=1)
    """Most items of a history that are looked at."""

    chunks: bool = False
    """Learn from the older part of a sequence longer than `max_length` too, as further rows."""

    dim: int = Field(64, ge=1)
    """Size of item and position vectors D."""

    blocks: int = Field(2, ge=1)
    """Attention blocks."""

    heads: int = Field(1, ge=1)
    """Attention heads; they divide `dim`."""

    dropout: float = Field(0.1, ge=0, lt=1)
    """Of embeddings, attention weights and both feed-forward maps."""

    norm: Literal["original", "pre"] = "original"
    """`original`: the residual runs around the normalised query, as in the authors' code; `pre`: the usual pre-LN."""

    scale_embedding: bool = True
    """Multiply item vectors by √D at the input, as the authors' code does."""

    init_std: float = Field(0.02, gt=0)
    """Standard deviation of the normal all matrices start from; biases start from 0."""

    batch_size: int = Field(128, ge=1)
    """Sequences of an optimiser step."""

    micro_batch_tokens: int = Field(4096, ge=1)
    """Positions that are run through the model at once: bounds memory and leaves the result alone."""

    training: TrainingConfig = TrainingConfig(epochs=200, clip_norm=None)
    """Length and speed of learning."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"heads must divide dim, found {self.heads} heads and dim {self.dim}")
        return self


class Block(nn.Module):
    """Causal self-attention and a position-wise feed-forward net of two D → D maps (eq. 2–5 of the paper)."""

    def __init__(self, config: SASRecConfig) -> None:
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


class SASRecModule(nn.Module):
    """Item and position tables, the blocks and a last layer norm; items are scored with the item table itself.

    Sequences are aligned to the left, so position p is the p-th item of the row, and padded on the right: under the
    causal mask no real position sees a pad, whatever item it holds.
    """

    def __init__(self, config: SASRecConfig, n_items: int, seed: int) -> None:
        super().__init__()
        self.item = nn.Embedding(n_items, config.dim)
        self.position = nn.Embedding(config.max_length, config.dim)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.blocks)])
        self.last_norm = nn.LayerNorm(config.dim, eps=1e-8)
        self.scale = config.dim**0.5 if config.scale_embedding else 1.0
        self.dropout = config.dropout
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=config.init_std, generator=generator)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, items_BT: Tensor) -> Tensor:
        """Hidden states (B, T, D): the state at position t has seen items 0…t."""
        hidden = self.item(items_BT) * self.scale + self.position.weight[: items_BT.shape[1]]
        hidden = F.dropout(hidden, self.dropout, self.training)
        for block in self.blocks:
            hidden = block(hidden)
        out: Tensor = self.last_norm(hidden)
        return out


class SASRec(Scorer):
    """Scores items by the inner product of the last hidden state of a history with the item table.

    A history without items says nothing: all its scores are 0.
    """

    def __init__(self, config: SASRecConfig, device: torch.device | str | None = None) -> None:
        self.config = config
        self.device = torch.device(device) if device is not None else default_device()
        self.module: SASRecModule | None = None

    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        """Learn from `split.sequences`; `split.valid` chooses the epoch by NDCG@10.

        Raises:
            InputError: if no user has two training items.
        """
        self.module = SASRecModule(self.config, split.n_items, seed).to(self.device)
        task = _NextItem(self, self.module, split, seed)
        report = train(task, self.config.training, seed=seed, workspace=workspace, label="SASRec")
        self.module.eval()
        self.item_vectors = self.module.item.weight.detach()
        return report

    def scores(self, examples: Examples) -> Tensor:
        """Scores (B, I)."""
        return self.encode(examples.history) @ self._fitted().item.weight.detach().T

    @torch.no_grad()
    def encode(self, histories: Ragged) -> Tensor:
        """Last hidden states (B, D): vectors of users as their histories tell them; 0 for an empty history."""
        module = self._fitted()
        out = torch.zeros(len(histories), self.config.dim, device=self.device)
        recent = histories.tail(self.config.max_length)
        rows = np.argsort(recent.lengths, kind="stable")
        rows = rows[recent.lengths[rows] > 0]
        for chosen in cut_by_tokens(rows, recent.lengths[rows], self.config.micro_batch_tokens):
            block = recent.take(chosen)
            last = torch.from_numpy(block.lengths - 1).to(self.device)
            hidden = module(_left_aligned(block, self.device))
            out[torch.from_numpy(chosen).to(self.device)] = hidden[torch.arange(len(last), device=self.device), last]
        return out

    def save(self, directory: Path) -> None:
        """Write `config.json` and `model.safetensors`."""
        save_model(directory, self.config, self._fitted().state_dict())

    @classmethod
    def load(cls, directory: Path, device: torch.device | str | None = None) -> Self:
        """Read what `save` wrote."""
        config, tensors = load_model(directory, SASRecConfig)
        model = cls(config, device)
        model.module = SASRecModule(config, len(tensors["item.weight"]), seed=0)
        model.module.load_state_dict(tensors)
        model.module.to(model.device).eval()
        model.item_vectors = model.module.item.weight.detach()
        return model

    def _fitted(self) -> SASRecModule:
        if self.module is None:
            raise RuntimeError("SASRec must be fitted or loaded first")
        return self.module


class _NextItem(Task[SequenceBatch]):
    """The task of the training loop: predict the next item at every position."""

    def __init__(self, model: SASRec, module: SASRecModule, split: Split, seed: int) -> None:
        self.model, self.split, self.seed = model, split, seed
        self.module: SASRecModule = module
        self.config, self.device = model.config, model.device
        self.rows = training_rows(split.sequences, self.config.max_length, chunks=self.config.chunks)
        if not len(self.rows):
            raise InputError(f"{split.dataset.name}: SASRec needs users with two training items, found none")
        self.sampler: NegativeSampler | None = None
        if self.config.loss == "bce":
            self.sampler = NegativeSampler(split.sequences, split.n_items)
            self.owner = np.searchsorted(split.sequences.stops, self.rows.stops)

    def steps(self, epoch: int) -> Sequence[Sequence[SequenceBatch]]:
        rng = np.random.default_rng([self.seed, epoch])
        steps = epoch_batches(
            self.rows, rng, batch_size=self.config.batch_size, micro_batch_tokens=self.config.micro_batch_tokens
        )
        if self.config.loss == "softmax":
            return [[SequenceBatch(self.rows.take(rows), None) for rows in step] for step in steps]
        if self.config.loss == "sampled-softmax":
            shared = shared_negatives(self.split.n_items, self.config.negatives, len(steps), rng)
            return [
                [SequenceBatch(self.rows.take(rows), drawn) for rows in step]
                for step, drawn in zip(steps, shared, strict=True)
            ]
        own = self._own_negatives(rng)
        return [[SequenceBatch(self.rows.take(rows), own.take(rows).flat()) for rows in step] for step in steps]

    def _own_negatives(self, rng: np.random.Generator) -> Ragged:
        assert self.sampler is not None
        lengths: IntArray = self.rows.lengths - 1
        return Ragged.from_lengths(self.sampler.draw(np.repeat(self.owner, lengths), rng), lengths)

    def weight(self, batch: SequenceBatch) -> float:
        return batch.n_targets

    def loss(self, batch: SequenceBatch) -> Tensor:
        inputs = batch.inputs
        hidden_BTD = self.run(_left_aligned(inputs, self.device))
        real_BT = torch.arange(hidden_BTD.shape[1]) < torch.from_numpy(inputs.lengths)[:, None]
        hidden_ND = hidden_BTD[real_BT.to(self.device)]
        target_N = torch.from_numpy(batch.targets.astype(np.int64)).to(self.device)
        table_ID = self.module.item.weight
        if batch.negatives is None:
            return softmax_loss(hidden_ND, table_ID, target_N)
        negatives = torch.from_numpy(batch.negatives.astype(np.int64)).to(self.device)
        if self.config.loss == "sampled-softmax":
            return sampled_softmax_loss(hidden_ND, table_ID, target_N, negatives)
        return bce_loss(hidden_ND, table_ID, target_N, negatives)

    def validate(self) -> dict[str, float]:
        return validation_figures(self.model, self.split.valid)


def _left_aligned(rows: Ragged, device: torch.device) -> Tensor:
    """Rows as a (B, T) tensor, T the longest; the pads on the right hold item 0, which nothing real can see."""
    width = int(rows.lengths.max())
    return torch.from_numpy(rows.padded(width, pad=0, side="right").astype(np.int64)).to(device)
