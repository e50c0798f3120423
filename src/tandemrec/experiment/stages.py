"""The stages of a run: what each depends on and how it is made. Each is one call of the artifact store."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tandemrec.augmentation.augmented import ADDED
from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import Examples, IntArray
from tandemrec.data.filter import clean
from tandemrec.data.sources import load_dataset
from tandemrec.data.split import JUDGING_FILES, Split, make_split
from tandemrec.errors import InputError
from tandemrec.evaluation.cost import BUILDING
from tandemrec.evaluation.evaluate import Evaluation, EvaluationConfig, evaluate
from tandemrec.evaluation.ratings import RatingEvaluation, RatingEvaluationConfig, evaluate_ratings
from tandemrec.experiment.code_version import code_version
from tandemrec.experiment.costs import stage_id
from tandemrec.experiment.files import hash_files
from tandemrec.experiment.foresight import Foresights
from tandemrec.experiment.models import (
    Materials,
    System,
    code_rooms,
    folder_identity,
    load_recommender,
    make_recommender,
)
from tandemrec.experiment.mutual import INSTRUCTIONS, Mutual
from tandemrec.experiment.recipe import Recipe
from tandemrec.experiment.seeds import derive_seed
from tandemrec.experiment.semantic_ids import semantic_ids
from tandemrec.experiment.store import Artifact, Store, plain
from tandemrec.experiment.taught import LISTS_OF_TEACHER, Taught
from tandemrec.experiment.trained import Trained, trained_elsewhere
from tandemrec.llm.distil import distil, distil_summary
from tandemrec.llm.recommenders.base import LanguageModelUser
from tandemrec.llm.recommenders.lessons import SOFTConfig
from tandemrec.llm.recommenders.writer import TitleWriter, WriterConfig
from tandemrec.recommender import Config, FitReport, RatingPredictor, Recommender, TextRecommender
from tandemrec.training.state import METRICS
from tandemrec.work import Foresight

ANSWERS = "answers.parquet"
"""What a teacher answers to the training prompts."""

CHOSEN = "chosen.parquet"
"""Numbers of the training examples that a selector chose."""

JUDGING = tuple(f"evaluation/{name}.py" for name in ("evaluate", "metrics", "beyond", "segments", "sampled", "ratings"))
"""The code whose change means judging again; comparisons of what was judged are no part of it."""

PER_EXAMPLE, MEASURED, OUTPUTS = "per_example.parquet", "metrics.json", "outputs.parquet"
"""What an evaluation leaves: a row an example, everything measured, what a language model wrote."""

LISTS = "lists.parquet"
"""What a system recommends to every judged example: `example`, `items` (codes, -1 where there are fewer)."""

SHOWN_OUTPUTS = 10
"""Generated titles that go into the report; all of them are in the artifact."""

FILES = {"instructions": INSTRUCTIONS, "augmentation": ADDED, "lists": LISTS_OF_TEACHER}
"""What a model reads of the stages that prepare it, by the name of the material; of others, the folder."""


@dataclass(frozen=True)
class Choice:
    """The training examples that a selector chose.

    Attributes:
        artifact: of the selector.
        parts: the stages it took: the models and scores it looked at, and its own; their seconds are its cost.
    """

    artifact: Artifact
    parts: tuple[Artifact, ...]

    @property
    def rows(self) -> IntArray:
        """Their numbers, ascending."""
        rows: IntArray = pl.read_parquet(self.artifact.path / CHOSEN)["example"].to_numpy()
        return rows

    @property
    def content(self) -> str:
        """Hash of the choice alone: other scores that lead to the same examples train nothing again."""
        return str(self.artifact.manifest["files"][CHOSEN])

    @property
    def seconds(self) -> float:
        """What choosing cost, training of the models it looked at included."""
        return sum(part.seconds for part in self.parts)

    def lesson(self, split: Split) -> Split:
        """The split with these training examples alone."""
        return replace(split, train=split.train.take(self.rows))


@dataclass
class Stages:
    """The stages of one recipe over one store.

    Attributes:
        made: the artifacts in the order they were first asked for.
        fitted: the trained systems by name.
        prepared: what was made for a system before its training, by kind (`distil`: what its teacher answered to the
            training prompts; `instructions`, `augmentation`, `lists` and others), then by its name.
        needs: ids of every stage that training a system takes, those of the systems it builds on included, by its name.
        trained: systems that another run trained.
        bases: language models that were built, by the name of the system they were built for.
        foresights: what stages take.
    """

    store: Store
    recipe: Recipe

    def __post_init__(self) -> None:
        self.made: list[Artifact] = []
        self.fitted: dict[str, Artifact] = {}
        self.prepared: defaultdict[str, dict[str, Artifact]] = defaultdict(dict)
        self.needs: dict[str, list[str]] = {}
        self.trained: dict[str, Trained] = {}
        self.bases: dict[str, Artifact] = {}
        self.foresights = Foresights(self)

    def data(self, given: Dataset | None = None) -> tuple[Dataset, Artifact]:
        """Read and clean; `given` replaces the recipe's source."""
        recipe = self.recipe

        def make(draft: Path, work: Path) -> dict[str, Any]:
            raw = load_dataset(recipe.data) if given is None and recipe.data is not None else given
            assert raw is not None
            dataset, report = clean(raw, recipe.cleaning)
            dataset.save(draft)
            return {"cleaning": report.rows_as_dicts(), "fingerprint": dataset.fingerprint}

        source = {"fingerprint": given.fingerprint} if given is not None else self._source_identity()
        depends = {"source": source, "cleaning": plain(recipe.cleaning), "code": code_version("data")}
        artifact = self.get("data", depends, make)
        return Dataset.load(artifact.path), artifact

    def split(self, dataset: Dataset, data: Artifact) -> tuple[Split, Artifact]:
        """Cut into training, validation and test, and check for leaks."""
        seed = derive_seed(self.recipe.seed, "split")

        def make(draft: Path, work: Path) -> dict[str, Any]:
            split = make_split(dataset, self.recipe.split, seed)
            split.save(draft)
            parts = {part: len(getattr(split, part)) for part in ("train", "valid", "test")}
            return {"protocol": split.protocol, **parts, "leaks": split.leaks.lines()}

        depends = {"data": data.content, "split": plain(self.recipe.split), "seed": seed, "code": code_version("data")}
        artifact = self.get("split", depends, make)
        return Split.load(artifact.path, dataset), artifact

    def take_trained(self, cut: Artifact) -> None:
        """Take the systems that other runs trained, before any other is trained.

        Args:
            cut: the artifact of the split, which must be what they learned from.

        Raises:
            InputError: if a run or a system is not there, or learned from other data.
        """
        for name in self.recipe.trained:
            found = trained_elsewhere(self.recipe, name)
            theirs, ours = ((part.manifest["depends"]["data"], training_content(part)) for part in (found.split(), cut))
            if theirs != ours:
                raise InputError(
                    f"key 'trained.{name}': {found.run} trained it on other data or another split; take its keys "
                    "'data', 'cleaning', 'split' and 'seed'"
                )
            self.trained[name], self.fitted[name] = found, found.fitted()
            self.needs[name] = [stage["id"] for stage in found.stages]

    def fit(self, name: str, split: Split, cut: Artifact, choice: Choice | None = None) -> Artifact:
        """Train one model whose partners are trained; see `take_trained` for those that another run trained.

        A language model that must be built first, and answers that a teacher must write first, are stages of their own.

        Args:
            name: of the model.
            split: what may be trained on, see `Split.untested`.
            cut: its artifact.
            choice: the training examples it learns from, by number; None: all.
        """
        if name in self.trained:
            return self.fitted[name]
        config, content = self.recipe.models[name], training_content(cut)
        base = self.language_model(config, split)
        if base is not None:
            self.bases[name] = base
        lesson = split if choice is None else choice.lesson(split)
        answers = self._distilled(config, lesson, content, choice)
        mutual, taught = Mutual(self, split, content), Taught(self, split, content)
        identity = base.content if base else folder_identity(config)
        found = {
            "semantic_ids": semantic_ids(self, config, split),
            "instructions": mutual.instructions(config),
            "augmentation": mutual.augmented(config),
            "lists": taught.lists(config),
            "thoughts": taught.thoughts(name, base, identity),
            "item_vectors": taught.item_vectors(name),
        }
        extra = {key: artifact for key, artifact in found.items() if artifact is not None}
        seed = self.recipe.fit_seed(name)
        for kind, artifact in (extra if answers is None else extra | {"distil": answers}).items():
            self.prepared[kind][name] = artifact

        def make(draft: Path, work: Path) -> dict[str, Any]:
            paths: dict[str, Any] = {key: artifact.path / FILES.get(key, "") for key, artifact in extra.items()}
            materials = replace(self.materials(config, base, answers), **paths)
            model = make_recommender(config, materials)
            report = model.fit(lesson, seed=seed, workspace=work)
            model.save(draft)
            if (work / METRICS).exists():
                shutil.copy(work / METRICS, draft / METRICS)
            return report.model_dump(mode="json")

        depends = {
            "split": content,
            "config": plain(config),
            "language_model": identity,
            "partners": self.partners(config),
            "distilled": answers.content if answers else None,
            "choice": choice.content if choice else None,
            **{key: artifact.content for key, artifact in extra.items()},
            "seed": seed,
            "code": code_version(*code_rooms(config)),
        }
        self.fitted[name] = self.get(f"fit:{name}", depends, make, self.foresights.fit(name, lesson))
        own = [base, answers, *mutual.origins, *extra.values(), self.fitted[name]]
        self.needs[name] = self._needed(config, own, choice)
        return self.fitted[name]

    def _needed(self, config: Config, own: Sequence[Artifact | None], choice: Choice | None) -> list[str]:
        """Stages of the systems that a model builds on, of what chose its examples, and its own; each once."""
        parts = () if choice is None else choice.parts
        builds_on = {*config.partners(), *(name for name, fitted in self.fitted.items() if fitted in parts)}
        needed = [stage for name in self.needs if name in builds_on for stage in self.needs[name]]
        needed += [stage_id(artifact) for artifact in (*parts, *own) if artifact is not None]
        return list(dict.fromkeys(needed))

    def materials(self, config: Config, base: Artifact | None, answers: Artifact | None = None) -> Materials:
        """What earlier stages made for a model whose partners are trained."""
        return Materials(
            language_model=base.path if base else None,
            distilled=answers.path / ANSWERS if answers else None,
            folders={partner: self.fitted[partner].path for partner in config.partners()},
            partners=self.load,
        )

    def load(self, name: str) -> System:
        """A trained system."""
        return load_recommender(self.recipe.models[name], self.fitted[name].path, self.load)

    def load_ranker(self, name: str) -> Recommender:
        """A trained system that ranks.

        Raises:
            InputError: if it predicts ratings.
        """
        system = self.load(name)
        if not isinstance(system, Recommender):
            raise InputError(f"'{name}' predicts ratings, expected a system that ranks")
        return system

    def evaluate(self, name: str, split: Split, cut: Artifact) -> Artifact:
        """Judge one trained model; keeps the metrics, one row an example, and what a language model wrote."""
        settings, config = self.recipe.evaluation, self.recipe.models[name]

        def make(draft: Path, work: Path) -> dict[str, Any]:
            outputs = None
            model = self.load(name)
            if isinstance(model, TextRecommender):
                outputs = _outputs_frame(model, split.dataset, getattr(split, settings.part), work)
                outputs.write_parquet(draft / OUTPUTS)
            evaluation = judge(model, split, settings, lists=True)
            evaluation.per_example.write_parquet(draft / PER_EXAMPLE)
            if isinstance(evaluation, Evaluation) and evaluation.lists is not None:
                listed = evaluation.per_example.select("example", items=pl.Series(evaluation.lists.tolist()))
                listed.write_parquet(draft / LISTS)
            (draft / MEASURED).write_text(json.dumps(evaluation.summary(), indent=1) + "\n")
            return {"outputs": None if outputs is None else _outputs_summary(outputs)}

        depends = {
            "model": self.fitted[name].content,
            "partners": self.partners(config),
            "split": cut.content,
            "evaluation": plain(settings),
            "code": code_version(*JUDGING, "recommender.py"),
        }
        return self.get(f"evaluate:{name}", depends, make, self.foresights.evaluate(name, split))

    def _distilled(self, config: Config, split: Split, content: str, choice: Choice | None) -> Artifact | None:
        """What the teacher itself answers to the training prompts."""
        if not isinstance(config, WriterConfig) or not isinstance(config.objective, SOFTConfig):
            return None
        teacher, settings = config.objective.teacher, config.objective.distil
        seed = derive_seed(self.recipe.seed, f"distil:{teacher}")

        def make(draft: Path, work: Path) -> dict[str, Any]:
            writer = self.load(teacher)
            assert isinstance(writer, TitleWriter)
            frame = distil(writer, split.train, split.dataset, settings, seed=seed, workspace=work)
            frame.write_parquet(draft / ANSWERS)
            return {"teacher": teacher} | distil_summary(frame)

        depends = {
            "teacher": self.fitted[teacher].content,
            "split": content,
            "config": plain(settings),
            "choice": choice.content if choice else None,
            "seed": seed if settings.sampling else None,
            "code": code_version("llm", "recommender.py"),
        }
        return self.get(f"distil:{teacher}", depends, make, self.foresights.distil(teacher, settings, split))

    def partners(self, config: Config) -> dict[str, str]:
        """Contents of the systems a model builds on, and of those that they build on, for its key.

        A partner that keeps nothing of its own partners does not change when they do, but its answers do.
        """
        contents: dict[str, str] = {}
        for partner in config.partners():
            contents |= self.partners(self.recipe.models[partner]) | {partner: self.fitted[partner].content}
        return contents

    def language_model(self, config: Config, split: Split) -> Artifact | None:
        """The language model that is built for a system that uses one; None where it exists or there is none.

        It reads the catalogue alone, so that all splits of the same data share it.
        """
        if not isinstance(config, LanguageModelUser) or not config.builds_language_model:
            return None
        seed = derive_seed(self.recipe.seed, "language-model")

        def make(draft: Path, work: Path) -> dict[str, Any]:
            return config.build_language_model(split.dataset, draft, seed=seed, workspace=work).model_dump(mode="json")

        depends = {
            "data": split.dataset.fingerprint,
            "config": plain(config.lm),
            "texts": hash_files(config.text_files()),
            "seed": seed,
            "code": code_version("llm/nano.py", "llm/corpus.py", "training"),
        }
        return self.get(BUILDING, depends, make, self.foresights.language_model(config, split))

    def _source_identity(self) -> dict[str, Any]:
        source = self.recipe.data
        if source is None:
            raise InputError(f"recipe '{self.recipe.name}': key 'data' is missing and no dataset was passed")
        config = plain(source)
        config.pop("path", None)
        return config | {"files": hash_files(source.files())}

    def get(
        self,
        stage: str,
        depends: Mapping[str, Any],
        make: Callable[[Path, Path], Any],
        foresight: Foresight | None = None,
    ) -> Artifact:
        """The artifact of a stage, which joins those that were made; see `Store.get`."""
        artifact = self.store.get(stage, depends, make, foresight)
        if all(artifact.path != other.path for other in self.made):
            self.made.append(artifact)
        return artifact


def training_content(cut: Artifact) -> str:
    """Hash of what a split's artifact holds but its test examples: other ones, and other histories of them, train
    nothing again.
    """
    return cut.content_but(*JUDGING_FILES)


def fit_report(artifact: Artifact) -> FitReport:
    """The training report of a `fit` artifact."""
    return FitReport.model_validate(artifact.manifest["summary"])


def judge(
    model: System, split: Split, settings: EvaluationConfig | RatingEvaluationConfig, *, lists: bool = False
) -> Evaluation | RatingEvaluation:
    """By the evaluator of the recipe's task, which its validation matched with the model; `lists`: see `evaluate`."""
    if isinstance(settings, RatingEvaluationConfig):
        assert isinstance(model, RatingPredictor)
        return evaluate_ratings(model, split, settings)
    assert isinstance(model, Recommender)
    return evaluate(model, split, settings, lists=lists)


def _outputs_frame(model: TextRecommender, dataset: Dataset, examples: Examples, work: Path) -> pl.DataFrame:
    """One row an example: user, latest titles, what was generated, whether it is a title, the first target."""
    completions = model.complete(examples, workspace=work)
    titles = dataset.titles
    return pl.DataFrame(
        {
            "user": dataset.users["user_id"].gather(examples.user),
            "history": [[titles[item] for item in row[-10:]] for row in examples.history],
            "generated": completions,
            "exact": [model.is_title(text) for text in completions],
            "target": [titles[row[0]] for row in examples.target],
        }
    )


def _outputs_summary(outputs: pl.DataFrame) -> dict[str, Any]:
    """Share of exact titles and a few outputs, evenly spaced over the examples."""
    rows = np.linspace(0, outputs.height - 1, min(SHOWN_OUTPUTS, outputs.height)).astype(int)
    share = outputs["exact"].mean()
    return {
        "exact_share": float(share) if isinstance(share, float) else 0.0,
        "distinct": outputs["generated"].n_unique(),
        "examples": outputs[rows.tolist()].to_dicts(),
    }
