"""Grounding: from a generated text to the items of the catalogue, by distance in the base model's vector space."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tandemrec.llm.prompts import read_answer
from tandemrec.recommender import BLOCK_SCORES

Encoder = Callable[[Sequence[str]], Tensor]
"""Texts → vectors (N, D) float32."""

CANCELLED = 1e-6
"""A squared distance below this share of the squared norms has lost digits and is computed by differences."""

CERTAIN = 8.0
"""Standard deviations of rounding beyond which two float32 distances are taken as different without another look."""

QUERY_BLOCK, ITEM_BLOCK = 1024, 4096
"""Distances that exist at once: 16 MB in float32."""


class Grounding:
    """Ranks all items by the distance of their title's vector to that of a text (BIGRec, step 2).

    Euclidean and in full precision, never by the expansion of the square in half precision, which leaves a dozen
    distinct distances. The mean vector is subtracted first, which changes no distance and saves digits. A text that is
    a title of the catalogue takes that title's vector, so its distance to every item of that title is 0.
    """

    def __init__(self, titles: Sequence[str], vectors_ID: Tensor, encode: Encoder) -> None:
        """Over the vectors of `title_vectors`."""
        self.vectors_ID, self.encode = vectors_ID, encode
        self.mean_D = vectors_ID.mean(0)
        self.centred_ID = vectors_ID - self.mean_D
        self.item_of: dict[str, int] = {}
        for item, title in enumerate(titles):
            self.item_of.setdefault(read_answer(title), item)
        # Items of one title share its column, so that their scores are equal bit by bit.
        self.first_I = torch.tensor([self.item_of[read_answer(title)] for title in titles], device=vectors_ID.device)

    def is_title(self, text: str) -> bool:
        """Whether a generated text is exactly a title; quotes around it and the amount of white space aside."""
        return read_answer(text) in self.item_of

    def distances(self, texts: Sequence[str], items: Sequence[int]) -> Tensor:
        """Distance between each of B texts and the title of one item, (B,) float32."""
        query_QD, place = self._queries(texts)
        distances_B: Tensor = torch.linalg.vector_norm(query_QD[place] - self.centred_ID[list(items)], dim=1)
        return distances_B

    def nearest(self, texts: Sequence[str]) -> list[int]:
        """The item whose title is nearest to each text; of items equally near the first."""
        different = list(dict.fromkeys(texts))
        size = max(1, BLOCK_SCORES // len(self.centred_ID))
        blocks = [different[start : start + size] for start in range(0, len(different), size)]
        best = [item for block in blocks for item in self.scores(block).argmax(1).tolist()]
        item_of = dict(zip(different, best, strict=True))
        return [item_of[text] for text in texts]

    def scores(self, texts: Sequence[str]) -> Tensor:
        """Minus the distances, (B, I) float32."""
        query_QD, row_B = self._queries(texts)
        return -all_distances(query_QD, self.centred_ID)[:, self.first_I][row_B]

    def ranks(self, texts: Sequence[str], targets: Sequence[int]) -> Tensor:
        """Rank of one item for each text, (B,) float64, 0 for the nearest; see `ranks_by_distance`."""
        query_QD, row_B = self._queries(texts)
        return ranks_by_distance(query_QD[row_B], self.centred_ID, torch.as_tensor(targets).to(row_B))

    def _queries(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Centred vectors of the different answers (Q, D), and which of them each text is."""
        answers = [read_answer(text) for text in texts]
        place = {answer: row for row, answer in enumerate(dict.fromkeys(answers))}
        query_QD = self.centred_ID.new_empty(len(place), self.centred_ID.shape[1])
        known = {answer: row for answer, row in place.items() if answer in self.item_of}
        if known:
            query_QD[list(known.values())] = self.centred_ID[[self.item_of[answer] for answer in known]]
        unknown = {answer: row for answer, row in place.items() if answer not in self.item_of}
        if unknown:
            query_QD[list(unknown.values())] = self.encode(list(unknown)).to(self.centred_ID) - self.mean_D
        rows = [place[answer] for answer in answers]
        return query_QD, torch.tensor(rows, dtype=torch.long, device=self.centred_ID.device)


def title_vectors(titles: Sequence[str], encode: Encoder) -> Tensor:
    """Vectors (I, D) of all titles; items of one title share one vector, bit by bit."""
    answers = [read_answer(title) for title in titles]
    place = {answer: row for row, answer in enumerate(dict.fromkeys(answers))}
    return encode(list(place))[[place[answer] for answer in answers]]


def all_distances(query_QD: Tensor, vectors_ID: Tensor) -> Tensor:
    """Euclidean distances (Q, I) float32, right to the last digit.

    |q|² − 2 q·x + |x|² in float64, some twenty times as fast as differences; those that nearly cancel are differences.
    """
    out_QI = vectors_ID.new_empty(len(query_QD), len(vectors_ID))
    double_QD = query_QD.double()
    for part in _parts(len(vectors_ID)):
        double_BD = vectors_ID[part].double()
        norms_QB = double_QD.square().sum(1)[:, None] + double_BD.square().sum(1)
        square_QB = norms_QB - 2 * double_QD @ double_BD.T
        row_N, item_N = (square_QB <= CANCELLED * norms_QB).nonzero().unbind(1)
        square_QB[row_N, item_N] = _squared(query_QD, vectors_ID[part], row_N, item_N)
        out_QI[:, part] = square_QB.sqrt()
    return out_QI


def ranks_by_distance(query_QD: Tensor, vectors_ID: Tensor, target_Q: Tensor) -> Tensor:
    """How many items are nearer to a query than its target, others at the same distance by half; (Q,) float64.

    Distances are computed block by block in float32 by one matrix product, compared with the target's and forgotten.
    Those that rounding could have put on the wrong side, by eight standard deviations of its error (√D · 2⁻²⁴ · |q||x|,
    Higham and Mary 2019), are computed again by differences in float64: ranks are those of exact distances.

    Args:
        query_QD: vectors of the outputs, best centred on the catalogue's mean.
        vectors_ID: vectors of all items, likewise.
        target_Q: the item of each query.
    """
    half_I = torch.cat([vectors_ID[part].double().square().sum(1) / 2 for part in _parts(len(vectors_ID))])
    blocks = zip(torch.split(query_QD, QUERY_BLOCK), torch.split(target_Q, QUERY_BLOCK), strict=True)
    return torch.cat([_block_ranks(query_BD, vectors_ID, half_I, target_B) for query_BD, target_B in blocks])


def _block_ranks(query_BD: Tensor, vectors_ID: Tensor, half_I: Tensor, target_B: Tensor) -> Tensor:
    # Nearer than the target: |x|²/2 − q·x is smaller, since |q|² is in both.
    wanted_B = half_I[target_B] - (query_BD.double() * vectors_ID[target_B].double()).sum(1)
    sought_B = _squared(query_BD, vectors_ID, torch.arange(len(query_BD), device=query_BD.device), target_B)
    length_B = query_BD.double().square().sum(1).sqrt()
    unit = CERTAIN * math.sqrt(vectors_ID.shape[1]) * torch.finfo(torch.float32).eps / 2
    rank_B = torch.full_like(wanted_B, -0.5)  # the target is found at its own distance
    for part in _parts(len(vectors_ID)):
        largest = half_I[part].max()
        band_B = unit * (length_B * (2 * largest).sqrt() + largest + wanted_B.abs())
        value_BI = torch.addmm(half_I[part].float(), query_BD, vectors_ID[part].T, alpha=-1)
        nearer_BI = value_BI < (wanted_B - band_B).float()[:, None]
        unsure_BI = (value_BI <= (wanted_B + band_B).float()[:, None]) ^ nearer_BI
        row_N, item_N = unsure_BI.nonzero().unbind(1)
        found_N, wanted_N = _squared(query_BD, vectors_ID[part], row_N, item_N), sought_B[row_N]
        rank_B += nearer_BI.sum(1, dtype=torch.int32)
        rank_B.index_add_(0, row_N, (found_N < wanted_N).double() + (found_N == wanted_N).double() / 2)
    return rank_B


def _parts(items: int) -> list[slice]:
    return [slice(start, start + ITEM_BLOCK) for start in range(0, items, ITEM_BLOCK)]


def _squared(query_QD: Tensor, vectors_ID: Tensor, row_N: Tensor, item_N: Tensor) -> Tensor:
    """Squared distances of N pairs by differences in float64."""
    pairs = zip(torch.split(row_N, ITEM_BLOCK), torch.split(item_N, ITEM_BLOCK), strict=True)
    return torch.cat([(query_QD[row].double() - vectors_ID[item].double()).square().sum(1) for row, item in pairs])
