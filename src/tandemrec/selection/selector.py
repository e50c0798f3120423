"""The contract of selectors: as many of the examples as the budget says, by number."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tandemrec.data.examples import Examples, IntArray
from tandemrec.errors import InputError
from tandemrec.recommender import Config

FloatArray = NDArray[np.float64]


class AnySelectorConfig(Config):
    """What a recipe may say of every selector."""

    budget: int | None = Field(None, ge=1)
    """Examples that it chooses; null: the selection's `budget`."""

    surrogate: str | None = None
    """The sequence model of the recipe that it looks at; null: the selection's `surrogate`."""


class Selector(ABC):
    """Chooses training examples."""

    def select(self, examples: Examples, budget: int, seed: int = 0) -> IntArray:
        """The numbers of `budget` different examples, ascending.

        Args:
            examples: B candidates.
            budget: how many.
            seed: of everything random.

        Raises:
            InputError: if there are fewer candidates than the budget, or the budget is not positive.
        """
        if not 1 <= budget <= len(examples):
            raise InputError(f"the budget must lie between 1 and {len(examples):,} examples, found {budget:,}")
        return np.sort(self.choose(examples, budget, np.random.default_rng(seed)))

    @abstractmethod
    def choose(self, examples: Examples, budget: int, rng: np.random.Generator) -> IntArray:
        """The same for a budget that fits, in any order."""


class ScoredSelector(Selector):
    """A selector that gives every example a score; by itself it takes the highest ones."""

    @abstractmethod
    def scores(self, examples: Examples) -> FloatArray:
        """One finite figure an example, shape (B,); higher is wanted more."""

    def choose(self, examples: Examples, budget: int, rng: np.random.Generator) -> IntArray:
        """Take the highest scores; of equal ones those of a random order."""
        return highest(self.scores(examples), budget, rng)


def highest(scores: FloatArray, budget: int, rng: np.random.Generator) -> IntArray:
    """Numbers of the `budget` highest scores; equal scores are drawn from."""
    return np.lexsort((rng.random(len(scores)), -scores))[:budget].astype(np.int64)
