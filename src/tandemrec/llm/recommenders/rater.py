"""The language model as a predictor of ratings (Llama4Rec)."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from typing import Literal, Self

import numpy as np

from tandemrec.data.ratings import Pairs, target_ratings
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.llm.instructions import RatingInstructionsConfig
from tandemrec.llm.questions import rating_text
from tandemrec.llm.recommenders.instructed import Instructed, InstructedConfig
from tandemrec.recommender import FitReport, FloatArray, RatingPredictor


class RaterConfig(InstructedConfig):
    """How a rating is read off the language model."""

    model: Literal["rater"] = "rater"
    """Which model this is."""

    reading: Literal["expected", "likeliest"] = "expected"
    """The mean under the probabilities of all ratings, or the likeliest one, as greedy generation has it."""

    instructions: RatingInstructionsConfig = RatingInstructionsConfig()
    """What is learned from."""


class Rater(Instructed, RatingPredictor):
    """Expected rating from the probabilities of the rating tokens; all items of a user share one prompt."""

    config: RaterConfig
    candidates = 0

    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        """Tune on the instructions; the likelihood of the validation ratings chooses the epoch.

        Raises:
            InputError: if the data have no ratings, the instructions are missing, or a partner cannot give the hints.
        """
        if split.dataset.interactions["rating"].null_count():
            raise InputError(f"{split.dataset.name}, column 'rating': a rater needs a rating in every row")
        report = self.tune(split, seed, workspace)
        asked, _ = target_ratings(split, split.valid.take(slice(0, self.config.checked)))
        if len(asked):
            report.notes["answers"] = self._check(asked.pairs)
        return report

    def predict(self, pairs: Pairs) -> FloatArray:
        """Predicted ratings (B,), from the user's training ratings, the similar user's and the base's prediction."""
        assert self.known is not None
        hints = self.partner.predict(pairs).tolist()
        users, owner = np.unique(pairs.user, return_inverse=True)
        order = np.argsort(owner, kind="stable")
        bounds = np.searchsorted(owner[order], np.arange(len(users) + 1))
        rows = [order[start:stop] for start, stop in pairwise(bounds.tolist())]
        histories = [self.known.items(int(user), self.config.prompt.history)[0] for user in users]
        questions = [
            self.question("rating", int(user), history) for user, history in zip(users, histories, strict=True)
        ]
        asked = [[(int(pairs.item[row]), rating_text(hints[row])) for row in mine] for mine in rows]
        found = np.empty(len(pairs), np.float32)
        options = np.array(self.options)
        for mine, probabilities in zip(rows, self.judge("rating", questions, asked), strict=True):
            expected = self.config.reading == "expected"
            found[mine] = probabilities @ options if expected else options[probabilities.argmax(1)]
        return found

    def _check(self, pairs: Pairs) -> dict[str, float]:
        """What answers cost."""
        started, before = time.monotonic(), self.tokens
        self.predict(pairs)
        users = len(np.unique(pairs.user))
        seconds, tokens = time.monotonic() - started, self.tokens - before
        return {"users": float(users), "seconds_per_user": seconds / users, "tokens_per_user": tokens / users}

    def save(self, directory: Path) -> None:
        """`config.json`, catalogue, users, and the tuned model or adapter as a Hugging Face / PEFT folder."""
        self.save_shared(directory)

    @classmethod
    def load(cls, directory: Path, *partners: RatingPredictor) -> Self:
        """Read what `save` wrote, over the same systems in the order of `config.partners()`."""
        model = cls(RaterConfig.read(directory), *partners)
        model.load_shared(directory)
        return model
