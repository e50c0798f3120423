"""Answers in words: beam search and sampling with explicit settings, resumable after a kill."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tandemrec.llm.chunks import Answers, answer_in_chunks
from tandemrec.llm.model import LanguageModel
from tandemrec.recommender import Config

if TYPE_CHECKING:
    from tandemrec.llm.vllm import Server


class GenerationConfig(Config):
    """Deterministic beam search; the checkpoint's own recommendations are never used."""

    beams: int = Field(4, ge=1)
    """Beams; the best one is the answer. One beam is greedy search."""

    max_new_tokens: int | None = Field(None, ge=1)
    """Most tokens of an answer; null: the longest title of the catalogue, within 128 and a quarter of the context."""

    early_stopping: bool = False
    """Stop a prompt as soon as as many beams as are kept have ended, rather than when no open beam can win any more."""

    length_penalty: float = 1.0
    """A finished beam scores log p / length^penalty; 0 compares plain log-probabilities."""

    batch_size: int = Field(64, ge=1)
    """Prompts that are answered together; they are sorted by length first, so little padding is computed."""


class SamplingConfig(Config):
    """Answers drawn from the model."""

    samples: int = Field(4, ge=1)
    """Independent answers a prompt."""

    temperature: float = Field(1.0, gt=0)
    """Logits are divided by it; below 1 likely answers become likelier still."""

    top_p: float = Field(1.0, gt=0, le=1)
    """Only the likeliest tokens that together reach this probability (after temperature) can be drawn; 1: all."""

    batch_size: int = Field(64, ge=1)
    """Prompts that are answered together."""


@dataclass(frozen=True)
class Beam:
    """One answer: its tokens (EOS included, where it ended), its text, and its log-probability given the prompt."""

    tokens: tuple[int, ...]
    text: str
    log_prob: float


def generate(
    lm: LanguageModel,
    prompts: Sequence[list[int]],
    config: GenerationConfig,
    max_new_tokens: int,
    workspace: Path | None = None,
    server: Server | None = None,
) -> list[str]:
    """The best beam of every prompt, as text without special tokens; see `generate_beams`."""
    return [beams[0].text for beams in generate_beams(lm, prompts, config, max_new_tokens, workspace, server)]


def generate_beams(
    lm: LanguageModel,
    prompts: Sequence[list[int]],
    config: GenerationConfig,
    max_new_tokens: int,
    workspace: Path | None = None,
    server: Server | None = None,
) -> list[list[Beam]]:
    """All beams of every prompt, best first; equal prompts are answered once.

    The answers are those of the library's `generate()` with the same settings, but for scores that are tied.

    Args:
        lm: the model, whose own generation settings are never consulted.
        prompts: token ids, BOS included; negative ones are slots, see `LanguageModel.slots`.
        config: the settings.
        max_new_tokens: most tokens of an answer.
        workspace: keeps finished chunks, so that a second call continues where a killed one stopped.
        server: answers instead of `lm`, which then only reads its tokens.

    Raises:
        InputError: if the server fails, or cannot do what is asked.
    """
    distinct = list(dict.fromkeys(tuple(prompt) for prompt in prompts))
    rows = [list(prompt) for prompt in distinct]

    def answer(chunk: list[int]) -> list[Answers]:
        asked = [rows[i] for i in chunk]
        if server is not None:
            return server.beam_search(asked, config, max_new_tokens, lm.eos)
        return _beam_search(lm, asked, config, max_new_tokens)

    settings = [config.model_dump(), max_new_tokens, None if server is None else server.model]
    found = answer_in_chunks(rows, config.batch_size, answer, settings, workspace)
    beams = dict(zip(distinct, _with_texts(lm, found), strict=True))
    return [beams[tuple(prompt)] for prompt in prompts]


def sample(
    lm: LanguageModel,
    prompts: Sequence[list[int]],
    config: SamplingConfig,
    max_new_tokens: int,
    *,
    seed: int,
    workspace: Path | None = None,
) -> list[list[Beam]]:
    """Independent answers to every prompt, in the order they were drawn; `log_prob` is that of the plain model.

    Every prompt has random numbers of its own, from the seed, its tokens and how many equal prompts came before it: its
    answers depend neither on the batch nor on the other prompts. Other arguments are those of `generate_beams`.
    """
    met: Counter[tuple[int, ...]] = Counter()
    sources = []
    for prompt in prompts:
        sources.append([seed, met[tuple(prompt)], *(token % 2**32 for token in prompt)])
        met[tuple(prompt)] += 1

    def answer(chunk: list[int]) -> list[Answers]:
        uniform_BTK = torch.stack([_uniform(sources[i], max_new_tokens, config.samples) for i in chunk])
        return _draw(lm, [prompts[i] for i in chunk], uniform_BTK, config)

    settings = [config.model_dump(), max_new_tokens, seed]
    return _with_texts(lm, answer_in_chunks(prompts, config.batch_size, answer, settings, workspace))


@torch.no_grad()
def _beam_search(
    lm: LanguageModel, prompts: Sequence[list[int]], config: GenerationConfig, max_new_tokens: int
) -> list[Answers]:
    from tandemrec.llm.beam import BeamSearch
    from tandemrec.llm.tree import grow

    growth, logits_BV = grow(lm, prompts)
    search = BeamSearch(
        growth,
        logits_BV,
        width=config.beams,
        limit=max_new_tokens,
        eos=lm.eos,
        length_penalty=config.length_penalty,
        early_stopping=config.early_stopping,
    )
    return search.run()


@torch.no_grad()
def _draw(
    lm: LanguageModel, prompts: Sequence[list[int]], uniform_BTK: Tensor, config: SamplingConfig
) -> list[Answers]:
    """Answers by inversion of the cumulated probabilities, one uniform number a token."""
    from tandemrec.llm.tree import grow

    growth, logits_BV = grow(lm, prompts)
    limit, samples = uniform_BTK.shape[1:]
    logits_BKV = logits_BV[:, None].expand(-1, samples, -1)
    parent_BK = torch.zeros(len(prompts), samples, dtype=torch.long, device=lm.device)
    own_BK = torch.arange(samples, device=lm.device).expand(len(prompts), -1)
    log_prob_BK = torch.zeros(len(prompts), samples, device=lm.device)
    open_BK = torch.ones(len(prompts), samples, dtype=torch.bool, device=lm.device)
    drawn: list[Tensor] = []
    for step in range(limit):
        token_BK = _chosen(logits_BKV, uniform_BTK[:, step].to(lm.device), config)
        log_BK = logits_BKV.log_softmax(2).gather(2, token_BK[..., None])[..., 0]
        log_prob_BK += log_BK * open_BK
        drawn.append(token_BK.masked_fill(~open_BK, lm.eos))
        open_BK = open_BK & (token_BK != lm.eos)
        if step + 1 == limit or not bool(open_BK.any()):
            break
        logits_BKV = growth.step(drawn[-1], parent_BK)
        parent_BK = own_BK
    paths = torch.stack(drawn, 2).tolist()
    return [
        [(_until(row, lm.eos), log) for row, log in zip(rows, logs, strict=True)]
        for rows, logs in zip(paths, log_prob_BK.tolist(), strict=True)
    ]


def _chosen(logits_BKV: Tensor, uniform_BK: Tensor, config: SamplingConfig) -> Tensor:
    """The token at which the cumulated probability passes the uniform number, (B, K)."""
    p_BKV = (logits_BKV / config.temperature).double().softmax(2)
    if config.top_p < 1:
        falling_BKV = p_BKV.sort(2, descending=True).values
        needed_BK1 = (falling_BKV.cumsum(2) < config.top_p).sum(2, keepdim=True).clamp(max=p_BKV.shape[2] - 1)
        p_BKV = p_BKV.masked_fill(p_BKV < falling_BKV.gather(2, needed_BK1), 0)
    up_to_BKV = p_BKV.cumsum(2)
    wanted_BK1 = uniform_BK[..., None] * up_to_BKV[..., -1:]
    token_BK: Tensor = torch.searchsorted(up_to_BKV, wanted_BK1, right=True)[..., 0]
    return token_BK.clamp(max=p_BKV.shape[2] - 1)


def _until(row: list[int], eos: int) -> list[int]:
    return row[: row.index(eos) + 1] if eos in row else row


def _uniform(source: list[int], steps: int, samples: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(source).random((steps, samples)))


def _with_texts(lm: LanguageModel, found: Sequence[Answers]) -> list[list[Beam]]:
    tokens = [tokens for row in found for tokens, _ in row]
    texts = iter(lm.tokenizer.batch_decode(tokens, skip_special_tokens=True))
    return [[Beam(tuple(tokens), str(next(texts)), log) for tokens, log in row] for row in found]
