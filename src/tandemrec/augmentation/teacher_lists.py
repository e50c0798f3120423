"""What a trained system recommends at positions of the training histories, with distances: material of distillation."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import torch
from pydantic import Field

from tandemrec.data.examples import Examples, IntArray, Ragged
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.recommender import NO_ITEM, Config, FloatArray, Recommender, Scorer, TextRecommender, score_blocks


class TeacherListsConfig(Config):
    """Where a teacher is asked, and how much it says."""

    items: int = Field(10, ge=1, le=1000)
    """Length K of a list."""

    positions: Literal["examples", "sequences"] = "examples"
    """`examples`: the training examples of the split, which may be a sub-sample. `sequences`: every position of the
    training histories, which a student learns from too."""

    latest: int | None = Field(None, ge=1)
    """Only the last positions of each history, this many; null: all. A student that learns from the last `max_length`
    positions alone has no use for lists at earlier ones."""

    sample: int | None = Field(None, ge=1)
    """Positions that are asked about, drawn at random; null: all of them."""

    exclude_seen: bool = True
    """Leave out what the user has met, as the student must when it recommends; the authors' code lists all items."""


def ask_teacher(
    teacher: Recommender, split: Split, config: TeacherListsConfig, *, seed: int, workspace: Path | None = None
) -> pl.DataFrame:
    """The teacher's lists; validation and test parts are not looked at.

    A distance is minus the teacher's score: the Euclidean one between written text and title where the teacher is
    BIGRec. One to the true next item is known of teachers that score every item.

    Args:
        teacher: a trained system.
        split: the data.
        config: what is asked.
        seed: of the drawn positions.
        workspace: keeps what a teacher that writes has written, so that a killed stage continues.

    Returns:
        One row a position, by place: `place` (of the true next item in `split.sequences.values`), `items` (list of K,
        -1 where there are fewer), `distances` (list of K, null there), `target_distance` (null where unknown).
    """
    asked = _positions(split, config, seed)
    if isinstance(teacher, TextRecommender):
        teacher.complete(asked, workspace=workspace)
    ranking = teacher.rank(asked, config.items, exclude_seen=config.exclude_seen)
    distances = np.where(ranking.items == NO_ITEM, np.nan, -ranking.scores).astype(np.float32)
    target = _target_distances(teacher, asked) if isinstance(teacher, Scorer) else None
    frame = pl.DataFrame(
        {
            "place": asked.target.starts,
            "items": ranking.items,
            "distances": distances,
            "target_distance": pl.Series(target, dtype=pl.Float32) if target is not None else None,
        },
        schema_overrides={"target_distance": pl.Float32},
    )
    lists = pl.col("items").arr.to_list(), pl.col("distances").arr.to_list().list.eval(pl.element().fill_nan(None))
    return frame.with_columns(*lists).sort("place")


def lists_summary(frame: pl.DataFrame, split: Split) -> dict[str, float | int]:
    """Number of lists, the share of training positions that have one, and how often a list holds the true next item."""
    target = pl.Series(split.sequences.values[frame["place"].to_numpy()])
    held = frame.select(pl.col("items").list.contains(target)).to_series()
    positions = int(np.maximum(split.sequences.lengths - 1, 0).sum())
    mean = held.cast(pl.Float64).mean()
    return {
        "lists": frame.height,
        "share_of_positions": frame.height / max(1, positions),
        "hit_share": float(mean) if isinstance(mean, float) else 0.0,
    }


def _positions(split: Split, config: TeacherListsConfig, seed: int) -> Examples:
    """The questions: one a position, with one target each, by place."""
    asked = split.train
    asked = asked.take(np.flatnonzero(asked.target.lengths > 0))
    # Of several targets the first one is the position's.
    first = Ragged(asked.target.values, asked.target.starts, asked.target.starts + 1)
    asked = Examples(asked.user, asked.history, first, asked.seen, asked.timestamp)
    if config.positions == "sequences":
        asked = _every_position(split)
    if config.latest is not None:
        stops = split.sequences.stops[asked.user]
        asked = asked.take(np.flatnonzero(asked.target.starts >= stops - config.latest))
    if config.sample is not None and config.sample < len(asked):
        rng = np.random.default_rng(seed)
        asked = asked.take(np.sort(rng.choice(len(asked), config.sample, replace=False)))
    if not len(asked):
        raise InputError(f"{split.dataset.name}: there is no training position that a teacher could be asked about")
    return asked.take(np.argsort(asked.target.starts, kind="stable"))


def _every_position(split: Split) -> Examples:
    """An example for every item of the training histories but the first of each."""
    rows = split.sequences
    later = Ragged(rows.values, np.minimum(rows.starts + 1, rows.stops), rows.stops)
    owner, place = later.rows(), later.positions()
    history = Ragged(rows.values, rows.starts[owner], place)
    row = place if split.order is None else split.order[place]
    times: IntArray = split.dataset.interactions["timestamp"].to_numpy()[row]
    return Examples(owner.astype(np.int32), history, Ragged(rows.values, place, place + 1), history, times)


def _target_distances(teacher: Scorer, asked: Examples) -> FloatArray:
    """Minus the scores of the true next items, (B,)."""
    found = []
    for block, scores in score_blocks(teacher, asked):
        target = torch.from_numpy(block.target.flat().astype(np.int64)).to(scores.device)
        found.append(-scores.gather(1, target[:, None])[:, 0].float().cpu())
    return torch.cat(found).numpy()
