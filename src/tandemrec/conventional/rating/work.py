"""What rating models take.

B ratings of a step, F fields, K ids looked up, D vector size, X = F · D, P pairs of fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import singledispatch
from itertools import pairwise

from tandemrec.conventional.rating.afm import AFMConfig
from tandemrec.conventional.rating.autoint import AutoIntConfig
from tandemrec.conventional.rating.biases import BiasesConfig
from tandemrec.conventional.rating.dcn import DCNConfig
from tandemrec.conventional.rating.deepfm import DeepFMConfig
from tandemrec.conventional.rating.fm import FMConfig
from tandemrec.conventional.rating.mf import BiasedMFConfig
from tandemrec.conventional.rating.nfm import NFMConfig
from tandemrec.conventional.rating.predictor import InteractionConfig
from tandemrec.conventional.rating.table import FeatureTable
from tandemrec.conventional.rating.xdeepfm import XDeepFMConfig
from tandemrec.data.examples import Examples
from tandemrec.training.work import training_work
from tandemrec.work import NOTHING, Scene, Work, answer_work, dropout, fit_work, passes, product


@fit_work.register
def _fit(config: InteractionConfig, scene: Scene) -> Work:
    split, table = scene.split, FeatureTable.of(scene.split, config.features)
    ratings = int(split.sequences.lengths.sum())
    size = min(config.batch_size, ratings)
    step = _looked_up(config, table, size) + interaction_work(config, size, table.fields, True)
    rows = float(table.rows) * (config.dim + 1)
    step = step.differentiated() + passes(rows, 1) + Work(calls=20)
    steps = -(-ratings // config.batch_size)
    epoch = replace((ratings / size) * step + Work(steps=steps), memory=step.bytes / 6)
    numbers = parameters(config, table)
    validation = _predicted(config, table, int(split.valid.target.lengths.sum()))
    return training_work(epoch, config.training, numbers, validation, examples=ratings)


@answer_work.register
def _answer(config: InteractionConfig, scene: Scene, examples: Examples) -> Work:
    table = FeatureTable.of(scene.split, config.features)
    return _predicted(config, table, int(examples.target.lengths.sum()))


def parameters(config: InteractionConfig, table: FeatureTable) -> float:
    """Trained numbers."""
    own = sum(parameter.numel() for parameter in config.interactions(table.fields).parameters())
    return float(table.rows) * (config.dim + 1) + own + 1


@singledispatch
def interaction_work(config: InteractionConfig, size: int, fields: int, training: bool) -> Work:
    """The model's own part for B rows, forward."""
    raise TypeError(f"no formula for {type(config).__name__}")


@interaction_work.register
def _fm(config: FMConfig, size: int, fields: int, training: bool) -> Work:
    return passes(size * fields * config.dim, 3)


@interaction_work.register
def _deepfm(config: DeepFMConfig, size: int, fields: int, training: bool) -> Work:
    width = fields * config.dim
    deep = _deep(size, width, config.layers, config.dropout * training)
    return passes(size * width, 3) + deep + product(size, config.layers[-1] if config.layers else width, 1)


@interaction_work.register
def _nfm(config: NFMConfig, size: int, fields: int, training: bool) -> Work:
    deep = _deep(size, config.dim, config.layers, config.dropout * training)
    last = config.layers[-1] if config.layers else config.dim
    return passes(size * fields * config.dim, 3) + deep + product(size, last, 1)


@interaction_work.register
def _dcn(config: DCNConfig, size: int, fields: int, training: bool) -> Work:
    width = fields * config.dim
    cross = passes(size * width, 3)
    if config.cross == "matrix":
        cross += product(size, width, width)
    deep = _deep(size, width, config.layers, config.dropout * training)
    last = config.layers[-1] if config.layers else 0
    return config.cross_layers * cross + deep + passes(size * (width + last), 1) + product(size, width + last, 1)


@interaction_work.register
def _afm(config: AFMConfig, size: int, fields: int, training: bool) -> Work:
    pairs = size * fields * (fields - 1) / 2
    products = product(pairs, config.dim, config.attention_dim) + product(pairs, config.attention_dim, 1)
    # Pairs are gathered, multiplied, mapped, weighted and summed in tensors of their own.
    traffic = passes(pairs * config.dim, 6) + passes(pairs * config.attention_dim, 4) + passes(pairs, 6)
    return products + traffic + replace(NOTHING, calls=3.0 * fields)


@interaction_work.register
def _autoint(config: AutoIntConfig, size: int, fields: int, training: bool) -> Work:
    width, d = fields * config.dim, config.dim
    layer = 4 * product(size * fields, d, d) + passes(size * width, 4)
    # Scores and mixtures are sums of products, each added to the last where it lies.
    layer += passes(size * fields * fields * d, 2)
    layer += passes(size * fields * fields * config.heads, 3)
    last = config.layers[-1] if config.layers else 0
    deep = _deep(size, width, config.layers, config.dropout * training)
    return config.attention_layers * layer + deep + product(size, width + last, 1) + passes(size * width, 4)


@interaction_work.register
def _xdeepfm(config: XDeepFMConfig, size: int, fields: int, training: bool) -> Work:
    columns, inputs, work, pooled = size * config.dim, fields, NOTHING, 0
    for place, width in enumerate(config.cin_layers):
        outer = passes(columns * inputs * fields, 1)
        work += product(columns, inputs * fields, width) + outer + passes(columns * width, 3)
        halved = config.split_half and place + 1 < len(config.cin_layers)
        inputs = width // 2 if halved else width
        pooled += width // 2 if halved else width
    deep = _deep(size, fields * config.dim, config.layers, config.dropout * training)
    last = config.layers[-1] if config.layers else 0
    return work + product(size, pooled, 1) + deep + product(size, last, 1)


def _deep(size: int, width: int, layers: Sequence[int], share: float) -> Work:
    maps = pairwise([width, *layers])
    return sum((product(size, a, b) + passes(size * b, 3) + dropout(size * b, share) * 0.25 for a, b in maps), NOTHING)


def _looked_up(config: InteractionConfig, table: FeatureTable, size: int) -> Work:
    """Rows of the table, their means over sets, and their penalty."""
    ids = table.fields - len(table.widths) + sum(table.widths)
    return passes(size * ids * (config.dim + 1), 3) + passes(size * table.fields * (config.dim + 1), 3)


def _predicted(config: InteractionConfig, table: FeatureTable, ratings: int) -> Work:
    return _looked_up(config, table, ratings) + interaction_work(config, ratings, table.fields, False)


@fit_work.register
def _fit_sweeps(config: BiasedMFConfig, scene: Scene) -> Work:
    """An outer product a rating and a system an entity, for users, then for items, in float64."""
    ratings, width = float(scene.split.sequences.lengths.sum()), config.dim + 1
    entities = float(scene.split.dataset.n_users + scene.split.n_items)
    sweep = 2 * passes(ratings * width * width, 3, 8) + Work(flops=entities * 2 * width**3, calls=40)
    stored = Work(memory=8 * (entities * width * width * 3 + 2**17 * width * width * 2))
    whole = (config.sweeps * sweep + stored).hosted()
    return replace(whole, epochs=config.sweeps, stops_early=config.sweeps > 3)


@answer_work.register
def _answer_factors(config: BiasedMFConfig, scene: Scene, examples: Examples) -> Work:
    return passes(float(examples.target.lengths.sum()) * (config.dim + 1), 3, 8).hosted()


@fit_work.register
def _fit_biases(config: BiasesConfig, scene: Scene) -> Work:
    return passes(float(scene.split.sequences.lengths.sum()), 50).hosted()


@answer_work.register
def _answer_biases(config: BiasesConfig, scene: Scene, examples: Examples) -> Work:
    return passes(float(examples.target.lengths.sum()), 3).hosted()
