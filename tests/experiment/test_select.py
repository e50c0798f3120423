"""`tandem select`: files with all scores, stages found again, refusals, and the validity check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from rich.console import Console

from tandemrec.errors import InputError
from tandemrec.experiment.compare import compare
from tandemrec.experiment.export import export_training_set
from tandemrec.experiment.recipe import Recipe, load_recipe
from tandemrec.experiment.run import Run, run
from tandemrec.experiment.select import select
from tandemrec.experiment.store import StageEvent
from tandemrec.report.selection import selection_tables
from tandemrec.report.selection_plots import write_selection_plots

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
    assert made.count("influence:SASRec") == made.count("effort") == made.count("validity") == 1
    assert "fit:EASE" not in made
    assert "fit:BIGRec" not in made  # effort is that of the model before it is fine-tuned
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
    assert results["influence"]["DEALRec"]["residual"] < 1e-4
    assert -1 <= results["validity"]["low"] <= results["validity"]["score"] <= results["validity"]["high"] <= 1
    assert sum(row["budget"] for row in results["groups"]["DEALRec"]) == 10
    console = Console(width=200, record=True, file=(tmp_path / "console").open("w"))
    for table in selection_tables(results):
        console.print(table)
    assert "Spearman" in console.export_text()

    names = {path.name for path in write_selection_plots(tmp_path / "out", results)}
    assert names == {"scatter-DEALRec.svg", "groups-DEALRec.svg", "overlap.svg", "coverage.svg"}
    pictures = {name: (tmp_path / "out" / name).read_text() for name in names}
    assert "chosen (10)" in pictures["scatter-DEALRec.svg"]
    assert "not chosen (86)" in pictures["scatter-DEALRec.svg"]
    assert all(name in pictures["overlap.svg"] for name in SELECTION["selectors"])
    write_selection_plots(tmp_path / "out", json.loads((tmp_path / "out" / "selection.json").read_text()))
    assert {name: (tmp_path / "out" / name).read_text() for name in names} == pictures

    before = (tmp_path / "out" / "selection.json").read_bytes()
    again: list[StageEvent] = []
    select(recipe, tmp_path / "out", store=tmp_path / "store", listen=again.append, validate=True)
    assert {event.what for event in again} == {"found"}
    assert (tmp_path / "out" / "selection.json").read_bytes() == before
    assert json.loads(before)["budget"] == 10


def learning(**choices: str) -> Recipe:
    """The tiny recipe, with a BIGRec for each of some selectors beside the one that learns from everything."""
    writer = load_recipe(TINY).models["BIGRec"].model_dump(mode="json")
    models = {f"models.{name}": writer | {"train_on": selector} for name, selector in choices.items()}
    return load_recipe(TINY, {"selection": SELECTION, **models})


def test_models_learn_from_what_their_selectors_chose(tmp_path: Path) -> None:
    events: list[StageEvent] = []
    recipe = learning(few="DEALRec", greedy="no effort")
    finished = run(recipe, tmp_path / "run", store=tmp_path / "store", listen=events.append)
    made = [event.stage for event in events if event.what == "made"]
    assert made.index("fit:SASRec") < made.index("influence:SASRec") < made.index("select:DEALRec")
    assert made.index("effort") < made.index("select:DEALRec") < made.index("fit:few")
    assert made.count("influence:SASRec") == made.count("language-model") == 1
    assert not {"select:CCS", "select:Random"} & set(made)
    assert finished.card["models"]["few"]["notes"]["examples"] == 10
    assert finished.card["models"]["BIGRec"]["notes"]["examples"] == 96
    stages = [stage["stage"] for stage in finished.card["stages"]]
    assert len(set(stages)) == len(stages)
    assert finished.card["chosen"]["few"]["selector"] == "DEALRec"
    assert finished.card["chosen"]["few"]["seconds"] >= finished.card["models"]["SASRec"]["seconds"]
    assert "## What was chosen" in (tmp_path / "run" / "report.md").read_text()

    select(recipe, tmp_path / "out", store=tmp_path / "store")
    chosen = pl.read_parquet(tmp_path / "out" / "DEALRec.parquet")
    lesson = finished.lesson("few").train
    users = finished.dataset().users["user_id"]
    assert users.gather(lesson.user).to_list() == chosen["user_id"].to_list()
    assert len(finished.lesson("BIGRec").train) == 96
    assert export_training_set(finished, "few", tmp_path / "few")["train"] == 10
    titles = finished.dataset().titles
    rows = [json.loads(line) for line in (tmp_path / "few" / "train.jsonl").read_text().splitlines()]
    assert [row["completion"] for row in rows] == [f' "{titles[target[0]]}"' for target in lesson.target]
    assert trl_reads(tmp_path / "few" / "train.jsonl", tmp_path) == rows

    events.clear()
    run(recipe, tmp_path / "run", store=tmp_path / "store", listen=events.append)
    assert {event.what for event in events} == {"found"}
    same = learning(few="DEALRec", greedy="no effort").model_copy(update={"training_seed": 1})
    events.clear()
    assert Run.open(run(same, tmp_path / "other", store=tmp_path / "store", listen=events.append).path).results
    made = [event.stage for event in events if event.what == "made"]
    assert {"select:DEALRec", "fit:few", "influence:SASRec"} <= set(made)
    assert not {"effort", "language-model", "split"} & set(made)

    pooled = compare([tmp_path / "run", tmp_path / "other"])["leaderboard"]
    assert {row["system"]: row["repetitions"] for row in pooled}["few"] == 2
    tree = yaml.safe_load((tmp_path / "other" / "recipe.yaml").read_text())
    tree["selection"]["budget"] = 12
    (tmp_path / "other" / "recipe.yaml").write_text(yaml.safe_dump(tree))
    apart = compare([tmp_path / "run", tmp_path / "other"])["leaderboard"]
    budgets = "few (selection.selector.budget={})"
    assert {row["system"] for row in apart} >= {budgets.format(10), budgets.format(12), "BIGRec"}


def trl_reads(file: Path, folder: Path) -> list[dict[str, str]]:
    """Rows as TRL's trainers take them."""
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    read = datasets.load_dataset("json", data_files=str(file), cache_dir=str(folder / "cache"))["train"]
    assert not trl.data_utils.is_conversational(read[0])
    assert set(read.column_names) == {"prompt", "completion"}
    return list(read)


def test_another_weight_of_effort_that_chooses_the_same_trains_nothing_again(tmp_path: Path) -> None:
    recipe = learning(few="no effort")
    for changes, expected in (
        ({}, True),
        ({"influence": {"solver": {"method": "conjugate-gradients", "tolerance": 1e-7}}}, False),
    ):
        config = SELECTION["selectors"]["no effort"] | changes
        events: list[StageEvent] = []
        changed = load_recipe(recipe.model_dump(mode="json"), {"selection.selectors.no effort": config})
        run(changed, tmp_path / "run", store=tmp_path / "store", listen=events.append)
        made = [event.stage for event in events if event.what == "made"]
        assert "influence:SASRec" in made
        assert "select:no effort" in made
        assert ("fit:few" in made) == expected


def test_effort_is_that_of_the_model_before_or_after_fine_tuning(tmp_path: Path) -> None:
    selectors = {"effort": {"selector": "dealrec", "influence": None}}
    found = {}
    for weights in ("start", "tuned"):
        changes = {"selectors": selectors, "surrogate": None, "effort": {"weights": weights}}
        events: list[StageEvent] = []
        select(recipe_with(**changes), tmp_path / weights, store=tmp_path / "store", listen=events.append)
        assert ("fit:BIGRec" in {event.stage for event in events}) == (weights == "tuned")
        found[weights] = pl.read_parquet(tmp_path / weights / "effort.all.parquet")["effort"].to_list()
    assert found["start"] != found["tuned"]


@pytest.mark.parametrize(
    ("choices", "changes", "message"),
    [
        ({"few": "DEALRek"}, {}, "'few' learns from the choice of 'DEALRek', which is no selector; there are: DEALRec"),
        ({"few": "DEALRec"}, {"selection": None}, "no selector; the recipe has no key 'selection'"),
        (
            {"few": "DEALRec"},
            {"selection.effort": {"weights": "tuned"}, "selection.language_model": "few"},
            "models build on each other in a circle: 'few' → 'few'",
        ),
        ({}, {"selection.selectors.CCS.surrogate": "SASRek"}, "surrogate 'SASRek' is no model of the recipe"),
    ],
)
def test_choices_that_cannot_be_made_are_refused(
    choices: dict[str, str], changes: dict[str, Any], message: str
) -> None:
    tree = learning(**choices).model_dump(mode="json") if "DEALRek" not in choices.values() else None
    with pytest.raises(InputError, match=message):
        if tree is None:
            learning(**choices)
        else:
            load_recipe(tree, changes)


def test_a_place_that_is_a_file_is_refused_before_any_choice(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="out is a file, expected a folder for results"):
        select(recipe_with(), tmp_path / "out", store=tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_selectors_may_have_budgets_and_surrogates_of_their_own(tmp_path: Path) -> None:
    other = load_recipe(TINY).models["SASRec"].model_dump(mode="json") | {"dim": 8}
    selectors = {
        "Random": {"selector": "random", "budget": 5},
        "one": {"selector": "dealrec", "use_effort": False},
        "two": {"selector": "dealrec", "use_effort": False, "surrogate": "small", "budget": 7},
    }
    recipe = load_recipe(TINY, {"selection": SELECTION | {"selectors": selectors}, "models.small": other})
    results = select(recipe, tmp_path / "out", store=tmp_path / "store")
    sizes = {row["selector"]: row["examples"] for row in results["coverage"]}
    assert sizes == {"all": 96, "Random": 5, "one": 10, "two": 7}
    assert sum(row["budget"] for row in results["groups"]["two"]) == 7
    assert results["influence"]["one"]["surrogate"] == "SASRec"
    assert results["influence"]["two"]["surrogate"] == "small"
    one, two = (pl.read_parquet(tmp_path / "out" / f"{name}.all.parquet")["influence"] for name in ("one", "two"))
    assert one.to_list() != two.to_list()


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
    with pytest.raises(InputError, match=r"'selection.category': found 'colour', the items have: item_id, title"):
        select(recipe_with(category="colour", **only_random), tmp_path, store=tmp_path / "store")
    with pytest.raises(InputError, match="nothing to validate"):
        select(recipe_with(**only_random), tmp_path, store=tmp_path / "store", validate=True)
    wrong = recipe_with(surrogate="EASE", language_model=None, selectors={"EL2N": {"selector": "el2n"}})
    with pytest.raises(InputError, match="EASE cannot be a surrogate"):
        select(wrong, tmp_path, store=tmp_path / "store")
