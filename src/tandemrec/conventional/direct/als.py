"""ALS: weighted matrix factorisation by alternating least squares (Hu, Koren and Volinsky, ICDM 2008).

The library `implicit` finds the factors; it is an extra: `pip install 'tandemrec[als]'`.
"""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field
from scipy import sparse
from torch import Tensor

from tandemrec.conventional.direct.interactions import binary_matrix
from tandemrec.conventional.storage import load_model, save_model
from tandemrec.data.examples import Examples, Ragged
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.recommender import Config, FitReport, Scorer

BLOCK_FLOATS = 1 << 22
"""Numbers that folding-in holds at once: 16 MB."""


class ALSConfig(Config):
    """Confidence is the paper's; smaller data want less of it and more λ: recipe `ml-100k-als` has tuned settings."""

    model: Literal["als"] = "als"
    """Which model this is."""

    dim: int = Field(64, ge=1)
    """Size of user and item vectors D."""

    l2: float = Field(0.01, ge=0)
    """λ, of the sum of all squared vectors."""

    alpha: float = Field(40.0, ge=0)
    """α of the confidence c = 1 + α in what a user met; c is 1 in what the user did not meet."""

    iterations: int = Field(15, ge=1)
    """Rounds of solving for all users, then for all items."""

    def check(self) -> None:
        """Raise InputError if the library is not installed."""
        if find_spec("implicit") is None:
            raise InputError(
                "model 'als' needs the library 'implicit', which is not installed: pip install 'tandemrec[als]'"
            )


class ALS(Scorer):
    """s(u, i) = x_u·y_i, argmin Σ_ui c_ui (p_ui − x_u·y_i)² + λ (Σ‖x_u‖² + Σ‖y_i‖²) over all pairs (eq. 3).

    A user's vector is solved for from the history at hand (eq. 4), so new users are answered too; items met before are
    told by `p_ui` = 1, however often. An empty history has the vector 0.
    """

    def __init__(self, config: ALSConfig | None = None) -> None:
        self.config = config or ALSConfig()

    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        """Factorise the training part.

        Raises:
            InputError: if `implicit` is not installed.
        """
        self.config.check()
        from implicit.cpu.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits

        started = time.monotonic()
        matrix = sparse.csr_matrix(binary_matrix(split.sequences, split.n_items))
        with threadpool_limits(1, "blas"):  # The library runs threads of its own; BLAS threads in each slow it down.
            model = AlternatingLeastSquares(
                factors=self.config.dim,
                regularization=self.config.l2,
                alpha=1 + self.config.alpha,
                iterations=self.config.iterations,
                random_state=seed,
            )
            model.fit(matrix, show_progress=False)
        self.item_vectors = torch.from_numpy(np.asarray(model.item_factors, np.float32))
        self.user_vectors = self.encode(split.sequences)
        return FitReport(seconds=time.monotonic() - started, epochs=self.config.iterations)

    def scores(self, examples: Examples) -> Tensor:
        """Scores (B, I)."""
        return self.encode(examples.history) @ self._fitted().T

    def encode(self, histories: Ragged) -> Tensor:
        """Vectors x = (YᵀY + α Σ y_i y_iᵀ + λI)⁻¹ (1 + α) Σ y_i over the items of each history, (B, D)."""
        table_ID = self._fitted()
        n_items, dim = table_ID.shape
        padded_table = torch.cat([table_ID, table_ID.new_zeros(1, dim)])
        base_DD = table_ID.T @ table_ID + self.config.l2 * torch.eye(dim)
        met = binary_matrix(histories, n_items)
        once = Ragged.from_lengths(met.indices, np.diff(met.indptr))
        order = np.argsort(once.lengths, kind="stable")
        order = order[once.lengths[order] > 0]
        vectors_BD = table_ID.new_zeros(len(histories), dim)
        sizes = once.lengths[order] * dim + dim * dim
        for rows in np.split(order, np.flatnonzero(np.diff(np.cumsum(sizes) // BLOCK_FLOATS)) + 1):
            block = once.take(rows)
            width = int(block.lengths.max(initial=0))
            items_BT = torch.from_numpy(block.padded(width, pad=n_items, side="right").astype(np.int64))
            items_BTD = padded_table[items_BT]
            gram_BDD = base_DD + self.config.alpha * (items_BTD.transpose(1, 2) @ items_BTD)
            wanted_BD = (1 + self.config.alpha) * items_BTD.sum(1)
            vectors_BD[torch.from_numpy(rows)] = torch.linalg.solve(gram_BDD, wanted_BD)
        return vectors_BD

    def save(self, directory: Path) -> None:
        """Config and both tables."""
        vectors = {"item_vectors": self._fitted()}
        if self.user_vectors is not None:
            vectors["user_vectors"] = self.user_vectors
        save_model(directory, self.config, vectors)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote; answering does not need `implicit`."""
        config, tensors = load_model(directory, ALSConfig)
        model = cls(config)
        model.item_vectors, model.user_vectors = tensors["item_vectors"], tensors.get("user_vectors")
        return model

    def _fitted(self) -> Tensor:
        if self.item_vectors is None:
            raise RuntimeError("ALS must be fitted or loaded first")
        return self.item_vectors
