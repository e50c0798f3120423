"""Derivatives of all samples' losses along one direction of the parameters, without a loop over samples."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tandemrec.selection.block import Block
from tandemrec.selection.capture import captured
from tandemrec.selection.forward_mode import along_direction
from tandemrec.selection.surrogate import Batch, Surrogate


def directional_losses(surrogate: Surrogate, block: Block, batch: Batch, direction: Mapping[str, Tensor]) -> Tensor:
    """hᵀ∇L(s) of every sample of a batch, (B,).

    Where all of the block lies in linear maps that see one row a sample, Σ_t δ_tᵀ h c_t from one backward pass for the
    whole batch; else the forward-mode derivative of all losses in the direction h.
    """
    linear = linear_maps(surrogate.network, block)
    values = _contracted(surrogate, block, linear, batch, direction) if linear else None
    return _forward_mode(surrogate, block, batch, direction) if values is None else values


def linear_maps(network: nn.Module, block: Block) -> dict[str, nn.Linear]:
    """The linear maps that hold the block, by name; none if some of it lies elsewhere."""
    found = {}
    for name in block.names:
        owner = network.get_submodule(name.rpartition(".")[0])
        if not isinstance(owner, nn.Linear):
            return {}
        found[name.rpartition(".")[0]] = owner
    return found


def _contracted(
    surrogate: Surrogate, block: Block, linear: Mapping[str, nn.Linear], batch: Batch, direction: Mapping[str, Tensor]
) -> Tensor | None:
    """None if a map was not called with one row a sample."""
    chosen, fixed = block.divide(surrogate.network)
    with captured(list(linear.values())) as calls:
        losses = surrogate.losses(surrogate.scores(batch, chosen | fixed), batch)
    n = len(batch.samples)
    if {call.module for call in calls} != set(linear.values()) or any(len(call.input) != n for call in calls):
        return None
    slopes = torch.autograd.grad(losses @ batch.weight_N, [call.output for call in calls])
    names: dict[nn.Module, str] = {module: name for name, module in linear.items()}
    total = losses.new_zeros(n)
    for call, slope in zip(calls, slopes, strict=True):
        weight, bias = (direction.get(f"{names[call.module]}.{part}") for part in ("weight", "bias"))
        if weight is not None:
            total += (slope * (call.input.detach() @ weight.T)).flatten(1).sum(1)
        if bias is not None:
            total += (slope * bias).flatten(1).sum(1)
    return total


def _forward_mode(surrogate: Surrogate, block: Block, batch: Batch, direction: Mapping[str, Tensor]) -> Tensor:
    fixed = {name: parameter.detach() for name, parameter in surrogate.network.named_parameters()}
    point = {name: fixed.pop(name) for name in block.names}
    with torch.no_grad():
        _, change_N = along_direction(
            lambda duals: surrogate.losses(surrogate.scores(batch, fixed | duals), batch), point, direction
        )
    total = change_N.new_zeros(len(batch.samples))
    return total.index_add(0, batch.owner_N, change_N * batch.weight_N)
