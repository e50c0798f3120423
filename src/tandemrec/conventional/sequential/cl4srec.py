"""CL4SRec: SASRec that also tells augmented views of one history from those of others (Xie et al., ICDE 2022)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from tandemrec.conventional.sequential.batches import SequenceBatch, concatenated
from tandemrec.conventional.sequential.model import SequenceModel
from tandemrec.conventional.sequential.next_item import NextItem
from tandemrec.conventional.sequential.sasrec import AttentionConfig, SASRecModule
from tandemrec.data.examples import IntArray, ItemArray, Ragged
from tandemrec.data.split import Split
from tandemrec.training import TrainingConfig


class CL4SRecConfig(AttentionConfig):
    """The paper's setting for sparse data, with full cross-entropy in place of its binary one (`loss: bce`)."""

    model: Literal["cl4srec"] = "cl4srec"
    """Which model this is."""

    contrast: float = Field(0.1, ge=0)
    """λ: weight of the contrastive loss; 0 leaves SASRec."""

    temperature: float = Field(1.0, gt=0)
    """τ: inner products of views are divided by it."""

    crop_share: float = Field(0.6, gt=0, le=1)
    """η: share of a sequence that cropping keeps, in one piece."""

    mask_share: float = Field(0.3, ge=0, lt=1)
    """γ: share of the items that masking replaces by the mask."""

    reorder_share: float = Field(0.6, ge=0, le=1)
    """β: share of a sequence, in one piece, that reordering shuffles."""

    max_length: int = Field(50, ge=1)
    """Most items of a history that are looked at."""

    dropout: float = Field(0.5, ge=0, lt=1)
    """Of embeddings, attention weights and both feed-forward maps."""

    heads: int = Field(2, ge=1)
    """Attention heads; they divide `dim`."""

    batch_size: int = Field(256, ge=1)
    """Sequences of an optimiser step, whose views are told apart; a step is one micro-batch."""

    micro_batch_tokens: int = Field(1024, ge=1)
    """Positions that are run through the model at once; rows of a step and their views are grouped by length."""

    training: TrainingConfig = TrainingConfig(epochs=200, clip_norm=None)
    """Length and speed of learning."""


class CL4SRecModule(SASRecModule):
    """SASRec's network with one more vector in the item table, that of the mask."""

    def __init__(self, config: CL4SRecConfig, n_items: int, seed: int) -> None:
        super().__init__(config, n_items + 1, seed)
        self.n_items = n_items

    def item_table(self) -> Tensor:
        """Vectors (I, D) of the items."""
        return self.item.weight[: self.n_items]


class CL4SRec(SequenceModel[CL4SRecConfig, CL4SRecModule]):
    """Scores as SASRec; only what it learns differs."""

    config_class: ClassVar[type[CL4SRecConfig]] = CL4SRecConfig

    def make_module(self, n_items: int, seed: int) -> CL4SRecModule:
        """An untrained network."""
        return CL4SRecModule(self.config, n_items, seed)

    def module_like(self, tensors: dict[str, Tensor]) -> CL4SRecModule:
        """A network that stored tensors fit into."""
        return self.make_module(len(tensors["item.weight"]) - 1, 0)

    def make_task(self, module: CL4SRecModule, split: Split, seed: int) -> NextItem:
        """Next item and contrast."""
        return ContrastiveNextItem(self, module, split, seed)


@dataclass(frozen=True)
class ViewBatch(SequenceBatch):
    """Rows and two augmented views of each."""

    views: tuple[Ragged, Ragged]


class ContrastiveNextItem(NextItem):
    """L = L_next + λ L_cl: two views of every row, made by two different operators, are each other's positives.

    Mean of L_next over targets and of L_cl over views. The state of the last item stands for a view.
    """

    whole_steps = True

    def __init__(self, model: CL4SRec, module: CL4SRecModule, split: Split, seed: int) -> None:
        super().__init__(model, module, model.config, split, seed)
        self.settings = model.config
        mask = split.n_items
        self.operators: list[Operator] = [
            lambda rows, rng: crop(rows, self.settings.crop_share, rng),
            lambda rows, rng: mask_items(rows, self.settings.mask_share, mask, rng),
            lambda rows, rng: reorder(rows, self.settings.reorder_share, rng),
        ]
        self.view_rng = np.random.default_rng([seed, 0, 1])

    def steps(self, epoch: int) -> Sequence[Sequence[SequenceBatch]]:
        """As those of the next-item task, with fresh views."""
        self.view_rng = np.random.default_rng([self.seed, epoch, 1])
        return super().steps(epoch)

    def batch(self, rows: IntArray, negatives: ItemArray | None) -> ViewBatch:
        """The rows of those numbers and views of at most `max_length` of their items."""
        taken = self.rows.take(rows)
        views = two_views(taken.tail(self.config.max_length), self.operators, self.view_rng)
        return ViewBatch(taken, self.owner[rows], negatives, views)

    def loss(self, batch: SequenceBatch) -> Tensor:
        """Sum over targets, the contrast counted once for each."""
        assert isinstance(batch, ViewBatch)
        every = concatenated(batch.inputs, *batch.views)
        states = self.states_by_length(every)
        ends = self.on_device(np.cumsum(every.lengths) - 1)[len(batch.rows) :]
        next_item = self.item_loss(states[: batch.n_targets], batch)
        first, second = states[ends].chunk(2)
        contrast = view_loss(first, second, self.on_device(batch.owner), self.settings.temperature)
        return next_item + self.settings.contrast * batch.n_targets * contrast


def view_loss(first_BD: Tensor, second_BD: Tensor, owner_B: Tensor, temperature: float) -> Tensor:
    """NT-Xent with inner products: −log of a view's softmax share for its partner, mean over the 2B views.

    The other views of the batch are the negatives, but for those of the same user (rows of one long sequence).
    """
    view_VD, owner_V = torch.cat([first_BD, second_BD]), owner_B.repeat(2)
    n = len(view_VD)
    partner_V = (torch.arange(n, device=view_VD.device) + n // 2) % n
    kin_VV = owner_V[:, None] == owner_V
    kin_VV[torch.arange(n, device=view_VD.device), partner_V] = False
    similarity_VV = (view_VD @ view_VD.T / temperature).masked_fill(kin_VV, -torch.inf)
    return F.cross_entropy(similarity_VV, partner_V)


Operator = Callable[[Ragged, np.random.Generator], Ragged]
"""Makes a view of every row."""


def two_views(rows: Ragged, operators: Sequence[Operator], rng: np.random.Generator) -> tuple[Ragged, Ragged]:
    """Two views of every row by two different operators, each pair of operators equally likely."""
    first = rng.integers(len(operators), size=len(rows))
    second = (first + rng.integers(1, len(operators), size=len(rows))) % len(operators)
    return augmented(rows, operators, first, rng), augmented(rows, operators, second, rng)


def augmented(rows: Ragged, operators: Sequence[Operator], chosen_B: IntArray, rng: np.random.Generator) -> Ragged:
    """Row b as operator number `chosen_B[b]` changes it."""
    groups = [np.flatnonzero(chosen_B == number) for number in range(len(operators))]
    views = concatenated(*(operator(rows.take(group), rng) for operator, group in zip(operators, groups, strict=True)))
    return views.take(np.argsort(np.concatenate(groups)))


def crop(rows: Ragged, share: float, rng: np.random.Generator) -> Ragged:
    """A random piece of ⌊share · n⌋ items of every row of n, at least one."""
    kept = np.maximum((rows.lengths * share).astype(np.int64), 1)
    starts = rows.starts + rng.integers(rows.lengths - kept + 1)
    return Ragged(rows.values, starts, starts + kept)


def mask_items(rows: Ragged, share: float, mask: int, rng: np.random.Generator) -> Ragged:
    """Every row of n with ⌊share · n⌋ random items replaced by `mask`."""
    lengths = rows.lengths
    masked = shuffled_places(lengths, rng) < np.repeat((lengths * share).astype(np.int64), lengths)
    return Ragged.from_lengths(np.where(masked, mask, rows.flat()), lengths)


def reorder(rows: Ragged, share: float, rng: np.random.Generator) -> Ragged:
    """Every row of n with a random piece of ⌊share · n⌋ items shuffled."""
    lengths = rows.lengths
    size = (lengths * share).astype(np.int64)
    start = rng.integers(lengths - size + 1)
    place = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    begins, ends = np.repeat(start, lengths), np.repeat(start + size, lengths)
    inside = (place >= begins) & (place < ends)
    key = np.where(inside, begins + rng.random(len(place)) * np.maximum(ends - begins, 1), place)
    order = np.lexsort((key, rows.rows()))
    return Ragged.from_lengths(rows.flat()[order], lengths)


def shuffled_places(lengths: IntArray, rng: np.random.Generator) -> IntArray:
    """For rows of these lengths a random order 0…n−1 of each, row after row."""
    row = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((rng.random(len(row)), row))
    places = np.empty(len(row), np.int64)
    places[order] = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return places
