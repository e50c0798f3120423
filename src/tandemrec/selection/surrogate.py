"""`Surrogate`: a trained sequence model as a loss of every training sample, for influence, GraNd and EL2N.

S samples, N positions with a target, D vector size, I items, K negatives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from tandemrec.conventional.negatives import NegativeSampler
from tandemrec.conventional.sequential.batches import cut_by_tokens
from tandemrec.data.examples import Examples, IntArray, ItemArray, Ragged
from tandemrec.errors import InputError
from tandemrec.recommender import Config, Recommender

GROUP_LOGITS = 1 << 23
"""Full softmax holds about that many logits at once: 32 MB in float32."""


class SurrogateConfig(Config):
    """What a sample's loss is: the mean over its targets."""

    loss: Literal["bce", "softmax"] = "bce"
    """Binary with negatives that are drawn once and kept, so that gradients and curvature speak of the same function;
    or cross-entropy over the whole catalogue."""

    negatives: int = Field(1, ge=1)
    """Negatives of a target; their losses are averaged, so more of them come nearer to the expected loss."""

    positions: Literal["all", "last"] = "all"
    """Every item of a sample but its first is a target; or only the last one, the language model's. Models that read a
    sequence from both ends (BERT4Rec) need `last`."""

    own_target: bool = True
    """Whether the sample's own target is in its loss, as the paper's equations have it. In the published code it is
    not: there a sample with a history of fewer than two items has neither loss nor influence."""

    micro_batch_tokens: int = Field(4096, ge=1)
    """Positions that are run through the model at once: bounds memory and leaves the result alone."""


class SequenceNetwork(Protocol):
    """What a network of `conventional.sequential` offers; it is an `nn.Module` too."""

    def states(self, rows: Ragged) -> Tensor:
        """States (N, D) of all items, row after row; row b of a batch is row b of what modules inside see."""
        ...

    def last(self, rows: Ragged) -> Tensor:
        """States (B, D) that tell what follows each row."""
        ...

    def item_table(self) -> Tensor:
        """Vectors (I, D) that states are compared with."""
        ...

    def item_bias(self) -> Tensor | None:
        """What is added to every item's score (I,), if anything."""
        ...


@dataclass(frozen=True)
class Samples:
    """S samples as item sequences, with the negatives of their targets.

    Attributes:
        rows: items of every sample, oldest first; all but the first are targets (or only the last).
        counts: (S,) targets of each sample; 0 where there is nothing to predict.
        negatives: (all targets, K), sample after sample; None where none are used.
    """

    rows: Ragged
    counts: IntArray
    negatives: ItemArray | None

    def __len__(self) -> int:
        return len(self.counts)


@dataclass(frozen=True)
class Batch:
    """Some samples, ready for the network.

    Attributes:
        inputs: their items without the last; none is empty.
        items_NK: target (and negatives) of each position.
        owner_N: which of the batch's samples a position belongs to.
        weight_N: 1 / number of the owner's targets.
        samples: (B,) numbers of the samples.
    """

    inputs: Ragged
    items_NK: Tensor
    owner_N: Tensor
    weight_N: Tensor
    samples: Tensor


class Surrogate(nn.Module):
    """A sequence network in eval mode and its losses; the parameters may be replaced, see `scores`."""

    def __init__(self, network: nn.Module, max_length: int, config: SurrogateConfig) -> None:
        """Over a trained network that reads at most `max_length` items.

        Raises:
            InputError: if every position is to be a target, but the network's states have seen the items behind them.
        """
        super().__init__()
        self.network, self.max_length, self.config = network.eval(), max_length, config
        if config.positions == "all" and self._looks_ahead():
            name = type(network).__name__
            raise InputError(f"key 'loss.positions': {name} reads a sequence from both ends, expected 'last'")

    @classmethod
    def of(cls, model: Recommender, config: SurrogateConfig | None = None) -> Self:
        """Over a fitted sequence model.

        Raises:
            InputError: if it is no sequence model.
            RuntimeError: if it has not been fitted.
        """
        name, network = type(model).__name__, getattr(model, "module", None)
        if network is None and hasattr(model, "module"):
            raise RuntimeError(f"{name} must be fitted or loaded first")
        if not isinstance(network, nn.Module) or not hasattr(network, "states"):
            raise InputError(f"{name} cannot be a surrogate: it is no sequence model")
        max_length: int = model.config.max_length  # type: ignore[attr-defined]
        return cls(network, max_length, config or SurrogateConfig())

    @property
    def sequence_network(self) -> SequenceNetwork:
        """The network by its contract."""
        return cast(SequenceNetwork, self.network)

    @property
    def n_items(self) -> int:
        """Number of items I."""
        return len(self.sequence_network.item_table())

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.sequence_network.item_table().device

    @torch.no_grad()
    def _looks_ahead(self) -> bool:
        """Whether the first item's state changes with the second item."""
        if self.max_length < 2 or self.n_items < 2:
            return False
        network = self.sequence_network
        one, other = (network.states(Ragged.from_lists([[0, item]]))[0] for item in (0, 1))
        return not torch.allclose(one, other, rtol=1e-4, atol=1e-6)

    def samples(self, examples: Examples, seed: int = 0) -> Samples:
        """The examples as sequences; negatives are drawn from `seed`, none of them met by the sample."""
        own = self.config.own_target
        rows = joined(examples, self.max_length, own_target=own)
        if self.config.positions == "last":
            counts = (rows.lengths >= 2).astype(np.int64)
        else:
            counts = np.maximum(rows.lengths - 1, 0)
        negatives = None
        if self.config.loss == "bce":
            met = joined(examples, int(examples.history.lengths.max(initial=0)) + 1, own_target=True)
            owner = np.repeat(np.arange(len(rows)), counts * self.config.negatives)
            drawn = NegativeSampler(met, self.n_items).draw(owner, np.random.default_rng(seed))
            negatives = drawn.reshape(-1, self.config.negatives)
        return Samples(rows, counts, negatives)

    def groups(self, samples: Samples) -> list[IntArray]:
        """Numbers of all samples with targets, the shortest first, in groups of nearly equal length."""
        tokens = self.config.micro_batch_tokens
        if self.config.loss == "softmax":
            tokens = max(1, min(tokens, GROUP_LOGITS // self.n_items))
        inputs = np.maximum(samples.rows.lengths - 1, 0)
        order = np.argsort(inputs, kind="stable")
        order = order[samples.counts[order] > 0]
        return cut_by_tokens(order, inputs[order], tokens) if len(order) else []

    def batches(self, samples: Samples) -> Iterator[Batch]:
        """All samples with targets, group by group."""
        return (self.batch(samples, group) for group in self.groups(samples))

    def batch(self, samples: Samples, chosen: IntArray) -> Batch:
        """The samples of these numbers, each with a target."""
        rows, counts = samples.rows.take(chosen), samples.counts[chosen]
        targets = rows.tail(1) if self.config.positions == "last" else Ragged(rows.values, rows.starts + 1, rows.stops)
        items = targets.flat()[:, None]
        if samples.negatives is not None:
            stops = np.cumsum(samples.counts)[chosen]
            places = Ragged(samples.rows.values, stops - counts, stops).positions()
            items = np.concatenate([items, samples.negatives[places]], 1)
        inputs = Ragged(rows.values, rows.starts, rows.stops - 1)
        owner = np.repeat(np.arange(len(chosen)), counts)
        weight = (1.0 / counts)[owner]
        dtype = self.sequence_network.item_table().dtype
        return Batch(
            inputs,
            torch.from_numpy(items.astype(np.int64)).to(self.device),
            torch.from_numpy(owner).to(self.device),
            torch.from_numpy(weight).to(self.device, dtype),
            torch.from_numpy(chosen).to(self.device),
        )

    def forward(self, batch: Batch) -> Tensor:
        """Scores a loss looks at: (N, 1 + K) of target and negatives, or (N, I) of all items."""
        items_NK = batch.items_NK if self.config.loss == "bce" else None
        return item_scores(self.sequence_network, self.states(batch.inputs), items_NK)

    def states(self, inputs: Ragged) -> Tensor:
        """States (N, D) at the positions whose next item is a target."""
        network = self.sequence_network
        return network.last(inputs) if self.config.positions == "last" else network.states(inputs)

    def scores(self, batch: Batch, parameters: Mapping[str, Tensor]) -> Tensor:
        """`forward` with all parameters replaced (names as of the network)."""
        named = {f"network.{name}": tensor for name, tensor in parameters.items()}
        scores: Tensor = functional_call(self, named, (batch,))
        return scores

    def losses(self, scores: Tensor, batch: Batch) -> Tensor:
        """Loss of every position (N,)."""
        if self.config.loss == "softmax":
            return F.cross_entropy(scores, batch.items_NK[:, 0], reduction="none")
        return F.softplus(-scores[:, 0]) + F.softplus(scores[:, 1:]).mean(1)

    def curvature(self, scores: Tensor, direction: Tensor, batch: Batch) -> Tensor:
        """Second derivative of every position's loss by its scores, times a direction; all shapes (N, ·)."""
        if self.config.loss == "softmax":
            p = scores.softmax(1)
            return p * (direction - (p * direction).sum(1, keepdim=True))
        slope = scores.sigmoid() * (-scores).sigmoid()
        share = torch.full((scores.shape[1],), 1 / (scores.shape[1] - 1), dtype=scores.dtype, device=scores.device)
        share[0] = 1.0
        return slope * share * direction


def item_scores(network: SequenceNetwork, states_ND: Tensor, items_NK: Tensor | None) -> Tensor:
    """Scores (N, K) of given items, or (N, I) of all."""
    table_ID, bias_I = network.item_table(), network.item_bias()
    if items_NK is None:
        scores_NI = states_ND @ table_ID.T
        return scores_NI if bias_I is None else scores_NI + bias_I
    scores_NK = torch.einsum("nd,nkd->nk", states_ND, table_ID[items_NK])
    return scores_NK if bias_I is None else scores_NK + bias_I[items_NK]


def joined(examples: Examples, max_length: int, *, own_target: bool) -> Ragged:
    """History and (first) target of every example as one row of at most `max_length` + 1 items; without it if so."""
    if not own_target:
        return examples.history.tail(max_length + 1)
    history = examples.history.tail(max_length)
    first = np.minimum(examples.target.starts + 1, examples.target.stops)
    target = Ragged(examples.target.values, examples.target.starts, first)
    lengths = history.lengths + target.lengths
    stops = np.cumsum(lengths)
    values = np.empty(int(lengths.sum()), np.int32)
    at_end = np.zeros(len(values), np.bool_)
    at_end[stops[target.lengths > 0] - 1] = True
    values[at_end], values[~at_end] = target.flat(), history.flat()
    return Ragged.from_lengths(values, lengths)
