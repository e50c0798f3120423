"""Fine-tuning: batches, the mean over a global batch, adapters, and resuming after a kill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tandemrec.errors import InputError
from tandemrec.llm.finetune import FineTuneConfig, FineTuning, fine_tune, length_batches, prepare
from tandemrec.llm.model import LanguageModel
from tandemrec.llm.objectives import SFT, Prompted
from tandemrec.training import TrainingConfig

Folder = Callable[[str], str]


def prompted(n: int, seed: int) -> Prompted:
    """Prompts of unequal length whose answer is their last token, twice."""
    rng = np.random.default_rng(seed)
    prompts = [[0, *rng.integers(3, 60, rng.integers(1, 12)).tolist()] for _ in range(n)]
    return Prompted(prompts, [[[prompt[-1]] * 2 + [1]] for prompt in prompts])


def task(lm: LanguageModel, **config: object) -> FineTuning:
    training = TrainingConfig(epochs=3, learning_rate=5e-3, patience=None, checkpoint_seconds=0)
    settings = FineTuneConfig.model_validate({"batch_size": 16, "training": training} | config)
    return FineTuning(prepare(lm, settings, 7), SFT(), settings, prompted(64, 0), prompted(16, 1), seed=7)


def weights(task: FineTuning) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in task.module.named_parameters() if p.requires_grad}


def test_batches_hold_every_row_once_within_the_token_budget() -> None:
    part = prompted(50, 2)
    groups = length_batches(part, list(range(50)), tokens=60)
    assert sorted(row for group in groups for row in group) == list(range(50))
    for group in groups:
        assert len(group) == 1 or len(group) * max(part.length(row) for row in group) <= 60


def test_micro_batches_change_nothing_but_memory(tiny: Folder) -> None:
    tasks = [task(LanguageModel.load(tiny("llama")), tuning="full", micro_batch_tokens=n) for n in (30, 100_000)]
    gradients = []
    for one in tasks:
        batches = one.steps(0)[0]
        total = sum(one.weight(batch) for batch in batches)
        for batch in batches:
            torch.autograd.backward(one.loss(batch) / total)
        gradients.append({name: p.grad for name, p in one.module.named_parameters()})
    assert len(tasks[0].steps(0)[0]) > len(tasks[1].steps(0)[0]) == 1
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-5, rtol=1e-3)


def test_loss_is_the_mean_over_all_label_tokens_of_a_step(tiny: Folder) -> None:
    one = task(LanguageModel.load(tiny("qwen2")), tuning="full")
    part = Prompted([[0, 5], [0, 6, 7]], [[[8, 9, 1]], [[10, 1]]])
    one.train_part = part
    values = one.lm.label_log_probs(part.prompts, [c[0] for c in part.completions])
    assert one.weight([0, 1]) == 5
    torch.testing.assert_close(one.loss([0, 1]) / one.weight([0, 1]), -values.mean())
    one.valid_part = part
    assert one.validate()["log_likelihood"] == pytest.approx(values.mean().item(), abs=1e-6)


def test_an_epoch_may_draw_some_examples_from_the_seed(tiny: Folder) -> None:
    one = task(LanguageModel.load(tiny("llama")), examples_per_epoch=20)
    drawn = [sorted(row for step in one.steps(epoch) for batch in step for row in batch) for epoch in (0, 1, 0)]
    assert [len(set(rows)) for rows in drawn] == [20, 20, 20]
    assert drawn[0] == drawn[2] != drawn[1]


@pytest.mark.parametrize(("architecture", "tuning"), [("llama", "full"), ("gpt2", "lora"), ("gpt_neox", "lora")])
def test_learns_and_leaves_the_base_alone(architecture: str, tuning: str, tiny: Folder) -> None:
    one = task(LanguageModel.load(tiny(architecture)), tuning=tuning)
    before, frozen = one.validate()["log_likelihood"], one.lm.encode(["Star 1"])
    report = fine_tune(one)
    assert report.best_value is not None
    assert report.best_value > before + 0.5
    assert one.validate()["log_likelihood"] == pytest.approx(report.best_value)
    torch.testing.assert_close(one.lm.encode(["Star 1"]), frozen)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_killed_run_ends_with_the_same_weights(
    tuning: str, tiny: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = task(LanguageModel.load(tiny("llama")), tuning=tuning)
    expected = fine_tune(whole, tmp_path / "whole")
    calls = []

    class Killed(FineTuning):
        def loss(self, batch: list[int]) -> torch.Tensor:
            calls.append(batch)
            if len(calls) == 7:
                raise KeyboardInterrupt
            return super().loss(batch)

    first = task(LanguageModel.load(tiny("llama")), tuning=tuning)
    first.__class__ = Killed
    with pytest.raises(KeyboardInterrupt):
        fine_tune(first, tmp_path / "killed")
    second = task(LanguageModel.load(tiny("llama")), tuning=tuning)
    report = fine_tune(second, tmp_path / "killed")
    assert [row["log_likelihood"] for row in report.curve] == [row["log_likelihood"] for row in expected.curve]
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(second)[name]), name


def test_architecture_without_known_maps_is_refused(tiny: Folder) -> None:
    from transformers import AutoModelForCausalLM, BloomConfig

    lm = LanguageModel.load(tiny("llama"))
    odd = AutoModelForCausalLM.from_config(BloomConfig(vocab_size=300, hidden_size=32, n_layer=1, n_head=2))
    for module in odd.modules():
        if hasattr(module, "query_key_value"):
            module.packed = module.query_key_value
            del module.query_key_value
    with pytest.raises(InputError, match="no linear maps named"):
        prepare(LanguageModel(odd, lm.tokenizer, "odd"), FineTuneConfig(), 0)
