"""Generation: against a loop without a cache, alone and in batches, and after a kill."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig as Settings

from tandemrec.llm import generate as module
from tandemrec.llm.generate import GenerationConfig, SamplingConfig, generate, generate_beams, sample
from tandemrec.llm.model import LanguageModel

PROMPTS = [[5, 9, 7], [8, 6, 5, 40, 3, 2, 7], [4], [12, 40, 41, 42], [20, 21]]
Folder = Callable[[str], str]
EVERY = ["llama", "gpt2", "gpt_neox", "qwen2", "qwen3", "gemma2", "gpt_neo"]


def slow_greedy(lm: LanguageModel, prompt: list[int], length: int) -> str:
    ids = list(prompt)
    for _ in range(length):
        ids.append(int(lm.model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == lm.eos:
            break
    return str(lm.tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True))


@pytest.mark.parametrize("architecture", EVERY)
def test_one_beam_is_the_likeliest_token_each_time(architecture: str, tiny: Folder) -> None:
    lm = LanguageModel.load(tiny(architecture))
    texts = generate(lm, PROMPTS, GenerationConfig(beams=1, batch_size=3), 12)
    assert texts == [slow_greedy(lm, prompt, 12) for prompt in PROMPTS]


@pytest.mark.parametrize("architecture", EVERY)
def test_beams_do_not_depend_on_batch_mates_or_padding(architecture: str, tiny: Folder) -> None:
    lm = LanguageModel.load(tiny(architecture))
    together = generate(lm, PROMPTS, GenerationConfig(beams=3, batch_size=5), 8)
    alone = [generate(lm, [prompt], GenerationConfig(beams=3), 8)[0] for prompt in PROMPTS]
    assert together == alone
    assert together == generate(lm, PROMPTS[::-1], GenerationConfig(beams=3, batch_size=2), 8)[::-1]


def library_beams(
    lm: LanguageModel, prompts: list[list[int]], length: int, beams: int, **settings: Any
) -> list[list[tuple[int, ...]]]:
    """What `generate()` answers, all beams."""
    ids, mask = lm.left_padded(prompts)
    asked = Settings(
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=length,
        do_sample=False,
        eos_token_id=lm.eos,
        pad_token_id=lm.pad,
        **settings,
    )
    out = lm.model.generate(input_ids=ids, attention_mask=mask, generation_config=asked)[:, ids.shape[1] :].tolist()
    rows = [tuple(row[: row.index(lm.eos) + 1] if lm.eos in row else row) for row in out]
    return [rows[start : start + beams] for start in range(0, len(rows), beams)]


@pytest.mark.parametrize("architecture", EVERY)
@pytest.mark.parametrize(
    "settings", [{}, {"length_penalty": 0.0}, {"length_penalty": 0.3, "early_stopping": True}, {"beams": 1}], ids=str
)
def test_all_beams_are_those_of_the_library(architecture: str, settings: dict[str, Any], tiny: Folder) -> None:
    lm = LanguageModel.load(tiny(architecture))
    config = GenerationConfig.model_validate({"beams": 4, "batch_size": 5} | settings)
    # Random models hardly ever end: let a token end answers that they write often, but not first.
    often = Counter(t for beams in generate_beams(lm, PROMPTS, config, 9) for beam in beams for t in beam.tokens[2:])
    lm.tokenizer.eos_token_id = often.most_common(1)[0][0]
    found = generate_beams(lm, PROMPTS, config, 9)
    own = {"length_penalty": config.length_penalty} if config.beams > 1 else {}
    own |= {"early_stopping": config.early_stopping} if config.beams > 1 else {}
    wanted = library_beams(lm, PROMPTS, 9, config.beams, **own)
    assert [[beam.tokens for beam in beams] for beams in found] == wanted
    assert any(beam.tokens[-1] == lm.eos for beams in found for beam in beams)


@pytest.mark.parametrize("architecture", EVERY)
def test_scores_are_those_of_teacher_forcing(architecture: str, tiny: Folder) -> None:
    lm = LanguageModel.load(tiny(architecture))
    for prompt, beams in zip(PROMPTS, generate_beams(lm, PROMPTS, GenerationConfig(beams=3), 8), strict=True):
        forced = [lm.label_log_probs([prompt], [list(beam.tokens)]).sum().item() for beam in beams]
        np.testing.assert_allclose([beam.log_prob for beam in beams], forced, atol=1e-4)


def test_text_leaves_special_tokens_out(nano: LanguageModel) -> None:
    beam = generate_beams(nano, [[*nano.bos, *nano.tokenize(["Star"])[0]]], GenerationConfig(), 30)[0][0]
    assert beam.text == nano.tokenizer.decode([t for t in beam.tokens if t != nano.eos])


@pytest.mark.parametrize("architecture", EVERY)
def test_slots_in_prompts_take_item_vectors(architecture: str, tiny: Folder) -> None:
    lm = LanguageModel.load(tiny(architecture))
    words = lm.model.get_input_embeddings()(torch.tensor([9, 40, 7])).detach()
    lm = LanguageModel(lm.model, lm.tokenizer, lm.origin, slots=torch.nn.Embedding.from_pretrained(words))
    plain, slotted = [[5, 9, 7], [8, 40, 7], [7]], [[5, -1, 7], [8, -2, -3], [-3]]
    config = GenerationConfig(beams=3)
    for a, b in zip(generate_beams(lm, plain, config, 6), generate_beams(lm, slotted, config, 6), strict=True):
        assert [beam.tokens for beam in a] == [beam.tokens for beam in b]
    drawn = [sample(lm, prompts, SamplingConfig(temperature=1e-5), 6, seed=1) for prompts in (plain, slotted)]
    assert [row[0].tokens for row in drawn[0]] == [row[0].tokens for row in drawn[1]]


def test_equal_prompts_are_computed_once(nano: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    search, sizes = module._beam_search, []

    def counted(lm: LanguageModel, prompts: list[list[int]], *rest: Any) -> Any:
        sizes.append(len(prompts))
        return search(lm, prompts, *rest)

    monkeypatch.setattr(module, "_beam_search", counted)
    texts = generate(nano, [*PROMPTS, *PROMPTS[::-1]], GenerationConfig(), 5)
    assert texts == texts[::-1]
    assert sizes == [len(PROMPTS)]


def test_samples_follow_the_models_probabilities(tiny: Folder) -> None:
    lm = LanguageModel.load(tiny("llama"))
    draws = sample(lm, [PROMPTS[0]], SamplingConfig(samples=20_000, temperature=2.0), 1, seed=5)[0]
    counts = np.bincount([beam.tokens[0] for beam in draws], minlength=lm.model.config.vocab_size)
    with torch.no_grad():
        logits = lm.model(torch.tensor([PROMPTS[0]])).logits[0, -1]
    p = (logits / 2.0).softmax(0).numpy()
    error = np.sqrt(p * (1 - p) / len(draws))
    assert (np.abs(counts / len(draws) - p) <= 5 * error + 1e-4).all()
    log_p = logits.log_softmax(0)
    np.testing.assert_allclose([b.log_prob for b in draws[:50]], [log_p[b.tokens[0]] for b in draws[:50]], atol=1e-5)


def test_nucleus_keeps_the_fewest_tokens_that_reach_top_p(tiny: Folder) -> None:
    lm = LanguageModel.load(tiny("llama"))
    with torch.no_grad():
        p = lm.model(torch.tensor([PROMPTS[0]])).logits[0, -1].softmax(0).sort(descending=True)
    top_p = float(p.values[:3].sum() - 0.5 * p.values[2])
    draws = sample(lm, [PROMPTS[0]], SamplingConfig(samples=2000, top_p=top_p), 1, seed=5)[0]
    assert {beam.tokens[0] for beam in draws} == set(p.indices[:3].tolist())


@pytest.mark.parametrize("architecture", EVERY)
def test_samples_do_not_depend_on_other_prompts(architecture: str, tiny: Folder) -> None:
    lm = LanguageModel.load(tiny(architecture))
    config = SamplingConfig(samples=3, batch_size=2)
    together = sample(lm, [*PROMPTS, PROMPTS[0]], config, 8, seed=1)
    alone = [sample(lm, [prompt], config, 8, seed=1)[0] for prompt in PROMPTS]
    assert [[b.tokens for b in row] for row in together[:-1]] == [[b.tokens for b in row] for row in alone]
    assert together[-1] != together[0]  # an equal prompt draws again
    assert [b.tokens for b in sample(lm, PROMPTS[:1], config, 8, seed=2)[0]] != [b.tokens for b in together[0]]
    for prompt, row in zip(PROMPTS, together, strict=False):
        forced = [lm.label_log_probs([prompt], [list(beam.tokens)]).sum().item() for beam in row]
        np.testing.assert_allclose([beam.log_prob for beam in row], forced, atol=1e-4)


def test_beams_find_a_likelier_answer_than_the_greedy_one(nano: LanguageModel) -> None:
    prompts = [nano.bos + ids for ids in nano.tokenize(["Star", "Dragon 1", '"Rob', "Heart: "])]
    config = {"length_penalty": 0.0}
    found = {}
    for beams in (1, 4):
        texts = generate(nano, prompts, GenerationConfig(beams=beams, **config), 6)
        labels = [[*ids, nano.eos][:6] for ids in nano.tokenize(texts)]
        sums = [nano.label_log_probs([p], [y]).sum().item() for p, y in zip(prompts, labels, strict=True)]
        found[beams] = sum(sums)
    assert found[4] >= found[1] - 1e-4


def test_the_checkpoints_own_settings_never_count(tiny: Folder, tmp_path: Path) -> None:
    folder = tmp_path / "opinionated"
    shutil.copytree(tiny("llama"), folder)
    own = {"do_sample": True, "temperature": 5.0, "repetition_penalty": 3.0, "min_new_tokens": 9, "num_beams": 7}
    own |= {"no_repeat_ngram_size": 1, "forced_eos_token_id": 3, "bad_words_ids": [[40]], "max_length": 9}
    (folder / "generation_config.json").write_text(json.dumps(own))
    plain, opinionated = LanguageModel.load(tiny("llama")), LanguageModel.load(str(folder))
    config = GenerationConfig(beams=2)
    assert generate(plain, PROMPTS, config, 10) == generate(opinionated, PROMPTS, config, 10)


def test_a_killed_run_continues_behind_its_last_chunk(
    nano: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = GenerationConfig(beams=2, batch_size=2)
    whole = generate(nano, PROMPTS, config, 6)
    search, calls = module._beam_search, []

    def killed(*args):  # type: ignore[no-untyped-def]
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return search(*args)

    monkeypatch.setattr(module, "_beam_search", killed)
    with pytest.raises(KeyboardInterrupt):
        generate(nano, PROMPTS, config, 6, tmp_path)
    with (tmp_path / "completions-0.jsonl").open("a") as file:
        file.write('["half a li')
    assert generate(nano, PROMPTS, config, 6, tmp_path) == whole
    assert len(calls) == 4  # one chunk, one killed, two left
    assert generate(nano, PROMPTS, config, 6, tmp_path) == whole
    assert len(calls) == 4
    generate(nano, PROMPTS[:2], config, 6, tmp_path)  # other prompts: nothing of the file counts
    assert len(calls) == 5
