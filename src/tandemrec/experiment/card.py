"""The run card: where a result comes from and what it cost."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections import Counter
from collections.abc import Mapping
from importlib import metadata
from typing import Any

PACKAGES = ("tandemrec", "torch", "transformers", "peft", "accelerate", "tokenizers", "polars", "numpy", "scipy")


def package_versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str | None]:
    """Installed versions; None for what is not installed."""
    versions: dict[str, str | None] = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def hardware() -> dict[str, Any]:
    """Processor, cores this process may use, memory in GiB, accelerators, threads torch uses."""
    import torch

    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "accelerators": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "torch_threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def machine_words(machine: Mapping[str, Any]) -> str:
    """What decides how fast a machine is, by its `hardware`: processor, cores and threads, accelerators.

    Two machines of the same words are taken for one.
    """
    counts = Counter(machine["accelerators"])
    several = [f"{count} × {name}" if count > 1 else name for name, count in counts.items()]
    threads = machine.get("torch_threads", machine["cores"])
    few = f" ({threads} thread{'s' * (threads != 1)})" if threads != machine["cores"] else ""
    return ", ".join([str(machine["processor"]), f"{machine['cores']} cores{few}", *several])


def peak_memory_mib() -> float:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
