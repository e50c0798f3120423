"""The best of several systems by validation: how a grid of settings becomes one row of a leaderboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, Self

from pydantic import Field
from torch import Tensor

from tandemrec.aggregation.systems import scorer
from tandemrec.data.examples import Examples
from tandemrec.data.split import Split
from tandemrec.evaluation.evaluate import validation_figures
from tandemrec.recommender import Config, FitReport, Recommender, Scorer


class BestConfig(Config):
    """Chooses by NDCG@10 on the validation part; the test part has no say."""

    model: Literal["best"]
    """Which model this is."""

    among: tuple[str, ...] = Field(min_length=2)
    """The systems to choose from; of equally good ones the first."""

    def partners(self) -> tuple[str, ...]:
        """All of them."""
        return self.among


class Best(Scorer):
    """Answers as the chosen system does."""

    def __init__(self, config: BestConfig, *systems: Recommender, chosen: str | None = None) -> None:
        """Configure.

        Args:
            config: the configuration.
            systems: the trained systems, in the order of `config.among`.
            chosen: the name of one of them; `fit` chooses it.

        Raises:
            InputError: if one of them gives no scores for the whole catalogue.
        """
        self.config, self.chosen = config, chosen
        self.systems = {name: scorer(system, "among", name) for name, system in zip(config.among, systems, strict=True)}

    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        """Judge all of them on the validation part."""
        figures = {name: validation_figures(system, split.valid) for name, system in self.systems.items()}
        self.chosen = max(figures, key=lambda name: figures[name]["ndcg@10"])
        return FitReport(
            best_value=figures[self.chosen]["ndcg@10"], notes={"chosen": self.chosen, "validation": figures}
        )

    def scores(self, examples: Examples) -> Tensor:
        """Scores (B, I) of the chosen system."""
        if self.chosen is None:
            raise RuntimeError("Best must be fitted or loaded first")
        return self.systems[self.chosen].scores(examples)

    def rows_at_once(self, n_items: int) -> int:
        """As the system that needs the most room, which may be the chosen one."""
        return min(system.rows_at_once(n_items) for system in self.systems.values())

    def save(self, directory: Path) -> None:
        """`config.json` and the choice; the systems are saved by themselves."""
        self.config.write(directory)
        (directory / "chosen.json").write_text(json.dumps(self.chosen) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path, *partners: Recommender) -> Self:
        """Read what `save` wrote, over the same systems in the order of `config.among`."""
        config = BestConfig.read(directory)
        chosen = json.loads((directory / "chosen.json").read_text(encoding="utf-8"))
        return cls(config, *partners, chosen=chosen)
