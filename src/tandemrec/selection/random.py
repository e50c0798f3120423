"""Random selection: the baseline every selector must beat."""

from __future__ import annotations

from typing import Literal

import numpy as np

from tandemrec.data.examples import Examples, IntArray
from tandemrec.selection.selector import AnySelectorConfig, Selector


class RandomConfig(AnySelectorConfig):
    """Nothing to choose."""

    selector: Literal["random"] = "random"
    """Which selector this is."""


class Random(Selector):
    """Uniform, without replacement."""

    def choose(self, examples: Examples, budget: int, rng: np.random.Generator) -> IntArray:
        """Any examples."""
        return rng.choice(len(examples), budget, replace=False)
