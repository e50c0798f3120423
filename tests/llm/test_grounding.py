"""Grounding against brute force in float64, and its invariants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from tandemrec.llm import grounding as module
from tandemrec.llm.grounding import Grounding, all_distances, ranks_by_distance, title_vectors

TITLES = ["Alpha", "Beta: The Return", "Gamma (1999)", 'The "Delta" Force', "Alpha", "Epsilon"]


def vector(text: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(ord(c) * (i + 1) for i, c in enumerate(text)))
    return torch.randn(16, generator=generator)


def encode(texts: list[str], shift: float = 0.0) -> torch.Tensor:
    return torch.stack([vector(text) for text in texts]) + shift


def grounding(shift: float = 0.0) -> Grounding:
    return Grounding(TITLES, title_vectors(TITLES, lambda t: encode(list(t), shift)), lambda t: encode(list(t), shift))


def test_scores_are_minus_the_distances() -> None:
    texts = ["Gamma", "Gamma (1999)", "something else", "Gamma"]
    scores = grounding().scores(texts)
    items = np.stack([vector(title).double().numpy() for title in TITLES])
    queries = np.stack([vector(text).double().numpy() for text in texts])
    np.testing.assert_allclose(scores, -np.linalg.norm(queries[:, None] - items[None], axis=-1), atol=1e-5)


@pytest.mark.parametrize("text", ['"Gamma (1999)"', ' "Gamma  (1999)" ', "Gamma (1999)"])
def test_exact_title_has_distance_zero_whatever_the_quotes(text: str) -> None:
    scores = grounding().scores([text])
    assert scores[0, 2] == 0
    assert scores[0].argmax() == 2
    assert grounding().is_title(text)
    assert not grounding().is_title(text.replace("1999", "2000"))


def test_title_with_quotes_inside_is_found() -> None:
    assert grounding().scores(['"The "Delta" Force"'])[0, 3] == 0


def test_all_items_of_a_title_are_equally_near() -> None:
    scores = grounding().scores(["Alpha"])
    assert scores[0, 0] == scores[0, 4] == 0
    scores = grounding().scores(["unknown"])
    assert scores[0, 0] == scores[0, 4] < 0


@settings(max_examples=25, deadline=None)
@given(st.floats(-1000, 1000))
def test_a_constant_added_to_all_vectors_leaves_the_order_alone(shift: float) -> None:
    texts = ["unknown", "Beta", "Epsilon"]
    np.testing.assert_array_equal(grounding().scores(texts).argsort(1), grounding(shift).scores(texts).argsort(1))


def test_near_vectors_far_from_the_origin_keep_different_distances() -> None:
    # The expansion a² - 2ab + b² in float32 gives multiples of 2⁻⁶ or so here, and many ties.
    steps = torch.linspace(0, 1, 500)[:, None] * torch.ones(8)
    titles = [f"title {i}" for i in range(500)]
    ground = Grounding(titles, steps + 300.0, lambda texts: torch.full((len(texts), 8), 299.9))
    assert len(torch.unique(ground.scores(["unknown"]))) == 500


def exact_ranks(queries: torch.Tensor, vectors: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
    """By differences in float64, one query at a time."""
    ranks = []
    for query, target in zip(queries.double().numpy(), targets.tolist(), strict=True):
        squares = ((vectors.double().numpy() - query) ** 2).sum(1)
        ranks.append((squares < squares[target]).sum() + ((squares == squares[target]).sum() - 1) / 2)
    return np.array(ranks)


@pytest.mark.parametrize("kind", ["normal", "far from the origin", "one outlying direction", "many ties"])
def test_ranks_are_those_of_exact_distances(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUERY_BLOCK", 16)
    monkeypatch.setattr(module, "ITEM_BLOCK", 100)
    generator = torch.Generator().manual_seed(0)
    vectors, queries = torch.randn(730, 64, generator=generator), torch.randn(50, 64, generator=generator)
    if kind == "far from the origin":
        vectors, queries = vectors + 3000, queries + 3000
    if kind == "one outlying direction":
        vectors[:, 3] += 1000 * torch.randn(730, generator=generator)
    if kind == "many ties":
        vectors = vectors.round().clamp(-1, 1)[:, :4].repeat(1, 16)
        queries = vectors[:50].clone()
    targets = torch.randint(730, (50,), generator=generator)
    found = ranks_by_distance(queries, vectors, targets)
    np.testing.assert_array_equal(found, exact_ranks(queries, vectors, targets))
    if kind == "many ties":
        assert (found % 1 == 0.5).any()


def test_plain_float32_products_would_give_other_ranks() -> None:
    # The data of the test above do need the second look.
    generator = torch.Generator().manual_seed(0)
    vectors, queries = torch.randn(730, 64, generator=generator), torch.randn(50, 64, generator=generator)
    plain = torch.cdist(queries + 3000, vectors + 3000, compute_mode="use_mm_for_euclid_dist")
    targets = torch.randint(730, (50,), generator=generator)
    ranks = (plain < plain.gather(1, targets[:, None])).sum(1)
    assert (ranks.numpy() != exact_ranks(queries + 3000, vectors + 3000, targets)).any()


@pytest.mark.parametrize("shift", [0.0, 3000.0])
def test_distances_are_right_to_the_last_digit(shift: float) -> None:
    generator = torch.Generator().manual_seed(1)
    vectors, queries = (
        torch.randn(300, 64, generator=generator) + shift,
        torch.randn(20, 64, generator=generator) + shift,
    )
    queries[3], queries[4] = vectors[7], vectors[8] + 1e-3
    found = all_distances(queries, vectors)
    exact = (queries.double()[:, None] - vectors.double()[None]).norm(dim=2)
    torch.testing.assert_close(found, exact.float(), atol=0.0, rtol=2e-7)
    assert found[3, 7] == 0


def test_ranks_of_texts_are_those_of_their_scores() -> None:
    texts, targets = ["Gamma", "Alpha", "something else", "Gamma", "Epsilon"], [0, 4, 1, 2, 5]
    scores = grounding().scores(texts)
    own = scores[torch.arange(5), targets][:, None]
    wanted = (scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2
    torch.testing.assert_close(grounding().ranks(texts, targets), wanted.double())
    assert grounding().ranks(["Alpha"], [4]).item() == 0.5
    assert grounding().ranks(["Epsilon"], [5]).item() == 0


def test_no_array_of_outputs_times_titles_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUERY_BLOCK", 32)
    monkeypatch.setattr(module, "ITEM_BLOCK", 32)
    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = function(*args, **(kwargs or {}))
            sizes.extend(part.numel() for part in (out if isinstance(out, list | tuple) else [out]))
            return out

    queries, vectors = torch.randn(200, 4), torch.randn(300, 4)
    with Watch():
        ranks_by_distance(queries, vectors, torch.arange(200))
    assert 0 < max(sizes) < 200 * 300 / 10
