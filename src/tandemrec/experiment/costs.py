"""The cost of a stage, as run cards keep it: measured, and foreseen."""

from __future__ import annotations

from typing import Any

from tandemrec.experiment.devices import Device
from tandemrec.experiment.store import Artifact
from tandemrec.work import Work

UNMEASURED = ("cpu_seconds", "peak_memory_mib", "accelerators", "accelerator_seconds", "accelerator_peak_mib")


def stage_id(artifact: Artifact) -> str:
    """Tells stages of one name apart."""
    return f"{artifact.name} {artifact.key[:8]}"


def stage_cost(artifact: Artifact, device: Device) -> dict[str, Any]:
    """Name, id, what `Meter` measured (None where the stage is older than the meter), the tokens that its language
    model read and wrote, and what was foreseen by the rates of a device.

    Tokens of training are told by its report, those of generation and judging by the meter.
    """
    summary = artifact.manifest["summary"]
    notes = summary.get("notes", {}) if isinstance(summary, dict) else {}
    measured: dict[str, Any] = dict.fromkeys(UNMEASURED) | {"seconds": artifact.seconds}
    measured |= artifact.manifest.get("cost", {})
    read, written = (measured.pop(name, 0) for name in ("read_tokens", "written_tokens"))
    told = [count for count in (notes.get("tokens"), read, written) if count]
    tokens = {"tokens": sum(told) if told else None, "written_tokens": written or None}
    return (
        {"stage": artifact.name, "id": stage_id(artifact)}
        | measured
        | tokens
        | {"foreseen": _foreseen(artifact, device)}
    )


def _foreseen(artifact: Artifact, device: Device) -> dict[str, Any] | None:
    """Seconds with all the epochs that training may take, and with those that it took (None: an endpoint is asked whose
    pace nobody knows), memory of the processor and of an accelerator apart; None: nobody foresaw it.
    """
    counts = artifact.manifest.get("foreseen")
    if counts is None:
        return None
    work, summary = Work(**counts), artifact.manifest["summary"]
    at_most, (held, beside) = device.seconds(work), work.held(device.kind)
    trained = summary.get("epochs") if isinstance(summary, dict) else None
    share = trained / work.epochs if trained and work.epochs else 1.0
    return {
        "seconds": None if at_most is None else round(at_most * share, 3),
        "at_most": None if at_most is None else round(at_most, 3),
        "calibrated": device.calibrated,
        "flops": work.flops + work.half_flops + work.host_flops,
        "tokens": round(work.read + work.written),
        "memory_mib": round((held if device.kind == "cpu" else beside) / 2**20, 1),
        "accelerator_mib": round((0.0 if device.kind == "cpu" else held) / 2**20, 1),
    }
