"""The meter sees time, work and memory, forgets peaks from before, and remembers attempts that were killed."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tandemrec.experiment.meter import CLEAR, Meter
from tandemrec.experiment.store import Store


def test_time_and_work_are_apart() -> None:
    meter = Meter()
    time.sleep(0.2)
    idle = meter.read()
    assert idle["seconds"] >= 0.2
    assert idle["cpu_seconds"] < idle["seconds"]
    assert idle["accelerators"] == idle["accelerator_seconds"] == 0


@pytest.mark.parametrize(("processes", "used"), [("1", True), ("4", True), ("4", False)])
def test_a_process_is_charged_for_its_own_accelerator_where_it_used_it(
    processes: str, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a machine with eight, which this one need not have."""
    allocations = [17]
    monkeypatch.setenv("WORLD_SIZE", processes)
    monkeypatch.setenv("TANDEMREC_DEVICE", "cuda")
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda number: None)
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda number: 3 * 2**20)
    monkeypatch.setattr("torch.cuda.memory_stats", lambda number: {"allocation.all.allocated": allocations[0]})
    meter = Meter()
    allocations[0] += used
    time.sleep(0.05)
    cost = meter.read()
    assert cost["accelerators"] == int(processes) * used
    assert cost["accelerator_seconds"] == pytest.approx(cost["seconds"] * int(processes) * used, abs=0.01)
    assert cost["accelerator_peak_mib"] == 3.0 * used


@pytest.mark.skipif(not CLEAR.exists(), reason="this system has no /proc/self/clear_refs")
def test_peaks_are_those_since_its_making() -> None:
    def fill() -> float:
        return float(np.ones(40_000_000).sum())  # 305 MiB

    first = Meter()
    fill()
    high = first.read()["peak_memory_mib"]
    low = Meter().read()["peak_memory_mib"]
    assert high - low > 250


KILLED = """
import os, sys, time
from pathlib import Path
from tandemrec.experiment import meter
from tandemrec.llm.traffic import TRAFFIC
meter.NOTED = 0.05
with meter.Meter(Path(sys.argv[1])):
    TRAFFIC.count(7)
    time.sleep(0.5)
    os.kill(os.getpid(), 9)
"""


def test_a_killed_attempt_is_not_forgotten(tmp_path: Path) -> None:
    notes = tmp_path / "meter.json"
    for attempt in (1, 2):
        done = subprocess.run([sys.executable, "-c", KILLED, str(notes)], check=False, timeout=120)
        assert done.returncode == -9
        noted = json.loads(notes.read_text())
        assert noted["read_tokens"] == 7 * attempt
        assert 0.4 * attempt <= noted["seconds"] < 2 * attempt
    with Meter(notes) as meter:
        found = meter.read()
    assert found["read_tokens"] == 14
    assert found["seconds"] >= noted["seconds"]
    assert found["peak_memory_mib"] is None or found["peak_memory_mib"] >= noted["peak_memory_mib"]


def test_a_failed_attempt_counts_towards_its_stage(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def make(draft: Path, work: Path) -> None:
        time.sleep(0.2)
        if not (work / "once").exists():
            (work / "once").touch()
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        store.get("stage", {}, make)
    artifact = store.get("stage", {}, make)
    assert artifact.seconds >= 0.4
    assert artifact.manifest["cost"]["seconds"] == artifact.seconds
    assert set(artifact.manifest["files"]) == set()
