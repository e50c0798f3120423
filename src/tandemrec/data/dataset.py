"""`Dataset`: encoded interactions with the texts of their items, immutable and fingerprinted."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tandemrec.errors import InputError

Clock = Literal["seconds", "milliseconds", "order", "none"]
"""What `timestamp` means: unix time, the place in the user's own order, or nothing (the order is arbitrary)."""


@dataclass(frozen=True)
class Dataset:
    """Interactions of users with items, ids encoded to 0…U-1 and 0…I-1.

    Attributes:
        interactions: user int32, item int32, rating float32 (null where unknown), timestamp int64, and `split` (string)
            where the source gives one; sorted by user, timestamp, file order.
        items: row i is item i: `item_id` (the original id as text), `title` (text, null where missing), attributes.
        users: row u is user u: `user_id`, attributes.
        clock: the meaning of `timestamp`.
        name: a short name for tables.
    """

    interactions: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame
    clock: Clock = "seconds"
    name: str = "data"

    @classmethod
    def from_frames(
        cls,
        interactions: pl.DataFrame,
        items: pl.DataFrame | None = None,
        users: pl.DataFrame | None = None,
        *,
        clock: Clock = "seconds",
        name: str = "data",
    ) -> Dataset:
        """Encode raw frames.

        Args:
            interactions: `user_id`, `item_id`, and optionally `rating`, `timestamp`, `split`, in file order.
            items: `item_id`, `title` and attributes. Items without a row here get a null title; rows whose item
                never occurs are kept (cleaning drops them). Of repeated ids the first row counts.
            users: `user_id` and attributes, likewise.
            clock: the meaning of `timestamp`; without that column it is `none` and the file order stands.
            name: a short name for tables.

        Raises:
            InputError: if an id column is missing or holds a null.
        """
        for column in ("user_id", "item_id"):
            if column not in interactions.columns:
                raise InputError(f"{name}: interactions need a column '{column}', found {interactions.columns}")
            if interactions[column].null_count():
                row = int(interactions[column].is_null().arg_max() or 0)
                raise InputError(f"{name}: interactions have no '{column}' in row {row + 1}")
        if "timestamp" not in interactions.columns:
            clock = "none"
        item_table = _entity_table(interactions["item_id"], items, "item_id")
        if "title" not in item_table.columns:
            item_table = item_table.with_columns(title=pl.lit(None, dtype=pl.String))
        user_table = _entity_table(interactions["user_id"], users, "user_id")
        encoded = interactions.select(
            user=_encode(interactions["user_id"], user_table["user_id"]),
            item=_encode(interactions["item_id"], item_table["item_id"]),
            rating=interactions["rating"].cast(pl.Float32)
            if "rating" in interactions.columns
            else _nulls(interactions),
            timestamp=interactions["timestamp"].cast(pl.Int64)
            if "timestamp" in interactions.columns
            else pl.Series("timestamp", np.zeros(interactions.height, np.int64)),
            **({"split": interactions["split"]} if "split" in interactions.columns else {}),
        ).sort("user", "timestamp", maintain_order=True)
        front = ["item_id", "title"]
        item_table = item_table.select(*front, pl.exclude(*front))
        return cls(encoded, item_table, user_table, clock, name)

    @property
    def n_users(self) -> int:
        """Number of users U."""
        return self.users.height

    @property
    def n_items(self) -> int:
        """Number of items I."""
        return self.items.height

    @cached_property
    def user_offsets(self) -> NDArray[np.int64]:
        """Rows of user u are `user_offsets[u]:user_offsets[u + 1]` of `interactions`; shape (U + 1,)."""
        counts = np.bincount(self.interactions["user"].to_numpy(), minlength=self.n_users)
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    @cached_property
    def titles(self) -> list[str]:
        """One title an item, shape (I,); an item without a title answers with its id."""
        return self.items.select(pl.coalesce("title", "item_id"))["title"].to_list()

    @cached_property
    def fingerprint(self) -> str:
        """Content hash: equal data give equal fingerprints on every machine."""
        digest = hashlib.sha256(f"{self.clock}".encode())
        for frame in (self.interactions, self.items, self.users):
            for column in frame.columns:
                digest.update(column.encode())
                series = frame[column]
                digest.update(series.is_null().to_numpy().tobytes())
                if series.dtype.is_numeric():
                    digest.update(series.fill_null(0).to_numpy().tobytes())
                else:
                    digest.update(json.dumps(series.to_list(), ensure_ascii=False, default=str).encode())
        return digest.hexdigest()

    def save(self, directory: Path) -> None:
        """Write three parquet files and `dataset.json` into `directory`."""
        directory.mkdir(parents=True, exist_ok=True)
        for part in ("interactions", "items", "users"):
            getattr(self, part).write_parquet(directory / f"{part}.parquet")
        meta = {"name": self.name, "clock": self.clock, "fingerprint": self.fingerprint}
        (directory / "dataset.json").write_text(json.dumps(meta, indent=1) + "\n")

    @classmethod
    def load(cls, directory: Path) -> Dataset:
        """Read what `save` wrote."""
        meta = json.loads((directory / "dataset.json").read_text())
        interactions, items, users = (
            pl.read_parquet(directory / f"{part}.parquet") for part in ("interactions", "items", "users")
        )
        return cls(interactions, items, users, clock=meta["clock"], name=meta["name"])


def _nulls(frame: pl.DataFrame) -> pl.Series:
    return pl.Series("rating", [None], dtype=pl.Float32).new_from_index(0, frame.height)


def _entity_table(occurring: pl.Series, table: pl.DataFrame | None, key: str) -> pl.DataFrame:
    """One row an entity, sorted by original id: numerically where every id is a plain integer, else as text."""
    ids = pl.DataFrame({key: occurring.unique().cast(pl.String)})
    if table is not None:
        table = table.with_columns(pl.col(key).cast(pl.String)).unique(key, keep="first", maintain_order=True)
        ids = pl.concat([ids, table.select(key)]).unique(key)
    numeric = ids[key].str.contains(r"^(0|[1-9][0-9]{0,17})$").all()
    ids = ids.sort(pl.col(key).cast(pl.Int64) if numeric else pl.col(key))
    return ids if table is None else ids.join(table, on=key, how="left", maintain_order="left")


def _encode(column: pl.Series, ids: pl.Series) -> pl.Series:
    codes = pl.DataFrame({"id": ids, "code": np.arange(len(ids), dtype=np.int32)})
    return (
        pl.DataFrame({"id": column.cast(pl.String)})
        .join(codes, on="id", how="left", maintain_order="left")["code"]
        .cast(pl.Int32)
    )
