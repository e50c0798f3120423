"""Several processes end where one does: data parallel, sharded (FSDP2), and resumed after a kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.llm.conftest import nano_folder, split, tiny, toy  # noqa: F401

SCRIPT = Path(__file__).with_name("processes.py")


def launch(processes: int, *arguments: str | Path) -> int:
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    done = subprocess.run(
        [sys.executable, *several, str(SCRIPT), *map(str, arguments)],
        env=environment | {"OMP_NUM_THREADS": "1", "TANDEMREC_PROGRESS": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode and "killed" not in arguments:
        pytest.fail(done.stderr[-6000:])
    return done.returncode


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
    launch(2, model, sharded, "sharded", tmp_path / "work-fsdp")
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
