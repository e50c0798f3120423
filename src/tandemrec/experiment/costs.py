"""The cost of a stage, as run cards keep it."""

from __future__ import annotations

from typing import Any

from tandemrec.experiment.store import Artifact

UNMEASURED = ("cpu_seconds", "peak_memory_mib", "accelerators", "accelerator_seconds", "accelerator_peak_mib")


def stage_id(artifact: Artifact) -> str:
    """Tells stages of one name apart."""
    return f"{artifact.name} {artifact.key[:8]}"


def stage_cost(artifact: Artifact) -> dict[str, Any]:
    """Name, id, what `Meter` measured (of the attempt that finished it; None where it is older than the meter), and the
    tokens that its language model read.
    """
    summary = artifact.manifest["summary"]
    notes = summary.get("notes", {}) if isinstance(summary, dict) else {}
    measured: dict[str, Any] = dict.fromkeys(UNMEASURED) | {"seconds": artifact.seconds}
    measured |= artifact.manifest.get("cost", {})
    return {"stage": artifact.name, "id": stage_id(artifact)} | measured | {"tokens": notes.get("tokens")}
