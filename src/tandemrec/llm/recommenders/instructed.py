"""What ranker and rater share: a language model that is asked about candidates, and its tuning on instructions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor

from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.llm.chat import Chat, ChatConfig
from tandemrec.llm.finetune import FineTuneConfig, FineTuning, fine_tune, prepare
from tandemrec.llm.instructions import (
    InstructionsConfig,
    Origin,
    question_of,
    rating_options,
    read_instructions,
    write_instructions,
)
from tandemrec.llm.judging import BATCH_TOKENS, Probabilities, option_probabilities
from tandemrec.llm.model import LanguageModel
from tandemrec.llm.neighbours import KnownUsers
from tandemrec.llm.objectives import SFT, Prompted
from tandemrec.llm.questions import (
    NO,
    YES,
    Question,
    QuestionConfig,
    Task,
    answer_tokens,
    fitting_heads,
    number_text,
    option_tokens,
    tail_text,
)
from tandemrec.llm.recommenders.base import LanguageModelUser, PretrainedConfig
from tandemrec.recommender import FitReport, RatingPredictor
from tandemrec.training import TrainingConfig

CUT_ANSWER = 3
"""The answer may take one part in so many of the context."""

INSTRUCTION_TUNING = FineTuneConfig(
    tuning="full",
    batch_size=16,
    training=TrainingConfig(epochs=3, learning_rate=2e-5, warmup_steps=50, schedule="cosine", patience=None),
)
"""Llama4Rec's: all weights, cosine schedule."""


class InstructedConfig(LanguageModelUser):
    """Conventional partner, questions, instructions, tuning."""

    base: str
    """The conventional system whose predictions are hints."""

    similar: str | None = None
    """The system whose user vectors tell who is similar; null: the base, where it has them."""

    prompt: QuestionConfig = QuestionConfig()
    """How questions are written, and which hints they hold."""

    instructions: InstructionsConfig = InstructionsConfig()
    """What is learned from."""

    finetune: FineTuneConfig | None = INSTRUCTION_TUNING
    """How it is learned; null: the language model is asked as it is."""

    tuned: str | None = None
    """The ranker or rater whose language model is taken as it is, in place of tuning one: the same model asked with
    other hints, or about another base."""

    checked: int = Field(100, ge=0)
    """Validation questions that are answered after tuning, for the cost of one and the share of unreadable answers."""

    chat: ChatConfig | None = None
    """A chat endpoint that writes the answers in place of `lm`; null: none."""

    batch_tokens: int = Field(BATCH_TOKENS, ge=16)
    """Tokens that are run through the model at once when candidates are judged."""

    def partners(self) -> tuple[str, ...]:
        """Base first."""
        names = (self.base, self.similar, self.tuned)
        return tuple(dict.fromkeys(name for name in names if name is not None))

    @property
    def remote(self) -> bool:
        """Whether a chat endpoint answers in place of a language model of our own."""
        return self.chat is not None

    def check(self) -> None:
        """As for every language model; one that is taken from another system is its business."""
        if self.tuned is None and not self.remote:
            super().check()

    @property
    def builds_language_model(self) -> bool:
        """Whether the language model must be built first."""
        return self.tuned is None and not self.remote and super().builds_language_model

    def model_folder(self) -> Path | None:
        """The local folder of an existing language model, if this system reads one itself."""
        return super().model_folder() if self.tuned is None and not self.remote else None

    def needs_instructions(self) -> bool:
        """Whether something is learned."""
        return self.tuned is None and self.finetune is not None

    def counts(self) -> dict[Task, int]:
        """Most instructions of each task."""
        mine = self.instructions
        tasks: dict[Task, int] = {"listwise": mine.listwise, "like": mine.like, "rating": mine.rating}
        return {task: most for task, most in tasks.items() if most}

    @property
    def asks_for_ratings(self) -> bool:
        """Whether ratings are what is asked for."""
        return True

    def neighbour_vectors(self, systems: dict[str, Any]) -> Tensor | None:
        """User vectors of the system that tells who is similar; None where nobody is shown.

        Raises:
            InputError: if that system has none.
        """
        if not self.prompt.similar_user:
            return None
        name = self.similar or self.base
        vectors: Tensor | None = getattr(systems[name], "user_vectors", None)
        if vectors is None:
            some = "Biased MF, FM" if isinstance(systems[self.base], RatingPredictor) else "MF, LightGCN"
            raise InputError(
                f"key 'similar': '{name}' has no vectors of users; name a system that has ({some}), or set "
                "prompt.similar_user to false"
            )
        return vectors


class Instructed:
    """A language model that answers questions about candidates.

    Attributes:
        config: the configuration.
        systems: trained partners by name.
        titles: of all items.
        known: what the training part knows of the users.
        options: the ratings that can be answers, ascending; none where no question is about ratings.
        tokens: read and written by the language model since it was made or loaded.
        chat: the endpoint that is asked instead; None: there is none.
    """

    config: InstructedConfig
    candidates: int

    def __init__(
        self,
        config: InstructedConfig,
        *systems: Any,
        language_model: Path | None = None,
        instructions: Path | None = None,
    ) -> None:
        """Configure.

        Args:
            config: the configuration.
            systems: trained, in the order of `config.partners()`.
            language_model: folder of the base model, where `config.lm` says to build one that has been built.
            instructions: parquet file of `write_instructions`, where something is learned.

        Raises:
            InputError: if the system whose language model is taken has none.
        """
        self.config = config
        self.systems: dict[str, Any] = dict(zip(config.partners(), systems, strict=True))
        self.partner: Any = self.systems[config.base]
        self.folder, self.instructions = language_model, instructions
        self.titles: list[str] = []
        self.known: KnownUsers | None = None
        self.options: list[float] = []
        self.budget = 0
        self.tokens = 0
        self.chat = None if config.chat is None else Chat(config.chat)
        self._lm: LanguageModel | None = None
        if config.tuned is not None:
            taken = self.systems[config.tuned]
            if not isinstance(taken, Instructed):
                raise InputError(f"key 'tuned': '{config.tuned}' is no ranker or rater, which alone have what is taken")
            self._lm, self.budget = taken.language_model, taken.budget

    @property
    def language_model(self) -> LanguageModel:
        """The model that is asked.

        Raises:
            InputError: if a chat endpoint is asked instead.
        """
        if self.chat is not None:
            raise InputError(
                "key 'chat': a system that asks a chat endpoint has no language model that others could take"
            )
        if self._lm is None:
            raise RuntimeError(f"{type(self).__name__} must be fitted or loaded first")
        return self._lm

    def tune(self, split: Split, seed: int, workspace: Path | None) -> FitReport:
        """Learn who the users are, and tune the language model if it is to be.

        Raises:
            InputError: if ratings are asked for and some are missing or there are too many different ones, the
                instructions are missing, the validation part gives none, or a partner cannot give the hints.
        """
        data, config = split.dataset, self.config
        if config.asks_for_ratings and data.interactions["rating"].null_count():
            raise InputError(f"{data.name}, column 'rating': a system that asks for ratings needs one in every row")
        self.titles = data.titles
        vectors_UD = config.neighbour_vectors(self.systems)
        self.known = KnownUsers.of(split, vectors_UD)
        if config.asks_for_ratings or (config.needs_instructions() and "rating" in config.counts()):
            self.options = rating_options(self.known)
        if config.remote:
            return FitReport()
        if self._lm is None:
            self._lm = self._load(config.origin(self.folder))
        if not config.needs_instructions():
            self.budget = self.budget or self.language_model.context // CUT_ANSWER
            return FitReport(notes={"language_model": self.language_model.origin, "tuned": config.tuned})
        finetune = config.finetune
        assert finetune is not None
        if self.instructions is None:
            raise InputError("a ranker or rater learns from instructions, which must be written first")
        valid = self._valid_instructions(split, vectors_UD, seed)
        self._lm = prepare(self.language_model, finetune, seed)
        frame = pl.read_parquet(self.instructions)
        self.budget = min(max(map(len, self._answers(frame))), self.language_model.context // CUT_ANSWER)
        task = FineTuning(self.language_model, SFT(), finetune, self._prompted(frame), self._prompted(valid), seed)
        report = fine_tune(task, workspace)
        lm = self.language_model
        report.notes |= {
            "language_model": lm.origin,
            "parameters": sum(p.numel() for p in lm.model.parameters()),
            "instructions": dict(frame.group_by("task").len().sort("task").iter_rows()),
            "max_new_tokens": self.budget,
        }
        return report

    def question(self, task: Task, user: int, history: Sequence[int]) -> Question:
        """A question about a user, without candidates."""
        assert self.known is not None
        return question_of(task, user, history, self.known, self.config.prompt)

    def heads(self, questions: Sequence[Question], reserve: int) -> list[list[int]]:
        """Token ids of questions that leave `reserve` tokens."""
        lm, scale = self.language_model, (min(self.options, default=0.0), max(self.options, default=0.0))
        return fitting_heads(lm, questions, self.titles, scale, self.config.prompt, reserve)

    def judge(
        self,
        task: Literal["like", "rating"],
        questions: Sequence[Question],
        asked: Sequence[Sequence[tuple[int, str | None]]],
    ) -> list[Probabilities]:
        """Probabilities of the answers for items of each question: [Yes, No], or every rating.

        Args:
            task: what is asked.
            questions: B of them.
            asked: K_b items of each with the conventional prediction as text.
        """
        lm, config = self.language_model, self.config
        texts = [[tail_text(task, self.titles[item], hint, config.prompt) for item, hint in row] for row in asked]
        answers = [YES, NO] if task == "like" else [number_text(value) for value in self.options]
        options = option_tokens(lm, answers, config.prompt)
        different = dict.fromkeys(text for several in texts for text in several)
        ids = dict(zip(different, lm.tokenize(list(different)), strict=True))
        tails = [[ids[text] for text in several] for several in texts]
        longest = max((len(tail) for several in tails for tail in several), default=0)
        heads = self.heads(questions, longest + max(map(len, options)) + 1)
        self.tokens += sum(map(len, heads)) + sum(len(tail) for several in tails for tail in several)
        return option_probabilities(lm, heads, tails, options, config.batch_tokens)

    def ask_chat(self, chat: Chat, prompts: Sequence[str]) -> list[str]:
        """The endpoint's answers; its tokens count as those of a language model do."""
        before = chat.prompt_tokens + chat.answer_tokens
        answers = chat.ask(prompts)
        self.tokens += chat.prompt_tokens + chat.answer_tokens - before
        return answers

    def paid(self) -> dict[str, float]:
        """What the endpoint has taken from this system, and attempts to ask it; nothing where there is none."""
        return {} if self.chat is None else {"cost": self.chat.cost, "attempts": float(self.chat.attempts)}

    def save_shared(self, directory: Path) -> None:
        """`config.json`, catalogue, users, and the tuned model, unless it is another system's."""
        assert self.known is not None
        self.config.write(directory)
        origin = None if self.config.remote else self.language_model.origin
        meta = {"base": origin, "titles": self.titles, "options": self.options, "budget": self.budget}
        (directory / "catalogue.json").write_text(json.dumps(meta, ensure_ascii=False) + "\n", encoding="utf-8")
        save_file(self.known.tensors(), directory / "users.safetensors")
        if self.config.needs_instructions():
            self.language_model.save(directory / "model")

    def load_shared(self, directory: Path) -> None:
        """Read what `save_shared` wrote."""
        meta = json.loads((directory / "catalogue.json").read_text(encoding="utf-8"))
        self.titles, self.options, self.budget = meta["titles"], meta["options"], meta["budget"]
        self.known = KnownUsers.from_tensors(load_file(directory / "users.safetensors"))
        finetune = self.config.finetune
        if self.config.tuned is not None or self.config.remote:
            return
        if finetune is None:
            self._lm = self._load(meta["base"])
        elif finetune.tuning == "full":
            self._lm = self._load(str(directory / "model"))
            self._lm.origin = meta["base"]
        else:
            self._lm = self._load(meta["base"], adapter=directory / "model")

    def _valid_instructions(self, split: Split, vectors_UD: Tensor | None, seed: int) -> pl.DataFrame:
        """Questions about the validation items, with the hints of the partner itself; a task may have none.

        Raises:
            InputError: if no task has any.
        """
        config = self.config
        counts = {task: min(most, config.instructions.valid) for task, most in config.counts().items()}
        origin = Origin(split, split.valid, self.partner, vectors_UD)
        settings, prompt = config.instructions, config.prompt
        frame = write_instructions([origin], counts, settings, prompt, self.candidates, seed, complete=False)
        if frame.is_empty():
            hint = f"; where '{config.base}' reaches none of their items, raise candidates" if self.candidates else ""
            raise InputError(
                f"{split.dataset.name}, validation part: none of its {len(split.valid):,} examples gives an "
                "instruction, whose likelihood would choose the epoch; use a split that holds out more users, or lower "
                f"instructions.min_interactions{hint}"
            )
        return frame

    def _prompted(self, frame: pl.DataFrame) -> Prompted:
        """Token ids of instructions; hints that are switched off are left out."""
        config = self.config.prompt
        answers = [answer[: self.budget] for answer in self._answers(frame)]
        read = list(read_instructions(frame))
        texts = [
            "" if item is None else tail_text(question.task, self.titles[item], hint, config)
            for question, item, hint, _ in read
        ]
        tails = self.language_model.tokenize(texts)
        reserve = max(len(tail) + len(answer) for tail, answer in zip(tails, answers, strict=True))
        heads = self.heads([question for question, _, _, _ in read], reserve)
        prompts = [head + tail for head, tail in zip(heads, tails, strict=True)]
        return Prompted(prompts, [[answer] for answer in answers])

    def _answers(self, frame: pl.DataFrame) -> list[list[int]]:
        return answer_tokens(self.language_model, frame["answer"].to_list(), self.config.prompt)

    def _load(self, origin: str, adapter: Path | None = None) -> LanguageModel:
        lm, finetune = self.config.lm, self.config.finetune
        return LanguageModel.load(
            origin,
            dtype=lm.dtype if isinstance(lm, PretrainedConfig) else "auto",
            adapter=adapter,
            four_bit=finetune is not None and finetune.tuning == "qlora",
        )
