"""Beam generation with explicit settings, in fixed chunks that survive a kill."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from rich.progress import track
from torch import Tensor

from tandemrec.llm.model import LanguageModel
from tandemrec.llm.scoring import backbone_and_head
from tandemrec.recommender import Config
from tandemrec.training import show_progress


class GenerationConfig(Config):
    """Deterministic beam search; the checkpoint's own recommendations are never used."""

    beams: int = Field(4, ge=1)
    """Beams; the best one is the answer."""

    max_new_tokens: int | None = Field(None, ge=1)
    """Most tokens of an answer; null: the longest title of the catalogue, within 128 and a quarter of the context."""

    early_stopping: bool = False
    """Stop a prompt as soon as as many beams as are kept have ended, rather than when no open beam can win any more."""

    length_penalty: float = 1.0
    """A finished beam scores log p / length^penalty; 0 compares plain log-probabilities."""

    batch_size: int = Field(64, ge=1)
    """Prompts that are answered together; they are sorted by length first, so little padding is computed."""


def generate(
    lm: LanguageModel,
    prompts: Sequence[list[int]],
    config: GenerationConfig,
    max_new_tokens: int,
    workspace: Path | None = None,
) -> list[str]:
    """The best beam of every prompt, as text without special tokens.

    Args:
        lm: the model, whose own generation settings are never consulted.
        prompts: token ids, BOS included.
        config: the settings.
        max_new_tokens: most tokens of an answer.
        workspace: keeps finished chunks in `completions.jsonl`; a second call continues behind the last whole one.
    """
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), prompts[i], i))
    chunks = [order[start : start + config.batch_size] for start in range(0, len(order), config.batch_size)]
    done = _finished_chunks(workspace, prompts, config, max_new_tokens)
    texts = [""] * len(prompts)
    for chunk, answers in zip(chunks, done, strict=False):
        for i, text in zip(chunk, answers, strict=True):
            texts[i] = text
    left = chunks[len(done) :]
    for chunk in track(left, "generating", transient=True, disable=not show_progress()):
        answers = _beam_search(lm, [prompts[i] for i in chunk], config, max_new_tokens)
        for i, text in zip(chunk, answers, strict=True):
            texts[i] = text
        if workspace is not None:
            with (workspace / "completions.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(answers, ensure_ascii=False) + "\n")
    return texts


@torch.no_grad()
def _beam_search(
    lm: LanguageModel, prompts: Sequence[list[int]], config: GenerationConfig, max_new_tokens: int
) -> list[str]:
    from transformers import GenerationConfig as Settings

    ids_BT, mask_BT = lm.left_padded(prompts)
    settings = Settings(
        num_beams=config.beams,
        do_sample=False,
        early_stopping=config.early_stopping and config.beams > 1,
        length_penalty=config.length_penalty,
        max_new_tokens=max_new_tokens,
        eos_token_id=lm.eos,
        pad_token_id=lm.pad,
        bos_token_id=lm.tokenizer.bos_token_id,
        use_cache=True,
    )
    lm.model.eval()
    out = lm.model.generate(
        input_ids=ids_BT,
        attention_mask=mask_BT,
        generation_config=settings,
        past_key_values=_prompt_cache(lm, ids_BT, mask_BT, config.beams),
    )
    return [str(text) for text in lm.tokenizer.batch_decode(out[:, ids_BT.shape[1] :], skip_special_tokens=True)]


def _prompt_cache(lm: LanguageModel, ids_BT: Tensor, mask_BT: Tensor, beams: int) -> Any:
    """Keys and values of all prompt tokens but the last, computed once a prompt and then copied to its beams.

    Left to itself, generation runs every prompt as often as there are beams. None where a model keeps anything else
    than plain keys and values, or does not take positions.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    backbone, _ = backbone_and_head(lm.model)
    if beams == 1 or ids_BT.shape[1] < 2 or "position_ids" not in inspect.signature(backbone.forward).parameters:
        return None
    positions_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
    cache = backbone(
        input_ids=ids_BT[:, :-1], attention_mask=mask_BT[:, :-1], position_ids=positions_BT[:, :-1], use_cache=True
    ).past_key_values
    if type(cache) is not DynamicCache or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None
    cache.batch_repeat_interleave(beams)
    return cache


def _finished_chunks(
    workspace: Path | None, prompts: Sequence[list[int]], config: GenerationConfig, max_new_tokens: int
) -> list[list[str]]:
    """Answers of whole chunks of an earlier, killed call with the same prompts and settings."""
    if workspace is None:
        return []
    workspace.mkdir(parents=True, exist_ok=True)
    path = workspace / "completions.jsonl"
    digest = hashlib.sha256(json.dumps([list(prompts), config.model_dump(), max_new_tokens]).encode()).hexdigest()
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith("\n")]
    if not whole or json.loads(whole[0]) != digest:
        path.write_text(json.dumps(digest) + "\n", encoding="utf-8")
        return []
    path.write_text("".join(whole), encoding="utf-8")
    return [json.loads(line) for line in whole[1:]]
