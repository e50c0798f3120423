"""`tandem tune`: validation alone, the same trials after kill -9, pruning, files that `tandem run` takes, refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from tandemrec.cli import app
from tandemrec.conventional.direct.ease import EASE
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.evaluation import evaluate as evaluation
from tandemrec.experiment import stages
from tandemrec.experiment.recipe import load_recipe
from tandemrec.experiment.run import run
from tandemrec.experiment.search_space import USUAL, Dimension, ends, search_space, with_settings
from tandemrec.experiment.store import StageEvent
from tandemrec.experiment.tune import Tuning, tune
from tandemrec.training import TrainingConfig, watched

pytest.importorskip("optuna")
pytest.importorskip("matplotlib")

HERE = Path(__file__).parent
RECIPE = HERE / "tuned.yaml"
EASE_SPACE: dict[str, Any] = {"model": "EASE", "trials": 4, "space": {"l2": {"low": 1, "high": 1000, "log": True}}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tuning, Path]:
    """An uninterrupted search, and its store."""
    folder = tmp_path_factory.mktemp("tune")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    done = tune(load_recipe(RECIPE), folder / "out", store=folder / "store")
    torch.set_num_threads(threads)
    return done, folder


def untimed(path: Path) -> pl.DataFrame:
    return pl.read_parquet(path / "trials.parquet").drop("seconds")


def test_every_trial_is_a_row_and_the_best_one_a_recipe(finished: tuple[Tuning, Path]) -> None:
    done, folder = finished
    frame = pl.read_parquet(done.path / "trials.parquet")
    searched = ["dropout", "dim", "training.learning_rate", "norm"]
    assert frame.columns == ["trial", "state", "ndcg@10", "epochs", "best_epoch", "seconds", "reason", *searched]
    assert frame["trial"].to_list() == [1, 2, 3, 4]
    # The first trial is the recipe's own setting.
    assert frame.row(0, named=True) | {"dropout": 0.1, "dim": 16, "training.learning_rate": 1e-3} == frame.row(
        0, named=True
    )
    assert frame["dim"].dtype == pl.Int64
    assert frame["dropout"].is_between(0, 0.5).all()
    best = frame.filter(pl.col("state") == "complete").sort("ndcg@10", descending=True).row(0, named=True)
    assert done.results["best"]["trial"] == best["trial"]
    assert done.results["best"]["settings"] == {key: best[key] for key in searched}
    page = (done.path / "trials.md").read_text()
    assert all(f"\n| {number} | " in page for number in (1, 2, 3, 4))
    assert "validation part alone" in page
    plot = (done.path / "trials.svg").read_text()
    assert all(f">{word}<" in plot for word in ("trial", *searched, "best so far"))

    tuned = load_recipe(done.path / "best.yaml", {"models.EASE.l2": 10})
    assert tuned.tune is None
    rows = run(tuned, folder / "run", store=folder / "store").results["leaderboard"]
    assert {row["system"] for row in rows} == {"EASE", "SASRec"}


def test_a_trial_has_the_value_that_the_validation_part_gives(finished: tuple[Tuning, Path]) -> None:
    done, folder = finished
    recipe = load_recipe(done.path / "best.yaml", {"evaluation.part": "valid"})
    rows = run(recipe, folder / "valid", store=folder / "store").results["leaderboard"]
    value = next(row["metrics"]["ndcg@10"]["mean"] for row in rows if row["system"] == "SASRec")
    assert done.results["best"]["value"] == pytest.approx(value, rel=1e-6)


def test_kill_9_and_resume_give_the_same_trials(finished: tuple[Tuning, Path], tmp_path: Path) -> None:
    """Killed at the end of the second trial's second epoch."""
    done, _ = finished
    environment = os.environ | {"TANDEMREC_STORE": str(tmp_path / "store"), "TANDEMREC_PROGRESS": "0"}
    command = [sys.executable, str(HERE / "killed_tune.py"), str(RECIPE), str(tmp_path / "out"), "5"]
    code = subprocess.run(command, env=environment, capture_output=True, check=False).returncode
    assert code == -signal.SIGKILL
    assert not (tmp_path / "out" / "tuning.json").exists()
    events: list[StageEvent] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    tune(load_recipe(RECIPE), tmp_path / "out", store=tmp_path / "store", listen=events.append)
    torch.set_num_threads(threads)
    assert next(event.what for event in events if event.stage == "tune:SASRec") == "found"
    assert untimed(tmp_path / "out").equals(untimed(done.path))
    for name in ("tuning.json", "best.yaml", "trials.svg"):
        assert (tmp_path / "out" / name).read_bytes() == (done.path / name).read_bytes(), name


def test_more_trials_go_on_from_those_there_are(finished: tuple[Tuning, Path], tmp_path: Path) -> None:
    done, folder = finished
    events: list[StageEvent] = []
    longer = load_recipe(RECIPE, {"tune.trials": 5})
    more = tune(longer, tmp_path / "out", store=folder / "store", listen=events.append)
    assert [event.what for event in events if event.stage == "tune:SASRec"] == ["found"] * 4 + ["made"]
    assert [trial.settings for trial in more.trials[:4]] == [trial.settings for trial in done.trials]


def test_the_test_part_is_never_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials get a split without it, and the evaluator is asked for the validation part alone."""
    parts: list[str] = []
    fit, judge = EASE.fit, stages.evaluate

    def fitting(model: EASE, split: Split, **named: Any) -> Any:
        assert len(split.test) == 0
        assert len(split.valid) == 60
        return fit(model, split, **named)

    def judging(model: Any, split: Split, config: evaluation.EvaluationConfig, **named: Any) -> Any:
        parts.append(config.part)
        assert len(split.test) == 0
        return judge(model, split, config, **named)

    monkeypatch.setattr(EASE, "fit", fitting)
    monkeypatch.setattr(stages, "evaluate", judging)
    done = tune(load_recipe(RECIPE, {"tune": EASE_SPACE}), tmp_path / "out", store=tmp_path / "store")
    assert parts == ["valid"] * 4
    assert done.results["part"] == "valid"


def test_bad_trials_end_early_and_are_not_chosen(tmp_path: Path) -> None:
    """A learning rate that learns nothing, behind a good one."""
    settings = {
        "model": "SASRec",
        "trials": 3,
        "seed": 1,
        "space": {"training.learning_rate": {"choices": [1e-3, 1e-12]}},
        "pruning": {"startup_trials": 1, "warmup_epochs": 2},
    }
    done = tune(load_recipe(RECIPE, {"tune": settings}), tmp_path / "out", store=tmp_path / "store")
    bad = [trial for trial in done.trials if trial.settings["training.learning_rate"] == 1e-12]
    assert bad, "the seed draws none"
    assert {(trial.state, trial.epochs) for trial in bad} == {("pruned", 2)}
    assert done.results["best"]["trial"] == 1


def test_combinations_that_a_model_refuses_are_failed_trials(tmp_path: Path) -> None:
    space = {"heads": {"choices": [1, 3, 5, 7]}, "dim": {"choices": [4, 8]}}
    settings = {"model": "SASRec", "trials": 4, "space": space, "seed": 3}
    recipe = load_recipe(RECIPE, {"tune": settings, "models.SASRec.training.epochs": 1})
    done = tune(recipe, tmp_path / "out", store=tmp_path / "store")
    for trial in done.trials:
        assert (trial.state == "failed") == (trial.settings["heads"] != 1)
        assert trial.state != "failed" or "heads must divide dim" in trial.reason
    assert done.results["states"]["failed"] > 0


def test_rating_models_are_tuned_to_the_least_error(tmp_path: Path) -> None:
    tree = {
        "name": "ratings",
        "data": {"format": "sample"},
        "split": {"protocol": "leave-one-out"},
        "models": {"biases": {"model": "biases"}},
        "tune": {"model": "biases", "trials": 4},
    }
    done = tune(load_recipe(tree), tmp_path / "out", store=tmp_path / "store")
    assert done.results["headline"] == "rmse"
    assert done.results["best"]["value"] == min(trial.value for trial in done.trials if trial.value is not None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"droput": {"low": 0, "high": 1}}}, "key 'tune.space.droput': unknown key; known are: "),
        ({"space": {"training.rate": {"low": 0, "high": 1}}}, "key 'tune.space.training.rate': unknown key"),
        ({"space": {"dropout": {"low": 0, "high": 2}}}, "dropout=2 is refused: input should be less than 1"),
        ({"space": {"blocks": {"low": 1.5, "high": 3}}}, "blocks=1.5 is refused: input should be a valid integer"),
        ({"space": {"norm": {"choices": ["pre", "post"]}}}, "norm='post' is refused"),
        ({"space": {"dropout": {"low": 0.5, "high": 0.1}}}, "low must be below high, found 0.5 and 0.1"),
        ({"space": {"dropout": {"low": 0, "high": 0.5, "log": True}}}, "low must be above 0 where log is true"),
        ({"space": {"dropout": {"low": 0, "high": 0.5, "choices": [1]}}}, "give choices, or low and high, found both"),
        ({"space": {"model": {"choices": ["ease"]}}}, "the key 'model' cannot be searched"),
        ({"model": "SASRecc"}, "tune.model 'SASRecc' is no model of the recipe; did you mean 'SASRec'?"),
        ({"model": "Popularity", "space": None}, "the model 'popularity' has no usual one"),
        ({"model": "Best", "space": None}, "'Best' writes titles or builds on other models"),
    ],
)
def test_searches_that_cannot_be_are_refused(changes: Mapping[str, Any], message: str, tmp_path: Path) -> None:
    more = {
        "models.Popularity": {"model": "popularity"},
        "models.Best": {"model": "best", "among": ["EASE", "Popularity"]},
    }
    tree = {"tune": {"model": "SASRec", **changes}} | more
    with pytest.raises(InputError) as error:
        tune(load_recipe(RECIPE, tree), tmp_path / "out", store=tmp_path / "store")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "store").exists()


def test_a_place_that_is_a_file_is_refused_before_any_trial(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="out is a file, expected a folder for results"):
        tune(load_recipe(RECIPE, {"tune": {"model": "SASRec"}}), tmp_path / "out", store=tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_all_trials_failing_is_said(tmp_path: Path) -> None:
    settings = {"model": "SASRec", "trials": 2, "space": {"heads": {"choices": [3, 5]}}}
    with pytest.raises(InputError, match=r"all 2 trials failed, the last one because .*heads must divide dim"):
        tune(load_recipe(RECIPE, {"tune": settings}), tmp_path / "out", store=tmp_path / "store")
    assert not (tmp_path / "out").exists()


def test_a_recipe_without_the_part_is_refused() -> None:
    with pytest.raises(InputError, match="key 'tune' is missing"):
        tune(load_recipe(RECIPE, {"tune": None}))


def test_ranges_are_of_whole_numbers_where_the_key_takes_no_others() -> None:
    config = load_recipe(RECIPE).models["SASRec"]
    assert ends(config, "dim", Dimension(low=8, high=64)) == [8, 64]
    assert all(isinstance(end, int) for end in ends(config, "dim", Dimension(low=8, high=9)))
    assert all(isinstance(end, float) for end in ends(config, "training.clip_norm", Dimension(low=1, high=5)))
    assert with_settings(config, {"training.epochs": 9}).training == TrainingConfig(epochs=9, clip_norm=None)  # type: ignore[attr-defined]


def test_usual_spaces_fit_their_models() -> None:
    """Every model that has one accepts all its values."""
    names = ["mf", "lightgcn", "mixgcf", "sgl", "gru4rec", "caser", "bert4rec", "cl4srec", "dcrec", "ease", "itemknn"]
    tree = {"name": "x", "split": {"protocol": "leave-one-out"}, "models": {name: {"model": name} for name in names}}
    for name, config in load_recipe(tree).models.items():
        space = search_space(config, None)
        assert search_space(config, space) == space, name
        assert name == "ease" or set(space) <= set(USUAL)


def test_the_command_shows_its_trials(tmp_path: Path) -> None:
    tree = json.dumps(EASE_SPACE | {"trials": 2})
    arguments = ["tune", str(RECIPE), "--set", f"tune={tree}", "--out", str(tmp_path / "o"), "--store", str(tmp_path)]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "trial 1 of 2: 0." in shown.output
    assert "trial 2 of 2: 0." in shown.output
    assert "best.yaml" in shown.output


def test_a_watcher_ends_a_training_and_leaves_others_alone(finished: tuple[Tuning, Path]) -> None:
    done, _ = finished
    assert {trial.epochs for trial in done.trials if trial.state == "complete"} == {3}
    from tandemrec.training.watch import told_to_stop

    rows = [{"epoch": 1.0, "loss": 0.0, "ndcg@10": 0.5}]
    with watched(lambda curve: len(curve) > 1):
        assert not told_to_stop([])
        assert not told_to_stop(rows)
        assert told_to_stop(rows * 2)
    assert not told_to_stop(rows * 2)
