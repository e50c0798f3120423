"""Damped biases and biased factorization against slow solutions of what they minimise."""

import numpy as np
import pytest
from rated import small_split

from tandemrec.conventional.rating.biases import Biases, BiasesConfig
from tandemrec.conventional.rating.mf import BiasedMF, BiasedMFConfig
from tandemrec.data.filter import CleaningConfig, clean
from tandemrec.data.locations import data_root
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.ratings import Pairs, training_ratings
from tandemrec.data.sources import MovieLens
from tandemrec.data.split import make_split
from tandemrec.evaluation.ratings import evaluate_ratings


def test_one_sweep_is_two_damped_averages() -> None:
    split = small_split()
    model = Biases(BiasesConfig(damping=2, sweeps=1))
    model.fit(split)
    ratings = training_ratings(split)
    rows = list(zip(ratings.pairs.user.tolist(), ratings.pairs.item.tolist(), ratings.value.tolist(), strict=True))
    mean = sum(r for _, _, r in rows) / len(rows)
    item = {i: sum(r - mean for _, j, r in rows if j == i) / (2 + sum(j == i for _, j, _ in rows)) for _, i, _ in rows}
    for u in (0, 11, 39):
        own = [r - mean - item[i] for v, i, r in rows if v == u]
        assert model.user_bias[u] == pytest.approx(sum(own) / (len(own) + 2), rel=1e-6)
    assert model.item_bias[3] == pytest.approx(item[3], rel=1e-6)


def test_many_sweeps_solve_the_ridge_regression() -> None:
    split = small_split()
    model = Biases(BiasesConfig(damping=3, sweeps=300))
    model.fit(split)
    ratings = training_ratings(split)
    u, i, n_users = ratings.pairs.user, ratings.pairs.item, split.dataset.n_users
    design = np.zeros((len(ratings), n_users + split.n_items))
    design[np.arange(len(u)), u] = design[np.arange(len(u)), n_users + i] = 1
    target = ratings.value - ratings.value.mean(dtype=np.float64)
    solved = np.linalg.solve(design.T @ design + 3 * np.eye(design.shape[1]), design.T @ target)
    np.testing.assert_allclose(model.user_bias[:-1], solved[:n_users], atol=1e-6)
    np.testing.assert_allclose(model.item_bias[:-1], solved[n_users:], atol=1e-6)


def test_a_sweep_of_factorization_solves_every_side_exactly() -> None:
    split = small_split()
    model = BiasedMF(BiasedMFConfig(dim=3, l2=0.3, sweeps=1))
    model.fit(split, seed=0)
    ratings = training_ratings(split)
    i = 6
    mine = ratings.pairs.item == i
    p = model.user[ratings.pairs.user[mine].astype(np.int64)].numpy()
    design = np.column_stack([p[:, :-1], np.ones(mine.sum())])
    target = ratings.value[mine] - model.mean - p[:, -1]
    ridge = 0.3 * mine.sum() * np.eye(4)
    np.testing.assert_allclose(model.item[i], np.linalg.solve(design.T @ design + ridge, design.T @ target), atol=1e-6)


def test_the_mean_alone() -> None:
    split = small_split()
    model = Biases(BiasesConfig(mean_only=True))
    model.fit(split)
    mean = training_ratings(split).value.mean()
    np.testing.assert_allclose(model.predict(Pairs(np.array([0, -1]), np.array([-1, 4]))), mean, rtol=1e-6)  # type: ignore[arg-type]


def test_damped_biases_on_movielens_100k() -> None:
    """Leave-one-out over all ratings: 1.0283 / .8049 with damping 5, 1.2128 / 1.0165 for the mean."""
    if not (data_root() / "ml-100k").is_dir():
        pytest.skip(f"no folder ml-100k in {data_root()}")
    split = make_split(clean(MovieLens(edition="ml-100k").load(), CleaningConfig())[0], LeaveOneOut())
    expected = {False: (1.0283, 0.8049), True: (1.2128, 1.0165)}
    for mean_only, figures in expected.items():
        model = Biases(BiasesConfig(mean_only=mean_only))
        model.fit(split)
        metrics = evaluate_ratings(model, split).metrics
        assert (metrics["rmse"]["mean"], metrics["mae"]["mean"]) == pytest.approx(figures, abs=1e-4)
