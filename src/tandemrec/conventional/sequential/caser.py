"""Caser: convolutions over the last items of a history (Tang and Wang, WSDM 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from tandemrec.conventional.sequential.batches import SequenceBatch
from tandemrec.conventional.sequential.model import SequenceModel
from tandemrec.conventional.sequential.module import SequenceConfig, SequenceModule
from tandemrec.conventional.sequential.next_item import NextItem
from tandemrec.data.examples import Examples, IntArray, ItemArray, Ragged
from tandemrec.data.split import Split
from tandemrec.training import TrainingConfig


class CaserConfig(SequenceConfig):
    """The authors' setting. They draw steps of 512 windows; here a step has all windows of `batch_size` rows."""

    model: Literal["caser"] = "caser"
    """Which model this is."""

    loss: Literal["softmax", "sampled-softmax", "bce"] = "bce"
    """The paper's binary cross-entropy; cross-entropy over all items or among shared ones learns more."""

    bce_negatives: int = Field(3, ge=1)
    """Negatives of every target with loss bce."""

    window: int = Field(5, ge=1)
    """L: how many of the latest items are looked at."""

    targets: int = Field(3, ge=1)
    """T: how many of the items that follow a window are its targets."""

    heights: tuple[int, ...] | None = None
    """Heights of the horizontal filters; null: 1 to `window`."""

    horizontal: int = Field(16, ge=1)
    """n: horizontal filters of each height."""

    vertical: int = Field(4, ge=1)
    """ñ: vertical filters."""

    users: bool = True
    """Learn a vector for every user; somebody unknown gets their mean."""

    dim: int = Field(50, ge=1)
    """Size of item, user and window vectors D."""

    dropout: float = Field(0.5, ge=0, lt=1)
    """Of what the filters found."""

    max_length: int = Field(200, ge=1)
    """Most windows of a training row; the question looks at the last `window` items."""

    chunks: bool = True
    """Learn from all windows of a sequence longer than `max_length`."""

    training: TrainingConfig = TrainingConfig(epochs=100, weight_decay=1e-6, clip_norm=None)
    """Length and speed of learning."""

    @model_validator(mode="after")
    def _heights_fit(self) -> Self:
        if self.heights is not None and not all(1 <= height <= self.window for height in self.heights):
            raise ValueError(f"heights must be within 1 and window = {self.window}, found {list(self.heights)}")
        return self


class CaserModule(SequenceModule):
    """Horizontal and vertical filters over the last L item vectors (section 3.2) and two full layers (section 3.3).

    All windows of a row are computed at once: a filter runs over the row one time, and the maximum over time becomes a
    maximum that slides along.
    """

    def __init__(self, config: CaserConfig, n_items: int, n_users: int, seed: int) -> None:
        super().__init__()
        self.window, self.dim, self.dropout = config.window, config.dim, config.dropout
        heights = config.heights or tuple(range(1, config.window + 1))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.item = nn.Embedding(n_items, config.dim)
            self.horizontal = nn.ModuleList([nn.Conv1d(config.dim, config.horizontal, height) for height in heights])
            self.vertical = nn.Linear(config.window, config.vertical)
            self.full = nn.Linear(config.horizontal * len(heights) + config.vertical * config.dim, config.dim)
            self.score = nn.Embedding(n_items, (2 if config.users else 1) * config.dim)
            self.bias = nn.Parameter(torch.zeros(n_items))
            self.user = nn.Embedding(n_users, config.dim) if config.users else None
            for table in (self.item, self.score, self.user):
                if table is not None:
                    nn.init.normal_(table.weight, std=config.init_std)

    def forward(self, items_BT: Tensor) -> Tensor:
        """Z (B, T, D) of the window that ends at each position; before the first item lie zeros."""
        image_BSD = F.pad(self.item(items_BT), (0, 0, self.window - 1, 0))
        along_BDS = image_BSD.transpose(1, 2)
        found = []
        for filters in self.horizontal:
            response = F.relu(filters(along_BDS))
            width = response.shape[2] - items_BT.shape[1] + 1
            found.append(F.max_pool1d(response, width, stride=1).transpose(1, 2))
        weighted_BTDV = self.vertical(image_BSD.unfold(1, self.window, 1))
        found.append(weighted_BTDV.transpose(2, 3).flatten(2))
        seen = F.dropout(torch.cat(found, 2), self.dropout, self.training)
        return F.relu(self.full(seen))

    def last(self, rows: Ragged) -> Tensor:
        """Z (B, D) of the last window of each row."""
        return super().last(rows.tail(self.window))

    @property
    def state_size(self) -> int:
        """Size of z."""
        return self.dim

    def item_table(self) -> Tensor:
        """W′ (I, 2D), or (I, D) without user vectors."""
        return self.score.weight

    def item_bias(self) -> Tensor | None:
        """b′ (I,)."""
        return self.bias

    def with_users(self, state_BD: Tensor, user_B: Tensor) -> Tensor:
        """[z; p_u] (B, 2D), which W′ takes; z alone without user vectors. Unknown users have number −1."""
        if self.user is None:
            return state_BD
        table = self.user.weight
        known = (user_B >= 0) & (user_B < len(table))
        vector_BD = torch.where(known[:, None], table[user_B.where(known, 0)], table.mean(0))
        return torch.cat([state_BD, vector_BD], 1)


class Caser(SequenceModel[CaserConfig, CaserModule]):
    """Scores items by W′ [z; p_u] + b′ (section 3.3 of the paper); `user_vectors` are the p_u alone."""

    config_class: ClassVar[type[CaserConfig]] = CaserConfig

    def make_module(self, n_items: int, seed: int, n_users: int = 1) -> CaserModule:
        """An untrained network."""
        return CaserModule(self.config, n_items, n_users, seed)

    def module_for(self, split: Split, seed: int) -> CaserModule:
        """An untrained network for these data."""
        return self.make_module(split.n_items, seed, len(split.sequences))

    def module_like(self, tensors: dict[str, Tensor]) -> CaserModule:
        """A network that stored tensors fit into."""
        users = tensors.get("user.weight")
        return self.make_module(len(tensors["item.weight"]), 0, 1 if users is None else len(users))

    def make_task(self, module: CaserModule, split: Split, seed: int) -> NextItem:
        """Predicting the next T items of every window."""
        return NextItems(self, module, split, seed)

    def states(self, examples: Examples) -> Tensor:
        """[z; p_u] of every example; 0 where the history is empty."""
        z = super().states(examples)
        known = torch.from_numpy(examples.history.lengths > 0).to(self.device)
        user = torch.from_numpy(examples.user.astype(np.int64)).to(self.device)
        return self.fitted().with_users(z, user).detach() * known[:, None]

    def adopt(self, module: CaserModule) -> None:
        """Answer by this trained network, which may have vectors of users too."""
        super().adopt(module)
        if module.user is not None:
            self.user_vectors = module.user.weight.detach()


@dataclass(frozen=True)
class WindowBatch(SequenceBatch):
    """Rows whose every input position has the `ahead` items that follow it as targets, as far as there are that many.

    Targets lie row after row, position after position, the next item first.
    """

    ahead: int

    @property
    def n_targets(self) -> int:
        """Number of targets."""
        return int(targets_ahead(self.rows.lengths, self.ahead).sum())

    @property
    def places(self) -> tuple[IntArray, IntArray]:
        """For every target its input position, numbered through all rows, and how far ahead it lies (from 1)."""
        inputs = self.inputs
        after = np.repeat(np.cumsum(inputs.lengths), inputs.lengths) - np.arange(int(inputs.lengths.sum()))
        count = np.minimum(after, self.ahead)
        position = np.repeat(np.arange(len(count)), count)
        return position, np.arange(len(position)) - np.repeat(np.cumsum(count) - count, count) + 1

    @property
    def targets(self) -> ItemArray:
        """The items ahead."""
        position, distance = self.places
        targets: ItemArray = self.rows.values[self.inputs.positions()[position] + distance]
        return targets


class NextItems(NextItem):
    """Predict each of the T items after every window (section 3.4)."""

    def __init__(self, model: Caser, module: CaserModule, split: Split, seed: int) -> None:
        super().__init__(model, module, model.config, split, seed)
        self.network, self.ahead = module, model.config.targets

    def batch(self, rows: IntArray, negatives: ItemArray | None) -> WindowBatch:
        """The rows of those numbers."""
        return WindowBatch(self.rows.take(rows), self.owner[rows], negatives, self.ahead)

    def target_counts(self) -> IntArray:
        """Targets of every row."""
        return targets_ahead(self.rows.lengths, self.ahead)

    def loss(self, batch: SequenceBatch) -> Tensor:
        """Sum over targets."""
        assert isinstance(batch, WindowBatch)
        z = self.module.states(batch.inputs, self.run)
        user = self.on_device(np.repeat(batch.owner, batch.inputs.lengths))
        hidden = self.network.with_users(z, user)
        return self.item_loss(hidden[self.on_device(batch.places[0])], batch)


def targets_ahead(lengths: IntArray, ahead: int) -> IntArray:
    """Targets of rows of these lengths: Σ_{j=1}^{ahead} max(n − j, 0)."""
    reach = np.minimum(lengths - 1, ahead)
    counts: IntArray = reach * (lengths - 1) - reach * (reach - 1) // 2
    return counts
