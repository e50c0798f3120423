"""Beam search of a batch of growing prompts, by the rules of the library's `generate()`."""

from __future__ import annotations

import torch
from torch import Tensor

from tandemrec.llm.chunks import Answers
from tandemrec.llm.tree import Growth

NONE = -1e9
"""Score of a place that no answer holds yet."""


class BeamSearch:
    """Beam search of B prompts with W beams; prompts that are finished leave the batch.

    Each step takes the 2W best continuations of W beams: at most W of them end, so W are left to go on. Those among
    the first W that end compete for the W places of answers. A prompt is finished when all places are taken and the
    best open beam, were it to end now, would not get one (or at once with `early_stopping`).
    """

    def __init__(
        self,
        growth: Growth,
        logits_BV: Tensor,
        *,
        width: int,
        limit: int,
        eos: int,
        length_penalty: float,
        early_stopping: bool,
    ) -> None:
        """Over prompts that are ready to grow.

        Args:
            growth: the prompts.
            logits_BV: of the tokens that follow them.
            width: beams; one is greedy search.
            limit: most tokens of an answer.
            eos: the token that ends an answer.
            length_penalty: a finished beam scores log p / length^penalty.
            early_stopping: see above.
        """
        self.growth, self.eos, self.width, self.limit = growth, eos, width, limit
        self.penalty, self.greedily = length_penalty, early_stopping or width == 1
        self.logits_BQV = logits_BV[:, None]
        batch, device = len(logits_BV), logits_BV.device
        self.row_B = torch.arange(batch, device=device)
        self.open_BW = torch.zeros(batch, 1, device=device)
        self.path_BWT = torch.empty(batch, 1, 0, dtype=torch.long, device=device)
        self.score_BW = torch.full((batch, width), NONE, device=device)
        self.log_prob_BW = torch.full((batch, width), NONE, device=device)
        self.answer_BWT = torch.full((batch, width, limit), eos, device=device)
        self.length_BW = torch.zeros(batch, width, dtype=torch.long, device=device)
        self.finished_B = torch.zeros(batch, dtype=torch.bool, device=device)
        self.answers: list[Answers] = [[] for _ in range(batch)]

    def run(self) -> list[Answers]:
        """The answers of every prompt, best first."""
        while True:
            parent_BW, token_BW = self._advance()
            open_B = (~self.finished_B).nonzero()[:, 0]
            finished = len(self.finished_B) - len(open_B)
            # Copying the cache costs about a step, so a few finished prompts are dragged along.
            if finished and finished * 8 >= len(self.finished_B):
                self._hand_in()
                if not len(open_B):
                    return self.answers
                self._keep(open_B)
                parent_BW, token_BW = parent_BW[open_B], token_BW[open_B]
            self.logits_BQV = self.growth.step(token_BW, parent_BW)

    def _advance(self) -> tuple[Tensor, Tensor]:
        """Choose continuations; the beams that each open beam continues, and its new token."""
        length, wide, logits_BQV = self.path_BWT.shape[2] + 1, 2 * self.width, self.logits_BQV
        top_BQC, token_BQC = logits_BQV.topk(min(wide, logits_BQV.shape[2]))
        log_BQC = top_BQC - logits_BQV.logsumexp(2, keepdim=True) + self.open_BW[:, :, None]
        log_BC, place_BC = log_BQC.flatten(1).topk(min(wide, log_BQC[0].numel()))
        token_BC = token_BQC.flatten(1).gather(1, place_BC)
        parent_BC = place_BC // token_BQC.shape[2]
        path_BCT = torch.cat([_rows(self.path_BWT, parent_BC), token_BC[:, :, None]], 2)
        ends_BC = (token_BC == self.eos) | (length == self.limit)
        self._place(ends_BC, log_BC, path_BCT, length)
        self.open_BW, best_BW = log_BC.masked_fill(ends_BC, NONE).topk(min(self.width, log_BC.shape[1]))
        self.path_BWT = _rows(path_BCT, best_BW)
        self._finish(length)
        return parent_BC.gather(1, best_BW), token_BC.gather(1, best_BW)

    def _place(self, ends_BC: Tensor, log_BC: Tensor, path_BCT: Tensor, length: int) -> None:
        """Let those of the first W continuations that ended compete with the answers so far."""
        fresh_BW = ends_BC[:, : self.width] & ~self.finished_B[:, None]
        log_BW = log_BC[:, : self.width]
        new_BW = (log_BW / length**self.penalty).masked_fill(~fresh_BW, NONE)
        self.score_BW, best_BW = torch.cat([self.score_BW, new_BW], 1).topk(self.width)
        new_BWT = self.answer_BWT.new_full((*fresh_BW.shape, self.limit), self.eos)
        new_BWT[:, :, :length] = path_BCT[:, : self.width]
        self.log_prob_BW = torch.cat([self.log_prob_BW, log_BW], 1).gather(1, best_BW)
        self.length_BW = torch.cat([self.length_BW, fresh_BW.long() * length], 1).gather(1, best_BW)
        self.answer_BWT = _rows(torch.cat([self.answer_BWT, new_BWT], 1), best_BW)

    def _finish(self, length: int) -> None:
        """A prompt that is finished stays so, though an open beam may gain on its answers by being longer."""
        full_B = (self.length_BW > 0).all(1)
        if not self.greedily:
            full_B &= self.open_BW[:, 0] / length**self.penalty <= self.score_BW[:, -1]
        self.finished_B |= full_B | (length == self.limit)

    def _hand_in(self) -> None:
        fields = (self.row_B, self.answer_BWT, self.length_BW, self.log_prob_BW)
        for row, answers, lengths, logs in zip(*(field[self.finished_B].tolist() for field in fields), strict=True):
            kept = zip(answers, lengths, logs, strict=True)
            self.answers[row] = [(answer[:length], log) for answer, length, log in kept if length]

    def _keep(self, rows_B: Tensor) -> None:
        self.growth.keep(rows_B)
        self.row_B, self.finished_B = self.row_B[rows_B], self.finished_B[rows_B]
        self.open_BW, self.path_BWT = self.open_BW[rows_B], self.path_BWT[rows_B]
        self.score_BW, self.log_prob_BW = self.score_BW[rows_B], self.log_prob_BW[rows_B]
        self.answer_BWT, self.length_BW = self.answer_BWT[rows_B], self.length_BW[rows_B]


def _rows(values_BWT: Tensor, index_BC: Tensor) -> Tensor:
    return values_BWT.gather(1, index_BC[:, :, None].expand(-1, -1, values_BWT.shape[2]))
