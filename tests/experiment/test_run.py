"""A whole run: repeatable to the byte, resumable after kill -9 in every stage, mended after damage."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from tandemrec.conventional.direct.ease import EASE
from tandemrec.data.dataset import Dataset
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.experiment.recipe import load_recipe
from tandemrec.experiment.run import Run, judge_again, prepare, run
from tandemrec.experiment.store import StageEvent
from tandemrec.recommender import FitReport

HERE = Path(__file__).parent
TINY = HERE / "tiny.yaml"
STAGES = [
    "data",
    "split",
    *("fit:EASE", "evaluate:EASE", "fit:SASRec", "evaluate:SASRec"),
    *("language-model", "fit:BIGRec", "evaluate:BIGRec"),
]
KILLS = [
    ("data", "end"),
    ("split", "end"),
    ("fit:EASE", "end"),
    ("fit:SASRec", "3"),
    ("evaluate:SASRec", "end"),
    ("language-model", "2"),
    ("fit:BIGRec", "5"),
    ("evaluate:BIGRec", "1"),
    ("evaluate:BIGRec", "end"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("finished")
    run(load_recipe(TINY), folder / "run", store=folder / "store")
    return folder / "run", folder / "store"


def test_a_run_leaves_what_it_promises(finished: tuple[Path, Path]) -> None:
    path, _ = finished
    assert {file.name for file in path.iterdir()} == {
        *("results.json", "report.html", "report.md", "report.tex", "per_user.parquet", "run_card.json", "recipe.yaml")
    }
    results = json.loads((path / "results.json").read_text())
    assert {row["system"] for row in results["leaderboard"]} == {"EASE", "SASRec", "BIGRec"}
    values = [row["metrics"]["ndcg@10"]["mean"] for row in results["leaderboard"]]
    assert values == sorted(values, reverse=True)
    users = pl.read_parquet(path / "per_user.parquet")
    for row in results["leaderboard"]:
        own = users.filter(pl.col("system") == row["system"])
        assert own.height == 60
        assert own["ndcg@10"].mean() == pytest.approx(row["metrics"]["ndcg@10"]["mean"])
    bigrec = next(row for row in results["leaderboard"] if row["system"] == "BIGRec")
    assert len(bigrec["outputs"]["examples"]) == 10
    assert "seconds" not in (path / "results.json").read_text()
    assert "## What BIGRec wrote" in (path / "report.md").read_text()


def test_kill_9_in_every_stage_changes_nothing(finished: tuple[Path, Path], tmp_path: Path) -> None:
    expected = (finished[0] / "results.json").read_bytes()
    environment = os.environ | {"TANDEMREC_STORE": str(tmp_path / "store")}
    made: dict[str, int] = {}
    for stage, where in KILLS:
        command = [sys.executable, str(HERE / "killed_run.py"), str(TINY), str(tmp_path / "run"), stage, where]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, (stage, where, done.stderr[-2000:])
        assert not (tmp_path / "run" / "results.json").exists()
        for name, when in made.items():
            assert (tmp_path / "store" / name / "manifest.json").stat().st_mtime_ns == when, f"{name} was made again"
        made = {path.parent.name: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("*/manifest.json")}
        if where not in ("end",) and stage != "evaluate:BIGRec":
            assert list((tmp_path / "store").glob("*.work/last.safetensors")), f"{stage} left no checkpoint"
    events: list[StageEvent] = []
    run(load_recipe(TINY), tmp_path / "run", store=tmp_path / "store", listen=events.append)
    assert [event.stage for event in events] == STAGES
    assert [event.stage for event in events if event.what == "made"] == ["evaluate:BIGRec"]
    assert (tmp_path / "run" / "results.json").read_bytes() == expected


def test_a_second_run_makes_nothing_and_damage_is_mended(finished: tuple[Path, Path], tmp_path: Path) -> None:
    path, store = finished
    expected = (path / "results.json").read_bytes()
    events: list[StageEvent] = []
    run(load_recipe(TINY), tmp_path / "again", store=store, listen=events.append)
    assert {event.what for event in events} == {"found"}
    harmed = next(store.glob("fit-EASE-*/model.safetensors"))
    harmed.write_bytes(harmed.read_bytes()[:-1] + b"\x07")
    with pytest.raises(InputError, match=r"model\.safetensors is not what was written; `tandem run .*makes it again"):
        Run.open(path).model("EASE")
    events.clear()
    run(load_recipe(TINY), tmp_path / "again", store=store, listen=events.append)
    assert [(event.stage, event.what) for event in events if event.what != "found"] == [
        *(("fit:EASE", "damaged"), ("fit:EASE", "made"))
    ]
    assert (tmp_path / "again" / "results.json").read_bytes() == expected


def test_recommendations_are_new_to_the_user(finished: tuple[Path, Path]) -> None:
    opened = Run.open(finished[0])
    for system in ("EASE", "SASRec", "BIGRec"):
        history, ranking = opened.recommend("17", 5, system)
        assert ranking["rank"].to_list() == [1, 2, 3, 4, 5]
        assert not set(history) & set(ranking["title"])
        assert ranking["score"].is_sorted(descending=True)
    with pytest.raises(InputError, match="user 'nobody' is not among the 1,000 users"):
        opened.recommend("nobody")
    with pytest.raises(InputError, match="has no system 'X', it has: EASE, SASRec, BIGRec"):
        opened.recommend("17", system="X")


def test_judging_again_trains_nothing(finished: tuple[Path, Path]) -> None:
    path, store = finished
    events: list[StageEvent] = []
    opened = Run.open(path)
    results = judge_again(opened, ["cutoffs=[1,10]", "exclude_seen=false"], store=store, listen=events.append)
    assert [event.stage for event in events] == ["evaluate:EASE", "evaluate:SASRec", "evaluate:BIGRec"]
    assert "seen items NOT excluded" in results["evaluation"]["protocol"]
    assert set(results["leaderboard"][0]["metrics"]) == {
        f"{name}@{k}" for name in ("hr", "ndcg", "mrr") for k in (1, 10)
    }
    with pytest.raises(InputError, match="unknown key 'cutofs'"):
        judge_again(opened, ["cutofs=[1]"], store=store)
    # A part that the resolved recipe has as null.
    drawn = judge_again(opened, ["sampled.negatives=20", "ties=optimistic"], store=store)
    assert "20 SAMPLED items a user" in drawn["evaluation"]["protocol"]
    assert "of ties the target comes FIRST" in drawn["evaluation"]["protocol"]
    assert all(row["metrics"]["hr@10"]["mean"] > 0.3 for row in drawn["leaderboard"])


def test_a_data_frame_is_a_data_source(tmp_path: Path) -> None:
    users = [user for user in range(40) for _ in range(5)]
    events = pl.DataFrame({"user_id": users, "item_id": [(u + n) % 12 for n, u in enumerate(users)]})
    data = Dataset.from_frames(events.with_columns(timestamp=pl.int_range(pl.len())), name="mine")
    recipe = load_recipe(
        {"name": "mine", "split": {"protocol": "leave-one-out"}, "models": {"Popularity": {"model": "popularity"}}}
    )
    results = run(recipe, tmp_path / "run", dataset=data).results
    assert results["data"]["name"] == "mine"
    with pytest.raises(InputError, match="key 'data' is missing and no dataset was passed"):
        run(recipe, tmp_path / "run")
    split, cleaning = prepare(recipe, data)
    assert split.dataset.n_users == 40
    assert cleaning[0]["step"] == "as read"


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no finished run: results\.json is missing"):
        Run.open(tmp_path)


@pytest.mark.parametrize("content", ["{}", "[]", "1", "{", ""])
@pytest.mark.parametrize("name", ["results.json", "run_card.json"])
def test_a_folder_with_other_json_is_refused(
    finished: tuple[Path, Path], tmp_path: Path, name: str, content: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=f"is no finished run: {re.escape(name)} ") as error:
        Run.open(folder)
    assert "\n" not in str(error.value)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(InputError, match="is no finished run: "):
        Run.open(folder)


def test_a_run_that_is_written_again_is_unfinished_until_the_end(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while it is written, it is no run, rather than one of new settings and old figures."""
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)

    def killed(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("tandemrec.experiment.run.markdown_page", killed)
    with pytest.raises(KeyboardInterrupt):
        run(load_recipe(TINY), folder, store=finished[1])
    with pytest.raises(InputError, match=r"results\.json is missing"):
        Run.open(folder)


def test_training_seeds_share_data_split_and_language_model(finished: tuple[Path, Path], tmp_path: Path) -> None:
    events: list[StageEvent] = []
    other = run(load_recipe(TINY, {"training_seed": 8}), tmp_path / "run", store=finished[1], listen=events.append)
    state = {event.stage: event.what for event in events}
    assert {state[stage] for stage in ("data", "split", "language-model")} == {"found"}
    assert {state[stage] for stage in ("fit:SASRec", "fit:BIGRec")} == {"made"}
    assert other.results["seed"] == 7 and other.results["training_seed"] == 8


def test_other_test_examples_and_other_histories_of_them_train_nothing_again(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    events: list[StageEvent] = []
    changed = {"split.sample.test": 50, "split.test_history": "train"}
    other = run(load_recipe(TINY, changed), tmp_path / "run", store=finished[1], listen=events.append)
    made = {event.stage for event in events if event.what == "made"}
    assert made == {"split", *(stage for stage in STAGES if stage.startswith("evaluate:"))}
    assert other.results["evaluation"]["n"] == 50
    assert "validation item not in the test history" in other.results["split"]["protocol"]


def test_training_is_never_shown_a_test_example(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[int] = []
    fit = EASE.fit

    def watched(self: EASE, split: Split, *, seed: int, workspace: Path | None = None) -> FitReport:
        shown.append(len(split.test))
        return fit(self, split, seed=seed, workspace=workspace)

    monkeypatch.setattr(EASE, "fit", watched)
    run(load_recipe(TINY, {"models.EASE.l2": 50}), tmp_path / "run", store=finished[1])
    assert shown == [0]
