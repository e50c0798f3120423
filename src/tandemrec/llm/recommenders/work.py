"""What TIGER takes: its ids, its training, its answers.

R histories of S tokens, Q questions about them of L digits each, I items in codes of K values, D the width of a vector.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import Examples, IntArray
from tandemrec.data.split import Split
from tandemrec.llm.content import (
    ContentConfig,
    LanguageModelVectorsConfig,
    SentenceEncoderConfig,
    TfIdfConfig,
    item_texts,
)
from tandemrec.llm.id_model import FIRST_DIGIT, IdNetworkConfig
from tandemrec.llm.id_training import Rows, groups_by_length, training_rows
from tandemrec.llm.kmeans import DISTANCES
from tandemrec.llm.reader import encoder_of, reader_of
from tandemrec.llm.recommenders.base import PretrainedConfig
from tandemrec.llm.recommenders.tiger import TIGERConfig
from tandemrec.llm.rq_vae import START_ROUNDS, RQVAEConfig
from tandemrec.llm.semantic_ids import ResidualKMeansConfig, SemanticIdsConfig
from tandemrec.llm.sentences import ENCODED_TEXTS, head_of
from tandemrec.llm.work import Plant, evenly
from tandemrec.recommender import Config
from tandemrec.training.work import training_work
from tandemrec.work import (
    FLOAT,
    NOTHING,
    Scene,
    Work,
    answer_work,
    dropout,
    fit_work,
    passes,
    product,
    switches,
)

DOUBLE = 8
"""Bytes of a float64, whose products take twice as long as those of a float32."""

KRYLOV = 65.0
"""Bytes of traffic for every row and square of the number of singular values: the solver's basis holds twice as many
vectors, and each of some four times as many new ones is made orthogonal to them, twice."""

ENCODER_PASSES, DECODER_PASSES, INNER_PASSES = 9, 14, 4
"""Passes of a layer over its states in norms and residuals, and over queries, keys, values and what is mixed."""

ENCODER_CALLS, DECODER_CALLS, MODEL_CALLS = 33, 49, 80
"""Operations that a layer starts, and those of a pass beside the layers."""

KEPT = 14
"""Arrays of a layer's width that differentiation keeps, beside those of its attention and feed-forward parts."""

SEARCH_PASSES = 20
"""Passes over the candidates of a step of the search, which are whole numbers of 8 bytes."""

CHUNK_CALLS = 400
"""Operations of a chunk of answers beside the network's: the search, and the lists that are made of it."""

BUCKETS = 32
"""Distances that T5's position bias tells apart."""

SIBLINGS = 10
"""Passes over the digits by which ids go on, where probabilities are among them."""


def semantic_ids_work(config: SemanticIdsConfig, scene: Scene) -> Work:
    """Vectors of the items' texts, and their quantiser."""
    dataset = scene.split.dataset
    vectors, width = content_work(config.content, scene)
    quantiser, items = config.quantiser, float(len(dataset.titles))
    levels, codes = quantiser.levels, quantiser.codes
    if isinstance(quantiser, ResidualKMeansConfig):
        work = levels * clustering_work(items, codes, width, quantiser.rounds)
        work = replace(work, memory=_distances(items, codes) + 3 * FLOAT * items * width)
    else:
        work = _rq_vae_work(quantiser, items, width)
    return replace(vectors + work, epochs=work.epochs, stops_early=work.stops_early, examples=items)


def content_work(config: ContentConfig, scene: Scene) -> tuple[Work, int]:
    """Vectors of the catalogue's different texts, and their width."""
    dataset = scene.split.dataset
    texts = list(dict.fromkeys(item_texts(dataset, config.columns)))
    if isinstance(config, TfIdfConfig):
        return _tf_idf_work(texts, config)
    if isinstance(config, LanguageModelVectorsConfig):
        reader = reader_of(PretrainedConfig(path=config.path), dataset)
        half = scene.device != "cpu" and reader.half
        return Plant(reader, half, 2 if half else FLOAT).encoded(texts), reader.width
    assert isinstance(config, SentenceEncoderConfig)
    return _pooled_work(config, texts), content_width(config, scene)


def content_width(config: ContentConfig, scene: Scene) -> int:
    """The width of the catalogue's vectors; of those of words the most that it may be."""
    if isinstance(config, TfIdfConfig):
        return min(config.dim, scene.split.n_items)
    if isinstance(config, LanguageModelVectorsConfig):
        return reader_of(PretrainedConfig(path=config.path), scene.split.dataset).width
    maps = head_of(config.path).maps
    return maps[-1][1] if maps else encoder_of(config.path).width


def _tf_idf_work(texts: Sequence[str], config: TfIdfConfig) -> tuple[Work, int]:
    """Words that some texts share, and the singular value decomposition of their table, on a processor."""
    words = [set(text.lower().split()) for text in texts]
    counts: dict[str, int] = {}
    for row in words:
        for word in row:
            counts[word] = counts.get(word, 0) + 1
    kept = [count for count in counts.values() if count >= config.min_items]
    least, cells = min(len(texts), max(2, len(kept))), float(sum(kept))
    width = min(config.dim, least)
    solved = Work(bytes=KRYLOV * least * width**2, calls=20.0 * width)
    solved += 4 * width * passes(cells, 2, DOUBLE)
    return (solved + passes(cells, 30, DOUBLE)).hosted(), width


def _pooled_work(config: SentenceEncoderConfig, texts: Sequence[str]) -> Work:
    """A sentence encoder over texts in the order of their lengths, and its dense layers over their vectors."""
    encoder, head = encoder_of(config.path), head_of(config.path)
    plant = Plant(encoder, False, FLOAT)
    lengths = np.sort(np.minimum([len(ids) for ids in encoder.tokenize(texts)], config.max_tokens))
    batches = [lengths[start : start + ENCODED_TEXTS] for start in range(0, len(lengths), ENCODED_TEXTS)]
    work = sum((plant.forward(len(batch), float(batch.max()), 0) for batch in batches), NOTHING)
    work += sum((product(len(texts), inputs, outputs) for inputs, outputs in head.maps), NOTHING)
    return replace(work, read=float(lengths.sum()), memory=plant.weights)


def nearest_work(rows: float, centres: float, width: float) -> Work:
    """Distances in float64, and the least of each row."""
    return 2 * product(rows, width, centres) + passes(rows * centres, 2, DOUBLE) + passes(rows * width, 2, DOUBLE)


def clustering_work(rows: float, centres: float, width: float, rounds: float) -> Work:
    """k-means in float64: a start whose centres are drawn one after the other, and at most so many rounds."""
    start = centres * (nearest_work(rows, 1, width) + passes(rows, 6, DOUBLE) + Work(calls=10))
    return start + (rounds + 1) * (nearest_work(rows, centres, width) + passes(rows * width, 3, DOUBLE))


def _distances(rows: float, centres: float) -> float:
    """Bytes of the distances that exist at once."""
    return 3 * DOUBLE * min(rows * centres, DISTANCES)


def _rq_vae_work(config: RQVAEConfig, items: float, width: int) -> Work:
    """Training over the whole catalogue, dead codes looked for before every epoch."""
    widths = [width, *config.hidden, config.latent]
    maps = list(pairwise(widths))
    levels = config.levels * (nearest_work(items, config.codes, config.latent) + passes(items * config.latent, 4))
    inputs = sum((product(items, a, b) + passes(items * b, 1) for a, b in maps), NOTHING)
    outputs = inputs + passes(items * width, 2)
    steps = -(-items // config.batch_size)
    # Distances are no part of the gradient.
    epoch = (inputs + outputs).differentiated() + levels + config.levels * passes(items * config.latent, 8)
    calls = steps * (3.0 * (4 * len(maps) + 12) + 30.0 * config.levels)
    epoch = replace(epoch + inputs + levels, steps=steps, calls=calls)
    parameters = sum(2 * a * b + a + b for a, b in maps) + config.levels * config.codes * config.latent
    validation = inputs + outputs + levels
    start = config.levels * clustering_work(items, config.codes, config.latent, START_ROUNDS)
    memory = FLOAT * items * (width + 4 * sum(widths)) + _distances(items, config.codes)
    work = training_work(replace(epoch, memory=memory), config.training, float(parameters), validation, examples=items)
    return replace(work + start, epochs=work.epochs, stops_early=work.stops_early)


@dataclass(frozen=True)
class IdPlant:
    """TIGER's network over ids that may not be there yet.

    Hardly a catalogue goes without a further digit for items of equal codes; it is thought to have as many values as
    there are items of one text.

    Attributes:
        config: of the network.
        sizes: values of every digit.
        users: tokens of users.
        siblings: whether probabilities are among the digits by which ids go on.
    """

    config: IdNetworkConfig
    sizes: tuple[int, ...]
    users: int
    siblings: bool

    @classmethod
    def of(cls, config: TIGERConfig, dataset: Dataset) -> IdPlant:
        """For a catalogue."""
        equal = max(Counter(item_texts(dataset, config.ids.content.columns)).values())
        sizes = (config.ids.quantiser.codes,) * config.ids.quantiser.levels
        among = config.probabilities == "catalogue"
        return cls(config.network, (*sizes, max(2, equal)), config.user_tokens, among)

    @property
    def length(self) -> int:
        """Digits of an id."""
        return len(self.sizes)

    @property
    def written(self) -> int:
        """Tokens that can be part of an answer."""
        return FIRST_DIGIT + sum(self.sizes)

    @property
    def inner(self) -> int:
        """Width of queries, keys and values."""
        return self.config.heads * self.config.head_dim

    @property
    def parameters(self) -> float:
        """Trained numbers."""
        net, norms = self.config, 2 * self.config.encoder_layers + 3 * self.config.decoder_layers + 2
        maps = sum(rows * columns for rows, columns in self.matrices)
        return net.dim * (self.written + self.users + norms) + maps + 2 * BUCKETS * net.heads

    @property
    def matrices(self) -> list[tuple[int, int]]:
        """Shapes of the linear maps."""
        net = self.config
        attending = (4 * net.encoder_layers + 8 * net.decoder_layers) * [(net.dim, self.inner)]
        return attending + 2 * (net.encoder_layers + net.decoder_layers) * [(net.dim, net.feed_forward)]

    def encode(self, rows: float, width: float, training: bool = False) -> Work:
        """States of histories."""
        net, n = self.config, rows * width
        layer = 4 * product(n, net.dim, self.inner) + self._fed(n, ENCODER_PASSES, training)
        layer += self._attended(n, rows * width * width, width, training, passes_of_scores=5)
        layer = replace(layer + passes(n * self.inner, INNER_PASSES), calls=float(ENCODER_CALLS))
        return net.encoder_layers * layer + passes(n * net.dim, 6) + passes(rows * width * width, 4)

    def decode(
        self, rows: float, width: float, branches: float, digits: float, *, training: bool = False, read: bool = True
    ) -> Work:
        """States of so many digits of so many branches a history; `read`: its keys and values are computed too."""
        net, n = self.config, rows * branches * digits
        layer = 6 * product(n, net.dim, self.inner) + self._fed(n, DECODER_PASSES, training)
        if read:
            layer += 2 * product(rows * width, net.dim, self.inner) + passes(rows * width * self.inner, 2)
        layer += self._attended(n, n * self.length, self.length, training, passes_of_scores=5)
        layer += self._attended(n, n * width, width, training, passes_of_scores=2)
        layer = replace(layer + passes(n * self.inner, INNER_PASSES + 2), calls=float(DECODER_CALLS))
        return net.decoder_layers * layer + passes(n * net.dim, 6) + passes(n * width, 3)

    def learned(self, rows: float, width: float, questions: float, training: bool) -> Work:
        """Log-probabilities of so many answers a history, padding included."""
        n = rows * questions * self.length
        work = self.encode(rows, width, training)
        work += self.decode(rows, width, questions, self.length, training=training)
        work += product(n, self.config.dim, self.written) + passes(n * self.written, 3)
        if self.siblings:
            work += passes(rows * questions * self.sizes[0] * 1.5, SIBLINGS, DOUBLE) + Work(calls=60.0 * self.length)
        return work + Work(calls=MODEL_CALLS)

    def kept(self, rows: float, width: float, questions: float) -> float:
        """Bytes of states and logits between forward and backward."""
        net, n, m = self.config, rows * width, rows * questions * self.length
        states = (n * net.encoder_layers + m * net.decoder_layers) * (
            KEPT * net.dim + 5 * self.inner + 2 * net.feed_forward
        )
        scores = net.heads * (net.encoder_layers * n * width + net.decoder_layers * m * (width + self.length))
        return FLOAT * (states + 2 * scores + 3 * m * self.written)

    def _attended(self, queries: float, pairs: float, width: float, training: bool, passes_of_scores: int) -> Work:
        """Scores, softmax and mixing; training writes the scores of all pairs, for the bias is trained."""
        net = self.config
        work = 2 * product(queries, self.inner, width)
        scores = pairs * net.heads
        work += passes(scores, passes_of_scores if training else 2)
        return work + (dropout(scores, net.dropout) if training else NOTHING)

    def _fed(self, tokens: float, over_states: int, training: bool) -> Work:
        net, share = self.config, self.config.dropout if training else 0.0
        work = 2 * product(tokens, net.dim, net.feed_forward) + passes(tokens * net.feed_forward, 1)
        work += dropout(tokens * net.feed_forward, share) + 2 * dropout(tokens * net.dim, share)
        return work + passes(tokens * net.dim, over_states)


@fit_work.register
def _fit(config: TIGERConfig, scene: Scene) -> Work:
    """Epochs over all questions; validation reads and answers those that choose the epoch."""
    split, learning = scene.split, config.learning
    plant = IdPlant.of(config, split.dataset)
    rows = training_rows(split, learning.samples, config.max_items, shared=config.network.reading == "causal")
    epoch = NOTHING
    order = np.random.default_rng(0).permutation(len(rows))
    asked = rows.known.lengths[order]
    step = (np.cumsum(asked) - asked) // learning.batch_size
    for chosen in np.split(order, np.flatnonzero(np.diff(step)) + 1):
        epoch += Work(steps=1)
        for some in _groups(rows, chosen, plant, learning.micro_batch_tokens):
            epoch += _learned(plant, some, training=True)
    valid = split.valid.take(slice(0, learning.judged))
    judging = NOTHING
    if len(valid):
        judged = Rows.of(valid, config.max_items)
        groups = _groups(judged, np.arange(len(judged)), plant, learning.micro_batch_tokens)
        judging = sum((_learned(plant, some, training=False) for some in groups), NOTHING)
        if learning.select_on == "ndcg@10":
            judging += _answered(config, plant, split, valid, 10)
    epoch = epoch.halved(learning.training.mixed_precision != "no" and scene.device != "cpu")
    trained, targets = plant.parameters, int(rows.known.lengths.sum())
    return training_work(epoch, learning.training, trained, judging, examples=targets, matrices=plant.matrices)


@answer_work.register
def _answer(config: TIGERConfig, scene: Scene, examples: Examples) -> Work:
    plant = IdPlant.of(config, scene.split.dataset)
    sample = evenly(examples)
    work = (len(examples) / max(1, len(sample))) * _answered(config, plant, scene.split, sample, config.beams)
    return replace(work, memory=work.memory + FLOAT * plant.parameters)


@switches.register
def _switches(config: TIGERConfig) -> Iterator[tuple[str, Config]]:
    """Fewer tokens at once in training, fewer histories in answers."""
    learning = config.learning
    if learning.micro_batch_tokens > 1024:
        config = config.model_copy(update={"learning": learning.model_copy(update={"micro_batch_tokens": 1024})})
        yield "learning.micro_batch_tokens=1024", config
    if config.batch_size > 8:
        yield "batch_size=8", config.model_copy(update={"batch_size": 8})


def _answered(config: TIGERConfig, plant: IdPlant, split: Split, examples: Examples, k: int) -> Work:
    """Lists of K items: histories of similar length are read together, then grow digit by digit."""
    width = max(k, config.beams)
    lengths = np.sort(1 + plant.length * examples.history.tail(config.max_items).lengths)
    nodes = [1.0]
    for size in plant.sizes:
        nodes.append(min(float(split.n_items), nodes[-1] * size))
    work = NOTHING
    for start in range(0, len(lengths), config.batch_size):
        chunk = lengths[start : start + config.batch_size]
        work += _grown(plant, float(len(chunk)), float(chunk.max()), width, nodes) + Work(calls=CHUNK_CALLS)
    return work + passes(len(examples) * k, 20, DOUBLE)


def _grown(plant: IdPlant, rows: float, width: float, beams: int, nodes: Sequence[float]) -> Work:
    """A chunk of answers, given how many beginnings of ids there are of every length."""
    work, branches = plant.encode(rows, width), 1.0
    for digit in range(plant.length):
        n = rows * branches
        work += plant.decode(rows, width, branches, 1, read=digit == 0)
        work += product(n, plant.config.dim, plant.written) + passes(n * plant.written, 2)
        # A step is as wide as the widest of its rows, and popular beginnings have the most ends.
        found = min(branches * plant.sizes[digit], max(beams, 4 * branches * nodes[digit + 1] / nodes[digit]))
        work += passes(rows * found, SEARCH_PASSES, DOUBLE)
        branches = min(float(beams), found)
    memory = FLOAT * (rows * branches * plant.written + 2 * rows * width * plant.inner * plant.config.decoder_layers)
    return replace(work, memory=memory + plant.kept(rows, width, 0) / plant.config.encoder_layers)


def _learned(plant: IdPlant, rows: Rows, training: bool) -> Work:
    """A micro-batch, forward, in training also backward."""
    count, width = float(len(rows)), float(1 + plant.length * rows.items.lengths.max())
    questions = float(rows.known.lengths.max())
    work = plant.learned(count, width, questions, training)
    if not training:
        return work
    return replace(work.differentiated(), memory=plant.kept(count, width, questions))


def _groups(rows: Rows, chosen: IntArray, plant: IdPlant, tokens: int) -> list[Rows]:
    taken: Any = rows.take(chosen)
    return [taken.take(group) for group in groups_by_length(taken, plant.length, tokens)]
