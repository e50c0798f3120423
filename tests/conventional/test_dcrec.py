"""DCRec: graphs, views, weights and losses against slow, literal versions."""

import math
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch

from tandemrec.conventional.sequential.dcrec import (
    DCRec,
    DCRecConfig,
    conformity_weights,
    divergence_of,
    every_prefix,
    view_loss,
)
from tandemrec.conventional.sequential.item_graphs import ItemGraph, adjacency, own_entries, similarity
from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import Ragged
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.split import Split, make_split

SMALL = DCRecConfig(dim=6, max_length=5, dropout=0, edge_dropout=0, init_std=0.5, layers=1, neighbours=2)


@pytest.fixture(scope="module")
def split() -> Split:
    rng = np.random.default_rng(2)
    rows = [(u, int(i), t) for u in range(14) for t, i in enumerate(rng.integers(9, size=3 + u % 6))]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return make_split(Dataset.from_frames(frame), LeaveOneOut())


def dense_adjacency(sequences: Ragged, n: int) -> np.ndarray:
    counts = np.eye(n)
    for row in sequences:
        for a, b in pairwise(row.tolist()):
            counts[a, b] += 1
            counts[b, a] += 1
    degree = counts.sum(1)
    return counts / np.sqrt(np.outer(degree, degree))


def test_the_graph_of_consecutive_items(split: Split) -> None:
    ours = adjacency(split.sequences, split.n_items).toarray()
    np.testing.assert_allclose(ours, dense_adjacency(split.sequences, split.n_items), rtol=1e-6)


def test_the_graph_of_the_same_users(split: Split) -> None:
    ours = similarity(split, 2).toarray()
    n = split.n_items
    met = np.zeros((len(split.sequences), n))
    for user, row in enumerate(split.sequences):
        met[user, row] = 1
    for item in range(n):
        cosine = [
            met[:, item] @ met[:, j] / math.sqrt(met[:, item].sum() * met[:, j].sum())
            if j != item and met[:, item].any() and met[:, j].any()
            else 0.0
            for j in range(n)
        ]
        near = [j for j in sorted(range(n), key=lambda j: (-cosine[j], j))[:2] if cosine[j] > 0]
        total = 1 + sum(cosine[j] for j in near)
        expected = np.zeros(n)
        expected[item] = 1 / total
        for j in near:
            expected[j] = cosine[j] / total
        np.testing.assert_allclose(ours[item], expected, rtol=1e-5, atol=1e-7)


def test_products_with_masked_values_in_value_and_gradient(split: Split) -> None:
    torch.manual_seed(0)
    for matrix in (adjacency(split.sequences, split.n_items), similarity(split, 2)):
        graph = ItemGraph(matrix)
        kept = (torch.rand(len(graph.value)) < 0.6).float()
        dense = torch.zeros(split.n_items, split.n_items)
        dense[graph.row, graph.column] = graph.value * kept
        x = torch.randn(split.n_items, 4, requires_grad=True)
        ours = graph.times(graph.value * kept, x)
        torch.testing.assert_close(ours, dense @ x)
        weight = torch.randn_like(ours)
        torch.testing.assert_close(
            torch.autograd.grad((ours * weight).sum(), x), torch.autograd.grad((dense @ x * weight).sum(), x)
        )
        mean = graph.neighbour_mean(kept, x)
        for item in range(split.n_items):
            near = [int(c) for r, c, k in zip(graph.row, graph.column, kept, strict=True) if r == item and k]
            expected = x[near].mean(0) if near else torch.zeros(4)
            torch.testing.assert_close(mean[item], expected)


def test_own_entries_are_those_between_consecutive_items(split: Split) -> None:
    graph = ItemGraph(adjacency(split.sequences, split.n_items))
    for row, entries in zip(split.sequences, own_entries(graph, split.sequences), strict=True):
        pairs = {(int(graph.row[e]), int(graph.column[e])) for e in entries}
        steps = list(pairwise(row.tolist()))
        assert pairs == {*steps, *((b, a) for a, b in steps)}


def test_a_graph_view_is_the_mean_over_hops_beside_the_items(split: Split) -> None:
    module = DCRec(SMALL).module_for(split, 1).eval()
    kept = (torch.rand(len(module.adjacent.value), generator=torch.Generator().manual_seed(0)) < 0.7).float()
    dense = torch.zeros(split.n_items, split.n_items)
    dense[module.adjacent.row, module.adjacent.column] = module.adjacent.value * kept
    e = module.item.weight
    expected = module.graph_norm((e + dense @ e + dense @ dense @ e) / 3 + e)
    torch.testing.assert_close(module.graph_view(module.adjacent, kept), expected)


def test_views_are_fused_by_attention(split: Split) -> None:
    module = DCRec(SMALL).module_for(split, 1).eval()
    views = [torch.randn(4, 6, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    fused = module.fused(*views)
    for row in range(4):
        grade = [float(module.view_query[0] @ (view[row] @ module.view_map)) for view in views]
        share = np.exp(grade) / np.exp(grade).sum()
        torch.testing.assert_close(
            fused[row], sum(float(s) * view[row] for s, view in zip(share, views, strict=True)), rtol=1e-4, atol=1e-5
        )


def test_conformity_weights_by_loops() -> None:
    torch.manual_seed(0)
    whole, without, others, own = (torch.randn(5, 4) for _ in range(4))
    own[2] = 0  # nobody in the batch led here

    def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
        norms = float(a.norm() * b.norm())
        return float(a @ b) / norms if norms else 0.0

    raw = []
    for b in range(5):
        total = cosine(whole[b], without[b]) + cosine(whole[b], others[b]) + cosine(own[b], others[b])
        raw.append(1 / (1 + math.exp(-total / 3)))
    stretched = [(x - min(raw)) / (max(raw) - min(raw)) for x in raw]
    expected = [0.4 * x / (sum(stretched) / 5) for x in stretched]
    ours = conformity_weights(whole, without, others, own, 0.4)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)
    assert conformity_weights(whole[:1], without[:1], others[:1], own[:1], 0.4).tolist() == pytest.approx([0.4])


def test_the_contrast_of_views_by_loops() -> None:
    torch.manual_seed(0)
    one, other, item = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([1, 2, 1, 3])
    unit = lambda v: v / v.norm()  # noqa: E731
    expected = []
    for b in range(4):
        rivals = [c for c in range(4) if c == b or item[c] != item[b]]
        share = [math.exp(float(unit(one[b]) @ unit(other[c])) / 0.8) for c in rivals]
        expected.append(-math.log(share[rivals.index(b)] / sum(share)))
    np.testing.assert_allclose(view_loss(one, other, item, 0.8), expected, rtol=1e-5)


def test_the_divergence_compares_sorted_weights() -> None:
    weight, expected = torch.tensor([0.9, 0.1, 0.5]), torch.tensor([0.2, 0.6, 0.4])
    p = np.exp([0.2, 0.4, 0.6]) / np.exp([0.2, 0.4, 0.6]).sum()
    q = np.exp([0.1, 0.5, 0.9]) / np.exp([0.1, 0.5, 0.9]).sum()
    assert float(divergence_of(weight, expected)) == pytest.approx(float((p * np.log(p / q)).sum()), rel=1e-5)
    assert float(divergence_of(weight, weight.flip(0))) == pytest.approx(0, abs=1e-7)


def test_every_prefix_is_a_row_once() -> None:
    rows = Ragged.from_lists([[1, 2, 3, 4], [5, 6]])
    assert [row.tolist() for row in every_prefix(rows)] == [[1, 2], [1, 2, 3], [1, 2, 3, 4], [5, 6]]


def test_the_whole_loss(split: Split) -> None:
    """The sum of its parts, each formed from the definitions with dense matrices."""
    model = DCRec(SMALL)
    module = model.module_for(split, 1).train()
    task = model.make_task(module, split, 1)
    batch = task.steps(0)[0][0]
    torch.manual_seed(5)
    ours = float(task.loss(batch))
    assert batch.n_targets == len(batch.rows) == (split.sequences.lengths - 1).clip(min=0).sum()

    n, last = split.n_items, torch.tensor([int(row[-2]) for row in batch.rows])
    dense = torch.from_numpy(dense_adjacency(split.sequences, n)).float()
    cut = dense.clone()
    for user in set(batch.owner.tolist()):
        row = split.sequences[user]
        for a, b in pairwise(row.tolist()):
            cut[a, b] = cut[b, a] = 0
    alike = torch.from_numpy(similarity(split, 2).toarray()).float()
    e = module.item.weight

    def view(matrix: torch.Tensor) -> torch.Tensor:
        return module.graph_norm((e + matrix @ e + matrix @ matrix @ e) / 3 + e)

    def mean(near: torch.Tensor) -> torch.Tensor:
        return near.float() @ view(dense) / near.sum(1, keepdim=True).clamp(min=1)

    adjacent, similar = view(dense)[last], view(alike)[last]
    state = module.sequence_view(batch.inputs)
    logits = module.fused(state, adjacent, similar) @ e.T
    next_item = torch.nn.functional.cross_entropy(logits, torch.from_numpy(batch.targets.astype(np.int64)))
    weight = conformity_weights(
        adjacent, view(cut)[last], mean(cut > 0)[last], mean((dense > 0) & (cut == 0))[last], 0.4
    )
    weight[torch.from_numpy(batch.inputs.lengths == 1)] = 0.5
    contrast = weight * view_loss(state, adjacent, last, 0.8)
    contrast = contrast + (weight.max() - weight) * view_loss(adjacent, similar, last, 0.8)
    torch.manual_seed(5)
    expected = torch.normal(0.4, 0.1, weight.shape)
    total = next_item + 0.1 * contrast.mean() + 0.01 * divergence_of(weight, expected)
    assert ours == pytest.approx(batch.n_targets * float(total.detach()), rel=1e-4)
