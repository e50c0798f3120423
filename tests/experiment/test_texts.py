"""Texts of items that systems need are looked for before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tandemrec.data.dataset import Dataset
from tandemrec.errors import InputError
from tandemrec.experiment.recipe import load_recipe
from tandemrec.experiment.run import run

TEXTS = {"kind": "tf-idf", "columns": ["nope"]}


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"model": "tiger", "ids": {"content": TEXTS}}, "ids.content.columns"),
        ({"model": "llm-cf", "lm": {"build": "nano", "millions": 0.05}, "encoder": TEXTS}, "encoder.columns"),
    ],
    ids=["tiger", "llm-cf"],
)
def test_a_misspelt_column_is_refused_before_the_first_training(
    tmp_path: Path, config: dict[str, Any], key: str
) -> None:
    recipe = {
        "name": "misspelt",
        "data": {"format": "sample"},
        "split": {"protocol": "leave-one-out"},
        "models": {"Popularity": {"model": "popularity"}, "Own": config},
    }
    with pytest.raises(InputError, match=rf"^key 'models\.Own\.{key}': found 'nope', the items' columns of text are: "):
        run(load_recipe(recipe), tmp_path / "run", store=tmp_path / "store")
    assert not list((tmp_path / "store").glob("fit-*"))
    assert not (tmp_path / "run" / "results.json").exists()


@pytest.mark.parametrize("config", [{"model": "tiger"}, {"model": "llm-cf", "lm": {"build": "nano", "millions": 0.05}}])
def test_items_without_any_text_are_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    """TIGER's ids would all be alike, and a language model would think about numbers."""
    events = [(f"u{user}", f"B-{item}", time) for user in range(9) for time, item in enumerate(range(user, user + 5))]
    frame = pl.DataFrame(events, ["user_id", "item_id", "timestamp"], orient="row")
    recipe = load_recipe({"name": "silent", "split": {"protocol": "leave-one-out"}, "models": {"Own": config}})
    with pytest.raises(InputError, match=r"^models\.Own: no item of silent has a title or another text"):
        run(recipe, tmp_path / "run", dataset=Dataset.from_frames(frame, name="silent"), store=tmp_path / "store")
