"""Generation: against a loop without a cache, alone and in batches, and after a kill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tandemrec.llm import generate as module
from tandemrec.llm.generate import GenerationConfig, generate
from tandemrec.llm.model import LanguageModel

PROMPTS = [[5, 9, 7], [8, 6, 5, 40, 3, 2, 7], [4], [12, 40, 41, 42], [20, 21]]
Folder = Callable[[str], str]


def slow_greedy(lm: LanguageModel, prompt: list[int], length: int) -> str:
    ids = list(prompt)
    for _ in range(length):
        ids.append(int(lm.model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == lm.eos:
            break
    return str(lm.tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True))


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "qwen2"])
def test_one_beam_is_the_likeliest_token_each_time(architecture: str, tiny: Folder) -> None:
    lm = LanguageModel.load(tiny(architecture))
    texts = generate(lm, PROMPTS, GenerationConfig(beams=1, batch_size=3), 12)
    assert texts == [slow_greedy(lm, prompt, 12) for prompt in PROMPTS]


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "qwen2"])
def test_beams_do_not_depend_on_batch_mates_or_padding(architecture: str, tiny: Folder) -> None:
    lm = LanguageModel.load(tiny(architecture))
    together = generate(lm, PROMPTS, GenerationConfig(beams=3, batch_size=5), 8)
    alone = [generate(lm, [prompt], GenerationConfig(beams=3), 8)[0] for prompt in PROMPTS]
    assert together == alone
    assert together == generate(lm, PROMPTS[::-1], GenerationConfig(beams=3, batch_size=2), 8)[::-1]


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "qwen2"])
def test_prompts_that_beams_share_change_nothing(
    architecture: str, tiny: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = LanguageModel.load(tiny(architecture))
    ids, mask = lm.left_padded(PROMPTS)
    cache = module._prompt_cache(lm, ids, mask, 3)
    assert cache.layers[0].keys.shape[0] == 3 * len(PROMPTS)
    shared = generate(lm, PROMPTS, GenerationConfig(beams=3), 8)
    monkeypatch.setattr(module, "_prompt_cache", lambda *args: None)
    assert shared == generate(lm, PROMPTS, GenerationConfig(beams=3), 8)


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
    with (tmp_path / "completions.jsonl").open("a") as file:
        file.write('["half a li')
    assert generate(nano, PROMPTS, config, 6, tmp_path) == whole
    assert len(calls) == 4  # one chunk, one killed, two left
    assert generate(nano, PROMPTS, config, 6, tmp_path) == whole
    assert len(calls) == 4
    generate(nano, PROMPTS[:2], config, 6, tmp_path)  # other prompts: nothing of the file counts
    assert len(calls) == 5
