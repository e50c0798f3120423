"""What models take that learn of others: what their backbones take, and what is added to data, loss or network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tandemrec.augmentation.attributes import attribute_prompt
from tandemrec.augmentation.augmented import AugmentedConfig
from tandemrec.augmentation.augmented_ratings import AugmentedRatingsConfig
from tandemrec.augmentation.dllm2rec import DLLM2RecConfig
from tandemrec.augmentation.llm_cf import LLMCFConfig
from tandemrec.augmentation.teacher_lists import TeacherListsConfig
from tandemrec.augmentation.thoughts import about_text, prompt_text
from tandemrec.conventional.sequential.batches import training_rows
from tandemrec.conventional.sequential.dros import DROSConfig
from tandemrec.conventional.sequential.module import SequenceConfig
from tandemrec.conventional.sequential.work import network_work
from tandemrec.data.examples import Examples
from tandemrec.data.split import Split
from tandemrec.llm.chat_work import chat_work
from tandemrec.llm.generate import GenerationConfig
from tandemrec.llm.instructed_work import owner_of
from tandemrec.llm.reader import Reader
from tandemrec.llm.recommenders.instructed import InstructedConfig
from tandemrec.llm.recommenders.work import content_width
from tandemrec.llm.work import Plant, evenly
from tandemrec.recommender import Config
from tandemrec.work import FLOAT, NOTHING, Scene, Work, answer_work, fit_work, passes, product


@fit_work.register
def _fit(config: AugmentedConfig, scene: Scene) -> Work | None:
    """One entry more for every answer."""
    work, sequences = fit_work(config.backbone, scene), scene.split.sequences
    users = float((sequences.lengths > 0).sum())
    added = config.data.share * config.data.per_user * users / max(1.0, float(sequences.lengths.sum()))
    return None if work is None else replace(work * (1 + added), epochs=work.epochs)


@answer_work.register
def _answer(config: AugmentedConfig, scene: Scene, examples: Examples) -> Work | None:
    return answer_work(config.backbone, scene, examples)


@fit_work.register
def _fit_ratings(config: AugmentedRatingsConfig, scene: Scene) -> Work | None:
    """Without the columns that are to be added, whose values are not known yet."""
    return fit_work(_plain(config), scene)


@answer_work.register
def _answer_ratings(config: AugmentedRatingsConfig, scene: Scene, examples: Examples) -> Work | None:
    return answer_work(_plain(config), scene, examples)


def _plain(config: AugmentedRatingsConfig) -> AugmentedRatingsConfig:
    features = config.backbone.features
    items = {name: field for name, field in features.items.items() if name not in config.data.columns}
    return config.backbone.model_copy(update={"features": features.model_copy(update={"items": items})})  # type: ignore[return-value]


def attributes_work(config: AugmentedRatingsConfig, scene: Scene) -> Work | None:
    """Answers as long as they may be about every title and column; a chat endpoint's are as long as those shown."""
    titles = list(dict.fromkeys(scene.split.dataset.titles))
    some = [titles[row] for row in np.unique(np.linspace(0, len(titles) - 1, 256).astype(int))]
    settings, total = config.data, NOTHING
    for name, attribute in settings.columns.items():
        prompts = [attribute_prompt(name, title, attribute, settings.noun) for title in some]
        if config.chat is not None:
            total += chat_work(config.chat, prompts, list(attribute.examples.values()), len(titles))
            continue
        plant, limit = _judge_of(config, scene), settings.max_new_tokens
        if plant is None:
            return None
        lengths = np.array([len(ids) for ids in plant.reader.tokenize(prompts)]) + len(plant.reader.bos)
        lengths, answers = np.minimum(lengths, plant.reader.context - limit), np.full(len(some), limit)
        written = plant.writing(lengths, answers, 1, GenerationConfig().batch_size, limit)
        total += (len(titles) / len(some)) * written
    return replace(total, examples=len(titles) * len(settings.columns))


def _judge_of(config: AugmentedRatingsConfig, scene: Scene) -> Plant | None:
    """The language model that is asked for attributes; None: the system that is named has none."""
    assert config.by is not None
    judge, its = scene.of(config.by)
    if not isinstance(judge, InstructedConfig):
        return None
    owner, its = owner_of(judge, its)
    return None if its.reader is None else Plant.of(its, owner)


def asked_positions(config: TeacherListsConfig, split: Split) -> int:
    """Positions that a teacher is asked about."""
    every = _eligible(config, split)
    return min(every, config.sample or every)


def _eligible(config: TeacherListsConfig, split: Split) -> int:
    """Positions that a teacher may be asked about."""
    if config.positions == "sequences":
        return _positions(split, config.latest)
    if config.latest is None:
        return len(split.train)
    return int((split.train.target.starts >= split.sequences.stops[split.train.user] - config.latest).sum())


def lists_work(config: Config, lists: TeacherListsConfig, scene: Scene) -> Work | None:
    """A teacher's lists: its answers to as many questions as there are positions."""
    examples = scene.split.train
    answered, asked = answer_work(config, scene, examples), asked_positions(lists, scene.split)
    return None if answered is None else replace(answered * (asked / max(1, len(examples))), examples=asked)


@fit_work.register
def _fit_student(config: DLLM2RecConfig, scene: Scene) -> Work | None:
    """The plain student, scores at the positions that have a list, and the item table made anew whenever it is used."""
    plain, split = fit_work(config.student, scene), scene.split
    if plain is None:
        return None
    student = config.student
    settings: SequenceConfig = student.backbone if isinstance(student, DROSConfig) else student
    items, d, k = split.n_items, settings.dim, config.lists.items
    targets, micro_batches = _learned(settings, split)
    epoch = NOTHING
    if config.ranking.weight:
        share = min(1.0, targets / max(1, _positions(split, config.lists.latest)))
        listed = asked_positions(config.lists, split) * share
        epoch += passes(listed * k * d, 4).differentiated() + micro_batches * Work(calls=60)
        if config.ranking.consistency:
            epoch += product(listed, d, items) + passes(listed * items, 3)
        if config.ranking.robust and isinstance(student, DROSConfig):
            epoch += 3 * product(listed, d + 1, items) + passes(listed * items, 10)
    if config.embedding_weight:
        z, uses = _vector_size(config, scene), 2 + (config.ranking.weight > 0)
        # The vectors are fixed: backwards only the map's gradient is formed.
        epoch += micro_batches * uses * (2 * product(items, z, d) + passes(items * d, 6))
    return replace(plain + epoch * plain.epochs, memory=plain.memory)


@answer_work.register
def _answer_student(config: DLLM2RecConfig, scene: Scene, examples: Examples) -> Work | None:
    return answer_work(config.student, scene, examples)


@fit_work.register
def _fit_in_context(config: LLMCFConfig, scene: Scene) -> Work | None:
    """The backbone, and in every micro-batch the examples that a share of its positions sees."""
    plain = fit_work(config.backbone, scene)
    if plain is None:
        return None
    targets, micro_batches = _learned(config.backbone, scene.split)
    share = config.share * targets / micro_batches
    epoch = micro_batches * _features(config, scene, share, training=True).differentiated()
    validation = _features(config, scene, len(scene.split.valid), training=False)
    return replace(plain + (epoch + validation) * plain.epochs, epochs=plain.epochs, stops_early=plain.stops_early)


@answer_work.register
def _answer_in_context(config: LLMCFConfig, scene: Scene, examples: Examples) -> Work | None:
    plain = answer_work(config.backbone, scene, examples)
    return None if plain is None else plain + _features(config, scene, len(examples), training=False)


def thoughts_work(config: LLMCFConfig, scene: Scene) -> Work | None:
    """Thoughts as long as they may be, and their vectors and those of titles."""
    reader, settings, split = scene.reader, config.thoughts, scene.split
    if not isinstance(reader, Reader):
        return None
    half = scene.device != "cpu" and reader.half
    plant = Plant(reader, half, 2 if half else FLOAT)
    measured, titles = evenly(split.train, 256), split.dataset.titles
    prompts = [
        prompt_text(about_text([titles[i] for i in row], titles[0], settings), 1, settings)
        for row in measured.history.tail(settings.history)
    ]
    count = min(settings.questions, len(split.train))
    if config.chat is not None:
        limit = min(settings.max_new_tokens, reader.context)
        written = chat_work(settings.asked_of(config.chat), prompts, None, count * settings.samples)
    else:
        limit = max(1, min(settings.max_new_tokens, reader.context // 2))
        lengths = np.minimum([len(ids) for ids in reader.tokenize(prompts)], reader.context - limit)
        drawn = plant.writing(lengths, np.full(len(lengths), limit), settings.samples, settings.batch_size, limit)
        written = drawn * (count / len(lengths))
    read = plant.forward(count * settings.samples, limit, 0) + plant.encoded(titles)
    return replace(written + read, examples=count)


def _features(config: LLMCFConfig, scene: Scene, questions: float, *, training: bool) -> Work:
    """What the in-context module takes for so many questions at once, the examples' histories included."""
    assert isinstance(scene.reader, Reader)
    d, z, steps = config.backbone.dim, scene.reader.width, 3 * config.examples + 1
    memory = min(config.thoughts.questions, len(scene.split.train))
    shown = max(1, round(min(memory, questions * config.examples)))
    length = max(1, round(float(np.minimum(scene.split.train.history.lengths, config.backbone.max_length).mean())))
    tokens = questions * steps
    layer = 4 * product(tokens, d, d) + 3 * product(tokens, d, 2 * d) + 2 * product(tokens, steps, d)
    layer += passes(tokens * d, 24)
    text = product(1, z, d) + product(1, d, d)
    pair = product(1, 4 * d, d) + product(1, d, d)
    maps = (2 * questions + 3 * shown) * text + (questions + shown) * pair
    found_by = z if config.encoder is None else content_width(config.encoder, scene)
    found = product(questions, found_by, memory) + passes(questions * memory, 6)
    rebuilt = questions * config.examples * (product(1, d, d) + product(1, d, z)) if config.reconstruction else NOTHING
    past = network_work(config.backbone, np.full(shown, length), training)
    flops = replace(config.layers * layer + maps + rebuilt + past + found, calls=60.0 * config.layers + 100)
    return replace(flops, memory=FLOAT * tokens * d * 16 * config.layers)


def _learned(settings: SequenceConfig, split: Split) -> tuple[float, float]:
    """Targets and micro-batches of an epoch."""
    rows = training_rows(split.sequences, settings.max_length, chunks=settings.chunks)
    targets = float((rows.lengths - 1).sum())
    return targets, max(float(-(-len(rows) // settings.batch_size)), targets / settings.micro_batch_tokens)


def _positions(split: Split, latest: int | None = None) -> int:
    """Positions with a history, of each user the `latest` alone."""
    later = np.maximum(split.sequences.lengths - 1, 0)
    return int((later if latest is None else np.minimum(later, latest)).sum())


def _vector_size(config: DLLM2RecConfig, scene: Scene) -> int:
    """Z: the width of a language model, or about that of a conventional one."""
    reader = scene.of(config.vectors or config.teacher)[1].reader
    return reader.width if isinstance(reader, Reader) else 64
