"""Sequence models that others are built around: which there are, and a network that hands everything on to one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from tandemrec.conventional.sequential.gru4rec import GRU4Rec, GRU4RecConfig
from tandemrec.conventional.sequential.module import SequenceModule
from tandemrec.conventional.sequential.sasrec import SASRec, SASRecConfig
from tandemrec.data.examples import Ragged

BackboneConfig = Annotated[SASRecConfig | GRU4RecConfig, Field(discriminator="model")]


def backbone_module(
    config: SASRecConfig | GRU4RecConfig, n_items: int, seed: int, device: torch.device | str | None
) -> SequenceModule:
    """Its untrained network."""
    maker = SASRec(config, device) if isinstance(config, SASRecConfig) else GRU4Rec(config, device)
    return maker.make_module(n_items, seed)


class AroundBackbone(SequenceModule):
    """A network whose states and item vectors are those of its backbone."""

    def __init__(self, backbone: SequenceModule) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, *inputs: Any) -> Tensor:
        """What the backbone makes of its inputs."""
        out: Tensor = self.backbone(*inputs)
        return out

    def states(self, rows: Ragged, run: Callable[..., Tensor] | None = None) -> Tensor:
        """States (N, D) of the backbone."""
        return self.backbone.states(rows, run or self)

    def item_table(self) -> Tensor:
        """The backbone's vectors (I, D)."""
        return self.backbone.item_table()
