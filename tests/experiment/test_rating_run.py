"""A rating recipe: same run, other judgement."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats
from typer.testing import CliRunner

from tandemrec.cli import app
from tandemrec.conventional.rating.predictor import InteractionPredictor
from tandemrec.data.dataset import Dataset
from tandemrec.errors import InputError
from tandemrec.experiment.recipe import load_recipe
from tandemrec.experiment.run import Run, judge_again, run
from tandemrec.recommender import RatingPredictor
from tandemrec.report.segments import segment_tables

RECIPE = Path(__file__).parent / "rating.yaml"
MAKER = {"examples": {"Star Island": "A", "Reef Valley": "B"}}
MORE: dict[str, Any] = {"model": "augmented-ratings", "chat": {"url": "http://localhost:1", "model": "m"}}


def adding(column: str, *others: str) -> dict[str, Any]:
    """A model that reads a column it adds, and others."""
    return MORE | {
        "backbone": {"model": "fm", "features": {"items": [column, *others]}},
        "data": {"columns": {column: MAKER}},
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("rating")
    run(load_recipe(RECIPE), folder / "run", store=folder / "store")
    return folder / "run", folder / "store"


def test_the_leaderboard_starts_with_the_smallest_error(finished: tuple[Path, Path]) -> None:
    results = json.loads((finished[0] / "results.json").read_text())
    values = [row["metrics"]["rmse"]["mean"] for row in results["leaderboard"]]
    assert values == sorted(values) and set(results["leaderboard"][0]["metrics"]) == {"rmse", "mae"}
    frame = pl.read_parquet(finished[0] / "per_user.parquet")
    squared = {name: frame.filter(pl.col("system") == name)["squared_error"].to_numpy() for name in ("FM", "Biases")}
    for row in results["leaderboard"]:
        assert np.sqrt(squared[row["system"]].mean()) == pytest.approx(row["metrics"]["rmse"]["mean"], rel=1e-6)
    fm = next(row for row in results["leaderboard"] if row["system"] == "FM")
    expected = stats.ttest_rel(squared["FM"], squared["Biases"]).pvalue
    assert results["evaluation"]["reference"] == "Biases"
    assert fm["against_reference"]["rmse"]["p_value"] == pytest.approx(expected)
    assert "seconds" not in (finished[0] / "results.json").read_text()


def test_errors_by_activity_and_popularity_are_shown(finished: tuple[Path, Path]) -> None:
    opened = Run.open(finished[0])
    titles = [str(table.title) for table in segment_tables(opened.results)]
    assert titles == [
        "RMSE by user activity (training interactions)",
        "RMSE by item popularity (training interactions)",
    ]
    report = (finished[0] / "report.md").read_text()
    assert all(f"## {title}" in report for title in titles)
    assert "p against Biases" in report and "1,000 ratings" in report


def test_evaluate_shows_errors_by_activity_and_popularity(finished: tuple[Path, Path]) -> None:
    shown = CliRunner().invoke(app, ["evaluate", str(finished[0]), "--store", str(finished[1])]).output
    words = " ".join(shown.split())
    assert (
        "RMSE by user activity (training interactions)" in words
        and "RMSE by item popularity (training interactions)" in words
    )


def test_a_column_that_was_added_later_joins_by_its_name_in_the_recipe(tmp_path: Path) -> None:
    """One more column in the data and one more name in the recipe: one more field, and nothing else."""
    data = load_recipe(RECIPE).data
    assert data is not None
    plain = data.load()
    items = plain.items.with_columns(director=pl.Series([f"d{i % 7}" for i in range(plain.n_items)]))
    wider = Dataset(plain.interactions, items, plain.users, plain.clock, plain.name)
    fields = []
    for names in ("[category,year]", "[category,year,director]"):
        recipe = load_recipe(RECIPE, [f"models.FM.features.items={names}", "models.FM.training.epochs=1"])
        model = run(recipe, tmp_path / names, dataset=wider, store=tmp_path / "store").model("FM")
        assert isinstance(model, InteractionPredictor) and model.table is not None
        fields.append((model.table.fields, model.table.rows))
    assert fields[1][0] == fields[0][0] + 1
    assert fields[1][1] == fields[0][1] + 8  # seven directors and the unknown one


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"model": "fm", "features": {"items": ["colour"]}},
            r"A\.features\.items': .* has no column 'colour', found item_id",
        ),
        ({"model": "fm", "features": {"users": ["age"]}}, r"A\.features\.users': .* has no column 'age'"),
        (adding("maker", "colour"), r"A\.backbone\.features\.items': .* has no column 'colour', found .*, maker$"),
        (adding("year"), r"^key 'models\.A\.data\.columns': .* has a column 'year' already"),
    ],
)
def test_columns_are_checked_before_anything_is_trained(model: dict[str, Any], message: str, tmp_path: Path) -> None:
    stages: list[str] = []
    recipe = load_recipe(RECIPE, {"models": {"Biases": {"model": "biases"}, "A": model}})
    with pytest.raises(InputError, match=message):
        run(recipe, tmp_path / "out", store=tmp_path, listen=lambda event: stages.append(event.stage))
    assert set(stages) == {"data"}


def test_judging_again_sorts_by_another_error_and_cuts_other_groups(finished: tuple[Path, Path]) -> None:
    results = judge_again(Run.open(finished[0]), ["headline=mae", "groups=2", "reference=FM"], store=finished[1])
    values = [row["metrics"]["mae"]["mean"] for row in results["leaderboard"]]
    assert values == sorted(values)
    assert len(results["leaderboard"][0]["segments"]["user activity"]) == 2
    own = next(row for row in results["leaderboard"] if row["system"] == "FM")["against_reference"]["mae"]
    assert own["p_value"] == 1


def test_recommendations_are_the_best_rated_new_items(finished: tuple[Path, Path]) -> None:
    opened = Run.open(finished[0])
    assert isinstance(opened.model("FM"), RatingPredictor)
    history, ranking = opened.recommend("17", 5, "FM")
    assert ranking["score"].is_sorted(descending=True) and ranking["rank"].to_list() == [1, 2, 3, 4, 5]
    assert not set(history) & set(ranking["title"])


@pytest.mark.parametrize("model", ["fm", "deepfm", "autoint"])
def test_a_model_that_diverged_is_named_in_one_sentence(model: str, tmp_path: Path) -> None:
    changes = (f"models.FM.model={model}", "models.FM.training.learning_rate=1e30", "models.FM.training.epochs=1")
    options = [part for change in changes for part in ("--set", change)]
    places = ["--out", str(tmp_path / "run"), "--store", str(tmp_path / "store")]
    command = [sys.executable, "-m", "tandemrec", "run", str(RECIPE), *places, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert "predicts ratings that are not numbers: its training diverged" in line


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("models.EASE.model=ease", "the model 'EASE' is for ranking, but the evaluation is of rating"),
        ("evaluation.task=ranking", "the model 'Biases' is for rating, but the evaluation is of ranking"),
        ("evaluation.reference=Nobody", "evaluation.reference must be one of Biases, FM, found 'Nobody'"),
        ("evaluation.group=3", "key 'evaluation': unknown key 'group'; did you mean 'groups'"),
        ("evaluation.groups=0", r"key 'evaluation\.groups': input should be greater than or equal to 1, found 0"),
        ("evaluation.task=guess", "key 'evaluation': .*'guess'"),
        ("models.FM.features={items: category}", r"key 'models\.FM\.features\.items': found 'category', expected"),
        ("models.FM.features={items: [category, 1]}", r"features\.items': found \['category', 1\], expected a"),
        ("models.Deep={model: deepfm, layers: [8, -3]}", r"key 'models\.Deep\.layers\.1': .* to 1, found -3"),
    ],
)
def test_mistakes_are_named(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe(RECIPE, [override])
