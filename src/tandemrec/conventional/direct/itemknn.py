"""ItemKNN: items that were met together, optionally weighted by how recent the history's items are."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field
from scipy import sparse
from torch import Tensor

from tandemrec.conventional.direct.interactions import binary_matrix, decayed_matrix
from tandemrec.conventional.storage import load_model, save_model
from tandemrec.data.examples import Examples
from tandemrec.data.split import Split
from tandemrec.recommender import Config, FitReport, Scorer

BLOCK = 1024
"""Items whose similarities are formed at once."""


class ItemKNNConfig(Config):
    """Defaults are the classic method; `decay` .7 makes it a strong sequential baseline without any training."""

    model: Literal["itemknn"] = "itemknn"
    """Which model this is."""

    shrink: float = Field(10.0, ge=0)
    """Added to the denominator of the cosine: pulls similarities of rare items to 0."""

    neighbours: int | None = Field(None, ge=1)
    """Most similar items kept for every item; null keeps all."""

    decay: float = Field(1.0, gt=0, le=1)
    """Weight of a history item is decay^age, the latest having age 0; 1 forgets the order."""


class ItemKNN(Scorer):
    """s(u, i) = Σ_{j in history} decay^{age(j)} · sim(j, i), sim(j, i) = c_ji / (√c_j √c_i + shrink), sim(i, i) = 0.

    c_ji is the number of training users who met both, c_j who met j.
    """

    def __init__(self, config: ItemKNNConfig | None = None) -> None:
        self.config = config or ItemKNNConfig()
        self.similarity: sparse.csr_array = sparse.csr_array((0, 0), dtype=np.float32)

    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        """Count co-occurrences and keep the neighbours."""
        started = time.monotonic()
        x = binary_matrix(split.sequences, split.n_items)
        norm_I = np.sqrt(np.asarray(x.sum(0), np.float64))
        by_item = x.T.tocsr()
        blocks = [
            self._neighbours(by_item[start : start + BLOCK] @ x, norm_I, start)
            for start in range(0, split.n_items, BLOCK)
        ]
        self.similarity = sparse.csr_array(sparse.vstack(blocks, format="csr", dtype=np.float32))
        return FitReport(seconds=time.monotonic() - started)

    def _neighbours(self, together: sparse.csr_array, norm_I: np.ndarray, first: int) -> sparse.csr_array:
        """Similarities of a block of items, the diagonal removed and each row cut to its largest entries."""
        pairs = together.tocoo()
        rows, columns = pairs.coords
        value = pairs.data / (norm_I[rows + first] * norm_I[columns] + self.config.shrink)
        kept = columns != rows + first
        rows, columns, value = rows[kept], columns[kept], value[kept]
        if self.config.neighbours is not None:
            order = np.lexsort((columns, -value, rows))
            rows, columns, value = rows[order], columns[order], value[order]
            start = np.searchsorted(rows, rows, "left")
            near = np.arange(len(rows)) - start < self.config.neighbours
            rows, columns, value = rows[near], columns[near], value[near]
        return sparse.csr_array((value.astype(np.float32), (rows, columns)), shape=together.shape)

    def scores(self, examples: Examples) -> Tensor:
        """Weighted sums of similarities, (B, I)."""
        weights = decayed_matrix(examples.history, self.similarity.shape[0], self.config.decay)
        return torch.from_numpy((weights @ self.similarity).toarray())

    def save(self, directory: Path) -> None:
        """Config and the similarity matrix in its three arrays."""
        s = self.similarity
        arrays = {"data": s.data, "indices": s.indices.astype(np.int32), "indptr": s.indptr.astype(np.int64)}
        save_model(directory, self.config, {name: torch.from_numpy(array) for name, array in arrays.items()})

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote."""
        config, tensors = load_model(directory, ItemKNNConfig)
        model = cls(config)
        n_items = len(tensors["indptr"]) - 1
        data, indices, indptr = (tensors[name].numpy() for name in ("data", "indices", "indptr"))
        model.similarity = sparse.csr_array((data, indices, indptr), shape=(n_items, n_items))
        return model
