"""`tandem select`: the training examples worth fine-tuning on, chosen by every selector of a recipe.

The surrogate and the language model are stages of their own, found again by `tandem run`; so are influence and effort.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import Examples, IntArray
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.experiment.card import hardware, package_versions
from tandemrec.experiment.code_version import code_version
from tandemrec.experiment.models import Materials, make_recommender
from tandemrec.experiment.recipe import Recipe
from tandemrec.experiment.run import check_data
from tandemrec.experiment.seeds import derive_seed
from tandemrec.experiment.stages import Stages
from tandemrec.experiment.store import Artifact, StageEvent, Store, default_root
from tandemrec.llm.prompts import prompt_text
from tandemrec.llm.recommenders.writer import TitleWriter
from tandemrec.recommender import Config, Recommender
from tandemrec.selection.ccs import CCS, CCSConfig
from tandemrec.selection.config import SelectionConfig
from tandemrec.selection.dealrec import DEALRec, DEALRecConfig
from tandemrec.selection.effort import LanguageModelEffort
from tandemrec.selection.el2n import EL2N, EL2NConfig
from tandemrec.selection.grand import GraNd, GraNdConfig
from tandemrec.selection.influence import InfluenceConfig, influence
from tandemrec.selection.random import Random
from tandemrec.selection.recranker import RecRanker, RecRankerConfig
from tandemrec.selection.report import coverage_table, group_table, overlap_table, score_table
from tandemrec.selection.selector import FloatArray, ScoredSelector, Selector
from tandemrec.selection.surrogate import Surrogate
from tandemrec.selection.tf_dcon import TFDCon, TFDConConfig, Vectors
from tandemrec.selection.validity import Retraining, validity

SELECTION = "selection.json"
SCORES = "scores.parquet"


def select(
    recipe: Recipe,
    out: Path | None = None,
    *,
    validate: bool = False,
    dataset: Dataset | None = None,
    store: Path | None = None,
    listen: Callable[[StageEvent], None] = lambda event: None,
) -> dict[str, Any]:
    """Choose by every selector; one parquet file each, with all its scores, and `selection.json`.

    Args:
        recipe: with a `selection` part.
        out: where the files go; default `selections/NAME`.
        validate: also train the surrogate again on random subsets and say how well influence foretells its loss.
        dataset: replaces the recipe's data source.
        store: the artifact store.
        listen: told what happens to every stage.

    Returns:
        What `selection.json` holds.

    Raises:
        InputError: if the recipe selects nothing, or names models that cannot serve.
    """
    if recipe.selection is None:
        raise InputError(f"recipe '{recipe.name}': key 'selection' is missing")
    check_data(recipe, dataset)
    stages = Stages(Store(store or default_root(), listen), recipe)
    data, data_artifact = stages.data(dataset)
    split, cut = stages.split(data, data_artifact)
    config = recipe.selection
    if config.budget > len(split.train):
        raise InputError(f"key 'selection.budget': found {config.budget:,}, there are {len(split.train):,} examples")
    _train(stages, split, cut)
    bench = _Bench(stages, config, split, cut)
    chosen, scores = {}, {}
    for name in config.selectors:
        chosen[name], scores[name] = bench.select(name)
    results = _results(recipe, split, chosen, scores) | {"influence": bench.facts}
    if validate:
        results["validity"] = bench.validate()
    card = {
        "seconds": {artifact.name: artifact.seconds for artifact in stages.made},
        "packages": package_versions(),
        "hardware": hardware(),
    }
    _write(out or Path("selections") / recipe.name, split, chosen, scores, results, card)
    return results | {"card": card}


def _train(stages: Stages, split: Split, cut: Artifact) -> None:
    """The models that the selection names, and those they build on."""
    assert stages.recipe.selection is not None
    needed: set[str] = set()
    waiting = [name for name in (stages.recipe.selection.surrogate, stages.recipe.selection.language_model) if name]
    while waiting:
        name = waiting.pop()
        needed.add(name)
        waiting += stages.recipe.models[name].partners()
    for name in stages.recipe.training_order():
        if name in needed:
            stages.fit(name, split, cut)


@dataclass
class _Bench:
    """The examples with the models that judge them."""

    stages: Stages
    config: SelectionConfig
    split: Split
    cut: Artifact

    def __post_init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.examples: Examples = self.split.train
        self.seed = derive_seed(self.stages.recipe.seed, "select")

    def select(self, name: str) -> tuple[IntArray, dict[str, FloatArray]]:
        """Chosen examples and all scores of a selector."""
        config, scores = self.config.selectors[name], dict[str, FloatArray]()
        seed = derive_seed(self.stages.recipe.seed, f"select:{name}")
        if isinstance(config, DEALRecConfig):
            selector = self._dealrec(config)
            if config.influence is not None:
                scores["influence"] = self._influence(config.influence)
            if config.use_effort:
                scores["effort"] = self._effort()
            scores["overall"] = selector.combined(scores)
            drawn = selector.draw(scores["overall"], self.config.budget, np.random.default_rng(seed))
            return np.sort(drawn), scores

        def make(draft: Path, work: Path) -> None:
            selector = self._rival(config)
            frame: dict[str, Any] = {"chosen": np.zeros(len(self.examples), np.bool_)}
            frame["chosen"][selector.select(self.examples, self.config.budget, seed)] = True
            if isinstance(selector, ScoredSelector):
                frame["score"] = selector.scores(self.examples)
            pl.DataFrame(frame).write_parquet(draft / SCORES)

        depends = {"config": _dump(config), "budget": self.config.budget, "seed": seed}
        found = self._get(f"select:{name}", depends, make)
        scores = {column: found[column].to_numpy() for column in found.columns if column == "score"}
        return np.flatnonzero(found["chosen"].to_numpy()), scores

    def validate(self) -> dict[str, Any]:
        """The linear datamodelling score of the first influence among the selectors."""
        settings = [c.influence for c in self.config.selectors.values() if isinstance(c, DEALRecConfig) and c.influence]
        if not settings:
            raise InputError("key 'selection.selectors': no selector uses influence, so there is nothing to validate")
        scores, name = self._influence(settings[0]), self.config.surrogate
        assert name is not None
        model_config = self.stages.recipe.models[name]

        def untrained() -> Recommender:
            model = make_recommender(model_config, Materials(None, None, {}, self.stages.load))
            assert isinstance(model, Recommender)
            return model

        def make(draft: Path, work: Path) -> dict[str, Any]:
            retraining = Retraining(
                untrained,
                self.split,
                self.examples,
                self.examples,
                self.config.loss,
            )
            found = validity(scores, retraining, self.config.validity, self.seed)
            pl.DataFrame({"predicted": found.predicted, "actual": found.actual}).write_parquet(draft / SCORES)
            return {"score": found.score, "low": found.low, "high": found.high, "trainings": len(found.actual)}

        depends = {
            "influence": _dump(settings[0]),
            "validity": _dump(self.config.validity),
            "model": _dump(model_config),
        }
        artifact = self.stages.extra("validity", self._depends(depends), make)
        return dict(artifact.manifest["summary"])

    def _influence(self, settings: InfluenceConfig) -> FloatArray:
        def make(draft: Path, work: Path) -> dict[str, Any]:
            found = influence(self._surrogate(), self.examples, settings, self.seed)
            pl.DataFrame({"score": found.scores}).write_parquet(draft / SCORES)
            facts = {"iterations": found.solution.iterations, "residual": found.solution.residual}
            return {**facts, "damping": found.solution.damping, "parameters": found.parameters}

        artifact = self.stages.extra("influence", self._depends({"config": _dump(settings), "seed": self.seed}), make)
        self.facts = dict(artifact.manifest["summary"])
        return pl.read_parquet(artifact.path / SCORES)["score"].to_numpy()

    def _effort(self) -> FloatArray:
        def make(draft: Path, work: Path) -> None:
            writer = self._writer()
            measure = LanguageModelEffort(
                writer.language_model, writer.titles, writer.config.prompt, self.config.effort
            )
            pl.DataFrame({"score": measure(self.examples)}).write_parquet(draft / SCORES)

        return self._get("effort", {"config": _dump(self.config.effort)}, make)["score"].to_numpy()

    def _dealrec(self, config: DEALRecConfig) -> DEALRec:
        return DEALRec(
            config,
            self._surrogate() if config.influence is not None else None,
            (lambda examples: self._effort()) if config.use_effort else None,
            self.seed,
        )

    def _rival(self, config: Config) -> Selector:
        if isinstance(config, GraNdConfig):
            return GraNd([self._surrogate()], self.seed)
        if isinstance(config, EL2NConfig):
            return EL2N([self._surrogate()])
        if isinstance(config, CCSConfig):
            return CCS(config, [self._surrogate()])
        if isinstance(config, TFDConConfig):
            return TFDCon(config, [self._user_vectors(), self._text_vectors()])
        if isinstance(config, RecRankerConfig):
            return RecRanker(config, self._user_vectors())
        return Random()

    def _surrogate(self) -> Surrogate:
        assert self.config.surrogate is not None
        return Surrogate.of(self.stages.load_ranker(self.config.surrogate), self.config.loss)

    def _user_vectors(self) -> Vectors:
        assert self.config.surrogate is not None
        model: Any = self.stages.load(self.config.surrogate)
        return lambda examples: model.encode(examples.history)

    def _text_vectors(self) -> Vectors:
        writer = self._writer()
        prompt, titles = writer.config.prompt, writer.titles
        return lambda examples: writer.language_model.encode(
            [prompt_text([titles[i] for i in row], prompt) for row in examples.history.tail(prompt.history)]
        )

    def _writer(self) -> TitleWriter:
        assert self.config.language_model is not None
        writer = self.stages.load(self.config.language_model)
        if not isinstance(writer, TitleWriter):
            raise InputError(f"key 'selection.language_model': '{self.config.language_model}' writes no titles")
        return writer

    def _depends(self, depends: Mapping[str, Any]) -> dict[str, Any]:
        models = {name: artifact.content for name, artifact in self.stages.fitted.items()}
        code = code_version("selection", "llm", "conventional", "recommender.py")
        return {**depends, "loss": _dump(self.config.loss), "models": models, "split": self.cut.content, "code": code}

    def _get(self, stage: str, depends: Mapping[str, Any], make: Callable[[Path, Path], Any]) -> pl.DataFrame:
        return pl.read_parquet(self.stages.extra(stage, self._depends(depends), make).path / SCORES)


def _results(
    recipe: Recipe, split: Split, chosen: Mapping[str, IntArray], scores: Mapping[str, Mapping[str, FloatArray]]
) -> dict[str, Any]:
    """No times and no paths: equal recipes give equal results."""
    config = recipe.selection
    assert config is not None
    groups = {
        name: group_table(scores[name]["overall"], selector.groups, config.budget)
        for name, selector in config.selectors.items()
        if isinstance(selector, DEALRecConfig) and selector.sampling == "coverage" and not selector.hard_prune
    }
    return {
        "name": recipe.name,
        "seed": recipe.seed,
        "protocol": split.protocol,
        "examples": len(split.train),
        "budget": config.budget,
        "coverage": coverage_table(split, split.train, chosen, config.category),
        "overlap": overlap_table(chosen),
        "groups": groups,
    }


def _write(
    out: Path,
    split: Split,
    chosen: Mapping[str, IntArray],
    scores: Mapping[str, Mapping[str, FloatArray]],
    results: Mapping[str, Any],
    card: Mapping[str, Any],
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in chosen.items():
        table = score_table(split, split.train, scores[name], rows)
        table.write_parquet(out / f"{name}.all.parquet")
        table.filter("chosen").drop("chosen").write_parquet(out / f"{name}.parquet")
    (out / "selection_card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    draft = out / f"{SELECTION}.draft"
    draft.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(out / SELECTION)


def _dump(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json")
