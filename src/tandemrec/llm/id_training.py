"""What TIGER learns from: histories with questions about what follows them, and the task of the training loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tandemrec.data.examples import Examples, IntArray, Ragged
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.llm.id_model import FIRST_DIGIT, NOBODY, PAD, IdModel
from tandemrec.llm.semantic_ids import SemanticIds
from tandemrec.recommender import Config
from tandemrec.training import Task, TrainingConfig

Samples = Literal["sequences", "last", "examples", "prefixes"]


class IdTrainingConfig(Config):
    """Samples, sizes, length and speed of learning."""

    samples: Samples = "sequences"
    """Targets: every item but the first of every training sequence; the last of each; the target of every training
    example, as the split cuts and draws them; or these and all items of their histories but the first."""

    batch_size: int = Field(256, ge=1)
    """Targets of an optimiser step, about: with `reading: causal` several of a history go together."""

    micro_batch_tokens: int = Field(8192, ge=16)
    """Tokens of histories and ids, about, that are run through the network at once, padding not counted; leaves the
    result alone."""

    select_on: Literal["ndcg@10", "loss"] = "ndcg@10"
    """What chooses the epoch on the validation part: the lists that decoding gives, or the targets' likelihood."""

    judged: int | None = Field(2000, ge=1)
    """Validation examples that choose the epoch, drawn from the seed; null: all."""

    training: TrainingConfig = TrainingConfig(
        epochs=100, learning_rate=1e-3, weight_decay=0.01, warmup_steps=200, schedule="cosine", patience=10
    )
    """Length and speed of learning."""


@dataclass(frozen=True)
class Tokens:
    """Histories as tokens: a head that stands for the user, then the digits of every item.

    Attributes:
        ids: of the items.
        users: tokens that users share, by their number modulo this; 0: the head says nothing.
        max_items: latest items that are read.
    """

    ids: SemanticIds
    users: int
    max_items: int

    @property
    def first_user(self) -> int:
        """The first token of a user."""
        return FIRST_DIGIT + sum(self.ids.sizes)

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return self.first_user + self.users

    def items(self) -> IntArray:
        """The tokens of every item (I, L)."""
        return self.ids.tokens(FIRST_DIGIT)

    def heads(self, user: IntArray) -> IntArray:
        """The head token of every user (B,); `NOBODY` for unknown ones (−1)."""
        known = (user >= 0) & (self.users > 0)
        heads: IntArray = np.where(known, self.first_user + user % max(1, self.users), NOBODY)
        return heads

    def histories(self, examples: Examples) -> list[list[int]]:
        """Tokens of the latest items of every example, without padding."""
        table_IL, heads = self.items(), self.heads(examples.user.astype(np.int64))
        recent = examples.history.tail(self.max_items)
        return [[int(head), *table_IL[row].ravel().tolist()] for head, row in zip(heads, recent, strict=True)]


@dataclass(frozen=True)
class Rows:
    """Histories with questions about what follows their beginnings.

    Attributes:
        user: (R,).
        items: what is read.
        known: how many items of its row each question may see.
        answers: the item that follows; as many a row as `known`.
    """

    user: IntArray
    items: Ragged
    known: Ragged
    answers: Ragged

    @classmethod
    def of(cls, examples: Examples, max_items: int) -> Rows:
        """One question a row: the first target of every example that has one."""
        asked = examples.take(np.flatnonzero(examples.target.lengths))
        recent = asked.history.tail(max_items)
        known = Ragged.from_lengths(recent.lengths.astype(np.int32), np.ones(len(asked), np.int64))
        first = Ragged(asked.target.values, asked.target.starts, asked.target.starts + 1)
        return cls(asked.user.astype(np.int64), recent, known, first)

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: IntArray) -> Rows:
        """The chosen rows."""
        return Rows(self.user[rows], self.items.take(rows), self.known.take(rows), self.answers.take(rows))


def training_rows(split: Split, samples: Samples, max_items: int, *, shared: bool) -> Rows:
    """The questions of a training part; see `IdTrainingConfig.samples`.

    Args:
        split: whose training part.
        samples: which items are targets.
        max_items: most items of a row.
        shared: questions about one sequence share rows (a causal encoder sees only what each may): the last
            `max_items` + 1 items are one, those before the next, so that the first questions of a long sequence's
            earlier rows see less than `max_items`. Otherwise every question has a row of its own.

    Raises:
        InputError: if there is no target, or a target does not follow its history.
    """
    values, user, start, place = _questions(split, samples)
    if not len(place):
        raise InputError(f"{split.dataset.name}: TIGER needs a training item behind another one, found none")
    if not shared:
        begin = np.maximum(start, place - max_items)
        known = Ragged.from_lengths((place - begin).astype(np.int32), np.ones_like(place))
        answers = Ragged(values, place, place + 1)
        return Rows(user, Ragged(values, begin, place), known, answers)
    order = np.lexsort((place, start, user))
    user, start, place = user[order], start[order], place[order]
    fresh = np.r_[True, (user[1:] != user[:-1]) | (start[1:] != start[:-1])]
    last = place[np.r_[np.flatnonzero(fresh)[1:], len(place)] - 1][np.cumsum(fresh) - 1]
    piece = (last - place) // max_items
    opens = np.flatnonzero(fresh | np.r_[True, piece[1:] != piece[:-1]])
    row = np.repeat(np.arange(len(opens)), np.diff(np.r_[opens, len(place)]))
    stop = (last - piece * max_items)[opens]
    begin = np.maximum(start[opens], stop - max_items)
    counts = np.diff(np.r_[opens, len(place)])
    known = Ragged.from_lengths((place - begin[row]).astype(np.int32), counts)
    return Rows(user[opens], Ragged(values, begin, stop), known, Ragged.from_lengths(values[place], counts))


def _questions(split: Split, samples: Samples) -> tuple[np.ndarray, IntArray, IntArray, IntArray]:
    """Items, and for every question its user, where its history starts, and the place of its target."""
    if samples in ("sequences", "last"):
        sequences = split.sequences
        count = np.maximum(sequences.lengths - 1, 0)
        count = np.minimum(count, 1) if samples == "last" else count
        owner = np.repeat(np.arange(len(sequences)), count)
        place = sequences.stops[owner] - 1 - _within(count)
        return sequences.values, owner, sequences.starts[owner], place
    examples = split.train.take(np.flatnonzero(split.train.target.lengths))
    start, place = examples.history.starts, examples.target.starts
    if examples.history.values is not examples.target.values or (examples.history.stops != place).any():
        raise InputError(f"{split.dataset.name}: TIGER needs training targets that follow their histories")
    user = examples.user.astype(np.int64)
    if samples == "prefixes":
        count = np.maximum(place - start, 0)
        owner = np.repeat(np.arange(len(place)), count)
        user, start, place = user[owner], start[owner], place[owner] - _within(count)
        # An item is asked about once, with the longest history that there is.
        order = np.lexsort((start, place))
        order = order[np.r_[True, place[order][1:] != place[order][:-1]]] if len(order) else order
        user, start, place = user[order], start[order], place[order]
    return examples.history.values, user, start, place


def _within(counts: IntArray) -> IntArray:
    """0, 1, …, n − 1 for every count n, one behind the other."""
    within: IntArray = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    return within


class IdTask(Task[IntArray]):
    """A task of the training loop: the digits of what follows. Micro-batches are rows of about equal length."""

    may_shard = False

    def __init__(
        self,
        module: IdModel,
        tokens: Tokens,
        rows: Rows,
        config: IdTrainingConfig,
        seed: int,
        judge: Callable[[], dict[str, float]],
    ) -> None:
        """Configure.

        Args:
            module: the network.
            tokens: what items and users are called.
            rows: what is learned from.
            config: sizes.
            seed: of the order.
            judge: validation figures.
        """
        self.module: IdModel = module
        self.tokens, self.rows, self.config, self.seed, self.judge = tokens, rows, config, seed, judge
        # One more row, of padding, for places without an item.
        self.table_IL = np.concatenate([tokens.items(), np.full((1, tokens.ids.length), PAD)])

    def steps(self, epoch: int) -> Sequence[Sequence[IntArray]]:
        """Row numbers of every micro-batch of every step."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.rows))
        asked = self.rows.known.lengths[order]
        step = (np.cumsum(asked) - asked) // self.config.batch_size
        return [self._groups(rows) for rows in np.split(order, np.flatnonzero(np.diff(step)) + 1)]

    def weight(self, batch: IntArray) -> float:
        """Number of digits."""
        return float(self.rows.known.lengths[batch].sum() * self.tokens.ids.length)

    def loss(self, batch: IntArray) -> Tensor:
        """Minus the sum of the digits' log-probabilities."""
        return -self._log_p(self.rows.take(batch), self.run)

    def validate(self) -> dict[str, float]:
        """The judge's figures."""
        return self.judge()

    @torch.no_grad()
    def log_likelihood(self, rows: Rows) -> float:
        """Mean log-probability of the answers' ids."""
        groups = groups_by_length(rows, self.tokens.ids.length, self.config.micro_batch_tokens)
        total = sum(float(self._log_p(rows.take(group), self.run)) for group in groups)
        return total / max(1, int(rows.known.lengths.sum()))

    def _groups(self, rows: IntArray) -> list[IntArray]:
        chosen = self.rows.take(rows)
        groups = groups_by_length(chosen, self.tokens.ids.length, self.config.micro_batch_tokens)
        return [rows[group] for group in groups]

    def _log_p(self, rows: Rows, run: Callable[..., Tensor]) -> Tensor:
        device = next(self.module.parameters()).device
        no_item, questions = len(self.table_IL) - 1, int(rows.known.lengths.max())
        items_RN = rows.items.padded(int(rows.items.lengths.max()), no_item, "right")
        heads_R1 = self.tokens.heads(rows.user)[:, None]
        tokens_RS = np.concatenate([heads_R1, self.table_IL[items_RN].reshape(len(rows), -1)], 1)
        known_RM = rows.known.padded(questions, 0, "right").astype(np.int64)
        answers_RM = rows.answers.padded(questions, no_item, "right")
        asked_RM = np.arange(questions) < rows.known.lengths[:, None]
        tensors = (torch.from_numpy(a).to(device) for a in (tokens_RS, known_RM, self.table_IL[answers_RM]))
        log_RML = run(*tensors)
        return (log_RML.sum(2) * torch.from_numpy(asked_RM).to(device)).sum()


def groups_by_length(rows: Rows, length: int, tokens: int) -> list[IntArray]:
    """Row numbers ordered by length, in groups of about `tokens` tokens."""
    cost = 1 + length * (rows.items.lengths + rows.known.lengths)
    order = np.argsort(cost, kind="stable")
    group = (np.cumsum(cost[order]) - cost[order]) // tokens
    return np.split(order, np.flatnonzero(np.diff(group)) + 1)
