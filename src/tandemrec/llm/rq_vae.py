"""RQ-VAE: an autoencoder whose latent vector is a sum of codebook entries, level by level (Lee et al., CVPR 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from tandemrec.data.examples import IntArray
from tandemrec.llm.kmeans import nearest, residual_kmeans
from tandemrec.recommender import Config, FitReport
from tandemrec.training import Task, TrainingConfig, train

REVIVED = "revived_epoch"
"""What a checkpoint remembers: the last epoch whose dead codes were revived."""

START_ROUNDS = 20
"""Rounds of k-means that the codebooks start with."""


class RQVAEConfig(Config):
    """Defaults are smaller than TIGER's (layers 512, 256, 128; 20,000 epochs) and enough for a catalogue of 10,000."""

    method: Literal["rq-vae"] = "rq-vae"
    """Which quantiser this is."""

    levels: int = Field(3, ge=1, le=16)
    """Codebooks, which is digits of an id."""

    codes: int = Field(256, ge=2, le=65536)
    """Entries of a codebook."""

    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (256, 128)
    """Widths of the encoder's hidden layers; the decoder has them the other way round."""

    latent: int = Field(32, ge=1)
    """Width of the latent vector and of the codebooks."""

    commitment: float = Field(0.25, ge=0)
    """β: weight of the encoder's pull towards the entries, beside the entries' towards the encoder."""

    batch_size: int = Field(1024, ge=1)
    """Items of an optimiser step."""

    training: TrainingConfig = TrainingConfig(
        epochs=200, learning_rate=1e-3, weight_decay=1e-4, validate_every=20, patience=None
    )
    """Length and speed of learning."""


class RQVAE(nn.Module):
    """Encoder, L codebooks of K entries, decoder."""

    def __init__(self, config: RQVAEConfig, width: int) -> None:
        super().__init__()
        widths = [width, *config.hidden, config.latent]
        self.encoder, self.decoder = _layers(widths), _layers(widths[::-1])
        self.books_LKD = nn.Parameter(torch.zeros(config.levels, config.codes, config.latent))
        self.commitment = config.commitment

    def forward(self, x_BD: Tensor) -> Tensor:
        """Losses (B,): ‖x − x̂‖² + Σ_l (‖sg[r_l] − e_l‖² + β‖r_l − sg[e_l]‖²), with r_{l+1} = r_l − e_l.

        x̂ decodes Σ e_l, whose gradient is handed to the encoder as it is (straight through).
        """
        latent_BD = self.encoder(x_BD)
        residual_BD, total_BD = latent_BD, torch.zeros_like(latent_BD)
        loss_B = x_BD.new_zeros(len(x_BD))
        for book_KD in self.books_LKD:
            code_B, _ = nearest(residual_BD.detach(), book_KD.detach())
            entry_BD = book_KD[code_B]
            loss_B = loss_B + (residual_BD.detach() - entry_BD).square().sum(1)
            loss_B = loss_B + self.commitment * (residual_BD - entry_BD.detach()).square().sum(1)
            total_BD, residual_BD = total_BD + entry_BD, residual_BD - entry_BD
        passed_BD = latent_BD + (total_BD - latent_BD).detach()
        reconstruction_B: Tensor = (x_BD - self.decoder(passed_BD)).square().sum(1)
        return loss_B + reconstruction_B

    @torch.no_grad()
    def codes(self, x_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (N, L) and what is left of the latent vector before each level, (L, N, latent)."""
        residual_ND, codes, before = self.encoder(x_ND), [], []
        for book_KD in self.books_LKD:
            code_N, _ = nearest(residual_ND, book_KD)
            before.append(residual_ND)
            codes.append(code_N)
            residual_ND = residual_ND - book_KD[code_N]
        return torch.stack(codes, 1), torch.stack(before)

    @torch.no_grad()
    def decoded(self, codes_NL: Tensor) -> Tensor:
        """Vectors (N, D) that codes stand for."""
        out: Tensor = self.decoder(sum(book[code] for book, code in zip(self.books_LKD, codes_NL.T, strict=True)))
        return out


class _Learning(Task[IntArray]):
    """Codebooks start at k-means of the untrained encoder's residuals; before every epoch dead codes are revived."""

    def __init__(self, module: RQVAE, x_ND: Tensor, config: RQVAEConfig, seed: int) -> None:
        self.module: RQVAE = module
        self.x_ND, self.config, self.seed = x_ND, config, seed

    def begin_epoch(self, epoch: int, curve: Sequence[Mapping[str, float]], memory: dict[str, float]) -> None:
        if memory.get(REVIVED) == epoch:  # a killed run goes on in the middle of its epoch
            return
        memory[REVIVED] = float(epoch)
        rng = np.random.default_rng([self.seed, epoch, 1])
        if epoch == 0:
            with torch.no_grad():
                latent_ND = self.module.encoder(self.x_ND)
                books_LKD, _ = residual_kmeans(latent_ND, self.config.levels, self.config.codes, rng, START_ROUNDS)
                self.module.books_LKD.copy_(books_LKD)
        else:
            revive(self.module, self.x_ND, rng)

    def steps(self, epoch: int) -> Sequence[Sequence[IntArray]]:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.x_ND))
        size = self.config.batch_size
        return [[order[start : start + size]] for start in range(0, len(order), size)]

    def weight(self, batch: IntArray) -> float:
        return len(batch)

    def loss(self, batch: IntArray) -> Tensor:
        loss_B: Tensor = self.run(self.x_ND[torch.from_numpy(batch).to(self.x_ND.device)])
        return loss_B.sum()

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Minus the loss over the whole catalogue."""
        return {"fit": -float(self.module(self.x_ND).mean())}


@torch.no_grad()
def revive(module: RQVAE, x_ND: Tensor, rng: np.random.Generator) -> int:
    """Put every entry that no item uses where a random item's residual is; how many there were."""
    codes_NL, before_LND = module.codes(x_ND)
    revived = 0
    for book_KD, code_N, residual_ND in zip(module.books_LKD, codes_NL.T, before_LND, strict=True):
        dead = (torch.bincount(code_N, minlength=len(book_KD)) == 0).nonzero()[:, 0]
        drawn = rng.choice(len(x_ND), len(dead), replace=len(dead) > len(x_ND))
        book_KD[dead] = residual_ND[torch.from_numpy(drawn).to(residual_ND.device)]
        revived += len(dead)
    return revived


def fit_rq_vae(
    x_ND: Tensor, config: RQVAEConfig, *, seed: int, workspace: Path | None = None
) -> tuple[RQVAE, FitReport]:
    """An RQ-VAE of these vectors, and what training did."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = RQVAE(config, x_ND.shape[1])
    module = module.to(x_ND.device)
    task = _Learning(module, x_ND, config, seed)
    report = train(task, config.training, seed=seed, workspace=workspace, label="semantic ids")
    return module.eval(), report


def _layers(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
