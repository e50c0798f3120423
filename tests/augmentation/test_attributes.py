"""Attributes from a language model: asked, checked, joined, used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tandemrec.augmentation.attributes import (
    AttributeConfig,
    AttributesConfig,
    attribute_prompt,
    checked,
    known_share,
    side_by_side,
    with_attributes,
    write_attributes,
)
from tandemrec.augmentation.augmented_ratings import AugmentedRatings, AugmentedRatingsConfig, ask_for_attributes
from tandemrec.data.dataset import Dataset
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.ratings import target_ratings
from tandemrec.data.split import Split, make_split
from tandemrec.errors import InputError
from tandemrec.evaluation.metrics import rmse
from tandemrec.llm.generate import GenerationConfig, _beam_search
from tandemrec.llm.recommenders.rater import Rater, RaterConfig
from tests.fixed import Fixed

GENRE = {"examples": {"Alien": "Horror"}, "values": ["Horror", "Science Fiction"]}
PAGES = {"examples": {"Emma": "474"}, "kind": "number", "low": 1, "high": 5000}
BOTH = AttributesConfig.model_validate({"columns": {"genre": GENRE, "page_count": PAGES}, "noun": "book"})
EIGHT = GenerationConfig(beams=1, batch_size=8)


@pytest.mark.parametrize(
    ("settings", "written", "value"),
    [
        (GENRE, " horror", "Horror"),
        (GENRE, "Science fiction.\nbook: Next", "Science Fiction"),
        (GENRE, "genre: Horror", "Horror"),
        (GENRE, "Romance", None),
        (GENRE, "", None),
        (PAGES, " 1,234 pages", "1234"),
        (PAGES, "about 320", "320"),
        (PAGES, "99999", None),
        (PAGES, "many", None),
        (PAGES, "1. 320", "320"),
        (PAGES, "12) 320 pages", "320"),
        (PAGES, "320.", "320"),
        (PAGES, "3.5", "3.5"),
        (PAGES, "N/A", None),
        ({"examples": {"Alien": "Ridley Scott"}}, '"Ridley Scott"', "Ridley Scott"),
        ({"examples": {"Alien": "Ridley Scott"}}, "Unknown", None),
        ({"examples": {"Alien": "Ridley Scott"}}, "Na Hong-jin", "Na Hong-jin"),
        ({"examples": {"Alien": "Ridley Scott"}}, "n/a for this film", None),
        ({"examples": {"Alien": "Ridley Scott"}}, "NA.", None),
        ({"examples": {"Alien": "Ridley Scott"}}, "I don't know this film", None),
        ({"examples": {"Alien": "Ridley Scott"}}, "a very long answer " * 9, None),
        ({"examples": {"Alien": "Ridley Scott"}}, "1979", None),
    ],
)
def test_only_what_is_asked_for_counts(settings: dict[str, Any], written: str, value: str | None) -> None:
    assert checked(written, AttributeConfig.model_validate(settings)) == value


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (PAGES | {"low": 10, "high": 2}, "low must be at most high, found low 10, high 2"),
        (GENRE | {"low": 1}, "low bounds numbers and goes with kind: number, found low 1, kind: text"),
        ({"examples": {"Alien": "Ridley Scott"}, "high": 5}, "high bounds numbers .*, found high 5, kind: text"),
        (PAGES | {"low": float("nan")}, "finite number"),
        (GENRE | {"kind": "number"}, "values are texts and go with kind: text, found kind: number"),
        (
            GENRE | {"examples": {"Emma": "Romance"}},
            "the example 'Emma' has a value that would not count: 'Romance' is none of the values Horror, Science",
        ),
        (
            PAGES | {"examples": {"Emma": "474", "Persuasion": "9999"}},
            "'Persuasion' .*: '9999' is no number of at least 1 and at most 5000",
        ),
        ({"examples": {"Emma": "many"}, "kind": "number"}, "'many' is no number"),
        ({"examples": {"Emma": " "}}, "' ' is no text of at most 60 characters with a letter"),
    ],
)
def test_attributes_that_contradict_themselves_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        AttributeConfig.model_validate(changes)


@pytest.mark.parametrize(
    "settings",
    [
        GENRE | {"examples": {"Alien": "horror", "Zzyzx": "unknown"}},
        PAGES | {"examples": {"Emma": "474 pages", "Zzyzx": "N/A"}},
        PAGES | {"examples": {"Emma": "474 pages", "Zzyzx": "na."}},
        PAGES | {"low": 474, "high": 474},
        {"examples": {"Emma": "-3"}, "kind": "number"},
    ],
)
def test_examples_at_the_bounds_or_of_something_unknown_are_right(settings: dict[str, Any]) -> None:
    AttributeConfig.model_validate(settings)


def test_the_question() -> None:
    prompt = attribute_prompt("page_count", "Persuasion", BOTH.columns["page_count"], "book")
    assert prompt == "Give the page count of each book.\n\nbook: Emma\npage count: 474\n\nbook: Persuasion\npage count:"


@pytest.fixture(scope="module")
def rated(toy: Dataset) -> Split:
    """Ratings that follow from an attribute that the items lack, whether the number in the title is even."""
    part = pl.col("item") % 2
    rows = toy.interactions.with_columns(rating=(1 + 4 * part).cast(pl.Float32))
    return make_split(Dataset(rows, toy.items.drop("series"), toy.users, toy.clock, "rated toy"), LeaveOneOut())


def knows(_: str, prompts: Sequence[str]) -> list[str]:
    """Horror for even parts; nothing of the first series."""
    asked = [prompt.split("book: ")[-1].split("\n")[0] for prompt in prompts]
    return ["?" if title.startswith("Star") else ["horror", "Science Fiction"][int(title[-1]) % 2] for title in asked]


def settings(**changes: Any) -> AugmentedRatingsConfig:
    tree: dict[str, Any] = {
        "backbone": {
            "model": "fm",
            "dim": 2,
            "features": {"items": ["genre"]},
            "training": {"epochs": 20, "learning_rate": 0.05},
        },
        "by": "Rater",
        "data": {"columns": {"genre": GENRE}, "noun": "book"},
    }
    return AugmentedRatingsConfig.model_validate(tree | changes)


def test_written_joined_and_used(rated: Split, tmp_path: Path) -> None:
    config = settings()
    frame = write_attributes(rated, config.data, knows)
    assert frame["genre"].null_count() == 4
    assert frame["genre_written"][0] == "?"
    assert frame["genre"].to_list()[4:6] == ["Science Fiction", "Horror"]
    joined = with_attributes(rated, frame, config.data)
    assert joined.dataset.items.columns == ["item_id", "title", "genre"]
    assert joined.test is rated.test
    frame.write_parquet(tmp_path / "added.parquet")
    model = AugmentedRatings(config, tmp_path / "added.parquet")
    model.fit(rated, seed=1)
    truth, _ = target_ratings(rated, rated.test)
    assert rmse(model.predict(truth.pairs), truth.value) < 1.0
    model.save(tmp_path / "model")
    again = AugmentedRatings.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(truth.pairs), model.predict(truth.pairs))
    assert pl.read_parquet(tmp_path / "model" / "augmentation.parquet").equals(frame)


def rater(folder: Path) -> Rater:
    """An untuned judge over the tiny model."""
    lm = {"build": "pretrained", "path": str(folder)}
    untuned = {"base": "FM", "lm": lm, "finetune": None, "prompt": {"similar_user": False}}
    judge = Rater(RaterConfig.model_validate(untuned), Fixed(np.zeros((60, 24))))
    judge._lm = judge._load(str(folder))
    return judge


def test_a_kill_in_one_column_keeps_what_was_answered_before(
    split: Split, nano_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = {name: {"examples": {"Alien": "Ridley Scott"}} for name in ("director", "../star")}
    backbone = {"model": "fm", "features": {"items": list(columns)}}
    config = settings(backbone=backbone, data={"columns": columns, "max_new_tokens": 3})
    judge, asked = rater(nano_folder), list[int]()
    whole = ask_for_attributes(split, config, judge, tmp_path / "whole")

    def dies_at(number: int) -> None:
        def search(lm: Any, prompts: Sequence[list[int]], *rest: Any) -> Any:
            asked.append(len(prompts))
            if len(asked) == number:
                raise KeyboardInterrupt
            return _beam_search(lm, prompts, *rest)

        asked.clear()
        monkeypatch.setattr("tandemrec.llm.generate._beam_search", search)

    monkeypatch.setattr("tandemrec.augmentation.augmented_ratings.GenerationConfig", lambda beams: EIGHT)
    dies_at(5)  # the second of the second column's three chunks
    with pytest.raises(KeyboardInterrupt):
        ask_for_attributes(split, config, judge, tmp_path / "work")
    dies_at(0)
    assert ask_for_attributes(split, config, judge, tmp_path / "work").equals(whole)
    assert asked == [8, 8]
    dies_at(0)
    assert ask_for_attributes(split, config, judge, tmp_path / "work").equals(whole)
    assert asked == []
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "work"}


def test_answers_must_leave_room_for_the_question(split: Split, nano_folder: Path, tmp_path: Path) -> None:
    judge = rater(nano_folder)
    config = settings(data={"columns": {"genre": GENRE}, "max_new_tokens": 128})
    with pytest.raises(InputError, match=r"'data.max_new_tokens': found 128, expected fewer than the 128 .*'Rater'"):
        ask_for_attributes(split, config, judge, tmp_path)
    config = settings(data={"columns": {"genre": GENRE}, "max_new_tokens": 120})
    assert ask_for_attributes(split, config, judge, tmp_path).height == 24


def test_columns_side_by_side(rated: Split) -> None:
    whole = write_attributes(rated, BOTH, knows)
    columns = {name: BOTH.model_copy(update={"columns": {name: one}}) for name, one in BOTH.columns.items()}
    frames = [write_attributes(rated, one, knows) for one in columns.values()]
    assert side_by_side(frames).equals(whole)
    assert known_share(whole, BOTH) == {"genre": 20 / 24, "page_count": 0}


def test_refusals(rated: Split, tmp_path: Path) -> None:
    config = settings()
    frame = write_attributes(rated, config.data, knows)
    joined = with_attributes(rated, frame, config.data)
    with pytest.raises(InputError, match="the items have a column 'genre' already"):
        write_attributes(joined, config.data, knows)
    with pytest.raises(InputError, match="the items have a column 'genre' already"):
        with_attributes(joined, frame, config.data)
    with pytest.raises(InputError, match="attributes are of other items"):
        with_attributes(rated, frame.reverse(), config.data)
    with pytest.raises(InputError, match="'Rater' has no language model"):
        ask_for_attributes(rated, config, object(), tmp_path)
    with pytest.raises(InputError, match="must be written first"):
        AugmentedRatings(config).fit(rated)
    with pytest.raises(ValueError, match="either a system \\('by'\\) or a chat endpoint"):
        settings(by=None)
    with pytest.raises(ValueError, match="does not use the added column 'genre'"):
        settings(backbone={"model": "fm"})
