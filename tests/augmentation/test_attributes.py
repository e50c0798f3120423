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

GENRE = {"examples": {"Alien": "Horror"}, "values": ["Horror", "Science Fiction"]}
PAGES = {"examples": {"Emma": "474"}, "kind": "number", "low": 1, "high": 5000}
BOTH = AttributesConfig.model_validate({"columns": {"genre": GENRE, "page_count": PAGES}, "noun": "book"})


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
        ({"examples": {"Alien": "Ridley Scott"}}, '"Ridley Scott"', "Ridley Scott"),
        ({"examples": {"Alien": "Ridley Scott"}}, "Unknown", None),
        ({"examples": {"Alien": "Ridley Scott"}}, "I don't know this film", None),
        ({"examples": {"Alien": "Ridley Scott"}}, "a very long answer " * 9, None),
        ({"examples": {"Alien": "Ridley Scott"}}, "1979", None),
    ],
)
def test_only_what_is_asked_for_counts(settings: dict[str, Any], written: str, value: str | None) -> None:
    assert checked(written, AttributeConfig.model_validate(settings)) == value


def test_the_question() -> None:
    prompt = attribute_prompt("page_count", "Persuasion", BOTH.columns["page_count"], "book")
    assert prompt == "Give the page count of each book.\n\nbook: Emma\npage count: 474\n\nbook: Persuasion\npage count:"


@pytest.fixture(scope="module")
def rated(toy: Dataset) -> Split:
    """Ratings that follow from an attribute that the items lack, whether the number in the title is even."""
    part = pl.col("item") % 2
    rows = toy.interactions.with_columns(rating=(1 + 4 * part).cast(pl.Float32))
    return make_split(Dataset(rows, toy.items.drop("series"), toy.users, toy.clock, "rated toy"), LeaveOneOut())


def knows(prompts: Sequence[str]) -> list[str]:
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


def test_refusals(rated: Split, tmp_path: Path) -> None:
    config = settings()
    frame = write_attributes(rated, config.data, knows)
    with pytest.raises(InputError, match="the items have a column 'genre' already"):
        write_attributes(with_attributes(rated, frame, config.data), config.data, knows)
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
