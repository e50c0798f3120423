"""The datamodelling score where influence is exact, where it is noise, and on a real retraining."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import spearmanr

from tandemrec.conventional.sequential.sasrec import SASRec, SASRecConfig
from tandemrec.data.examples import Examples, Ragged
from tandemrec.data.split import Split
from tandemrec.selection.block import BlockConfig
from tandemrec.selection.influence import InfluenceConfig, influence
from tandemrec.selection.surrogate import Surrogate, SurrogateConfig
from tandemrec.selection.validity import (
    Retraining,
    ValidityConfig,
    mean_loss,
    rank_correlations,
    validity,
    without_others,
)
from tandemrec.training import TrainingConfig
from tests.llm.conftest import split, toy  # noqa: F401
from tests.selection.test_influence import EXACT, Linear, fit


def test_influence_of_a_convex_model_foretells_retraining_and_noise_does_not() -> None:
    rng, n, n_items, decay = np.random.default_rng(1), 80, 6, 0.2
    pairs = torch.from_numpy(rng.integers(n_items, size=(n, 2)))
    network = Linear(n_items, 4)
    fit(pairs, network, decay, n)
    history = Ragged.from_lists(pairs[:, :1].tolist())
    target = Ragged.from_lists(pairs[:, 1:].tolist())
    examples = Examples(np.arange(n, dtype=np.int32), history, target, history, np.zeros(n, np.int64))
    config = InfluenceConfig(block=BlockConfig(parameters="all"), curvature="hessian", damping=decay, solver=EXACT)
    loss = SurrogateConfig(loss="softmax")
    scores = influence(Surrogate(network, 5, loss), examples, config).scores

    def retrained(kept: np.ndarray, seed: int) -> float:
        again = Linear(n_items, 4)
        fit(pairs[kept], again, decay, n)
        return mean_loss(Surrogate(again, 5, loss), examples)

    settings = ValidityConfig(subsets=25, share=0.8)
    told = validity(scores, retrained, settings, seed=2)
    assert told.score > 0.9
    assert told.low > 0.7
    assert told.low <= told.score <= told.high
    noise = validity(rng.normal(size=n), retrained, settings, seed=2)
    assert noise.low < 0 < noise.high or abs(noise.score) < 0.5
    np.testing.assert_array_equal(noise.actual, told.actual)


def test_rank_correlations_are_spearmans() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.integers(5, size=(6, 12)).astype(float), rng.normal(size=(6, 12))
    expected = [spearmanr(a, b).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(rank_correlations(one, other), expected)
    assert rank_correlations(np.ones((1, 4)), other[:1, :4]).tolist() == [0]


def test_retraining_leaves_users_out(split: Split) -> None:  # noqa: F811
    kept = without_others(split, np.array([3, 5]))
    assert np.flatnonzero(kept.sequences.lengths).tolist() == [3, 5]
    np.testing.assert_array_equal(kept.sequences[5], split.sequences[5])
    config = SASRecConfig(dim=4, blocks=1, max_length=8, loss="bce", training=TrainingConfig(epochs=1))
    last = np.flatnonzero(np.append(np.diff(split.train.user) != 0, True))
    examples = split.train.take(last)
    retraining = Retraining(lambda: SASRec(config), split, examples, examples, SurrogateConfig())
    some = np.arange(0, len(examples), 2)
    assert retraining(some, 1) == retraining(some, 1)
    assert retraining(some, 1) != retraining(some[:-1], 1)
