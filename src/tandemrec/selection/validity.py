"""Whether influence tells the truth: the linear datamodelling score (Park et al., ICML 2023).

The surrogate is trained again on random subsets; a good influence ranks the losses of these trainings as they come out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from pydantic import Field
from scipy.stats import rankdata

from tandemrec.data.examples import Examples, IntArray, ItemArray, Ragged
from tandemrec.data.split import Split
from tandemrec.recommender import Config, Recommender
from tandemrec.selection.selector import FloatArray
from tandemrec.selection.surrogate import Surrogate, SurrogateConfig


class ValidityConfig(Config):
    """How many trainings, on how much."""

    subsets: int = Field(50, ge=5)
    """Random subsets the surrogate is trained on."""

    share: float = Field(0.5, gt=0, lt=1)
    """Share of the samples in a subset."""

    trainings: int = Field(1, ge=1)
    """Trainings of a subset from different seeds, whose losses are averaged: they differ by chance as well."""

    confidence: float = Field(0.95, gt=0, lt=1)
    """Coverage of the interval."""

    resamples: int = Field(2000, ge=100)
    """Bootstrap samples of the subsets, for the interval."""


@dataclass(frozen=True)
class Validity:
    """What M trainings said.

    Attributes:
        score: Spearman correlation of predicted and actual loss.
        low: lower end of its confidence interval (bootstrap over subsets).
        high: upper end.
        predicted: (M,) summed influence of the samples left out.
        actual: (M,) mean loss after training without them.
        seconds: of all trainings.
    """

    score: float
    low: float
    high: float
    predicted: FloatArray
    actual: FloatArray
    seconds: float


def validity(
    scores: FloatArray, retrained_loss: Callable[[IntArray, int], float], config: ValidityConfig, seed: int = 0
) -> Validity:
    """Train on random subsets and compare.

    Args:
        scores: (B,) predicted change of the risk when a sample is removed.
        retrained_loss: (numbers of the samples that are kept, seed) → risk after training on them.
        config: how many trainings.
        seed: of subsets, trainings and the bootstrap.
    """
    rng, begin, n = np.random.default_rng(seed), time.perf_counter(), len(scores)
    predicted, actual = np.zeros(config.subsets), np.zeros(config.subsets)
    for m in range(config.subsets):
        kept = np.sort(rng.choice(n, round(config.share * n), replace=False))
        predicted[m] = scores.sum() - scores[kept].sum()
        actual[m] = np.mean([retrained_loss(kept, seed + training) for training in range(config.trainings)])
    seconds = time.perf_counter() - begin
    drawn = rng.integers(config.subsets, size=(config.resamples, config.subsets))
    outside = (1 - config.confidence) / 2
    low, high = np.quantile(rank_correlations(predicted[drawn], actual[drawn]), [outside, 1 - outside])
    score = float(rank_correlations(predicted[None], actual[None])[0])
    return Validity(score, float(low), float(high), predicted, actual, seconds)


def rank_correlations(one_RM: FloatArray, other_RM: FloatArray) -> FloatArray:
    """Spearman correlation of each pair of rows, (R,), equal values sharing their mean rank; 0 for a constant row."""
    ranks = [rankdata(rows, axis=1) for rows in (one_RM, other_RM)]
    a, b = (rank - rank.mean(1, keepdims=True) for rank in ranks)
    length = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    correlation: FloatArray = np.where(length > 0, (a * b).sum(1) / np.where(length > 0, length, 1), 0.0)
    return correlation


@dataclass(frozen=True)
class Retraining:
    """Loss of a surrogate after training on some of the users, for `validity`.

    Attributes:
        make: an untrained sequence model.
        split: whose sequences it learns from.
        examples: the samples, in the order of their scores; a sample that is left out takes its user's sequence along.
        risk: whose mean loss counts.
        config: the loss; seed 0 draws its negatives, so that all trainings are judged by the same ones.
    """

    make: Callable[[], Recommender]
    split: Split
    examples: Examples
    risk: Examples
    config: SurrogateConfig

    def __call__(self, kept: IntArray, seed: int) -> float:
        """Train on the users of the kept samples; the mean loss."""
        model = self.make()
        model.fit(without_others(self.split, self.examples.user[kept]), seed=seed)
        return mean_loss(Surrogate.of(model, self.config), self.risk)


def without_others(split: Split, users: IntArray | ItemArray) -> Split:
    """The split with the sequences of the given users only; the other users have empty ones."""
    sequences = split.sequences
    known = np.zeros(len(sequences), np.bool_)
    known[users] = True
    stops = np.where(known, sequences.stops, sequences.starts)
    return replace(split, sequences=Ragged(sequences.values, sequences.starts, stops))


@torch.no_grad()
def mean_loss(surrogate: Surrogate, examples: Examples, seed: int = 0) -> float:
    """Mean of the samples' losses; those without targets count 0."""
    samples, total = surrogate.samples(examples, seed), 0.0
    for batch in surrogate.batches(samples):
        total += float(surrogate.losses(surrogate(batch), batch).double() @ batch.weight_N.double())
    return total / len(samples)
