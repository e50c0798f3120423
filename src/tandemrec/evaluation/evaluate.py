"""One evaluator for every recommender."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import polars as pl
from pydantic import Field, field_validator, model_validator

from tandemrec.data.examples import Examples, IntArray, ItemArray, Ragged
from tandemrec.data.kinds import item_kinds
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.evaluation.beyond import beyond_accuracy
from tandemrec.evaluation.by_user import standard_error, user_numbers
from tandemrec.evaluation.metrics import FloatArray, ranking_metrics
from tandemrec.evaluation.sampled import SampledCandidates
from tandemrec.evaluation.segments import ranking_segments
from tandemrec.recommender import (
    NO_ITEM,
    BoolArray,
    Config,
    Ranking,
    Recommender,
    Scorer,
    mask_scores,
    score_blocks,
    stable_topk,
)

if TYPE_CHECKING:
    from torch import Tensor


Ties = Literal["mean", "optimistic", "pessimistic"]

SHARE_ABOVE: dict[Ties, float] = {"mean": 0.5, "optimistic": 0.0, "pessimistic": 1.0}
"""Share of the other items of a target's score that count as above it."""


class EvaluationConfig(Config):
    """How systems are judged; every choice is printed beside the numbers.

    The defaults are the proper way; the other values are there to meet what a paper did.
    """

    lower_is_better: ClassVar[bool] = False

    task: Literal["ranking"] = "ranking"
    """What is judged."""

    cutoffs: tuple[int, ...] = Field((5, 10, 20), min_length=1)
    """The Ks of HR@K, NDCG@K, …"""

    headline: str = "ndcg@10"
    """The metric the leaderboard is sorted by; its K must be one of the cutoffs."""

    part: Literal["test", "valid"] = "test"
    """Which part judges."""

    exclude_seen: bool = True
    """Leave out what the user has met before, as a service would. A target the user meets again is then unreachable:
    to leave only the target in would tell the system which of the seen items comes back."""

    candidates: Literal["all", "train"] = "all"
    """`train`: only items with a training interaction may be recommended."""

    unreachable: Literal["miss", "skip"] = "miss"
    """Targets that may not be recommended (no candidates, or seen and excluded) count as missed, or are left out of the
    mean. Targets that a system could have recommended and did not are missed either way."""

    sampled: SampledCandidates | None = None
    """Rank the targets among a few drawn items alone; null: among the whole catalogue."""

    ties: Ties = "mean"
    """Rank of a target among items of its score: the average one, the first (`optimistic`, code that counts the items
    above), or the last."""

    groups: int = Field(4, ge=1, le=100)
    """Groups of about equal size, by training interactions of the user and of the target, whose accuracy is shown
    apart; cold users and targets are a group of their own."""

    kinds: str | None = None
    """Item column whose texts say how alike items are, for the diversity of lists; null: the first there is of
    genres, genre, categories, category, main_category, series."""

    @field_validator("cutoffs")
    @classmethod
    def _ascending(cls, cutoffs: tuple[int, ...]) -> tuple[int, ...]:
        if any(k < 1 for k in cutoffs):
            raise ValueError(f"cutoffs must be at least 1, found {min(cutoffs)}")
        return tuple(sorted(set(cutoffs)))

    @model_validator(mode="after")
    def _headline_is_measured(self) -> Self:
        known = [f"{metric}@{k}" for metric in ("hr", "recall", "ndcg", "mrr") for k in self.cutoffs]
        if self.headline not in known:
            raise ValueError(f"headline must be one of {', '.join(known)}, found '{self.headline}'")
        return self

    def protocol(self) -> str:
        """One line that names every choice."""
        seen = "seen items excluded" if self.exclude_seen else "seen items NOT excluded"
        catalogue = "all items" if self.candidates == "all" else "items of the training part"
        missed = "missed" if self.unreachable == "miss" else "left out of the mean"
        if self.sampled is not None:
            catalogue = f"{self.sampled.words()} from {catalogue}"
        ties = {
            "mean": "ties take their average rank",
            "optimistic": "of ties the target comes FIRST",
            "pessimistic": "of ties the target comes LAST",
        }[self.ties]
        return f"Candidates: {catalogue}, {seen}; unreachable targets are {missed}; {ties}."


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one system.

    Attributes:
        per_example: one row an example: example, user (original id), rank (of its best target, 0-based, +∞ where it was
            not ranked), and every metric.
        config: how they were measured.
        targets: different targets of all examples of the part.
        unreachable: how many of them could not be recommended.
        lists: the first items of every example's ranking of the catalogue (also where ranks are among drawn items),
            (B, K of the headline metric), −1 where there are fewer; None where they were not asked for.
        segments: accuracy by user activity and item popularity, see `ranking_segments`.
        beyond: what the lists are like, see `beyond_accuracy`; empty without lists.
    """

    per_example: pl.DataFrame
    config: EvaluationConfig
    targets: int
    unreachable: int
    lists: ItemArray | None
    segments: dict[str, list[dict[str, Any]]]
    beyond: dict[str, float]

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Metric name → mean over examples and its standard error over users."""
        user = user_numbers(self.per_example["user"].to_numpy())
        measured = {name: self.per_example[name].to_numpy() for name in self.per_example.columns[3:]}
        return {
            name: {"mean": float(values.mean()), "standard_error": standard_error(values, user)}
            for name, values in measured.items()
        }

    def summary(self) -> dict[str, Any]:
        """JSON-able: metrics, part, number of examples, targets and unreachable targets, protocol, segments, beyond."""
        facts = {"part": self.config.part, "n": self.per_example.height, "protocol": self.config.protocol()}
        counts = {"targets": self.targets, "unreachable": self.unreachable}
        return {"metrics": self.metrics, **facts, **counts, "segments": self.segments, "beyond": self.beyond}


def evaluate(
    recommender: Recommender, split: Split, config: EvaluationConfig | None = None, *, lists: bool = False
) -> Evaluation:
    """Judge a recommender on a part of a split. Several equal targets of one example count as one.

    Args:
        recommender: what is judged.
        split: whose part is asked.
        config: how.
        lists: keep the recommended items too, and say what they are like; takes about as long as the counting.

    Raises:
        InputError: if no example of the part can be judged, items are to be drawn for a recommender without scores, the
            items lack the named column, or a score is not a number.
    """
    config = config or EvaluationConfig()
    candidates = split.item_counts > 0 if config.candidates == "train" else None
    examples = _different_targets(getattr(split, config.part))
    reachable = _reachable(examples, config.exclude_seen, candidates)
    targets, lost = len(reachable), int((~reachable).sum())
    if config.unreachable == "skip":
        lengths = np.bincount(examples.target.rows()[reachable], minlength=len(examples))
        examples = replace(examples, target=Ragged.from_lengths(examples.target.flat()[reachable], lengths))
        reachable = reachable[reachable]
    rows = np.flatnonzero(examples.target.lengths > 0)
    if not len(rows):
        raise InputError(f"the {config.part} part has no example that can be judged")
    judged = examples.take(rows)
    kinds = item_kinds(split.dataset.items, config.kinds, "evaluation.kinds") if lists else None
    shape = len(judged), int(config.headline.partition("@")[2])
    listed = np.full(shape, NO_ITEM, np.int32) if lists else None
    ranks = _ranks(recommender, judged, split, config, candidates, listed)
    ranks = np.where(reachable, ranks, np.inf)
    user = judged.user[judged.target.rows()]
    segments = ranking_segments(
        ranks,
        user,
        split.user_counts[user],
        split.item_counts[judged.target.flat()],
        headline=config.headline,
        groups=config.groups,
    )
    beyond = {} if listed is None else beyond_accuracy(listed, split.item_counts, kinds)
    frame = _per_example(rows, judged, ranks, split, config)
    return Evaluation(frame, config, targets, lost, listed, segments, beyond)


def _ranks(
    recommender: Recommender,
    judged: Examples,
    split: Split,
    config: EvaluationConfig,
    candidates: BoolArray | None,
    listed: ItemArray | None,
) -> FloatArray:
    """Ranks of all targets, see `target_ranks`, among the whole catalogue or among the items that are drawn."""
    if config.sampled is None:
        return target_ranks(
            recommender,
            judged,
            exclude_seen=config.exclude_seen,
            candidates=candidates,
            depth=max(config.cutoffs),
            ties=config.ties,
            lists=listed,
        )
    if not isinstance(recommender, Scorer):
        raise InputError(
            f"key 'evaluation.sampled': {type(recommender).__name__} answers with lists, expected a system that "
            "scores every item"
        )
    draw = partial(config.sampled.draw, counts_I=split.item_counts)
    return _counted_ranks(recommender, judged, config.exclude_seen, candidates, config.ties, listed, draw)


def _per_example(
    rows: IntArray, judged: Examples, ranks: FloatArray, split: Split, config: EvaluationConfig
) -> pl.DataFrame:
    offsets = np.concatenate([[0], np.cumsum(judged.target.lengths)])
    frame = pl.DataFrame(
        {
            "example": rows,
            "user": split.dataset.users["user_id"].gather(judged.user),
            "rank": np.minimum.reduceat(ranks, offsets[:-1]),
            **ranking_metrics(ranks, offsets, config.cutoffs),
        }
    )
    if config.headline not in frame.columns:  # Recall, which is HR where every example has one target.
        frame = frame.with_columns(pl.col(config.headline.replace("recall", "hr")).alias(config.headline))
    return frame


def validation_figures(recommender: Recommender, examples: Examples) -> dict[str, float]:
    """Mean NDCG@10 and HR@10 over all items, seen ones excluded: what training chooses its epoch by."""
    examples = _different_targets(examples)
    ranks = target_ranks(recommender, examples, exclude_seen=True, candidates=None, depth=10)
    metrics = ranking_metrics(ranks, np.concatenate([[0], np.cumsum(examples.target.lengths)]), (10,))
    return {name: float(metrics[name].mean()) for name in ("ndcg@10", "hr@10")}


def target_ranks(
    recommender: Recommender,
    examples: Examples,
    *,
    exclude_seen: bool,
    candidates: BoolArray | None,
    depth: int,
    ties: Ties = "mean",
    lists: ItemArray | None = None,
) -> FloatArray:
    """Ranks of all targets, example after example (see `metrics`); +∞ for a target that may not be recommended.

    A `Scorer` is asked for all scores, block by block on its own device. Any other recommender is asked for a list of
    `depth` items; a target beyond it has rank +∞. The first K items of every example, of equal scores the lower id
    first, are written into `lists` (B, K), where it is given and K is at most `depth`.

    Raises:
        InputError: if a score is not a number, which would compare as neither above nor below and look like a hit.
    """
    if isinstance(recommender, Scorer):
        return _counted_ranks(recommender, examples, exclude_seen, candidates, ties, lists)
    ranking = recommender.rank(examples, depth, exclude_seen=exclude_seen, candidates=candidates)
    if np.isnan(ranking.scores).any():
        raise diverged(recommender, "scores")
    if lists is not None:
        lists[:] = ranking.items[:, : lists.shape[1]]
    return _listed_ranks(ranking, examples.target, ties)


def diverged(system: object, what: str) -> InputError:
    """The error of a system whose `what` (scores, ratings) are not all numbers."""
    return InputError(
        f"{type(system).__name__} predicts {what} that are not numbers: its training diverged; lower "
        "training.learning_rate"
    )


def _listed_ranks(ranking: Ranking, targets: Ragged, ties: Ties) -> FloatArray:
    rows = targets.rows()
    hit = ranking.items[rows] == targets.flat()[:, None]
    scores = ranking.scores[rows]
    own = np.where(hit, scores, -np.inf).max(1, keepdims=True, initial=-np.inf)
    above, equal = (scores > own).sum(1), (scores == own).sum(1)
    return np.where(hit.any(1), above + (equal - 1) * SHARE_ABOVE[ties], np.inf)


def _counted_ranks(
    scorer: Scorer,
    examples: Examples,
    exclude_seen: bool,
    candidates: BoolArray | None,
    ties: Ties,
    lists: ItemArray | None = None,
    draw: Callable[[ItemArray, BoolArray], BoolArray] | None = None,
) -> FloatArray:
    import torch

    # Filled in place: small results kept between large temporary ones would keep the allocator from reusing these.
    found, at, row = np.empty(len(examples.target.flat())), 0, 0
    for block, scores in score_blocks(scorer, examples):
        # One sum is quicker than asking every score; of +∞ and −∞ it is not a number either, so then they are asked.
        if bool(torch.isnan(scores.sum())) and bool(torch.isnan(scores).any()):
            raise diverged(scorer, "scores")
        mask_scores(scores, block, exclude_seen=exclude_seen, candidates=candidates)
        rows = torch.from_numpy(block.target.rows()).to(scores.device)
        targets = torch.from_numpy(block.target.flat().astype(np.int64)).to(scores.device)
        own = scores[rows, targets]
        if lists is not None:
            best = stable_topk(scores, min(lists.shape[1], scores.shape[1]))
            best[torch.isneginf(scores.gather(1, best))] = NO_ITEM
            lists[row : row + len(block), : best.shape[1]] = best.cpu().numpy()
            row += len(block)
        if draw is not None:
            # Whatever the system scores, the same items may be drawn.
            open_BI = torch.zeros_like(scores)
            mask_scores(open_BI, block, exclude_seen=exclude_seen, candidates=candidates)
            open_BI[rows, targets] = -torch.inf
            drawn_BI = draw(block.user, (open_BI == 0).cpu().numpy())
            scores[~torch.from_numpy(drawn_BI).to(scores.device)] = -torch.inf
            scores[rows, targets] = own
        above, equal = _count(scores, rows, own)
        rank = torch.where(torch.isneginf(own), torch.inf, above + (equal - 1) * SHARE_ABOVE[ties])
        found[at : at + len(rank)] = rank.cpu().numpy()
        at += len(rank)
    return found


def _count(scores: Tensor, rows: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Items above and at each target's score, in slices, so that many targets a row do not copy the scores often.

    Comparisons are written and summed as float32, several times as fast as truth values on a processor, and exact below
    2²⁴ items.
    """
    import torch

    step = len(scores)
    one_each = len(rows) == step and bool((rows[1:] > rows[:-1]).all())
    verdict = torch.empty_like(scores, dtype=torch.float32)
    above, equal = [], []
    for at in range(0, len(rows), step):
        mine, rival = own[at : at + step, None], scores if one_each else scores[rows[at : at + step]]
        out = verdict[: len(rival)]
        above.append(torch.gt(rival, mine, out=out).sum(1))
        equal.append(torch.eq(rival, mine, out=out).sum(1))
    return torch.cat(above), torch.cat(equal)


def _different_targets(examples: Examples) -> Examples:
    """Of equal targets of one example only the first."""
    rows = examples.target.rows()
    _, first = np.unique(_pairs(examples.target), return_index=True)
    if len(first) == len(rows):
        return examples
    first.sort()
    lengths = np.bincount(rows[first], minlength=len(examples))
    return replace(examples, target=Ragged.from_lengths(examples.target.flat()[first], lengths))


def _reachable(examples: Examples, exclude_seen: bool, candidates: BoolArray | None) -> BoolArray:
    """Which of all targets, example after example, may be recommended at all."""
    targets = examples.target.flat()
    reachable = np.ones(len(targets), bool) if candidates is None else candidates[targets]
    if exclude_seen and bool((examples.target.lengths == 1).all()):
        met = np.flatnonzero(examples.seen.flat() == np.repeat(targets, examples.seen.lengths))
        reachable[np.searchsorted(np.cumsum(examples.seen.lengths), met, side="right")] = False
    elif exclude_seen:
        reachable &= ~np.isin(_pairs(examples.target), _pairs(examples.seen))
    return reachable


def _pairs(rows: Ragged) -> IntArray:
    """One number for every (row, item)."""
    pairs: IntArray = rows.rows() << 32 | rows.flat()
    return pairs
