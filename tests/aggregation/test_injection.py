"""Statistical injection against the formula written out, and the choice of its strength."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tandemrec.aggregation.injection import Injection, InjectionConfig
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.evaluation.evaluate import validation_figures
from tests.fixed import Fixed

CONFIG = InjectionConfig(model="injection", base="BIGRec", prior="Popularity", strengths=(0.0, 0.5, 3.0))


@pytest.fixture
def systems(split: Split) -> tuple[Fixed, Fixed]:
    rng = np.random.default_rng(2)
    tables = (-rng.uniform(1, 9, (60, 24)), rng.integers(0, 9, (60, 24)).astype(float))
    base, prior = (Fixed(table) for table in tables)
    return base, prior


@pytest.mark.parametrize("strength", [0.0, 0.35, 7.0])
def test_scores_are_the_formula(systems: tuple[Fixed, Fixed], split: Split, strength: float) -> None:
    scores = Injection(CONFIG, *systems, strength).scores(split.test)
    for row, user in enumerate(split.test.user):
        distance = -systems[0].table[user].numpy().astype(float)
        prior = systems[1].table[user].numpy().astype(float)
        scaled = (distance - distance.min()) / (distance.max() - distance.min())
        weight = (prior - prior.min()) / (prior.max() - prior.min())
        np.testing.assert_allclose(scores[row].numpy(), -scaled * (1 + weight) ** -strength, rtol=1e-5, atol=1e-6)


def test_strength_is_the_best_on_validation_and_survives_saving(
    systems: tuple[Fixed, Fixed], split: Split, tmp_path: Path
) -> None:
    model = Injection(CONFIG, *systems)
    report = model.fit(split)
    values = {s: validation_figures(Injection(CONFIG, *systems, s), split.valid)["ndcg@10"] for s in CONFIG.strengths}
    assert values[model.strength] == max(values.values()) == report.best_value
    model.save(tmp_path)
    assert torch.equal(Injection.load(tmp_path, *systems).scores(split.test), model.scores(split.test))


def test_a_constant_prior_changes_no_rank(systems: tuple[Fixed, Fixed], split: Split) -> None:
    flat = Fixed(np.full((60, 24), 3.0))
    ranks = [Injection(CONFIG, systems[0], prior, 9.0).scores(split.test).argsort(1) for prior in (flat,)]
    assert torch.equal(ranks[0], systems[0].scores(split.test).argsort(1))


def test_a_system_without_scores_is_refused(systems: tuple[Fixed, Fixed]) -> None:
    with pytest.raises(InputError, match="key 'prior': 'Popularity' does not score the whole catalogue"):
        Injection(CONFIG, systems[0], object())  # type: ignore[arg-type]
