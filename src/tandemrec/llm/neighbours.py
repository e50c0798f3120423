"""The most similar user by a conventional model's vectors (Llama4Rec, eq. 4), and what is known of users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tandemrec.data.examples import IntArray, Ragged
from tandemrec.data.ratings import training_ratings
from tandemrec.data.split import Split
from tandemrec.errors import InputError

BLOCK = 1 << 24
"""Similarities held at once."""

NOBODY = -1


def nearest_users(vectors_UD: Tensor, known_U: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Argmax over v ≠ u of cos(e_u, e_v), (U,); −1 for users not in `known_U`, who are nobody's neighbours either.

    Vectors are scaled to length 1 once, and similarities exist for one block of users at a time. Of equally similar
    users the first is taken; a vector of zeros is similar to nobody.
    """
    vectors = vectors_UD.double()
    unit_UD = vectors / vectors.norm(dim=1, keepdim=True).clamp(min=torch.finfo(vectors.dtype).tiny)
    usable = torch.from_numpy(known_U).to(vectors.device) & (vectors != 0).any(1)
    found = torch.full((len(vectors),), NOBODY, dtype=torch.int32)
    rows = usable.nonzero()[:, 0]
    if len(rows) < 2:
        return found.numpy()
    others_ND = unit_UD[rows]
    size = max(1, BLOCK // len(rows))
    for start in range(0, len(rows), size):
        block_BN = others_ND[start : start + size] @ others_ND.T
        own = torch.arange(len(block_BN), device=vectors.device)
        block_BN[own, own + start] = -torch.inf
        found[rows[start : start + size].cpu()] = rows[block_BN.argmax(1)].int().cpu()
    return found.numpy()


@dataclass(frozen=True)
class KnownUsers:
    """What the training part knows of U users.

    Attributes:
        sequences: their items, oldest first.
        ratings: of every entry of `sequences.flat()`; None where the data have none.
        nearest: the most similar user of each, −1 where there is none; None where nobody was compared.
    """

    sequences: Ragged
    ratings: NDArray[np.float32] | None
    nearest: NDArray[np.int32] | None

    @classmethod
    def of(cls, split: Split, vectors_UD: Tensor | None = None) -> KnownUsers:
        """The users of a split; `vectors_UD` of a conventional model tell who is similar.

        Raises:
            InputError: if there is not one vector a user.
        """
        nearest = None
        if vectors_UD is not None:
            if len(vectors_UD) != len(split.sequences):
                raise InputError(f"found vectors of {len(vectors_UD):,} users, expected {len(split.sequences):,}")
            nearest = nearest_users(vectors_UD, split.user_counts > 0)
        rated = bool(split.dataset.interactions["rating"].is_not_null().all())
        return cls(split.sequences.compact(), training_ratings(split).value if rated else None, nearest)

    def items(self, user: int, most: int) -> tuple[list[int], list[float | None]]:
        """The latest training items of a user with their ratings."""
        if not 0 <= user < len(self.sequences):
            return [], []
        start, stop = int(self.sequences.starts[user]), int(self.sequences.stops[user])
        start = max(start, stop - most)
        items = self.sequences.values[start:stop].tolist()
        return items, [None] * len(items) if self.ratings is None else self.ratings[start:stop].tolist()

    def similar(self, user: int, most: int) -> tuple[list[int], list[float | None]]:
        """The latest training items, with ratings, of the most similar user."""
        if self.nearest is None or not 0 <= user < len(self.nearest):
            return [], []
        return self.items(int(self.nearest[user]), most)

    def ratings_of(self, user: int, items: Sequence[int]) -> list[float | None]:
        """The user's training ratings of items; None where there is none."""
        mine, values = self.items(user, len(self.sequences.values))
        known = dict(zip(mine, values, strict=True))
        return [known.get(item) for item in items]

    def tensors(self) -> dict[str, Tensor]:
        """For saving."""
        named = {"items": self.sequences.values, "lengths": self.sequences.lengths}
        named |= {} if self.ratings is None else {"ratings": self.ratings}
        named |= {} if self.nearest is None else {"nearest": self.nearest}
        return {name: torch.from_numpy(np.array(array)) for name, array in named.items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> KnownUsers:
        """What `tensors` gave."""
        lengths: IntArray = tensors["lengths"].numpy()
        ratings, nearest = (tensors[name].numpy() if name in tensors else None for name in ("ratings", "nearest"))
        return cls(Ragged.from_lengths(tensors["items"].numpy(), lengths), ratings, nearest)
