"""EASE: embarrassingly shallow autoencoders (Steck, WWW 2019), solved in closed form."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal, Self

import numpy as np
import scipy.linalg
import torch
from pydantic import Field
from torch import Tensor

from tandemrec.conventional.direct.interactions import binary_matrix
from tandemrec.conventional.storage import load_model, save_model
from tandemrec.data.examples import Examples
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.recommender import Config, FitReport, Scorer


class EASEConfig(Config):
    """One number to choose."""

    model: Literal["ease"] = "ease"
    """Which model this is."""

    l2: float = Field(300.0, gt=0)
    """λ: 100 to 1000 for data of MovieLens' size."""

    max_items: int = Field(30_000, ge=1)
    """Largest catalogue: the I × I matrix is solved in double precision, 8·I² bytes, 7 GB at 30,000."""


class EASE(Scorer):
    """S = X B with B = argmin ‖X − XB‖² + λ‖B‖², diag(B) = 0.

    Closed form (eq. 8 of the paper): P = (XᵀX + λI)⁻¹, B_ij = −P_ij / P_jj off the diagonal. X is binary.
    """

    def __init__(self, config: EASEConfig | None = None) -> None:
        self.config = config or EASEConfig()
        self.weights_II = torch.empty(0, 0)

    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        """Invert the Gram matrix by Cholesky, in float64 whatever X is.

        Raises:
            InputError: if the catalogue is larger than `max_items`.
        """
        if split.n_items > self.config.max_items:
            raise InputError(
                f"EASE needs a dense matrix of {split.n_items:,} × {split.n_items:,} items, more than max_items = "
                f"{self.config.max_items:,} allows; raise it or drop rare items"
            )
        started = time.monotonic()
        x = binary_matrix(split.sequences, split.n_items).astype(np.float64)
        gram = (x.T @ x).toarray()
        gram[np.diag_indices_from(gram)] += self.config.l2
        factor = scipy.linalg.cho_factor(gram, overwrite_a=True, check_finite=False)
        inverse = scipy.linalg.cho_solve(factor, np.eye(split.n_items), overwrite_b=True, check_finite=False)
        weights = inverse / -np.diag(inverse)
        np.fill_diagonal(weights, 0)
        self.weights_II = torch.from_numpy(weights.astype(np.float32))
        return FitReport(seconds=time.monotonic() - started)

    def scores(self, examples: Examples) -> Tensor:
        """X B for the histories of the examples, (B, I)."""
        rows = binary_matrix(examples.history, len(self.weights_II))
        return torch.from_numpy(rows @ self.weights_II.numpy())

    def save(self, directory: Path) -> None:
        """Config and B."""
        save_model(directory, self.config, {"weights": self.weights_II})

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote."""
        config, tensors = load_model(directory, EASEConfig)
        model = cls(config)
        model.weights_II = tensors["weights"]
        return model
