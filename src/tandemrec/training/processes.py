"""Several processes (`torchrun`, `accelerate launch`) as one: what the first does alone, what they tell each other."""

from __future__ import annotations

import os
from typing import Any, TypeVar

import torch

ValueT = TypeVar("ValueT")


def default_device() -> torch.device:
    """`$TANDEMREC_DEVICE`, else the CUDA device of this process, else the CPU."""
    named = os.environ.get("TANDEMREC_DEVICE")
    if named:
        return torch.device(named)
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def process_count() -> int:
    """Processes that work together: the launchers set `WORLD_SIZE`."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def show_progress() -> bool:
    """Progress bars are drawn by the first process, unless `TANDEMREC_PROGRESS=0`."""
    return os.environ.get("TANDEMREC_PROGRESS", "1") != "0" and process_rank() == 0


def from_first(value: ValueT) -> ValueT:
    """What the first process says (all of them must ask)."""
    if process_count() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    _connected()
    told: ValueT = broadcast_object_list([value])[0]
    return told


def gathered(values: list[ValueT]) -> list[ValueT]:
    """The lists of all processes joined, in the order of their numbers (all of them must ask)."""
    if process_count() == 1:
        return values
    from accelerate.utils import gather_object

    _connected()
    joined: list[ValueT] = gather_object(values)
    return joined


def wait_for_all() -> None:
    """Go on when every process has come here."""
    if process_count() > 1:
        _connected().wait_for_everyone()


def part() -> None:
    """Leave the group together: a process that goes while others still talk to it takes them down."""
    if process_count() > 1 and torch.distributed.is_initialized():
        wait_for_all()
        torch.distributed.destroy_process_group()


def _connected() -> Any:
    from accelerate import PartialState

    return PartialState(cpu=default_device().type == "cpu")
