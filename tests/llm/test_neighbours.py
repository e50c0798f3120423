"""The most similar user against a loop over pairs, and what is known of users."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.llm import neighbours
from tandemrec.llm.neighbours import KnownUsers, nearest_users


def slow(vectors: np.ndarray, known: np.ndarray) -> list[int]:
    found = []
    for u in range(len(vectors)):
        best, chosen = -np.inf, -1
        for v in range(len(vectors)):
            if u == v or not known[u] or not known[v] or not vectors[u].any() or not vectors[v].any():
                continue
            cosine = vectors[u] @ vectors[v] / np.linalg.norm(vectors[u]) / np.linalg.norm(vectors[v])
            if cosine > best:
                best, chosen = cosine, v
        found.append(chosen)
    return found


@pytest.mark.parametrize("block", [1, 1 << 24])
def test_nearest_by_cosine(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", block)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 5)) * rng.uniform(0.1, 9, (40, 1))
    vectors[7] = 0
    known = rng.random(40) < 0.8
    found = nearest_users(torch.from_numpy(vectors), known)
    assert found.tolist() == slow(vectors, known)
    assert found[7] == -1
    assert (found[known] != np.flatnonzero(known)).all()


def test_nobody_is_alone_with_somebody() -> None:
    assert nearest_users(torch.ones(3, 2), np.array([True, False, False])).tolist() == [-1, -1, -1]


def test_only_training_items_are_shown(split: Split) -> None:
    users = KnownUsers.of(split, torch.from_numpy(np.random.default_rng(1).normal(size=(60, 4))))
    assert users.nearest is not None
    again = KnownUsers.from_tensors(users.tensors())
    for user in (0, 17, 59):
        other = int(users.nearest[user])
        assert users.similar(user, 3) == (split.sequences[other][-3:].tolist(), [None] * 3)
        assert again.similar(user, 99)[0] == split.sequences[other].tolist()
    assert users.similar(-1, 3) == users.items(999, 3) == ([], [])
    assert KnownUsers.of(split).similar(0, 3) == ([], [])
    with pytest.raises(InputError, match="vectors of 3 users, expected 60"):
        KnownUsers.of(split, torch.ones(3, 2))
