"""How much of what a teacher recommends its students recommend too, beside what their plain selves do."""

from __future__ import annotations

from collections.abc import Mapping
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
shares of the teacher's first items that are in the list of the same question."""


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
