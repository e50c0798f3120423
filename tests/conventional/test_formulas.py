"""Conventional models against slow, literal versions of their formulas."""

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F

from tandemrec.conventional.direct.ease import EASE, EASEConfig
from tandemrec.conventional.direct.itemknn import ItemKNN, ItemKNNConfig
from tandemrec.conventional.negatives import NegativeSampler
from tandemrec.conventional.popularity import Popularity
from tandemrec.conventional.sequential.batches import epoch_batches, training_rows
from tandemrec.conventional.sequential.losses import bce_loss, sampled_softmax_loss, softmax_loss
from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import Examples, Ragged
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.split import Split, make_split
from tandemrec.errors import InputError


@pytest.fixture(scope="module")
def split() -> Split:
    rng = np.random.default_rng(3)
    rows = [
        (u, int(i), t) for u in range(40) for t, i in enumerate(rng.choice(15, int(rng.integers(4, 12)), replace=False))
    ]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return make_split(Dataset.from_frames(frame), LeaveOneOut())


def dense(sequences: Ragged, n_items: int) -> np.ndarray:
    x = np.zeros((len(sequences), n_items))
    for user, row in enumerate(sequences):
        x[user, row] = 1
    return x


def test_ease_is_ridge_regression_without_the_item_itself(split: Split) -> None:
    model = EASE(EASEConfig(l2=7.0))
    model.fit(split)
    x = dense(split.sequences, split.n_items)
    for item in range(split.n_items):
        others = [j for j in range(split.n_items) if j != item]
        gram = x[:, others].T @ x[:, others] + 7.0 * np.eye(len(others))
        np.testing.assert_allclose(
            model.weights_II.numpy()[others, item],
            np.linalg.solve(gram, x[:, others].T @ x[:, item]),
            rtol=1e-4,
            atol=1e-6,
        )
    np.testing.assert_allclose(
        model.scores(split.test), dense(split.test.history, split.n_items) @ model.weights_II.numpy(), atol=1e-5
    )


def test_ease_refuses_a_catalogue_that_does_not_fit(split: Split) -> None:
    with pytest.raises(InputError, match=r"15 × 15 items, more than max_items = 10"):
        EASE(EASEConfig(max_items=10)).fit(split)


@pytest.mark.parametrize(("decay", "neighbours"), [(1.0, None), (0.7, None), (0.7, 3)])
def test_itemknn_is_a_sum_over_the_history(split: Split, decay: float, neighbours: int | None) -> None:
    model = ItemKNN(ItemKNNConfig(shrink=2.0, decay=decay, neighbours=neighbours))
    model.fit(split)
    x = dense(split.sequences, split.n_items)
    together, count = x.T @ x, x.sum(0)
    similarity = together / (np.sqrt(np.outer(count, count)) + 2.0)
    np.fill_diagonal(similarity, 0)
    if neighbours is not None:
        for row in similarity:
            row[np.argsort(-row, kind="stable")[neighbours:]] = 0
    expected = np.zeros((len(split.test), split.n_items))
    for b, history in enumerate(split.test.history):
        for age, item in enumerate(history[::-1]):
            expected[b] += decay**age * similarity[item]
    np.testing.assert_allclose(model.scores(split.test), expected, rtol=1e-5, atol=1e-6)


def test_popularity_counts_training_interactions(split: Split) -> None:
    model = Popularity()
    model.fit(split)
    np.testing.assert_array_equal(model.scores(split.test)[0], dense(split.sequences, split.n_items).sum(0))


@pytest.mark.parametrize("kind", [Popularity, ItemKNN, EASE])
def test_saved_models_answer_the_same_also_for_new_and_empty_histories(split: Split, kind: type, tmp_path) -> None:
    model = kind()
    model.fit(split)
    model.save(tmp_path / "model")
    asked = Examples.from_histories([[1, 2], [], [3]])
    scores = model.scores(asked)
    assert torch.isfinite(scores).all()
    torch.testing.assert_close(kind.load(tmp_path / "model").scores(asked), scores)
    with pytest.raises(InputError, match="holds no saved model"):
        kind.load(tmp_path / "nothing")


@pytest.mark.parametrize("chunk", [1, 30, 1 << 20])
def test_chunked_softmax_is_cross_entropy_in_value_and_gradient(chunk: int) -> None:
    torch.manual_seed(0)
    hidden, table = torch.randn(17, 8, requires_grad=True), torch.randn(23, 8, requires_grad=True)
    target = torch.randint(23, (17,))
    ours = softmax_loss(hidden, table, target, chunk)
    grads = torch.autograd.grad(3 * ours, [hidden, table])
    usual = F.cross_entropy(hidden @ table.T, target, reduction="sum")
    torch.testing.assert_close(ours, usual)
    for mine, theirs in zip(grads, torch.autograd.grad(3 * usual, [hidden, table]), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_sampled_losses_are_their_literal_sums() -> None:
    torch.manual_seed(0)
    hidden, table = torch.randn(5, 4), torch.randn(9, 4)
    target, negative, own = torch.tensor([0, 1, 2, 3, 4]), torch.tensor([1, 5, 6]), torch.tensor([5, 6, 7, 8, 0])
    expected = 0.0
    for h, t in zip(hidden, target.tolist(), strict=True):
        logits = [float(h @ table[t])] + [float(h @ table[n]) for n in negative.tolist() if n != t]
        expected += np.log(np.sum(np.exp(logits))) - logits[0]
    assert float(sampled_softmax_loss(hidden, table, target, negative)) == pytest.approx(expected, rel=1e-5)
    sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    expected = sum(
        -np.log(sigmoid(float(h @ table[t]))) - np.log(1 - sigmoid(float(h @ table[n])))
        for h, t, n in zip(hidden, target.tolist(), own.tolist(), strict=True)
    )
    assert float(bce_loss(hidden, table, target, own)) == pytest.approx(expected, rel=1e-5)


def test_every_item_but_the_first_is_a_target_once() -> None:
    sequences = Ragged.from_lists([list(range(11)), [20], [30, 31], []])
    rows = training_rows(sequences, 4, chunks=True)
    targets = sorted(item for row in rows for item in row[1:].tolist())
    assert targets == [*range(1, 11), 31]
    assert max(len(row) for row in rows) <= 5
    assert [row.tolist() for row in training_rows(sequences, 4, chunks=False)] == [[6, 7, 8, 9, 10], [30, 31]]


def test_epochs_cover_all_rows_and_repeat_from_their_seed() -> None:
    rows = Ragged.from_lists([[0] * n for n in range(2, 30)])
    steps = [
        epoch_batches(rows, np.random.default_rng(seed), batch_size=5, micro_batch_tokens=20) for seed in (1, 1, 2)
    ]
    flat = [[int(i) for step in epoch for batch in step for i in batch] for epoch in steps]
    assert sorted(flat[0]) == list(range(28))
    assert flat[0] == flat[1] != flat[2]


def test_negatives_are_never_in_their_sequence() -> None:
    sequences = Ragged.from_lists([[0, 1, 2], [3], list(range(6))])
    sampler = NegativeSampler(sequences, 6)
    rows = np.repeat([0, 1], 2000)
    drawn = sampler.draw(rows, np.random.default_rng(0))
    assert set(drawn[rows == 0].tolist()) == {3, 4, 5}
    assert set(drawn[rows == 1].tolist()) == {0, 1, 2, 4, 5}
    assert len(sampler.draw(np.array([2]), np.random.default_rng(0))) == 1


@pytest.mark.parametrize("kind", [Popularity, ItemKNN, EASE])
def test_renumbered_items_are_ranked_alike(split: Split, kind: type) -> None:
    order = np.random.default_rng(0).permutation(split.n_items)
    frame = split.dataset.interactions.select("user", pl.col("item").replace_strict(range(15), order.tolist()))
    moved = make_split(
        Dataset.from_frames(frame.rename({"user": "user_id", "item": "item_id"}).with_row_index("timestamp")),
        LeaveOneOut(),
    )
    scores = []
    for data in (split, moved):
        model = kind()
        model.fit(data)
        scores.append(model.scores(data.test))
    torch.testing.assert_close(scores[1][:, torch.from_numpy(order)], scores[0])


@pytest.mark.parametrize("kind", [Popularity, ItemKNN, EASE])
def test_rankings_depend_on_the_example_alone(split: Split, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither on the size of blocks nor on the order of the users."""
    model = kind()
    model.fit(split)
    whole = model.rank(split.test, 5)
    order = np.random.default_rng(1).permutation(len(split.test))
    np.testing.assert_array_equal(model.rank(split.test.take(order), 5).items, whole.items[order])
    monkeypatch.setattr(kind, "rows_at_once", lambda self, n_items: 3)
    np.testing.assert_array_equal(model.rank(split.test, 5).items, whole.items)
