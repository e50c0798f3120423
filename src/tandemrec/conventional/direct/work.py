"""What models of users and items take.

E pairs, B pairs of a step, K negatives, U users, I items, N = U + I vertices, D vector size.
"""

from __future__ import annotations

from dataclasses import replace
from functools import singledispatch

import numpy as np

from tandemrec.conventional.direct.als import ALSConfig
from tandemrec.conventional.direct.ease import EASEConfig
from tandemrec.conventional.direct.interactions import Pairs
from tandemrec.conventional.direct.itemknn import ItemKNNConfig
from tandemrec.conventional.direct.lightgcn import GraphConfig
from tandemrec.conventional.direct.mixgcf import MixGCFConfig
from tandemrec.conventional.direct.pairwise import PairwiseConfig
from tandemrec.conventional.direct.sgl import SGLConfig
from tandemrec.conventional.popularity import PopularityConfig
from tandemrec.conventional.sequential.losses import CHUNK_LOGITS
from tandemrec.data.examples import Examples
from tandemrec.training.work import training_work
from tandemrec.work import (
    FLOAT,
    Scene,
    Work,
    answer_work,
    fit_work,
    passes,
    product,
    ranking_work,
)

GATHERED = 2.5
"""Bytes of traffic for a number of a row that a sparse matrix reads: 1.5 from a near cache, 3 from a far one."""

COUNTED = 25.0
"""Bytes of traffic that counting one pair of items in a sparse product takes, or drawing and checking one negative."""


@fit_work.register
def _fit(config: PairwiseConfig, scene: Scene) -> Work:
    split = scene.split
    pairs = Pairs.of(split.sequences, split.n_items)
    table = float(pairs.n_users + pairs.n_items) * config.dim
    steps = -(-len(pairs) // config.batch_size)
    epoch = steps * step_work(config, pairs) + Work(steps=steps)
    epoch = replace(epoch, memory=FLOAT * table * (getattr(config, "layers", 0) + 2))
    judging = answer_work(config, scene, split.valid)
    assert judging is not None
    validation = _propagated(config, pairs) + judging + ranking_work(len(split.valid), split.n_items)
    return training_work(epoch, config.training, table, validation, examples=len(pairs))


@answer_work.register
def _answer(config: PairwiseConfig, scene: Scene, examples: Examples) -> Work:
    items, users = scene.split.n_items, len(scene.split.sequences)
    scores = product(len(examples), config.dim, items) + passes(len(examples) * items, 1)
    return replace(scores, memory=FLOAT * (users + items) * config.dim)


@singledispatch
def step_work(config: PairwiseConfig, pairs: Pairs) -> Work:
    """Forward and backward of B pairs, their negatives drawn."""
    rows = 3.0 * min(config.batch_size, len(pairs)) * config.dim
    table = float(pairs.n_users + pairs.n_items) * config.dim
    return _drawn(config, pairs, 1) + passes(rows, 4) + passes(table, 1) + Work(calls=15)


@step_work.register
def _graph_step(config: GraphConfig, pairs: Pairs) -> Work:
    propagated = 2 * _propagated(config, pairs)  # the matrix is symmetric and gets no gradient
    return step_work.dispatch(PairwiseConfig)(config, pairs) + propagated


@step_work.register
def _mixed_step(config: MixGCFConfig, pairs: Pairs) -> Work:
    b, k, layers = min(config.batch_size, len(pairs)), config.candidates, config.layers + 1
    chosen = layers * (product(b, config.dim, k) + passes(b * k * config.dim, 2) + passes(b * config.dim, 20))
    return _graph_step(config, pairs) + _drawn(config, pairs, k - 1) + chosen + Work(calls=20 * layers)


@step_work.register
def _contrasted_step(config: SGLConfig, pairs: Pairs) -> Work:
    work = _graph_step(config, pairs)
    if not config.contrast:
        return work
    b = min(config.batch_size, len(pairs))
    for size in (pairs.n_users, pairs.n_items):
        different = size * -np.expm1(b * np.log1p(-1 / size)) if size > 1 else 1.0
        chunks = max(1.0, different * size / CHUNK_LOGITS)
        work += 3 * product(different, config.dim, size) + passes(different * size, 4) + chunks * Work(calls=9)
    table = float(pairs.n_users + pairs.n_items) * config.dim
    return work + 4 * _propagated(config, pairs) + passes(table, 2).differentiated()


def _propagated(config: PairwiseConfig, pairs: Pairs) -> Work:
    """The layers of the graph and their mean; nothing without layers. A product with the sparse matrix is traffic: its
    rows are read for every entry, mostly from a cache.
    """
    layers = config.layers if isinstance(config, GraphConfig) else 0
    entries = GATHERED * 2.0 * len(pairs) * config.dim
    table = float(pairs.n_users + pairs.n_items) * config.dim
    return layers * (Work(bytes=entries, calls=1) + passes(table, 1))


def _drawn(config: PairwiseConfig, pairs: Pairs, negatives: int) -> Work:
    return Work(bytes=8 * COUNTED * min(config.batch_size, len(pairs)) * negatives, calls=10 if negatives else 0)


@fit_work.register
def _fit_ease(config: EASEConfig, scene: Scene) -> Work:
    """A Gram matrix, its Cholesky factor (I³ / 3) and its inverse (2 I³ for both triangles), in float64."""
    items = float(scene.split.n_items)
    double = 2 * (1 / 3 + 2) * items**3
    return Work(flops=double, bytes=COUNTED * _together(scene) + 40 * items**2, memory=8 * 3.5 * items**2).hosted()


@answer_work.register
def _answer_ease(config: EASEConfig, scene: Scene, examples: Examples) -> Work:
    items = scene.split.n_items
    rows = passes(float(examples.history.lengths.sum()) * items, 0.5)
    return replace(rows + passes(len(examples) * items, 1), memory=FLOAT * float(items) ** 2).hosted()


@fit_work.register
def _fit_neighbours(config: ItemKNNConfig, scene: Scene) -> Work:
    together, items = _together(scene), scene.split.n_items
    kept = min(together, float(items) ** 2)
    return Work(
        bytes=COUNTED * together + 16 * COUNTED * kept, calls=50 * (1 + items / 1024), memory=40 * kept
    ).hosted()


@answer_work.register
def _answer_neighbours(config: ItemKNNConfig, scene: Scene, examples: Examples) -> Work:
    items = scene.split.n_items
    row = min(_together(scene) / max(1, items), config.neighbours or items, items)
    added = float(examples.history.lengths.sum()) * row
    work = Work(bytes=COUNTED * added, calls=20, memory=12.0 * row * items) + passes(len(examples) * items, 1)
    return work.hosted()


@fit_work.register
def _fit_als(config: ALSConfig, scene: Scene) -> Work:
    """Three steps of conjugate gradients for every user and item in every round, each over its own items."""
    pairs = Pairs.of(scene.split.sequences, scene.split.n_items)
    rows, d = float(pairs.n_users + pairs.n_items), config.dim
    solved = 2 * 4 * (2.0 * len(pairs) * 2 * d + rows * d * d)
    folded = answer_work(config, scene, scene.split.train)
    assert folded is not None
    share = len(scene.split.sequences) / max(1, len(scene.split.train))
    return config.iterations * Work(bytes=FLOAT * solved, calls=2).hosted() + folded * share


@answer_work.register
def _answer_als(config: ALSConfig, scene: Scene, examples: Examples) -> Work:
    """A system of D equations for every history."""
    d, n = config.dim, len(examples)
    read = float(examples.history.lengths.sum())
    solved = Work(flops=2 * read * d * d + n * 2 / 3 * d**3, bytes=FLOAT * 6.0 * n * d * d)
    return (solved + product(n, d, scene.split.n_items) + passes(read * d, 2)).hosted()


@fit_work.register
def _fit_popularity(config: PopularityConfig, scene: Scene) -> Work:
    return passes(float(scene.split.sequences.lengths.sum()), 2).hosted()


@answer_work.register
def _answer_popularity(config: PopularityConfig, scene: Scene, examples: Examples) -> Work:
    return passes(len(examples) * scene.split.n_items, 1)


def _together(scene: Scene) -> float:
    """Pairs of items that some user met both: Σ over users of the square of their number."""
    return float((scene.split.sequences.lengths.astype(np.float64) ** 2).sum())
