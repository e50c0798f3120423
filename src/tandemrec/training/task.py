"""What the loop trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor, nn

BatchT = TypeVar("BatchT")


class Task(ABC, Generic[BatchT]):
    """Which batches an epoch has, what a batch costs and how good the model is; the loop does the rest.

    All randomness of `steps` must come from its arguments, so that resuming repeats it.

    Attributes:
        module: its trainable parameters are optimised; its trainable state is what checkpoints and `best` hold.
        prepared: what a distributed run puts around the module; None without one.
        may_shard: whether `loss` reaches the parameters through `run` alone, so that processes may each hold a part.
    """

    may_shard: ClassVar[bool] = False

    module: nn.Module
    prepared: nn.Module | None = None

    def run(self, *inputs: Any, **named: Any) -> Any:
        """Call the module through whatever is around it; `loss` does so, or several processes would drift apart."""
        return (self.module if self.prepared is None else self.prepared)(*inputs, **named)

    def begin_epoch(self, epoch: int, curve: Sequence[Mapping[str, float]], memory: dict[str, float]) -> None:
        """Called before an epoch's `steps`, after a resume too.

        Args:
            epoch: from 0.
            curve: the rows of all validated epochs so far.
            memory: starts empty; what is put here is in every checkpoint.
        """

    @abstractmethod
    def steps(self, epoch: int) -> Sequence[Sequence[BatchT]]:
        """Optimiser steps of an epoch (numbered from 0), each a list of micro-batches whose gradients add up."""

    @abstractmethod
    def weight(self, batch: BatchT) -> float:
        """How many terms (tokens, positions) the loss of this micro-batch sums over."""

    @abstractmethod
    def loss(self, batch: BatchT) -> Tensor:
        """Sum of the loss terms of a micro-batch; the loop divides by the weight of the whole step."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Validation figures with the module in eval mode; the first one is maximised."""
