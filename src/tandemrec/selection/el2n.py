"""EL2N and AUM: how far a surrogate's prediction of a sample's target is off.

Both look at the full softmax over the catalogue after the whole history, also where the surrogate was trained with
negatives. A history without items says nothing: every item is then equally likely.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tandemrec.conventional.sequential.batches import cut_by_tokens
from tandemrec.data.examples import Examples, IntArray
from tandemrec.errors import InputError
from tandemrec.selection.selector import AnySelectorConfig, FloatArray, ScoredSelector
from tandemrec.selection.surrogate import GROUP_LOGITS, Surrogate, item_scores


class EL2NConfig(AnySelectorConfig):
    """Nothing to choose."""

    selector: Literal["el2n"] = "el2n"
    """Which selector this is."""


class EL2N(ScoredSelector):
    """‖softmax(f(x)) − onehot(y)‖₂, averaged over surrogates trained from different seeds; the largest are taken."""

    def __init__(self, surrogates: Sequence[Surrogate]) -> None:
        self.surrogates = surrogates

    def scores(self, examples: Examples) -> FloatArray:
        """Mean error norm (B,)."""
        return mean_error_norms(self.surrogates, examples)


def mean_error_norms(surrogates: Sequence[Surrogate], examples: Examples) -> FloatArray:
    """EL2N averaged over surrogates, (B,)."""
    total = np.zeros(len(examples))
    for surrogate in surrogates:
        total += error_norms(surrogate, examples)
    return total / len(surrogates)


def error_norms(surrogate: Surrogate, examples: Examples) -> FloatArray:
    """EL2N (B,) from the target's probability and Σp²: EL2N² = Σ p² − 2 p_y + 1."""
    out = np.zeros(len(examples))
    for chosen, logits_BI, target_B in _last_logits(surrogate, examples):
        p_BI = logits_BI.softmax(1)
        length_B = torch.linalg.vector_norm(p_BI, dim=1)  # no array of squares
        square = length_B.square() - 2 * p_BI.gather(1, target_B[:, None])[:, 0] + 1
        out[chosen] = square.clamp(min=0).sqrt().double().cpu().numpy()
    return out


def margins(surrogates: Sequence[Surrogate], examples: Examples) -> FloatArray:
    """AUM (B,): f_y − max_{k≠y} f_k, averaged over snapshots of one training; low where a sample is hard or wrong."""
    total = np.zeros(len(examples))
    for surrogate in surrogates:
        for chosen, logits_BI, target_B in _last_logits(surrogate, examples):
            own = logits_BI.gather(1, target_B[:, None])
            other = logits_BI.scatter(1, target_B[:, None], -torch.inf).amax(1, keepdim=True)
            total[chosen] += (own - other)[:, 0].double().cpu().numpy()
    return total / len(surrogates)


@torch.no_grad()
def _last_logits(surrogate: Surrogate, examples: Examples) -> Iterator[tuple[IntArray, Tensor, Tensor]]:
    """(numbers of examples, scores of all items (B, I), targets (B,)) group by group."""
    if not examples.target.lengths.all():
        row = int(np.argmin(examples.target.lengths))
        raise InputError(f"an error needs a target for every example, found none in example {row}")
    network, device = surrogate.sequence_network, surrogate.device
    history = examples.history.tail(surrogate.max_length)
    order = np.argsort(history.lengths, kind="stable")
    # A row of the catalogue's logits weighs as much as that many positions.
    weight = np.maximum(history.lengths[order], surrogate.n_items * surrogate.config.micro_batch_tokens // GROUP_LOGITS)
    for chosen in cut_by_tokens(order, weight, surrogate.config.micro_batch_tokens) if len(order) else ():
        rows = history.take(chosen)
        told = rows.take(np.flatnonzero(rows.lengths))
        logits_BI = torch.zeros(0, surrogate.n_items, device=device, dtype=network.item_table().dtype)
        if len(told):
            logits_BI = item_scores(network, network.last(told), None)
        if len(told) < len(rows):  # the shortest come first
            logits_BI = F.pad(logits_BI, (0, 0, len(rows) - len(told), 0))
        target = examples.target.values[examples.target.starts[chosen]].astype(np.int64)
        yield chosen, logits_BI, torch.from_numpy(target).to(device)
