"""The language model as a ranker of another system's candidates, all at once or one by one (Llama4Rec)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from tandemrec.data.examples import Examples, ItemArray
from tandemrec.data.split import Split
from tandemrec.llm.generate import GenerationConfig, generate
from tandemrec.llm.parsing import ParsedRanking, parse_ranking
from tandemrec.llm.questions import Question, head_text, place_text
from tandemrec.llm.recommenders.instructed import Instructed, InstructedConfig
from tandemrec.recommender import NO_ITEM, FitReport, FloatArray, Recommender, Reranker


class RankerConfig(InstructedConfig):
    """Which question is asked about the base's first candidates."""

    model: Literal["ranker"] = "ranker"
    """Which model this is."""

    style: Literal["listwise", "like", "rating"] = "listwise"
    """`listwise`: the model writes the candidates in order; `like`: the probability that the user will like each;
    `rating`: the rating it expects. These two are pointwise: all candidates of a user are computed over one prompt."""

    reading: Literal["expected", "likeliest"] = "expected"
    """Of a rating: the mean under the probabilities of all ratings, or the likeliest one, as greedy generation has."""

    candidates: int = Field(10, ge=2, le=1000)
    """Candidates k′ of the base."""

    generation: GenerationConfig = GenerationConfig(beams=1)
    """How a ranking is written; greedy as in the paper."""

    @property
    def asks_for_ratings(self) -> bool:
        """Where that is the style."""
        return self.style == "rating"

    @model_validator(mode="after")
    def _chats_write_lists(self) -> Self:
        if self.remote and (self.style != "listwise" or self.finetune is not None or self.tuned is not None):
            raise ValueError("chat goes with style: listwise and finetune: null, and without tuned")
        return self

    @model_validator(mode="after")
    def _asked_as_tuned(self) -> Self:
        if self.needs_instructions() and self.style not in self.counts():
            raise ValueError(f"style '{self.style}' needs instructions of that task: instructions.{self.style} is 0")
        return self


class Ranker(Instructed, Reranker):
    """Asks about candidates in the base's order, which is the hint, and shows them shuffled.

    Attributes:
        base: the conventional system.
    """

    config: RankerConfig

    def __init__(
        self,
        config: RankerConfig,
        *systems: Recommender,
        language_model: Path | None = None,
        instructions: Path | None = None,
    ) -> None:
        super().__init__(config, *systems, language_model=language_model, instructions=instructions)
        self.base, self.depth, self.candidates = self.partner, config.candidates, config.candidates

    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        """Tune on the instructions; the likelihood of validation answers chooses the epoch.

        Raises:
            InputError: if the instructions are missing, or a partner cannot give the hints.
        """
        report = self.tune(split, seed, workspace)
        asked = split.valid.take(slice(0, self.config.checked))
        if len(asked):
            report.notes["answers"] = self._check(asked)
        return report

    def utilities(self, examples: Examples, items: ItemArray) -> FloatArray:
        """Places in the written ranking, negated; or probabilities of Yes; or expected ratings. (B, K)."""
        if self.config.style == "listwise":
            return self._listwise(examples, items)[0]
        return self._pointwise(examples, items)

    def _pointwise(self, examples: Examples, items: ItemArray) -> FloatArray:
        style = self.config.style
        assert style != "listwise"
        questions = [
            self.question(style, int(user), history.tolist())
            for user, history in zip(examples.user, examples.history, strict=True)
        ]
        rows = [[item for item in row if item != NO_ITEM] for row in items.tolist()]
        asked = [[(item, place_text(place + 1, len(row))) for place, item in enumerate(row)] for row in rows]
        found = np.full(items.shape, np.nan, np.float32)
        there = items != NO_ITEM
        for row, probabilities in enumerate(self.judge(style, questions, asked)):
            if style == "like":
                value = probabilities[:, 0]
            elif self.config.reading == "expected":
                value = probabilities @ np.array(self.options)
            else:
                value = np.array(self.options)[probabilities.argmax(1)]
            found[row, there[row]] = value
        return found

    def _listwise(self, examples: Examples, items: ItemArray) -> tuple[FloatArray, list[ParsedRanking]]:
        """Utilities, and what was read of every answer."""
        questions, shown_order = [], []
        for row, (user, history) in enumerate(zip(examples.user, examples.history, strict=True)):
            listed = [item for item in items[row].tolist() if item != NO_ITEM]
            # Shuffled by what is asked: the base's order is told by the hint alone, and does not depend on the batch.
            order = np.random.default_rng([*listed, len(listed)]).permutation(len(listed))
            question = self.question("listwise", int(user), history.tolist())
            shown = [listed[place] for place in order]
            questions.append(replace(question, candidates=shown, prediction=listed))
            shown_order.append(shown)
        texts = self._written(questions)
        found = np.full(items.shape, np.nan, np.float32)
        parsed = []
        for row, (text, shown) in enumerate(zip(texts, shown_order, strict=True)):
            answer = parse_ranking(text, [self.titles[item] for item in shown])
            parsed.append(answer)
            place = {shown[number]: rank for rank, number in enumerate(answer.order, 1)}
            found[row] = [-place[item] if item in place else np.nan for item in items[row].tolist()]
        return found, parsed

    def _written(self, questions: Sequence[Question]) -> list[str]:
        """The answers to listwise questions."""
        if self.chat is not None:
            texts = [head_text(one, self.titles, (0, 0), self.config.prompt) for one in questions]
            return self.ask_chat(self.chat, texts)
        prompts = self.heads(questions, self.budget)
        texts = generate(self.language_model, prompts, self.config.generation, self.budget)
        self.tokens += sum(map(len, prompts)) + sum(map(len, self.language_model.tokenize(texts)))
        return texts

    def _check(self, examples: Examples) -> dict[str, float]:
        """How readable answers are, and what one costs."""
        items = self.base.rank(examples, self.depth).items[:, : self.depth]
        started, before = time.monotonic(), self.tokens
        facts = {"users": float(len(examples))}
        if self.config.style == "listwise":
            _, parsed = self._listwise(examples, items)
            named = np.array([len(answer.order) for answer in parsed])
            facts |= {
                "unreadable_share": float((named == 0).mean()),
                "named_per_answer": float(named.mean()),
                "inventions_per_answer": float(np.mean([answer.inventions for answer in parsed])),
                "duplicates_per_answer": float(np.mean([answer.duplicates for answer in parsed])),
            }
            facts |= self.paid()
        else:
            self._pointwise(examples, items)
        seconds, tokens = time.monotonic() - started, self.tokens - before
        return facts | {"seconds_per_user": seconds / len(examples), "tokens_per_user": tokens / len(examples)}

    def save(self, directory: Path) -> None:
        """`config.json`, catalogue, users, and the tuned model or adapter as a Hugging Face / PEFT folder."""
        self.save_shared(directory)

    @classmethod
    def load(cls, directory: Path, *partners: Recommender) -> Self:
        """Read what `save` wrote, over the same systems in the order of `config.partners()`."""
        model = cls(RankerConfig.read(directory), *partners)
        model.load_shared(directory)
        return model
