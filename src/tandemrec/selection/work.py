"""What influence, effort and choices take."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tandemrec.conventional.sequential.dros import DROSConfig
from tandemrec.conventional.sequential.module import SequenceConfig
from tandemrec.conventional.sequential.work import network_work, state_size
from tandemrec.data.examples import IntArray
from tandemrec.llm.finetune import length_batches
from tandemrec.llm.recommenders.writer import WriterConfig, first_targets
from tandemrec.llm.work import TOKENISED, Lesson, Plant, evenly
from tandemrec.recommender import Config
from tandemrec.selection.dealrec import DEALRecConfig
from tandemrec.selection.effort import EffortConfig
from tandemrec.selection.grand import GraNdConfig
from tandemrec.selection.influence import InfluenceConfig
from tandemrec.selection.random import RandomConfig
from tandemrec.selection.recranker import RecRankerConfig
from tandemrec.selection.selector import AnySelectorConfig
from tandemrec.selection.solver import LissaConfig
from tandemrec.selection.surrogate import SurrogateConfig
from tandemrec.selection.tf_dcon import TFDConConfig
from tandemrec.work import FLOAT, NOTHING, Scene, Work, passes, product

PRODUCTS = 30
"""Curvature products that conjugate gradients take on data like MovieLens and Amazon's; at most `max_iterations`."""

ERROR_PASSES = 14
"""Passes over the scores of all items that a sample's error takes."""

ROUNDS = 50
"""Rounds of k-means at most, which many samples in many dimensions take."""


def influence_work(config: Config, settings: InfluenceConfig, loss: SurrogateConfig, scene: Scene) -> Work | None:
    """One pass over the samples for the gradient, one for the scores, and the products of the solver, which read the
    positions' factors from memory where they fit; None for surrogates without a formula.
    """
    forward, network = _losses(config, loss, scene), _network(config)
    if forward is None or network is None:
        return None
    lengths = _lengths(network, scene)
    if isinstance(settings.solver, LissaConfig):
        each = (2 / max(1, len(lengths))) * forward.differentiated()
        return 2 * forward.differentiated() + settings.solver.steps * (each + Work(calls=300))
    solve = min(PRODUCTS, settings.solver.max_iterations)
    kept = settings.block.parameters == "last-projection" and settings.curvature == "gauss-newton"
    positions, d = float(lengths.sum()), network.dim
    each = 4 * product(positions, d, d) + passes(positions * d, 8) if kept else 2 * forward.differentiated()
    return 2 * forward.differentiated() + solve * each


def select_work(
    selector: AnySelectorConfig,
    config: Config | None,
    loss: SurrogateConfig,
    scene: Scene,
    writer: Config | None = None,
) -> Work | None:
    """A choice by scores that are there already, by losses, by gradients, or from clusters; None for surrogates without
    a formula.

    Args:
        selector: who chooses.
        config: of the surrogate that it looks at.
        loss: of samples.
        scene: as the language model sees it.
        writer: the model of titles that it looks at.
    """
    if isinstance(selector, DEALRecConfig | RandomConfig):
        return passes(len(scene.split.train), 20)
    network = None if config is None else _network(config)
    if config is None or network is None:
        return None
    if isinstance(selector, TFDConConfig):
        assert isinstance(writer, WriterConfig)
        return _clustered(selector, network, scene, writer)
    if isinstance(selector, RecRankerConfig):
        encoded = _states(network, _histories(network, scene))
        return encoded + clustering_work(len(scene.split.train), selector.clusters, state_size(network))
    if isinstance(selector, GraNdConfig):
        forward = _losses(config, loss, scene)
        # The norms of what every sample gives to every map take about as long as the gradient itself.
        return None if forward is None else 2 * forward.differentiated()
    # EL2N and AUM look at the scores of all items, in arrays too large to be used again.
    samples, items = len(scene.split.train), scene.split.n_items
    scores = product(samples, state_size(network), items) + passes(samples * items, ERROR_PASSES)
    return _states(network, _histories(network, scene)) + scores


def _clustered(selector: TFDConConfig, network: SequenceConfig, scene: Scene, writer: WriterConfig) -> Work:
    """Vectors of histories and of prompts side by side, the latter read by the weights before fine-tuning."""
    plant, train, count = Plant.of(scene, writer), evenly(scene.split.train), len(scene.split.train)
    prompts, shown = Lesson.of(writer, plant, scene.split).fitted(writer, plant, scene.split, train)
    lengths = np.array([len(prompt) for prompt in prompts])
    # Prompts are tokenised to fit into the context, once more for every title that is left out, and again to be read.
    left_out = train.history.tail(writer.prompt.history).lengths - np.array([len(row) for row in shown])
    each = plant.read(lengths) + Work(host_bytes=TOKENISED * float((lengths * (1 + left_out)).sum()))
    read = (count / max(1, len(lengths))) * each
    width = state_size(network) + plant.reader.width
    states = _states(network, _histories(network, scene)) + passes(count * width, 5)
    work = states + read + clustering_work(count, selector.clusters, width)
    return replace(work, memory=plant.weights + 3 * FLOAT * count * width, examples=count)


def clustering_work(rows: float, centres: float, width: float, rounds: float = ROUNDS) -> Work:
    """k-means with a start whose centres are drawn one after the other, and as many rounds as it may take."""
    start = centres * (passes(rows * width, 2) + passes(rows, 6) + Work(calls=12))
    each = product(rows, width, centres) + passes(rows * centres, 2) + passes(rows * width, 1) + Work(calls=12)
    return start + (rounds + 1) * each


def _network(config: Config) -> SequenceConfig | None:
    network = config.backbone if isinstance(config, DROSConfig) else config
    return network if isinstance(network, SequenceConfig) else None


def _lengths(network: SequenceConfig, scene: Scene) -> IntArray:
    lengths: IntArray = np.minimum(scene.split.train.history.lengths + 1, network.max_length)
    return lengths


def _losses(config: Config, loss: SurrogateConfig, scene: Scene) -> Work | None:
    """States of all samples and the losses of their targets, forward."""
    network = _network(config)
    if network is None:
        return None
    lengths = _lengths(network, scene)
    positions, d = float(lengths.sum()), network.dim
    forward = _states(network, lengths, loss.micro_batch_tokens)
    items = scene.split.n_items if loss.loss == "softmax" else 1 + loss.negatives
    return forward + product(positions, d, items) + passes(positions * items, 4) + passes(positions * d, 4)


def _histories(network: SequenceConfig, scene: Scene) -> IntArray:
    lengths = np.minimum(scene.split.train.history.lengths, network.max_length)
    found: IntArray = lengths[lengths > 0]
    return found


def _states(network: SequenceConfig, lengths: IntArray, tokens: int | None = None) -> Work:
    """States of rows of so many items, forward, in groups of nearly equal length."""
    lengths = np.sort(lengths)
    batch = max(1, (tokens or network.micro_batch_tokens) // max(1, int(lengths.mean()))) if len(lengths) else 1
    groups = np.split(lengths, range(batch, len(lengths), batch))
    return sum((network_work(network, group, False) for group in groups if len(group)), NOTHING)


def effort_work(config: Config, settings: EffortConfig, scene: Scene) -> Work:
    """A forward pass over prompts and answers, and a backward pass as far down as the matrices lie."""
    assert isinstance(config, WriterConfig)
    plant, train = Plant.of(scene, config), first_targets(scene.split.train)[0]
    lesson = Lesson.of(config, plant, scene.split)
    part = lesson.answered(config, plant, scene.split, evenly(train), 1)
    part = part if settings.tokens == "label" else part.whole()
    last, work = settings.matrices == "last-value", NOTHING
    for rows in length_batches(part, range(len(part)), settings.micro_batch_tokens):
        width, labels = max(map(part.length, rows)), sum(len(part.completions[row][0]) for row in rows)
        forward = plant.forward(len(rows), width, labels)
        back = plant.forward(len(rows), width, labels) * (1 / plant.reader.layers if last else 1.0)
        work += forward + 2 * back + Work(memory=plant.kept(len(rows) * width, labels) + plant.weights)
    return (len(train) / max(1, len(part))) * (work + Work(read=float(part.tokens())))
