"""Packed rows: layout by hand, and losses and gradients equal to separate passes for every architecture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tandemrec.llm import scoring
from tandemrec.llm.model import LanguageModel
from tandemrec.llm.objectives import SDPO, SFT, SOFT, Objective, Prompted
from tandemrec.llm.packing import pack, pack_apart
from tests.llm.conftest import ARCHITECTURES

Folder = Callable[[str], str]


def test_layout_by_hand() -> None:
    packed = pack([[1, 2], [3]], [[[4, 5, 9], [6, 9]], [[7, 9], [9]]], pad=0)
    assert packed.ids_RT.tolist() == [[1, 2, 4, 5, 6], [3, 7, 0, 0, 0]]
    assert packed.positions_RT.tolist() == [[0, 1, 2, 3, 2], [0, 1, 0, 0, 0]]
    assert packed.example_RT.tolist() == [[1, 1, 1, 1, 1], [2, 2, 0, 0, 0]]
    assert packed.completion_RT.tolist() == [[0, 0, 1, 1, 2], [0, 1, 0, 0, 0]]
    assert packed.source_N.tolist() == [1, 2, 3, 1, 4, 5, 6, 5]
    assert packed.label_N.tolist() == [4, 5, 9, 6, 9, 7, 9, 9]
    assert packed.counts_BC.tolist() == [[3, 2], [2, 1]]
    sees = packed.visible()[0].int().tolist()
    assert sees == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]


def test_short_examples_share_a_row() -> None:
    packed = pack([[1] * 8, [2] * 3, [3] * 4], [[[9]], [[9]], [[9]]], pad=0)
    assert packed.ids_RT.tolist() == [[1] * 8, [3, 3, 3, 3, 2, 2, 2, 0]]
    assert not packed.causal
    assert pack([[1] * 8, [2] * 7], [[[9]], [[9]]], pad=0).causal


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_rows_are_never_over_full_nor_more_than_needed(lengths: list[int]) -> None:
    packed = pack([[b + 1] * size for b, size in enumerate(lengths)], [[[9]] for _ in lengths], pad=0)
    rows, width = packed.ids_RT.shape
    assert width == max(lengths)
    assert rows <= len(lengths)
    assert np.bincount(packed.ids_RT.flatten().numpy(), minlength=len(lengths) + 1)[1:].tolist() == lengths
    used = (packed.example_RT > 0).sum(1)
    assert not any(a + b <= width for i, a in enumerate(used) for b in used[i + 1 :]), "two rows would fit into one"


def examples(n_completions: int) -> Prompted:
    rng = np.random.default_rng(n_completions)
    words = lambda low, high: rng.integers(3, 60, rng.integers(low, high)).tolist()  # noqa: E731
    return Prompted(
        [[0, *words(1, 20)] for _ in range(6)],
        [[[*words(0, 6), 1] for _ in range(n_completions)] for _ in range(6)],
    )


def separately(lm: LanguageModel, part: Prompted) -> Tensor:
    """(B, C) by one plain pass of the whole model a completion."""
    rows = []
    for prompt, several in zip(part.prompts, part.completions, strict=True):
        for answer in several:
            logits = lm.model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
            at = torch.arange(len(prompt) - 1, len(prompt) + len(answer) - 1)
            rows.append(logits[at, torch.tensor(answer)].sum())
    return torch.stack(rows).view(len(part), -1)


OBJECTIVES: list[tuple[str, Callable[[], Objective], int]] = [
    ("sft", SFT, 1),
    ("sft over examples", lambda: SFT("examples"), 1),
    ("soft", lambda: SOFT(tau=0.3), 2),
    ("s-dpo 1", lambda: SDPO(torch.randn(6, 2, generator=torch.Generator().manual_seed(0))), 2),
    ("s-dpo 3", lambda: SDPO(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), beta=0.5), 4),
    ("s-dpo 15", lambda: SDPO(torch.randn(6, 16, generator=torch.Generator().manual_seed(0)), beta=0.1), 16),
]


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "qwen3"])
@pytest.mark.parametrize(("objective", "n"), [o[1:] for o in OBJECTIVES], ids=[o[0] for o in OBJECTIVES])
def test_loss_and_gradients_equal_separate_passes(
    architecture: str, objective: Callable[[], Objective], n: int, tiny: Folder
) -> None:
    lm = LanguageModel.load(tiny(architecture))
    part, judge = examples(n), objective()
    counts = torch.tensor([[len(answer) for answer in several] for several in part.completions])
    results = []
    for values in (lambda: lm.log_probs(part.prompts, part.completions), lambda: separately(lm, part)):
        lm.model.zero_grad()
        loss = judge.loss(range(6), values(), counts) / judge.weight(counts)
        loss.backward()
        results.append((loss.detach(), {name: p.grad.clone() for name, p in lm.model.named_parameters()}))
    (loss, gradients), (expected, theirs) = results
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    scale = max(float(gradient.abs().max()) for gradient in theirs.values())
    for name, gradient in theirs.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-5 * max(1.0, scale), rtol=1e-4)


def test_eager_attention_takes_the_same_mask(tiny: Folder) -> None:
    lm, part = LanguageModel.load(tiny("llama")), examples(3)
    expected = lm.log_probs(part.prompts, part.completions)
    lm.model.set_attn_implementation("eager")
    torch.testing.assert_close(lm.log_probs(part.prompts, part.completions), expected, atol=1e-4, rtol=1e-4)


def test_chunks_of_logits_change_memory_only(tiny: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, part, seen = LanguageModel.load(tiny("llama")), examples(3), []
    for limit in (scoring.CHUNK_LOGITS, 300 * 4):
        monkeypatch.setattr(scoring, "CHUNK_LOGITS", limit)
        lm.model.zero_grad()
        values = lm.log_probs(part.prompts, part.completions)
        values.sum().backward()
        seen.append((values.detach(), [p.grad.clone() for p in lm.model.parameters()]))
    torch.testing.assert_close(seen[0][0], seen[1][0])
    for one, other in zip(seen[0][1], seen[1][1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_slots_take_the_given_vectors(tiny: Folder) -> None:
    """Token −1−i becomes slot i; where the slot holds a token's own vector, nothing changes."""
    lm = LanguageModel.load(tiny("llama"))
    words = lm.model.get_input_embeddings().weight
    lm.slots = torch.nn.Embedding.from_pretrained(words.detach()[10:20].clone())
    plain = lm.log_probs([[0, 5, 13], [0, 12]], [[[7, 1]], [[8, 9, 1]]])
    torch.testing.assert_close(lm.log_probs([[0, 5, -4], [0, -3]], [[[7, 1]], [[8, 9, 1]]]), plain)
    lm = LanguageModel.load(tiny("llama"))
    with pytest.raises(RuntimeError, match="nothing fills them"):
        lm.log_probs([[0, -1]], [[[1]]])


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "gpt_neo", "mamba"])
def test_models_that_cannot_read_packed_rows_get_rows_of_their_own(architecture: str, tiny: Folder) -> None:
    lm, part = LanguageModel.load(tiny(architecture)), examples(3)
    assert lm.scorer.reads_packed_rows is (architecture in ARCHITECTURES)
    torch.testing.assert_close(lm.log_probs(part.prompts, part.completions), separately(lm, part), atol=1e-4, rtol=1e-4)


def test_rows_apart_hold_the_same_labels() -> None:
    part = examples(3)
    together, apart = pack(part.prompts, part.completions, 0), pack_apart(part.prompts, part.completions, 0)
    assert apart.causal
    assert not together.causal
    assert torch.equal(apart.label_N, together.label_N)
    assert torch.equal(apart.counts_BC, together.counts_BC)
    assert len(apart.ids_RT) == 18
