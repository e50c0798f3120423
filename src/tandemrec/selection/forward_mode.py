"""A function and its derivative along a direction of its parameters, in one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.autograd.forward_ad as forward
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


def along_direction(
    function: Callable[[dict[str, Tensor]], Tensor], point: Mapping[str, Tensor], direction: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """(value, derivative) of the shape of the function's value.

    The fused attention kernels know no forward mode, so attention is computed step by step meanwhile.
    """
    with sdpa_kernel(SDPBackend.MATH), forward.dual_level():
        duals = {
            name: forward.make_dual(value, direction[name])  # type: ignore[no-untyped-call]
            for name, value in point.items()
        }
        value, change = forward.unpack_dual(function(duals))  # type: ignore[no-untyped-call]
        return value, torch.zeros_like(value) if change is None else change
