"""The language model as a predictor of ratings (Llama4Rec)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from tandemrec.data.examples import IntArray, ItemArray
from tandemrec.data.ratings import NOBODY, Pairs, target_ratings
from tandemrec.data.split import Split
from tandemrec.llm.generate import GenerationConfig, generate
from tandemrec.llm.instructions import RatingInstructionsConfig
from tandemrec.llm.parsing import parse_rating
from tandemrec.llm.questions import Question, head_text, rating_text, tail_text
from tandemrec.llm.recommenders.instructed import Instructed, InstructedConfig
from tandemrec.recommender import BoolArray, FitReport, FloatArray, RatingPredictor


class RaterConfig(InstructedConfig):
    """How a rating is read off the language model."""

    model: Literal["rater"] = "rater"
    """Which model this is."""

    reading: Literal["expected", "likeliest", "written"] = "expected"
    """`expected`: the mean under the probabilities of all ratings; `likeliest`: the likeliest one; `written`: the
    number that is read in what the model writes (greedily, unless a chat endpoint writes it), and the base's prediction
    where no number between the smallest and the largest training rating can be read."""

    max_new_tokens: int = Field(16, ge=1)
    """Most tokens of what `lm` writes; a model that thinks aloud first needs hundreds. An endpoint has
    `chat.max_tokens`."""

    instructions: RatingInstructionsConfig = RatingInstructionsConfig()
    """What is learned from."""

    @model_validator(mode="after")
    def _chats_write_numbers(self) -> Self:
        if self.remote and (self.reading != "written" or self.finetune is not None or self.tuned is not None):
            raise ValueError("chat goes with reading: written and finetune: null, and without tuned")
        return self


class Rater(Instructed, RatingPredictor):
    """Expected rating from the probabilities of the rating tokens, all items of a user over one prompt; or written."""

    config: RaterConfig
    candidates = 0

    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        """Tune on the instructions; the likelihood of the validation ratings chooses the epoch.

        Raises:
            InputError: if the data have no ratings, the instructions are missing, or a partner cannot give the hints.
        """
        report = self.tune(split, seed, workspace)
        asked, _ = target_ratings(split, split.valid.take(slice(0, self.config.checked)))
        if len(asked):
            report.notes["answers"] = self._check(asked.pairs)
        return report

    def predict(self, pairs: Pairs) -> FloatArray:
        """Predicted ratings (B,), from the user's training ratings, the similar user's and the base's prediction.

        Of an unknown item there is nothing to say but the base's prediction.
        """
        found: FloatArray = self.partner.predict(pairs).astype(np.float32)
        known = np.flatnonzero(pairs.item != NOBODY)
        asked, hints = pairs.take(known), found[known]
        found[known] = (
            self._written(asked, hints)[0] if self.config.reading == "written" else self._judged(asked, hints)
        )
        return found

    def _judged(self, pairs: Pairs, hints: FloatArray) -> FloatArray:
        """Ratings (B,) by the probabilities of all of them; `hints` (B,) are the base's."""
        users, owner = np.unique(pairs.user, return_inverse=True)
        order = np.argsort(owner, kind="stable")
        bounds = np.searchsorted(owner[order], np.arange(len(users) + 1))
        rows = [order[start:stop] for start, stop in pairwise(bounds.tolist())]
        asked = [[(int(pairs.item[row]), rating_text(float(hints[row]))) for row in mine] for mine in rows]
        found = np.empty(len(pairs), np.float32)
        options = np.array(self.options)
        for mine, probabilities in zip(rows, self.judge("rating", self._questions(users), asked), strict=True):
            expected = self.config.reading == "expected"
            found[mine] = probabilities @ options if expected else options[probabilities.argmax(1)]
        return found

    def _questions(self, users: ItemArray) -> list[Question]:
        """One for each user, without an item."""
        assert self.known is not None
        histories = [self.known.items(int(user), self.config.prompt.history)[0] for user in users]
        return [self.question("rating", int(user), history) for user, history in zip(users, histories, strict=True)]

    def _written(self, pairs: Pairs, hints: FloatArray) -> tuple[FloatArray, BoolArray]:
        """Ratings (B,) as they are read in answers, else the base's; and for which answers the latter is so, (B,).

        `hints` (B,) are the base's.
        """
        users, owner = np.unique(pairs.user, return_inverse=True)
        tails = [
            tail_text("rating", self.titles[int(item)], rating_text(hint), self.config.prompt)
            for item, hint in zip(pairs.item, hints.tolist(), strict=True)
        ]
        low, high = min(self.options), max(self.options)
        answers = self._answers_to(self._questions(users), owner, tails)
        read = [parse_rating(answer, low, high) for answer in answers]
        unreadable = np.array([value is None for value in read], bool)
        found = hints.copy()
        found[~unreadable] = [value for value in read if value is not None]
        return found, unreadable

    def _answers_to(self, questions: Sequence[Question], owner: IntArray, tails: Sequence[str]) -> list[str]:
        """What is written behind B tails, each of which belongs to the question of its owner."""
        config, scale = self.config, (min(self.options), max(self.options))
        if self.chat is not None:
            heads = [head_text(question, self.titles, scale, config.prompt) for question in questions]
            return self.ask_chat(self.chat, [heads[mine] + tail for mine, tail in zip(owner, tails, strict=True)])
        lm, limit = self.language_model, config.max_new_tokens
        ends = lm.tokenize(tails)
        begins = self.heads(questions, max(map(len, ends), default=0) + limit)
        prompts = [begins[mine] + end for mine, end in zip(owner, ends, strict=True)]
        texts = generate(lm, prompts, GenerationConfig(beams=1), limit)
        self.tokens += sum(map(len, prompts)) + sum(map(len, lm.tokenize(texts)))
        return texts

    def _check(self, pairs: Pairs) -> dict[str, float]:
        """What answers cost, and how readable written ones are."""
        started, before, users = time.monotonic(), self.tokens, len(np.unique(pairs.user))
        facts = {"users": float(users)}
        if self.config.reading == "written":
            facts["unreadable_share"] = float(self._written(pairs, self.partner.predict(pairs))[1].mean())
            facts |= self.paid()
        else:
            self.predict(pairs)
        seconds, tokens = time.monotonic() - started, self.tokens - before
        return facts | {"seconds_per_user": seconds / users, "tokens_per_user": tokens / users}

    def save(self, directory: Path) -> None:
        """`config.json`, catalogue, users, and the tuned model or adapter as a Hugging Face / PEFT folder."""
        self.save_shared(directory)

    @classmethod
    def load(cls, directory: Path, *partners: RatingPredictor) -> Self:
        """Read what `save` wrote, over the same systems in the order of `config.partners()`."""
        model = cls(RaterConfig.read(directory), *partners)
        model.load_shared(directory)
        return model
