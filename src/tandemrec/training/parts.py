"""Parameters that processes hold in parts (FSDP2's, DeepSpeed's): they and AdamW's moments, read and written whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

MOMENTS = ("exp_avg", "exp_avg_sq")


def whole(parameter: Tensor) -> Tensor:
    """A copy of the parameter, gathered where it is cut (all processes must ask)."""
    if isinstance(parameter, DTensor):
        return _own(parameter.full_tensor())
    if _is_deepspeeds(parameter):
        from deepspeed.utils import safe_get_full_fp32_param

        return _own(safe_get_full_fp32_param(parameter))
    return _own(parameter)


def assign(parameter: Tensor, value: Tensor) -> None:
    """Give a parameter, whole or cut, a whole value."""
    if _is_deepspeeds(parameter):
        from deepspeed.runtime.zero import GatheredParameters
        from deepspeed.utils import safe_set_full_fp32_param

        safe_set_full_fp32_param(parameter, value.to(parameter.device))  # the optimiser's copy
        with torch.no_grad(), GatheredParameters([parameter], modifier_rank=0):  # the module's
            parameter.copy_(value)
    else:
        with torch.no_grad():
            parameter.copy_(_like(value, parameter))


def moments(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """AdamW's step and moments of a parameter, whole; empty before the first step."""
    if not _is_deepspeeds(parameter):
        stored = optimizer.state.get(parameter, {})
        return {key: whole(torch.as_tensor(value)) for key, value in stored.items()}
    from deepspeed.utils import safe_get_full_optimizer_state

    if not optimizer.state:
        return {}
    step = next(iter(optimizer.state.values()))["step"]
    return {"step": _own(step)} | {key: _own(safe_get_full_optimizer_state(parameter, key)) for key in MOMENTS}


def assign_moments(optimizer: torch.optim.Optimizer, parameter: Tensor, stored: dict[str, Tensor]) -> None:
    """Give AdamW whole moments of a parameter back."""
    if not _is_deepspeeds(parameter):
        optimizer.state[parameter] = {
            key: value.to(parameter.device) if key == "step" else _like(value, parameter)
            for key, value in stored.items()
        }
        return
    from deepspeed.utils import safe_set_full_optimizer_state

    zero: Any = parameter
    for flat in zero._z3_optimizer.fp32_partitioned_groups_flat:  # DeepSpeed makes them at its first step
        if flat not in optimizer.state:
            fresh = {key: torch.zeros_like(flat) for key in MOMENTS}
            optimizer.state[flat] = {"step": stored["step"].clone()} | fresh
    for key in MOMENTS:
        safe_set_full_optimizer_state(parameter, stored[key].to(parameter.device), key)


def _like(tensor: Tensor, model: Tensor) -> Tensor:
    """A whole tensor on another one's device, cut as that one is."""
    if isinstance(model, DTensor):
        return distribute_tensor(tensor.to(model.device), model.device_mesh, model.placements)
    return tensor.to(model.device)


def _is_deepspeeds(parameter: Tensor) -> bool:
    return hasattr(parameter, "ds_id")


def _own(tensor: Any) -> Tensor:
    assert isinstance(tensor, Tensor)
    return tensor.detach().clone()
