"""Devices and their rates: what a count of work is in seconds.

Three numbers foretell a stage: how fast large products are, how fast everything else reads and writes memory, and what
starting an operation costs. `calibrate` measures them; a device that nobody measured is assumed to reach a share of
what its maker publishes.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn

from tandemrec.data.locations import cache_root
from tandemrec.errors import InputError
from tandemrec.experiment.card import hardware
from tandemrec.experiment.files import write_whole
from tandemrec.recommender import Config
from tandemrec.training import default_device
from tandemrec.work import Work

PRODUCT_SHARE, TRAFFIC_SHARE = 0.4, 0.5
"""Shares of the published peaks that a device is assumed to reach: matrix products of a model, and its traffic."""

LAUNCH = 1e-5
"""Seconds that Python and a driver take to start an operation, where nobody measured."""

CORE = 3e10, 4e9
"""Flops and bytes a second of a processor's core, where nobody measured."""

GIB = 2**30

CALIBRATION, TURN = 12.0, 0.05
"""Seconds of a calibration, and of an operation's turn in it."""

OPERATIONS, LAYERS = 5, 100
"""Element-wise operations that are measured, and small layers of a chain."""


class Device(Config):
    """A device and its rates."""

    name: str
    """As `--device` calls it."""

    title: str
    """As its maker or the system calls it."""

    flops: float = Field(gt=0)
    """Of float32 products a second."""

    half_flops: float = Field(gt=0)
    """Of bfloat16 products a second."""

    bytes: float = Field(gt=0)
    """Read and written a second by element-wise operations."""

    call: float = Field(gt=0)
    """Seconds that starting an operation takes."""

    memory: float = Field(gt=0)
    """Bytes."""

    calibrated: bool = False
    """Whether the rates were measured."""

    @property
    def kind(self) -> str:
        """Kind of torch device."""
        return "cpu" if self.name == "cpu" else "cuda"

    def seconds(self, work: Work) -> float | None:
        """Products, traffic and calls, one after the other, and what endpoints' limits add; beside an accelerator works
        the processor at hand. None where an endpoint is asked whose pace nobody knows.
        """
        if work.unpaced:
            return None
        host = self if self.kind == "cpu" or not (work.host_flops or work.host_bytes) else here("cpu")
        products = work.flops / self.flops + work.half_flops / self.half_flops + work.host_flops / host.flops
        return products + work.bytes / self.bytes + work.host_bytes / host.bytes + work.calls * self.call + work.paced


def _published(name: str, title: str, flops: float, half: float, terabytes: float, gib: float) -> Device:
    """From the peaks of a data sheet: 10¹² flops a second in float32 and in bfloat16 (dense), 10¹² bytes a second."""
    return Device(
        name=name,
        title=title,
        flops=flops * 1e12 * PRODUCT_SHARE,
        half_flops=half * 1e12 * PRODUCT_SHARE,
        bytes=terabytes * 1e12 * TRAFFIC_SHARE,
        call=LAUNCH,
        memory=gib * GIB,
    )


DEVICES = {
    device.name: device
    for device in (
        _published("h200", "NVIDIA H200", 67, 989, 4.8, 140),
        _published("h100", "NVIDIA H100", 67, 989, 3.35, 79),
        _published("a100", "NVIDIA A100 80GB", 19.5, 312, 2.0, 79),
        _published("a100-40", "NVIDIA A100 40GB", 19.5, 312, 1.55, 39),
        _published("l40s", "NVIDIA L40S", 91.6, 362, 0.864, 45),
        _published("a10g", "NVIDIA A10G", 31.2, 70, 0.6, 22),
        _published("l4", "NVIDIA L4", 30.3, 121, 0.3, 22),
        _published("t4", "NVIDIA T4", 8.1, 65, 0.3, 15),
        _published("4090", "NVIDIA GeForce RTX 4090", 82.6, 165, 1.008, 23.5),
        _published("3090", "NVIDIA GeForce RTX 3090", 35.6, 71, 0.936, 23.5),
    )
}
"""Published peaks (SXM forms where there are several), and the memory that is left for tensors."""


def find_device(name: str | None = None) -> Device:
    """A device by name, with its measured rates where it was calibrated; None: the one at hand.

    Raises:
        InputError: if there is no such device.
    """
    if name is None or name.lower() == "cpu":
        return here(name and "cpu")
    device = DEVICES.get(name.lower())
    if device is None:
        raise InputError(f"--device: found '{name}', expected cpu or one of {', '.join(DEVICES)}")
    measured = [known for known in _calibrated().values() if _named(known.title) == device]
    return measured[0].model_copy(update={"name": device.name}) if measured else device


def _named(title: str) -> Device | None:
    """The device that drivers call so, such as `NVIDIA A100-SXM4-40GB`: all words of its own title but the maker's are
    among theirs.
    """
    words = set(re.findall(r"\w+", title))
    return next((device for device in DEVICES.values() if set(device.title.split()) - {"NVIDIA"} <= words), None)


def here(kind: str | None = None) -> Device:
    """The processor or accelerator of this process: as calibrated, as published, or as guessed from its cores."""
    kind = kind or default_device().type
    known = _calibrated().get(_key(kind))
    if known is not None:
        return known
    if kind != "cpu":
        title = torch.cuda.get_device_name()
        found = _named(title)
        if found is None:
            found, title = DEVICES["t4"], f"{title}, foreseen as an {DEVICES['t4'].title}"
        return found.model_copy(update={"title": title, "memory": _memory(kind)})
    threads, (flops, traffic) = torch.get_num_threads(), CORE
    rates = {"flops": flops * threads, "half_flops": flops * threads / 2, "bytes": traffic * threads}
    return Device(name="cpu", title=_title(kind), **rates, call=1.5e-5, memory=_memory(kind))


def calibrate() -> Device:
    """Measure the device at hand for some seconds, and keep its rates in the user's cache directory.

    Products are of the shape of a layer; traffic is that of the operations between them, norm, softmax, activation,
    sum and scaling of states that fit a cache as micro-batches do; a call is one of a chain of small layers, there
    and back. The rates are what is sustained beside whatever else runs, so runs beside the same are foretold.
    """
    device = default_device()
    large = device.type != "cpu"
    size, rows = (4096, 65536) if large else (512, 4096)
    square = torch.randn(size, size, device=device)
    half, states_ND = square.bfloat16(), torch.randn(rows, 128, device=device)
    layer, start = nn.Linear(8, 8).to(device), torch.randn(4, 8, device=device)
    seconds = _sustained(
        device, lambda: square @ square, lambda: half @ half, lambda: _between(states_ND), lambda: _chain(layer, start)
    )
    found = Device(
        name="cpu" if device.type == "cpu" else _title(device.type),
        title=_title(device.type),
        flops=2 * size**3 / seconds[0],
        half_flops=2 * size**3 / seconds[1],
        bytes=OPERATIONS * 2 * states_ND.numel() * states_ND.element_size() / seconds[2],
        call=seconds[3] / (6 * LAYERS),
        memory=_memory(device.type),
        calibrated=True,
    )
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True)
    every = {key: known.model_dump(mode="json") for key, known in _calibrated().items()}
    write_whole(path, every | {_key(device.type): found.model_dump(mode="json")})
    return found


def _between(states_ND: Tensor) -> None:
    """The operations between products, each counted as one reading and one writing."""
    with torch.no_grad():
        nn.functional.layer_norm(states_ND, states_ND.shape[1:])
        states_ND.softmax(1)
        nn.functional.gelu(states_ND)
        _ = states_ND + states_ND
        _ = states_ND * 2


def _chain(layer: nn.Module, states: Tensor) -> None:
    """Small layers and their activations, with differentiation: six calls a layer."""
    for _ in range(LAYERS):
        states = torch.relu(layer(states))
    states.sum().backward()  # type: ignore[no-untyped-call]


def _sustained(device: torch.device, *operations: Callable[[], object]) -> list[float]:
    """Seconds of a call of each operation, on average over some seconds in which they take turns of many calls each:
    a layer's states still lie in the cache when the next operation reads them.
    """
    _turns(device, operations, 0.1 * CALIBRATION)  # the first calls are slow
    return _turns(device, operations, 0.9 * CALIBRATION)


def _turns(device: torch.device, operations: Sequence[Callable[[], object]], seconds: float) -> list[float]:
    """Mean seconds of a call of each operation, which all have one turn at least."""
    spent, calls, begun = [0.0] * len(operations), [0] * len(operations), time.perf_counter()
    while time.perf_counter() - begun < seconds:
        for place, operation in enumerate(operations):
            started = time.perf_counter()
            while time.perf_counter() - started < TURN:
                operation()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                calls[place] += 1
            spent[place] += time.perf_counter() - started
    return [total / count for total, count in zip(spent, calls, strict=True)]


def _title(kind: str) -> str:
    if kind != "cpu":
        return str(torch.cuda.get_device_name())
    machine = hardware()
    return f"{machine['processor']}, {torch.get_num_threads()} threads"


def _memory(kind: str) -> float:
    if kind != "cpu":
        return float(torch.cuda.get_device_properties(default_device()).total_memory)
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _key(kind: str) -> str:
    return f"{kind}: {_title(kind)}"


def _path() -> Path:
    return cache_root() / "devices.json"


def _calibrated() -> dict[str, Device]:
    """Measured devices of this user.

    Raises:
        InputError: if the file is not what `calibrate` wrote.
    """
    path = _path()
    if not path.exists():
        return {}
    try:
        return {key: Device.model_validate(rates) for key, rates in json.loads(path.read_text()).items()}
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path} does not hold rates ({str(error).splitlines()[0]}); delete it") from None
