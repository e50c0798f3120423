"""Probabilities of answers over shared heads against separate prompts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tandemrec.llm.judging import option_probabilities
from tandemrec.llm.model import LanguageModel
from tests.llm.conftest import ARCHITECTURES


def separate(lm: LanguageModel, prompt: list[int], options: list[list[int]]) -> np.ndarray:
    """One pass a prompt and option, normalised over the options."""
    logs = []
    for option in options:
        ids = torch.tensor([[*prompt, *option]])
        with torch.no_grad():
            logits = lm.model(input_ids=ids).logits[0].double().log_softmax(1)
        logs.append(sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(option)))
    values = np.exp(np.array(logs) - np.max(logs))
    return values / values.sum()


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "mamba"])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_shared_heads_change_nothing(tiny: Callable[[str], str], architecture: str, length: int) -> None:
    lm = LanguageModel.load(tiny(architecture))
    rng = np.random.default_rng(3)

    def text(n: int) -> list[int]:
        return rng.integers(5, 250, n).tolist()

    heads = [text(n) for n in (9, 4, 20, 6)]
    tails = [[text(int(n)) for n in rng.integers(1, 7, k)] for k in (3, 1, 3, 0)]
    tails[2] = [[5, 8, *tails[2][0]], [5, 8], [5, 8, *tails[2][2]]]  # what they share is computed once; one is no more
    options = {1: [[7], [9], [11]], 2: [[7], [7, 9], [11, 5]], 3: [[6, 7], [6, 9], [6, 11]]}[length]
    ended = options if length != 2 else [[*option, lm.eos] for option in options]
    found = option_probabilities(lm, heads, tails, options, batch_tokens=60)
    assert [len(rows) for rows in found] == [3, 1, 3, 0]
    for head, several, rows in zip(heads, tails, found, strict=True):
        for tail, row in zip(several, rows, strict=True):
            np.testing.assert_allclose(row, separate(lm, head + tail, ended), atol=1e-5)
            assert row.sum() == pytest.approx(1)
