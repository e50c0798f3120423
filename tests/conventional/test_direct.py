"""MF, LightGCN, MixGCF and SGL against dense matrices and loops over single triples."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tandemrec.conventional.direct.graph import Graph
from tandemrec.conventional.direct.interactions import Pairs
from tandemrec.conventional.direct.lightgcn import LightGCN, LightGCNConfig, LightGCNModule
from tandemrec.conventional.direct.mf import MF, MFConfig
from tandemrec.conventional.direct.mixgcf import MixGCF, MixGCFConfig, MixGCFModule
from tandemrec.conventional.direct.pairwise import PairBatch, PairwiseModel, PairwiseModule, PairwiseTask
from tandemrec.conventional.direct.sgl import SGL, SGLConfig, SGLModule
from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import Examples, Ragged
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.split import Split, make_split
from tandemrec.errors import InputError
from tandemrec.training import TrainingConfig

CPU = torch.device("cpu")
TWO_EPOCHS = TrainingConfig(epochs=2, learning_rate=0.01, clip_norm=None, patience=None)
MODELS = [MF, LightGCN, MixGCF, SGL]


def split_of(rows: list[tuple[int, int, int]]) -> Split:
    return make_split(
        Dataset.from_frames(pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")), LeaveOneOut()
    )


@pytest.fixture(scope="module")
def split() -> Split:
    rng = np.random.default_rng(3)
    lengths = rng.integers(4, 12, size=40)
    return split_of(
        [(u, int(i), t) for u, n in enumerate(lengths) for t, i in enumerate(rng.choice(15, n, replace=False))]
    )


@pytest.fixture(scope="module")
def pairs(split: Split) -> Pairs:
    return Pairs.of(split.sequences, split.n_items)


def dense_adjacency(pairs: Pairs, kept: np.ndarray | None = None) -> Tensor:
    """D^(-1/2) A D^(-1/2), entry by entry."""
    n = pairs.n_users + pairs.n_items
    a = np.zeros((n, n))
    for edge, (user, item) in enumerate(zip(pairs.users, pairs.items, strict=True)):
        if kept is None or kept[edge]:
            a[user, pairs.n_users + item] = a[pairs.n_users + item, user] = 1
    degree = a.sum(1)
    for row, column in zip(*np.nonzero(a), strict=True):
        a[row, column] /= np.sqrt(degree[row]) * np.sqrt(degree[column])
    return torch.from_numpy(a).float()


def triples(pairs: Pairs, count: int, negatives: int, seed: int = 0) -> PairBatch:
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(pairs), count, replace=False)
    user, positive = torch.from_numpy(pairs.users[chosen]), torch.from_numpy(pairs.items[chosen] + pairs.n_users)
    negative = torch.from_numpy(rng.integers(pairs.n_items, size=(count, negatives)) + pairs.n_users)
    return PairBatch(user, positive, negative)


def small(kind: type[PairwiseModel], **settings: object) -> PairwiseModel:
    return kind(kind.config_class(dim=8, batch_size=50, **{"training": TWO_EPOCHS} | settings), device="cpu")


def test_bpr_is_its_formula_in_value_and_gradient(pairs: Pairs) -> None:
    module = PairwiseModule(MFConfig(dim=4, l2=0.3, init_std=0.5), pairs, CPU, seed=1)
    batch = triples(pairs, 30, 1)
    loss = module(batch)
    table = module.table.detach().double()
    expected, gradient = 0.0, torch.zeros_like(table)
    for u, i, j in zip(batch.user, batch.positive, batch.negative[:, 0], strict=True):
        x = table[u] @ table[i] - table[u] @ table[j]
        learned = table[u] @ table[u] + table[i] @ table[i] + table[j] @ table[j]
        expected += float(-torch.log(torch.sigmoid(x)) + 0.3 / 2 * learned)
        pull = torch.sigmoid(-x)
        gradient[u] += -pull * (table[i] - table[j]) + 0.3 * table[u]
        gradient[i] += -pull * table[u] + 0.3 * table[i]
        gradient[j] += pull * table[u] + 0.3 * table[j]
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(torch.autograd.grad(loss, module.table)[0].double(), gradient, rtol=1e-4, atol=1e-5)


def test_lightgcn_propagates_as_the_dense_matrix_does(pairs: Pairs) -> None:
    module = LightGCNModule(LightGCNConfig(dim=4, layers=3), pairs, CPU, seed=1)
    a, e = dense_adjacency(pairs), module.table
    expected = (e + a @ e + a @ a @ e + a @ a @ a @ e) / 4
    torch.testing.assert_close(module.vectors(), expected, rtol=1e-5, atol=1e-6)
    weight = torch.randn_like(e)
    mine, theirs = (torch.autograd.grad((weight * v).sum(), e)[0] for v in (module.vectors(), expected))
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_lightgcn_ranks_with_final_vectors_and_shrinks_learned_ones(pairs: Pairs) -> None:
    module = LightGCNModule(LightGCNConfig(dim=4, layers=2, l2=0.7), pairs, CPU, seed=1)
    batch = triples(pairs, 20, 1)
    final, expected = module.vectors(), 0.0
    for u, i, j in zip(batch.user, batch.positive, batch.negative[:, 0], strict=True):
        learned = sum(module.table[row].square().sum() for row in (u, i, j))
        expected += float(-F.logsigmoid(final[u] @ final[i] - final[u] @ final[j]) + 0.35 * learned)
    assert module(batch).item() == pytest.approx(expected, rel=1e-5)


def test_lightgcn_without_layers_is_mf(split: Split) -> None:
    one, other = small(MF, init_std=0.1), small(LightGCN, layers=0)
    for model in (one, other):
        model.fit(split, seed=5)
    torch.testing.assert_close(one.scores(split.test), other.scores(split.test), rtol=0, atol=0)


@torch.no_grad()
def test_mixgcf_mixes_and_picks_as_its_equations_say(pairs: Pairs) -> None:
    torch.manual_seed(0)
    module = MixGCFModule(MixGCFConfig(dim=4, layers=2, candidates=5, l2=0.2), pairs, CPU, seed=1)
    batch, share = triples(pairs, 12, 5), torch.rand(12, 3)
    layers = module.layers()
    mixed = module.mixed_negatives(layers, batch, share)
    picks = set()
    for b in range(12):
        user = sum(layer[batch.user[b]] for layer in layers) / 3
        for number, layer in enumerate(layers):
            a = share[b, number]
            candidates = [a * layer[batch.positive[b]] + (1 - a) * layer[n] for n in batch.negative[b]]
            best = int(np.argmax([float(user @ candidate) for candidate in candidates]))
            picks.add((b, best))
            torch.testing.assert_close(mixed[number][b], candidates[best])
    assert len(picks) > 12, "layers should not all pick the same candidate"


@torch.no_grad()
def test_mixgcf_loss_is_bpr_against_the_pooled_mixture(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    module = MixGCFModule(MixGCFConfig(dim=4, layers=2, candidates=5, l2=0.2), pairs, CPU, seed=1)
    batch, share = triples(pairs, 12, 5), torch.rand(12, 3)
    monkeypatch.setattr(torch, "rand", lambda *_, **__: share)
    layers, expected = module.layers(), 0.0
    mixed = module.mixed_negatives(layers, batch, share)
    for b in range(12):
        user, positive = (sum(layer[rows[b]] for layer in layers) / 3 for rows in (batch.user, batch.positive))
        negative = sum(layer[b] for layer in mixed) / 3
        learned = module.table[batch.user[b]].square().sum() + module.table[batch.positive[b]].square().sum()
        expected += float(-F.logsigmoid(user @ positive - user @ negative))
        expected += 0.1 * float(learned + mixed[0][b].square().sum())
    assert module(batch).item() == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_sgl_contrast_is_infonce_over_all_users_and_all_items(pairs: Pairs) -> None:
    config = SGLConfig(dim=4, layers=2, temperature=0.3, contrast=0.5, drop=0.3)
    module = SGLModule(config, pairs, CPU, seed=1)
    first, second = module.views(np.random.default_rng(2))
    plain = triples(pairs, 25, 1)
    batch = PairBatch(plain.user, plain.positive, plain.negative, (first, second))

    def final(view: list[Tensor]) -> Tensor:
        layers = [module.table]
        for adjacency in view:
            layers.append(adjacency.to_dense() @ layers[-1])
        return sum(layers) / 3

    one, other = final(first), final(second)
    cosine = lambda a, b: float(a @ b / a.norm() / b.norm())  # noqa: E731
    expected = 0.0
    for anchors, rivals in (
        (set(batch.user.tolist()), range(pairs.n_users)),
        (set(batch.positive.tolist()), range(pairs.n_users, len(module.table))),
    ):
        for row in anchors:
            similar = [np.exp(cosine(one[row], other[rival]) / 0.3) for rival in rivals]
            expected -= np.log(np.exp(cosine(one[row], other[row]) / 0.3) / sum(similar))
    ranking = LightGCNModule.forward(module, plain).item()
    assert module(batch).item() == pytest.approx(ranking + 0.5 * expected, rel=1e-4)


def test_views_drop_edges_whole_and_are_normalised_by_their_own_degrees(pairs: Pairs) -> None:
    graph = Graph(pairs, CPU)
    torch.testing.assert_close(graph.adjacency().to_dense(), dense_adjacency(pairs))
    for kind in ("edge", "node", "walk"):
        view = [a.to_dense() for a in graph.view(kind, 0.4, 2, np.random.default_rng(1))]
        for a in view:
            kept = a[pairs.users, pairs.items + pairs.n_users].numpy() > 0
            torch.testing.assert_close(a, dense_adjacency(pairs, kept))
            expected = 0.6**2 if kind == "node" else 0.6
            assert kept.mean() == pytest.approx(expected, abs=0.12)
            if kind == "node":
                gone = np.array([not kept[pairs.users == u].any() for u in range(pairs.n_users)])
                assert gone.mean() == pytest.approx(0.4, abs=0.2)
        assert torch.equal(view[0], view[1]) == (kind != "walk")


@pytest.mark.parametrize("kind", MODELS)
def test_permuted_items_have_permuted_scores(split: Split, pairs: Pairs, kind: type[PairwiseModel]) -> None:
    order = np.random.default_rng(0).permutation(split.n_items)
    sequences = split.sequences
    moved = Pairs.of(Ragged(order[sequences.values].astype(np.int32), sequences.starts, sequences.stops), split.n_items)
    scores = []
    for given, rows in ((pairs, np.arange(split.n_items)), (moved, np.argsort(order))):
        module = kind.module_class(kind.config_class(dim=4), given, CPU, 1)
        with torch.no_grad():
            module.table[pairs.n_users :] = module.table[pairs.n_users :][torch.from_numpy(rows)]
            vectors = module.vectors()
        scores.append(vectors[: pairs.n_users] @ vectors[pairs.n_users :].T)
    torch.testing.assert_close(scores[1][:, torch.from_numpy(order)], scores[0])


@pytest.mark.parametrize("kind", MODELS)
def test_an_epoch_has_every_pair_once_against_items_never_met(
    split: Split, pairs: Pairs, kind: type[PairwiseModel]
) -> None:
    model = small(kind)
    module = kind.module_class(model.config, pairs, CPU, 1)
    task = PairwiseTask(model, module, split, pairs, seed=3)
    met = set(zip(pairs.users.tolist(), (pairs.items + pairs.n_users).tolist(), strict=True))
    epochs = []
    for epoch in (0, 0, 1):
        steps = [step for (step,) in task.steps(epoch)]
        assert [len(step) for step in steps] == [50] * (len(pairs) // 50) + [len(pairs) % 50] * (len(pairs) % 50 > 0)
        positives = [pair for step in steps for pair in zip(step.user.tolist(), step.positive.tolist(), strict=True)]
        assert sorted(positives) == sorted(met)
        for step in steps:
            for user, negatives in zip(step.user.tolist(), step.negative.tolist(), strict=True):
                assert len(negatives) == module.n_negatives
                assert met.isdisjoint((user, item) for item in negatives)
        epochs.append((positives, [step.negative.tolist() for step in steps]))
    assert epochs[0] == epochs[1]
    assert epochs[0] != epochs[2]


@pytest.mark.parametrize("kind", MODELS)
def test_rankings_depend_on_the_user_alone(
    split: Split, kind: type[PairwiseModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small(kind)
    model.fit(split, seed=1)
    assert model.user_vectors is not None and model.user_vectors.shape == (40, 8)
    assert model.item_vectors is not None and model.item_vectors.shape == (15, 8)
    ranked = model.rank(split.test, 15)
    order = np.random.default_rng(0).permutation(len(split.test))
    monkeypatch.setattr("tandemrec.recommender.BLOCK_SCORES", 50)
    np.testing.assert_array_equal(model.rank(split.test.take(order), 15).items, ranked.items[order])
    model.save(tmp_path)
    np.testing.assert_array_equal(kind.load(tmp_path, device="cpu").rank(split.test, 15).items, ranked.items)


@pytest.mark.parametrize("kind", MODELS)
def test_a_training_that_was_killed_ends_as_one_that_was_not(
    split: Split, kind: type[PairwiseModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, resumed = small(kind), small(kind)
    whole.fit(split, seed=1)

    def killed(task: PairwiseTask) -> dict[str, float]:
        raise KeyboardInterrupt

    validate = PairwiseTask.validate
    calls: list[int] = []

    def once(task: PairwiseTask) -> dict[str, float]:
        calls.append(1)
        return validate(task) if len(calls) == 1 else killed(task)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PairwiseTask, "validate", once)
        resumed.fit(split, seed=1, workspace=tmp_path)
    resumed.fit(split, seed=1, workspace=tmp_path)
    torch.testing.assert_close(resumed.scores(split.test), whole.scores(split.test))


@pytest.mark.parametrize("kind", MODELS)
def test_it_learns_who_belongs_to_which_items(kind: type[PairwiseModel]) -> None:
    rng = np.random.default_rng(0)
    rows = [(u, int(i) + 20 * (u % 2), t) for u in range(60) for t, i in enumerate(rng.choice(20, 10, replace=False))]
    groups = split_of(rows)
    training = TrainingConfig(epochs=30, learning_rate=0.02, clip_norm=None, patience=None, validate_every=10)
    model = small(kind, training=training)
    model.fit(groups, seed=1)
    best = model.rank(groups.test, 10).items
    assert (best // 20 == (groups.test.user % 2)[:, None]).mean() > 0.9


def test_users_without_training_interactions_are_refused(split: Split) -> None:
    model = small(MF)
    with pytest.raises(RuntimeError, match="MF must be fitted or loaded first"):
        model.scores(split.test)
    model.fit(split, seed=1)
    with pytest.raises(InputError, match=r"2 of 2 examples are of others, such as example 0: a history without a user"):
        model.scores(Examples.from_histories([[1, 2], [3]]))
    with pytest.raises(InputError, match=r"1 of 2 examples.*example 1: user number 40, who has no training"):
        model.scores(Examples.from_histories([[1, 2], [3]], users=[3, 40]))
    nobody = Split(split.dataset, Ragged.from_lists([[]] * 40), split.train, split.valid, split.test, "")
    with pytest.raises(InputError, match="MF needs training interactions, found none"):
        small(MF).fit(nobody)
