"""k-means and residual k-means against literal loops."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tandemrec.llm.kmeans import kmeans, nearest, residual_kmeans, spread_start

POINTS = torch.from_numpy(np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32))


def literal(x: np.ndarray, centres: np.ndarray, rounds: int) -> np.ndarray:
    """Lloyd's rounds, point by point; a centre without points moves to the point farthest from its own centre."""
    x, centres = x.astype(np.float64), centres.astype(np.float64)
    before: list[int] = []
    for _ in range(rounds):
        square = [[((point - centre) ** 2).sum() for centre in centres] for point in x]
        codes = [int(np.argmin(row)) for row in square]
        if codes == before:
            break
        before = codes
        far = sorted(range(len(x)), key=lambda i: (-square[i][codes[i]], i))
        for k in range(len(centres)):
            members = [point for point, code in zip(x, codes, strict=True) if code == k]
            centres[k] = np.mean(members, 0) if members else x[far.pop(0)]
        centres = centres.astype(np.float32).astype(np.float64)
    return centres


def test_the_nearest_centre_is_that_of_the_least_distance() -> None:
    code, distance = nearest(POINTS, POINTS[:7])
    wanted = torch.cdist(POINTS.double(), POINTS[:7].double())
    assert torch.equal(code, wanted.argmin(1))
    torch.testing.assert_close(distance, wanted.min(1).values ** 2, atol=1e-9, rtol=1e-9)
    twice, _ = nearest(POINTS, POINTS[[3, 3]])
    assert not twice.any()  # of equally near centres the first


def test_kmeans_is_lloyds_algorithm() -> None:
    for k in (1, 5, 20):
        start = spread_start(POINTS, k, np.random.default_rng(3))
        found = kmeans(POINTS, k, np.random.default_rng(3), rounds=6)
        np.testing.assert_allclose(found, literal(POINTS.numpy(), start.numpy(), 6), atol=1e-5)


def test_a_start_is_spread_and_repeats_from_its_seed() -> None:
    far = torch.tensor([[0.0], [0.01], [100.0], [100.01], [-100.0]])
    for seed in range(10):
        start = spread_start(far, 3, np.random.default_rng(seed))
        assert len({round(float(value) / 100) for value in start}) == 3
        assert torch.equal(start, spread_start(far, 3, np.random.default_rng(seed)))


def test_a_centre_without_points_moves_to_the_farthest_point() -> None:
    x = torch.tensor([[0.0], [0.0], [0.0], [1.0], [50.0]])

    class Unlucky:
        """Draws the first point each time."""

        def integers(self, n: int) -> int:
            return 0

        def random(self) -> float:
            return 0.0

    centres = kmeans(x, 3, Unlucky(), rounds=10)  # type: ignore[arg-type]
    codes, distance = nearest(x, centres)
    assert len(set(codes.tolist())) == 3
    assert float(distance.sum()) < 1e-9


def test_residual_codes_are_kmeans_of_what_is_left() -> None:
    books, codes = residual_kmeans(POINTS, 3, 4, np.random.default_rng(5), rounds=8)
    rng, left = np.random.default_rng(5), POINTS.clone()
    for level in range(3):
        start = spread_start(left, 4, np.random.default_rng(0).__class__(_copied(rng)))
        centres = kmeans(left, 4, rng, rounds=8)
        np.testing.assert_allclose(centres, literal(left.numpy(), start.numpy(), 8), atol=1e-4)
        torch.testing.assert_close(books[level], centres)
        for row in range(len(left)):
            square = ((left[row] - centres) ** 2).sum(1)
            assert int(codes[row, level]) == int(square.argmin())
            left[row] = left[row] - centres[int(square.argmin())]
    errors = [float((POINTS - sum_of(books, codes, level)).square().sum()) for level in range(4)]
    assert errors == sorted(errors, reverse=True)
    again = residual_kmeans(POINTS, 3, 4, np.random.default_rng(5), rounds=8)
    assert torch.equal(again[0], books)
    assert torch.equal(again[1], codes)


def _copied(rng: np.random.Generator) -> np.random.BitGenerator:
    bits = np.random.PCG64()
    bits.state = rng.bit_generator.state
    return bits


def sum_of(books: torch.Tensor, codes: torch.Tensor, levels: int) -> torch.Tensor:
    chosen = [books[level][codes[:, level]] for level in range(levels)]
    return torch.stack(chosen).sum(0) if chosen else torch.zeros_like(POINTS)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(1, 8), st.integers(0, 5))
def test_any_points_get_codes_within_bounds(values: list[int], k: int, seed: int) -> None:
    x = torch.tensor(values, dtype=torch.float32)[:, None]
    books, codes = residual_kmeans(x, 2, k, np.random.default_rng(seed))
    assert books.shape == (2, k, 1)
    assert torch.isfinite(books).all()
    assert ((codes >= 0) & (codes < k)).all()
    if k >= len(set(values)):
        assert float((x - (books[0][codes[:, 0]] + books[1][codes[:, 1]])).abs().max()) < 1e-6
