"""`tandem plan`: what every stage of a recipe's run will take, before any of it is made.

The stages are walked as a run walks them, over a store that makes nothing: what is there is found, and of the rest
every component says what it takes. Data and split alone are made, in a scratch folder, for lengths are measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from tandemrec.data.dataset import Dataset
from tandemrec.data.locations import store_root
from tandemrec.experiment.devices import GIB, Device, here
from tandemrec.experiment.files import check_folder
from tandemrec.experiment.foresight import Foresights
from tandemrec.experiment.recipe import Recipe
from tandemrec.experiment.run import check, walk
from tandemrec.experiment.stages import CHOSEN, Stages
from tandemrec.experiment.store import MANIFEST, Artifact, Store, manifest_files
from tandemrec.llm.recommenders.base import LanguageModelUser
from tandemrec.work import Foresight, Work, switches

LIBRARIES = 0.6 * GIB
"""Memory of a processor that Python, torch and transformers take before anything is computed."""

REAL = ("data", "split")
"""Stages that a plan makes for itself."""


@dataclass(frozen=True)
class Planned:
    """A stage of a run to come.

    Attributes:
        artifact: what is there, or what stands for what will be.
        found: whether it is there already.
        foresight: what making it takes.
        seconds: what making it for the plan took, for data and split.
    """

    artifact: Artifact
    found: bool
    foresight: Foresight | None
    seconds: float | None


class PlanStore(Store):
    """A store that writes nothing: what is not there is noted, and something stands for it."""

    def __init__(self, root: Path, scratch: Path) -> None:
        """Over the store of the runs; `scratch` is forgotten with the plan."""
        self.root, self.scratch = root, scratch
        self.listen = lambda event: None
        self.planned: dict[str, Planned] = {}

    def get(
        self,
        stage: str,
        depends: Mapping[str, Any],
        make: Callable[[Path, Path], Any],
        foresight: Foresight | None = None,
    ) -> Artifact:
        """The artifact that is there, else one that stands for it: later stages that depend on it are not there."""
        key = self.key(stage, depends)
        directory = self.place(stage, key)
        if str(directory) in self.planned:
            return self.planned[str(directory)].artifact
        found, seconds = (directory / MANIFEST).is_file(), None
        if found:
            artifact = self.open(directory)
        elif stage in REAL:
            artifact, seconds = self._made(stage, key, depends, make)
        else:
            artifact = self._standing_for(stage, key, depends)
        self.planned[str(directory)] = Planned(artifact, found, foresight, seconds)
        return artifact

    def _made(
        self, stage: str, key: str, depends: Mapping[str, Any], make: Callable[[Path, Path], Any]
    ) -> tuple[Artifact, float]:
        draft, started = self.scratch / stage, time.monotonic()
        draft.mkdir()
        summary = make(draft, self.scratch)
        seconds = time.monotonic() - started
        manifest = {"stage": stage, "key": key, "depends": depends, "summary": summary}
        manifest |= {"seconds": seconds, "files": manifest_files(draft)}
        return Artifact(draft, key, manifest), seconds

    def _standing_for(self, stage: str, key: str, depends: Mapping[str, Any]) -> Artifact:
        """An artifact without files; a selector's choice is as many examples as it may choose, the first ones."""
        place, files = self.scratch / key, {"planned": key}
        if "budget" in depends:
            place.mkdir()
            pl.DataFrame({"example": np.arange(depends["budget"])}).write_parquet(place / CHOSEN)
            files[CHOSEN] = key
        manifest = {"stage": stage, "key": key, "summary": {}, "seconds": 0.0, "files": files}
        return Artifact(place, key, manifest)


def plan(
    recipe: Recipe,
    device: Device,
    *,
    price: float | None = None,
    dataset: Dataset | None = None,
    store: Path | None = None,
) -> dict[str, Any]:
    """What every stage of a run would take on a device; nothing is trained and nothing is written.

    Args:
        recipe: of the run.
        device: whose rates and memory count; beside an accelerator, also those of the processor at hand.
        price: of an hour of the device; None leaves money out.
        dataset: replaces the recipe's data source.
        store: where stages are looked for.

    Returns:
        JSON-able: `device`, `host` (the processor beside an accelerator, else None), `stages` in their order, `total`,
        `tuning` (None: the recipe tunes nothing). A stage has its name, `state` (`found`, `to make`, `unknown`),
        `reason` (why it is unknown, or its time is; None else), `seconds` (None: unknown), `at_most` (training may stop
        early), `steps`, `epochs`, `examples`, `read_tokens`, `written_tokens`, `requests` and `fees` (of chat
        endpoints), `flops`, `memory_gib` of the device, `host_memory_gib` of the processor beside it, `fits`, `advice`,
        and with a price `money`, fees included.

    Raises:
        InputError: if the data or a language model are not there, or the store can be no folder.
    """
    check(recipe, dataset)
    store = store or store_root()
    check_folder(store, "the artifact store")
    with TemporaryDirectory() as scratch:
        planning = PlanStore(store, Path(scratch))
        stages = Stages(planning, recipe)
        stages.foresights = Foresights(stages, device.kind)
        walk(stages, dataset)
        host = None if device.kind == "cpu" else here("cpu")
        rows = [_row(planned, device, host, price) for planned in planning.planned.values()]
    seconds = [row["seconds"] for row in rows if row["seconds"] is not None]
    total: dict[str, Any] = {
        "seconds": sum(seconds),
        "at_most": any(row["at_most"] for row in rows),
        "unknown": [row["stage"] for row in rows if row["state"] == "unknown"],
        "untimed": [row["stage"] for row in rows if row["state"] == "to make" and row["seconds"] is None],
        "read_tokens": sum(row["read_tokens"] for row in rows),
        "written_tokens": sum(row["written_tokens"] for row in rows),
        "requests": sum(row["requests"] for row in rows),
        "fees": sum(row["fees"] for row in rows),
        "flops": sum(row["flops"] for row in rows),
        "memory_gib": max(row["memory_gib"] for row in rows),
        "host_memory_gib": max(row["host_memory_gib"] for row in rows),
        "fits": all(row["fits"] for row in rows),
    }
    if price is not None:
        total["money"] = total["seconds"] / 3600 * price + total["fees"]
    found = {"name": recipe.name, "device": device.model_dump(mode="json"), "price": price}
    found["host"] = None if host is None else host.model_dump(mode="json")
    return found | {"stages": rows, "total": total, "tuning": _tuning(recipe, rows)}


def _tuning(recipe: Recipe, rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What `tandem tune` would take with the recipe's own settings in every trial; None where nothing is tuned."""
    if recipe.tune is None:
        return None
    fits = [row["seconds"] for row in rows if row["stage"] == f"fit:{recipe.tune.model}" and row["state"] != "found"]
    known = [seconds for seconds in fits if seconds is not None]
    each = known[0] if known else None
    trials = recipe.tune.trials
    return {"model": recipe.tune.model, "trials": trials, "seconds": None if each is None else trials * each}


def _row(planned: Planned, device: Device, host: Device | None, price: float | None) -> dict[str, Any]:
    work = None if planned.found or planned.foresight is None else planned.foresight()
    state = "found" if planned.found else "unknown" if work is None and planned.seconds is None else "to make"
    seconds = 0.0 if planned.found else planned.seconds if work is None else device.seconds(work)
    reason, work = _reason(planned, work), work or Work()
    advice = None
    if not planned.found and planned.foresight is not None and _lacking(work, device, host):
        advice = _advice(planned.artifact.name, planned.foresight, work, device, host)
    own, beside = needed(work, device)
    row = {
        "stage": planned.artifact.name,
        "state": state,
        "reason": reason,
        "seconds": seconds,
        "at_most": work.stops_early,
        "epochs": work.epochs,
        "steps": round(work.steps),
        "examples": round(work.examples),
        "read_tokens": round(work.read),
        "written_tokens": round(work.written),
        "requests": round(work.requests),
        "fees": work.fees,
        "flops": work.flops + work.half_flops + work.host_flops,
        "memory_gib": own / GIB,
        "host_memory_gib": beside / GIB,
        "fits": advice is None,
        "advice": advice,
    }
    if price is not None:
        row["money"] = None if seconds is None else seconds / 3600 * price + work.fees
    return row


def _reason(planned: Planned, work: Work | None) -> str | None:
    """Why nothing, or no time, is foreseen."""
    if work is not None:
        return "how fast the chat endpoint answers is not known (chat.per_minute is null)" if work.unpaced else None
    if planned.found or planned.seconds is not None:
        return None
    config = None if planned.foresight is None else planned.foresight.config
    kind = next((str(getattr(config, key)) for key in ("model", "selector") if hasattr(config, key)), None)
    return f"there is no formula for {'this stage' if kind is None else f'`{kind}`, or for what it builds on'}"


def needed(work: Work, device: Device) -> tuple[float, float]:
    """Bytes of a device, and of the processor beside an accelerator: tensors, and on a processor the libraries."""
    own, beside = work.held(device.kind)
    if own and device.kind == "cpu":
        own += LIBRARIES
    return own, (beside + LIBRARIES if beside else 0.0)


def _lacking(work: Work, device: Device, host: Device | None) -> float:
    """Bytes that a stage needs more than there are, of the device and of the processor beside it together."""
    own, beside = needed(work, device)
    return max(0.0, own - device.memory) + (max(0.0, beside - host.memory) if host is not None else 0.0)


def _advice(stage: str, foresight: Foresight, work: Work, device: Device, host: Device | None) -> str:
    """The first switches under which a stage fits, as `--set` takes them; else over how many devices a language model
    would have to be shared.
    """
    taken: list[str] = []
    _, known, name = stage.partition(":")
    key = f"models.{name}." if known else ""
    for setting, config in switches(foresight.config):
        switch = key + setting
        smaller = foresight.work(config)
        if smaller is not None and _lacking(smaller, device, host) < _lacking(work, device, host):
            taken = [*(text for text in taken if text.partition("=")[0] != switch.partition("=")[0]), switch]
            work = smaller
        if not _lacking(work, device, host):
            return ", ".join(taken)
    kept = f"{', '.join(taken)}, and " if taken else ""
    own, _ = needed(work, device)
    if own <= device.memory or not isinstance(foresight.config, LanguageModelUser):
        return f"{kept}a smaller model, or less data"
    parts = int(-(-own // device.memory))
    return f"{kept}{parts} such devices or more that each hold a part (FSDP or DeepSpeed), or a smaller model"
