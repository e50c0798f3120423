"""One evaluator for every recommender."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import polars as pl
from pydantic import Field, field_validator, model_validator

from tandemrec.data.examples import Examples
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.evaluation.metrics import FloatArray, ranking_metrics
from tandemrec.recommender import BoolArray, Config, Recommender, Scorer, mask_scores, score_blocks


class EvaluationConfig(Config):
    """How systems are judged; every choice is printed beside the numbers."""

    cutoffs: tuple[int, ...] = Field((5, 10, 20), min_length=1)
    """The Ks of HR@K, NDCG@K, …"""

    headline: str = "ndcg@10"
    """The metric the leaderboard is sorted by; its K must be one of the cutoffs."""

    part: Literal["test", "valid"] = "test"
    """Which part judges."""

    exclude_seen: bool = True
    """Leave out what the user has met before, except the target itself where the user meets it again."""

    candidates: Literal["all", "train"] = "all"
    """`train`: only items with a training interaction may be recommended."""

    unreachable: Literal["miss", "skip"] = "miss"
    """Targets that are no candidates count as missed, or are left out of the mean."""

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
        return f"Candidates: {catalogue}, {seen}; unreachable targets are {missed}; ties take their average rank."


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one system.

    Attributes:
        per_example: one row an example: example, user (original id), rank (of its best target), and every metric.
        config: how they were measured.
    """

    per_example: pl.DataFrame
    config: EvaluationConfig

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Metric name → mean and standard error over examples."""
        n = self.per_example.height
        out = {}
        for name in self.per_example.columns[3:]:
            values = self.per_example[name].to_numpy()
            error = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0
            out[name] = {"mean": float(values.mean()), "standard_error": error}
        return out

    def summary(self) -> dict[str, Any]:
        """JSON-able: metrics, number of examples, part, protocol."""
        facts = {"part": self.config.part, "n": self.per_example.height, "protocol": self.config.protocol()}
        return {"metrics": self.metrics, **facts}


def evaluate(recommender: Recommender, split: Split, config: EvaluationConfig | None = None) -> Evaluation:
    """Judge a recommender on a part of a split.

    Raises:
        InputError: if no example of the part can be judged.
    """
    config = config or EvaluationConfig()
    examples: Examples = getattr(split, config.part)
    candidates = split.item_counts > 0 if config.candidates == "train" else None
    rows = np.flatnonzero(examples.target.lengths > 0)
    if candidates is not None and config.unreachable == "skip":
        reachable = np.zeros(len(examples), bool)
        np.logical_or.at(reachable, examples.target.rows(), candidates[examples.target.flat()])
        rows = rows[reachable[rows]]
    if not len(rows):
        raise InputError(f"the {config.part} part has no example that can be judged")
    judged = examples.take(rows)
    ranks = target_ranks(recommender, judged, config.exclude_seen, candidates, max(config.cutoffs))
    offsets = np.concatenate([[0], np.cumsum(judged.target.lengths)])
    if candidates is not None and config.unreachable == "skip":
        kept = candidates[judged.target.flat()]
        offsets = np.concatenate([[0], np.cumsum(np.bincount(judged.target.rows()[kept], minlength=len(rows)))])
        ranks = ranks[kept]
    frame = pl.DataFrame(
        {
            "example": rows,
            "user": split.dataset.users["user_id"].gather(judged.user),
            "rank": np.minimum.reduceat(ranks, offsets[:-1]),
            **ranking_metrics(ranks, offsets, config.cutoffs),
        }
    )
    return Evaluation(frame, config)


def validation_figures(scorer: Scorer, examples: Examples, k: int = 10) -> dict[str, float]:
    """What training watches: NDCG@k, by which the epoch is chosen, and HR@k; all items, seen ones excluded."""
    ranks = target_ranks(scorer, examples, exclude_seen=True, candidates=None, depth=k)
    offsets = np.concatenate([[0], np.cumsum(examples.target.lengths)])
    metrics = ranking_metrics(ranks, offsets, (k,))
    return {name: float(metrics[name].mean()) for name in (f"ndcg@{k}", f"hr@{k}")}


def target_ranks(
    recommender: Recommender, examples: Examples, exclude_seen: bool, candidates: BoolArray | None, depth: int
) -> FloatArray:
    """Ranks of all targets, example after example (see `metrics`); +∞ for a target that is no candidate.

    A `Scorer` is asked for all scores, block by block on its own device. Any other recommender is asked for a list of
    `depth` items; a target beyond it has rank +∞.
    """
    if isinstance(recommender, Scorer):
        return _counted_ranks(recommender, examples, exclude_seen, candidates)
    ranking = recommender.rank(examples, depth, exclude_seen=exclude_seen, candidates=candidates)
    rows, targets = examples.target.rows(), examples.target.flat()
    hit = ranking.items[rows] == targets[:, None]
    scores = ranking.scores[rows]
    own = np.where(hit, scores, -np.inf).max(1, keepdims=True)
    above, equal = (scores > own).sum(1), (scores == own).sum(1)
    return np.where(hit.any(1), above + (equal - 1) / 2, np.inf)


def _counted_ranks(scorer: Scorer, examples: Examples, exclude_seen: bool, candidates: BoolArray | None) -> FloatArray:
    import torch

    found = []
    for block, scores in score_blocks(scorer, examples):
        rows = torch.from_numpy(block.target.rows()).to(scores.device)
        targets = torch.from_numpy(block.target.flat().astype(np.int64)).to(scores.device)
        own = scores[rows, targets]
        masked = mask_scores(scores, block, exclude_seen=exclude_seen, candidates=candidates)
        # A target the user meets again is among the seen items; it competes all the same.
        masked[rows, targets] = own
        above, equal = _count(masked, rows, own)
        rank = above + (equal - 1) / 2
        if candidates is not None:
            reachable = torch.from_numpy(candidates).to(scores.device)[targets]
            rank = torch.where(reachable, rank, torch.inf)
        found.append(rank.double().cpu().numpy())
    return np.concatenate(found)


def _count(scores: Any, rows: Any, own: Any) -> tuple[Any, Any]:
    """Items above and at each target's score, in slices, so that many targets a row do not copy the scores often."""
    import torch

    step = max(1, scores.shape[0])
    pieces = [
        (
            (scores[rows[at : at + step]] > own[at : at + step, None]).sum(1),
            (scores[rows[at : at + step]] == own[at : at + step, None]).sum(1),
        )
        for at in range(0, len(rows), step)
    ]
    return torch.cat([above for above, _ in pieces]), torch.cat([equal for _, equal in pieces])
