"""Flops as torch's own counter sees them, the products that it overlooks included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

OVERLOOKED = {
    torch.ops.aten.addmm_: lambda total, a, b, **_: 2 * a[0] * a[1] * b[1],
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda query, key, *_, **__: 4 * query[0] * query[1] * query[2] * key[2] * query[3]
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda slope, query, key, *_, **__: 10 * query[0] * query[1] * query[2] * key[2] * query[3]
    ),
}


def counted(call: Callable[[], Any]) -> float:
    """Flops of a call."""
    with FlopCounterMode(display=False, custom_mapping=OVERLOOKED) as counter:
        call()
    return float(counter.get_total_flops())
