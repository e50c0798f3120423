"""What selections look like: tables for a report, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from tandemrec.data.examples import Examples, IntArray
from tandemrec.data.split import Split
from tandemrec.selection.coverage import group_budgets, score_groups
from tandemrec.selection.selector import FloatArray

POPULARITY_PARTS = 5
"""Parts of the catalogue by popularity, each with as many items."""


def score_table(split: Split, examples: Examples, scores: Mapping[str, FloatArray], chosen: IntArray) -> pl.DataFrame:
    """One row an example, for any trainer: example, user_id, items of history and target, every score, `chosen`.

    A scatter plot of influence against effort is two of its columns.
    """
    ids = split.dataset.items["item_id"]
    mark = np.zeros(len(examples), np.bool_)
    mark[chosen] = True
    return pl.DataFrame(
        {
            "example": np.arange(len(examples)),
            "user_id": split.dataset.users["user_id"].gather(examples.user),
            "history": _lists(ids, examples.history.flat(), examples.history.lengths),
            "target": _lists(ids, examples.target.flat(), examples.target.lengths),
            **scores,
            "chosen": mark,
        }
    )


def group_table(scores: FloatArray, n_groups: int, budget: int) -> list[dict[str, Any]]:
    """Score groups of a coverage sample that are not empty: range, size and budget."""
    groups = score_groups(scores, n_groups)
    sizes = np.bincount(groups, minlength=n_groups)
    budgets = group_budgets(sizes, budget)
    edges = np.linspace(scores.min(), scores.max(), n_groups + 1)
    return [
        {"low": edges[g], "high": edges[g + 1], "size": int(sizes[g]), "budget": int(budgets[g])}
        for g in np.flatnonzero(sizes).tolist()
    ]


def overlap_table(chosen: Mapping[str, IntArray]) -> list[dict[str, Any]]:
    """Share of each selector's samples (rows) that another one (columns) chose too."""
    return [
        {"selector": name, **{other: len(np.intersect1d(own, theirs)) / len(own) for other, theirs in chosen.items()}}
        for name, own in chosen.items()
    ]


def coverage_table(
    split: Split,
    examples: Examples,
    chosen: Mapping[str, IntArray],
    kinds: Sequence[frozenset[str]] | None = None,
) -> list[dict[str, Any]]:
    """What each selection reaches, and what all examples do (first row).

    Columns: `examples`, `users` and `items` (histories and targets) as shares of all that the examples have;
    `categories` likewise where the kinds of all items are known (`data.kinds`); `mean_history`; and
    `popular_1` … `popular_5`, the share of target items in each fifth of the catalogue, the most popular one first.
    """
    part_I = _popularity_parts(split.item_counts)
    everything = {"all": np.arange(len(examples)), **chosen}
    found = {name: _reached(examples.take(rows), kinds) for name, rows in everything.items()}
    table = []
    for name, rows in everything.items():
        targets = np.bincount(part_I[examples.target.take(rows).flat()], minlength=POPULARITY_PARTS)
        table.append(
            {
                "selector": name,
                "examples": len(rows),
                **{what: count / max(1, found["all"][what]) for what, count in found[name].items()},
                "mean_history": float(examples.history.lengths[rows].mean()),
                **{f"popular_{p + 1}": float(targets[p] / max(1, targets.sum())) for p in range(POPULARITY_PARTS)},
            }
        )
    return table


def _reached(examples: Examples, kinds: Sequence[frozenset[str]] | None) -> dict[str, int]:
    items = np.unique(np.concatenate([examples.history.flat(), examples.target.flat()]))
    reached = {"users": len(np.unique(examples.user)), "items": len(items)}
    if kinds is not None:
        reached["categories"] = len(frozenset().union(*(kinds[item] for item in items)))
    return reached


def _popularity_parts(counts_I: IntArray) -> IntArray:
    part = np.empty(len(counts_I), np.int64)
    part[np.argsort(-counts_I, kind="stable")] = np.arange(len(counts_I)) * POPULARITY_PARTS // len(counts_I)
    return part


def _lists(ids: pl.Series, items: np.ndarray[Any, Any], lengths: IntArray) -> pl.Series:
    """Original ids of the items as one list a row."""
    rows = pl.DataFrame({"row": np.arange(len(lengths))})
    flat = pl.DataFrame({"row": np.repeat(np.arange(len(lengths)), lengths), "id": ids.gather(items)})
    lists = flat.group_by("row", maintain_order=True).agg("id")
    return rows.join(lists, on="row", how="left", maintain_order="left")["id"].fill_null([])
