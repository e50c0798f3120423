"""Questions about candidates: rank them, say whether the user will like one, predict a rating (Llama4Rec, Figure 2).

A question about single candidates is a head, which all candidates of a user share, and a tail for each of them. Tuning
and inference read the same texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import Field

from tandemrec.errors import InputError
from tandemrec.llm.model import LanguageModel
from tandemrec.llm.prompts import PromptConfig

Task = Literal["listwise", "like", "rating"]
YES, NO = "Yes", "No"


class QuestionConfig(PromptConfig):
    """How a question is written."""

    history: int = Field(20, ge=1)
    """Latest titles of the user that are shown."""

    similar: int = Field(10, ge=0)
    """Latest titles of the most similar user that are shown."""

    similar_user: bool = True
    """Show them at all."""

    prediction: bool = True
    """Show what the conventional model predicts."""


@dataclass(frozen=True)
class Question:
    """What a language model is asked about a user.

    Attributes:
        task: what it is asked to do.
        history: the user's items, oldest first.
        ratings: what the user gave them, None where unknown; shown by the task `rating` only.
        similar: the most similar user's items.
        similar_ratings: theirs.
        candidates: items to be ranked, in the order they are shown (`listwise`).
        prediction: the same in the conventional model's order (`listwise`); empty: no prediction.
    """

    task: Task
    history: list[int]
    ratings: list[float | None]
    similar: list[int] = field(default_factory=list)
    similar_ratings: list[float | None] = field(default_factory=list)
    candidates: list[int] = field(default_factory=list)
    prediction: list[int] = field(default_factory=list)

    def shorter(self) -> Question:
        """Without the oldest item of the longer of the two lists.

        Raises:
            IndexError: if both are empty.
        """
        if not self.history and not self.similar:
            raise IndexError("nothing is left to shorten")
        if len(self.similar) > len(self.history):
            return replace(self, similar=self.similar[1:], similar_ratings=self.similar_ratings[1:])
        return replace(self, history=self.history[1:], ratings=self.ratings[1:])


def head_text(question: Question, titles: Sequence[str], scale: tuple[float, float], config: QuestionConfig) -> str:
    """The part of a prompt that all candidates share; of a listwise question, all of it."""
    rated, compact = question.task == "rating", config.template == "compact"
    ratings, theirs = (question.ratings, question.similar_ratings) if rated else (None, None)
    lines = [_line(_names(config, rated)[0], titles, question.history, ratings)]
    if config.similar_user and question.similar:
        lines.append(_line(_names(config, rated)[1], titles, question.similar, theirs))
    if question.task == "listwise":
        lines.append(_line("candidates" if compact else "Candidate Items", titles, question.candidates, None))
        if config.prediction and question.prediction:
            name = "hint" if compact else "Conventional Model Prediction"
            lines.append(_line(name, titles, question.prediction, None))
    body = "".join(f"{line}\n" for line in lines)
    if not compact:
        task = _instruction(question.task, scale, config)
        body = (
            "Below is an instruction that describes a task, paired with an input that provides further context. "
            "Write a response that appropriately completes the request.\n\n"
            f"### Instruction:\n{task}\n\n### Input:\n{body}"
        )
    return body + _response(question.task, config) if question.task == "listwise" else body


def tail_text(task: Task, title: str, prediction: str | None, config: QuestionConfig) -> str:
    """The part of a prompt that speaks of one candidate."""
    compact = config.template == "compact"
    lines = [f'{config.singular if compact else "Candidate Item"}: "{title}"']
    if config.prediction and prediction is not None:
        lines.append(f"{'hint' if compact else 'Conventional Model Prediction'}: {prediction}")
    return "".join(f"{line}\n" for line in lines) + _response(task, config)


def place_text(place: int, of: int) -> str:
    """The prediction of a conventional model that ranks: a candidate's place, from 1."""
    return f"place {place} of {of}"


def rating_text(value: float) -> str:
    """The prediction of a conventional model that rates, with one decimal."""
    return f"{value:.1f}"


def number_text(value: float) -> str:
    """A rating as users give it."""
    return f"{value:g}"


def list_text(titles: Sequence[str]) -> str:
    """Several titles."""
    return "; ".join(f'"{title}"' for title in titles)


def answer_tokens(lm: LanguageModel, answers: Sequence[str], config: QuestionConfig) -> list[list[int]]:
    """Token ids of answers, EOS included, tokenised apart from their prompts."""
    return [[*ids, lm.eos] for ids in option_tokens(lm, answers, config)]


def option_tokens(lm: LanguageModel, answers: Sequence[str], config: QuestionConfig) -> list[list[int]]:
    """Token ids of answers without an end."""
    blank = " " if config.template == "compact" else ""
    return lm.tokenize([blank + answer for answer in answers])


def fitting_heads(
    lm: LanguageModel,
    questions: Sequence[Question],
    titles: Sequence[str],
    scale: tuple[float, float],
    config: QuestionConfig,
    reserve: int,
) -> list[list[int]]:
    """Token ids of the heads, BOS included; the oldest items are left out until a head fits.

    Args:
        lm: whose tokenizer and context count.
        questions: B of them.
        titles: of all items.
        scale: smallest and largest rating.
        config: how they are written.
        reserve: tokens kept free for tail and answer.

    Raises:
        InputError: if a question without any history does not fit.
    """
    budget = min(config.max_tokens or lm.context, lm.context - reserve)
    shown, tokens = list(questions), [[0]] * len(questions)
    pending = list(range(len(shown)))
    while pending:
        drafts = lm.tokenize([head_text(shown[i], titles, scale, config) for i in pending])
        again = []
        for i, draft in zip(pending, drafts, strict=True):
            tokens[i] = lm.bos + draft
            if len(tokens[i]) > budget:
                try:
                    shown[i] = shown[i].shorter()
                except IndexError:
                    raise InputError(
                        f"key 'prompt': a question of task '{shown[i].task}' has {len(tokens[i])} tokens without any "
                        f"history, but {budget} fit; show fewer candidates, use the template 'compact' or a model with "
                        "a longer context"
                    ) from None
                again.append(i)
        pending = again
    return tokens


def _names(config: QuestionConfig, rated: bool) -> tuple[str, str]:
    if config.template == "compact":
        return config.verb, "similar"
    what = "Rating" if rated else "Interaction"
    return f"{what} History", f"Similar User {what} History"


def _line(name: str, titles: Sequence[str], items: Sequence[int], ratings: Sequence[float | None] | None) -> str:
    values = [None] * len(items) if ratings is None else ratings
    texts = [
        f'"{titles[item]}"' + ("" if value is None else f": {number_text(value)}")
        for item, value in zip(items, values, strict=True)
    ]
    return f"{name}: {'; '.join(texts)}"


def _instruction(task: Task, scale: tuple[float, float], config: QuestionConfig) -> str:
    if task == "listwise":
        return (
            f"Given the {config.noun} the user has {config.verb}, rank the candidate {config.noun} by how much the "
            'user will like them, best first. Write their titles in quotes, separated by "; ".'
        )
    if task == "like":
        return (
            f"Given the {config.noun} the user has {config.verb}, will the user like the candidate {config.singular}? "
            f"Answer {YES} or {NO}."
        )
    low, high = map(number_text, scale)
    return (
        f"Given how the user rated {config.noun}, predict the rating of the candidate {config.singular}, from {low} "
        f"(worst) to {high} (best). Answer with the number alone."
    )


def _response(task: Task, config: QuestionConfig) -> str:
    if config.template == "alpaca":
        return "\n### Response:\n"
    return {"listwise": "ranking:", "like": "likes:", "rating": "rating:"}[task]
