"""Titles as a tree of tokens in flat arrays, and a beam search that can write nothing but titles."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tandemrec.data.examples import IntArray
from tandemrec.llm.chunks import Answers, answer_in_chunks
from tandemrec.llm.model import LanguageModel
from tandemrec.recommender import NO_ITEM, Ranking

if TYPE_CHECKING:
    from tandemrec.llm.tree import Growth

Start = Callable[[Sequence[list[int]]], "tuple[Growth, Tensor]"]
"""Makes prompts ready to grow, and gives the logits (B, V) of what follows them; see `tree.grow`."""


@dataclass(frozen=True)
class Trie:
    """All different token sequences of a catalogue: N nodes, S sequences in lexicographic order.

    Nodes are numbered by depth and, at one depth, by order, so that the children of a node and the sequences below it
    are ranges. A sequence ends at an inner node where it is the beginning of others (never, if all end with EOS).

    Attributes:
        token_N: the token that leads to a node; −1 for node 0, the root.
        child_N1: children of node n are the nodes child[n] … child[n + 1] − 1.
        first_N, stop_N: the sequences below a node, itself included, are first[n] … stop[n] − 1.
        ends_N: whether a sequence ends at a node; it is the first below it.
        longest_N: tokens of the longest sequence below a node.
        sequence_I: sequence of every item; items with equal titles share one.
    """

    token_N: Tensor
    child_N1: Tensor
    first_N: Tensor
    stop_N: Tensor
    ends_N: Tensor
    longest_N: Tensor
    sequence_I: IntArray

    @classmethod
    def build(cls, sequences: Sequence[Sequence[int]], device: torch.device | None = None) -> Trie:
        """Over the tokens of every item's title, at least one each; see `prompts.answer_tokens`."""
        padded_IT = np.full((len(sequences), max(map(len, sequences))), -1, np.int64)
        for item, sequence in enumerate(sequences):
            padded_IT[item, : len(sequence)] = sequence
        rows_ST, sequence_I = np.unique(padded_IT, axis=0, return_inverse=True)
        length_S = (rows_ST >= 0).sum(1)
        # A row makes the nodes of those of its beginnings that the row before does not share.
        shared_S = np.r_[0, (np.cumprod(rows_ST[1:] == rows_ST[:-1], 1) * (rows_ST[1:] >= 0)).sum(1)]
        depth_T = np.arange(1, rows_ST.shape[1] + 1)
        depth_N, first_N = np.nonzero(((shared_S[:, None] < depth_T) & (depth_T <= length_S[:, None])).T)
        child, stop = [np.array([1])], [np.array([len(rows_ST)])]
        for depth in depth_T:
            own = first_N[depth_N == depth - 1]
            next_node = 1 + np.searchsorted(depth_N, depth)
            child.append(next_node + np.searchsorted(first_N[depth_N == depth], own))
            breaks = np.r_[np.flatnonzero(shared_S < depth), len(rows_ST)]
            stop.append(breaks[np.searchsorted(breaks, own, "right")])
        first_N, stop_N = np.r_[0, first_N], np.concatenate(stop)
        depth_N = np.r_[0, depth_N + 1]
        longest_N = np.maximum.reduceat(np.r_[length_S, 0], np.stack([first_N, stop_N], 1).ravel())[::2]
        token_N = np.r_[-1, rows_ST[first_N[1:], depth_N[1:] - 1]]
        child_N1 = np.r_[np.concatenate(child), len(token_N)]
        arrays = (token_N, child_N1, first_N, stop_N, length_S[first_N] == depth_N, longest_N)
        token, child_, begin, end, ends, longest = (torch.from_numpy(array).to(device) for array in arrays)
        return cls(token, child_, begin, end, ends, longest, sequence_I.reshape(-1))

    def __len__(self) -> int:
        return int(self.stop_N[0])

    def items(self, sequence: int) -> list[int]:
        """The items of a sequence, in ascending order."""
        order_I, start_S1 = self._items
        return list(order_I[start_S1[sequence] : start_S1[sequence + 1]].tolist())

    @cached_property
    def _items(self) -> tuple[IntArray, IntArray]:
        order_I = np.argsort(self.sequence_I, kind="stable")
        return order_I, np.searchsorted(self.sequence_I[order_I], np.arange(len(self) + 1))

    def digest(self) -> str:
        """Hash of the tokens, their places and the items."""
        arrays = (self.token_N.cpu().numpy(), self.child_N1.cpu().numpy(), self.ends_N.cpu().numpy(), self.sequence_I)
        return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()

    def closed(self, excluded: Sequence[Sequence[int]]) -> Tensor:
        """Sequences of which all items are excluded, ascending, padded with S: (B, E) for B lists of items."""
        row = np.repeat(np.arange(len(excluded)), [len(items) for items in excluded])
        flat = np.fromiter((item for items in excluded for item in items), np.int64)
        pairs = np.unique(np.stack([row, flat], 1), axis=0)
        keys, counts = np.unique(pairs[:, 0] * len(self) + self.sequence_I[pairs[:, 1]], return_counts=True)
        size_S = np.bincount(self.sequence_I, minlength=len(self))
        keys = keys[counts == size_S[keys % len(self)]]
        row, sequence = keys // len(self), keys % len(self)
        column = np.arange(len(row)) - np.searchsorted(row, row)
        out_BE = np.full((len(excluded), int(column.max(initial=0)) + 1), len(self))
        out_BE[row, column] = sequence
        return torch.from_numpy(out_BE).to(self.token_N.device)


def decode_titles(
    lm: LanguageModel | Start,
    prompts: Sequence[list[int]],
    trie: Trie,
    k: int,
    *,
    beams: int | None = None,
    length_penalty: float = 0.0,
    among_titles: bool = False,
    exclude: Sequence[Sequence[int]] | None = None,
    batch_size: int = 64,
    workspace: Path | None = None,
) -> Ranking:
    """The K items whose titles a beam search over the trie finds likeliest; each item once.

    A step keeps the W likeliest beginnings of titles. Every title that is completed on the way competes for the K
    places, and a prompt is finished when no beginning that is still open can win one: with W at least the number of
    titles this is the ranking of the whole catalogue. Probabilities are those of the whole vocabulary, unless
    `among_titles` says otherwise.

    Args:
        lm: the model, or what makes prompts of another one ready to grow.
        prompts: token ids, BOS included; negative ones are slots, see `LanguageModel.slots`.
        trie: of the titles, on the model's device.
        k: length of the lists.
        beams: W; default K. Fewer than K may be found with fewer beams.
        length_penalty: the score of a title of T tokens is log p / T^length_penalty; 0: log p.
        among_titles: a token's probability is that among the tokens by which some title goes on, not among all.
        exclude: items that each prompt may not be answered with; beginnings that lead to nothing else take no beam.
        batch_size: prompts that are answered together.
        workspace: keeps finished chunks, so that a second call continues where a killed one stopped.

    Returns:
        K items a prompt, best first, of equal titles the lower item id first; −1 and −∞ where there are fewer.
    """
    width = beams or k
    excluded = [sorted(items) for items in exclude] if exclude is not None else [[] for _ in prompts]
    start = partial(_grown, lm) if isinstance(lm, LanguageModel) else lm

    def answer(chunk: list[int]) -> list[Answers]:
        closed_BE = trie.closed([excluded[i] for i in chunk])
        found = _search(start, [prompts[i] for i in chunk], trie, closed_BE, k, width, length_penalty, among_titles)
        return [_items(trie, row, set(excluded[i]), k) for i, row in zip(chunk, found, strict=True)]

    settings = [k, width, length_penalty, among_titles, [[int(i) for i in row] for row in excluded], trie.digest()]
    answers = answer_in_chunks(prompts, batch_size, answer, settings, workspace)
    items, scores = np.full((len(prompts), k), NO_ITEM, np.int32), np.full((len(prompts), k), -np.inf, np.float32)
    for row, found in enumerate(answers):
        items[row, : len(found)] = [item for (item,), _ in found]
        scores[row, : len(found)] = [score for _, score in found]
    return Ranking(items, scores)


def _items(trie: Trie, found: list[tuple[int, float]], excluded: set[int], k: int) -> Answers:
    pairs = [(item, score) for sequence, score in found for item in trie.items(sequence) if item not in excluded]
    return [([item], score) for item, score in pairs[:k]]


def _grown(lm: LanguageModel, prompts: Sequence[list[int]]) -> tuple[Growth, Tensor]:
    from tandemrec.llm.tree import grow

    return grow(lm, prompts)


@torch.no_grad()
def _search(
    start: Start,
    prompts: Sequence[list[int]],
    trie: Trie,
    closed_BE: Tensor,
    k: int,
    width: int,
    length_penalty: float,
    among_titles: bool,
) -> list[list[tuple[int, float]]]:
    growth, logits_BV = start(prompts)
    return _TitleSearch(trie, growth, logits_BV, closed_BE, k, width, length_penalty, among_titles).run()


class _TitleSearch:
    """B prompts with W open beginnings each (nodes) and K places for completed titles (sequences)."""

    def __init__(
        self,
        trie: Trie,
        growth: Growth,
        logits_BV: Tensor,
        closed_BE: Tensor,
        k: int,
        width: int,
        penalty: float,
        among_titles: bool,
    ) -> None:
        self.trie, self.growth, self.width, self.penalty, self.among_titles = trie, growth, width, penalty, among_titles
        self.logits_BQV, self.closed_BE, self.depth = logits_BV[:, None], closed_BE, 0
        batch, device = len(logits_BV), logits_BV.device
        self.row_B = torch.arange(batch, device=device)
        self.node_BQ = torch.zeros(batch, 1, dtype=torch.long, device=device)
        self.log_BQ = torch.zeros(batch, 1, device=device)
        self.score_BK = torch.full((batch, k), -torch.inf, device=device)
        self.found_BK = torch.full((batch, k), -1, dtype=torch.long, device=device)
        self.answers: list[list[tuple[int, float]]] = [[] for _ in range(batch)]

    def run(self) -> list[list[tuple[int, float]]]:
        """Sequences and scores of every prompt, best first."""
        while True:
            parent_BQ = self._advance()
            finished_B = ~(self._hope() > self.score_BK[:, -1])
            open_B = (~finished_B).nonzero()[:, 0]
            # Copying the cache costs about a step, so a few finished prompts are dragged along.
            if (len(finished_B) - len(open_B)) * 8 >= len(finished_B):
                self._hand_in(finished_B)
                if not len(open_B):
                    return self.answers
                parent_BQ = parent_BQ[open_B]
                self._keep(open_B)
            token_BQ = self.trie.token_N[self.node_BQ].clamp(min=0)
            self.logits_BQV = self.growth.step(token_BQ, parent_BQ)

    def _advance(self) -> Tensor:
        """Go one token on; the beam that each open beam continues."""
        trie, self.depth = self.trie, self.depth + 1
        beam_BC, node_BC, log_BC = self._candidates()
        begin_BC, stop_BC, ends_BC = trie.first_N[node_BC], trie.stop_N[node_BC], trie.ends_N[node_BC]
        closed_before_BC = self._closed_before(begin_BC)
        itself_closed_BC = self._closed_before(begin_BC + 1) - closed_before_BC
        closed_BC = self._closed_before(stop_BC) - closed_before_BC
        completed_BC = ends_BC & (itself_closed_BC == 0)
        score_BC = (log_BC / self.depth**self.penalty).masked_fill(~completed_BC, -torch.inf)
        self.score_BK, best_BK = torch.cat([self.score_BK, score_BC], 1).topk(self.score_BK.shape[1])
        self.found_BK = torch.cat([self.found_BK, begin_BC], 1).gather(1, best_BK)
        beyond_BC = (stop_BC - begin_BC - closed_BC) - (ends_BC & (itself_closed_BC == 0)).long()
        self.log_BQ, best_BQ = log_BC.masked_fill(beyond_BC <= 0, -torch.inf).topk(min(self.width, log_BC.shape[1]))
        self.node_BQ = node_BC.gather(1, best_BQ)
        return beam_BC.gather(1, best_BQ)

    def _candidates(self) -> tuple[Tensor, Tensor, Tensor]:
        """Children of the open nodes: the beam they continue, the node, the log-probability (−∞ for padding)."""
        trie, device = self.trie, self.node_BQ.device
        begin_BQ = trie.child_N1[self.node_BQ]
        count_BQ = (trie.child_N1[self.node_BQ + 1] - begin_BQ) * self.log_BQ.isfinite()
        up_to_BQ = count_BQ.cumsum(1)
        place_BC = (
            torch.arange(max(1, int(up_to_BQ[:, -1].max())), device=device).expand(len(up_to_BQ), -1).contiguous()
        )
        beam_BC = torch.searchsorted(up_to_BQ, place_BC, right=True).clamp(max=up_to_BQ.shape[1] - 1)
        node_BC = begin_BQ.gather(1, beam_BC) + place_BC - (up_to_BQ - count_BQ).gather(1, beam_BC)
        padding_BC = place_BC >= up_to_BQ[:, -1:]
        node_BC = node_BC.masked_fill(padding_BC, 0)
        flat_BC = beam_BC * self.logits_BQV.shape[2] + trie.token_N[node_BC].clamp(min=0)
        logits_BC = self.logits_BQV.flatten(1).gather(1, flat_BC).masked_fill(padding_BC, -torch.inf)
        if self.among_titles:
            lowest_BQ = torch.full_like(self.log_BQ, torch.finfo(self.log_BQ.dtype).min)
            top_BQ = lowest_BQ.scatter_reduce(1, beam_BC, logits_BC, "amax")
            sums_BQ = torch.zeros_like(top_BQ).scatter_add(1, beam_BC, (logits_BC - top_BQ.gather(1, beam_BC)).exp())
            so_far_BQ = self.log_BQ - sums_BQ.log() - top_BQ
        else:
            so_far_BQ = self.log_BQ - self.logits_BQV.logsumexp(2)
        log_BC = logits_BC + so_far_BQ.gather(1, beam_BC)
        return beam_BC, node_BC, log_BC.masked_fill(padding_BC, -torch.inf)

    def _closed_before(self, sequence_BC: Tensor) -> Tensor:
        """How many closed sequences lie before a sequence."""
        return torch.searchsorted(self.closed_BE, sequence_BC)

    def _hope(self) -> Tensor:
        """The best score that anything open can still reach: no further token makes it likelier."""
        length_BQ = self.trie.longest_N[self.node_BQ] if self.penalty > 0 else torch.tensor(self.depth + 1)
        return (self.log_BQ / length_BQ.to(self.log_BQ) ** self.penalty).amax(1)

    def _hand_in(self, finished_B: Tensor) -> None:
        fields = (self.row_B, self.found_BK, self.score_BK)
        for row, found, scores in zip(*(field[finished_B].tolist() for field in fields), strict=True):
            pairs = zip(found, scores, strict=True)
            self.answers[row] = [(sequence, score) for sequence, score in pairs if score > -np.inf]

    def _keep(self, rows_B: Tensor) -> None:
        self.growth.keep(rows_B)
        self.row_B, self.closed_BE = self.row_B[rows_B], self.closed_BE[rows_B]
        self.node_BQ, self.log_BQ = self.node_BQ[rows_B], self.log_BQ[rows_B]
        self.score_BK, self.found_BK = self.score_BK[rows_B], self.found_BK[rows_B]
