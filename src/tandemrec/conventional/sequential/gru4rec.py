"""GRU4Rec: a recurrent network over the history (Hidasi et al., ICLR 2016; Hidasi and Karatzoglou, CIKM 2018)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from tandemrec.conventional.sequential.model import SequenceModel
from tandemrec.conventional.sequential.module import SequenceConfig, SequenceModule
from tandemrec.data.examples import IntArray, Ragged


class GRU4RecConfig(SequenceConfig):
    """Defaults for histories of one user each, trained with cross-entropy over whole sequences.

    The papers train session-parallel batches of 100 units with sampled BPR-max; most re-implementations of that are
    much worse than its authors' own, and cross-entropy at every position is better than either.
    """

    model: Literal["gru4rec"] = "gru4rec"
    """Which model this is."""

    dropout: float = Field(0.1, ge=0, lt=1)
    """Of item vectors, between layers and of the states."""

    hidden: int = Field(128, ge=1)
    """Units of a layer."""

    layers: int = Field(1, ge=1)
    """Recurrent layers."""

    micro_batch_tokens: int = Field(32768, ge=1)
    """Positions that are run through the model at once; a recurrent network wants many rows a time step."""


class GRU4RecModule(SequenceModule):
    """Item vectors → GRU → a linear map back to D; scores by the item table itself ("constrained embedding").

    The GRU is torch's: eq. 2–5 of the 2016 paper, but the reset gate acts on U h rather than on h (as in cuDNN).
    """

    def __init__(self, config: GRU4RecConfig, n_items: int, seed: int) -> None:
        super().__init__()
        self.dropout = config.dropout
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.item = nn.Embedding(n_items, config.dim)
            between = config.dropout if config.layers > 1 else 0.0
            self.gru = nn.GRU(config.dim, config.hidden, config.layers, dropout=between)
            self.out = nn.Linear(config.hidden, config.dim)
            nn.init.normal_(self.item.weight, std=config.init_std)

    def forward(self, items_N: Tensor, rows_at_T: Tensor) -> Tensor:
        """States (N, D) of items that lie time step after time step, `rows_at_T[t]` of them at step t."""
        vectors = F.dropout(self.item(items_N), self.dropout, self.training)
        packed, _ = self.gru(PackedSequence(vectors, rows_at_T))
        out: Tensor = self.out(F.dropout(packed.data, self.dropout, self.training))
        return out

    def states(self, rows: Ragged, run: Callable[..., Tensor] | None = None) -> Tensor:
        """States (N, D): all rows advance together, one time step after another, and no pad is ever computed."""
        order, sizes = time_major(rows.lengths)
        items = torch.from_numpy(rows.flat()[order].astype(np.int64)).to(self.device)
        back = torch.from_numpy(np.argsort(order)).to(self.device)
        return (run or self)(items, torch.from_numpy(sizes))[back]


def time_major(lengths: IntArray) -> tuple[IntArray, IntArray]:
    """Order that lays entries by time step, longest row first in each, and how many rows every time step has."""
    place = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    by_length = np.empty(len(lengths), np.int64)
    by_length[np.argsort(-lengths, kind="stable")] = np.arange(len(lengths))
    return np.lexsort((np.repeat(by_length, lengths), place)), np.bincount(place)


class GRU4Rec(SequenceModel[GRU4RecConfig, GRU4RecModule]):
    """Scores items by the inner product of the state after a history with the item table."""

    config_class: ClassVar[type[GRU4RecConfig]] = GRU4RecConfig

    def make_module(self, n_items: int, seed: int) -> GRU4RecModule:
        """An untrained network."""
        return GRU4RecModule(self.config, n_items, seed)
