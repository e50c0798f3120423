"""CCS: coverage-centric coreset selection (Zheng et al., ICLR 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from tandemrec.data.examples import Examples, IntArray
from tandemrec.selection.coverage import coverage_sample
from tandemrec.selection.el2n import margins, mean_error_norms
from tandemrec.selection.selector import AnySelectorConfig, FloatArray, ScoredSelector
from tandemrec.selection.surrogate import Surrogate


class CCSConfig(AnySelectorConfig):
    """Leave out the hardest, then sample over the whole range of difficulty."""

    selector: Literal["ccs"] = "ccs"
    """Which selector this is."""

    importance: Literal["el2n", "aum"] = "el2n"
    """Difficulty: EL2N, as in DEALRec's comparison, or the margin over snapshots of one training, as in CCS's code."""

    groups: int = Field(50, ge=1)
    """Groups of equal width."""

    hard_prune: float = Field(0.3, ge=0, lt=1)
    """β, the share of hardest samples left out; its authors tune it: .3 at 90 % pruning, .2 at 80 %."""


class CCS(ScoredSelector):
    """Equal shares of every group of difficulty."""

    def __init__(self, config: CCSConfig, surrogates: Sequence[Surrogate]) -> None:
        """With surrogates of different seeds for EL2N, or snapshots of one training for AUM."""
        self.config, self.surrogates = config, surrogates

    def scores(self, examples: Examples) -> FloatArray:
        """Difficulty (B,); AUM with the sign turned, so that higher is harder."""
        if self.config.importance == "aum":
            return -margins(self.surrogates, examples)
        return mean_error_norms(self.surrogates, examples)

    def choose(self, examples: Examples, budget: int, rng: np.random.Generator) -> IntArray:
        """Draw from the groups."""
        config = self.config
        return coverage_sample(
            self.scores(examples), budget, rng, n_groups=config.groups, hard_prune=config.hard_prune, closed="lower"
        )
