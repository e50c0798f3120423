"""GraNd: the norm of a sample's gradient over all parameters of a surrogate (Paul et al., NeurIPS 2021).

One backward pass for a whole batch: the square norm is a sum over modules, each of which gives its share from what
goes in and the slope of what comes out (see `sample_norms`). The item table is read at the input and again as output
weights; both slopes of a row are added before they are squared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from tandemrec.data.examples import Examples
from tandemrec.errors import InputError
from tandemrec.selection.capture import Call
from tandemrec.selection.sample_norms import row_square_norms, vector_square_norms, weight_square_norms
from tandemrec.selection.selector import AnySelectorConfig, FloatArray, ScoredSelector
from tandemrec.selection.surrogate import Batch, Surrogate, item_scores

KNOWN = (nn.Linear, nn.LayerNorm, nn.Embedding)
"""Modules whose per-sample gradients are known."""


class GraNdConfig(AnySelectorConfig):
    """Nothing to choose; its authors average over ten trainings stopped early."""

    selector: Literal["grand"] = "grand"
    """Which selector this is."""


class GraNd(ScoredSelector):
    """‖∇_θ L(s)‖₂, averaged over surrogates trained from different seeds; the largest are taken."""

    def __init__(self, surrogates: Sequence[Surrogate], seed: int = 0) -> None:
        """With the seed of the negatives."""
        self.surrogates, self.seed = surrogates, seed

    def scores(self, examples: Examples) -> FloatArray:
        """Mean gradient norm (B,); 0 for samples without targets."""
        total = np.zeros(len(examples))
        for surrogate in self.surrogates:
            total += gradient_norms(surrogate, examples, self.seed)
        return total / len(self.surrogates)


def gradient_norms(surrogate: Surrogate, examples: Examples, seed: int = 0) -> FloatArray:
    """‖∇_θ L(s)‖₂ (B,) over all parameters of the network, exact.

    Raises:
        InputError: if a parameter is used in a way whose per-sample gradient is not known: outside linear maps,
            layer norms and embeddings that see one row a sample, and the item table and bias of the output.
    """
    samples = surrogate.samples(examples, seed)
    squares = np.zeros(len(samples))
    checked = False
    for batch in surrogate.batches(samples):
        squares[batch.samples.cpu().numpy()] = _square_norms(surrogate, batch, check=not checked).double().cpu().numpy()
        checked = True
    norms: FloatArray = np.sqrt(squares)
    return norms


def _square_norms(surrogate: Surrogate, batch: Batch, *, check: bool) -> Tensor:
    """Squared norms (B,) of a batch's samples."""
    network, n = surrogate.sequence_network, len(batch.samples)
    modules = [module for module in surrogate.network.modules() if isinstance(module, KNOWN)]
    with _recorded(modules, n) as calls:
        states_ND = surrogate.states(batch.inputs)
    every_item = surrogate.config.loss == "softmax"
    scores = item_scores(network, states_ND, None if every_item else batch.items_NK)
    loss = surrogate.losses(scores, batch) @ batch.weight_N
    table, bias = _whole(network.item_table()), network.item_bias()
    if check:
        _check(surrogate.network, loss, calls, [table] if bias is None else [table, bias])
    *slopes, at_scores = torch.autograd.grad(loss, [*(call.output for call in calls), scores])
    total_B = scores.new_zeros(n)
    read = [Use(*_empty(batch, states_ND))]
    for call, slope in zip(calls, slopes, strict=True):
        if call.module.weight is table:
            read.append(_read(call.input, slope))
        else:
            total_B += _module_norms(call, slope)
    sample_M, row_M, slope_MD = (torch.cat(parts) for parts in zip(*read, strict=True))
    if every_item:
        slope_BTI = F.pad(_padded(at_scores, batch), (0, len(table) - at_scores.shape[1]))
        total_B += _dense_table_norms(slope_BTI, _padded(states_ND.detach(), batch), Use(sample_M, row_M, slope_MD))
        return total_B if bias is None else total_B + vector_square_norms(slope_BTI)
    owner_M = batch.owner_N.repeat_interleave(at_scores.shape[1])
    items_M = batch.items_NK.flatten()
    written_MD = (at_scores[:, :, None] * states_ND.detach()[:, None]).flatten(0, 1)
    if bias is not None:
        total_B += row_square_norms(owner_M, items_M, at_scores.reshape(-1, 1), n, len(table))
    return total_B + row_square_norms(
        torch.cat([sample_M, owner_M]), torch.cat([row_M, items_M]), torch.cat([slope_MD, written_MD]), n, len(table)
    )


def _whole(table: Tensor) -> Tensor:
    """The parameter whose first rows the output compares states with; further rows may stand for a mask."""
    base = table._base
    return table if base is None or table.data_ptr() != base.data_ptr() else base


class Use(NamedTuple):
    """M reads of a table: by which sample, which row, and the slope of what was read."""

    sample_M: Tensor
    row_M: Tensor
    slope_MD: Tensor


def _empty(batch: Batch, like_ND: Tensor) -> Use:
    nothing = batch.samples.new_empty(0)
    return Use(nothing, nothing, like_ND.new_empty(0, like_ND.shape[1]))


def _read(ids_BT: Tensor, slope_BTD: Tensor) -> Use:
    sample_B1 = torch.arange(len(slope_BTD), device=ids_BT.device)[:, None]
    sample_BT = sample_B1.expand(slope_BTD.shape[:2])
    return Use(sample_BT.flatten(), ids_BT.expand(slope_BTD.shape[:2]).flatten(), slope_BTD.flatten(0, 1))


def _module_norms(call: Call, slope: Tensor) -> Tensor:
    """A module's share of the squared norms, (B,)."""
    module, n = call.module, len(slope)
    if isinstance(module, nn.Embedding):
        return row_square_norms(*_read(call.input, slope), n, module.num_embeddings)
    bias = vector_square_norms(slope.view(n, -1, slope.shape[-1])) if module.bias is not None else 0.0
    if isinstance(module, nn.LayerNorm):
        normed = F.layer_norm(call.input.detach(), module.normalized_shape, eps=module.eps)
        return bias + vector_square_norms((slope * normed).view(n, -1, slope.shape[-1]))
    inside = call.input.detach()
    return bias + weight_square_norms(inside.view(n, -1, inside.shape[-1]), slope.view(n, -1, slope.shape[-1]))


def _dense_table_norms(slope_BTI: Tensor, states_BTD: Tensor, read: Use) -> Tensor:
    """‖G + R‖² with G = Σ_t e_t h_tᵀ from the output, e the slope at the scores, and R from reads at the input."""
    n, n_items = len(slope_BTI), slope_BTI.shape[2]
    written_B = ((slope_BTI @ slope_BTI.mT) * (states_BTD @ states_BTD.mT)).flatten(1).sum(1)
    read_B = row_square_norms(*read, n, n_items)
    # ⟨G, R⟩ = Σ over reads m of row i_m with slope r_m: Σ_t e_t[i_m] (h_t · r_m)
    at_MT = slope_BTI[read.sample_M, :, read.row_M]
    along_MT = torch.einsum("mtd,md->mt", states_BTD[read.sample_M], read.slope_MD)
    return written_B + read_B + 2 * written_B.new_zeros(n).index_add(0, read.sample_M, (at_MT * along_MT).sum(1))


def _padded(values_ND: Tensor, batch: Batch) -> Tensor:
    """Positions of every sample in a row of its own, (B, T, ·), zeros behind."""
    counts = torch.bincount(batch.owner_N, minlength=len(batch.samples)).tolist()
    return pad_sequence(list(torch.split(values_ND, counts)), batch_first=True)


@contextmanager
def _recorded(modules: Sequence[nn.Module], n: int) -> Iterator[list[Call]]:
    """Record calls; what an embedding gives once for all samples (positions) is copied, so that each has its slope."""
    calls: list[Call] = []

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        if isinstance(module, nn.Embedding) and inputs[0].ndim == 1:
            output = output.expand(n, *output.shape).clone()
        calls.append(Call(module, inputs[0], output))
        return output

    hooks = [module.register_forward_hook(record) for module in modules]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _check(network: nn.Module, loss: Tensor, calls: list[Call], output: list[Tensor]) -> None:
    """Refuse networks with parameters whose per-sample gradients are not known."""
    named = dict(network.named_parameters())
    slopes = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
    called = [call.module for call in calls]
    known = {id(parameter) for module in called for parameter in module.parameters(recurse=False)}
    known |= {id(tensor) for tensor in output}
    unknown = [
        name for (name, p), slope in zip(named.items(), slopes, strict=True) if slope is not None and id(p) not in known
    ]
    n = len(calls[0].output) if calls else 0
    if unknown or len(set(called)) < len(called) or any(len(call.output) != n for call in calls):
        what = f"parameter '{unknown[0]}'" if unknown else "a module that is called twice or not with one row a sample"
        raise InputError(f"GraNd knows no per-sample gradient for {what} of {type(network).__name__}")
