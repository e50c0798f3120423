"""Answers in every form that language models have been seen to write."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tandemrec.llm.parsing import CLEAR, NEAR, _Forms, _plain, parse_ranking, parse_rating
from tandemrec.llm.questions import list_text

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


ODD = [
    "E.T. the Extra-Terrestrial (1982)",
    "G. I. Blues (1960)",
    'Toy 12" Ball',
    "V",
    "Q",
    "M. Butterfly (1993)",
    '7" Set; Blue',
    "I.Q. (1994)",
    "S.T.A.L.K.E.R.",
    "300",
    "$",
]


@given(st.sampled_from(TITLES), st.integers(0, 40), st.sampled_from(["", "x", "ab"]))
def test_quick_bounds_hide_no_similar_title(title: str, place: int, typed: str) -> None:
    """Misspelt names, found by the similarity of all titles without any bound."""
    name = _plain(title[:place] + typed + title[place + 1 :])
    forms, numbers = _Forms(TITLES), re.findall(r"\d+", name)
    able = {form for form in forms.bare if re.findall(r"\d+", form) == numbers}
    scores = sorted(((SequenceMatcher(None, name, form).ratio(), form) for form in able), reverse=True)[:2]
    clear = scores and scores[0][0] >= NEAR and (len(scores) == 1 or scores[0][0] - scores[1][0] >= CLEAR)
    assert [forms.bare[i] for i in forms._near(name)] == ([scores[0][1]] if clear else [])


@given(st.permutations(range(len(ODD) - 1)), st.booleans())
def test_titles_with_marks_letters_and_numbers_are_read_back(order: list[int], cut: bool) -> None:
    """In the form that models are tuned to write; the last title may be cut off."""
    asked = list_text([ODD[place] for place in order])
    assert parse_ranking(asked[:-1] if cut else asked, ODD).order == tuple(order)


@pytest.mark.parametrize("form", ['"{}"; "{}"', "1. {}\n2. {}", "a) {}\nb) {}", "- {}\n- {}", "{}; {}"])
def test_initials_are_no_bullets(form: str) -> None:
    assert parse_ranking(form.format(ODD[0], ODD[1]), ODD).order == (0, 1)
    assert parse_ranking(form.format(ODD[7], ODD[8]), ODD).order == (7, 8)


def test_sequels_that_are_no_candidates_are_inventions() -> None:
    titles = ["Toy Story (1995)", "Alien (1979)", "Rocky (1976)"]
    found = parse_ranking("1. Toy Story 2 (1999)\n2. Toy Story (1995)\n3. Alien 3 (1992)\n4. Rocky II", titles)
    assert (found.order, found.duplicates, found.inventions) == ((0,), 0, 3)
    assert parse_ranking("Alien 9/10\nRocky: great\nToy Story (1996)", titles).order == (1, 2, 0)


def test_nothing_names_no_title_without_letters() -> None:
    assert parse_ranking("", ODD).failed and parse_ranking("I do not know", ODD).failed


@pytest.mark.parametrize("blank", [" ", "\n", "\t \n"])
def test_much_white_space_is_read_at_once(blank: str) -> None:
    """It would take hours in time that grows with the square."""
    assert parse_ranking(blank * 200_000 + "300", ODD).order == (9,)
    assert parse_rating(blank * 200_000 + "4", 1, 5) == 4


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
