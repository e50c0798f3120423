"""What influence, effort and choices take."""

from __future__ import annotations

import numpy as np

from tandemrec.conventional.sequential.dros import DROSConfig
from tandemrec.conventional.sequential.module import SequenceConfig
from tandemrec.conventional.sequential.work import network_work
from tandemrec.data.examples import IntArray
from tandemrec.llm.finetune import length_batches
from tandemrec.llm.recommenders.writer import WriterConfig, first_targets
from tandemrec.llm.work import Lesson, Plant, evenly
from tandemrec.recommender import Config
from tandemrec.selection.ccs import CCSConfig
from tandemrec.selection.dealrec import DEALRecConfig
from tandemrec.selection.effort import EffortConfig
from tandemrec.selection.el2n import EL2NConfig
from tandemrec.selection.grand import GraNdConfig
from tandemrec.selection.influence import InfluenceConfig
from tandemrec.selection.random import RandomConfig
from tandemrec.selection.selector import AnySelectorConfig
from tandemrec.selection.solver import LissaConfig
from tandemrec.selection.surrogate import SurrogateConfig
from tandemrec.work import NOTHING, Scene, Work, passes, product

PRODUCTS = 30
"""Curvature products that conjugate gradients take on data like MovieLens and Amazon's; at most `max_iterations`."""


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


def select_work(selector: AnySelectorConfig, config: Config | None, loss: SurrogateConfig, scene: Scene) -> Work | None:
    """A choice by scores that are there already, by losses, or by gradients; None where examples are clustered."""
    if isinstance(selector, DEALRecConfig | RandomConfig):
        return passes(len(scene.split.train), 20)
    forward = None if config is None else _losses(config, loss, scene)
    if forward is None or not isinstance(selector, EL2NConfig | CCSConfig | GraNdConfig):
        return None
    return forward.differentiated() if isinstance(selector, GraNdConfig) else forward


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
    lengths = np.sort(_lengths(network, scene))
    positions, d = float(lengths.sum()), network.dim
    batch = max(1, loss.micro_batch_tokens // max(1, int(lengths.mean())))
    groups = np.split(lengths, range(batch, len(lengths), batch))
    forward = sum((network_work(network, group, False) for group in groups if len(group)), NOTHING)
    items = scene.split.n_items if loss.loss == "softmax" else 1 + loss.negatives
    return forward + product(positions, d, items) + passes(positions * items, 4) + passes(positions * d, 4)


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
