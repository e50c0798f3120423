"""Memory of this process in MiB, as the kernel counts it. `getrusage` would begin with that of the parent."""

from __future__ import annotations

from pathlib import Path


def resident() -> float:
    """What it holds."""
    return _status("VmRSS")


def peak() -> float:
    """What it held at most since it began, or since `reset_peak`."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Let the kernel forget the peak so far."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024
