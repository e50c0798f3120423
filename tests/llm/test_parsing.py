"""Answers in every form that language models have been seen to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tandemrec.llm.parsing import parse_ranking, parse_rating

CORPUS: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "answers.yaml").read_text(encoding="utf-8"))
LETTERS, TITLES = "".join(CORPUS["candidates"]), list(CORPUS["candidates"].values())


@pytest.mark.parametrize("case", CORPUS["answers"], ids=lambda case: case["why"])
def test_what_an_answer_says(case: dict[str, Any]) -> None:
    found = parse_ranking(case["text"], TITLES)
    assert "".join(LETTERS[place] for place in found.order) == case["order"]
    assert (found.duplicates, found.inventions) == (case.get("duplicates", 0), case.get("inventions", 0))
    assert found.failed == (not case["order"])


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len(CORPUS["answers"]) >= 60


@given(st.permutations(range(len(TITLES))), st.sampled_from(["; ", "\n", " > "]), st.booleans())
def test_a_list_as_asked_is_read_back(order: list[int], separator: str, quoted: bool) -> None:
    names = [f'"{TITLES[place]}"' if quoted else TITLES[place] for place in order]
    found = parse_ranking(separator.join(names), TITLES)
    assert found.order == tuple(order)
    assert (found.duplicates, found.inventions) == (0, 0)


@given(st.text(max_size=200))
def test_no_text_breaks_it_and_no_candidate_is_named_twice(text: str) -> None:
    found = parse_ranking(text, TITLES)
    assert len(set(found.order)) == len(found.order)
    assert all(0 <= place < len(TITLES) for place in found.order)


def test_titles_that_look_like_separators_and_numbers() -> None:
    titles = ["300", "2001; A Space Odyssey", "12 Angry Men (1957)", "10 Things - Part 1", "8½"]
    assert parse_ranking("12 Angry Men (1957)\n300\n8½", titles).order == (2, 0, 4)
    assert parse_ranking('"2001; A Space Odyssey"; "300"', titles).order == (1, 0)


@pytest.mark.parametrize("case", CORPUS["ratings"], ids=lambda case: repr(case["text"]))
def test_what_rating_an_answer_gives(case: dict[str, Any]) -> None:
    assert parse_rating(case["text"], 1, 5) == case["value"]


def test_ten_of_ten_is_in_range() -> None:
    assert parse_rating("10/10", 1, 10) == 10
    assert parse_rating("ten", 1, 10) == 10
