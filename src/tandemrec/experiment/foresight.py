"""What the stages of a run take, before they are made: every stage's question to the config that knows.

The answers are in the files `work.py` and `…_work.py` of the rooms, which are read here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import tandemrec.aggregation.work
import tandemrec.conventional.direct.work
import tandemrec.conventional.rating.work
import tandemrec.conventional.sequential.work
import tandemrec.llm.instructed_work  # noqa: F401
from tandemrec.augmentation.augmented_ratings import AugmentedRatingsConfig
from tandemrec.augmentation.dllm2rec import DLLM2RecConfig
from tandemrec.augmentation.llm_cf import LLMCFConfig
from tandemrec.augmentation.work import attributes_work, lists_work, thoughts_work
from tandemrec.data.split import Split
from tandemrec.evaluation.evaluate import EvaluationConfig
from tandemrec.experiment.store import plain
from tandemrec.llm.nano import NanoConfig
from tandemrec.llm.reader import Reader, reader_of
from tandemrec.llm.recommenders.base import LanguageModelConfig, LanguageModelUser
from tandemrec.llm.recommenders.instructed import InstructedConfig
from tandemrec.llm.recommenders.lessons import DistilConfig
from tandemrec.llm.recommenders.tiger import TIGERConfig
from tandemrec.llm.recommenders.work import content_work, semantic_ids_work
from tandemrec.llm.recommenders.writer import WriterConfig
from tandemrec.llm.work import build_work, distil_work
from tandemrec.recommender import Config
from tandemrec.selection.influence import InfluenceConfig
from tandemrec.selection.work import effort_work, influence_work, select_work
from tandemrec.training import default_device
from tandemrec.work import Foresight, Scene, Work, answer_work, fit_work, ranking_work

if TYPE_CHECKING:
    from tandemrec.augmentation.augmented import AugmentedConfig
    from tandemrec.experiment.stages import Stages
    from tandemrec.selection.config import SelectionConfig


@dataclass
class Foresights:
    """Over the stages of a recipe.

    Attributes:
        stages: of the recipe.
        device: kind of torch device that runs them; empty: the one at hand.
        readers: language models that were measured, by their settings.
    """

    stages: Stages
    device: str = ""
    readers: dict[str, Reader] = field(default_factory=dict)

    def fit(self, name: str, lesson: Split) -> Foresight:
        """Training of a system on the examples it learns from."""
        return Foresight(self._config(name), lambda config: fit_work(config, self._scene(name, lesson)))

    def semantic_ids(self, config: TIGERConfig, split: Split) -> Foresight:
        """Ids of the catalogue."""

        def work(tiger: Config) -> Work | None:
            assert isinstance(tiger, TIGERConfig)
            return semantic_ids_work(tiger.ids, self._bare(split))

        return Foresight(config, work)

    def evaluate(self, name: str, split: Split) -> Foresight:
        """Judgement of a system."""
        settings = self.stages.recipe.evaluation
        examples = getattr(split, settings.part)

        def work(config: Config) -> Work | None:
            answered = answer_work(config, self._scene(name, split), examples)
            if answered is None:
                return None
            counted = Work()
            if isinstance(settings, EvaluationConfig) and not isinstance(config, TIGERConfig):  # whose lists are ranked
                counted = ranking_work(len(examples), split.n_items)
            return replace(answered + counted, examples=len(examples))

        return Foresight(self._config(name), work)

    def distil(self, teacher: str, distil: DistilConfig, lesson: Split) -> Foresight:
        """A teacher's answers to the training prompts."""

        def work(config: Config) -> Work | None:
            assert isinstance(config, WriterConfig)
            return replace(distil_work(config, distil, self._scene(teacher, lesson)), examples=len(lesson.train))

        return Foresight(self._config(teacher), work)

    def lists(self, config: DLLM2RecConfig, split: Split) -> Foresight:
        """What a teacher recommends at training positions."""

        def work(teacher: Config) -> Work | None:
            return lists_work(teacher, config.lists, self._scene(config.teacher, split))

        return Foresight(self._config(config.teacher), work)

    def thoughts(self, name: str, split: Split) -> Foresight:
        """Chains of thought about training examples."""

        def work(config: Config) -> Work | None:
            assert isinstance(config, LLMCFConfig)
            return thoughts_work(config, self._scene(name, split))

        return Foresight(self._config(name), work)

    def item_vectors(self, name: str, split: Split) -> Foresight:
        """An encoder's vectors of the items' texts."""

        def work(config: Config) -> Work | None:
            assert isinstance(config, LLMCFConfig)
            assert config.encoder is not None
            return replace(content_work(config.encoder, self._bare(split))[0], examples=split.n_items)

        return Foresight(self._config(name), work)

    def language_model(self, config: LanguageModelUser, split: Split) -> Foresight:
        """Building a nano model."""

        def work(lm: Config) -> Work | None:
            assert isinstance(lm, NanoConfig)
            return build_work(lm, self._bare(split), self._reader(lm, split))

        return Foresight(config.lm, work)

    def origin(self, name: str, split: Split) -> Foresight:
        """A conventional model trained on an earlier part of every history: at most what the whole takes."""
        return Foresight(self._config(name), lambda config: fit_work(config, self._bare(split)))

    def instructions(self, config: InstructedConfig, split: Split) -> Foresight:
        """The base's lists for all users, once an origin."""
        origins = config.instructions.origins

        def work(base: Config) -> Work | None:
            answered = answer_work(base, self._bare(split), split.train)
            return None if answered is None else origins * answered

        return Foresight(self._config(config.base), work)

    def augmentation(self, config: AugmentedConfig, split: Split) -> Foresight:
        """What a language model is asked about every user."""
        share = config.data.share * config.data.per_user

        def work(judge: Config) -> Work | None:
            answered = answer_work(judge, self._scene(config.by, split), split.train)
            users = float((split.user_counts > 0).sum())
            return None if answered is None else answered * (share * users / max(1, len(split.train)))

        return Foresight(self._config(config.by), work)

    def attributes(self, config: AugmentedRatingsConfig, split: Split) -> Foresight:
        """What a language model is asked about every item."""

        def work(asking: Config) -> Work | None:
            assert isinstance(asking, AugmentedRatingsConfig)
            return attributes_work(asking, self._scene(asking.by or "", split))

        return Foresight(config, work)

    def influence(self, name: str, settings: InfluenceConfig, selection: SelectionConfig, split: Split) -> Foresight:
        """Gradient, solve and scores over a surrogate."""
        return Foresight(
            self._config(name), lambda config: influence_work(config, settings, selection.loss, self._bare(split))
        )

    def select(self, selector: str, selection: SelectionConfig, split: Split) -> Foresight:
        """A selector's choice."""
        chooser, surrogate = selection.selectors[selector], selection.surrogate_of(selector)
        judge = None if surrogate is None else self._config(surrogate)
        named = selection.language_model_of(selector)

        def work(_: Config) -> Work | None:
            if named is None:
                return select_work(chooser, judge, selection.loss, self._bare(split))
            return select_work(chooser, judge, selection.loss, self._scene(named, split), self._config(named))

        return Foresight(chooser, work)

    def effort(self, name: str, selection: SelectionConfig, split: Split) -> Foresight:
        """Gradient norms of a language model."""
        return Foresight(
            self._config(name), lambda config: effort_work(config, selection.effort, self._scene(name, split))
        )

    def _config(self, name: str) -> Config:
        return self.stages.recipe.models[name]

    def _bare(self, split: Split) -> Scene:
        return Scene(split, self.stages.recipe.models, self.device or default_device().type)

    def _scene(self, name: str, split: Split) -> Scene:
        readers: dict[str, object] = {
            other: self._reader(config.lm, split, self._built(other))
            for other, config in self.stages.recipe.models.items()
            if isinstance(config, LanguageModelUser)
            and not (isinstance(config, InstructedConfig) and (config.tuned or config.remote))
        }
        return replace(self._bare(split), reader=readers.get(name), readers=readers)

    def _built(self, name: str) -> Path | None:
        """Folder of a system's nano model, if it exists."""
        base = self.stages.bases.get(name)
        return base.path if base is not None and (base.path / "config.json").exists() else None

    def _reader(self, lm: LanguageModelConfig, split: Split, built: Path | None = None) -> Reader:
        key = f"{plain(lm)} {built}"
        if key not in self.readers:
            self.readers[key] = reader_of(lm, split.dataset, built)
        return self.readers[key]
