"""What a run's selectors chose, for its run card: a few samples of every score, groups, overlap and coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tandemrec.data.kinds import item_kinds
from tandemrec.data.split import Split
from tandemrec.experiment.choices import Choices
from tandemrec.experiment.recipe import Recipe
from tandemrec.experiment.stages import Choice
from tandemrec.selection.dealrec import DEALRecConfig
from tandemrec.selection.report import coverage_table, group_table, overlap_table
from tandemrec.selection.selector import FloatArray

POINTS = 250
"""Samples of a scatter that were chosen, and as many that were not."""


def selection_facts(choices: Choices, chosen: Mapping[str, Choice], split: Split) -> dict[str, Any]:
    """JSON-able: `examples`, `points` and `groups` by selector where it has them, `overlap`, `coverage`.

    Args:
        choices: of the run.
        chosen: by the system that learned from it.
        split: what was chosen from.
    """
    recipe = choices.stages.recipe
    named = {selector: choice for name, choice in chosen.items() if (selector := recipe.selector_of(name))}
    rows = {selector: choice.rows for selector, choice in named.items()}
    scores = {selector: choices.scores(choice) for selector, choice in named.items()}
    kinds = item_kinds(split.dataset.items, choices.config.category, "selection.category")
    return {
        "examples": len(split.train),
        "points": {
            selector: _points(columns, rows[selector])
            for selector, columns in scores.items()
            if {"influence", "effort"} <= set(columns)
        },
        "groups": groups_of(recipe, scores),
        "overlap": overlap_table(rows),
        "coverage": coverage_table(split, split.train, rows, kinds),
    }


ALL = "all"
"""The first row of `coverage_over_seeds`: what all training examples reach."""

COVERAGE = ("examples", "items", "mean_history", "popular_1")
"""Columns of `selection.report.coverage_table` that are kept of several trainings."""


def coverage_over_seeds(cards: Sequence[Mapping[str, Any]], systems: Sequence[str]) -> list[dict[str, Any]]:
    """What all examples reach, and those that systems learned from: means over the runs of a training.

    Args:
        cards: their run cards, of which all or none selected.
        systems: which ones, in this order; those that learned from everything are left out.

    Returns:
        Rows of `system` and the columns of `COVERAGE`; none where nobody learned from a choice, or a card is older than
        what it would tell.
    """
    if not all("selection" in card for card in cards):
        return []
    tables = [{row["selector"]: row for row in card["selection"]["coverage"]} for card in cards]
    selectors = {ALL: ALL} | {name: chosen["selector"] for name, chosen in cards[0]["chosen"].items()}
    return [
        {"system": system}
        | {column: float(np.mean([table[selectors[system]][column] for table in tables])) for column in COVERAGE}
        for system in (ALL, *systems)
        if system in selectors
    ]


def groups_of(recipe: Recipe, scores: Mapping[str, Mapping[str, FloatArray]]) -> dict[str, list[dict[str, Any]]]:
    """Score groups and their budgets of the selectors that draw from all of them, as far as there are scores."""
    selection = recipe.selection
    assert selection is not None
    return {
        name: group_table(scores[name]["overall"], config.groups, selection.budget_of(name))
        for name, config in selection.selectors.items()
        if name in scores
        and isinstance(config, DEALRecConfig)
        and config.sampling == "coverage"
        and not config.hard_prune
    }


def _points(scores: Mapping[str, FloatArray], rows: np.ndarray[Any, Any]) -> dict[str, list[list[float]]]:
    """Influence and effort of some samples, drawn the same way every time."""
    both = np.stack([scores["influence"], scores["effort"]], 1)
    others = np.setdiff1d(np.arange(len(both)), rows)
    rng = np.random.default_rng(0)
    found = {}
    for name, part in (("chosen", rows), ("others", others)):
        drawn = np.sort(rng.choice(part, min(POINTS, len(part)), replace=False)) if len(part) else part
        found[name] = [[float(f"{value:.4g}") for value in point] for point in both[drawn]]
    return found
