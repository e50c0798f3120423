"""ALS: folding-in against dense linear algebra, the library's factors against the objective, and its absence."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from tandemrec.conventional.direct import als
from tandemrec.conventional.direct.als import ALS, ALSConfig
from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import Examples
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.split import Split, make_split
from tandemrec.errors import InputError

CONFIG = ALSConfig(dim=5, l2=0.3, alpha=4.0, iterations=30)


@pytest.fixture(scope="module")
def split() -> Split:
    rng = np.random.default_rng(3)
    rows = [(u, int(i), t) for u in range(40) for t, i in enumerate(rng.choice(15, 4 + u % 8, replace=False))]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return make_split(Dataset.from_frames(frame), LeaveOneOut())


def with_table() -> ALS:
    model = ALS(CONFIG)
    model.item_vectors = torch.randn(15, 5, generator=torch.Generator().manual_seed(0))
    return model


@pytest.mark.parametrize("block", [1, 1 << 22])
def test_a_history_is_folded_in_by_weighted_ridge_regression(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(als, "BLOCK_FLOATS", block)
    model = with_table()
    y = model.item_vectors.double().numpy()
    histories = [[1, 2, 7], [], [3], [3, 3], [0, 4, 5, 6, 8]]
    scores = model.scores(Examples.from_histories(histories)).numpy()
    for row, history in zip(scores, histories, strict=True):
        met = np.zeros(15)
        met[history] = 1
        c = np.diag(1 + 4.0 * met)
        x = np.linalg.solve(y.T @ c @ y + 0.3 * np.eye(5), y.T @ c @ met)
        np.testing.assert_allclose(row, y @ x, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(scores[2], scores[3])


def test_a_saved_model_answers_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = with_table(), Examples.from_histories([[1, 2], [5]])
    model.save(tmp_path)
    monkeypatch.setattr(als, "find_spec", lambda _: None)
    torch.testing.assert_close(ALS.load(tmp_path).scores(asked), model.scores(asked))


def test_a_missing_library_is_named(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(als, "find_spec", lambda _: None)
    for refuse in (CONFIG.check, lambda: ALS(CONFIG).fit(split)):
        with pytest.raises(InputError, match=r"needs the library 'implicit', which is not installed: pip install"):
            refuse()


def test_the_factors_minimise_the_objective(split: Split) -> None:
    pytest.importorskip("implicit", reason="the library implicit is not installed (extra 'als')")
    model = ALS(CONFIG)
    model.fit(split, seed=1)
    assert model.user_vectors is not None and model.item_vectors is not None
    met = np.zeros((40, 15))
    for user, row in enumerate(split.sequences):
        met[user, row] = 1

    def objective(x: np.ndarray, y: np.ndarray) -> float:
        error = (1 + 4.0 * met) * (met - x @ y.T) ** 2
        return float(error.sum() + 0.3 * ((x**2).sum() + (y**2).sum()))

    x, y = model.user_vectors.double().numpy(), model.item_vectors.double().numpy()
    found = objective(x, y)
    rng = np.random.default_rng(0)
    rivals = []
    for _ in range(5):
        u, v = rng.normal(0, 0.1, (40, 5)), rng.normal(0, 0.1, (15, 5))
        for _ in range(30):
            for own, other, given in ((u, v, met), (v, u, met.T)):
                for row, target in enumerate(given):
                    c = np.diag(1 + 4.0 * target)
                    own[row] = np.linalg.solve(other.T @ c @ other + 0.3 * np.eye(5), other.T @ c @ target)
        rivals.append(objective(u, v))
    assert found <= min(rivals) * 1.01, "the library solves approximately, yet for these weights"


def test_rankings_depend_on_the_history_alone_and_follow_renumbered_items(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given the item vectors: the library draws the first ones by item number, so a training is another one."""
    model, moved = with_table(), with_table()
    whole = model.scores(split.test)
    order = np.random.default_rng(1).permutation(len(split.test))
    torch.testing.assert_close(model.scores(split.test.take(order)), whole[torch.from_numpy(order)])
    new = np.random.default_rng(2).permutation(15)
    assert moved.item_vectors is not None
    moved.item_vectors = moved.item_vectors[torch.from_numpy(np.argsort(new))]
    renumbered = Examples.from_histories([new[row].tolist() for row in split.test.history], split.test.user.tolist())
    torch.testing.assert_close(moved.scores(renumbered)[:, torch.from_numpy(new)], whole, rtol=1e-4, atol=1e-5)
    ranked = model.rank(split.test, 5).items
    monkeypatch.setattr(ALS, "rows_at_once", lambda self, n_items: 3)
    np.testing.assert_array_equal(model.rank(split.test, 5).items, ranked)
