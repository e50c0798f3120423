"""How likely each of a few answers is for each candidate of a user; what the candidates share is computed once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tandemrec.llm.model import LanguageModel
from tandemrec.llm.traffic import TRAFFIC

Tokens = list[int]
Probabilities = NDArray[np.float64]

BATCH_TOKENS = 8192
"""Tokens, shared heads counted once, that are run through the model at once."""


@torch.no_grad()
def option_probabilities(
    lm: LanguageModel,
    heads: Sequence[Tokens],
    tails: Sequence[Sequence[Tokens]],
    options: Sequence[Tokens],
    batch_tokens: int = BATCH_TOKENS,
) -> list[Probabilities]:
    """p(option | head, tail), normalised over the options: one (K_b, R) array for each of B heads.

    Tokens that all options begin with, such as a blank of its own, say nothing and join the tails. Options of one token
    each are then read from the logits behind a tail, R at once. Longer ones are completions of their own, and each ends
    with EOS, so that "1" does not profit from "10". What all tails of a head begin with joins the head.

    Args:
        lm: the model.
        heads: B prompts, BOS included; each is computed once for all its tails.
        tails: K_b ≥ 0 continuations of each.
        options: R answers of at least one token.
        batch_tokens: tokens that are run through the model at once.
    """
    common, options, single = divided(options)
    tails = [[[*tail, *common] for tail in several] for several in tails]
    begin = [_shared(several) if several else 0 for several in tails]
    heads = [[*head, *several[0][:n]] if n else head for head, several, n in zip(heads, tails, begin, strict=True)]
    tails = [[tail[n:] for tail in several] for several, n in zip(tails, begin, strict=True)]
    found: list[Probabilities] = [np.empty((0, len(options))) for _ in heads]
    for rows in _batches(heads, tails, 1 if single else len(options), batch_tokens):
        some = [heads[row] for row in rows], [tails[row] for row in rows]
        TRAFFIC.count(sum(len(head) for head in some[0]) + sum(len(tail) for several in some[1] for tail in several))
        log_BKR = _by_logits(lm, *some, options) if single else _by_completions(lm, *some, options)
        for row, values in zip(rows, log_BKR.double().log_softmax(2).exp().cpu().numpy(), strict=True):
            found[row] = values
    return found


def divided(options: Sequence[Tokens]) -> tuple[Tokens, list[Tokens], bool]:
    """What all options begin with, what is left of each, and whether that is one token, different for each."""
    common = min(_shared(options), min(map(len, options)) - 1)
    left = [option[common:] for option in options]
    single = all(len(option) == 1 for option in left) and len({option[0] for option in left}) == len(left)
    return options[0][:common], left, single


def _by_logits(
    lm: LanguageModel, heads: Sequence[Tokens], tails: Sequence[Sequence[Tokens]], options: Sequence[Tokens]
) -> Tensor:
    """Log-probabilities (B, K, R) of the token behind each tail."""
    packed = lm.packed(heads, [[[*tail, options[0][0]] for tail in several] for several in tails])
    logits_BKV = lm.scorer.last_logits(packed)
    return logits_BKV.log_softmax(2)[:, :, [option[0] for option in options]]


def _by_completions(
    lm: LanguageModel, heads: Sequence[Tokens], tails: Sequence[Sequence[Tokens]], options: Sequence[Tokens]
) -> Tensor:
    """Log-probabilities (B, K, R) of whole options with their end."""
    ended = [[*option, lm.eos] for option in options]
    packed = lm.packed(heads, [[[*tail, *option] for tail in several for option in ended] for several in tails])
    ends = np.cumsum(packed.counts_BC.flatten().cpu().numpy())
    own = [len(option) for several in tails for _ in several for option in ended]
    wanted = np.concatenate([np.arange(end - n, end) for end, n in zip(ends, own, strict=True)])
    parts = torch.split(lm.scorer.tokens(packed, torch.from_numpy(wanted)), own)
    return torch.stack([part.sum() for part in parts]).view(len(heads), -1, len(options))


def _shared(options: Sequence[Tokens]) -> int:
    """How many tokens all of them begin with."""
    columns = zip(*options, strict=False)
    return next((place for place, column in enumerate(columns) if len(set(column)) > 1), min(map(len, options)))


def _batches(
    heads: Sequence[Tokens], tails: Sequence[Sequence[Tokens]], copies: int, batch_tokens: int
) -> Iterator[list[int]]:
    """Groups of heads with equally many tails, of similar length."""
    groups: dict[int, list[int]] = defaultdict(list)
    for row, several in enumerate(tails):
        if several:
            groups[len(several)].append(row)
    sizes = [
        len(head) + copies * sum(len(tail) + 2 for tail in several) for head, several in zip(heads, tails, strict=True)
    ]
    for rows in groups.values():
        batch: list[int] = []
        for row in sorted(rows, key=lambda row: (sizes[row], row)):
            if batch and (len(batch) + 1) * sizes[row] > batch_tokens:
                yield batch
                batch = []
            batch.append(row)
        yield batch
