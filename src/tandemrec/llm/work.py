"""What language models take: building, tuning, writing; `instructed_work` has rankers and raters.

b rows of T tokens, M label tokens, V vocabulary, L layers. A token takes two flops for every entry of the linear maps,
and 4 T a layer and number of its attention heads; differentiation twice as much again, once where the maps are frozen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tandemrec.data.examples import Examples, IntArray
from tandemrec.data.split import Split
from tandemrec.llm.finetune import FineTuneConfig, length_batches
from tandemrec.llm.model import ENCODE_TOKENS
from tandemrec.llm.nano import NanoConfig, learned_texts
from tandemrec.llm.objectives import Prompted
from tandemrec.llm.prompts import answer_tokens, fitting_prompts
from tandemrec.llm.reader import Reader
from tandemrec.llm.recommenders.instructed import InstructedConfig
from tandemrec.llm.recommenders.lessons import DistilConfig, SDPOConfig, SFTConfig
from tandemrec.llm.recommenders.llara import LLaRAConfig
from tandemrec.llm.recommenders.writer import MAX_ANSWER, WriterConfig, first_targets
from tandemrec.llm.schedule import AdaptiveSchedule
from tandemrec.llm.scoring import CHUNK_LOGITS
from tandemrec.recommender import Config
from tandemrec.training.work import training_work
from tandemrec.work import (
    FLOAT,
    NOTHING,
    Scene,
    Work,
    answer_work,
    fit_work,
    passes,
    product,
    ranking_work,
    switches,
)

MEASURED = 2048
"""Prompts whose length is measured, drawn evenly; of more, these stand for all."""

NORM_PASSES, MAP_PASSES, INNER_PASSES = 12, 16, 3
"""Passes of a layer over its states in norms, over its states in rotations, residuals and copies, and over the inner
part of the feed-forward net."""

LAYER_CALLS, STEP_CALLS = 40, 60
"""Operations that a layer starts, and those of a step of generation beside the layers."""

KEPT = 18
"""Arrays of a layer's width that differentiation keeps, beside three of the inner part's."""

MASKED = 2
"""How many times as long attention takes under a mask of packing or padding as the products that it is counted by."""

SMALL_BATCH = 512
"""Tokens of a micro-batch that is made small to save memory."""

FOUR_BITS = 0.56
"""Bytes of a weight in 4 bits with its doubly quantised scales."""

TOKENISED = 2.4e4
"""Traffic of a processor that takes as long as finding a token in a text."""


@dataclass(frozen=True)
class Plant:
    """A language model on a device.

    Attributes:
        reader: the model.
        half: whether it computes in half precision.
        weight: bytes of a weight.
    """

    reader: Reader
    half: bool
    weight: float

    @classmethod
    def of(cls, scene: Scene, config: WriterConfig | InstructedConfig) -> Plant:
        """As the config has it loaded on the scene's device: a processor computes in float32."""
        reader = scene.reader
        assert isinstance(reader, Reader)
        dtype = getattr(config.lm, "dtype", "auto")
        half = scene.device != "cpu" and (dtype == "bfloat16" or (dtype == "auto" and reader.half))
        tuning = None if config.finetune is None else config.finetune
        if tuning is not None and tuning.tuning == "qlora":
            return cls(reader, scene.device != "cpu", FOUR_BITS)
        if tuning is not None and tuning.tuning == "full":
            half = tuning.training.mixed_precision != "no" and scene.device != "cpu"
            return cls(reader, half, FLOAT)
        return cls(reader, half, 2 if half else FLOAT)

    @property
    def entry(self) -> int:
        """Bytes of a number of its states."""
        return 2 if self.half else FLOAT

    @property
    def weights(self) -> float:
        """Bytes of its weights."""
        return self.weight * self.reader.parameters

    def forward(self, rows: float, width: float, labels: float, seen: float | None = None) -> Work:
        """B rows of T tokens, and logits of M of them; `seen` tokens that each sees, if not those of its row."""
        lm, n = self.reader, rows * width
        flops = 2 * n * lm.maps + 4 * n * (width if seen is None else seen) * lm.attention * lm.layers
        traffic = lm.layers * (
            passes(n * lm.width, NORM_PASSES + MAP_PASSES, self.entry) + passes(n * lm.inner, INNER_PASSES, self.entry)
        )
        traffic = replace(traffic, calls=lm.layers * LAYER_CALLS + 20)
        head = product(labels, lm.width, lm.vocabulary) + passes(labels * lm.vocabulary, 3)
        return (Work(flops=flops) + traffic + head).halved(self.half)

    def tuned(self, rows: float, width: float, labels: float, config: FineTuneConfig | None = None) -> Work:
        """Forward and backward of a micro-batch; None: all weights, without checkpoints within a pass."""
        forward, frozen = self.forward(rows, width, labels), config is not None and config.tuning != "full"
        work = forward.differentiated()
        if config is not None and frozen:
            adapters = self.forward(rows, width, labels)
            back = adapters.flops + adapters.half_flops
            work = replace(work, flops=work.flops - adapters.flops, half_flops=work.half_flops - adapters.half_flops)
            assert back >= 0
            work += 3 * product(rows * width, 1, self.reader.adapter(config.rank))
        if config is not None and config.gradient_checkpointing:
            work += replace(forward, read=0)
        return replace(work, memory=self.kept(rows * width, labels, config))

    def kept(self, tokens: float, labels: float, config: FineTuneConfig | None = None) -> float:
        """Bytes of states and logits between forward and backward."""
        lm = self.reader
        layer = (KEPT * lm.width + 3 * lm.inner) * self.entry * tokens
        whole = lm.layers * layer
        if config is not None and config.gradient_checkpointing:
            whole = lm.layers * lm.width * self.entry * tokens + layer
        logits = labels * lm.vocabulary
        return whole + 3 * FLOAT * (logits if config is None else min(logits, CHUNK_LOGITS))

    def writing(self, prompts: IntArray, answers: IntArray, beams: int, size: int, limit: int) -> Work:
        """Answers to prompts in chunks of `size` by so many beams, as long as catalogue titles are.

        A prompt is done when the longest of its beams is, a chunk with its last prompt; finished ones leave it.
        """
        work, lm = NOTHING, self.reader
        answers = np.minimum(answers, limit)
        each = float(np.quantile(answers, beams / (beams + 1)))
        for start in range(0, len(prompts), size):
            chunk = np.sort(prompts)[start : start + size]
            b, width = len(chunk), float(chunk.max())
            steps = float(np.quantile(answers, b * beams / (b * beams + 1)))
            # Rows of all steps together; 1/8 more, since finished ones are dragged along for a while.
            share = min(1.0, 9 / 8 * each / steps)
            seen = width + beams * steps / 2
            grown = self.forward(b * beams * share, 1, b * beams * share, MASKED * seen)
            cache = lm.layers * lm.cached * self.entry * b * share * seen
            weights = Work(bytes=self.weights + cache, calls=STEP_CALLS)
            search = passes(b * beams * share * lm.vocabulary, 3)
            memory = lm.layers * lm.cached * self.entry * b * (width + beams * steps)
            memory += 4 * FLOAT * b * beams * lm.vocabulary + self.weights
            work += self.forward(b, width, 0, MASKED * width) + steps * (grown + weights + search) + Work(memory=memory)
        return work + Work(read=float(prompts.sum()), written=len(prompts) * beams * float(answers.mean()))

    def encoded(self, texts: Sequence[str]) -> Work:
        """Vectors of texts, of which as much is read as the context has room for."""
        lengths = np.array([len(ids) for ids in self.reader.tokenize(texts)], np.int64) + len(self.reader.bos)
        return self.read(np.minimum(lengths, self.reader.context))

    def read(self, lengths: IntArray) -> Work:
        """Vectors of texts of so many tokens."""
        batches = max(1.0, float(lengths.sum()) / ENCODE_TOKENS)
        work = batches * self.forward(1, float(lengths.sum()) / batches, 0, float(lengths.mean()))
        return work + Work(read=float(lengths.sum()), host_bytes=TOKENISED * float(lengths.sum()))


@switches.register(WriterConfig)
@switches.register(InstructedConfig)
def _switches(config: WriterConfig | InstructedConfig) -> Iterator[tuple[str, Config]]:
    """Smaller micro-batches, layers computed again, adapters, 4 bits, and fewer prompts answered at once."""
    tuning = config.finetune
    if tuning is not None:
        steps: list[tuple[str, dict[str, object]]] = []
        if tuning.micro_batch_tokens > SMALL_BATCH:
            steps.append((f"finetune.micro_batch_tokens={SMALL_BATCH}", {"micro_batch_tokens": SMALL_BATCH}))
        if not tuning.gradient_checkpointing:
            steps.append(("finetune.gradient_checkpointing=true", {"gradient_checkpointing": True}))
        if tuning.tuning == "full":
            steps.append(("finetune.tuning=lora", {"tuning": "lora"}))
        if tuning.tuning != "qlora":
            steps.append(("finetune.tuning=qlora", {"tuning": "qlora"}))
        for text, change in steps:
            config = config.model_copy(update={"finetune": config.finetune.model_copy(update=change)})  # type: ignore[union-attr]
            yield text, config
    generation = getattr(config, "generation", None)
    if generation is not None and generation.batch_size > 8:
        yield (
            "generation.batch_size=8",
            config.model_copy(update={"generation": generation.model_copy(update={"batch_size": 8})}),
        )


def build_work(config: NanoConfig, scene: Scene, reader: Reader) -> Work:
    """Pre-training of a nano model; its further text files are seen once an epoch."""
    catalogue, further = (
        sum(len(ids) + 2 for ids in reader.tokenize(texts)) for texts in learned_texts(scene.split.dataset, config)
    )
    width = min(config.row_tokens, config.context)
    rows = max(2.0, (catalogue * config.repeats + further) // width)
    steps = -(-rows // config.batch_size)
    plant = Plant(reader, False, FLOAT)
    step = plant.tuned(config.batch_size, width - 1, config.batch_size * (width - 1))
    epoch = (rows / config.batch_size) * replace(step, steps=0) + Work(steps=steps, read=rows * width)
    held_out = plant.forward(min(200.0, rows // 50 + 1), width - 1, min(200.0, rows // 50 + 1) * (width - 1))
    return training_work(epoch, config.training, reader.parameters, held_out, examples=rows)


@dataclass(frozen=True)
class Lesson:
    """Lengths of what a writer is asked and answers.

    Attributes:
        titles: answer tokens of every item.
        budget: most tokens of an answer.
    """

    titles: IntArray
    budget: int

    @classmethod
    def of(cls, config: WriterConfig, plant: Plant, split: Split) -> Lesson:
        """Of a catalogue."""
        reader: object = plant.reader
        titles = np.array([len(ids) for ids in answer_tokens(reader, split.dataset.titles, config.prompt)])  # type: ignore[arg-type]
        context = plant.reader.context
        given = config.generation.max_new_tokens
        return cls(titles, given or min(int(titles.max()), MAX_ANSWER, max(1, context // 4)))

    def prompts(self, config: WriterConfig, plant: Plant, split: Split, examples: Examples) -> list[list[int]]:
        """Token ids of the questions, as training and generation ask them."""
        return self.fitted(config, plant, split, examples)[0]

    def fitted(
        self, config: WriterConfig, plant: Plant, split: Split, examples: Examples
    ) -> tuple[list[list[int]], list[list[int]]]:
        """The same, and the items that each question shows."""
        reader: object = plant.reader
        form = "slots" if isinstance(config, LLaRAConfig) else "whole"
        titles = split.dataset.titles
        return fitting_prompts(reader, examples, titles, config.prompt, self.budget, form)  # type: ignore[arg-type]

    def answered(self, config: WriterConfig, plant: Plant, split: Split, examples: Examples, columns: int) -> Prompted:
        """Questions with so many answers, all as long as the target's title."""
        examples, target = first_targets(examples)
        prompts = self.prompts(config, plant, split, examples)
        answers = [[[0] * min(int(self.titles[item]), self.budget)] * columns for item in target]
        part = Prompted(prompts, answers)
        return part if config.loss_on == "answer" else part.whole()


@fit_work.register
def _fit_writer(config: WriterConfig, scene: Scene) -> Work:
    plant, split, tuning = Plant.of(scene, config), scene.split, config.finetune
    lesson, train = Lesson.of(config, plant, split), first_targets(split.train)[0]
    examples = min(len(train), tuning.examples_per_epoch or len(train))
    part = lesson.answered(config, plant, split, evenly(train), _columns(config))
    valid = lesson.answered(config, plant, split, evenly(split.valid), 1)
    validation = answers_read(plant, valid, tuning, len(first_targets(split.valid)[0]))
    if tuning.select_on == "ndcg@10":
        judging = answer_work(config, scene, split.valid)
        assert judging is not None
        validation += judging + ranking_work(len(split.valid), split.n_items)
    work = tuning_work(plant, tuning, part, examples, validation)
    before = plant.encoded(split.dataset.titles)
    if isinstance(config.objective, SDPOConfig):
        before += answers_read(plant, part, tuning, len(train))
    schedule = getattr(config.objective, "schedule", None)
    if isinstance(schedule, AdaptiveSchedule):
        asked = lesson.prompts(config, plant, split, evenly(train, min(schedule.prompts, len(train))))
        measured = _written(config, plant, lesson, asked, len(asked))
        before += measured * tuning.training.epochs
    return replace(work + before, epochs=work.epochs, stops_early=work.stops_early)


@answer_work.register
def _answer_writer(config: WriterConfig, scene: Scene, examples: Examples) -> Work:
    """Written answers, their vectors, and their distances to all titles in float64."""
    plant, split = Plant.of(scene, config), scene.split
    lesson = Lesson.of(config, plant, split)
    written = _written(config, plant, lesson, lesson.prompts(config, plant, split, evenly(examples)), len(examples))
    n, items = len(examples), split.n_items
    distances = 2 * product(n, plant.reader.width, items) + passes(n * items, 8)
    return written + distances


def distil_work(config: WriterConfig, distil: DistilConfig, scene: Scene) -> Work:
    """A teacher's answers to its training prompts, each grounded."""
    answered = answer_work(config, scene, scene.split.train)
    assert answered is not None
    samples = 1 if distil.sampling is None else distil.sampling.samples / config.generation.beams
    return answered * max(1.0, samples)


def tuning_work(plant: Plant, config: FineTuneConfig, part: Prompted, examples: int, validation: Work) -> Work:
    """Fine-tuning on so many examples an epoch, of which `part` is a sample."""
    epoch, size = NOTHING, max(1, min(config.batch_size, len(part)))
    order = np.random.default_rng(0).permutation(len(part)).tolist()
    for start in range(0, len(part), size):
        for rows in length_batches(part, order[start : start + size], config.micro_batch_tokens):
            epoch += plant.tuned(len(rows), max(map(part.length, rows)), _labels(part, rows), config)
    epoch = (examples / max(1, len(part))) * (epoch + Work(read=float(part.tokens())))
    epoch = replace(epoch, steps=-(-examples // config.batch_size))
    trained = plant.reader.parameters if config.tuning == "full" else plant.reader.adapter(config.rank)
    frozen = 0.0 if config.tuning == "full" else plant.weights
    return training_work(epoch, config.training, trained, validation, frozen=frozen, examples=examples)


def answers_read(plant: Plant, part: Prompted, config: FineTuneConfig, examples: int) -> Work:
    """Log-probabilities of prompted answers, without gradients."""
    work = NOTHING
    for rows in length_batches(part, range(len(part)), config.micro_batch_tokens):
        work += plant.forward(len(rows), max(map(part.length, rows)), _labels(part, rows))
    return (examples / max(1, len(part))) * (work + Work(read=float(part.tokens())))


def _written(config: WriterConfig, plant: Plant, lesson: Lesson, prompts: list[list[int]], examples: int) -> Work:
    settings = config.generation
    beams = settings.beams
    if config.decoding == "constrained":
        beams = max(min(config.decoded, len(lesson.titles)), beams)
    lengths = np.array([len(prompt) for prompt in prompts])
    work = plant.writing(lengths, lesson.titles, beams, settings.batch_size, lesson.budget)
    return (examples / max(1, len(prompts))) * work


def _columns(config: WriterConfig) -> int:
    """Answers that a step needs: of a mix both, unless its weight leaves one out for good."""
    objective = config.objective
    if isinstance(objective, SFTConfig):
        return 1
    if isinstance(objective, SDPOConfig):
        return 1 + objective.negatives
    samples = 1 if objective.distil.sampling is None else objective.distil.sampling.samples
    tau = getattr(objective.schedule, "tau", None)
    return 1 if tau == 0 else samples if tau == 1 and objective.schedule.kind == "fixed" else 1 + samples


def _labels(part: Prompted, rows: Sequence[int]) -> int:
    return sum(len(completion) for row in rows for completion in part.completions[row])


def evenly(examples: Examples, most: int = MEASURED) -> Examples:
    """At most so many examples, evenly spaced."""
    rows = np.unique(np.linspace(0, len(examples) - 1, min(most, len(examples))).astype(np.int64))
    return examples.take(rows)
