"""Every system against every other: intervals, p-values, and what this test set can tell apart at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from tandemrec.evaluation.by_user import influences, user_numbers
from tandemrec.evaluation.crossed import Crossed, SeedSpread, SeedSquares
from tandemrec.evaluation.significance import holm, permutation_p, resampled_means
from tandemrec.recommender import Config

ERRORS = {"rmse": "squared_error", "mae": "absolute_error"}
"""Metrics of ratings → column of an example's error."""

OVER_SEEDS = "t over users and moderated seeds"
"""The test of two systems that were trained several times."""

Repeats = Mapping[str, NDArray[np.float64]]
"""A system's values over users (U,) by the name of the repetition (training seed) that gave them."""


class ComparisonConfig(Config):
    """How differences are judged."""

    level: float = Field(0.95, gt=0.5, lt=1)
    """Coverage of intervals; 1 − level is the chance of a false alarm."""

    resamples: int = Field(10_000, ge=200)
    """Bootstrap draws and permutations; more are made where Holm's correction of many pairs needs finer p-values."""

    power: float = Field(0.8, gt=0.5, lt=1)
    """Chance with which the smallest resolvable difference is found."""

    seed: int = Field(0, ge=0)
    """Of draws and permutations."""


def user_values(per_example: pl.DataFrame, metric: str) -> NDArray[np.float64]:
    """One value a user, sorted by user id, whose plain mean is the metric over examples; shape (U,).

    Users, not examples, are independent of each other. A user's value is the mean over examples and the user's
    influence on it (see `by_user.influences`); with one example a user it is that example's. RMSE enters through its
    linearisation, v = e² / (2 RMSE) + RMSE / 2 (delta method).

    Args:
        per_example: `user` and the metric (ratings: squared_error, absolute_error), one row an example.
        metric: such as `ndcg@10` or `rmse`.
    """
    value = per_example[ERRORS.get(metric, metric)].to_numpy().astype(np.float64)
    if metric == "rmse":
        root = float(np.sqrt(value.mean()))
        value = value / (2 * root) + root / 2 if root else value
    values: NDArray[np.float64] = value.mean() + influences(value, user_numbers(per_example["user"].to_numpy()))
    return values


@dataclass(frozen=True)
class _Draws:
    """Bootstrap means of every system's every repetition over the same drawn users."""

    rows: dict[tuple[str, str], int]
    means: NDArray[np.float64]
    seed: int

    def of(self, system: str, repeats: Sequence[str]) -> NDArray[np.float64]:
        """Means of the system over drawn repetitions, R − 1 of R (Rao and Wu 1988), so that the spread is unbiased."""
        columns = self.means[:, [self.rows[system, repeat] for repeat in repeats]]
        n = len(repeats)
        if n == 1:
            return columns[:, 0]
        drawn = np.random.default_rng([self.seed, n]).integers(n, size=(len(columns), n - 1))
        means: NDArray[np.float64] = np.take_along_axis(columns, drawn, 1).mean(1)
        return means


def compare_systems(systems: Mapping[str, Repeats], config: ComparisonConfig) -> dict[str, Any]:
    """Mean and interval of every system; difference, interval and p-value of every pair, Holm-corrected.

    Pairs whose systems were trained several times are compared over the seeds that both have (in order, where they
    share none) by Student's t over users and seeds, the trainings' spread not below what those of all systems make
    likely (see `SeedSpread`); all others by permutation over users.

    Args:
        systems: at least one; all values over the same users in the same order.
        config: level, resamples, power, seed.

    Returns:
        JSON-able: `systems` (name → mean, errors, interval, repetitions), `pairs`, and `resolvable`: the median over
        pairs of the smallest difference found with the given power by one test, and among all pairs (Bonferroni).
    """
    stacked = np.stack([values for repeats in systems.values() for values in repeats.values()])
    keys = [(name, repeat) for name, repeats in systems.items() for repeat in repeats]
    draws = _Draws(
        {key: row for row, key in enumerate(keys)}, resampled_means(stacked, config.resamples, config.seed), config.seed
    )
    spread = SeedSpread.of(_seeds(repeats) for repeats in systems.values())
    judged = {name: _judged(name, repeats, draws, spread, config) for name, repeats in systems.items()}
    pairs = _pairs(systems, draws, spread, config)
    limits = {key: float(np.median([pair.pop(key) for pair in pairs])) for key in ("one_test", "all_tests") if pairs}
    return {"systems": judged, "pairs": pairs, "resolvable": limits}


def _values(repeats: Repeats) -> NDArray[np.float64]:
    """A system's values (R, U)."""
    return np.stack(list(repeats.values()))


def _seeds(repeats: Repeats) -> SeedSquares:
    return SeedSquares.of(_values(repeats))


def _judged(
    name: str, repeats: Repeats, draws: _Draws, spread: SeedSpread | None, config: ComparisonConfig
) -> dict[str, Any]:
    values_RU = _values(repeats)
    crossed = Crossed.of(values_RU, spread.of_difference(_seeds(repeats)) if spread else None)
    low, high = crossed.interval(draws.of(name, list(repeats)), config.level)
    return _errors(crossed) | {"low": low, "high": high, "repetitions": len(repeats)}


def _pairs(
    systems: Mapping[str, Repeats], draws: _Draws, spread: SeedSpread | None, config: ComparisonConfig
) -> list[dict[str, Any]]:
    names = list(combinations(systems, 2))
    if not names:
        return []
    rows, differences = [], []
    for one, other in names:
        mine, rivals = _shared(systems[one], systems[other])
        difference = np.stack(
            [systems[one][left] - systems[other][right] for left, right in zip(mine, rivals, strict=True)]
        )
        seeds = spread.of_difference(_seeds(systems[one]), _seeds(systems[other])) if spread else None
        crossed = Crossed.of(difference, seeds)
        low, high = crossed.interval(draws.of(one, mine) - draws.of(other, rivals), config.level)
        resolved = (
            crossed.resolvable(level, config.power) for level in (config.level, 1 - (1 - config.level) / len(names))
        )
        differences.append(difference.mean(0))
        rows.append(
            {"system": one, "other": other, "repetitions": len(mine)}
            | {"difference": crossed.mean, "standard_error": crossed.standard_error, "low": low, "high": high}
            | {"test": OVER_SEEDS if len(mine) > 1 else "permutation over users"}
            | {"p_value": crossed.p_value()}
            | dict(zip(("one_test", "all_tests"), resolved, strict=True))
        )
    permuted = [place for place, row in enumerate(rows) if row["repetitions"] == 1]
    if permuted:
        enough = max(config.resamples, 50 * len(names))
        found = permutation_p(np.stack([differences[place] for place in permuted]), enough, config.seed)
        for place, p_value in zip(permuted, found, strict=True):
            rows[place]["p_value"] = float(p_value)
    for row, corrected in zip(rows, holm(np.array([row["p_value"] for row in rows])), strict=True):
        row["p_holm"] = float(corrected)
    return rows


def _shared(one: Repeats, other: Repeats) -> tuple[list[str], list[str]]:
    """Repetitions of the two to be compared: those of the same name, else the first of each with the first."""
    both = [repeat for repeat in one if repeat in other]
    n = min(len(one), len(other))
    return (both, both) if both else (list(one)[:n], list(other)[:n])


def _errors(crossed: Crossed) -> dict[str, float]:
    return {
        "mean": crossed.mean,
        "standard_error": crossed.standard_error,
        "seed_error": crossed.seed_error,
        "user_error": crossed.user_error,
    }


def mean_and_errors(repeats: Repeats) -> dict[str, float]:
    """Mean of a system's repetitions with its standard errors: over seeds and users, over seeds, over users."""
    return _errors(Crossed.of(_values(repeats)))
