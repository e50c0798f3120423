"""SGL: self-supervised graph learning (Wu et al., SIGIR 2021): LightGCN that recognises vertices across two views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from tandemrec.conventional.direct.graph import Augmentation, propagate
from tandemrec.conventional.direct.interactions import Pairs
from tandemrec.conventional.direct.lightgcn import GraphConfig, LightGCNModule, layer_mean
from tandemrec.conventional.direct.pairwise import PairBatch, PairwiseModel
from tandemrec.conventional.sequential.losses import softmax_loss
from tandemrec.training import TrainingConfig


class SGLConfig(GraphConfig):
    """Defaults are the authors' for Yelp2018 (SGL-ED); recipe `ml-100k-direct` has tuned settings."""

    model: Literal["sgl"] = "sgl"
    """Which model this is."""

    augmentation: Augmentation = "edge"
    """Views by edge dropout, node dropout, or random walk, which is edge dropout drawn anew for every layer."""

    drop: float = Field(0.1, ge=0, lt=1)
    """Share of edges or vertices that a view lacks: the paper's ρ."""

    contrast: float = Field(0.1, ge=0)
    """Weight of the contrastive loss: λ₁ of eq. 11, for losses that are sums, as in the authors' code."""

    temperature: float = Field(0.2, gt=0)
    """τ of the contrastive loss."""

    training: TrainingConfig = TrainingConfig(epochs=100, clip_norm=None)
    """Length and speed of learning."""


class SGLModule(LightGCNModule):
    """LightGCN with the contrastive loss between two views."""

    def __init__(self, config: SGLConfig, pairs: Pairs, device: torch.device, seed: int) -> None:
        super().__init__(config, pairs, device, seed)
        self.config = config

    def views(self, rng: np.random.Generator) -> tuple[Sequence[Tensor], ...]:
        """Two views, drawn for an epoch."""
        config = self.config
        return tuple(self.graph.view(config.augmentation, config.drop, config.layers, rng) for _ in range(2))

    def forward(self, batch: PairBatch) -> Tensor:
        """The loss of a batch: LightGCN's on the whole graph plus the weighted contrastive loss between the views."""
        loss = super().forward(batch)
        if not self.config.contrast:
            return loss
        first, second = (F.normalize(layer_mean(propagate(self.table, view))) for view in batch.views)
        return loss + self.config.contrast * self.contrast(first, second, batch)

    def contrast(self, first_ND: Tensor, second_ND: Tensor, batch: PairBatch) -> Tensor:
        """InfoNCE (eq. 10 for users and the same for items), summed over the different users and items of a step.

        A vertex of the first view must be closest to itself among all users (items) of the second. Vectors are of
        length 1, so inner products are cosines.
        """
        parts = []
        for rows, start, stop in (
            (batch.user, 0, self.n_users),
            (batch.positive, self.n_users, len(self.table)),
        ):
            anchors = torch.unique(rows)
            query = first_ND.index_select(0, anchors) / self.config.temperature
            parts.append(softmax_loss(query, second_ND[start:stop], anchors - start))
        return parts[0] + parts[1]


class SGL(PairwiseModel):
    """LightGCN with L = L_BPR + λ₁·L_ssl + λ₂·‖E⁰‖² (eq. 11); prediction uses the whole graph.

    Views are drawn once an epoch; an edge is kept or dropped with both of its directions, and a view is normalised by
    its own degrees.
    """

    config_class = SGLConfig
    module_class = SGLModule
