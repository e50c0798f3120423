"""What a stage costs: time, processor time, memory, accelerators, tokens."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from tandemrec.experiment.card import peak_memory_mib
from tandemrec.llm.traffic import TRAFFIC

CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class Meter:
    """Measures from its making to `read`; one at a time, for the peaks of memory are those of the whole process."""

    def __init__(self) -> None:
        self._started, self._busy = time.monotonic(), _processor_seconds()
        self._own_peak, self._tokens = _forget_peak(), TRAFFIC.now()
        for device in _accelerators():
            device.reset()

    def read(self) -> dict[str, Any]:
        """Seconds of wall time and of all processor cores; peak memory in MiB, None where the system does not tell that
        of a part of a process; accelerators that were there, seconds × their number, and the peak of the fullest;
        tokens that language models read and wrote for answers, and what endpoints charged for theirs.
        """
        wall, devices = time.monotonic() - self._started, _accelerators()
        return {
            "seconds": round(wall, 3),
            "cpu_seconds": round(_processor_seconds() - self._busy, 3),
            "peak_memory_mib": _peak_since() if self._own_peak else None,
            "accelerators": len(devices),
            "accelerator_seconds": round(wall * len(devices), 3),
            "accelerator_peak_mib": round(max((device.peak_mib() for device in devices), default=0.0), 1),
            "read_tokens": TRAFFIC.read - self._tokens.read,
            "written_tokens": TRAFFIC.written - self._tokens.written,
            "fees": TRAFFIC.fees - self._tokens.fees,
        }


class _Accelerator:
    """A CUDA device of this process."""

    def __init__(self, torch: Any, number: int) -> None:
        self._cuda, self._number = torch.cuda, number

    def reset(self) -> None:
        self._cuda.reset_peak_memory_stats(self._number)

    def peak_mib(self) -> float:
        return float(self._cuda.max_memory_allocated(self._number)) / 2**20


def _accelerators() -> list[_Accelerator]:
    """Those that torch, if it is loaded, has used: asking for others would start a driver for nothing."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return []
    return [_Accelerator(torch, number) for number in range(torch.cuda.device_count())]


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
