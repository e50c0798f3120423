"""The task most sequence models learn: predict the next item at every position of a sequence."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parametrize

from tandemrec.conventional.negatives import NegativeSampler
from tandemrec.conventional.sequential.batches import (
    SequenceBatch,
    epoch_batches,
    length_groups,
    shared_negatives,
    training_rows,
)
from tandemrec.conventional.sequential.losses import next_item_loss
from tandemrec.conventional.sequential.module import SequenceConfig, SequenceModule
from tandemrec.data.examples import IntArray, ItemArray, Ragged
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.evaluation.evaluate import validation_figures
from tandemrec.recommender import Scorer
from tandemrec.training import Task


class NextItem(Task[SequenceBatch]):
    """A task of `training.train`. Models with more in their loss override `item_loss`, or `loss` as a whole.

    Attributes:
        whole_steps: keep all rows of a step in one micro-batch, for losses that compare rows with each other.
        rows: what is learned from, one row a user (or several, with `chunks`).
        owner: the sequence every row was cut from.
        also: what joins the loss, given the states at the input positions (N, D): a sum over targets too.
    """

    whole_steps: ClassVar[bool] = False
    also: Callable[[Tensor, SequenceBatch], Tensor] | None = None

    def __init__(self, model: Scorer, module: SequenceModule, config: SequenceConfig, split: Split, seed: int) -> None:
        self.model, self.config, self.split, self.seed = model, config, split, seed
        self.module: SequenceModule = module
        self.rows = training_rows(split.sequences, config.max_length, chunks=config.chunks)
        if not len(self.rows):
            name = type(model).__name__
            raise InputError(f"{split.dataset.name}: {name} needs users with two training items, found none")
        self.owner: IntArray = np.searchsorted(split.sequences.stops, self.rows.stops)
        self.sampler = NegativeSampler(split.sequences, split.n_items) if config.loss == "bce" else None

    def steps(self, epoch: int) -> Sequence[Sequence[SequenceBatch]]:
        """A step is `batch_size` rows, cut into micro-batches of rows of nearly equal length."""
        rng = np.random.default_rng([self.seed, epoch])
        tokens = sys.maxsize if self.whole_steps else self.config.micro_batch_tokens
        steps = epoch_batches(self.rows, rng, batch_size=self.config.batch_size, micro_batch_tokens=tokens)
        if self.config.loss == "softmax":
            return [[self.batch(rows, None) for rows in step] for step in steps]
        if self.config.loss == "sampled-softmax":
            shared = shared_negatives(self.split.n_items, self.config.negatives, len(steps), rng)
            return [[self.batch(rows, drawn) for rows in step] for step, drawn in zip(steps, shared, strict=True)]
        own = self.own_negatives(self.target_counts(), rng)
        return [[self.batch(rows, own.take(rows).flat()) for rows in step] for step in steps]

    def batch(self, rows: IntArray, negatives: ItemArray | None) -> SequenceBatch:
        """The rows of those numbers."""
        return SequenceBatch(self.rows.take(rows), self.owner[rows], negatives)

    def target_counts(self) -> IntArray:
        """Targets of every row."""
        counts: IntArray = self.rows.lengths - 1
        return counts

    def own_negatives(self, targets: IntArray, rng: np.random.Generator) -> Ragged:
        """For each target of every row `bce_negatives` items that its user has not met."""
        assert self.sampler is not None
        lengths = targets * self.config.bce_negatives
        return Ragged.from_lengths(self.sampler.draw(np.repeat(self.owner, lengths), rng), lengths)

    def weight(self, batch: SequenceBatch) -> float:
        """Number of targets."""
        return batch.n_targets

    def loss(self, batch: SequenceBatch) -> Tensor:
        """Sum over targets."""
        with parametrize.cached():  # an item table that is computed is computed once
            hidden_ND = self.module.states(batch.inputs, self.run)
            loss = self.item_loss(hidden_ND, batch)
            return loss if self.also is None else loss + self.also(hidden_ND, batch)

    def states_by_length(self, rows: Ragged) -> Tensor:
        """States (N, D) of all items, row after row, run by groups of nearly equal length: little is padding."""
        groups = length_groups(rows.lengths, self.config.micro_batch_tokens)
        states = torch.cat([self.module.states(rows.take(group), self.run) for group in groups])
        order = np.concatenate(groups)
        place = Ragged.from_lengths(np.arange(len(states), dtype=np.int32), rows.lengths[order])
        return states[self.on_device(place.take(np.argsort(order)).flat())]

    def item_loss(self, hidden_ND: Tensor, batch: SequenceBatch) -> Tensor:
        """Sum over targets, given the states at the input positions."""
        return next_item_loss(
            self.config.loss,
            hidden_ND,
            self.module.item_table(),
            self.module.item_bias(),
            self.on_device(batch.targets),
            None if batch.negatives is None else self.on_device(batch.negatives),
        )

    def on_device(self, items: ItemArray | IntArray) -> Tensor:
        """Item numbers as an index tensor."""
        return torch.from_numpy(items.astype(np.int64)).to(self.module.device)

    def validate(self) -> dict[str, float]:
        """NDCG@10 and HR@10 of the validation part."""
        return validation_figures(self.model, self.split.valid)
