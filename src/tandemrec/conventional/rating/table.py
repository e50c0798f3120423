"""Which rows of one fused embedding table a (user, item) pair needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tandemrec.conventional.rating.embedding import Members
from tandemrec.conventional.rating.features import FeaturesConfig, encode_fields
from tandemrec.data.examples import IntArray
from tandemrec.data.ratings import Pairs
from tandemrec.data.split import Split


@dataclass(frozen=True)
class FeatureTable:
    """Rows of the fused table for every user and item; row 0 pads sets and stays zero.

    The ids of a field are shifted by the sizes of the fields before it, so that one table serves all of them. Fields
    with one value come first, users' before items', then the sets in the same order.

    Attributes:
        user_single: (U + 1, fields of users with one value) rows; the last one is that of an unknown user.
        item_single: likewise (I + 1, …).
        user_sets: one (U + 1, M) a set, padded with 0.
        item_sets: likewise.
        unknown: rows that stand for unknown values, one a field.
        rows: height N of the fused table.
    """

    user_single: Tensor
    item_single: Tensor
    user_sets: tuple[Tensor, ...]
    item_sets: tuple[Tensor, ...]
    unknown: Tensor
    rows: int

    @classmethod
    def of(cls, split: Split, config: FeaturesConfig) -> Self:
        """Encode the users and items of a split; statistics come from its training rows."""
        single: dict[str, list[IntArray]] = {"users": [], "items": []}
        sets: dict[str, list[IntArray]] = {"users": [], "items": []}
        unknown, offset = [], 1
        for side, fields in encode_fields(split, config).items():
            for field in fields:
                rows = np.where(field.codes < 0, 0, field.codes + offset)
                (sets if field.is_set else single)[side].append(rows)
                unknown.append(offset)
                offset += field.size
        user, item = (torch.from_numpy(np.concatenate(single[side], 1)) for side in ("users", "items"))
        user_sets, item_sets = (tuple(map(torch.from_numpy, sets[side])) for side in ("users", "items"))
        return cls(user, item, user_sets, item_sets, torch.tensor(unknown), offset)

    @property
    def fields(self) -> int:
        """Number of fields F."""
        return self.user_single.shape[1] + self.item_single.shape[1] + len(self.user_sets) + len(self.item_sets)

    def places(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Rows of users and of items, (B,) each, with the last row for `NOBODY`."""
        return _places(pairs.user, self.user_single), _places(pairs.item, self.item_single)

    def counts(self, split: Split) -> Tensor:
        """Training rows of every row of the table, (N,)."""
        total = torch.zeros(self.rows, dtype=torch.float64)
        users, items = (torch.from_numpy(counts).double() for counts in (split.user_counts, split.item_counts))
        sides = (((self.user_single, *self.user_sets), users), ((self.item_single, *self.item_sets), items))
        for tables, counts in sides:
            for rows in tables:
                total.index_add_(0, rows[:-1].cpu().flatten(), counts.repeat_interleave(rows.shape[1]))
        return total

    @property
    def widths(self) -> tuple[int, ...]:
        """Places of every set."""
        return tuple(rows.shape[1] for rows in (*self.user_sets, *self.item_sets))

    def lookup(self, user_B: Tensor, item_B: Tensor) -> Members:
        """Fused rows of B pairs."""
        single = [self.user_single[user_B], self.item_single[item_B]]
        sets = [*(rows[user_B] for rows in self.user_sets), *(rows[item_B] for rows in self.item_sets)]
        counts = [(rows > 0).sum(1).clamp(min=1) for rows in sets]
        inverse_BG = 1 / torch.stack(counts, 1) if sets else torch.empty(len(user_B), 0, device=user_B.device)
        return Members(torch.cat([*single, *sets], 1), inverse_BG)

    def to(self, device: torch.device) -> FeatureTable:
        """The same on a device."""
        user_sets, item_sets = (tuple(x.to(device) for x in sets) for sets in (self.user_sets, self.item_sets))
        user, item = self.user_single.to(device), self.item_single.to(device)
        return FeatureTable(user, item, user_sets, item_sets, self.unknown, self.rows)

    def tensors(self) -> dict[str, Tensor]:
        """For saving."""
        named = {"user_single": self.user_single, "item_single": self.item_single, "unknown": self.unknown}
        named |= {f"user_set{place}": rows for place, rows in enumerate(self.user_sets)}
        return named | {f"item_set{place}": rows for place, rows in enumerate(self.item_sets)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], rows: int) -> Self:
        """What `tensors` gave."""

        def sets(prefix: str) -> tuple[Tensor, ...]:
            return tuple(tensors[f"{prefix}{n}"] for n in range(sum(name.startswith(prefix) for name in tensors)))

        single = tensors["user_single"], tensors["item_single"]
        return cls(*single, sets("user_set"), sets("item_set"), tensors["unknown"], rows)


def _places(ids: NDArray[np.int32], table: Tensor) -> Tensor:
    return torch.from_numpy(np.where(ids < 0, len(table) - 1, ids).astype(np.int64)).to(table.device)
