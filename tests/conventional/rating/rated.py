"""Small rated data with every kind of attribute."""

from __future__ import annotations

import numpy as np
import polars as pl

from tandemrec.data.dataset import Dataset
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.split import Split, make_split

N_USERS, N_ITEMS = 40, 15


def small_dataset(seed: int = 0, changed: pl.DataFrame | None = None, **item_columns: object) -> Dataset:
    """Users and items with attributes; ratings follow user, item and genre. `changed` replaces the interactions."""
    rng = np.random.default_rng(seed)
    users = pl.DataFrame(
        {
            "user_id": range(N_USERS),
            "age": [None if u % 9 == 0 else 20 + u for u in range(N_USERS)],
            "zip_code": [f"{u % 3}0{u % 7}" for u in range(N_USERS)],
        }
    )
    items = pl.DataFrame(
        {
            "item_id": range(N_ITEMS),
            "title": [f"The {'Red' if i % 2 else 'Blue'} One {i}" for i in range(N_ITEMS)],
            "genres": [["A"], ["B", "A"], ["C"], [], ["B"]] * 3,
            "people": ["x, y", "y", None] * 5,
            **item_columns,
        }
    )
    return Dataset.from_frames(interactions(rng) if changed is None else changed, items, users, name="small")


def interactions(rng: np.random.Generator) -> pl.DataFrame:
    user = np.repeat(np.arange(N_USERS), 8)
    item = np.concatenate([rng.permutation(N_ITEMS)[:8] for _ in range(N_USERS)])
    rating = np.clip(np.round(2 + user % 3 + 0.5 * (item % 4) + rng.normal(0, 0.5, len(user))), 1, 5)
    columns = {"user_id": user, "item_id": item, "rating": rating.astype(np.float32), "timestamp": range(len(user))}
    return pl.DataFrame(columns)


def small_split(seed: int = 0, **item_columns: object) -> Split:
    return make_split(small_dataset(seed, **item_columns), LeaveOneOut())
