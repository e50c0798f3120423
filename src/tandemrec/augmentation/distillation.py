"""Importance-aware ranking distillation and collaborative embedding distillation (DLLM2Rec, Cui et al., 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from tandemrec.augmentation.memory import standardised
from tandemrec.conventional.negatives import NegativeSampler
from tandemrec.conventional.sequential.batches import SequenceBatch
from tandemrec.conventional.sequential.dros import RobustNextItem
from tandemrec.conventional.sequential.losses import RowLoss, catalogue_loss, with_bias
from tandemrec.conventional.sequential.next_item import NextItem
from tandemrec.data.examples import IntArray, ItemArray, Ragged
from tandemrec.errors import InputError
from tandemrec.recommender import NO_ITEM, Config, mask_rows

LARGEST_EXPONENT = 80.0
"""exp of it is a float32, and so is the sum over a list."""

SCORED_AT_ONCE = 1 << 22
"""Scores that exist at once while the student's own lists are found: 16 MB in float32."""


class RankingDistillationConfig(Config):
    """L_d = −Σ_i w_i log σ(ŷ_i) over a teacher's list, w = γ_p w^p + γ_c w^c + γ_o w^o."""

    weight: float = Field(0.7, ge=0)
    """λ_d, the weight of the term beside the student's own loss; published searches are within .1 to 1. 0: none."""

    position: float = Field(0.3, ge=0)
    """γ_p of w^p ∝ exp(−place/β): the top of a list counts more."""

    confidence: float = Field(0.5, ge=0)
    """γ_c of w^c ∝ exp(−d): what the teacher is sure of counts more."""

    consistency: float = Field(0.1, ge=0)
    """γ_o of w^o, 1 for items that are among the student's own first K too, else 0. Where the teacher leaves out what
    the user has met (`lists.exclude_seen`), so does the student's list."""

    beta: float = Field(1.0, gt=0)
    """β: the smaller, the more the top of a list counts."""

    distance: Literal["listed", "target"] = "listed"
    """What d is. `listed`: the distance of each listed item, as in the authors' code; `target`: that between what the
    teacher wrote and the true next item, one a list, as in the paper, where `normalise` takes most of it away again."""

    scaling: Literal["min-max", "none"] = "min-max"
    """`min-max`: distances are scaled to 0…1 over all lists first. `none`: the authors' code; Euclidean distances of
    tens make all exp(−d) equal to the 1e-8 that is added, so that confidence says nothing."""

    normalise: bool = True
    """Divide the weights of a list by their sum, as published. With `false` and `distance: target` lists whose text was
    near the truth count more than others."""

    robust: bool = False
    """With a DROS student: α times DROS's robust term of every listed item as the target joins, by its weight, as in
    the authors' code (where a slip makes all weights equal); the paper has no such part."""

    negative: Literal["none", "bce", "code"] = "none"
    """What is added for one item that the user has not met. `none`: nothing, the paper's formula; `bce`:
    −log(1 − σ(ŷ⁻)); `code`: −log σ(1 − ŷ⁻), as the authors' code has it."""


@dataclass(frozen=True)
class TeacherLists:
    """A teacher's lists at n positions.

    Attributes:
        row_of_place: (values,) which list is about the item at a place of the split's values; -1: none.
        items_nK: listed items, `NO_ITEM` where there are fewer.
        fixed_nK: γ_p w^p + γ_c w^c, 0 where there is no item.
    """

    row_of_place: IntArray
    items_nK: Tensor
    fixed_nK: Tensor

    @classmethod
    def of(cls, frame: pl.DataFrame, places: int, config: RankingDistillationConfig) -> TeacherLists:
        """From the table of `ask_teacher` over a split with that many places; lists without any item teach nothing.

        Raises:
            InputError: if no list holds an item, or distances to the true next item are asked for and unknown.
        """
        frame = frame.filter(pl.col("items").list.max() != NO_ITEM)
        if not frame.height:
            raise InputError("the teacher recommends nothing at any training position, so there is nothing to distil")
        items_nK = torch.from_numpy(_matrix(frame["items"], np.int64))
        if config.distance == "target":
            if frame["target_distance"].null_count():
                raise InputError(
                    "key 'ranking.distance': the teacher scores no items, so its distance to the true one is unknown; "
                    "use 'listed'"
                )
            distance_nK = torch.from_numpy(frame["target_distance"].to_numpy().copy())[:, None].expand_as(items_nK)
        else:
            distance_nK = torch.from_numpy(_matrix(frame["distances"], np.float32))
        row_of_place = np.full(places, -1, np.int64)
        row_of_place[frame["place"].to_numpy()] = np.arange(frame.height)
        return cls(row_of_place, items_nK, fixed_weights(items_nK, distance_nK, config))

    def rows(self, targets: Ragged) -> IntArray:
        """Which list is about each entry of `targets.flat()`; -1: none."""
        rows: IntArray = self.row_of_place[targets.positions()]
        return rows


def _matrix(lists: pl.Series, dtype: type[np.generic]) -> NDArray[Any]:
    """Lists of one length as rows; nothing becomes NaN."""
    return lists.explode().to_numpy().astype(dtype).reshape(len(lists), -1)


def fixed_weights(items_nK: Tensor, distance_nK: Tensor, config: RankingDistillationConfig) -> Tensor:
    """γ_p w^p + γ_c w^c (n, K), what does not depend on the student; 0 where there is no item.

    w^p sums to one over a list, and so does w^c of listed distances; that of the distance to the target is one value a
    list.
    """
    real_nK = items_nK != NO_ITEM
    place_K = torch.arange(1, items_nK.shape[1] + 1, dtype=torch.float32)
    position_nK = torch.exp(-place_K / config.beta) * real_nK
    position_nK = position_nK / position_nK.sum(1, keepdim=True).clamp(min=1e-30)
    distance_nK = distance_nK.nan_to_num(0.0)
    if config.scaling == "min-max":
        low, high = distance_nK[real_nK].min(), distance_nK[real_nK].max()
        distance_nK = (distance_nK - low) / (high - low).clamp(min=1e-12)
    # A teacher's scores may be large and their distances far below 0, where exp has no number left.
    confidence_nK = (torch.exp(-distance_nK.clamp(min=-LARGEST_EXPONENT)) + 1e-8) * real_nK
    if config.distance == "listed":
        confidence_nK = confidence_nK / confidence_nK.sum(1, keepdim=True).clamp(min=1e-30)
    return config.position * position_nK + config.confidence * confidence_nK


def list_weights(
    fixed_nK: Tensor, items_nK: Tensor, own_nK: Tensor | None, config: RankingDistillationConfig
) -> Tensor:
    """All weights (n, K), given the student's own lists (n, K'), which consistency compares with."""
    weight_nK = fixed_nK
    if own_nK is not None:
        common_nK = (items_nK[:, :, None] == own_nK[:, None]).any(2)
        weight_nK = weight_nK + config.consistency * common_nK
    if config.normalise:
        weight_nK = weight_nK / weight_nK.sum(1, keepdim=True).clamp(min=1e-30)
    return weight_nK


def list_loss(
    score_nK: Tensor, weight_nK: Tensor, negative_n: Tensor | None, kind: Literal["none", "bce", "code"]
) -> Tensor:
    """−Σ w log σ(ŷ), and per list item what `kind` adds for its list's negative; summed over lists."""
    loss = -(weight_nK * F.logsigmoid(score_nK)).sum()
    if negative_n is None:
        return loss
    away_n = F.softplus(negative_n) if kind == "bce" else -F.logsigmoid(1 - negative_n)
    return loss + (weight_nK.sum(1) * away_n).sum()


def robust_lists(propensity_I: Tensor, items_nK: Tensor, weight_nK: Tensor) -> RowLoss:
    """Σ_k w_k log(Σ_i exp(p_i ŷ_i²) − exp(p_k ŷ_k²) + exp(p_k (ŷ_k − 1)²)), summed over lists, and its gradient.

    DROS's term with each listed item as the target in turn; the sum over the catalogue is formed once for all of them.
    As a `RowLoss` its targets are numbers of lists.
    """

    def row_loss(logits_nI: Tensor, row_n: Tensor) -> tuple[Tensor, Tensor]:
        items_rK, weight_rK = items_nK[row_n], weight_nK[row_n]
        item_rK = torch.where(items_rK == NO_ITEM, items_rK[:, :1], items_rK).clamp(min=0)
        p_rK, score_rK = propensity_I[item_rK], logits_nI.gather(1, item_rK)
        # Listed items are kept apart from the others, so that nothing large is added and taken away again.
        exponent_rI = (propensity_I * logits_nI.square()).scatter_(1, item_rK, -torch.inf)
        unlisted_r1 = exponent_rI.logsumexp(1, keepdim=True).clamp(min=torch.finfo(exponent_rI.dtype).min)
        square_rK = (p_rK * score_rK.square()).masked_fill(items_rK == NO_ITEM, -torch.inf)
        same_KK = torch.eye(items_rK.shape[1], dtype=torch.bool, device=items_rK.device)
        others_rKK = square_rK[:, None].masked_fill(same_KK, -torch.inf)
        hit_rK = p_rK * (score_rK - 1).square()
        value_rK = torch.logaddexp(torch.logaddexp(unlisted_r1, others_rKK.logsumexp(2)), hit_rK)
        pull_r1 = (weight_rK * (unlisted_r1 - value_rK).exp()).sum(1, keepdim=True)
        grad_rI = (exponent_rI - unlisted_r1).exp_().mul_(2 * propensity_I * logits_nI).mul_(pull_r1)
        other_rK = (weight_rK[:, :, None] * (others_rKK - value_rK[:, :, None]).exp()).sum(1)
        own_rK = weight_rK * (hit_rK - value_rK).exp() * (score_rK - 1)
        grad_rI.scatter_add_(1, item_rK, 2 * p_rK * (other_rK * score_rK + own_rK))
        return (weight_rK * value_rK).sum(), grad_rI

    return row_loss


class ListLesson:
    """The term of ranking distillation that joins a student's loss: see `NextItem.also`.

    The student's loss is a mean over all its positions; lists at a part of them stand for lists at all, so λ_d means
    the same however many there are.

    Attributes:
        used: positions that the student learns from and that have a list.
    """

    def __init__(
        self, task: NextItem, lists: TeacherLists, config: RankingDistillationConfig, *, only_unseen: bool
    ) -> None:
        """Over a student's task.

        Args:
            task: the student's.
            lists: the teacher's.
            config: how they count.
            only_unseen: whether the lists leave out what the user has met before.

        Raises:
            InputError: if no list is about a position that the student learns from.
        """
        self.task, self.lists, self.config, self.only_unseen = task, lists, config, only_unseen
        device = task.module.device
        self.items_nK, self.fixed_nK = lists.items_nK.to(device), lists.fixed_nK.to(device)
        targets = Ragged(task.rows.values, task.rows.starts + 1, task.rows.stops)
        self.used = int((lists.rows(targets) >= 0).sum())
        if not self.used:
            raise InputError("none of the teacher's lists is about a position that the student learns from")
        self.sampler = None
        if config.negative != "none":
            self.sampler = task.sampler or NegativeSampler(task.split.sequences, task.split.n_items)
        self.scale = config.weight * int(targets.lengths.sum()) / self.used

    def __call__(self, hidden_ND: Tensor, batch: SequenceBatch) -> Tensor:
        """The term of a micro-batch, given the states at its input positions."""
        targets = Ragged(batch.rows.values, batch.rows.starts + 1, batch.rows.stops)
        row_N = self.lists.rows(targets)
        at = np.flatnonzero(row_N >= 0)
        if not len(at):
            return hidden_ND.new_zeros(())
        module = self.task.module
        hidden_nD, row = hidden_ND[self.task.on_device(at)], self.task.on_device(row_N[at])
        items_nK = self.items_nK[row]
        table_ID, bias_I = module.item_table(), module.item_bias()
        own_nK = None
        if self.config.consistency:
            met = self._met(batch, targets, at) if self.only_unseen else None
            own_nK = own_lists(hidden_nD.detach(), table_ID.detach(), bias_I, items_nK.shape[1], met)
        weight_nK = list_weights(self.fixed_nK[row], items_nK, own_nK, self.config)
        score_nK = _scores(hidden_nD, table_ID, bias_I, items_nK.clamp(min=0))
        negative_n = None
        if self.config.negative != "none":
            drawn_n1 = self.task.on_device(self._negatives(batch, at))[:, None]
            negative_n = _scores(hidden_nD, table_ID, bias_I, drawn_n1)[:, 0]
        loss = list_loss(score_nK, weight_nK, negative_n, self.config.negative)
        if isinstance(self.task, RobustNextItem) and self.config.robust and self.task.alpha:
            term = robust_lists(self.task.propensity_I, items_nK, weight_nK)
            rows = torch.arange(len(at), device=hidden_nD.device)
            loss = loss + self.task.alpha * catalogue_loss(*with_bias(hidden_nD, table_ID, bias_I), rows, term)
        return self.scale * loss

    def _met(self, batch: SequenceBatch, targets: Ragged, at: IntArray) -> Ragged:
        """What the users had met before the chosen positions, also where the student no longer sees it."""
        histories = self.task.split.sequences
        return Ragged(histories.values, histories.starts[_owners(batch, at)], targets.positions()[at])

    def _negatives(self, batch: SequenceBatch, at: IntArray) -> ItemArray:
        """An item that the user has not met for each chosen position."""
        owner = _owners(batch, at)
        assert self.sampler is not None
        # A number of torch's own generator: its state is in every checkpoint.
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        return self.sampler.draw(owner, rng)


def _owners(batch: SequenceBatch, at: IntArray) -> IntArray:
    """The users of chosen positions of a micro-batch."""
    owners: IntArray = np.repeat(batch.owner, batch.rows.lengths - 1)[at]
    return owners


@torch.no_grad()
def own_lists(hidden_nD: Tensor, table_ID: Tensor, bias_I: Tensor | None, k: int, met: Ragged | None = None) -> Tensor:
    """The student's own first K items (n, K), found for a few positions at a time, without the items `met` (n rows).

    Where fewer than K items are left, met ones fill the rest; no list of a teacher holds them.
    """
    step = max(1, SCORED_AT_ONCE // len(table_ID))
    found = []
    for start in range(0, len(hidden_nD), step):
        scores = hidden_nD[start : start + step] @ table_ID.T
        if bias_I is not None:
            scores += bias_I
        if met is not None:
            mask_rows(scores, met.take(slice(start, start + step)))
        found.append(scores.topk(min(k, len(table_ID)), 1).indices)
    return torch.cat(found)


def _scores(hidden_nD: Tensor, table_ID: Tensor, bias_I: Tensor | None, items_nK: Tensor) -> Tensor:
    """Scores (n, K) of K items of each position."""
    scores = (hidden_nD[:, None] * table_ID[items_nK]).sum(2)
    return scores if bias_I is None else scores + bias_I[items_nK]


class Offset(nn.Module):
    """e_i = b_i + w_e (W z_i + c): a parametrisation of the item table over a teacher's item vectors z.

    The vectors are centred and scaled to variance one in each dimension, which W and c could undo: it changes where
    learning starts, not what can be learned.
    """

    z_IZ: Tensor

    def __init__(self, vectors_IZ: Tensor, dim: int, weight: float, seed: int) -> None:
        super().__init__()
        # Made again from the teacher when a training goes on, so checkpoints need not hold it.
        self.register_buffer("z_IZ", standardised(vectors_IZ), persistent=False)
        self.weight = weight
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.map = nn.Linear(vectors_IZ.shape[1], dim)

    def forward(self, b_ID: Tensor) -> Tensor:
        """The item table (I, D)."""
        e_ID: Tensor = b_ID + self.weight * self.map(self.z_IZ)
        return e_ID
