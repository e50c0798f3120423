"""The best system by validation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tandemrec.aggregation.best import Best, BestConfig
from tandemrec.conventional.direct.ease import EASE, EASEConfig
from tandemrec.conventional.popularity import Popularity, PopularityConfig
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.sources import load_dataset
from tandemrec.data.sources.sample import Sample
from tandemrec.data.split import Split, make_split
from tandemrec.errors import InputError
from tandemrec.evaluation.evaluate import validation_figures


@pytest.fixture(scope="module")
def split() -> Split:
    return make_split(load_dataset(Sample()), LeaveOneOut())


def test_chooses_on_validation_and_answers_as_the_chosen(split: Split, tmp_path: Path) -> None:
    systems = {"Popularity": Popularity(PopularityConfig()), "EASE": EASE(EASEConfig(l2=100))}
    for system in systems.values():
        system.fit(split)
    best = Best(BestConfig(model="best", among=("Popularity", "EASE")), *systems.values())
    report = best.fit(split)
    figures = {name: validation_figures(system, split.valid)["ndcg@10"] for name, system in systems.items()}
    assert best.chosen == max(figures, key=lambda name: figures[name]) == report.notes["chosen"]
    assert report.best_value == max(figures.values())
    assert torch.equal(best.scores(split.test), systems[best.chosen].scores(split.test))
    assert best.rows_at_once(500) == systems["EASE"].rows_at_once(500)
    systems["EASE"].rows_at_once = lambda n_items: 7  # type: ignore[method-assign]
    assert best.rows_at_once(500) == 7
    best.save(tmp_path)
    again = Best.load(tmp_path, *systems.values())
    assert torch.equal(again.scores(split.test), best.scores(split.test))


def test_a_system_without_scores_is_refused() -> None:
    with pytest.raises(InputError, match="key 'among': 'B' does not score"):
        Best(BestConfig(model="best", among=("A", "B")), Popularity(PopularityConfig()), object())  # type: ignore[arg-type]
