"""Bootstrap and permutation against SciPy, Holm by hand, and error rates and power of what pairs are tested with."""

from itertools import product

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tandemrec.evaluation.comparison import ComparisonConfig, compare_systems, user_values
from tandemrec.evaluation.crossed import Crossed, SeedSpread, SeedSquares
from tandemrec.evaluation.significance import holm, permutation_p, resampled_means

QUICK = ComparisonConfig(resamples=400)


def skewed(users: int, seed: int, rows: int = 1) -> np.ndarray:
    """Values like those of NDCG: mostly zeros, some large."""
    rng = np.random.default_rng(seed)
    return rng.random((rows, users)) * (rng.random((rows, users)) < 0.3)


def test_holm_by_hand() -> None:
    # Sorted: .01·4, .02·3, .03·2, .5·1; the third may not be below the second.
    np.testing.assert_allclose(holm(np.array([0.03, 0.01, 0.5, 0.02])), [0.06, 0.04, 0.5, 0.06])
    np.testing.assert_allclose(holm(np.array([0.9, 0.8])), [1.0, 1.0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_never_helps(p_values: list[float]) -> None:
    given_p = np.array(p_values)
    corrected = holm(given_p)
    assert (corrected >= given_p).all()
    assert (corrected <= np.minimum(1, given_p * len(given_p)) + 1e-12).all()
    assert (np.diff(corrected[np.argsort(given_p, kind="stable")]) >= 0).all()


def test_bootstrap_percentiles_are_scipys() -> None:
    one, other = skewed(150, 1, 2)
    means = resampled_means(np.stack([one, other]), 20_000, 3)
    ours = np.quantile(means[:, 0] - means[:, 1], [0.025, 0.975])
    theirs = stats.bootstrap(
        (one, other), lambda x, y, axis: x.mean(axis) - y.mean(axis), paired=True, method="percentile",
        n_resamples=20_000, rng=np.random.default_rng(4),
    ).confidence_interval  # fmt: skip
    np.testing.assert_allclose(ours, theirs, atol=0.002)
    assert theirs.high - theirs.low > 0.1


def test_permutation_is_scipys() -> None:
    for seed in range(3):
        one, other = skewed(80, seed, 2)
        other = np.where(np.arange(80) % 3 == 0, other, one)
        theirs = stats.permutation_test(
            (one, other), lambda x, y, axis: x.mean(axis) - y.mean(axis), permutation_type="samples",
            vectorized=True, n_resamples=20_000, rng=np.random.default_rng(5),
        ).pvalue  # fmt: skip
        assert permutation_p((one - other)[None], 20_000, 6)[0] == pytest.approx(theirs, abs=0.015)


def test_permutation_counts_every_exchange_of_few_users() -> None:
    # Eight sign patterns of (1, 2, 3): |sum| reaches 6 in two of them.
    assert permutation_p(np.array([[1.0, 2.0, 3.0]]), 40_000, 0)[0] == pytest.approx(0.25, abs=0.01)
    assert permutation_p(np.zeros((1, 5)), 200, 0)[0] == 1.0


def test_several_blocks_of_draws_are_one_bootstrap() -> None:
    values = np.arange(30_000.0)[None]
    means = resampled_means(values, 300, 0)
    assert means.std() == pytest.approx(values.std() / np.sqrt(30_000), rel=0.15)


def test_error_rate_and_power_are_nominal() -> None:
    """300 pairs of systems a setting: no difference, and the difference said to be found in 80% of cases."""
    rng, users, level, power = np.random.default_rng(0), 250, 0.95, 0.8
    noise = rng.normal(size=(300, users)) * rng.choice([0.2, 1.0], size=(300, users))
    found = permutation_p(noise, 1000, 1)
    assert 0.02 <= (found < 0.05).mean() <= 0.085
    limits = np.array([Crossed.of(row[None]).resolvable(level, power) for row in noise])
    assert 0.73 <= (permutation_p(noise + limits[:, None], 1000, 2) < 0.05).mean() <= 0.87


def crossed_values(rng: np.random.Generator, seeds: int, users: int, seed_spread: float) -> np.ndarray:
    """Values whose true mean is 0: effects of seeds, of users and of both together."""
    return rng.normal(0, seed_spread, (seeds, 1)) + rng.normal(0, 1, (1, users)) + rng.normal(0, 1, (seeds, users))


@pytest.mark.parametrize(("seeds", "seed_spread"), [(3, 0.0), (3, 0.15), (5, 0.15), (5, 0.5)])
def test_intervals_over_seeds_and_users_cover_the_truth(seeds: int, seed_spread: float) -> None:
    """The true standard deviation of the mean is known; intervals miss 0 about as often as they should."""
    rng, users, trials = np.random.default_rng(seeds), 120, 300
    covered, errors, rejected = [], [], []
    for _ in range(trials):
        values = crossed_values(rng, seeds, users, seed_spread)
        systems = {
            "a": {str(r): row for r, row in enumerate(values)},
            "b": {str(r): row * 0 for r, row in enumerate(values)},
        }
        pair = compare_systems(systems, QUICK)["pairs"][0]
        covered.append(pair["low"] <= 0 <= pair["high"])
        errors.append(pair["standard_error"])
        rejected.append(pair["p_value"] < 0.05)
    true = np.sqrt(seed_spread**2 / seeds + 1 / users + 1 / (seeds * users))
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(true, rel=0.2)
    assert 0.91 <= np.mean(covered) <= 0.99
    assert 0.01 <= np.mean(rejected) <= 0.09


@pytest.mark.parametrize(
    ("seeds", "spreads"),
    [
        *product([2, 3], [(0.1,) * 6, (0.02, 0.05, 0.1, 0.15, 0.2, 0.2), (0.1, 0) * 3]),
        (3, (0.02,) * 5 + (0.2,)),
        (5, (0.02,) * 5 + (0.2,)),
    ],
)
def test_no_family_of_equal_systems_is_told_apart_too_often(seeds: int, spreads: tuple[float, ...]) -> None:
    """Six equal systems whose trainings vary: after Holm's correction any false alarm in about 5% of cases."""
    rng, users, trials = np.random.default_rng(seeds), 60, 150
    alarms, small = [], []
    for _ in range(trials):
        common = rng.normal(0, 1, users)
        systems = {
            str(n): {
                str(r): common
                + rng.normal(0, 0.4, users) * (n > 0)
                + rng.normal(0, spread)
                + rng.normal(0, 0.2 * (spread > 0), users)
                for r in range(seeds)
            }
            for n, spread in enumerate(spreads)
        }
        pairs = compare_systems(systems, QUICK)["pairs"]
        alarms.append(min(pair["p_holm"] for pair in pairs) < 0.05)
        small += [pair["p_value"] < 0.001 for pair in pairs]
    assert np.mean(alarms) <= 0.1
    assert np.mean(small) <= 0.006


def test_variance_components_by_hand() -> None:
    values = np.array([[1.0, 2.0, 6.0], [3.0, 2.0, 10.0]])
    crossed = Crossed.of(values)
    by_user, by_seed = values.mean(0), values.mean(1)
    rest = sum(
        (values[r, u] - by_user[u] - by_seed[r] + 4) ** 2 for r in range(2) for u in range(3)
    )  # over (2 − 1)(3 − 1) degrees of freedom
    squares = 2 * by_user.var(ddof=1), 3 * by_seed.var(ddof=1), rest / 2
    assert crossed.mean == 4
    assert crossed.user_error == pytest.approx(by_user.std(ddof=1) / np.sqrt(3))
    assert crossed.seed_error == pytest.approx(by_seed.std(ddof=1) / np.sqrt(2))
    assert crossed.standard_error == pytest.approx(np.sqrt((squares[0] + squares[1] - squares[2]) / 6))
    wider = Crossed.of(values, SeedSquares(100, 7))
    assert wider.standard_error == pytest.approx(np.sqrt((squares[0] + 100 - squares[2]) / 6))
    assert Crossed.of(values, SeedSquares(0.1, 7)).standard_error == crossed.standard_error
    variance = squares[0] + 100 - squares[2]
    assert wider.freedom == pytest.approx(variance**2 / (squares[0] ** 2 / 2 + 100**2 / 7 + squares[2] ** 2 / 2))
    one = Crossed.of(values[:1])
    assert (one.standard_error, one.seed_error) == (pytest.approx(stats.sem(values[0])), 0.0)
    assert one.p_value() == pytest.approx(stats.ttest_1samp(values[0], 0).pvalue)


def test_seed_squares_by_hand() -> None:
    """Systems that agree are one; the others keep a part of their own, and two trainings are not believed below all."""
    values = np.array([[1.0, 2.0, 6.0], [3.0, 2.0, 10.0]])
    still = SeedSquares(0.0, 0.0)
    assert SeedSquares.of(values) == SeedSquares(pytest.approx(3 * values.mean(1).var(ddof=1)), 1)
    assert SeedSquares.of(values[:1]) == SeedSquares.of(values[[0, 0]]) == still
    assert SeedSquares.of(np.array([[1.0, 2.0], [2.0, 1.0]])) == SeedSquares(0, 1)  # varies, though not on the average
    assert SeedSpread.of([still, still]) is None
    alike = SeedSpread.of([SeedSquares(4, 2), still, SeedSquares(6, 2), SeedSquares(5, 1)])
    assert alike is not None and np.isinf(alike.weight)
    assert alike.pooled == SeedSquares(pytest.approx((2 * 4 + 2 * 6 + 5) / 5), 5)
    assert alike.of_difference(SeedSquares(4, 2), still) == alike.pooled
    assert alike.of_difference(SeedSquares(4, 2), SeedSquares(0, 1)) == SeedSquares(2 * alike.pooled.squares, 5)
    assert alike.of_difference(still) is None
    spread = SeedSpread(typical=3, weight=1.5, pooled=SeedSquares(7, 3.2))
    three, four, two = SeedSquares(4, 2), SeedSquares(20, 3), SeedSquares(4, 1)
    own = (1.5 * 3 + 2 * 4) / 3.5, (1.5 * 3 + 3 * 20) / 4.5
    assert spread.of_difference(three, four) == SeedSquares(pytest.approx(sum(own)), 3.2)
    assert spread.of_difference(three) == SeedSquares(pytest.approx(own[0]), 3.2)
    assert spread.of_difference(two, four) == SeedSquares(pytest.approx(7 + own[1]), 2.5)
    assert spread.of_difference(SeedSquares(40, 1)) == SeedSquares(pytest.approx((1.5 * 3 + 40) / 2.5), 2.5)


@pytest.mark.parametrize(("prior", "typical"), [(3.0, 2.0), (10.0, 0.01)])
def test_the_prior_of_squares_is_found_again(prior: float, typical: float) -> None:
    """Drawn as SciPy draws F, with unequal degrees of freedom; it counts half."""
    rng = np.random.default_rng(3)
    freedom = rng.integers(1, 5, 20_000) if prior < 5 else rng.integers(3, 8, 20_000)
    squares = typical * stats.f.rvs(freedom, prior, random_state=rng)
    spread = SeedSpread.of(SeedSquares(*own) for own in zip(squares, freedom, strict=True))
    assert spread is not None
    assert spread.typical == pytest.approx(typical, rel=0.1)
    assert spread.weight == pytest.approx(prior / 2, rel=0.1)


def test_differences_between_steady_systems_are_found_beside_wild_ones() -> None:
    """Of 27 systems eight vary seven times as much; pooled squares would find hardly any of six true differences."""
    rng, users = np.random.default_rng(7), 300
    found = []
    for _ in range(40):
        spreads = np.array([0.006] * 19 + [0.04] * 8)
        common = rng.normal(0, 0.25, users)
        noise = rng.normal(0, 0.06, (27, 1, users)) + rng.normal(0, 0.1, (27, 3, users))
        values = common + noise + rng.normal(0, 1, (27, 3, 1)) * spreads[:, None, None]
        values[:6] += 0.03
        own = [SeedSquares.of(one) for one in values]
        spread = SeedSpread.of(own)
        assert spread is not None
        p_values = [
            Crossed.of(values[n] - values[n + 6], spread.of_difference(own[n], own[n + 6])).p_value() for n in range(6)
        ]
        found.append(holm(np.array(p_values)) < 0.05)
    assert np.mean(found) > 0.35


def test_users_with_several_examples_count_as_one() -> None:
    """Against the mean over examples, and its error by drawing whole users."""
    rng = np.random.default_rng(2)
    counts = rng.integers(1, 6, 200)
    effect = rng.normal(0, 1, 200)
    user = np.repeat(np.arange(200), counts)
    value = effect[user] + rng.normal(0, 0.1, len(user))
    frame = pl.DataFrame({"user": [f"{u:03}" for u in user], "ndcg@10": value})
    values = user_values(frame, "ndcg@10")
    assert values.mean() == pytest.approx(value.mean())
    sums = np.bincount(user, value)
    drawn = rng.integers(200, size=(4000, 200))
    slow = (sums[drawn].sum(1) / counts[drawn].sum(1)).std()
    assert values.std() / np.sqrt(200) == pytest.approx(slow, rel=0.05)
    assert stats.sem(value) < 0.8 * slow


def test_rmse_enters_by_the_delta_method() -> None:
    error = np.random.default_rng(3).normal(0, 1.3, 400)
    frame = pl.DataFrame({"user": np.arange(400), "squared_error": error**2, "absolute_error": np.abs(error)})
    values = user_values(frame, "rmse")
    rmse = np.sqrt(np.mean(error**2))
    assert values.mean() == pytest.approx(rmse)
    assert stats.sem(values) == pytest.approx(stats.sem(error**2) / (2 * rmse))
    np.testing.assert_allclose(user_values(frame, "mae"), np.abs(error))


def test_pairs_of_systems_with_other_seeds() -> None:
    rng = np.random.default_rng(4)
    rows = rng.random((5, 50))
    systems = {
        "a": {"1": rows[0], "2": rows[1]},
        "b": {"2": rows[2], "3": rows[3]},
        "c": {"9": rows[4]},
    }
    pairs = {(p["system"], p["other"]): p for p in compare_systems(systems, QUICK)["pairs"]}
    assert pairs["a", "b"]["repetitions"] == 1  # seed 2 alone
    assert pairs["a", "b"]["difference"] == pytest.approx((rows[1] - rows[2]).mean())
    assert pairs["a", "c"]["difference"] == pytest.approx((rows[0] - rows[4]).mean())
    assert {p["test"] for p in pairs.values()} == {"permutation over users"}


def test_equal_systems_are_not_told_apart() -> None:
    row = skewed(60, 0)[0]
    pair = compare_systems({"a": {"1": row, "2": row}, "b": {"1": row, "2": row}}, QUICK)["pairs"][0]
    assert (pair["difference"], pair["low"], pair["high"], pair["p_value"], pair["p_holm"]) == (0, 0, 0, 1, 1)


def test_many_pairs_leave_room_for_small_p_values() -> None:
    values = {str(n): {"1": skewed(60, n)[0] + n} for n in range(10)}
    pairs = compare_systems(values, QUICK)["pairs"]
    assert len(pairs) == 45
    assert max(pair["p_holm"] for pair in pairs) < 0.05
