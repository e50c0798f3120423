"""MixGCF: LightGCN against hard negatives mixed from many candidates, layer by layer (Huang et al., KDD 2021)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from tandemrec.conventional.direct.interactions import Pairs
from tandemrec.conventional.direct.lightgcn import GraphConfig, LightGCNModule
from tandemrec.conventional.direct.pairwise import PairBatch, PairwiseModel, bpr_loss


class MixGCFConfig(GraphConfig):
    """Defaults are the authors' for Yelp2018; recipe `ml-100k-direct` has tuned settings."""

    model: Literal["mixgcf"] = "mixgcf"
    """Which model this is."""

    candidates: int = Field(64, ge=1)
    """Uniform items the user has not met, from which one negative is mixed: the paper's M."""


class MixGCFModule(LightGCNModule):
    """LightGCN with synthetic negatives."""

    def __init__(self, config: MixGCFConfig, pairs: Pairs, device: torch.device, seed: int) -> None:
        super().__init__(config, pairs, device, seed)
        self.n_negatives = config.candidates

    def forward(self, batch: PairBatch) -> Tensor:
        """The loss of a batch: BPR against mixed negatives plus L2 of E⁰, theirs included, summed over the triples."""
        layers = self.layers()
        share_BL = torch.rand(len(batch), len(layers), device=self.table.device)
        negatives = self.mixed_negatives(layers, batch, share_BL)
        users = [layer.index_select(0, batch.user) for layer in layers]
        positives = [layer.index_select(0, batch.positive) for layer in layers]
        learned = users[0].square().sum() + positives[0].square().sum() + negatives[0].square().sum()
        count = len(layers)
        ranking = bpr_loss(sum(users) / count, sum(positives) / count, sum(negatives) / count)  # type: ignore[arg-type]
        return ranking + self.l2 / 2 * learned

    def mixed_negatives(self, layers: list[Tensor], batch: PairBatch, share_BL: Tensor) -> list[Tensor]:
        """The synthetic negative's vector at every layer, each (B, D).

        Positive mixing (eq. 5): candidate m becomes a·p + (1 − a)·n_m with one a ~ U(0, 1) a triple and layer. Hop
        mixing (eq. 6 and 7): at every layer the candidate with the largest inner product with the user's final vector
        is taken. As a is common to the candidates and 1 − a is not negative, mixing leaves their order alone: the
        unmixed ones are compared, and only the chosen one is mixed.
        """
        with torch.no_grad():
            user_BD = sum(layer.index_select(0, batch.user) for layer in layers) / len(layers)
        mixed = []
        for number, layer in enumerate(layers):
            with torch.no_grad():
                candidates_BKD = layer[batch.negative]
                best_B1 = torch.bmm(candidates_BKD, user_BD[:, :, None])[:, :, 0].argmax(1, keepdim=True)  # type: ignore[index]
                row_B = batch.negative.gather(1, best_B1)[:, 0]
            share_B1 = share_BL[:, number, None]
            positive = layer.index_select(0, batch.positive)
            mixed.append(share_B1 * positive + (1 - share_B1) * layer.index_select(0, row_B))
        return mixed


class MixGCF(PairwiseModel):
    """LightGCN trained by BPR with one synthetic negative a pair (eq. 8 with K = 1), pooled by the mean of the layers.

    Mixing draws one share a triple and layer, as the authors' code does; edge and message dropout are off, as in the
    authors' commands.
    """

    config_class = MixGCFConfig
    module_class = MixGCFModule
