"""DROS: distributionally robust optimisation for sequential recommendation (Yang et al., SIGIR 2023)."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from tandemrec.conventional.sequential.backbone import AroundBackbone, BackboneConfig, backbone_module
from tandemrec.conventional.sequential.batches import SequenceBatch
from tandemrec.conventional.sequential.losses import RowLoss, catalogue_loss, with_bias
from tandemrec.conventional.sequential.model import SequenceModel
from tandemrec.conventional.sequential.module import SequenceConfig, SequenceModule
from tandemrec.conventional.sequential.next_item import NextItem
from tandemrec.conventional.sequential.sasrec import SASRecConfig
from tandemrec.data.examples import Ragged
from tandemrec.data.split import Split
from tandemrec.recommender import Config
from tandemrec.training import TrainingConfig

AUTHORS_BACKBONE = SASRecConfig(
    loss="bce",
    blocks=1,
    max_length=10,
    scale_embedding=False,
    init_std=0.01,
    batch_size=256,
    training=TrainingConfig(epochs=200, weight_decay=1e-6, clip_norm=None),
)


class DROSConfig(Config):
    """The backbone with its loss and training, and what the robust term adds. Defaults are the authors' setting."""

    model: Literal["dros"] = "dros"
    """Which model this is."""

    backbone: BackboneConfig = AUTHORS_BACKBONE
    """The network, its own loss and its training. The default learns from histories of ten items with one negative; a
    backbone that is given has the defaults of its model instead."""

    alpha: float = Field(0.5, ge=0)
    """Weight of the robust term; 0 leaves the backbone's loss alone. Published searches are within .1 to 1."""

    beta: float = Field(1.0, gt=0)
    """Robustness radius: the smaller, the more the worst-scored items count."""

    propensity_power: float = Field(0.05, ge=0)
    """Power of an item's share of the training targets; near 0 nearly all items count alike."""

    head: Literal["linear", "tied"] = "linear"
    """`linear`: item scores come from a layer of their own, as in the authors' code; `tied`: from the item table."""


class DROSModule(AroundBackbone):
    """A backbone and, unless it is tied, a linear layer that scores the items."""

    def __init__(self, backbone: SequenceModule, head: nn.Linear | None) -> None:
        super().__init__(backbone)
        self.head = head

    def item_table(self) -> Tensor:
        """The head's weights, or the backbone's table (I, D)."""
        return super().item_table() if self.head is None else self.head.weight

    def item_bias(self) -> Tensor | None:
        """The head's bias (I,)."""
        return None if self.head is None else self.head.bias


class DROS(SequenceModel[DROSConfig, DROSModule]):
    """SASRec or GRU4Rec, trained against the worst distribution of items near the nominal one.

    The authors train on single windows; here every position of a row is one, so a row is as long as their window and
    `backbone.chunks` adds the older ones.
    """

    config_class: ClassVar[type[DROSConfig]] = DROSConfig

    @property
    def settings(self) -> SequenceConfig:
        """The backbone's."""
        return self.config.backbone

    def make_module(self, n_items: int, seed: int) -> DROSModule:
        """An untrained backbone and head."""
        settings = self.config.backbone
        head = None
        if self.config.head == "linear":
            head = nn.Linear(settings.dim, n_items)
            nn.init.normal_(head.weight, std=settings.init_std, generator=torch.Generator().manual_seed(seed + 1))
            nn.init.zeros_(head.bias)
        return DROSModule(backbone_module(settings, n_items, seed, self.device), head)

    def module_like(self, tensors: dict[str, Tensor]) -> DROSModule:
        """A network that stored tensors fit into."""
        return self.make_module(len(tensors["backbone.item.weight"]), 0)

    def make_task(self, module: DROSModule, split: Split, seed: int) -> NextItem:
        """The backbone's loss and the robust term."""
        return RobustNextItem(self, module, split, seed)


class RobustNextItem(NextItem):
    """L = L_backbone + α · mean over positions of log Σ_i exp(p_i (ŷ_i − y_i)² / β).

    y is 1 at the target and 0 elsewhere, p_i = (n_i / Σ n_j)^.05 with n_i one more than the item's count as a target;
    the p do not sum to one, as in the authors' code.

    Attributes:
        propensity_I: p/β.
    """

    def __init__(self, model: DROS, module: DROSModule, split: Split, seed: int) -> None:
        super().__init__(model, module, model.settings, split, seed)
        self.alpha = model.config.alpha
        targets = Ragged(self.rows.values, self.rows.starts + 1, self.rows.stops).flat()
        count = np.bincount(targets, minlength=split.n_items) + 1.0
        propensity = (count / count.sum()) ** model.config.propensity_power / model.config.beta
        self.propensity_I = torch.from_numpy(propensity.astype(np.float32)).to(module.device)
        self.row_loss = robust_loss(self.propensity_I)

    def item_loss(self, hidden_ND: Tensor, batch: SequenceBatch) -> Tensor:
        """Sum over targets."""
        loss = super().item_loss(hidden_ND, batch)
        if self.alpha == 0:
            return loss
        hidden, table = with_bias(hidden_ND, self.module.item_table(), self.module.item_bias())
        return loss + self.alpha * catalogue_loss(hidden, table, self.on_device(batch.targets), self.row_loss)


def robust_loss(weight_I: Tensor) -> RowLoss:
    """Log Σ_i exp(w_i (ŷ_i − y_i)²) of every position, summed, and its gradient softmax(w r²) · 2 w r, r = ŷ − y.

    A log-sum-exp instead of the authors' exp − exp + exp, which overflows for scores of ten.
    """

    def row_loss(logits_nI: Tensor, target_n: Tensor) -> tuple[Tensor, Tensor]:
        target = target_n[:, None]
        residual = logits_nI.scatter_add_(1, target, logits_nI.new_full(target.shape, -1.0))
        weighted = weight_I * residual
        exponent = weighted * residual
        total = exponent.logsumexp(1, keepdim=True)
        return total.sum(), exponent.sub_(total).exp_().mul_(weighted).mul_(2)

    return row_loss
