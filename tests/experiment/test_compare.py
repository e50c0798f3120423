"""Runs side by side: what is pooled, what is told apart, what is refused, and what is written."""

import html
import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import yaml

from tandemrec.errors import InputError
from tandemrec.evaluation.comparison import ComparisonConfig
from tandemrec.experiment.card import machine_words
from tandemrec.experiment.compare import compare
from tandemrec.experiment.recipe import load_recipe
from tandemrec.experiment.run import run
from tandemrec.report.comparison import answer

TINY = {
    "name": "tiny",
    "data": {"format": "sample"},
    "split": {"protocol": "leave-one-out", "sample": {"test": 150}},
    "models": {
        "Popularity": {"model": "popularity"},
        "EASE_co": {"model": "ease"},
        "SASRec": {
            "model": "sasrec", "max_length": 5, "dim": 8, "blocks": 1,
            "training": {"epochs": 1, "patience": None, "clip_norm": None},
        },
    },
    "evaluation": {"cutoffs": [5, 10]},
}  # fmt: skip
QUICK = ComparisonConfig(resamples=400)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of three training seeds, and runs that differ in a setting, the split, the protocol."""
    folder = tmp_path_factory.mktemp("runs")
    changes = {
        "one": {},
        "two": {"training_seed": 2},
        "three": {"training_seed": 3},
        "wide": {"models.SASRec.dim": 16},
        "other-users": {"seed": 7},
        "seen": {"evaluation.exclude_seen": False},
        "short": {"split.history": 5},
    }
    for name, change in changes.items():
        run(load_recipe(TINY, change), folder / name, store=folder / "store")
    return folder


def test_repetitions_are_pooled_and_their_spread_is_shown(runs: Path, tmp_path: Path) -> None:
    found = compare([runs / "one", runs / "two", runs / "three"], tmp_path / "out", config=QUICK)
    rows = {row["system"]: row for row in found["leaderboard"]}
    assert set(rows) == {"Popularity", "EASE_co", "SASRec"}
    assert {row["repetitions"] for row in rows.values()} == {3}
    assert "trained once" not in answer(found)
    means = [json.loads((runs / name / "results.json").read_text())["leaderboard"] for name in ("one", "two", "three")]
    sasrec = [next(r for r in board if r["system"] == "SASRec")["metrics"]["ndcg@10"]["mean"] for board in means]
    assert len(set(sasrec)) == 3
    assert rows["SASRec"]["metrics"]["ndcg@10"]["mean"] == pytest.approx(sum(sasrec) / 3)
    assert rows["SASRec"]["metrics"]["ndcg@10"]["seed_error"] > 0
    assert rows["EASE_co"]["metrics"]["ndcg@10"]["seed_error"] == pytest.approx(0)
    assert json.loads((tmp_path / "out" / "compare.json").read_text()) == json.loads(json.dumps(found))
    markdown, latex = ((tmp_path / "out" / name).read_text() for name in ("compare.md", "compare.tex"))
    assert answer(found) in markdown
    assert r"EASE\_co" in latex
    boards = [json.loads((runs / name / "results.json").read_text())["leaderboard"] for name in ("one", "two", "three")]
    several = [next(r for r in board if r["system"] == "SASRec")["segments"]["user activity"] for board in boards]
    for place, group in enumerate(rows["SASRec"]["segments"]["user activity"]):
        mean = sum(groups[place]["ndcg@10"]["mean"] for groups in several) / 3
        assert group["ndcg@10"]["mean"] == pytest.approx(mean)
        assert group["n"] == several[0][place]["n"]
    assert found["costs"]["SASRec"]["seconds"] > 0
    assert "unbeaten in" in markdown
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {"compare.html", "compare.json", "compare.md", "compare.tex"}


def test_one_run_gives_the_figures_of_its_leaderboard(runs: Path) -> None:
    found = compare([runs / "one"], config=QUICK)
    board = {
        row["system"]: row["metrics"] for row in json.loads((runs / "one" / "results.json").read_text())["leaderboard"]
    }
    for row in found["leaderboard"]:
        for name, figure in row["metrics"].items():
            assert figure["mean"] == pytest.approx(board[row["system"]][name]["mean"])
            assert figure["standard_error"] == pytest.approx(board[row["system"]][name]["standard_error"])
    assert found["leaderboard"][0]["system"] in answer(found)
    assert len(found["pairs"]) == 3


def test_a_name_with_two_meanings_is_told_apart_and_equal_systems_count_once(runs: Path) -> None:
    found = compare([runs / "one", runs / "wide"], config=QUICK)
    assert {row["system"] for row in found["leaderboard"]} == {
        "Popularity", "EASE_co", "SASRec (dim=8)", "SASRec (dim=16)",
    }  # fmt: skip
    assert {row["repetitions"] for row in found["leaderboard"]} == {1}


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ("other-users", "seeds of drawn examples differ, found 42 and 7"),
        ("seen", "protocols of evaluation differ"),
        ("short", "splits differ, found .*history '10' and .*history '5'$"),
    ],
)
def test_what_cannot_be_compared_is_refused(runs: Path, tmp_path: Path, other: str, what: str) -> None:
    with pytest.raises(InputError, match=what):
        compare([runs / "one", runs / other], tmp_path / "out", config=QUICK)
    assert not (tmp_path / "out").exists()


def test_segments_of_another_metric_are_left_out(runs: Path) -> None:
    out = runs.parent / "by-hr"
    found = compare([runs / "one"], metric="hr@5", config=QUICK, out=out)
    page = (out / "compare.html").read_text(encoding="utf-8")
    assert "evaluation.headline=hr@5" in page
    assert "Every system was trained once, so nothing is said about other trainings." in page
    assert "torch" in page.partition("the runs did not all cut them")[2], "the run card"
    compare([runs / "one"], config=QUICK, price=2.5, out=out)
    assert "2.5 an hour" in (out / "compare.html").read_text(encoding="utf-8")
    assert not any("segments" in row for row in found["leaderboard"])


def test_runs_of_different_machines_are_said_to_be(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "two", tmp_path / "elsewhere")
    path = tmp_path / "elsewhere" / "run_card.json"
    card = json.loads(path.read_text())
    card["hardware"] |= {"processor": "Abacus", "cores": 8, "torch_threads": 1, "accelerators": ["NVIDIA L4"] * 2}
    path.write_text(json.dumps(card))
    compare([runs / "one", runs / "three"], tmp_path / "same", config=QUICK)
    found = compare([runs / "one", tmp_path / "elsewhere"], tmp_path / "out", config=QUICK)
    here = machine_words(json.loads((runs / "one" / "run_card.json").read_text())["hardware"])
    there = "Abacus, 8 cores (1 thread), 2 × NVIDIA L4"
    assert [run["machine"] for run in found["runs"]] == [here, there]
    note = f"The runs are of 2 different machines: {here}; {there}."
    for suffix in ("md", "html"):
        told, same = (html.unescape((tmp_path / out / f"compare.{suffix}").read_text()) for out in ("out", "same"))
        assert note in told
        assert "different machines" not in same
        assert same.count(here) >= 2
        assert there in told.partition(note)[2], "the table of runs"


def test_other_refusals(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="metric 'hr@7' was not measured by all runs, they share: hr@5"):
        compare([runs / "one"], metric="hr@7")
    with pytest.raises(InputError, match="no finished run"):
        compare([tmp_path])
    shutil.copytree(runs / "one", tmp_path / "changed")
    rows = pl.read_parquet(tmp_path / "changed" / "per_user.parquet")
    rows.with_columns(pl.col("ndcg@10") / 2).write_parquet(tmp_path / "changed" / "per_user.parquet")
    with pytest.raises(InputError, match="different versions of the code"):
        compare([runs / "one", tmp_path / "changed"])
    rows.with_columns(user=pl.lit("x")).write_parquet(tmp_path / "changed" / "per_user.parquet")
    with pytest.raises(InputError, match="different users"):
        compare([runs / "one", tmp_path / "changed"])


def test_rating_runs_are_compared_by_their_errors(tmp_path: Path) -> None:
    recipe = yaml.safe_load((Path(__file__).parent / "rating.yaml").read_text())
    recipe["models"] = {"Biases": {"model": "biases"}, "Mean": {"model": "biases", "damping": 1e9}}
    run(load_recipe(recipe), tmp_path / "rated", store=tmp_path / "store")
    found = compare([tmp_path / "rated"], config=QUICK)
    board = json.loads((tmp_path / "rated" / "results.json").read_text())["leaderboard"]
    assert [row["system"] for row in found["leaderboard"]] == [row["system"] for row in board]
    for ours, theirs in zip(found["leaderboard"], board, strict=True):
        assert ours["metrics"]["rmse"]["mean"] == pytest.approx(theirs["metrics"]["rmse"]["mean"])
    assert f"{board[0]['system']} has the best rmse" in answer(found)


def test_what_cannot_be_written_or_read_is_refused(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=r"file is a file, expected a folder for results$"):
            compare([runs / "one"], place)
        with pytest.raises(InputError, match=r"file is a file, expected a folder for results$"):
            run(load_recipe(TINY), place, store=tmp_path / "store")
    assert not (tmp_path / "store").exists()
    shutil.copytree(runs / "one", tmp_path / "damaged")
    (tmp_path / "damaged" / "per_user.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match=r"per_user.parquet cannot be read: .*expected the table a run writes$"):
        compare([tmp_path / "damaged"])
    (tmp_path / "damaged" / "per_user.parquet").unlink()
    with pytest.raises(InputError, match=r"per_user.parquet cannot be read"):
        compare([tmp_path / "damaged"])


def test_costs_and_errors_are_those_of_users_with_several_examples(tmp_path: Path) -> None:
    change = {"split": {"protocol": "time-windows", "sample": {"test": 150}}}
    finished = run(load_recipe(TINY, change), tmp_path / "run", store=tmp_path / "store")
    users, examples = finished.results["users"], finished.results["evaluation"]["n"]
    assert users < examples
    judging = {stage["stage"]: stage["seconds"] for stage in finished.card["stages"]}["evaluate:SASRec"]
    compared = compare([tmp_path / "run"], config=QUICK)
    costs = compared["costs"]
    assert costs["SASRec"]["seconds_per_1000"] == pytest.approx(judging / users * 1000)
    told = f"over {examples:,} examples of {users:,} users ± standard error over users"
    assert told in (tmp_path / "run" / "report.md").read_text()
    board = {row["system"]: row["metrics"] for row in finished.results["leaderboard"]}
    for row in compared["leaderboard"]:
        for name, figure in row["metrics"].items():
            assert board[row["system"]][name]["standard_error"] == pytest.approx(figure["standard_error"])
