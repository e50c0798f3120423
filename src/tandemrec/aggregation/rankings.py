"""Adaptive aggregation of rankings: a recommender's first candidates in the order that it and a language model make."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tandemrec.aggregation.choice import Choice, Names
from tandemrec.aggregation.utilities import Scale, Utilities, mixed, opinions, places, reciprocal, scaled
from tandemrec.aggregation.weights import Activity, Weighting, WeightsConfig, fit_buckets, weightings
from tandemrec.data.examples import Examples, IntArray, ItemArray
from tandemrec.data.split import Split
from tandemrec.evaluation.metrics import ranking_metrics
from tandemrec.recommender import NO_ITEM, Config, FitReport, FloatArray, Recommender, Reranker


class RankingAggregateConfig(Config):
    """Llama4Rec's adaptive aggregation of a conventional recommender and a language model, and its alternatives."""

    model: Literal["aggregate"]
    """Which model this is."""

    base: str
    """The conventional system whose first candidates are put in order."""

    llm: Names
    """The system that is asked about them: a ranker, or any system that scores. Of several names (pointwise and
    listwise, say) the validation part chooses one."""

    candidates: int = Field(10, ge=2, le=1000)
    """Candidates k′; all items behind them keep their order."""

    weights: WeightsConfig = WeightsConfig()
    """How much the language model may say."""

    fusion: Literal["utilities", "reciprocal"] = "utilities"
    """`utilities`: U = α U_LLM + (1 − α) U_Rec; `reciprocal`: reciprocal-rank fusion with the same weights."""

    step: float = Field(1.0, gt=0)
    """C of U_Rec = −C · place."""

    scale: Scale = "rank"
    """Scale of the language model's utilities: its own places (missing candidates follow the named ones in the base's
    order), or its values as they are, or scaled for every example; but for `rank` and `raw` the base's −C · place is
    scaled in the same way."""

    smoothing: float = Field(60.0, ge=0)
    """k of reciprocal-rank fusion, α / (k + place)."""

    def partners(self) -> tuple[str, ...]:
        """Base first."""
        return tuple(dict.fromkeys((self.base, *self.llm)))


class RankingAggregate(Reranker):
    """U = α_u U_LLM + (1 − α_u) U_Rec over the base's first k′ items (eq. 6); ties keep the base's order."""

    def __init__(self, config: RankingAggregateConfig, *systems: Recommender, choice: Choice | None = None) -> None:
        """Configure.

        Args:
            config: the configuration.
            systems: trained, in the order of `config.partners()`.
            choice: which of `config.llm` is asked, and with which weights; `fit` chooses.
        """
        self.config, self.depth, self.choice = config, config.candidates, choice
        self.systems = dict(zip(config.partners(), systems, strict=True))
        self.base = self.systems[config.base]

    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        """Count interactions, and choose weights (and the system to ask) by NDCG@k′ on the validation part.

        Only examples whose target is among the candidates are asked: no order of them changes the others' NDCG.

        Raises:
            InputError: if weights are to be fitted and no validation example can tell them apart.
        """
        activity = Activity(split.user_counts)
        asked = _Asked.of(self.base, split.valid, self.config.candidates)
        counts_B = activity.of(asked.examples.user, asked.examples.seen.lengths)
        curve: list[dict[str, float]] = []
        found: list[tuple[str, Weighting]] = []
        for number, name in enumerate(self.config.llm):
            utility_BK = opinions(self.systems[name], name, asked.examples, asked.items)
            for weighting in self._tried(activity, counts_B, utility_BK, asked):
                gain = float(self._gains(utility_BK, weighting.weights(activity, counts_B), asked).sum())
                curve.append({"llm": float(number), **weighting.numbers(), "ndcg": gain / max(1, asked.judged)})
                found.append((name, weighting))
        best = max(range(len(curve)), key=lambda row: curve[row]["ndcg"])
        self.choice = Choice(*found[best], activity)
        return FitReport(best_value=curve[best]["ndcg"], curve=curve, notes=self.choice.notes() | asked.bounds())

    def _tried(self, activity: Activity, counts_B: IntArray, utility_BK: FloatArray, asked: _Asked) -> list[Weighting]:
        settings = self.config.weights
        if settings.method != "fitted":
            return list(weightings(settings))
        grid = sorted(set(settings.max_llm_weight))
        gain_BG = np.stack([self._gains(utility_BK, np.full(len(counts_B), a), asked) for a in grid], 1)
        return [fit_buckets(settings, activity.bucket(counts_B, settings.buckets), gain_BG)]

    def _gains(self, utility_BK: FloatArray, weight_B: NDArray[np.float64], asked: _Asked) -> NDArray[np.float64]:
        """NDCG of each asked example under weights."""
        aggregate_BK = self.aggregate(utility_BK, asked.items, weight_B)
        own = np.take_along_axis(aggregate_BK, asked.place[:, None], 1)
        earlier = np.arange(aggregate_BK.shape[1]) < asked.place[:, None]
        rank = ((aggregate_BK > own) | ((aggregate_BK == own) & earlier)).sum(1).astype(np.float64)
        depth = self.config.candidates
        return ranking_metrics(rank, np.arange(len(rank) + 1), (depth,))[f"ndcg@{depth}"]

    def aggregate(self, utility_BK: FloatArray, items_BK: ItemArray, weight_B: NDArray[np.float64]) -> Utilities:
        """The aggregated utilities (B, K) of the language model's and the base's order; −∞ where there is no item."""
        config = self.config
        rec_BK = np.broadcast_to(-np.arange(1, items_BK.shape[1] + 1) * config.step, items_BK.shape).astype(np.float32)
        if config.fusion == "reciprocal":
            found = reciprocal(utility_BK, rec_BK, weight_B, config.smoothing)
        else:
            llm_BK = scaled(utility_BK, config.scale, config.step)
            other: Scale = config.scale if config.scale in ("minmax", "zscore") else "raw"
            found = mixed(llm_BK, scaled(rec_BK, other, config.step), weight_B)
        return np.where(items_BK == NO_ITEM, -np.inf, found)

    def utilities(self, examples: Examples, items: ItemArray) -> FloatArray:
        """Aggregated utilities of given candidates, see `aggregate`.

        The language model is not asked about users for whom it has no weight.
        """
        choice = self._chosen()
        activity, name = choice.activity, choice.llm
        weight_B = choice.weighting.weights(activity, activity.of(examples.user, examples.seen.lengths))
        utility_BK, heard = np.full(items.shape, np.nan, np.float32), np.flatnonzero(weight_B)
        if len(heard):
            utility_BK[heard] = opinions(self.systems[name], name, examples.take(heard), items[heard])
        aggregate_BK = self.aggregate(utility_BK, items, weight_B)
        # As places: float32 could tie what float64 tells apart.
        return -places(aggregate_BK).astype(np.float32)

    def save(self, directory: Path) -> None:
        """`config.json` and the choice; the systems are saved by themselves."""
        choice = self._chosen()
        self.config.write(directory)
        choice.save(directory)

    @classmethod
    def load(cls, directory: Path, *partners: Recommender) -> Self:
        """Read what `save` wrote, over the same systems in the order of `config.partners()`."""
        return cls(RankingAggregateConfig.read(directory), *partners, choice=Choice.load(directory))

    def _chosen(self) -> Choice:
        if self.choice is None:
            raise RuntimeError("RankingAggregate must be fitted or loaded first")
        return self.choice


@dataclass(frozen=True)
class _Asked:
    """Validation examples with a target among the candidates.

    Attributes:
        examples: B of them.
        items: (B, K) candidates.
        place: (B,) 0-based place of the first target among them.
        judged: how many examples there are with and without.
        depth: K.
    """

    examples: Examples
    items: ItemArray
    place: IntArray
    judged: int
    depth: int

    @classmethod
    def of(cls, base: Recommender, examples: Examples, depth: int) -> _Asked:
        examples = examples.take(np.flatnonzero(examples.target.lengths > 0))
        items = base.rank(examples, depth).items[:, :depth]
        rows = examples.target.rows()
        hit = np.zeros(items.shape, bool)
        np.logical_or.at(hit, rows, items[rows] == examples.target.flat()[:, None])
        found = np.flatnonzero(hit.any(1))
        return cls(examples.take(found), items[found], hit[found].argmax(1), len(examples), depth)

    def bounds(self) -> dict[str, float]:
        """What no order of the candidates can exceed, and what a random one gives, on the validation part."""
        share = len(self.examples) / max(1, self.judged)
        mean_gain = float(np.mean(1 / np.log2(np.arange(self.depth) + 2)))
        return {"ceiling_hr": share, "shuffled_ndcg": share * mean_gain}
