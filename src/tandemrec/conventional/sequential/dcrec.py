"""DCRec: a transformer and two item graphs, contrasted with weights that tell conformity (Yang et al., WWW 2023)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from scipy import sparse
from torch import Tensor, nn

from tandemrec.conventional.sequential.batches import SequenceBatch, concatenated, length_groups
from tandemrec.conventional.sequential.encoder import BidirectionalEncoder
from tandemrec.conventional.sequential.item_graphs import ItemGraph, adjacency, own_entries, similarity
from tandemrec.conventional.sequential.model import SequenceModel
from tandemrec.conventional.sequential.module import SequenceConfig, SequenceModule, init_normal, left_aligned
from tandemrec.conventional.sequential.next_item import NextItem
from tandemrec.data.examples import IntArray, ItemArray, Ragged
from tandemrec.data.split import Split
from tandemrec.training import TrainingConfig


class DCRecConfig(SequenceConfig):
    """The authors' setting for sparse data (Beauty, Sports)."""

    model: Literal["dcrec"] = "dcrec"
    """Which model this is."""

    layers: int = Field(2, ge=1)
    """Transformer layers."""

    heads: int = Field(2, ge=1)
    """Attention heads; they divide `dim`."""

    dropout: float = Field(0.5, ge=0, lt=1)
    """Of embeddings, attention weights, the outcome of every sublayer, and item vectors before the graphs."""

    edge_dropout: float = Field(0.3, ge=0, lt=1)
    """Share of the edges of a graph that are dropped in a step."""

    hops: int = Field(2, ge=1)
    """Graph layers, whose mean (with the item vectors themselves) is taken."""

    neighbours: int = Field(4, ge=1)
    """Items that each item is joined with in the graph of similar users."""

    contrast: float = Field(0.1, ge=0)
    """Weight of the contrastive loss."""

    temperature: float = Field(0.8, gt=0)
    """τ: cosines of views are divided by it."""

    divergence: float = Field(0.01, ge=0)
    """Weight of the divergence between the batch's conformity weights and a normal distribution."""

    weight_mean: float = Field(0.4, gt=0, lt=1)
    """Mean of the conformity weights of a batch."""

    max_length: int = Field(50, ge=1)
    """Most items of a history that are looked at."""

    batch_size: int = Field(512, ge=1)
    """Training prefixes of an optimiser step, whose views are told apart; a step is one micro-batch."""

    micro_batch_tokens: int = Field(1024, ge=1)
    """Positions that are run through the transformer at once; the prefixes of a step are grouped by length."""

    training: TrainingConfig = TrainingConfig(epochs=100, clip_norm=None)
    """Length and speed of learning."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"heads must divide dim, found {self.heads} heads and dim {self.dim}")
        return self


class DCRecModule(SequenceModule):
    """Three views of what follows a history: the transformer's state of the last item (every item of the history sees
    all of it), and that item in the graph of consecutive items and in the graph of items of the same users.
    """

    def __init__(self, config: DCRecConfig, graphs: tuple[sparse.csr_array, sparse.csr_array], seed: int) -> None:
        super().__init__()
        self.dropout, self.edge_dropout, self.hops = config.dropout, config.edge_dropout, config.hops
        self.tokens = config.micro_batch_tokens
        self.item = nn.Embedding(graphs[0].shape[0], config.dim)
        self.position = nn.Embedding(config.max_length, config.dim)
        self.input_norm = nn.LayerNorm(config.dim, eps=1e-12)
        self.encoder = BidirectionalEncoder(config.dim, config.layers, config.heads, config.dropout)
        self.graph_norm = nn.LayerNorm(config.dim, eps=1e-12)
        self.view_map = nn.Parameter(torch.empty(config.dim, config.dim))
        self.view_query = nn.Parameter(torch.empty(1, config.dim))
        init_normal(self, config.init_std, seed)
        self.adjacent, self.similar = ItemGraph(graphs[0]), ItemGraph(graphs[1])
        self._tables: tuple[Tensor, Tensor] | None = None

    def train(self, mode: bool = True) -> Self:
        """Switch between training and answering; the tables that answers need are made once."""
        self._tables = None
        return super().train(mode)

    def forward(self, items_BT: Tensor, lengths_B: Tensor) -> Tensor:
        """The transformer's states of the last items, (B, D)."""
        places_T = torch.arange(items_BT.shape[1], device=items_BT.device)
        hidden = self.input_norm(self.item(items_BT) + self.position(places_T))
        hidden = self.encoder(F.dropout(hidden, self.dropout, self.training), lengths_B)
        last: Tensor = hidden[torch.arange(len(hidden), device=hidden.device), lengths_B - 1]
        return last

    def sequence_view(self, rows: Ragged, run: Callable[..., Tensor] | None = None) -> Tensor:
        """The transformer's states (B, D) of the rows' last items, run by groups of nearly equal length."""
        groups = length_groups(rows.lengths, self.tokens)
        states = []
        for group in groups:
            some = rows.take(group)
            lengths = torch.from_numpy(some.lengths).to(self.device)
            states.append((run or self)(left_aligned(some, self.device), lengths))
        return torch.cat(states)[torch.from_numpy(np.argsort(np.concatenate(groups))).to(self.device)]

    def graph_view(self, graph: ItemGraph, kept_E: Tensor | None = None) -> Tensor:
        """LN(mean over hops of Â^k e + e) of all items (I, D), dropped out while training.

        Args:
            graph: Â.
            kept_E: 1 for the edges that stay, 0 for those that are cut.
        """
        item_ID = F.dropout(self.item.weight, self.dropout, self.training)
        value_E = F.dropout(graph.value, self.edge_dropout, self.training)
        if kept_E is not None:
            value_E = value_E * kept_E
        layers = [item_ID]
        for _ in range(self.hops):
            layers.append(graph.times(value_E, layers[-1]))
        view: Tensor = self.graph_norm(torch.stack(layers).mean(0) + item_ID)
        return view

    def fused(self, *views_BD: Tensor) -> Tensor:
        """Σ_v softmax_v(a · W x_v) x_v, (B, D)."""
        views_VBD = torch.stack(views_BD)
        share_VB = ((views_VBD @ self.view_map) * self.view_query).sum(2).softmax(0)
        return (share_VB[..., None] * views_VBD).sum(0)

    def last(self, rows: Ragged) -> Tensor:
        """The three views of every row's last item, fused: (B, D)."""
        if self._tables is None:
            self._tables = self.graph_view(self.adjacent), self.graph_view(self.similar)
        last = torch.from_numpy(last_items(rows).astype(np.int64)).to(self.device)
        return self.fused(self.sequence_view(rows), *(table[last] for table in self._tables))


class DCRec(SequenceModel[DCRecConfig, DCRecModule]):
    """Scores items by the inner product of the fused views with the item table. Graphs are those of the training part,
    also for somebody new.
    """

    config_class: ClassVar[type[DCRecConfig]] = DCRecConfig

    def make_module(self, n_items: int, seed: int) -> DCRecModule:
        """An untrained network whose graphs have no edges."""
        nothing = sparse.csr_array((n_items, n_items), dtype=np.float32)
        return DCRecModule(self.config, (nothing, nothing), seed)

    def module_for(self, split: Split, seed: int) -> DCRecModule:
        """An untrained network over the graphs of these data."""
        graphs = adjacency(split.sequences, split.n_items), similarity(split, self.config.neighbours)
        return DCRecModule(self.config, graphs, seed)

    def module_like(self, tensors: dict[str, Tensor]) -> DCRecModule:
        """A network that stored tensors fit into."""
        n_items = len(tensors["item.weight"])

        def stored(name: str) -> sparse.csr_array:
            value, column, bounds = (tensors[f"{name}.{part}"].numpy() for part in ("value", "column", "bounds"))
            return sparse.csr_array((value, column, bounds), shape=(n_items, n_items))

        return DCRecModule(self.config, (stored("adjacent"), stored("similar")), 0)

    def make_task(self, module: DCRecModule, split: Split, seed: int) -> NextItem:
        """The next item of every prefix, with the contrast of its views."""
        return DebiasedNextItem(self, module, split, seed)


class PrefixBatch(SequenceBatch):
    """Rows of which the last item alone is a target."""

    @property
    def n_targets(self) -> int:
        """Number of rows."""
        return len(self.rows)

    @property
    def targets(self) -> ItemArray:
        """The last items."""
        return last_items(self.rows)


class DebiasedNextItem(NextItem):
    """L = L_next + λ mean(ω CL(seq, adj) + (max ω − ω) CL(adj, sim)) + κ KL, a row being one prefix of a sequence.

    ω is high where the graph without the batch's own edges says the same of the last item as the whole graph: there
    users follow the many. Where published code and this differ: a pair of consecutive items is counted once, the graph
    is normalised once, dropped edges are made up for, all neighbours count rather than ten drawn ones, equal last items
    are no negatives of each other, and both sides of the divergence are distributions.
    """

    whole_steps = True

    def __init__(self, model: DCRec, module: DCRecModule, split: Split, seed: int) -> None:
        super().__init__(model, module, model.config, split, seed)
        self.settings, self.network = model.config, module
        prefixes = every_prefix(self.rows)
        self.owner = np.repeat(self.owner, self.rows.lengths - 1)
        self.rows = prefixes
        self.own = own_entries(module.adjacent, split.sequences)

    def batch(self, rows: IntArray, negatives: ItemArray | None) -> PrefixBatch:
        """The prefixes of those numbers."""
        return PrefixBatch(self.rows.take(rows), self.owner[rows], negatives)

    def target_counts(self) -> IntArray:
        """One for every prefix."""
        return np.ones(len(self.rows), np.int64)

    def loss(self, batch: SequenceBatch) -> Tensor:
        """Sum over rows, contrast and divergence counted once for each."""
        network, settings, inputs = self.network, self.settings, batch.inputs
        state, other_state = network.sequence_view(concatenated(inputs, inputs), self.run).chunk(2)
        last = self.on_device(last_items(inputs))
        adjacent_ID = network.graph_view(network.adjacent)
        adjacent, similar = adjacent_ID[last], network.graph_view(network.similar)[last]
        loss = self.item_loss(network.fused(state, adjacent, similar), batch)

        conformity = self.conformity(batch, adjacent_ID, last)
        single = self.on_device(inputs.lengths) == 1
        conformity = torch.where(single, torch.full_like(conformity, 0.5), conformity)
        contrast = conformity * view_loss(other_state, adjacent, last, settings.temperature)
        individual = conformity.max() - conformity
        contrast = contrast + individual * view_loss(adjacent, similar, last, settings.temperature)
        expected = torch.normal(settings.weight_mean, 0.1, conformity.shape, device=conformity.device)
        divergence = divergence_of(conformity, expected)
        return loss + batch.n_targets * (settings.contrast * contrast.mean() + settings.divergence * divergence)

    def conformity(self, batch: SequenceBatch, adjacent_ID: Tensor, last_B: Tensor) -> Tensor:
        """ω (B,): agreement of the last item's views with and without the edges of the batch's users."""
        graph = self.network.adjacent
        kept = torch.ones_like(graph.value)
        kept[self.on_device(self.own.take(np.unique(batch.owner)).flat())] = 0
        without = self.network.graph_view(graph, kept)[last_B]
        others = graph.neighbour_mean(kept, adjacent_ID)[last_B]
        own = graph.neighbour_mean(1 - kept, adjacent_ID)[last_B]
        whole = adjacent_ID[last_B]
        return conformity_weights(whole, without, others, own, self.settings.weight_mean)


def conformity_weights(whole_BD: Tensor, without_BD: Tensor, others_BD: Tensor, own_BD: Tensor, mean: float) -> Tensor:
    """σ of the mean of three cosines (whole graph and cut graph; item and its neighbours by others; neighbours by the
    batch's users and by others), stretched to 0…1 over the batch and scaled to `mean`.
    """
    pairs = ((whole_BD, without_BD), (whole_BD, others_BD), (own_BD, others_BD))
    cosines = torch.stack([F.cosine_similarity(a, b, eps=1e-12) for a, b in pairs])
    agreement = cosines.mean(0).sigmoid()
    spread = agreement.max() - agreement.min()
    if float(spread.detach()) == 0:
        return torch.full_like(agreement, mean)
    stretched = (agreement - agreement.min()) / spread
    return stretched * (mean / stretched.mean())


def view_loss(anchor_BD: Tensor, other_BD: Tensor, item_B: Tensor, temperature: float) -> Tensor:
    """InfoNCE of every row (B,): −log of the softmax share, by cosine / τ, of its own other view among all rows'.

    Rows with the same item are left out of each other's negatives.
    """
    similarity_BB = F.normalize(anchor_BD) @ F.normalize(other_BD).T / temperature
    same_BB = item_B[:, None] == item_B
    same_BB.fill_diagonal_(False)
    similarity_BB = similarity_BB.masked_fill(same_BB, -torch.inf)
    return similarity_BB.logsumexp(1) - similarity_BB.diagonal()


def divergence_of(weight_B: Tensor, expected_B: Tensor) -> Tensor:
    """KL(softmax of the sorted expected weights ‖ softmax of the sorted weights)."""
    weight, expected = (values.sort()[0].log_softmax(0) for values in (weight_B, expected_B))
    return F.kl_div(weight, expected, reduction="sum", log_target=True)


def every_prefix(rows: Ragged) -> Ragged:
    """The first 2, 3, … n items of every row of n."""
    counts = rows.lengths - 1
    starts = np.repeat(rows.starts, counts)
    place = np.arange(len(starts)) - np.repeat(np.cumsum(counts) - counts, counts)
    return Ragged(rows.values, starts, starts + place + 2)


def last_items(rows: Ragged) -> ItemArray:
    """The last item of every row."""
    items: ItemArray = rows.values[rows.stops - 1]
    return items
