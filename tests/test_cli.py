"""The command line: what it prints, and that bad input is one sentence and exit code 2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

TANDEM = [sys.executable, "-c", "from tandemrec.cli import main; main()"]
QUICK = {
    "name": "quick",
    "data": {"format": "sample"},
    "split": {"protocol": "leave-one-out"},
    "models": {"Popularity": {"model": "popularity"}, "EASE": {"model": "ease"}},
}


def tandem(*arguments: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "200"} | variables
    command = [*TANDEM, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quick")
    (folder / "quick.yaml").write_text(yaml.safe_dump(QUICK))
    done = tandem("run", "quick.yaml", "--set", "models.EASE.l2=50", "--store", "store", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "EASE" in done.stdout
    assert "ndcg@10" in done.stdout
    return folder


def test_a_run_can_be_asked_for_recommendations(quick_run: Path) -> None:
    done = tandem("recommend", "runs/quick", "--user", "3", "--k", "4", cwd=quick_run)
    assert done.returncode == 0, done.stderr
    assert "history of user 3" in done.stdout
    assert "recommended next" in done.stdout


def test_a_run_can_be_judged_again(quick_run: Path) -> None:
    done = tandem("evaluate", "runs/quick", "--set", "cutoffs=[3]", "--set", "headline=hr@3", cwd=quick_run)
    assert done.returncode == 0, done.stderr
    assert "hr@3" in done.stdout


def test_runs_can_be_compared(quick_run: Path) -> None:
    done = tandem("compare", "runs/quick", "--resamples", "400", cwd=quick_run)
    assert done.returncode == 0, done.stderr
    assert "has the best ndcg@10" in done.stdout.replace("\n", " ")
    assert (quick_run / "comparison" / "compare.tex").is_file()


def test_a_report_can_be_priced(quick_run: Path) -> None:
    page = quick_run / "runs" / "quick" / "report.html"
    assert "money" not in page.read_text()
    done = tandem("report", "runs/quick", "--price", "2.5", cwd=quick_run)
    assert done.returncode == 0, done.stderr
    assert page.read_text().count(">money<") == 2  # of systems and of stages
    for price in ("inf", "nan", "-1", "1e400"):
        refused = tandem("report", "runs/quick", "--price", price, cwd=quick_run)
        assert refused.returncode == 2
        assert "--price" in refused.stderr


def test_data_show_prints_cleaning_split_and_leaks(quick_run: Path) -> None:
    done = tandem("data", "show", "quick.yaml", "--store", "store", cwd=quick_run)
    assert done.returncode == 0, done.stderr
    assert "leak check" in done.stdout
    assert "history later than its target: none" in done.stdout


def test_data_export_writes_atomic_files(quick_run: Path, tmp_path: Path) -> None:
    done = tandem("data", "export", "quick.yaml", tmp_path / "out", "--store", "store", cwd=quick_run)
    assert done.returncode == 0, done.stderr
    assert {path.suffix for path in (tmp_path / "out").iterdir()} >= {".inter", ".item"}


def test_bundled_recipes_are_listed_shown_and_copied(tmp_path: Path) -> None:
    assert "sample" in tandem("recipes", "list", cwd=tmp_path).stdout
    shown = tandem("recipes", "show", "sample", cwd=tmp_path).stdout
    assert tandem("recipes", "copy", "sample", "mine.yaml", cwd=tmp_path).returncode == 0
    assert (tmp_path / "mine.yaml").read_text().strip() == shown.strip()
    again = tandem("recipes", "copy", "sample", "mine.yaml", cwd=tmp_path)
    assert (again.returncode, again.stderr.strip()) == (2, "error: mine.yaml exists already; nothing was written")


def test_llm_build_leaves_a_folder_and_refuses_to_overwrite(quick_run: Path) -> None:
    setting = ("models.B={model: bigrec, lm: {build: nano, millions: 0.05, vocabulary: 400, repeats: 1}}", "name=built")
    options = [part for text in setting for part in ("--set", text)]
    done = tandem("llm", "build", "quick.yaml", "lm", "--store", "store", *options, cwd=quick_run)
    assert done.returncode == 0, done.stderr
    assert (quick_run / "lm" / "model.safetensors").is_file()
    assert tandem("llm", "build", "quick.yaml", "lm", cwd=quick_run).returncode == 2


def test_doctor_and_version(tmp_path: Path) -> None:
    done = tandem("doctor", cwd=tmp_path, TANDEMREC_DATA=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "from TANDEMREC_DATA" in done.stdout
    assert "tandemrec 0.1.0" in tandem("--version", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"format": "movielens", "edition": "ml-25m"}}, "data set 'ml-25m' not found"),
        ({"data": {"format": "table", "interactions": "gone.csv"}}, "gone.csv"),
        (
            {"models": {"B": {"model": "bigrec", "lm": {"build": "pretrained", "path": "./none"}}}},
            "no model folder './none'",
        ),
        (
            {"models": {"B": {"model": "bigrec", "lm": {"build": "pretrained", "path": "empty"}}}},
            "config.json is missing",
        ),
        ({"cleaning": {"user_core": 1000}}, "cleaning left no interactions"),
        ({"nonsense": 1}, "unknown key 'nonsense'"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_half_written(tmp_path: Path, change: dict, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(QUICK | change))
    done = tandem("run", "bad.yaml", cwd=tmp_path, TANDEMREC_DATA=str(tmp_path / "data"))
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert message in done.stderr
    assert not (tmp_path / "runs").exists()
