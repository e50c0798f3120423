"""Shared-prompt packing: `[x | y₁ | … | y_C]` computed in one pass, and examples of unequal length in full rows.

A completion sees its prompt and itself, and its positions start where the prompt ends, so its log-probability is the
one that a pass of its own over `[x | y_c]` would give, while x is computed once for all C completions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tandemrec.data.examples import IntArray


@dataclass(frozen=True)
class Packed:
    """B examples with C completions each, laid out in R rows of T tokens; N label tokens in all.

    Attributes:
        ids_RT: tokens; negative ones are slots for item vectors, see `LanguageModel.slots`.
        positions_RT: position of each token in its own sequence `[x | y_c]`.
        example_RT: 1 + number of the example a token belongs to; 0 for padding.
        completion_RT: 1 + number of the completion a token belongs to; 0 for a prompt.
        source_N: flat index (row · T + column) of the token that predicts each label token.
        label_N: the label tokens, completion after completion.
        counts_BC: label tokens of each completion.
    """

    ids_RT: Tensor
    positions_RT: Tensor
    example_RT: Tensor
    completion_RT: Tensor
    source_N: Tensor
    label_N: Tensor
    counts_BC: Tensor

    def to(self, device: torch.device) -> Packed:
        """On a device; the counts stay where they are, since only the loop's arithmetic reads them."""
        moved = {name: tensor.to(device) for name, tensor in vars(self).items() if name != "counts_BC"}
        return replace(self, **moved)

    @property
    def causal(self) -> bool:
        """Whether plain causal attention is enough: one prompt with one completion a row."""
        return len(self.ids_RT) == self.counts_BC.numel()

    def visible(self) -> Tensor:
        """Which tokens (last axis) a token sees, (R, T, T): earlier ones of its prompt and of its own completion."""
        example, completion = self.example_RT, self.completion_RT
        size = example.shape[1]
        earlier_TT = torch.ones(size, size, dtype=torch.bool, device=example.device).tril()
        same_RTT = example[:, :, None] == example[:, None, :]
        own_RTT = (completion[:, None, :] == 0) | (completion[:, :, None] == completion[:, None, :])
        return earlier_TT & same_RTT & own_RTT


def pack_apart(prompts: Sequence[list[int]], completions: Sequence[Sequence[list[int]]], pad: int) -> Packed:
    """As `pack`, but one prompt with one completion a row: for models that cannot read packed rows."""
    repeated = [prompt for prompt, several in zip(prompts, completions, strict=True) for _ in several]
    single = [[completion] for several in completions for completion in several]
    packed = pack(repeated, single, pad, full_rows=False)
    return replace(packed, counts_BC=packed.counts_BC.view(len(prompts), -1))


def pack(
    prompts: Sequence[list[int]], completions: Sequence[Sequence[list[int]]], pad: int, *, full_rows: bool = True
) -> Packed:
    """Lay B examples out in as few rows as first-fit-decreasing finds; a row is as long as the longest example.

    The last token of a completion predicts nothing and is left out of the input. A slot (negative token) in a
    completion is read, but it is no label: nothing predicts item vectors.

    Args:
        prompts: B prompts of at least one token.
        completions: B × C completions of at least one token.
        pad: token that fills rows up.
        full_rows: fill rows with several examples, rather than one a row.
    """
    used = [len(x) + sum(len(y) - 1 for y in several) for x, several in zip(prompts, completions, strict=True)]
    row_B, start_B, n_rows = _fit(used) if full_rows else (list(range(len(used))), [0] * len(used), len(used))
    width = max(used)
    ids = np.full((n_rows, width), pad, np.int64)
    positions, example, completion = (np.zeros((n_rows, width), np.int64) for _ in range(3))
    source: list[IntArray] = []
    label: list[IntArray] = []
    for b, (prompt, several) in enumerate(zip(prompts, completions, strict=True)):
        row, at, size = row_B[b], start_B[b], len(prompt)
        ids[row, at : at + size] = prompt
        positions[row, at : at + size] = np.arange(size)
        example[row, at : at + used[b]] = b + 1
        last_of_prompt = row * width + at + size - 1
        at += size
        for c, answer in enumerate(several):
            size_c = len(answer) - 1
            ids[row, at : at + size_c] = answer[:-1]
            positions[row, at : at + size_c] = np.arange(size, size + size_c)
            completion[row, at : at + size_c] = c + 1
            tokens = np.array(answer)
            predicted = tokens >= 0
            source.append(np.concatenate([[last_of_prompt], row * width + np.arange(at, at + size_c)])[predicted])
            label.append(tokens[predicted])
            at += size_c
    counts = [len(labels) for labels in label]
    return Packed(
        ids_RT=torch.from_numpy(ids),
        positions_RT=torch.from_numpy(positions),
        example_RT=torch.from_numpy(example),
        completion_RT=torch.from_numpy(completion),
        source_N=torch.from_numpy(np.concatenate(source)),
        label_N=torch.from_numpy(np.concatenate(label)),
        counts_BC=torch.tensor(counts).view(len(prompts), -1),
    )


def label_count(completion: Sequence[int]) -> int:
    """Tokens of a completion that are predicted."""
    return sum(token >= 0 for token in completion)


def _fit(lengths: Sequence[int]) -> tuple[list[int], list[int], int]:
    """Row and first column of every example, and the number of rows: first-fit-decreasing bin packing."""
    width = max(lengths)
    filled: list[int] = []
    row_of, start_of = [0] * len(lengths), [0] * len(lengths)
    for b in sorted(range(len(lengths)), key=lambda b: (-lengths[b], b)):
        row = next((r for r, used in enumerate(filled) if used + lengths[b] <= width), len(filled))
        if row == len(filled):
            filled.append(0)
        row_of[b], start_of[b] = row, filled[row]
        filled[row] += lengths[b]
    return row_of, start_of, len(filled)
