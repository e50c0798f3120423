"""Columns that a recipe names are looked for before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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
