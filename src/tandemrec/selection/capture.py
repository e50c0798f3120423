"""What goes into and comes out of chosen modules during a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Call:
    """One call of a module."""

    module: nn.Module
    input: Tensor
    output: Tensor


@contextmanager
def captured(modules: Sequence[nn.Module]) -> Iterator[list[Call]]:
    """Record every call of the modules, in order, while inside."""
    calls: list[Call] = []

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        calls.append(Call(module, inputs[0], output))

    hooks = [module.register_forward_hook(record) for module in modules]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()
