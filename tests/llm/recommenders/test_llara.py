"""LLaRA: exactly the history's vectors reach the model, the curriculum follows the global step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tandemrec.data.examples import Examples
from tandemrec.data.locations import models_root
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.llm.finetune import FineTuneConfig
from tandemrec.llm.model import LanguageModel
from tandemrec.llm.objectives import SFT, Prompted
from tandemrec.llm.packing import pack
from tandemrec.llm.prompts import PromptConfig, prompt_text, prompt_tokens
from tandemrec.llm.recommenders.llara import HybridFineTuning, LLaRA, LLaRAConfig, Projector, without_slots
from tandemrec.llm.scoring import CompletionScorer
from tandemrec.training import TrainingConfig

ITEMS = 24
VECTORS = torch.from_numpy(np.random.default_rng(0).normal(size=(ITEMS, 6)).astype(np.float32))
SETTINGS: dict[str, Any] = {
    "model": "llara",
    "vectors": "SASRec",
    "lm": {"build": "nano", "millions": 0.05},
    "prompt": {"template": "compact", "history": 4},
    "generation": {"beams": 2},
    "finetune": {"tuning": "full", "batch_size": 16, "training": {"epochs": 2, "learning_rate": 3e-3}},
}


def llara(folder: Path, vectors: torch.Tensor | None = VECTORS, **settings: Any) -> LLaRA:
    return LLaRA(LLaRAConfig.model_validate(SETTINGS | settings), folder, item_vectors=vectors)


@pytest.mark.parametrize("template", ["alpaca", "compact"])
@pytest.mark.parametrize("name", ["nano", "stories260k", "stories3m", "tinystories-chat-3m", "gpt2", "qwen2.5"])
def test_slots_are_the_history_for_every_tokenizer(name: str, template: str, nano_folder: Path) -> None:
    folder = nano_folder if name == "nano" else models_root() / name
    folder = folder if folder.is_dir() else models_root() / "tokenizers" / name
    if not folder.is_dir():
        pytest.skip(f"needs the tokenizer {name} in {models_root()} (TANDEMREC_MODELS)")
    lm = _only_tokenizer(folder)
    titles = [f'Item [{i}] "quoted", the {i}th' for i in range(ITEMS)] + ["[HistoryEmb]", "  "]
    histories = [[3], [24, 7, 7, 25], list(range(ITEMS))]
    config = PromptConfig.model_validate({"template": template, "history": 10})
    prompts = prompt_tokens(lm, Examples.from_histories(histories), titles, config, 10, "slots")
    for history, prompt in zip(histories, prompts, strict=True):
        shown = history[-10:]
        assert [-1 - token for token in prompt if token < 0] == shown
        pieces = "".join(lm.tokenizer.decode(part) for part in _between_slots(prompt[len(lm.bos) :]))
        assert "".join(pieces.split()) == "".join(prompt_text([titles[i] for i in shown], config).split())


def test_exactly_the_projected_vectors_reach_the_model(nano: LanguageModel) -> None:
    projector = Projector(VECTORS, nano.model.get_input_embeddings().embedding_dim)
    scorer, seen = CompletionScorer(nano.model, projector), []
    hook = nano.model.get_input_embeddings().register_forward_hook(lambda *_: None)
    trunk = nano.model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    packed = pack([[1, 5, -4, 6, -8], [1, -1, 7]], [[[9, 2]], [[8, 2]]], nano.pad)
    scorer(packed)
    hook.remove()
    trunk.remove()
    place = packed.ids_RT < 0
    torch.testing.assert_close(seen[0][place], projector(-1 - packed.ids_RT[place]))
    words = nano.model.get_input_embeddings()(packed.ids_RT[~place])
    torch.testing.assert_close(seen[0][~place], words)


def test_text_only_and_hybrid_steps_follow_the_global_step(nano: LanguageModel) -> None:
    n, epochs = 400, 5
    hybrid = Prompted([[1, 5, -2]] * n, [[[6, 2]]] * n)
    config = FineTuneConfig(tuning="full", batch_size=40, training=TrainingConfig(epochs=epochs))
    task = HybridFineTuning(nano, SFT(), config, hybrid, hybrid, seed=3)
    steps = [rows for epoch in range(epochs) for rows in task.drawn(epoch)]
    assert len(steps) == 50
    share = np.array([np.mean([row < n for row in rows]) for rows in steps])
    assert share[-1] == 1.0
    np.testing.assert_allclose(share, np.arange(1, 51) / 50, atol=0.3)
    assert abs((share - np.arange(1, 51) / 50).mean()) < 0.03
    for epoch in range(epochs):
        assert sorted(row % n for rows in task.drawn(epoch) for row in rows) == list(range(n))
    assert task.train_part.prompts[n] == [1, 5]
    assert task.drawn(1) == task.drawn(1)


def test_only_the_examples_with_vectors_train_the_projector(nano: LanguageModel) -> None:
    projector = Projector(VECTORS, nano.model.get_input_embeddings().embedding_dim)
    scorer = CompletionScorer(nano.model, projector)
    part = Prompted([[1, 5, -4]], [[[9, 2]]])
    scorer(pack(part.prompts, part.completions, nano.pad)).sum().backward()
    assert projector.into.weight.grad is not None
    assert projector.vectors_ID.grad is None
    projector.zero_grad()
    text = without_slots(part)
    scorer(pack(text.prompts, text.completions, nano.pad)).sum().backward()
    assert projector.into.weight.grad is None
    nano.model.zero_grad()


def test_slots_are_no_labels(nano: LanguageModel) -> None:
    projector = Projector(VECTORS, nano.model.get_input_embeddings().embedding_dim)
    scorer = CompletionScorer(nano.model, projector)
    whole = scorer.tokens(pack([[1]], [[[5, -4, 9, 2]]], nano.pad))
    answer = scorer.tokens(pack([[1, 5, -4]], [[[9, 2]]], nano.pad))
    assert len(whole) == 3
    torch.testing.assert_close(whole[1:], answer)


@pytest.mark.parametrize("settings", [{}, {"train_vectors": True, "curriculum": False, "loss_on": "all"}])
def test_learns_and_survives_saving(settings: dict[str, Any], split: Split, nano_folder: Path, tmp_path: Path) -> None:
    model = llara(nano_folder, **settings)
    report = model.fit(split, seed=3)
    assert report.curve[-1]["loss"] < report.curve[0]["loss"]
    model.save(tmp_path / "model")
    again = LLaRA.load(tmp_path / "model")
    assert again.complete(split.test) == model.complete(split.test)
    torch.testing.assert_close(again.scores(split.test), model.scores(split.test), atol=1e-5, rtol=1e-4)
    slots = again.language_model.slots
    assert isinstance(slots, Projector)
    assert torch.equal(slots.vectors_ID, VECTORS) is not settings.get("train_vectors", False)


def test_an_answer_does_not_depend_on_the_batch(split: Split, nano_folder: Path) -> None:
    model = llara(nano_folder)
    model.fit(split, seed=3)
    together = model.complete(split.test)
    model._memory.clear()
    assert [model.complete(split.test.take(slice(i, i + 1)))[0] for i in range(8)] == together[:8]


def test_a_partner_without_vectors_is_refused(split: Split, nano_folder: Path) -> None:
    with pytest.raises(InputError, match="'SASRec' gives none, expected one of each of 24 items"):
        llara(nano_folder, None).fit(split)
    with pytest.raises(InputError, match="gives 3, expected"):
        llara(nano_folder, VECTORS[:3]).fit(split)


def _between_slots(tokens: list[int]) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    for token in tokens:
        if token < 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _only_tokenizer(folder: Path) -> LanguageModel:
    from types import SimpleNamespace

    from transformers import AutoTokenizer

    lm = LanguageModel.__new__(LanguageModel)
    lm.tokenizer = AutoTokenizer.from_pretrained(folder)
    lm.model = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=4096))
    return lm
