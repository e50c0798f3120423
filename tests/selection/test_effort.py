"""Effort against one backward pass a sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tandemrec.data.examples import Examples, Ragged
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.llm.finetune import FineTuneConfig, prepare
from tandemrec.llm.model import LanguageModel
from tandemrec.llm.objectives import Prompted
from tandemrec.llm.prompts import PromptConfig
from tandemrec.llm.recommenders.bigrec import BIGRec, BIGRecConfig
from tandemrec.llm.recommenders.llara import LLaRA, LLaRAConfig
from tandemrec.llm.recommenders.writer import PretrainedConfig
from tandemrec.selection.effort import EffortConfig, LanguageModelEffort, chosen_matrices, effort
from tests.llm.conftest import nano_folder, split, tiny, toy  # noqa: F401

LLAMA_VALUE = "layers.1.self_attn.v_proj.lora_B.default"


@pytest.fixture
def lm(tiny: Callable[[str], str]) -> LanguageModel:  # noqa: F811
    return adapted(tiny("llama"))


def adapted(origin: str) -> LanguageModel:
    """With adapters whose B is not 0, as after training."""
    lm = prepare(LanguageModel.load(origin), FineTuneConfig(dropout=0.3), seed=1)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in lm.model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2, generator=generator)
    return lm


def prompted(n: int = 9) -> Prompted:
    rng = np.random.default_rng(n)
    words = lambda low, high: rng.integers(3, 60, rng.integers(low, high)).tolist()  # noqa: E731
    return Prompted([[0, *words(1, 25)] for _ in range(n)], [[[*words(0, 6), 1]] for _ in range(n)])


def one_by_one(lm: LanguageModel, part: Prompted, matrices: list[nn.Linear], config: EffortConfig) -> list[float]:
    lm.model.eval()
    for parameter in lm.model.parameters():
        parameter.requires_grad_(True)
    norms = []
    for prompt, (label,) in zip(part.prompts, part.completions, strict=True):
        ids = torch.tensor([prompt + label])
        logits = lm.model(input_ids=ids).logits[0, :-1]
        log_p = logits.log_softmax(1).gather(1, ids[0, 1:, None])[:, 0]
        counted: Tensor = log_p if config.tokens == "all" else log_p[len(prompt) - 1 :]
        loss = -(counted.mean() if config.reduction == "mean" else counted.sum())
        lm.model.zero_grad()
        loss.backward()
        norms.append(sum(float(m.weight.grad.double().square().sum()) for m in matrices) ** 0.5)  # type: ignore[union-attr]
    return norms


@pytest.mark.parametrize("tokens", [60, 100_000])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"matrices": "adapters"},
        {"tokens": "all"},
        {"reduction": "sum", "matrices": "modules", "modules": ("down_proj", "q_proj.lora_A.default")},
    ],
)
def test_equals_one_backward_pass_a_sample(lm: LanguageModel, settings: dict[str, Any], tokens: int) -> None:
    config, part = EffortConfig(micro_batch_tokens=tokens, **settings), prompted()
    lm.model.train()  # dropout must not matter
    found = effort(lm, part, config)
    assert lm.model.training
    expected = one_by_one(lm, part, chosen_matrices(lm.model, config), config)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert min(expected) > 0


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "gpt_neo"])
def test_other_architectures(tiny: Callable[[str], str], architecture: str) -> None:  # noqa: F811
    lm, part = adapted(tiny(architecture)), prompted()
    for config in (EffortConfig(), EffortConfig(matrices="adapters")):
        expected = one_by_one(lm, part, chosen_matrices(lm.model, config), config)
        np.testing.assert_allclose(effort(lm, part, config), expected, rtol=1e-5)


def test_does_not_depend_on_the_batch(lm: LanguageModel) -> None:
    part = prompted()
    whole = effort(lm, part, EffortConfig())
    alone = [
        effort(lm, Prompted([x], [y]), EffortConfig())[0] for x, y in zip(part.prompts, part.completions, strict=True)
    ]
    np.testing.assert_allclose(whole, alone, rtol=1e-5)


def test_last_value_projection_is_found(lm: LanguageModel) -> None:
    (found,) = chosen_matrices(lm.model, EffortConfig())
    assert found is dict(lm.model.named_modules())[f"base_model.model.model.{LLAMA_VALUE}"]
    asked = [parameter.requires_grad for parameter in lm.model.parameters()]
    effort(lm, prompted(2), EffortConfig())
    assert [parameter.requires_grad for parameter in lm.model.parameters()] == asked


def test_without_adapters_the_last_value_projection_itself_counts(tiny: Callable[[str], str]) -> None:  # noqa: F811
    lm, part = LanguageModel.load(tiny("llama")), prompted()
    chosen = chosen_matrices(lm.model, EffortConfig())
    assert chosen == [dict(lm.model.named_modules())["model.layers.1.self_attn.v_proj"]]
    expected = one_by_one(lm, part, chosen, EffortConfig())
    np.testing.assert_allclose(effort(lm, part, EffortConfig()), expected, rtol=1e-5)


def test_models_without_the_matrices_are_refused(tiny: Callable[[str], str], lm: LanguageModel) -> None:  # noqa: F811
    with pytest.raises(InputError, match="put an adapter on it"):
        effort(LanguageModel.load(tiny("llama")), prompted(2), EffortConfig(matrices="adapters"))
    with pytest.raises(InputError, match="'last-value' finds no matrix"):
        effort(LanguageModel.load(tiny("gpt2")), prompted(2), EffortConfig())
    with pytest.raises(InputError, match="'…nonsense'"):
        effort(lm, prompted(2), EffortConfig(matrices="modules", modules=("nonsense",)))


PROMPT = PromptConfig(template="compact", history=3)


def test_prompts_are_those_of_training(tiny: Callable[[str], str], split: Split) -> None:  # noqa: F811
    examples, titles = split.train.take(slice(0, 5)), split.dataset.titles
    writer = BIGRec(BIGRecConfig(model="bigrec", lm=PretrainedConfig(path=tiny("llama")), prompt=PROMPT))
    writer.start(titles, seed=4)
    part = writer.answered(examples)
    assert f'"{titles[examples.target[0][0]]}"' in writer.language_model.tokenizer.decode(part.completions[0][0])
    assert titles[examples.history[4][-1]] in writer.language_model.tokenizer.decode(part.prompts[4])
    measure = LanguageModelEffort(writer, EffortConfig())
    np.testing.assert_array_equal(measure(examples), effort(writer.language_model, part, EffortConfig()))
    nothing = Examples(
        examples.user, examples.history, Ragged.from_lists([[1], [], [2], [3], [4]]), examples.seen, examples.timestamp
    )
    with pytest.raises(InputError, match="none in example 1"):
        measure(nothing)


def test_item_vectors_count_where_prompts_hold_them(tiny: Callable[[str], str], split: Split) -> None:  # noqa: F811
    config = LLaRAConfig(model="llara", vectors="SASRec", lm=PretrainedConfig(path=tiny("llama")), prompt=PROMPT)
    examples, titles = split.train.take(slice(0, 6)), split.dataset.titles
    vectors = torch.randn(split.n_items, 8, generator=torch.Generator().manual_seed(1))
    found = []
    for scale in (1.0, 20.0):
        writer = LLaRA(config, item_vectors=vectors * scale)
        writer.start(titles, seed=4)
        writer.language_model.model.eval()
        found.append(LanguageModelEffort(writer, EffortConfig())(examples))
        projector = writer.language_model.slots
        assert projector is not None
        assert any(parameter.requires_grad for parameter in projector.parameters())
        (matrix,) = chosen_matrices(writer.language_model.model, EffortConfig())
        part = writer.answered(examples)
        for row in range(len(examples)):
            log_p = writer.language_model.label_log_probs([part.prompts[row]], [part.completions[row][0]])
            (slope,) = torch.autograd.grad(-log_p.mean(), matrix.weight)
            assert found[-1][row] == pytest.approx(float(slope.norm()), rel=1e-4)
    assert not np.allclose(found[0], found[1], rtol=1e-3)
    with pytest.raises(InputError, match="key 'vectors': 'SASRec' gives none"):
        LLaRA(config).start(titles)
