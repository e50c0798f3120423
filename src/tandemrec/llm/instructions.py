"""Instructions that a ranker or rater is tuned on: questions about what a conventional model has not seen, and answers.

Hints are those of models trained on an earlier part of every history (`data.origins`), so they are as good, and as
wrong, as the ones that are shown when it matters. A hint about what a model was trained on would be too good, and a
language model would learn to copy it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import Field
from torch import Tensor

from tandemrec.data.examples import Examples, IntArray, ItemArray
from tandemrec.data.ratings import target_ratings
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.llm.neighbours import KnownUsers
from tandemrec.llm.questions import (
    NO,
    YES,
    Question,
    QuestionConfig,
    Task,
    head_text,
    list_text,
    number_text,
    place_text,
    rating_text,
    tail_text,
)
from tandemrec.llm.recommenders.lessons import draw_negatives
from tandemrec.recommender import NO_ITEM, Config, RatingPredictor, Recommender, Scorer, score_blocks

NOTHING = -1
SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "task": pl.String,
    "user": pl.Int32,
    "history": pl.List(pl.Int32),
    "ratings": pl.List(pl.Float32),
    "similar": pl.List(pl.Int32),
    "similar_ratings": pl.List(pl.Float32),
    "candidates": pl.List(pl.Int32),
    "prediction": pl.List(pl.Int32),
    "item": pl.Int32,
    "hint": pl.String,
    "answer": pl.String,
    "prompt": pl.String,
}
MOST_RATINGS = 20
"""Different ratings that can be answers; a finer scale is no scale of answers."""

SAME = ("task", "user", "history", "prediction", "item")
"""Columns that make two instructions the same."""


_Drawn = tuple[int, Question, int | None, str | None, str]
"""User, question, item, hint, answer."""


class InstructionsConfig(Config):
    """Which instructions are written, and how many."""

    listwise: int = Field(5000, ge=0)
    """Rankings of candidates."""

    like: int = Field(0, ge=0)
    """Whether the user will like one candidate; half of them Yes."""

    rating: int = Field(0, ge=0)
    """Ratings of one item."""

    origins: int = Field(2, ge=1, le=20)
    """Conventional models that are trained on ever earlier parts of the histories; each asks about the items that
    follow. More give more instructions, of models that know less."""

    horizon: int = Field(5, ge=1)
    """Most items of a user that an origin asks about."""

    source: Literal["base", "random"] = "base"
    """Candidates: `base`: the conventional model's own list, where it holds one of the items asked about, which is just
    what is asked later; `random`: those items among unmet ones, as RecRanker has it."""

    named: int = Field(5, ge=1)
    """Titles of a listwise answer: the items asked about, best rated first, then others in the conventional order."""

    min_interactions: int = Field(3, ge=1)
    """Users with a shorter history are left out."""

    valid: int = Field(500, ge=1)
    """Instructions about validation items, of each task at most, whose likelihood chooses the epoch."""


class RatingInstructionsConfig(InstructionsConfig):
    """Those of a system that predicts ratings, which gives no lists."""

    listwise: Literal[0] = 0
    """None."""

    like: Literal[0] = 0
    """None."""

    rating: int = Field(5000, ge=1)
    """Ratings of one item."""


@dataclass(frozen=True)
class Origin:
    """Questions, and the conventional model that was trained before them.

    Attributes:
        split: what the model was trained on.
        questions: what it has not seen: histories and the items that follow.
        base: the model.
        vectors_UD: of users, from a model trained on the same; None: nobody is similar.
    """

    split: Split
    questions: Examples
    base: Recommender | RatingPredictor
    vectors_UD: Tensor | None


def write_instructions(
    origins: Sequence[Origin],
    counts: dict[Task, int],
    config: InstructionsConfig,
    prompt: QuestionConfig,
    candidates: int,
    seed: int,
    *,
    complete: bool = True,
) -> pl.DataFrame:
    """Sampled, filtered and mixed instructions of all tasks.

    Args:
        origins: where questions come from.
        counts: most instructions of each task.
        config: which are written.
        prompt: how many titles they show.
        candidates: of a listwise question.
        seed: of what is drawn.
        complete: refuse data that have no instruction of a task; otherwise such a task is left out.

    Returns:
        One row an instruction: what it shows, its answer, and its whole text with all hints.

    Raises:
        InputError: if the base cannot give the hints, or the data have no instruction of a task.
    """
    parts = [
        pl.DataFrame(list(_rows(origin, counts, config, prompt, candidates, [seed, number])), SCHEMA, orient="row")
        for number, origin in enumerate(origins)
    ]
    every = pl.concat(parts).unique(SAME, keep="first", maintain_order=True)
    chosen = []
    for stream, (task, most) in enumerate(counts.items()):
        rows = every.filter(pl.col("task") == task)
        if complete and most and not rows.height:
            raise InputError(f"key 'instructions.{task}': the training part gives no instruction of this task")
        order = np.random.default_rng([seed, 1000 + stream]).permutation(rows.height)[:most]
        chosen.append(rows.select(pl.all().gather(np.sort(order))))
    mixed = pl.concat(chosen)
    order = np.random.default_rng([seed, 999]).permutation(mixed.height)
    return mixed.select(pl.all().gather(order))


def read_instructions(frame: pl.DataFrame) -> Iterator[tuple[Question, int | None, str | None, str]]:
    """Question, item, hint and answer of every row."""
    for row in frame.iter_rows(named=True):
        lists = {name: row[name] for name in ("history", "ratings", "similar", "similar_ratings")}
        question = Question(row["task"], **lists, candidates=row["candidates"], prediction=row["prediction"])
        yield question, None if row["item"] == NOTHING else row["item"], row["hint"], row["answer"]


def question_of(task: Task, user: int, history: Sequence[int], known: KnownUsers, config: QuestionConfig) -> Question:
    """A question about a user without candidates."""
    shown = list(history[-config.history :])
    rated = task == "rating"
    unrated: list[float | None] = [None] * len(shown)
    ratings = known.ratings_of(user, shown) if rated else unrated
    similar, theirs = known.similar(user, config.similar) if config.similar_user else ([], [])
    return Question(task, shown, ratings, similar, theirs)


def _rows(
    origin: Origin,
    counts: dict[Task, int],
    config: InstructionsConfig,
    prompt: QuestionConfig,
    candidates: int,
    seed: list[int],
) -> Iterator[tuple[Any, ...]]:
    known = KnownUsers.of(origin.split, origin.vectors_UD)
    long = np.flatnonzero(origin.questions.history.lengths >= config.min_interactions)
    origin = replace(origin, questions=origin.questions.take(long))
    rng = np.random.default_rng(seed)
    drawn: Iterator[_Drawn]
    if isinstance(origin.base, RatingPredictor):
        drawn = _rated(origin, origin.base, known, prompt)
    else:
        drawn = _ranked(origin, origin.base, counts, config, prompt, candidates, known, rng)
    titles = origin.split.dataset.titles
    options = rating_options(known) if counts.get("rating") else []
    scale = min(options, default=0.0), max(options, default=0.0)
    for user, question, item, hint, answer in drawn:
        text = head_text(question, titles, scale, prompt)
        text += "" if item is None else tail_text(question.task, titles[item], hint, prompt)
        yield (
            *(question.task, user, question.history, question.ratings, question.similar, question.similar_ratings),
            *(question.candidates, question.prediction, NOTHING if item is None else item, hint, answer, text),
        )


def rating_options(known: KnownUsers) -> list[float]:
    """The different training ratings, ascending; none where the data have no ratings.

    Raises:
        InputError: if there are too many to be answers.
    """
    values = [] if known.ratings is None else np.unique(known.ratings).tolist()
    if len(values) > MOST_RATINGS:
        raise InputError(
            f"column 'rating': found {len(values)} different ratings, expected a scale of at most {MOST_RATINGS}"
        )
    return values


def _rated(origin: Origin, base: RatingPredictor, known: KnownUsers, prompt: QuestionConfig) -> Iterator[_Drawn]:
    """A rating of every item asked about; the hint is the predicted one."""
    rated, example = target_ratings(origin.split, origin.questions)
    predicted = base.predict(rated.pairs)
    for row, value, hint in zip(range(len(rated)), rated.value.tolist(), predicted.tolist(), strict=True):
        user, history = int(rated.pairs.user[row]), origin.questions.history[int(example[row])].tolist()
        question = question_of("rating", user, history, known, prompt)
        yield user, question, int(rated.pairs.item[row]), rating_text(hint), number_text(value)


def _ranked(
    origin: Origin,
    base: Recommender,
    counts: dict[Task, int],
    config: InstructionsConfig,
    prompt: QuestionConfig,
    candidates: int,
    known: KnownUsers,
    rng: np.random.Generator,
) -> Iterator[_Drawn]:
    """Rankings of the candidates of every user, and questions about single ones; the hint is the base's order."""
    questions = origin.questions.take(np.flatnonzero(origin.questions.target.lengths > 0))
    if config.source == "base":
        items_BK = base.rank(questions, candidates).items[:, :candidates]
    else:
        items_BK = _mixed(base, questions, config, candidates, int(rng.integers(2**31)))
    values = _target_values(origin.split, questions)
    for row in range(len(questions)):
        items = [item for item in items_BK[row].tolist() if item != NO_ITEM]
        targets, user = questions.target[row].tolist(), int(questions.user[row])
        # Best rated first; of equal ratings the earlier one.
        worth = dict(sorted(zip(targets, values[row], strict=True), key=lambda pair: -pair[1]))
        liked = [item for item in worth if item in items]
        if not liked or len(items) < 2:
            continue
        history = questions.history[row].tolist()
        order = rng.permutation(len(items))
        if counts.get("listwise"):
            question = question_of("listwise", user, history, known, prompt)
            best = [*liked, *(item for item in items if item not in worth)][: config.named]
            titles = [origin.split.dataset.titles[item] for item in best]
            shown = Question(
                *("listwise", question.history, question.ratings, question.similar, question.similar_ratings),
                candidates=[items[place] for place in order],
                prediction=items,
            )
            yield user, shown, None, None, list_text(titles)
        if counts.get("like"):
            others = [items[place] for place in order if items[place] not in worth][: len(liked)]
            question = question_of("like", user, history, known, prompt)
            for item in (*liked, *others):
                yield user, question, item, _place(items, item), YES if item in worth else NO
        if counts.get("rating"):
            question = question_of("rating", user, history, known, prompt)
            for item in liked:
                if not np.isnan(worth[item]):
                    yield user, question, item, _place(items, item), number_text(worth[item])


def _place(items: Sequence[int], item: int) -> str:
    return place_text(items.index(item) + 1, len(items))


def _mixed(base: Recommender, questions: Examples, config: InstructionsConfig, k: int, seed: int) -> ItemArray:
    """Up to `named` of the items asked about among unmet ones, k in all, in the order of the base.

    Raises:
        InputError: if the base does not score them, or there are too few items.
    """
    if not isinstance(base, Scorer):
        raise InputError("key 'instructions.source': 'random' needs a base that scores the whole catalogue")
    found, at = np.empty((len(questions), k), np.int32), 0
    for block, scores in score_blocks(base, questions):
        unmet = draw_negatives(block, scores.shape[1], k, seed + at)
        for row in range(len(block)):
            targets = list(dict.fromkeys(block.target[row].tolist()))[: min(config.named, k - 1)]
            items = np.array([*targets, *unmet[row, : k - len(targets)].tolist()])
            value = scores[row, items.tolist()].cpu().numpy()
            found[at + row] = items[np.argsort(-value, kind="stable")]
        at += len(block)
    return found


def _target_values(split: Split, questions: Examples) -> list[list[float]]:
    """Ratings of the items asked about, question by question; not a number where there are none."""
    places: IntArray = questions.target.positions()
    rows = places if split.order is None else split.order[places]
    values = split.dataset.interactions["rating"].gather(rows).fill_null(float("nan")).to_list()
    stops = np.cumsum(questions.target.lengths)
    return [values[stop - n : stop] for stop, n in zip(stops.tolist(), questions.target.lengths.tolist(), strict=True)]
