"""How sure a mean over users and training seeds is, where every seed was judged by the same users."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SeedSquares:
    """What is known about how much the trainings of one system, or of a difference between two, vary.

    Attributes:
        squares: mean square of trainings, U times the variance of their means over U users.
        freedom: its degrees of freedom; 0 for a single training, and for trainings without any chance.
    """

    squares: float
    freedom: float

    @classmethod
    def of(cls, values_RU: NDArray[np.float64]) -> SeedSquares:
        """What R trainings say by themselves, judged by U users."""
        repeats, users = values_RU.shape
        if not (values_RU != values_RU[0]).any():
            return cls(0.0, 0.0)
        return cls(users * float(values_RU.mean(1).var(ddof=1)), repeats - 1.0)


@dataclass(frozen=True)
class SeedSpread:
    """How much means of trainings vary, and how differently from system to system.

    Two or three trainings of one system say next to nothing about it: by chance they often lie close together, and a
    test that believes them finds differences where there are none. Several systems, three times each, say more: theirs
    moderate a system's own mean square (Smyth 2004), the more, the less systems differ beyond chance. How much they
    differ is itself known from few systems only, so the others count half (see docs/design.md).

    Attributes:
        typical: a system's mean square before it is known, s₀².
        weight: degrees of freedom it counts for, d₀ / 2; infinite where systems differ by chance only.
        pooled: mean square of all systems, with the sum of their degrees of freedom.
    """

    typical: float
    weight: float
    pooled: SeedSquares

    @classmethod
    def of(cls, systems: Iterable[SeedSquares]) -> SeedSpread | None:
        """Over the systems whose trainings vary; None: there is none."""
        varied = [own for own in systems if own.squares > 0]
        if not varied:
            return None
        squares, freedom = np.array([[own.squares, own.freedom] for own in varied]).T
        pooled = SeedSquares(float(np.average(squares, weights=freedom)), float(freedom.sum()))
        typical, prior = _scaled_f(squares, freedom)
        return cls(pooled.squares if np.isinf(prior) else typical, prior / 2, pooled)

    def of_difference(self, *systems: SeedSquares) -> SeedSquares | None:
        """Of a difference between systems, whose trainings vary by themselves; None where none of them varies.

        Two trainings of a system leave it one degree of freedom: there, its square is not below the pooled one either.
        """
        known = [self._moderated(own) for own in systems if own.freedom]
        if not known:
            return None
        return SeedSquares(sum(one.squares for one in known), min(one.freedom for one in known))

    def _moderated(self, own: SeedSquares) -> SeedSquares:
        if np.isinf(self.weight):
            return self.pooled
        freedom = self.weight + own.freedom
        squares = (self.weight * self.typical + own.freedom * own.squares) / freedom
        if own.freedom < 2:
            squares = max(squares, self.pooled.squares)
        return SeedSquares(squares, min(freedom, self.pooled.freedom))


def _scaled_f(squares: NDArray[np.float64], freedom: NDArray[np.float64]) -> tuple[float, float]:
    """s₀² and d₀ of mean squares (G,) with degrees of freedom (G,) that follow s₀² F(freedom, d₀), by the mean and the
    variance of their logarithms; d₀ is infinite where they vary no more than by chance, or where there is one only.
    """
    from scipy import optimize, special

    logs = np.log(squares) - special.digamma(freedom / 2) + np.log(freedom / 2)
    beyond_chance = float(logs.var(ddof=1) - special.polygamma(1, freedom / 2).mean()) if len(logs) > 1 else 0.0
    if beyond_chance <= 0:
        return float(np.exp(logs.mean())), np.inf
    half = float(optimize.brentq(lambda place: special.polygamma(1, place) - beyond_chance, 1e-4, 1e8))
    return float(np.exp(logs.mean() + special.digamma(half) - np.log(half))), 2 * half


@dataclass(frozen=True)
class Crossed:
    """A mean over R trainings and U users.

    Attributes:
        mean: of all values.
        standard_error: of the mean, over other trainings and other users.
        seed_error: of the mean of R training seeds, s / √R over these trainings' own means; 0 for one training.
        user_error: of the mean over U users, s / √U over the users' means.
        freedom: degrees of freedom of `standard_error` (Satterthwaite).
    """

    mean: float
    standard_error: float
    seed_error: float
    user_error: float
    freedom: float

    @classmethod
    def of(cls, values_RU: NDArray[np.float64], seeds: SeedSquares | None = None) -> Crossed:
        """Random effects of trainings and users, crossed: Var = (MS_users + MS_seeds − MS_rest) / (R U).

        Users' and seeds' mean squares both contain the rest, which must count once. No component is negative: the
        variance is at least MS_users / (R U) and MS_seeds / (R U). One training: the usual variance over users; then
        nothing is said about other trainings.

        Args:
            values_RU: of R trainings and U users.
            seeds: what trainings of all systems say; MS_seeds is not below it, and has its degrees of freedom.
        """
        repeats, users = values_RU.shape
        mean, by_user, by_seed = float(values_RU.mean()), values_RU.mean(0), values_RU.mean(1)
        user_squares = repeats * float(by_user.var(ddof=1)) if users > 1 else 0.0
        freedom = float(max(users - 1, 1))
        user_error = np.sqrt(user_squares / values_RU.size)
        if repeats == 1:
            return cls(mean, float(user_error), 0.0, float(user_error), freedom)
        own_squares = SeedSquares.of(values_RU).squares
        seed_squares, seed_freedom = own_squares, repeats - 1.0
        if seeds is not None:
            seed_squares, seed_freedom = max(own_squares, seeds.squares), seeds.freedom
        rest_freedom = max((repeats - 1) * (users - 1), 1)
        rest = values_RU - by_user - by_seed[:, None] + mean
        rest_squares = float((rest**2).sum()) / rest_freedom
        variance = max(user_squares + seed_squares - rest_squares, user_squares, seed_squares)
        terms = (user_squares, freedom), (seed_squares, seed_freedom), (rest_squares, float(rest_freedom))
        spread = sum(squares**2 / df for squares, df in terms)
        freedom = max(variance**2 / spread, 1.0) if spread else freedom
        error, seed_error = np.sqrt([variance / values_RU.size, own_squares / values_RU.size])
        return cls(mean, float(error), float(seed_error), float(user_error), freedom)

    def p_value(self) -> float:
        """Two-sided, of the mean being 0, by Student's t; 1 where nothing varies around 0."""
        from scipy import stats

        if self.standard_error == 0:
            return float(self.mean == 0)
        return float(2 * stats.t.sf(abs(self.mean) / self.standard_error, self.freedom))

    def interval(self, replicates: NDArray[np.float64], level: float) -> tuple[float, float]:
        """Bootstrap percentiles of the mean; several trainings: stretched to the spread that `of` finds.

        Drawing seeds and users with replacement counts what only a user and a seed together explain three times
        (Owen 2007) and takes the few seeds there are for all there could be; the stretch, t · standard error over
        z · spread of the replicates, repairs both and leaves the shape.

        Args:
            replicates: means of drawn trainings and users, shape (resamples,).
            level: coverage, such as .95.
        """
        from scipy import stats

        tail = (1 - level) / 2
        low, high = np.quantile(replicates, [tail, 1 - tail])
        spread = float(replicates.std())
        if self.seed_error == 0 or spread == 0:
            return float(low), float(high)
        stretch = stats.t.isf(tail, self.freedom) * self.standard_error / (stats.norm.isf(tail) * spread)
        return self.mean + float(low - self.mean) * stretch, self.mean + float(high - self.mean) * stretch

    def resolvable(self, level: float, power: float) -> float:
        """The smallest true difference that a test at `1 − level` finds with probability `power`, given this error."""
        from scipy import stats

        quantiles = stats.t.isf((1 - level) / 2, self.freedom) + stats.t.isf(1 - power, self.freedom)
        return float(quantiles) * self.standard_error
