"""LightGCN: neighbourhood averages of learned vectors and nothing else (He et al., SIGIR 2020)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from tandemrec.conventional.direct.graph import Graph, propagate
from tandemrec.conventional.direct.interactions import Pairs
from tandemrec.conventional.direct.pairwise import PairwiseConfig, PairwiseModel, PairwiseModule


class GraphConfig(PairwiseConfig):
    """What the graph models choose alike."""

    layers: int = Field(3, ge=0)
    """Propagation layers L; with 0 LightGCN is MF."""


class LightGCNConfig(GraphConfig):
    """Defaults are the paper's; recipe `ml-100k-direct` has tuned settings, which need few epochs."""

    model: Literal["lightgcn"] = "lightgcn"
    """Which model this is."""

    init_std: float | None = Field(0.1, gt=0)
    """Standard deviation of the normal the vectors start from; null: Xavier's √(2 / (rows + D)), for each table."""


class LightGCNModule(PairwiseModule):
    """The learned vectors E⁰ and the graph they are propagated on."""

    def __init__(self, config: GraphConfig, pairs: Pairs, device: torch.device, seed: int) -> None:
        super().__init__(config, pairs, device, seed)
        self.graph = Graph(pairs, device)
        self.adjacencies = [self.graph.adjacency()] * config.layers

    def layers(self) -> list[Tensor]:
        """E⁰ … E^L, each (N, D)."""
        return propagate(self.table, self.adjacencies)

    def vectors(self) -> Tensor:
        """Mean over the layers (eq. 4 and 8 of the paper with α_l = 1 / (L + 1))."""
        return layer_mean(self.layers())


def layer_mean(layers: list[Tensor]) -> Tensor:
    """(E⁰ + … + E^L) / (L + 1); the only layer itself where there is one."""
    if len(layers) == 1:
        return layers[0]
    total = layers[0] + layers[1]
    for layer in layers[2:]:
        total = total + layer
    return total / len(layers)


class LightGCN(PairwiseModel):
    """E^(l+1) = D^(-1/2) A D^(-1/2) E^l (eq. 7), final vectors their mean (eq. 8), loss BPR + L2 of E⁰ (eq. 15).

    L2 is of the rows a step uses, half their squared norm. Every training pair is a positive once an epoch; the
    authors' code draws users uniformly instead, and then one of their items.
    """

    config_class = LightGCNConfig
    module_class = LightGCNModule
