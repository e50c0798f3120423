"""Objectives: which completions of a prompt a loss needs, and the loss that their log-probabilities make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

Reduction = Literal["tokens", "examples"]
"""What a likelihood is averaged over: the label tokens of a whole step, or its examples, as in the papers' sums."""


@dataclass(frozen=True)
class Prompted:
    """N prompts with C completions each, as token ids: what fine-tuning learns from.

    Attributes:
        prompts: N prompts, BOS included.
        completions: N × C completions, EOS included.
    """

    prompts: Sequence[list[int]]
    completions: Sequence[Sequence[list[int]]]

    def __len__(self) -> int:
        return len(self.prompts)

    def length(self, row: int) -> int:
        """Tokens of a prompt with all its completions: what it takes in a packed row."""
        return len(self.prompts[row]) + sum(len(completion) for completion in self.completions[row])

    def tokens(self) -> int:
        """Tokens of all prompts and completions, each counted once."""
        return sum(self.length(row) for row in range(len(self)))

    def beside(self, further: Sequence[Sequence[list[int]]]) -> Prompted:
        """The same prompts, each with further completions behind its own."""
        pairs = zip(self.completions, further, strict=True)
        return Prompted(self.prompts, [[*own, *others] for own, others in pairs])

    def whole(self) -> Prompted:
        """The same texts, with all tokens but the first as labels."""
        pairs = zip(self.prompts, self.completions, strict=True)
        completions = [[prompt[1:] + completion for completion in several] for prompt, several in pairs]
        return Prompted([prompt[:1] for prompt in self.prompts], completions)

    def keep(self, columns: Sequence[int]) -> Prompted:
        """The same prompts with some of their completions."""
        return Prompted(self.prompts, [[several[c] for c in columns] for several in self.completions])


class Objective(Protocol):
    """Maps summed label log-probabilities to a loss that adds up over examples."""

    def columns(self) -> Sequence[int]:
        """The completions that this epoch's loss needs; no others are computed."""
        ...

    def weight(self, counts_BC: Tensor) -> float:
        """How many terms the loss sums over, from label tokens of the needed completions; the step divides by it."""
        ...

    def loss(self, rows: Sequence[int], log_probs_BC: Tensor, counts_BC: Tensor) -> Tensor:
        """Sum of the terms of B examples.

        Args:
            rows: which examples of the training set they are, for what an objective keeps of each.
            log_probs_BC: log p(completion | prompt), summed over label tokens, of the needed completions.
            counts_BC: label tokens of each of them.
        """
        ...


@dataclass
class SFT:
    """−log p(y | x): the negative log-likelihood of the answer. C = 1.

    Attributes:
        reduction: what the loss is averaged over.
    """

    reduction: Reduction = "tokens"

    def columns(self) -> Sequence[int]:
        """The answer."""
        return (0,)

    def weight(self, counts_BC: Tensor) -> float:
        """Label tokens, or examples."""
        return float(counts_BC.sum()) if self.reduction == "tokens" else float(len(counts_BC))

    def loss(self, rows: Sequence[int], log_probs_BC: Tensor, counts_BC: Tensor) -> Tensor:
        """The negative log-likelihood of the answers."""
        return -log_probs_BC.sum()


@dataclass
class SOFT:
    """−(1 − τ) log p(y | x) − τ log p(ŷ | x): the real answer y and the self-distilled one ŷ. C = 1 + K: y, ŷ₁ … ŷ_K.

    SOFT's mixed loss; the paper has K = 1, and of several ŷ each has the weight τ / K. With τ = 1 it learns from ŷ
    alone, with τ = 0 from y alone; a part of weight 0 is not computed. The scheduler sets `tau` between epochs.

    Attributes:
        tau: weight τ ∈ [0, 1] of the self-distilled answer.
        distilled: number K of self-distilled answers.
        reduction: what the loss is averaged over; a token of y counts 1 − τ, one of ŷ counts τ / K.
    """

    tau: float = 1.0
    distilled: int = 1
    reduction: Reduction = "tokens"

    def columns(self) -> Sequence[int]:
        """The real answer unless τ = 1, and the self-distilled one unless τ = 0."""
        return [c for c, weight in enumerate(self._weights()) if weight > 0]

    def weight(self, counts_BC: Tensor) -> float:
        """Label tokens, each counted with its part's weight; or examples."""
        if self.reduction == "examples":
            return float(len(counts_BC))
        return float(counts_BC.sum(0).double() @ self._parts().double())

    def loss(self, rows: Sequence[int], log_probs_BC: Tensor, counts_BC: Tensor) -> Tensor:
        """The mixed negative log-likelihood."""
        return -(log_probs_BC @ self._parts().to(log_probs_BC)).sum()

    def _parts(self) -> Tensor:
        return torch.tensor([weight for weight in self._weights() if weight > 0])

    def _weights(self) -> list[float]:
        return [1 - self.tau, *[self.tau / self.distilled] * self.distilled]


@dataclass
class SDPO:
    """log(1 + Σ_j exp(β (r(l_j) − r(w)))), r(y) = log p(y | x) − log p_ref(y | x). C = 1 + K: target w, negatives l_j.

    Softmax-DPO (Chen et al., NeurIPS 2024); K = 1 is DPO. Evaluated as a logsumexp, so no β · Δ overflows.

    Attributes:
        reference_NC: log-probabilities under the frozen reference, computed once for the whole training set.
        beta: sharpness β.
    """

    reference_NC: Tensor
    beta: float = 1.0

    def columns(self) -> Sequence[int]:
        """All of them."""
        return range(self.reference_NC.shape[1])

    def weight(self, counts_BC: Tensor) -> float:
        """Examples."""
        return float(len(counts_BC))

    def loss(self, rows: Sequence[int], log_probs_BC: Tensor, counts_BC: Tensor) -> Tensor:
        """The softmax preference loss."""
        reward_BC = log_probs_BC - self.reference_NC[list(rows)].to(log_probs_BC)
        behind_BK = self.beta * (reward_BC[:, 1:] - reward_BC[:, :1])
        return torch.cat([torch.zeros_like(behind_BK[:, :1]), behind_BK], 1).logsumexp(1).sum()
