"""What language models take that are tuned on instructions: rankers and raters."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle

import numpy as np

from tandemrec.data.examples import Examples
from tandemrec.data.split import Split
from tandemrec.llm.chat_work import chat_work
from tandemrec.llm.generate import GenerationConfig
from tandemrec.llm.judging import divided
from tandemrec.llm.objectives import Prompted
from tandemrec.llm.questions import (
    NO,
    YES,
    Question,
    Task,
    answer_tokens,
    fitting_heads,
    head_text,
    list_text,
    option_tokens,
    place_text,
    tail_text,
)
from tandemrec.llm.recommenders.instructed import CUT_ANSWER, InstructedConfig
from tandemrec.llm.recommenders.ranker import RankerConfig
from tandemrec.llm.recommenders.rater import RaterConfig
from tandemrec.llm.work import MASKED, Plant, answers_read, evenly, tuning_work
from tandemrec.work import NOTHING, Scene, Work, answer_work, fit_work, passes

RATINGS = ["1", "2", "3", "4", "5"]
"""Answers that stand for a scale of ratings."""

MASK_PASSES = 4
"""Passes over every pair of tokens of a packed row for which of them sees which."""


@fit_work.register
def _fit_instructed(config: InstructedConfig, scene: Scene) -> Work | None:
    """Tuning on instructions, if anything is learned, and the questions that are answered for its check."""
    checked = scene.split.valid.take(slice(0, getattr(config, "checked", 0)))
    asked = answer_work(config, scene, checked) if len(checked) else NOTHING
    if not config.needs_instructions() or asked is None:
        return asked
    plant, tuning, mine = Plant.of(scene, config), config.finetune, config.instructions
    assert tuning is not None
    parts = [_instructions(config, plant, scene.split, task) for task in config.counts()]
    part = Prompted([p for one in parts for p in one.prompts], [c for one in parts for c in one.completions])
    count = sum(config.counts().values())
    held_out = sum(min(most, mine.valid) for most in config.counts().values())
    work = tuning_work(plant, tuning, part, count, answers_read(plant, part, tuning, held_out))
    return replace(work + asked, epochs=work.epochs, stops_early=work.stops_early)


@answer_work.register
def _answer_ranker(config: RankerConfig, scene: Scene, examples: Examples) -> Work | None:
    """The base's list, and what is asked about its first candidates."""
    system, its = scene.of(config.base)
    listed = answer_work(system, its, examples)
    if listed is None or config.chat is None:
        return None if listed is None else listed + _judging(config, scene, len(examples), config.candidates)
    questions, titles = _questions(config, scene.split, "listwise"), scene.split.dataset.titles
    prompts = [head_text(question, titles, (0, 0), config.prompt) for question in questions]
    answers = [list_text([titles[item] for item in question.candidates]) for question in questions]
    return listed + chat_work(config.chat, prompts, answers, len(examples))


@answer_work.register
def _answer_rater(config: RaterConfig, scene: Scene, examples: Examples) -> Work | None:
    ratings = max(1, int(examples.target.lengths.sum()))
    users = max(1, len(np.unique(examples.user)))
    system, its = scene.of(config.base)
    predicted = answer_work(system, its, examples)
    if predicted is None:
        return None
    if config.chat is None:
        return predicted + _judging(config, scene, users, ratings / users)
    questions, titles = _questions(config, scene.split, "rating"), scene.split.dataset.titles
    prompts = [
        head_text(question, titles, (1.0, 5.0), config.prompt) + tail_text("rating", title, "4.0", config.prompt)
        for question, title in zip(questions, cycle(titles), strict=False)
    ]
    return predicted + chat_work(config.chat, prompts, RATINGS, ratings)


def owner_of(config: InstructedConfig, scene: Scene) -> tuple[InstructedConfig, Scene]:
    """The system whose language model is asked, itself or the one tuned for it, and the scene as that sees it."""
    owner, its = (config, scene) if config.tuned is None else scene.of(config.tuned)
    assert isinstance(owner, InstructedConfig)
    return owner, its


def _judging(config: InstructedConfig, scene: Scene, users: int, candidates: float) -> Work:
    owner, its = owner_of(config, scene)
    plant, split = Plant.of(its, owner), scene.split
    reader: object = plant.reader
    style: Task = getattr(config, "style", "rating")
    part = _instructions(config, plant, split, style)
    heads = np.array([len(prompt) for prompt in part.prompts])
    answers = np.array([len(several[0]) for several in part.completions])
    if isinstance(config, RankerConfig) and style == "listwise":
        settings, limit = config.generation, plant.reader.context // CUT_ANSWER
        work = plant.writing(heads, answers, settings.beams, settings.batch_size, limit)
        return (users / len(heads)) * work
    if isinstance(config, RaterConfig) and config.reading == "written":
        work = plant.writing(heads, answers, 1, GenerationConfig().batch_size, config.max_new_tokens)
        return (users * candidates / len(heads)) * work
    tail = float(np.mean([len(ids) for ids in _tails(config, plant, split, style)]))
    # Answers of one token are read behind a tail; longer ones are completions of their own, each with its tail.
    options = option_tokens(reader, [YES, NO] if style == "like" else RATINGS, config.prompt)  # type: ignore[arg-type]
    common, left, single = divided(options)
    copies, labels = (1, 1) if single else (len(left), sum(len(option) + 1 for option in left))
    asked = tail + len(common) + (0 if single else float(np.mean([len(option) for option in left])))
    tokens = float(heads.mean()) - tail + candidates * copies * asked
    batches = max(1.0, users * tokens / config.batch_tokens)
    work = batches * plant.forward(1, users * tokens / batches, users * candidates * labels / batches, MASKED * tokens)
    work += passes(users * tokens * tokens, MASK_PASSES)
    return work + Work(read=users * tokens, memory=plant.weights)


def _questions(config: InstructedConfig, split: Split, task: Task) -> list[Question]:
    """Questions like those that will be asked: real histories, another user for the similar one, items at random."""
    rng, prompt = np.random.default_rng(0), config.prompt
    rows = evenly(split.valid if len(split.valid) else split.train, 256).history
    items = getattr(config, "candidates", 0)
    questions = []
    for place, history in enumerate(rows):
        shown = history[-prompt.history :].tolist()
        similar = rows[(place + 1) % len(rows)][-prompt.similar :].tolist() if prompt.similar_user else []
        offered = rng.integers(split.n_items, size=items).tolist() if task == "listwise" else []
        ratings: list[float | None] = [4.0] * len(shown)
        theirs: list[float | None] = [4.0] * len(similar)
        questions.append(Question(task, shown, ratings, similar, theirs, offered, offered))
    return questions


def _instructions(config: InstructedConfig, plant: Plant, split: Split, task: Task) -> Prompted:
    """Questions with their answers."""
    rng, prompt, titles = np.random.default_rng(1), config.prompt, split.dataset.titles
    questions = _questions(config, split, task)
    reader: object = plant.reader
    if task == "listwise":
        named = [titles[item] for item in rng.integers(split.n_items, size=config.instructions.named * len(questions))]
        size = config.instructions.named
        texts = [list_text(named[place * size : (place + 1) * size]) for place in range(len(questions))]
    else:
        texts = ["Yes" if task == "like" else "4"] * len(questions)
    answers = answer_tokens(reader, texts, prompt)  # type: ignore[arg-type]
    tails = [[]] * len(questions) if task == "listwise" else _tails(config, plant, split, task)[: len(questions)]
    reserve = min(max(map(len, answers)), plant.reader.context // CUT_ANSWER) + max(map(len, tails))
    heads = fitting_heads(reader, questions, titles, (1.0, 5.0), prompt, reserve)  # type: ignore[arg-type]
    prompts = [[*head, *tail] for head, tail in zip(heads, tails, strict=True)]
    return Prompted(prompts, [[answer] for answer in answers])


def _tails(config: InstructedConfig, plant: Plant, split: Split, task: Task) -> list[list[int]]:
    titles = split.dataset.titles
    rows = np.linspace(0, len(titles) - 1, 256).astype(int)
    hint = place_text(1, 10) if task == "like" else "4.0"
    return plant.reader.tokenize([tail_text(task, titles[row], hint, config.prompt) for row in rows])
