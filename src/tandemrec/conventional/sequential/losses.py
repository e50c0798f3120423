"""Next-item losses over gathered positions: binary, sampled softmax and exact full softmax.

N positions, I items, D vector size, K negatives. Every loss is a sum over positions; the training loop divides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_LOGITS = 1 << 20
"""Logits that full softmax holds at once: 4 MB in float32, which stays in a processor's cache."""


RowLoss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(logits (n, I), targets (n,)) → the summed loss and its gradient (n, I); the logits may be overwritten."""


def next_item_loss(
    kind: Literal["softmax", "sampled-softmax", "bce"],
    hidden_ND: Tensor,
    table_ID: Tensor,
    bias_I: Tensor | None,
    target_N: Tensor,
    negatives: Tensor | None,
) -> Tensor:
    """The loss of that kind with scores h·e + b; `negatives` are as it takes them, None for full softmax."""
    hidden_ND, table_ID = with_bias(hidden_ND, table_ID, bias_I)
    if negatives is None:
        return softmax_loss(hidden_ND, table_ID, target_N)
    if kind == "sampled-softmax":
        return sampled_softmax_loss(hidden_ND, table_ID, target_N, negatives)
    return bce_loss(hidden_ND, table_ID, target_N, negatives)


def with_bias(hidden_ND: Tensor, table_ID: Tensor, bias_I: Tensor | None) -> tuple[Tensor, Tensor]:
    """States and table with the bias as a further dimension, in which every state is 1."""
    if bias_I is None:
        return hidden_ND, table_ID
    return F.pad(hidden_ND, (0, 1), value=1.0), torch.cat([table_ID, bias_I[:, None]], 1)


def bce_loss(hidden_ND: Tensor, table_ID: Tensor, target_N: Tensor, negative: Tensor) -> Tensor:
    """SASRec's original loss: −log σ(h·e⁺) − Σ log(1 − σ(h·e⁻)); `negative` holds K for each position, (N · K,)."""
    positive = (hidden_ND * table_ID[target_N]).sum(1)
    negative_NK = negative.view(len(target_N), -1)
    below = (hidden_ND[:, None] * table_ID[negative_NK]).sum(2)
    return F.softplus(-positive).sum() + F.softplus(below).sum()


def sampled_softmax_loss(hidden_ND: Tensor, table_ID: Tensor, target_N: Tensor, negative_K: Tensor) -> Tensor:
    """Cross-entropy of the target among itself and K negatives shared by all positions.

    A negative that equals a position's target is left out there. Negatives are uniform, so the usual correction by
    their probability is the same for all of them and is left out.
    """
    positive_N1 = (hidden_ND * table_ID[target_N]).sum(1, keepdim=True)
    negative_NK = hidden_ND @ table_ID[negative_K].T
    hit_NK = target_N[:, None] == negative_K[None]
    logits = torch.cat([positive_N1, negative_NK.masked_fill(hit_NK, -torch.inf)], 1)
    return (logits.logsumexp(1) - positive_N1[:, 0]).sum()


def softmax_loss(hidden_ND: Tensor, table_ID: Tensor, target_N: Tensor, chunk_logits: int = CHUNK_LOGITS) -> Tensor:
    """Cross-entropy over the whole catalogue, exact, without ever holding N × I logits.

    Equals `F.cross_entropy(hidden @ table.T, target, reduction="sum")` in value and gradients.
    """
    return catalogue_loss(hidden_ND, table_ID, target_N, _cross_entropy, chunk_logits)


def catalogue_loss(
    hidden_ND: Tensor, table_ID: Tensor, target_N: Tensor, row_loss: RowLoss, chunk_logits: int = CHUNK_LOGITS
) -> Tensor:
    """A loss of every position's logits over the whole catalogue, summed, without ever holding N × I of them."""
    loss: Tensor = _ChunkedLoss.apply(hidden_ND, table_ID, target_N, row_loss, chunk_logits)  # type: ignore[no-untyped-call]
    return loss


def _cross_entropy(logits_nI: Tensor, target_n: Tensor) -> tuple[Tensor, Tensor]:
    target = target_n[:, None]
    log_p = torch.log_softmax(logits_nI, 1)
    loss = -log_p.gather(1, target).sum()
    return loss, log_p.exp_().scatter_add_(1, target, log_p.new_full(target.shape, -1.0))


class _ChunkedLoss(torch.autograd.Function):
    """Gradients are formed beside the loss, chunk by chunk, so logits are computed once and kept for one chunk only."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, table_ID: Tensor, target_N: Tensor, row_loss: RowLoss, chunk_logits: int
    ) -> Tensor:
        n, n_items = len(hidden_ND), len(table_ID)
        chunk = max(1, min(n, chunk_logits // n_items))
        loss = hidden_ND.new_zeros(())
        grad_hidden, grad_table = torch.empty_like(hidden_ND), torch.zeros_like(table_ID)
        for start in range(0, n, chunk):
            hidden = hidden_ND[start : start + chunk]
            part, grad_logits = row_loss(hidden @ table_ID.T, target_N[start : start + chunk])
            loss += part
            torch.mm(grad_logits, table_ID, out=grad_hidden[start : start + chunk])
            grad_table.addmm_(grad_logits.T, hidden)
        ctx.save_for_backward(grad_hidden, grad_table)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_hidden, grad_table = ctx.saved_tensors
        return grad_hidden * grad_loss, grad_table * grad_loss, None, None, None
