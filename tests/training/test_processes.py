"""Several processes end where one does: data parallel, sharded (FSDP2), and resumed after a kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.llm.conftest import nano_folder, split, tiny, toy  # noqa: F401

PARTS = {
    "fsdp": {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"},
    "deepspeed": {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
        "DS_ACCELERATOR": "cpu",
    },
}
SCRIPT = Path(__file__).with_name("processes.py")


def launch(processes: int, *arguments: str | Path) -> int:
    how = str(arguments[2])
    done = start(processes, SCRIPT, *arguments, parts=next((kind for kind in PARTS if kind in how), None))
    if done.returncode and "killed" not in how:
        pytest.fail(done.stderr[-6000:])
    return done.returncode


def start(processes: int, *command: str | Path, parts: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python with arguments; `parts`: with the variables that `accelerate launch` sets for FSDP2 or DeepSpeed."""
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    return subprocess.run(
        [sys.executable, *several, *map(str, command)],
        env=environment | {"OMP_NUM_THREADS": "1", "TANDEMREC_PROGRESS": "0"} | (PARTS[parts] if parts else {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def compare(one: Path, other: Path) -> None:
    for mine, theirs in zip(*(json.loads((out / "curve.json").read_text()) for out in (one, other)), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)
    mine, theirs = (load_file(out / "weights.safetensors") for out in (one, other))
    assert mine.keys() == theirs.keys()
    for name, weight in mine.items():
        torch.testing.assert_close(weight, theirs[name], atol=1e-4, rtol=1e-3)


def folder(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


def test_two_processes_give_the_curve_of_one(tiny: Callable[[str], str], tmp_path: Path) -> None:  # noqa: F811
    model, single, double, sharded = tiny("llama"), *(folder(tmp_path, name) for name in ("one", "two", "fsdp"))
    launch(1, model, single, "plain", tmp_path / "work-one")
    launch(2, model, double, "plain", tmp_path / "work-two")
    launch(2, model, sharded, "fsdp", tmp_path / "work-fsdp")
    compare(single, double)
    compare(single, sharded)
    lines = [(tmp_path / work / "metrics.jsonl").read_text().splitlines() for work in ("work-one", "work-two")]
    for mine, theirs in zip(*lines, strict=True):
        assert json.loads(mine) == pytest.approx(json.loads(theirs), abs=1e-5)


def test_two_killed_processes_go_on(tiny: Callable[[str], str], tmp_path: Path) -> None:  # noqa: F811
    model, whole, resumed = tiny("llama"), folder(tmp_path, "whole"), folder(tmp_path, "resumed")
    launch(2, model, whole, "plain", tmp_path / "work")
    assert launch(2, model, resumed, "killed", tmp_path / "work-killed") != 0
    assert (tmp_path / "work-killed" / "last.safetensors").exists()
    launch(2, model, resumed, "plain", tmp_path / "work-killed")
    compare(whole, resumed)
    assert (tmp_path / "work" / "metrics.jsonl").read_text() == (tmp_path / "work-killed" / "metrics.jsonl").read_text()


def test_what_was_killed_in_parts_goes_on_whole(tiny: Callable[[str], str], tmp_path: Path) -> None:  # noqa: F811
    model, whole, resumed = tiny("llama"), folder(tmp_path, "whole"), folder(tmp_path, "resumed")
    launch(1, model, whole, "plain", tmp_path / "work")
    assert launch(2, model, resumed, "killed fsdp", tmp_path / "work-killed") != 0
    launch(1, model, resumed, "plain", tmp_path / "work-killed")
    compare(whole, resumed)


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="the package deepspeed is not installed")
def test_deepspeed_ends_where_one_process_does(tiny: Callable[[str], str], tmp_path: Path) -> None:  # noqa: F811
    model, single, parts, resumed = tiny("llama"), *(folder(tmp_path, name) for name in ("one", "zero", "resumed"))
    launch(1, model, single, "plain", tmp_path / "work-one")
    launch(2, model, parts, "deepspeed", tmp_path / "work-zero")
    compare(single, parts)
    assert launch(2, model, resumed, "killed deepspeed", tmp_path / "work-killed") != 0
    launch(2, model, resumed, "deepspeed", tmp_path / "work-killed")
    compare(single, resumed)


@pytest.mark.parametrize(("name", "kind"), [("fsdp2", "FSDP"), ("zero3", "DEEPSPEED")])
def test_examples_of_configurations_are_accelerates(name: str, kind: str) -> None:
    from accelerate.commands.config import load_config_from_file

    config = load_config_from_file(str(Path(__file__).parents[2] / "examples" / "accelerate" / f"{name}.yaml"))
    assert config.distributed_type == kind
    assert config.fsdp_config.get("fsdp_version", 2) == 2 and config.deepspeed_config.get("zero_stage", 3) == 3


def test_processor_time_is_that_of_all_processes(tmp_path: Path) -> None:
    """Of a stage that the second one works on, and of an attempt whose second one nobody replaced."""
    script = Path(__file__).with_name("metered.py")
    for name, attempts in (("whole", [(2, "2")]), ("resumed", [(2, "2 killed"), (1, "0")])):
        for processes, how in attempts:
            done = start(processes, script, tmp_path / name, *how.split())
            assert bool(done.returncode) == ("killed" in how), done.stderr[-6000:]
        (manifest,) = (json.loads(path.read_text()) for path in (tmp_path / name).glob("*/manifest.json"))
        assert manifest["cost"]["cpu_seconds"] > 1.9  # clocks differ in their last digits
        assert manifest["summary"] < 1  # the first process's own


def test_a_whole_run_by_two_processes(tmp_path: Path) -> None:
    """Training and generation are shared; the first process writes, and a single one finds everything finished."""
    recipe = Path(__file__).parents[1] / "experiment" / "tiny.yaml"
    places = ("--out", tmp_path / "run", "--store", tmp_path / "store")
    done = start(2, "-m", "tandemrec", "run", recipe, *places)
    assert done.returncode == 0, done.stderr[-6000:]
    results = (tmp_path / "run" / "results.json").read_bytes()
    assert done.stdout.count("fit:SASRec") == 1
    assert not list((tmp_path / "store").glob("*.draft")) + list((tmp_path / "store").glob("*.work"))
    again = start(1, "-m", "tandemrec", "run", recipe, *places)
    assert "made" not in again.stdout
    assert (tmp_path / "run" / "results.json").read_bytes() == results
    alone = start(1, "-m", "tandemrec", "run", recipe, "--out", tmp_path / "alone", "--store", tmp_path / "other")
    assert alone.returncode == 0
    places = ("--out", tmp_path / "sharded", "--store", tmp_path / "third")
    cut = start(2, "-m", "tandemrec", "run", recipe, *places, parts="fsdp")
    assert cut.returncode == 0, cut.stderr[-6000:]
    mine, theirs, third = (
        json.loads((tmp_path / name / "results.json").read_text())["leaderboard"]
        for name in ("run", "alone", "sharded")
    )
    values = [{row["system"]: row["metrics"]["ndcg@10"]["mean"] for row in rows} for rows in (mine, theirs, third)]
    assert values[0] == pytest.approx(values[1], abs=0.03)
    assert values[2] == pytest.approx(values[1], abs=0.03)
