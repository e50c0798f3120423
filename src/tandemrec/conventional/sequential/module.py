"""What every sequence model shares: the settings of its training and how its network reads rows of items."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from tandemrec.conventional.sequential.batches import length_groups
from tandemrec.data.examples import Ragged
from tandemrec.recommender import Config
from tandemrec.training import TrainingConfig


class SequenceConfig(Config):
    """The fields that mean the same in every sequence model."""

    loss: Literal["softmax", "sampled-softmax", "bce"] = "softmax"
    """Full cross-entropy; cross-entropy among `negatives` shared items; or binary, own negatives a position."""

    negatives: int = Field(1000, ge=1)
    """Negatives of sampled softmax, shared by the positions of a step."""

    bce_negatives: int = Field(1, ge=1)
    """Negatives of every target with loss bce, drawn from the items its user has not met."""

    max_length: int = Field(200, ge=1)
    """Most items of a history that are looked at."""

    chunks: bool = False
    """Learn from the older part of a sequence longer than `max_length` too, as further rows."""

    dim: int = Field(64, ge=1)
    """Size of item vectors D."""

    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of units that are dropped while training; each model says where."""

    init_std: float = Field(0.02, gt=0)
    """Standard deviation of the normal all matrices start from; biases start from 0."""

    batch_size: int = Field(128, ge=1)
    """Sequences of an optimiser step."""

    micro_batch_tokens: int = Field(4096, ge=1)
    """Positions that are run through the model at once: bounds memory and leaves the result alone."""

    training: TrainingConfig = TrainingConfig(epochs=200, clip_norm=None)
    """Length and speed of learning."""


class SequenceModule(nn.Module, ABC):
    """A network that gives a state (D,) to every item of a row, from that item and those before it.

    `forward` takes the rows as tensors: item numbers (B, T), aligned to the left, unless a network overrides `states`.
    """

    item: nn.Embedding

    def states(self, rows: Ragged, run: Callable[..., Tensor] | None = None) -> Tensor:
        """States (N, D) of all N items, row after row; no row is empty.

        Args:
            rows: histories, oldest item first.
            run: what calls `forward`; a task passes its own `run`, which goes through what several processes need.
        """
        return real_positions((run or self)(left_aligned(rows, self.device)), rows)

    def last(self, rows: Ragged) -> Tensor:
        """States (B, D) that tell what follows each row; no row is empty."""
        ends = torch.from_numpy(np.cumsum(rows.lengths) - 1)
        return self.states(rows)[ends.to(self.device)]

    def item_table(self) -> Tensor:
        """Vectors (I, D) that states are compared with."""
        return self.item.weight

    @property
    def state_size(self) -> int:
        """Size of a state."""
        return self.item_table().shape[1]

    def item_bias(self) -> Tensor | None:
        """What is added to every item's score (I,), where there is such a thing."""
        return None

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device


def init_normal(module: nn.Module, std: float, seed: int) -> None:
    """Matrices from N(0, std²) by `seed`, biases 0; layer norms and other vectors stay as they are."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.ndim >= 2:
            nn.init.normal_(parameter, std=std, generator=generator)
        elif "bias" in name.rpartition(".")[2]:
            nn.init.zeros_(parameter)


def last_states(module: SequenceModule, rows: Ragged, tokens: int) -> Tensor:
    """`module.last(rows)`, run by groups of nearly equal length of about `tokens` items each: little is padding."""
    groups = length_groups(rows.lengths, tokens)
    states = torch.cat([module.last(rows.take(group)) for group in groups])
    return states[torch.from_numpy(np.argsort(np.concatenate(groups))).to(module.device)]


def left_aligned(rows: Ragged, device: torch.device) -> Tensor:
    """Rows as a (B, T) tensor, T the longest; the pads on the right hold item 0, which nothing real may see."""
    width = int(rows.lengths.max())
    return torch.from_numpy(rows.padded(width, pad=0, side="right").astype(np.int64)).to(device)


def real_positions(states_BTD: Tensor, rows: Ragged) -> Tensor:
    """States (N, D) of the real items of left-aligned rows, row after row."""
    width = states_BTD.shape[1]
    flat = states_BTD.flatten(0, 1)
    lengths = rows.lengths
    if int(lengths.min()) == width:
        return flat
    gaps = np.repeat(np.arange(len(rows)) * width - (np.cumsum(lengths) - lengths), lengths)
    return flat.index_select(0, torch.from_numpy(gaps + np.arange(len(gaps))).to(flat.device))
