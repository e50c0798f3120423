"""`tandem select`: files with all scores, stages found again, refusals, and the validity check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from tandemrec.errors import InputError
from tandemrec.experiment.recipe import Recipe, load_recipe
from tandemrec.experiment.select import select
from tandemrec.experiment.store import StageEvent
from tandemrec.report.selection import selection_tables

TINY = Path(__file__).parent / "tiny.yaml"
SELECTION: dict[str, Any] = {
    "budget": 10,
    "surrogate": "SASRec",
    "language_model": "BIGRec",
    "selectors": {
        "DEALRec": {"selector": "dealrec", "groups": 5},
        "no effort": {"selector": "dealrec", "use_effort": False, "sampling": "greedy"},
        "Random": {"selector": "random"},
        "GraNd": {"selector": "grand"},
        "EL2N": {"selector": "el2n"},
        "CCS": {"selector": "ccs", "groups": 5},
        "TF-DCon": {"selector": "tf-dcon", "clusters": 3},
        "RecRanker": {"selector": "recranker", "clusters": 3},
    },
    "validity": {"subsets": 5, "resamples": 100},
}


def recipe_with(**changes: Any) -> Recipe:
    return load_recipe(TINY, {"selection": SELECTION | changes})


def test_every_selector_writes_its_choice_with_all_scores(tmp_path: Path) -> None:
    events: list[StageEvent] = []
    recipe = recipe_with()
    results = select(recipe, tmp_path / "out", store=tmp_path / "store", listen=events.append, validate=True)
    made = [event.stage for event in events if event.what == "made"]
    assert made.count("influence") == made.count("effort") == made.count("validity") == 1
    assert "fit:EASE" not in made
    columns = {"DEALRec": ["influence", "effort", "overall"], "no effort": ["influence", "overall"]}
    columns |= {name: ["score"] for name in ("GraNd", "EL2N", "CCS")}
    for name in SELECTION["selectors"]:
        chosen = pl.read_parquet(tmp_path / "out" / f"{name}.parquet")
        assert chosen.height == chosen["example"].n_unique() == 10
        assert chosen.columns == ["example", "user_id", "history", "target", *columns.get(name, [])]
        everything = pl.read_parquet(tmp_path / "out" / f"{name}.all.parquet")
        assert everything.height == results["examples"] == 96
        assert everything["chosen"].sum() == 10
    greedy = pl.read_parquet(tmp_path / "out" / "no effort.all.parquet").sort("influence", descending=True)
    assert greedy["chosen"].head(10).all()
    assert results["influence"]["residual"] < 1e-4
    assert -1 <= results["validity"]["low"] <= results["validity"]["score"] <= results["validity"]["high"] <= 1
    assert sum(row["budget"] for row in results["groups"]["DEALRec"]) == 10
    console = Console(width=200, record=True, file=(tmp_path / "console").open("w"))
    for table in selection_tables(results):
        console.print(table)
    assert "Spearman" in console.export_text()

    before = (tmp_path / "out" / "selection.json").read_bytes()
    again: list[StageEvent] = []
    select(recipe, tmp_path / "out", store=tmp_path / "store", listen=again.append, validate=True)
    assert {event.what for event in again} == {"found"}
    assert (tmp_path / "out" / "selection.json").read_bytes() == before
    assert json.loads(before)["budget"] == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"surrogate": None}, "'DEALRec' needs a key 'surrogate'"),
        ({"language_model": None}, "'DEALRec' needs a key 'language_model'"),
        ({"surrogate": "SASRecc"}, "surrogate 'SASRecc' is no model of the recipe"),
        ({"language_model": "EASE"}, "'EASE' is no model that writes titles"),
        ({"selectors": {"a/b": {"selector": "random"}}}, "selector name 'a/b'"),
        (
            {"selectors": {"x": {"selector": "dealrec", "grops": 3}}},
            "selection.selectors.x': unknown key 'grops'; did you mean 'groups'",
        ),
    ],
)
def test_recipes_that_cannot_select_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        recipe_with(**changes)


def test_refusals_before_and_during_selection(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="key 'selection' is missing"):
        select(load_recipe(TINY), tmp_path)
    only_random = {"selectors": {"Random": {"selector": "random"}}, "language_model": None}
    with pytest.raises(InputError, match=r"budget': found 1,000, there are 96 examples"):
        select(recipe_with(budget=1000, **only_random), tmp_path, store=tmp_path / "store")
    with pytest.raises(InputError, match="nothing to validate"):
        select(recipe_with(**only_random), tmp_path, store=tmp_path / "store", validate=True)
    wrong = recipe_with(surrogate="EASE", language_model=None, selectors={"EL2N": {"selector": "el2n"}})
    with pytest.raises(InputError, match="EASE cannot be a surrogate"):
        select(wrong, tmp_path, store=tmp_path / "store")
