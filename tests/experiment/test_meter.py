"""The meter sees time, work and memory, and forgets peaks from before."""

import time

import numpy as np
import pytest

from tandemrec.experiment.meter import CLEAR, Meter


def test_time_and_work_are_apart() -> None:
    meter = Meter()
    time.sleep(0.2)
    idle = meter.read()
    assert idle["seconds"] >= 0.2
    assert idle["cpu_seconds"] < idle["seconds"]
    assert idle["accelerator_seconds"] == idle["seconds"] * idle["accelerators"]


@pytest.mark.skipif(not CLEAR.exists(), reason="this system has no /proc/self/clear_refs")
def test_peaks_are_those_since_its_making() -> None:
    def fill() -> float:
        return float(np.ones(40_000_000).sum())  # 305 MiB

    first = Meter()
    fill()
    high = first.read()["peak_memory_mib"]
    low = Meter().read()["peak_memory_mib"]
    assert high - low > 250
