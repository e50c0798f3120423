"""What sequence models take: products exactly, traffic and calls by counting the operations of their networks.

b rows of T positions, padding included, M targets, I items, D vector size, H heads.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import singledispatch

import numpy as np

from tandemrec.conventional.sequential.batches import epoch_batches, length_groups, training_rows
from tandemrec.conventional.sequential.bert4rec import BERT4RecConfig
from tandemrec.conventional.sequential.caser import CaserConfig, targets_ahead
from tandemrec.conventional.sequential.cl4srec import CL4SRecConfig
from tandemrec.conventional.sequential.dcrec import DCRecConfig, every_prefix
from tandemrec.conventional.sequential.dros import DROSConfig
from tandemrec.conventional.sequential.gru4rec import GRU4RecConfig
from tandemrec.conventional.sequential.losses import CHUNK_LOGITS
from tandemrec.conventional.sequential.module import SequenceConfig
from tandemrec.conventional.sequential.sasrec import AttentionConfig
from tandemrec.data.examples import Examples, IntArray, Ragged
from tandemrec.data.split import Split
from tandemrec.recommender import Config
from tandemrec.training.work import training_work
from tandemrec.work import (
    BACKWARD,
    FLOAT,
    NOTHING,
    Scene,
    Work,
    answer_work,
    dropout,
    fit_work,
    passes,
    product,
    ranking_work,
    switches,
)


@fit_work.register
def _fit(config: SequenceConfig, scene: Scene) -> Work:
    return _trained(config, config, scene)


@fit_work.register
def _fit_dros(config: DROSConfig, scene: Scene) -> Work:
    return _trained(config, config.backbone, scene)


def _trained(config: SequenceConfig | DROSConfig, settings: SequenceConfig, scene: Scene) -> Work:
    """Epochs with their validations; `settings` are those of the network's training."""
    split, size = scene.split, parameters(config, scene.split)
    epoch = epoch_work(config, split)
    judging = answer_work(config, scene, split.valid)
    assert judging is not None
    rows = training_rows(split.sequences, settings.max_length, chunks=settings.chunks)
    return training_work(
        epoch, settings.training, size, judging + ranking_work(len(split.valid), split.n_items), examples=len(rows)
    )


@answer_work.register
def _answer(config: SequenceConfig, scene: Scene, examples: Examples) -> Work:
    return _scores(config, config, scene, examples)


@answer_work.register
def _answer_dros(config: DROSConfig, scene: Scene, examples: Examples) -> Work:
    return _scores(config, config.backbone, scene, examples)


def _scores(config: SequenceConfig | DROSConfig, settings: SequenceConfig, scene: Scene, examples: Examples) -> Work:
    """States of the histories, and their products with the item table."""
    longest = settings.window if isinstance(settings, CaserConfig) else settings.max_length
    lengths = np.minimum(examples.history.lengths, longest)
    lengths = lengths[lengths > 0]
    groups = length_groups(lengths, settings.micro_batch_tokens) if len(lengths) else []
    states = sum((network_work(settings, lengths[g], False) for g in groups), NOTHING)
    size = state_size(settings) + (isinstance(config, DROSConfig) and config.head == "linear")
    items = scene.split.n_items
    weights = Work(memory=FLOAT * parameters(config, scene.split))
    return states + product(len(examples), size, items) + passes(len(examples) * items, 1) + weights


@switches.register
def _switches(config: SequenceConfig) -> Iterator[tuple[str, Config]]:
    if config.micro_batch_tokens > 1024:
        yield "micro_batch_tokens=1024", config.model_copy(update={"micro_batch_tokens": 1024})


@singledispatch
def network_work(config: SequenceConfig, lengths_B: IntArray, training: bool) -> Work:
    """States of all positions of b rows, forward."""
    raise TypeError(f"no formula for {type(config).__name__}")


@network_work.register
def _attention(config: AttentionConfig, lengths_B: IntArray, training: bool) -> Work:
    rows, width, d = len(lengths_B), int(lengths_B.max()), config.dim
    n, share = rows * width, config.dropout if training else 0.0
    block = 6 * product(n, d, d) + _attended(rows, width, d, config.heads, share, masked=False)
    block += passes(n * d, 8) + 2 * dropout(n * d, share)
    return passes(n * d, 5) + dropout(n * d, share) + config.blocks * block


@network_work.register(BERT4RecConfig)
@network_work.register(DCRecConfig)
def _encoder(config: BERT4RecConfig | DCRecConfig, lengths_B: IntArray, training: bool) -> Work:
    rows, width, d = len(lengths_B), int(lengths_B.max()), config.dim
    n, share = rows * width, config.dropout if training else 0.0
    layer = 4 * product(n, d, d) + product(n, d, 4 * d) + product(n, 4 * d, d)
    layer += _attended(rows, width, d, config.heads, share, masked=True)
    layer += passes(n * d, 12) + 2 * dropout(n * d, share)
    out = product(n, d, d) + passes(n * d, 3) if isinstance(config, BERT4RecConfig) else NOTHING
    return passes(n * d, 5) + dropout(n * d, share) + config.layers * layer + out


@network_work.register
def _recurrent(config: GRU4RecConfig, lengths_B: IntArray, training: bool) -> Work:
    n, width, d, h = int(lengths_B.sum()), int(lengths_B.max()), config.dim, config.hidden  # nothing is padded
    gates = product(n, d, 3 * h) + product(n, h, 3 * h)
    gates += (config.layers - 1) * 2 * product(n, h, 3 * h)
    # A time step is a dozen small operations; backwards the gradient of each slice is added to one of all of them.
    steps = replace(passes(n * 3 * h * width / 3 if training else n * 3 * h, 1), calls=12.0 * width)
    return gates + config.layers * steps + product(n, h, d) + dropout(n * (d + h), config.dropout * training)


@network_work.register
def _convolutions(config: CaserConfig, lengths_B: IntArray, training: bool) -> Work:
    heights = config.heights or tuple(range(1, config.window + 1))
    rows, width, d = len(lengths_B), int(lengths_B.max()), config.dim
    n = rows * width
    found = config.horizontal * len(heights) + config.vertical * d
    work = product(n * d, config.window, config.vertical) + product(n, found, d)
    for height in heights:
        work += product(rows * (width + config.window - height), d * height, config.horizontal)
        work += passes(n * config.horizontal, 4)
    work += passes(n * d * config.window, 1) + passes(n * found, 3) + passes(n * d, 6)
    return work + dropout(n * found, config.dropout * training)


def _attended(rows: int, width: int, dim: int, heads: int, share: float, *, masked: bool) -> Work:
    """Scores, softmax and mixing; with dropout or a mask the scores of all pairs of positions are written."""
    both = 2 * product(rows * width, dim, width)
    pairs = float(rows * heads * width * width)
    written = passes(pairs, 3 if masked else 2) + dropout(pairs, share) if share or masked else passes(pairs, 1)
    return both + written + passes(rows * width * dim, 4)


def loss_work(config: SequenceConfig, targets: float, items: int) -> Work:
    """The loss of M targets with its gradients, by those of states and table."""
    d = state_size(config) + isinstance(config, BERT4RecConfig | CaserConfig)
    table = passes(items * d, 2)
    if config.loss == "softmax":
        chunks = max(1.0, targets * items / CHUNK_LOGITS)
        return 3 * product(targets, d, items) + passes(targets * items, 4) + chunks * Work(calls=9) + table
    if config.loss == "sampled-softmax":
        drawn = min(config.negatives, items)
        return (product(targets, d, drawn) + passes(targets * drawn, 3)).differentiated() + table
    return passes(targets * (1 + config.bce_negatives) * d, 3).differentiated() + table


@singledispatch
def epoch_work(config: SequenceConfig | DROSConfig, split: Split) -> Work:
    """Forward and backward of every micro-batch of an epoch, without the optimiser's steps but with their number."""
    assert isinstance(config, SequenceConfig)
    rows = training_rows(split.sequences, config.max_length, chunks=config.chunks)
    lengths = rows.lengths - (0 if isinstance(config, BERT4RecConfig) else 1)
    work = NOTHING
    for step in _steps(config, rows, config.micro_batch_tokens):
        work += Work(steps=1)
        for group in step:
            work += _kept(network_work(config, lengths[group], True).differentiated())
            work += loss_work(config, _targets(config, rows.lengths[group]), split.n_items)
    return work


@epoch_work.register
def _with_views(config: CL4SRecConfig, split: Split) -> Work:
    rows = training_rows(split.sequences, config.max_length, chunks=config.chunks)
    kept = (1 + 1 + config.crop_share) / 3
    work = NOTHING
    for (group,) in _steps(config, rows, sys.maxsize):
        lengths = rows.lengths[group] - 1
        views = np.maximum(1, np.minimum(rows.lengths[group], config.max_length) * kept).astype(np.int64)
        every = np.concatenate([lengths, views, views])
        for some in length_groups(every, config.micro_batch_tokens):
            work += _kept(network_work(config, every[some], True).differentiated())
        pairs = 2 * len(group)
        contrast = product(pairs, config.dim, pairs) + passes(pairs * pairs, 5)
        work += loss_work(config, float(lengths.sum()), split.n_items) + contrast.differentiated() + Work(steps=1)
        work += passes(float(every.sum()) * config.dim, 3)
    return work


@epoch_work.register
def _with_graphs(config: DCRecConfig, split: Split) -> Work:
    rows = every_prefix(training_rows(split.sequences, config.max_length, chunks=config.chunks))
    items, d = split.n_items, config.dim
    lengths = split.sequences.lengths
    edges = min(2.0 * float((lengths - 1).clip(0).sum()), float(items) ** 2)
    graph = config.hops * _spread(edges, items, d) + passes(items * d, 4) + dropout(items * d, config.dropout)
    similar = config.hops * _spread(2.0 * config.neighbours * items, items, d) + passes(items * d, 4)
    graphs = 2 * graph + similar + 2 * _spread(edges, items, d)
    work = NOTHING
    for (group,) in _steps(config, rows, sys.maxsize):
        inputs = np.repeat(rows.lengths[group] - 1, 2)
        for some in length_groups(inputs, config.micro_batch_tokens):
            work += _kept(network_work(config, inputs[some], True).differentiated())
        n = len(group)
        views = 2 * (product(n, d, n) + passes(n * n, 4)) + 3 * product(n, d, d) + passes(n * d, 12)
        work += (graphs + views).differentiated() + loss_work(config, n, items) + Work(steps=1)
    return work


@epoch_work.register
def _robust(config: DROSConfig, split: Split) -> Work:
    rows = training_rows(split.sequences, config.backbone.max_length, chunks=config.backbone.chunks)
    targets = float((rows.lengths - 1).sum())
    more = 3 * product(targets, config.backbone.dim + 1, split.n_items) + passes(targets * split.n_items, 8)
    chunks = max(len(rows) / config.backbone.batch_size, targets * split.n_items / CHUNK_LOGITS)
    return epoch_work(config.backbone, split) + (more + chunks * Work(calls=12) if config.alpha else NOTHING)


@singledispatch
def parameters(config: SequenceConfig | DROSConfig, split: Split) -> float:
    """Trained numbers."""
    raise TypeError(f"no formula for {type(config).__name__}")


@parameters.register
def _of_attention(config: AttentionConfig, split: Split) -> float:
    d = config.dim
    rows = split.n_items + config.max_length + isinstance(config, CL4SRecConfig)
    return rows * d + config.blocks * (6 * d * (d + 1) + 4 * d) + 2 * d


@parameters.register(BERT4RecConfig)
@parameters.register(DCRecConfig)
def _of_encoder(config: BERT4RecConfig | DCRecConfig, split: Split) -> float:
    d, items = config.dim, split.n_items
    layers = config.layers * (4 * d * (d + 1) + 2 * 4 * d * d + 5 * d + 4 * d)
    if isinstance(config, DCRecConfig):
        return (items + config.max_length) * d + layers + 4 * d + d * d + d
    return (items + 1 + config.max_length + 1) * d + layers + 2 * d + d * (d + 1) + 2 * d + items


@parameters.register
def _of_recurrent(config: GRU4RecConfig, split: Split) -> float:
    d, h = config.dim, config.hidden
    gates = 3 * h * (d + h + 2) + (config.layers - 1) * 3 * h * (2 * h + 2)
    return split.n_items * d + gates + d * (h + 1)


@parameters.register
def _of_convolutions(config: CaserConfig, split: Split) -> float:
    heights = config.heights or tuple(range(1, config.window + 1))
    d, n, v = config.dim, config.horizontal, config.vertical
    filters = sum(n * (d * height + 1) for height in heights) + v * (config.window + 1)
    tables = split.n_items * (d * (3 if config.users else 2) + 1) + len(split.sequences) * d * config.users
    return filters + d * (n * len(heights) + v * d + 1) + tables


@parameters.register
def _of_robust(config: DROSConfig, split: Split) -> float:
    head = split.n_items * (config.backbone.dim + 1) if config.head == "linear" else 0
    return parameters(config.backbone, split) + head


def state_size(config: SequenceConfig) -> int:
    """Size of what items are compared with."""
    return config.dim * (2 if isinstance(config, CaserConfig) and config.users else 1)


def _targets(config: SequenceConfig, lengths: IntArray) -> float:
    if isinstance(config, CaserConfig):
        return float(targets_ahead(lengths, config.targets).sum())
    if isinstance(config, BERT4RecConfig):
        return float(config.last_share * len(lengths) + (1 - config.last_share) * config.mask_share * lengths.sum())
    return float((lengths - 1).sum())


def _steps(config: SequenceConfig, rows: Ragged, tokens: int) -> Iterator[list[IntArray]]:
    rng = np.random.default_rng(0)
    yield from epoch_batches(rows, rng, batch_size=config.batch_size, micro_batch_tokens=tokens)


def _spread(edges: float, items: int, dim: int) -> Work:
    """A sparse matrix with so many entries times (I, D): traffic, as a row is read for every entry."""
    return Work(bytes=edges * dim, calls=2) + passes(items * dim, 1)


def _kept(work: Work) -> Work:
    """What lies between forward and backward is about what the forward pass wrote."""
    return replace(work, memory=work.bytes / (1 + BACKWARD) / 2)
