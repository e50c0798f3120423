"""Recommenders that write the next title and ground it: what BIGRec and LLaRA share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import polars as pl
import torch
from pydantic import Field, model_validator
from safetensors.torch import load_file, save_file
from torch import Tensor

from tandemrec.data.examples import Examples, ItemArray
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.evaluation.evaluate import validation_figures
from tandemrec.llm.card import model_card
from tandemrec.llm.finetune import FineTuneConfig, FineTuning, fine_tune, go_on, prepare
from tandemrec.llm.generate import GenerationConfig, SamplingConfig, generate, sample
from tandemrec.llm.grounding import Grounding, title_vectors
from tandemrec.llm.model import LanguageModel
from tandemrec.llm.objectives import SFT, SOFT, Objective, Prompted
from tandemrec.llm.prompts import (
    PromptConfig,
    PromptForm,
    answer_text,
    answer_tokens,
    fitting_prompts,
    prompt_text,
    prompt_tokens,
)
from tandemrec.llm.recommenders.base import LanguageModelUser, PretrainedConfig
from tandemrec.llm.recommenders.lessons import (
    ObjectiveConfig,
    SDPOConfig,
    SFTConfig,
    SOFTConfig,
    draw_negatives,
    sdpo_lesson,
)
from tandemrec.llm.schedule import AdaptiveSchedule, Curriculum
from tandemrec.llm.trie import Trie, decode_titles
from tandemrec.llm.vllm import Server
from tandemrec.recommender import Config, FitReport, TextRecommender

MAX_ANSWER = 128
"""Most tokens of an answer where the configuration names no number: few titles are longer, and those are cut."""


class WriterConfig(LanguageModelUser):
    """Language model, prompt, fine-tuning, generation."""

    prompt: PromptConfig = PromptConfig()
    """How a history becomes a question."""

    objective: ObjectiveConfig = SFTConfig()
    """What is learned: the real titles, a mix of them with the model's own, or preferences between titles."""

    finetune: FineTuneConfig = FineTuneConfig()
    """How it is learned."""

    loss_on: Literal["answer", "all"] = "answer"
    """Tokens that training learns to predict: the answer's, or the prompt's too, as the code of BIGRec has it."""

    generation: GenerationConfig = GenerationConfig()
    """How an answer is written."""

    train_on: str | None = None
    """The selector of the recipe's `selection` part whose choice of training examples it learns from; null: all."""

    decoding: Literal["free", "constrained"] = "free"
    """`free`: any text, and items rank by the distance of their title to it, as published. `constrained`: nothing but
    titles of the catalogue; the items found rank first, likeliest first, then all others by distance to the first."""

    decoded: int = Field(20, ge=1)
    """Items that constrained decoding finds, with as many beams (or `generation.beams`, if that is more)."""

    @model_validator(mode="after")
    def _preferences_are_between_answers(self) -> Self:
        if isinstance(self.objective, SDPOConfig) and self.loss_on == "all":
            raise ValueError("objective sdpo compares answers; it does not go with loss_on: all")
        return self

    @property
    def teacher(self) -> str | None:
        """The system that the objective learns from."""
        return None if isinstance(self.objective, SFTConfig) else self.objective.teacher

    def partners(self) -> tuple[str, ...]:
        """The teacher, if any."""
        return () if self.teacher is None else (self.teacher,)


class TitleWriter(TextRecommender):
    """Step 1: fine-tune on (history titles → next title). Step 2: rank items by distance to what the model writes.

    Attributes:
        config: the configuration.
        titles: of all items.
        grounding: ranks items for a text.
        server: a vLLM server with this very model that writes free answers in its place; None: none does.
    """

    needs_training_examples = True
    config_type: ClassVar[type[WriterConfig]]
    form: ClassVar[PromptForm] = "whole"
    grounding: Grounding

    def __init__(
        self,
        config: WriterConfig,
        language_model: Path | None = None,
        *,
        teacher: Path | None = None,
        distilled: Path | None = None,
    ) -> None:
        """Configure.

        Args:
            config: the configuration.
            language_model: folder of the base model, where `config.lm` says to build one that has been built.
            teacher: folder of the saved system that `config.objective` names, where training starts from it.
            distilled: parquet file of its answers to the training prompts, see `llm.distil`.
        """
        self.config = config
        self.base = str(language_model) if language_model is not None else None
        self.teacher, self.distilled = teacher, distilled
        self.titles: list[str] = []
        self._lm: LanguageModel | None = None
        self.server: Server | None = None
        self._labels: list[list[int]] = []
        self._trie: Trie | None = None
        self._memory: dict[tuple[int, ...], str] = {}
        self._found: dict[tuple[int, ...], tuple[list[int], list[float]]] = {}

    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        """Fine-tune on `split.train`; the validation part chooses the epoch.

        Raises:
            InputError: if the language model cannot be read, or what the objective needs is missing or does not fit.
        """
        self.start(split.dataset.titles, seed=seed)
        lm = self.language_model
        self._ground(title_vectors(self.titles, lm.encode))
        objective, part, curriculum = self._lesson(split, seed, workspace)
        task = self._task(objective, part, self.answered(split.valid), seed)
        task.curriculum = curriculum
        if self.config.finetune.select_on == "ndcg@10":
            task.judge = lambda: self._judge(split)
        report = fine_tune(task, workspace)
        self._forget()
        report.notes |= {
            "language_model": lm.origin,
            "parameters": sum(p.numel() for p in lm.model.parameters()),
            "max_new_tokens": self._answer_budget(),
        }
        return report

    def start(self, titles: list[str], *, seed: int = 0) -> None:
        """Take the weights that training starts from, a fresh adapter included; enough for prompts and losses.

        Raises:
            InputError: if the language model cannot be read, or the teacher that training goes on with does not fit.
        """
        self.titles = titles
        self._adopt(self._starting_model(seed))

    def complete(self, examples: Examples, *, workspace: Path | None = None) -> list[str]:
        """The generated answers; each different prompt is answered once."""
        return [self._memory[key] for key in self._keys(examples, workspace)]

    def sampled(
        self, examples: Examples, config: SamplingConfig, seed: int, workspace: Path | None = None
    ) -> list[list[str]]:
        """Independent answers to every example's prompt, in the order they were drawn."""
        budget = self._answer_budget()
        drawn = sample(self.language_model, self.prompts(examples), config, budget, seed=seed, workspace=workspace)
        return [[beam.text for beam in several] for several in drawn]

    def scores(self, examples: Examples) -> Tensor:
        """Minus the distances of all titles to the generated one, (B, I).

        With constrained decoding the K items found have positive scores instead: 1 for the least likely of them, and
        more by the difference of their log-probabilities (over length^penalty).
        """
        keys = self._keys(examples)
        scores = self.grounding.scores([self._memory[key] for key in keys])
        if self.config.decoding == "constrained":
            items_BK = torch.tensor([self._found[key][0] for key in keys], device=scores.device)
            log_BK = torch.tensor([self._found[key][1] for key in keys], device=scores.device)
            scores.scatter_(1, items_BK, 1 + log_BK - log_BK[:, -1:])
        return scores

    def is_title(self, text: str) -> bool:
        """Whether a generated text is exactly a title of the catalogue."""
        return self.grounding.is_title(text)

    def prompts(self, examples: Examples) -> list[list[int]]:
        """Token ids of the questions."""
        lm, config = self.language_model, self.config.prompt
        return prompt_tokens(lm, examples, self.titles, config, self._answer_budget(), self.form)

    def answered(self, examples: Examples) -> Prompted:
        """What training learns from the examples that have a target: the question with the title of the first one.

        Titles longer than generation may write are cut.
        """
        examples, target = first_targets(examples)
        budget = self._answer_budget()
        labels = [[self._labels[item][:budget]] for item in target]
        return Prompted(self.prompts(examples), labels)

    def prompt_texts(self, examples: Examples) -> list[str]:
        """The questions as text, for other programs.

        Raises:
            InputError: if they hold item vectors, which no text can.
        """
        if self.form == "slots":
            raise InputError(f"prompts of {type(self).__name__} hold item vectors and cannot be written as text")
        lm, config = self.language_model, self.config.prompt
        _, shown = fitting_prompts(lm, examples, self.titles, config, self._answer_budget(), self.form)
        return [prompt_text([self.titles[item] for item in row], config) for row in shown]

    @property
    def language_model(self) -> LanguageModel:
        """The fine-tuned model."""
        if self._lm is None:
            raise RuntimeError(f"{type(self).__name__} must be fitted or loaded first")
        return self._lm

    def save(self, directory: Path) -> None:
        """`config.json`, titles, their vectors, and the model or its adapter as a Hugging Face / PEFT folder."""
        lm = self.language_model
        self.config.write(directory)
        meta = {"base": lm.origin, "titles": self.titles}
        (directory / "catalogue.json").write_text(json.dumps(meta, ensure_ascii=False) + "\n", encoding="utf-8")
        save_file({"vectors": self.grounding.vectors_ID.cpu().contiguous()}, directory / "catalogue.safetensors")
        lm.save(directory / "model")
        (directory / "model" / "README.md").write_text(self._card(), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote; the base model must still be where it was."""
        config = cls.config_type.read(directory)
        meta = json.loads((directory / "catalogue.json").read_text(encoding="utf-8"))
        model = cls(config, Path(meta["base"]) if config.builds_language_model else None)
        model.titles = meta["titles"]
        if config.finetune.tuning == "full":
            lm = model._load(str(directory / "model"))
            lm.origin = meta["base"]
        else:
            lm = model._load(meta["base"], adapter=directory / "model")
        model._adopt(lm)
        model._ground(load_file(directory / "catalogue.safetensors")["vectors"].to(lm.device))
        return model

    def _card(self) -> str:
        config, lm = self.config, self.language_model
        examples = Examples.from_histories([range(min(2, len(self.titles)))])
        prompt = lm.tokenizer.decode([token for token in self.prompts(examples)[0] if token >= 0])
        return model_card(
            kind=type(self).__name__,
            base=lm.origin,
            adapter=lm.has_adapter,
            prompt=prompt,
            answer=answer_text(self.titles[0], config.prompt),
            settings=config.model_dump(
                mode="json", include={"prompt", "objective", "loss_on", "finetune", "generation"}
            ),
            items=len(self.titles),
        )

    def _starting_model(self, seed: int) -> LanguageModel:
        """What training starts from: the base model, or the teacher where the objective goes on with it."""
        config = self.config
        objective = config.objective
        if isinstance(objective, SDPOConfig) or (isinstance(objective, SOFTConfig) and objective.start == "teacher"):
            if self.teacher is None:
                raise InputError(f"key 'objective.teacher': the system '{objective.teacher}' must be trained first")
            teacher = type(self).load(self.teacher)
            for key in ("model", "lm", "prompt", "finetune.tuning", "finetune.rank", "finetune.alpha"):
                mine, its = _value(config, key), _value(teacher.config, key)
                if mine != its:
                    raise InputError(f"key '{key}': found {mine}, but training goes on with a teacher that has {its}")
            return go_on(teacher.language_model, config.finetune)
        return prepare(self._load(config.origin(self.base)), config.finetune, seed)

    def _lesson(self, split: Split, seed: int, workspace: Path | None) -> tuple[Objective, Prompted, Curriculum | None]:
        """The objective, the completions it needs, and what moves its weight between epochs."""
        config, lm, n = self.config.objective, self.language_model, self._answer_budget()
        part = self.answered(split.train)
        if isinstance(config, SFTConfig):
            return SFT(config.reduction), self._counted(part), None
        examples, _ = first_targets(split.train)
        if isinstance(config, SDPOConfig):
            negatives = draw_negatives(examples, split.n_items, config.negatives, seed)
            part = part.beside([[self._labels[item][:n] for item in row] for row in negatives])
            return sdpo_lesson(config, lm, part, self.config.finetune.micro_batch_tokens, workspace), part, None
        texts = self._distilled(config, len(examples))
        labels = iter(answer_tokens(lm, [text for several in texts for text in several], self.config.prompt))
        part = part.beside([[next(labels)[:n] for _ in several] for several in texts])
        objective = SOFT(tau=1.0, distilled=len(texts[0]), reduction=config.reduction)
        curriculum = Curriculum(config.schedule, objective, self._distance(config.schedule, examples, seed))
        return objective, self._counted(part), curriculum

    def _task(self, objective: Objective, part: Prompted, valid: Prompted, seed: int) -> FineTuning:
        return FineTuning(self.language_model, objective, self.config.finetune, part, valid, seed)

    def _counted(self, part: Prompted) -> Prompted:
        """The prompts with the tokens that count as labels."""
        return part if self.config.loss_on == "answer" else part.whole()

    def _distilled(self, config: SOFTConfig, n: int) -> list[list[str]]:
        """K answers to each of the N training prompts."""
        if self.distilled is None:
            raise InputError(f"key 'objective.teacher': the answers of '{config.teacher}' must be written first")
        k = 1 if config.distil.sampling is None else config.distil.sampling.samples
        answers: list[str] = pl.read_parquet(self.distilled)["answer"].to_list()
        if len(answers) != n * k:
            raise InputError(f"{self.distilled}: found {len(answers)} answers, expected {n * k}, {k} a training prompt")
        return [answers[row * k : (row + 1) * k] for row in range(n)]

    def _distance(self, schedule: Any, examples: Examples, seed: int) -> Any:
        """Measures how far from the truth the model's answers to a fixed sample of training prompts are."""
        m = schedule.prompts if isinstance(schedule, AdaptiveSchedule) else 0
        rows = np.random.default_rng(seed).permutation(len(examples))[:m]
        sample, target = first_targets(examples.take(np.sort(rows)))
        prompts = self.prompts(sample)

        def measure() -> float:
            distances_M = self.grounding.distances(self._write(prompts), target.tolist()).double()
            return float((distances_M**2 if schedule.distance == "squared" else distances_M).mean())

        return measure

    def _keys(self, examples: Examples, workspace: Path | None = None) -> list[tuple[int, ...]]:
        """The prompts, which the memory has the answers to."""
        keys = [tuple(prompt) for prompt in self.prompts(examples)]
        new = sorted({key for key in keys if key not in self._memory})
        if new and self.config.decoding == "constrained":
            self._decode(new, workspace)
        elif new:
            answers = self._write([list(key) for key in new], workspace)
            self._memory |= dict(zip(new, answers, strict=True))
        return keys

    def _write(self, prompts: Sequence[list[int]], workspace: Path | None = None) -> list[str]:
        lm, config = self.language_model, self.config.generation
        return generate(lm, prompts, config, self._answer_budget(), workspace, self.server)

    def _decode(self, new: list[tuple[int, ...]], workspace: Path | None) -> None:
        lm, config = self.language_model, self.config
        if self._trie is None:
            # Titles are cut where training cuts them; cut to the same tokens they are the same title.
            budget = self._answer_budget()
            self._trie = Trie.build([label[:budget] for label in self._labels], lm.device)
        k = min(config.decoded, len(self.titles))
        ranking = decode_titles(
            lm,
            [list(key) for key in new],
            self._trie,
            k,
            beams=max(k, config.generation.beams),
            length_penalty=config.generation.length_penalty,
            batch_size=config.generation.batch_size,
            workspace=workspace,
        )
        for key, items, scores in zip(new, ranking.items.tolist(), ranking.scores.tolist(), strict=True):
            self._found[key], self._memory[key] = (items, scores), self.titles[items[0]]

    def _forget(self) -> None:
        self._memory.clear()
        self._found.clear()

    def _load(self, origin: str, adapter: Path | None = None) -> LanguageModel:
        lm = self.config.lm
        return LanguageModel.load(
            origin,
            dtype=lm.dtype if isinstance(lm, PretrainedConfig) else "auto",
            adapter=adapter,
            four_bit=self.config.finetune.tuning == "qlora",
        )

    def _judge(self, split: Split) -> dict[str, float]:
        self._forget()
        self.complete(split.valid)
        return validation_figures(self, split.valid)

    def _adopt(self, lm: LanguageModel) -> None:
        self._lm, self._labels = lm, answer_tokens(lm, self.titles, self.config.prompt)
        self._trie = None

    def _ground(self, vectors_ID: Tensor) -> None:
        self.item_vectors = vectors_ID
        self.grounding = Grounding(self.titles, vectors_ID, self.language_model.encode)

    def _answer_budget(self) -> int:
        """Tokens kept free for an answer, in training and in generation."""
        given = self.config.generation.max_new_tokens
        context = self.language_model.context
        return given or min(max(len(label) for label in self._labels), MAX_ANSWER, max(1, context // 4))


def first_targets(examples: Examples) -> tuple[Examples, ItemArray]:
    """The examples that have a target, and the first one of each."""
    asked = examples.take(np.flatnonzero(examples.target.lengths > 0))
    return asked, asked.target.values[asked.target.starts]


def _value(config: Config, dotted: str) -> Any:
    value: Any = config
    for name in dotted.split("."):
        value = getattr(value, name)
    return value
