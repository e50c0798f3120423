"""What a stage costs: time, processor time, memory, accelerators, tokens."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any, Self

import torch

from tandemrec.experiment.card import peak_memory_mib
from tandemrec.experiment.files import write_whole
from tandemrec.llm.traffic import TRAFFIC
from tandemrec.training import default_device, gathered, process_count, process_rank

CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


NOTED = 10.0
"""Seconds between two notes of a meter; what a killed attempt took after its last one is forgotten."""

PEAKS = ("peak_memory_mib", "accelerators", "accelerator_peak_mib")
"""What attempts share; all else adds up."""


class Meter:
    """Measures from its making to `read`, earlier attempts at the same included; one at a time, for the peaks of memory
    are those of the whole process.
    """

    def __init__(self, notes: Path | None = None) -> None:
        """Begin.

        Args:
            notes: a file that tells what earlier attempts took and, while the meter is entered, what this one takes.
        """
        self._notes, self._done = notes, threading.Event()
        self._before: dict[str, Any] = json.loads(notes.read_text()) if notes is not None and notes.exists() else {}
        self._started, self._busy = time.monotonic(), _processor_seconds()
        self._own_peak, self._tokens = _forget_peak(), TRAFFIC.now()
        self._accelerator = _Accelerator(default_device())

    def __enter__(self) -> Self:
        self._writer = threading.Thread(target=self._take_notes, daemon=True)
        self._writer.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._writer.join()

    def read(self) -> dict[str, Any]:
        """Seconds of wall time and of all processor cores of this process (see also `of_all_processes`); peak memory in
        MiB, None where the system does not tell that of a part of a process; accelerators that were used, one a
        process, seconds × their number, and the peak of this process's; tokens that language models read and wrote for
        answers, and what endpoints charged for theirs.
        """
        now = self._attempt()
        return {name: _joined(name, self._before.get(name), value) for name, value in now.items()}

    def _attempt(self) -> dict[str, Any]:
        wall = time.monotonic() - self._started
        used = process_count() if self._accelerator.used() else 0
        return {
            "seconds": round(wall, 3),
            "cpu_seconds": round(_processor_seconds() - self._busy, 3),
            "peak_memory_mib": _peak_since() if self._own_peak else None,
            "accelerators": used,
            "accelerator_seconds": round(wall * used, 3),
            "accelerator_peak_mib": round(self._accelerator.peak_mib(), 1) if used else 0.0,
            "read_tokens": TRAFFIC.read - self._tokens.read,
            "written_tokens": TRAFFIC.written - self._tokens.written,
            "fees": TRAFFIC.fees - self._tokens.fees,
        }

    def _take_notes(self) -> None:
        """Until the end, and once more then: an attempt that failed took time too."""
        while self._notes is not None:
            ended = self._done.wait(NOTED)
            write_whole(self._notes, self.read())
            if ended:
                return


def own_notes(notes: Path) -> Path:
    """Where this process takes its notes: the first in this file, the others in numbered ones beside it."""
    return notes.with_stem(f"{notes.stem}-{process_rank()}") if process_rank() else notes


def of_all_processes(cost: dict[str, Any], notes: Path) -> dict[str, Any]:
    """What a stage cost, with the processor time of all processes (all of them must ask).

    Wall time, tokens and fees are the same in all of them, and peaks of memory are the first's.

    Args:
        cost: what this process's meter read.
        notes: those of the first process. Beside them may lie notes of processes of a killed attempt that had more.
    """
    mine = [cost["cpu_seconds"]]
    if process_rank() == 0:
        others = notes.parent.glob(f"{notes.stem}-*{notes.suffix}")
        left = [path for path in others if int(path.stem.rpartition("-")[2]) >= process_count()]
        mine += [json.loads(path.read_text())["cpu_seconds"] for path in left]
    return cost | {"cpu_seconds": round(sum(gathered(mine)), 3)}


def _joined(name: str, before: Any, now: Any) -> Any:
    """What earlier attempts and this one took together."""
    if before is None or now is None:
        return now if before is None else before
    both = max(before, now) if name in PEAKS else before + now
    return round(both, 3) if name.endswith("seconds") else both


class _Accelerator:
    """The CUDA device of this process, if it has one; others of the machine are no cost of it."""

    def __init__(self, device: torch.device) -> None:
        self._cuda, self._number, self._before = device.type == "cuda", device.index or 0, 0
        if self._ready():
            torch.cuda.reset_peak_memory_stats(self._number)
            self._before = self._allocations()

    def used(self) -> bool:
        """Whether anything was computed on it: what never asked it for memory ran elsewhere."""
        return self._ready() and self._allocations() > self._before

    def peak_mib(self) -> float:
        return float(torch.cuda.max_memory_allocated(self._number)) / 2**20

    def _ready(self) -> bool:
        """Asking a driver that nothing has started yet would start it."""
        return self._cuda and bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]

    def _allocations(self) -> int:
        return int(torch.cuda.memory_stats(self._number)["allocation.all.allocated"])


def _processor_seconds() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _forget_peak() -> bool:
    """Start the system's record of the largest resident memory anew; whether it can."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _peak_since() -> float:
    for line in STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM"):
            return round(int(line.split()[1]) / 2**10, 1)
    return peak_memory_mib()
