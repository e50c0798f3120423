"""Objectives: which loss the log-probabilities of completions make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


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
        """Tokens of the longest sequence of a prompt with one of its completions."""
        return len(self.prompts[row]) + max(len(completion) for completion in self.completions[row])

    def tokens(self) -> int:
        """Tokens of all sequences, the prompt counted with each of its completions."""
        pairs = zip(self.prompts, self.completions, strict=True)
        return sum(len(prompt) + len(completion) for prompt, several in pairs for completion in several)


class Objective(Protocol):
    """Maps summed label log-probabilities to a loss that adds up over examples."""

    def weight(self, counts_BC: Tensor) -> float:
        """How many terms the loss sums over, given the label tokens of each completion; the step divides by it."""
        ...

    def loss(self, rows: Sequence[int], log_probs_BC: Tensor, counts_BC: Tensor) -> Tensor:
        """Sum of the terms of B examples.

        Args:
            rows: which examples of the training set they are, for what an objective keeps of each.
            log_probs_BC: log p(completion | prompt), summed over label tokens.
            counts_BC: label tokens of each completion.
        """
        ...


class SFT:
    """−Σ log p(answer token | prompt, earlier answer tokens); its mean is over all label tokens of a step. C = 1."""

    def weight(self, counts_BC: Tensor) -> float:
        """Number of label tokens."""
        return float(counts_BC.sum())

    def loss(self, rows: Sequence[int], log_probs_BC: Tensor, counts_BC: Tensor) -> Tensor:
        """The negative log-likelihood of the answers."""
        return -log_probs_BC.sum()
