"""What questions look like, and that they fit."""

from __future__ import annotations

import pytest

from tandemrec.errors import InputError
from tandemrec.llm.model import LanguageModel
from tandemrec.llm.questions import (
    Question,
    QuestionConfig,
    answer_tokens,
    fitting_heads,
    head_text,
    list_text,
    place_text,
    rating_text,
    tail_text,
)

TITLES = ["Alpha", "Beta; or not", "Gamma", "Delta"]
FILMS = QuestionConfig(noun="films", singular="film", verb="watched")
SHORT = FILMS.model_copy(update={"template": "compact"})
RANK = Question("listwise", [0, 1], [5.0, None], [2], [4.0], [3, 0], [0, 3])
RATE = Question("rating", [0, 1], [5.0, 3.5], [2], [4.0])


def test_a_listwise_question_has_all_fields() -> None:
    assert head_text(RANK, TITLES, (1, 5), FILMS) == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n### Instruction:\n"
        "Given the films the user has watched, rank the candidate films by how much the user will like "
        'them, best first. Write their titles in quotes, separated by "; ".\n\n### Input:\n'
        'Interaction History: "Alpha"; "Beta; or not"\nSimilar User Interaction History: "Gamma"\n'
        'Candidate Items: "Delta"; "Alpha"\nConventional Model Prediction: "Alpha"; "Delta"\n\n### Response:\n'
    )


def test_a_rating_question_shares_its_head() -> None:
    head = head_text(RATE, TITLES, (1, 5), FILMS)
    assert head.endswith(
        "predict the rating of the candidate film, from 1 (worst) to 5 (best). Answer with the number alone.\n\n"
        '### Input:\nRating History: "Alpha": 5; "Beta; or not": 3.5\nSimilar User Rating History: "Gamma": 4\n'
    )
    tail = tail_text("rating", "Delta", rating_text(3.247), FILMS)
    assert tail == 'Candidate Item: "Delta"\nConventional Model Prediction: 3.2\n\n### Response:\n'


def test_the_compact_form() -> None:
    assert head_text(RANK, TITLES, (1, 5), SHORT) == (
        'watched: "Alpha"; "Beta; or not"\nsimilar: "Gamma"\n'
        'candidates: "Delta"; "Alpha"\nhint: "Alpha"; "Delta"\nranking:'
    )
    assert tail_text("like", "Delta", place_text(2, 10), SHORT) == 'film: "Delta"\nhint: place 2 of 10\nlikes:'
    assert list_text(["Alpha", "Beta; or not"]) == '"Alpha"; "Beta; or not"'


@pytest.mark.parametrize("switch", ["similar_user", "prediction"])
def test_hints_can_be_switched_off(switch: str) -> None:
    config = SHORT.model_copy(update={switch: False})
    lines = head_text(RANK, TITLES, (1, 5), config).splitlines()
    tail = tail_text("like", "Delta", "place 2 of 10", config)
    assert [line.split(":")[0] for line in lines].count("similar") == (switch != "similar_user")
    assert [line.split(":")[0] for line in lines].count("hint") == (switch != "prediction")
    assert ("hint" in tail) == (switch != "prediction")


def test_the_oldest_items_are_left_out_until_it_fits(nano: LanguageModel) -> None:
    titles = [f"Star {i}" for i in range(40)]
    config = SHORT.model_copy(update={"history": 40})
    question = Question("listwise", list(range(20)), [None] * 20, list(range(20, 40)), [None] * 20, [1, 2], [2, 1])
    (ids,) = fitting_heads(nano, [question], titles, (1, 5), config, 20)
    text = nano.tokenizer.decode(ids)
    assert nano.context - 30 < len(ids) <= nano.context - 20
    assert 'candidates: "Star 1"; "Star 2"\nhint: "Star 2"; "Star 1"\nranking:' in text
    assert '"Star 19"\n' in text
    assert '"Star 39"\n' in text
    assert '"Star 0"' not in text
    with pytest.raises(InputError, match="tokens without any history, but 8 fit"):
        fitting_heads(nano, [question], titles, (1, 5), config, nano.context - 8)


def test_answers_end(nano: LanguageModel) -> None:
    (ids,) = answer_tokens(nano, ["4"], SHORT)
    assert nano.tokenizer.decode(ids) == " 4</s>"
