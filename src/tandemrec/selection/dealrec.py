"""DEALRec: influence of a sample on a surrogate and effort it costs the language model (Lin et al., SIGIR 2024)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from tandemrec.data.examples import Examples, IntArray
from tandemrec.selection.coverage import coverage_sample
from tandemrec.selection.influence import InfluenceConfig, influence
from tandemrec.selection.overall import Normalisation, overall_score
from tandemrec.selection.selector import AnySelectorConfig, FloatArray, ScoredSelector, highest
from tandemrec.selection.surrogate import Surrogate


class DEALRecConfig(AnySelectorConfig):
    """The paper's method; the published code also leaves out the hardest tenth (`hard_prune`)."""

    selector: Literal["dealrec"] = "dealrec"
    """Which selector this is."""

    influence: InfluenceConfig | None = InfluenceConfig()
    """Influence on the surrogate's risk; null: without."""

    use_effort: bool = True
    """Effort of the language model; false: without."""

    effort_weight: float = Field(0.3, ge=0)
    """λ; the paper's grid is .1, .3, .5, 1, 2, chosen on validation."""

    normalisation: Normalisation = "min-max"
    """How both are brought to one scale."""

    sampling: Literal["coverage", "greedy"] = "coverage"
    """Every score group gives its share; or the highest scores are taken, the paper's ablation."""

    groups: int = Field(50, ge=1)
    """Score groups K of equal width; the paper's grid is 25, 50, 75."""

    hard_prune: float = Field(0.0, ge=0, lt=1)
    """Share of samples with the highest scores that is left out first; .1 in the published code, 0 in the paper."""

    @model_validator(mode="after")
    def _something_counts(self) -> Self:
        if self.influence is None and not self.use_effort:
            raise ValueError("influence and effort cannot both be off")
        return self


class DEALRec(ScoredSelector):
    """Scores by influence + λ · effort and draws from all score groups."""

    def __init__(
        self,
        config: DEALRecConfig,
        surrogate: Surrogate | None = None,
        effort: Callable[[Examples], FloatArray] | None = None,
        seed: int = 0,
    ) -> None:
        """Configure.

        Args:
            config: the method.
            surrogate: trained on the examples; needed for influence.
            effort: of the language model on examples, (B,), see `LanguageModelEffort`; needed unless switched off.
            seed: of the surrogate's negatives.

        Raises:
            ValueError: if a part that the method needs is missing.
        """
        if config.influence is not None and surrogate is None:
            raise ValueError("DEALRec with influence needs a surrogate")
        if config.use_effort and effort is None:
            raise ValueError("DEALRec with effort needs a language model's effort")
        self.config, self.surrogate, self.effort, self.seed = config, surrogate, effort, seed

    def parts(self, examples: Examples) -> dict[str, FloatArray]:
        """`influence` and `effort` (B,), as far as they are used."""
        parts = {}
        if self.config.influence is not None:
            assert self.surrogate is not None
            parts["influence"] = influence(self.surrogate, examples, self.config.influence, self.seed).scores
        if self.config.use_effort:
            assert self.effort is not None
            parts["effort"] = self.effort(examples)
        return parts

    def scores(self, examples: Examples) -> FloatArray:
        """The overall score (B,)."""
        return combined(self.config, self.parts(examples))

    def choose(self, examples: Examples, budget: int, rng: np.random.Generator) -> IntArray:
        """Draw from every score group, or take the highest scores."""
        return drawn(self.config, self.scores(examples), budget, rng)


def combined(config: DEALRecConfig, parts: Mapping[str, FloatArray]) -> FloatArray:
    """The overall score (B,) of `influence` and `effort`, as far as they are used."""
    return overall_score(parts.get("influence"), parts.get("effort"), config.effort_weight, config.normalisation)


def drawn(config: DEALRecConfig, scores: FloatArray, budget: int, rng: np.random.Generator) -> IntArray:
    """Numbers of the examples that are chosen by their overall scores, in any order."""
    if config.sampling == "greedy":
        return highest(scores, budget, rng)
    return coverage_sample(scores, budget, rng, n_groups=config.groups, hard_prune=config.hard_prune)
