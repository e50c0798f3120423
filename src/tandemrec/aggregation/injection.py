"""Statistical injection: what a model wrote is near, corrected by how popular or how likely an item is anyway."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from tandemrec.aggregation.systems import scorer
from tandemrec.data.examples import Examples
from tandemrec.data.split import Split
from tandemrec.evaluation.evaluate import validation_figures
from tandemrec.recommender import Config, FitReport, Recommender, Scorer

GRID = (*(step / 20 for step in range(21)), 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
"""Strengths γ that are tried: the range of BIGRec's grid, in coarser steps."""


class InjectionConfig(Config):
    """BIGRec §3.3: popularity or collaborative information joins the distance."""

    model: Literal["injection"]
    """Which model this is."""

    base: str
    """The system whose distances are corrected, such as BIGRec."""

    prior: str
    """The system whose scores correct them: Popularity, or a collaborative model such as SASRec."""

    strengths: tuple[float, ...] = Field(GRID, min_length=1)
    """Strengths γ ≥ 0 to choose from; the one with the best validation NDCG@10 is kept for every metric and cut-off.
    (The published code chooses one for each metric and cut-off.)"""

    def partners(self) -> tuple[str, ...]:
        """Base and prior."""
        return self.base, self.prior


class Injection(Scorer):
    """Score −D̂ · (1 + W)^(−γ) (BIGRec eq. 5): distances D̂ and prior W, each scaled to [0, 1] for every example."""

    def __init__(self, config: InjectionConfig, base: Recommender, prior: Recommender, strength: float = 0.0) -> None:
        """Configure.

        Args:
            config: the configuration.
            base: trained; minus its scores are the distances.
            prior: trained.
            strength: γ; `fit` chooses it.

        Raises:
            InputError: if one of them gives no scores for the whole catalogue.
        """
        self.config, self.strength = config, strength
        self.base, self.prior = scorer(base, "base", config.base), scorer(prior, "prior", config.prior)

    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        """Choose γ on the validation part; of equally good ones the smallest."""
        curve = []
        for strength in sorted(set(self.config.strengths)):
            self.strength = strength
            curve.append({"strength": strength} | validation_figures(self, split.valid))
        best = max(curve, key=lambda row: row["ndcg@10"])
        self.strength = best["strength"]
        return FitReport(best_value=best["ndcg@10"], curve=curve, notes={"strength": self.strength})

    def scores(self, examples: Examples) -> Tensor:
        """Float32 scores (B, I)."""
        distance_BI = _scaled(-self.base.scores(examples).float())
        prior_BI = _scaled(self.prior.scores(examples).float().to(distance_BI.device))
        return -distance_BI * (1 + prior_BI) ** -self.strength

    def save(self, directory: Path) -> None:
        """`config.json` and γ; the two systems are saved by themselves."""
        self.config.write(directory)
        (directory / "strength.json").write_text(json.dumps(self.strength) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path, *partners: Recommender) -> Self:
        """Read what `save` wrote, over the same base and prior."""
        base, prior = partners
        config = InjectionConfig.read(directory)
        return cls(config, base, prior, json.loads((directory / "strength.json").read_text(encoding="utf-8")))


def _scaled(values_BI: Tensor) -> Tensor:
    """Each row min-max scaled to [0, 1]; a constant row becomes 0."""
    low_B1, high_B1 = values_BI.amin(1, keepdim=True), values_BI.amax(1, keepdim=True)
    return (values_BI - low_B1) / (high_B1 - low_B1).clamp(min=torch.finfo(values_BI.dtype).tiny)
