"""The choices of a recipe's selectors: further stages, beside those of `experiment/stages.py`.

Influence is a stage of a surrogate, effort one of a language model, and a choice one of both, so that selectors share
what they look at, and `tandem run` and `tandem select` share everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tandemrec.data.examples import Examples, IntArray
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.experiment.code_version import code_version
from tandemrec.experiment.models import Materials, folder_identity, make_recommender
from tandemrec.experiment.seeds import derive_seed
from tandemrec.experiment.stages import CHOSEN, Choice, Stages, training_content
from tandemrec.experiment.store import Artifact, plain
from tandemrec.llm.recommenders.writer import TitleWriter
from tandemrec.recommender import Recommender
from tandemrec.selection.ccs import CCS, CCSConfig
from tandemrec.selection.config import SelectionConfig
from tandemrec.selection.dealrec import DEALRecConfig, combined, drawn
from tandemrec.selection.effort import LanguageModelEffort
from tandemrec.selection.el2n import EL2N, EL2NConfig
from tandemrec.selection.grand import GraNd, GraNdConfig
from tandemrec.selection.influence import InfluenceConfig, influence
from tandemrec.selection.random import Random
from tandemrec.selection.recranker import RecRanker, RecRankerConfig
from tandemrec.selection.selector import AnySelectorConfig, FloatArray, ScoredSelector, Selector
from tandemrec.selection.surrogate import Surrogate
from tandemrec.selection.tf_dcon import TFDCon, TFDConConfig, Vectors
from tandemrec.selection.validity import Retraining, validity

SCORES = "scores.parquet"


@dataclass
class Choices:
    """Makes the choices of all selectors over one split; the models that judge must be trained.

    Attributes:
        facts: how influence was solved, by selector.
    """

    stages: Stages
    config: SelectionConfig
    split: Split
    cut: Artifact

    def __post_init__(self) -> None:
        self.facts: dict[str, dict[str, Any]] = {}
        self.examples: Examples = self.split.train
        self.seed = derive_seed(self.stages.recipe.seed, "select")

    def choose(self, name: str) -> Choice:
        """What a selector chooses.

        Raises:
            InputError: if its budget exceeds the training examples, or a model cannot serve it.
        """
        config, budget = self.config.selectors[name], self.config.budget_of(name)
        if budget > len(self.examples):
            key = f"selectors.{name}.budget" if config.budget else "budget"
            raise InputError(f"key 'selection.{key}': found {budget:,}, there are {len(self.examples):,} examples")
        seed = self.stages.recipe.select_seed(name)
        parts = self._parts(name)

        def make(draft: Path, work: Path) -> None:
            if isinstance(config, DEALRecConfig):
                columns, chosen = self._dealrec(config, parts, budget, seed)
            else:
                selector = self._rival(name, config)
                chosen = selector.select(self.examples, budget, seed)
                columns = {"score": selector.scores(self.examples)} if isinstance(selector, ScoredSelector) else {}
            pl.DataFrame({"example": chosen}).write_parquet(draft / CHOSEN)
            pl.DataFrame(columns).write_parquet(draft / SCORES)

        depends = {
            "config": plain(config),
            "budget": budget,
            "seed": seed,
            "judges": {part: artifact.content for part, artifact in parts.items()},
            "loss": plain(self.config.loss),
        }
        if isinstance(config, TFDConConfig):
            depends["language_model"] = self._writer_identity()[0]
        foresight = self.stages.foresights.select(name, self.config, self.split)
        made = self.stages.get(f"select:{name}", self._depends(depends), make, foresight)
        judges = [self.stages.fitted[judge] for judge in self.stages.recipe.judges(name)]
        return Choice(made, (*judges, *parts.values(), made) if isinstance(config, DEALRecConfig) else (*judges, made))

    def scores(self, choice: Choice) -> dict[str, FloatArray]:
        """All scores that a choice was made by, each (B,)."""
        frame = pl.read_parquet(choice.artifact.path / SCORES)
        return {column: frame[column].to_numpy() for column in frame.columns}

    def validate(self) -> dict[str, Any]:
        """The linear datamodelling score of the first influence among the selectors."""
        configs = self.config.selectors
        found = next((n for n, c in configs.items() if isinstance(c, DEALRecConfig) and c.influence), None)
        if found is None:
            raise InputError("key 'selection.selectors': no selector uses influence, so there is nothing to validate")
        config, surrogate = configs[found], self.config.surrogate_of(found)
        assert isinstance(config, DEALRecConfig)
        assert config.influence is not None
        assert surrogate is not None
        told, model_config = self._influence(found, config.influence), self.stages.recipe.models[surrogate]

        def untrained() -> Recommender:
            model = make_recommender(model_config, Materials(None, None, {}, self.stages.load))
            assert isinstance(model, Recommender)
            return model

        def make(draft: Path, work: Path) -> dict[str, Any]:
            retraining = Retraining(untrained, self.split, self.examples, self.examples, self.config.loss)
            result = validity(_column(told), retraining, self.config.validity, self.seed)
            pl.DataFrame({"predicted": result.predicted, "actual": result.actual}).write_parquet(draft / SCORES)
            return {"score": result.score, "low": result.low, "high": result.high, "trainings": len(result.actual)}

        depends = {
            "influence": told.content,
            "validity": plain(self.config.validity),
            "model": plain(model_config),
            "loss": plain(self.config.loss),
        }
        return dict(self.stages.get("validity", self._depends(depends), make).manifest["summary"])

    def _parts(self, name: str) -> dict[str, Artifact]:
        """What a selector's scores are made of: influence and effort, or the models themselves."""
        config = self.config.selectors[name]
        if not isinstance(config, DEALRecConfig):
            return {judge: self.stages.fitted[judge] for judge in self.stages.recipe.judges(name)}
        parts = {}
        if config.influence is not None:
            parts["influence"] = self._influence(name, config.influence)
            self.facts[name] = parts["influence"].manifest["summary"]
        if config.use_effort:
            parts["effort"] = self._effort()
        return parts

    def _dealrec(
        self, config: DEALRecConfig, parts: Mapping[str, Artifact], budget: int, seed: int
    ) -> tuple[dict[str, FloatArray], IntArray]:
        """Scores by name, and the chosen examples, of scores that are known already."""
        columns = {part: _column(artifact) for part, artifact in parts.items()}
        columns["overall"] = combined(config, columns)
        return columns, np.sort(drawn(config, columns["overall"], budget, np.random.default_rng(seed)))

    def _influence(self, name: str, settings: InfluenceConfig) -> Artifact:
        surrogate = self.config.surrogate_of(name)
        assert surrogate is not None

        def make(draft: Path, work: Path) -> dict[str, Any]:
            found = influence(self._surrogate(name), self.examples, settings, self.seed)
            pl.DataFrame({"score": found.scores}).write_parquet(draft / SCORES)
            solution = found.solution
            facts = {"iterations": solution.iterations, "residual": solution.residual, "damping": solution.damping}
            return {"surrogate": surrogate, **facts, "parameters": found.parameters}

        depends = {
            "config": plain(settings),
            "loss": plain(self.config.loss),
            "surrogate": self.stages.fitted[surrogate].content,
            "seed": self.seed,
        }
        foresight = self.stages.foresights.influence(surrogate, settings, self.config, self.split)
        return self.stages.get(f"influence:{surrogate}", self._depends(depends), make, foresight)

    def _effort(self) -> Artifact:
        identity, base = self._writer_identity()
        name, tuned = self.config.language_model, self.config.effort.weights == "tuned"
        assert name is not None

        def make(draft: Path, work: Path) -> None:
            writer = self._writer(self.stages.load(name)) if tuned else self._started(base)
            measure = LanguageModelEffort(writer, self.config.effort)
            pl.DataFrame({"score": measure(self.examples)}).write_parquet(draft / SCORES)

        depends = {
            "config": plain(self.config.effort),
            "language_model": self.stages.fitted[name].content if tuned else identity,
        }
        foresight = self.stages.foresights.effort(name, self.config, self.split)
        return self.stages.get("effort", self._depends(depends), make, foresight)

    def _rival(self, name: str, config: AnySelectorConfig) -> Selector:
        if isinstance(config, GraNdConfig):
            return GraNd([self._surrogate(name)], self.seed)
        if isinstance(config, EL2NConfig):
            return EL2N([self._surrogate(name)])
        if isinstance(config, CCSConfig):
            return CCS(config, [self._surrogate(name)])
        if isinstance(config, TFDConConfig):
            return TFDCon(config, [self._user_vectors(name), self._text_vectors()])
        if isinstance(config, RecRankerConfig):
            return RecRanker(config, self._user_vectors(name))
        return Random()

    def _surrogate(self, name: str) -> Surrogate:
        surrogate = self.config.surrogate_of(name)
        assert surrogate is not None
        return Surrogate.of(self.stages.load_ranker(surrogate), self.config.loss)

    def _user_vectors(self, name: str) -> Vectors:
        surrogate = self.config.surrogate_of(name)
        assert surrogate is not None
        model: Any = self.stages.load(surrogate)
        return lambda examples: model.encode(examples.history)

    def _text_vectors(self) -> Vectors:
        writer = self._started(self._writer_identity()[1])
        return lambda examples: writer.language_model.encode(writer.prompt_texts(examples))

    def _writer_identity(self) -> tuple[dict[str, Any], Artifact | None]:
        """What the language model is before fine-tuning, for keys, and its artifact where it is built."""
        assert self.config.language_model is not None
        config = self.stages.recipe.models[self.config.language_model]
        base = self.stages.language_model(config, self.split)
        settings = config.model_dump(mode="json", include={"model", "lm", "prompt", "finetune", "generation"})
        origin = base.content if base else folder_identity(config)
        return {"config": settings, "base": origin, "partners": self.stages.partners(config)}, base

    def _started(self, base: Artifact | None) -> TitleWriter:
        """The model of titles with the weights that its fine-tuning starts from."""
        assert self.config.language_model is not None
        config = self.stages.recipe.models[self.config.language_model]
        writer = self._writer(make_recommender(config, self.stages.materials(config, base)))
        writer.start(self.split.dataset.titles, seed=self.seed)
        return writer

    def _writer(self, system: object) -> TitleWriter:
        assert isinstance(system, TitleWriter)
        return system

    def _depends(self, depends: Mapping[str, Any]) -> dict[str, Any]:
        code = code_version("selection", "llm", "conventional", "recommender.py")
        return {**depends, "split": training_content(self.cut), "code": code}


def _column(scores: Artifact) -> FloatArray:
    column: FloatArray = pl.read_parquet(scores.path / SCORES)["score"].to_numpy()
    return column
