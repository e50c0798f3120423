"""How much of what a teacher recommends its students recommend too, beside what their plain selves do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from tandemrec.data.examples import ItemArray
from tandemrec.experiment.recipe import Recipe
from tandemrec.experiment.stages import LISTS
from tandemrec.experiment.store import Artifact
from tandemrec.recommender import NO_ITEM

Roles = dict[str, Any]
"""`teacher` and `plain`, names of systems (`plain` may be None); `agreement` of the student and `plain_agreement`, the
shares of the teacher's first items that are in the list of the same question; in a run card also `used`."""


def agreements(recipe: Recipe, judged: Mapping[str, Artifact]) -> dict[str, Roles]:
    """The roles of every student of a run, and how far it agrees with its teacher.

    Args:
        recipe: the run's.
        judged: system → its evaluation; the lists are as long as the headline metric's K.
    """
    lists: dict[str, ItemArray] = {}

    def shared(teacher: str, other: str) -> float:
        for name in (teacher, other):
            if name not in lists:
                rows = pl.read_parquet(judged[name].path / LISTS)["items"]
                lists[name] = np.array(rows.to_list(), np.int32).reshape(len(rows), -1)
        return agreement(lists[teacher], lists[other])

    found: dict[str, Roles] = {}
    for student, roles in recipe.students().items():
        teacher, plain = roles["teacher"], roles["plain"]
        assert teacher is not None
        own, others = shared(teacher, student), shared(teacher, plain) if plain else None
        found[student] = {**roles, "agreement": own, "plain_agreement": others}
    return found


def agreement(teacher_BK: ItemArray, other_BK: ItemArray) -> float:
    """Share of the teacher's items that the other lists for the same question hold too; 0 where it lists none."""
    real_BK = teacher_BK != NO_ITEM
    held_BK = (teacher_BK[:, :, None] == other_BK[:, None]).any(2) & real_BK
    return float(held_BK.sum() / max(1, real_BK.sum()))


def over_trainings(runs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Students of runs that differ in their training seed only: roles, means of agreement, positions with a list.

    Args:
        runs: results and card of each.
    """
    rows = []
    for student, roles in runs[0][0].get("students", {}).items():
        every = [results["students"][student] for results, _ in runs if student in results.get("students", {})]
        means = {
            key: None if roles[key] is None else float(np.mean([one[key] for one in every]))
            for key in ("agreement", "plain_agreement")
        }
        used = [places for _, card in runs if (places := used_positions(card, student)) is not None]
        rows.append({"system": student, **roles, **means, "used": max(used, default=None)})
    return rows


def used_positions(card: Mapping[str, Any], student: str) -> int | None:
    """Positions that a student learns from and has a list for; None where no lists were used, or a choice was made."""
    notes: Mapping[str, Any] = card["models"].get(student, {}).get("notes", {})
    return notes.get("positions_with_a_list")
