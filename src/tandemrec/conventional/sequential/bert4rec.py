"""BERT4Rec: a bidirectional transformer that fills in masked items (Sun et al., CIKM 2019)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from tandemrec.conventional.sequential.batches import SequenceBatch
from tandemrec.conventional.sequential.encoder import BidirectionalEncoder
from tandemrec.conventional.sequential.model import SequenceModel
from tandemrec.conventional.sequential.module import (
    SequenceConfig,
    SequenceModule,
    init_normal,
    left_aligned,
    real_positions,
)
from tandemrec.conventional.sequential.next_item import NextItem
from tandemrec.data.examples import IntArray, ItemArray, Ragged
from tandemrec.data.split import Split
from tandemrec.recommender import BoolArray
from tandemrec.training import TrainingConfig


class BERT4RecConfig(SequenceConfig):
    """The paper's setting for MovieLens-1M; sparse data want a `mask_share` of .6 and length 50.

    The authors train 400,000 steps, some 30 to 100 times longer than SASRec needs; short runs are far from converged.
    """

    model: Literal["bert4rec"] = "bert4rec"
    """Which model this is."""

    mask_share: float = Field(0.2, gt=0, lt=1)
    """Probability that an item of a row is masked; every row has at least one masked item."""

    last_share: float = Field(0.1, ge=0, le=1)
    """Share of the rows of an epoch in which the last item alone is masked, as the question will be."""

    dropout: float = Field(0.2, ge=0, lt=1)
    """Of embeddings, attention weights and the outcome of every sublayer."""

    layers: int = Field(2, ge=1)
    """Transformer layers."""

    heads: int = Field(2, ge=1)
    """Attention heads; they divide `dim`."""

    batch_size: int = Field(256, ge=1)
    """Sequences of an optimiser step."""

    training: TrainingConfig = TrainingConfig(
        epochs=2000,
        learning_rate=1e-4,
        weight_decay=0.01,
        warmup_steps=100,
        schedule="linear",
        clip_norm=5.0,
        validate_every=10,
        patience=20,
    )
    """Length and speed of learning."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"heads must divide dim, found {self.heads} heads and dim {self.dim}")
        return self


class BERT4RecModule(SequenceModule):
    """Item, mask and position vectors, the encoder and an output layer; items are scored with their own vectors.

    The last row of the item table is the mask. A history of `max_length` items and the mask behind it fill all
    positions.
    """

    def __init__(self, config: BERT4RecConfig, n_items: int, seed: int) -> None:
        super().__init__()
        self.n_items, self.dropout = n_items, config.dropout
        self.item = nn.Embedding(n_items + 1, config.dim)
        self.position = nn.Embedding(config.max_length + 1, config.dim)
        self.input_norm = nn.LayerNorm(config.dim, eps=1e-12)
        self.encoder = BidirectionalEncoder(config.dim, config.layers, config.heads, config.dropout)
        self.output = nn.Linear(config.dim, config.dim)
        self.output_norm = nn.LayerNorm(config.dim, eps=1e-12)
        self.bias = nn.Parameter(torch.zeros(n_items))
        init_normal(self, config.init_std, seed)

    def forward(self, items_BT: Tensor, lengths_B: Tensor) -> Tensor:
        """GELU(h W + b) of eq. 7, normalised: (B, T, D)."""
        places_T = torch.arange(items_BT.shape[1], device=items_BT.device)
        hidden = self.input_norm(self.item(items_BT) + self.position(places_T))
        hidden = self.encoder(F.dropout(hidden, self.dropout, self.training), lengths_B)
        out: Tensor = self.output_norm(F.gelu(self.output(hidden)))
        return out

    def states(self, rows: Ragged, run: Callable[..., Tensor] | None = None) -> Tensor:
        """States (N, D) of all items, row after row; each has seen its whole row."""
        lengths = torch.from_numpy(rows.lengths).to(self.device)
        return real_positions((run or self)(left_aligned(rows, self.device), lengths), rows)

    def last(self, rows: Ragged) -> Tensor:
        """States (B, D) of a mask put behind each row."""
        return super().last(with_mask(rows, self.n_items))

    def item_table(self) -> Tensor:
        """Vectors (I, D) of the items."""
        return self.item.weight[: self.n_items]

    def item_bias(self) -> Tensor | None:
        """B of eq. 7, (I,)."""
        return self.bias


class BERT4Rec(SequenceModel[BERT4RecConfig, BERT4RecModule]):
    """Scores items for a mask behind the history: its state times the item table, plus the item bias (eq. 7)."""

    config_class: ClassVar[type[BERT4RecConfig]] = BERT4RecConfig

    def make_module(self, n_items: int, seed: int) -> BERT4RecModule:
        """An untrained network."""
        return BERT4RecModule(self.config, n_items, seed)

    def module_like(self, tensors: dict[str, Tensor]) -> BERT4RecModule:
        """A network that stored tensors fit into."""
        return self.make_module(len(tensors["bias"]), 0)

    def make_task(self, module: BERT4RecModule, split: Split, seed: int) -> NextItem:
        """Filling in masked items."""
        return MaskedItem(self, module, split, seed)


@dataclass(frozen=True)
class MaskedBatch(SequenceBatch):
    """Rows of which the masked items are the targets.

    Attributes:
        masked: (M,) whether an item is masked, row after row.
        mask: the number of the mask.
    """

    masked: BoolArray
    mask: int

    @property
    def n_targets(self) -> int:
        """Number of masked items."""
        return int(self.masked.sum())

    @property
    def inputs(self) -> Ragged:
        """The rows with the mask in place of the masked items."""
        return Ragged.from_lengths(np.where(self.masked, self.mask, self.rows.flat()), self.rows.lengths)

    @property
    def targets(self) -> ItemArray:
        """The masked items."""
        return self.rows.flat()[self.masked]


class MaskedItem(NextItem):
    """The Cloze task (eq. 8): −log P of every masked item; which ones are masked is drawn afresh in every epoch."""

    def __init__(self, model: BERT4Rec, module: BERT4RecModule, split: Split, seed: int) -> None:
        super().__init__(model, module, model.config, split, seed)
        self.mask_share, self.last_share = model.config.mask_share, model.config.last_share
        self.masks = self.rows

    def steps(self, epoch: int) -> Sequence[Sequence[SequenceBatch]]:
        """As those of the next-item task, masked."""
        masked = draw_masks(
            self.rows.lengths, self.mask_share, self.last_share, np.random.default_rng([self.seed, epoch, 1])
        )
        self.masks = Ragged.from_lengths(masked.astype(np.int32), self.rows.lengths)
        return super().steps(epoch)

    def batch(self, rows: IntArray, negatives: ItemArray | None) -> MaskedBatch:
        """The rows of those numbers, masked as drawn for this epoch."""
        masked = self.masks.take(rows).flat().astype(bool)
        return MaskedBatch(self.rows.take(rows), self.owner[rows], negatives, masked, self.split.n_items)

    def target_counts(self) -> IntArray:
        """Masked items of every row."""
        counts: IntArray = np.add.reduceat(self.masks.values, self.masks.starts).astype(np.int64)
        return counts

    def loss(self, batch: SequenceBatch) -> Tensor:
        """Sum over masked items."""
        assert isinstance(batch, MaskedBatch)
        hidden = self.module.states(batch.inputs, self.run)
        return self.item_loss(hidden[self.on_device(np.flatnonzero(batch.masked))], batch)


def draw_masks(lengths: IntArray, share: float, last_share: float, rng: np.random.Generator) -> BoolArray:
    """Whether each item of rows of these lengths is masked, row after row.

    In a share of the rows it is the last item alone; in the others every item with probability `share`, and one of
    them at random where none was hit.
    """
    starts, stops = np.cumsum(lengths) - lengths, np.cumsum(lengths)
    only_last = rng.random(len(lengths)) < last_share
    masked: BoolArray = rng.random(int(lengths.sum())) < share
    masked &= ~np.repeat(only_last, lengths)
    masked[stops[only_last] - 1] = True
    spare = starts + (rng.random(len(lengths)) * lengths).astype(np.int64)
    none = np.add.reduceat(masked, starts, dtype=np.int64) == 0
    masked[spare[none]] = True
    return masked


def with_mask(rows: Ragged, mask: int) -> Ragged:
    """Every row with a mask behind it."""
    lengths = rows.lengths + 1
    values = np.full(int(lengths.sum()), mask, np.int32)
    values[np.arange(len(values) - len(rows)) + rows.rows()] = rows.flat()
    return Ragged.from_lengths(values, lengths)
