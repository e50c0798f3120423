"""Grounding against brute force in float64, and its invariants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tandemrec.llm.grounding import Grounding, title_vectors

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
