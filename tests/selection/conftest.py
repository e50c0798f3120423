"""A small trained-looking SASRec in float64, and samples with every awkward length."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tandemrec.conventional.sequential.sasrec import SASRecConfig, SASRecModule
from tandemrec.data.examples import Examples, Ragged

N_ITEMS, LONGEST = 30, 6


@pytest.fixture
def network() -> SASRecModule:
    config = SASRecConfig(dim=4, heads=2, blocks=2, max_length=LONGEST, dropout=0.5, init_std=0.4)
    return SASRecModule(config, N_ITEMS, seed=5).double()


def random_examples(n: int, seed: int = 0) -> Examples:
    """Histories of 0 to 9 items (longer than the network reads), each with one target."""
    rng = np.random.default_rng(seed)
    histories = [rng.integers(N_ITEMS, size=size).tolist() for size in rng.permutation(n) % 10]
    history = Ragged.from_lists(histories)
    target = Ragged.from_lists(rng.integers(N_ITEMS, size=(n, 1)).tolist())
    return Examples(np.arange(n, dtype=np.int32), history, target, history, np.zeros(n, np.int64))


@pytest.fixture
def examples() -> Examples:
    return random_examples(8, seed=1)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
