"""Grounding: from a generated text to the items of the catalogue, by distance in the base model's vector space."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tandemrec.llm.prompts import read_answer
from tandemrec.recommender import BLOCK_SCORES

Encoder = Callable[[Sequence[str]], Tensor]
"""Texts → vectors (N, D) float32."""


class Grounding:
    """Ranks all items by the distance of their title's vector to that of a text (BIGRec, step 2).

    Euclidean, in float32 by differences, never by the expansion of the square in half precision, which leaves a dozen
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
        query_QD, place = self._queries(texts)
        distances_QI = torch.cdist(query_QD, self.centred_ID, compute_mode="donot_use_mm_for_euclid_dist")
        return -distances_QI[place]

    def _queries(self, texts: Sequence[str]) -> tuple[Tensor, list[int]]:
        """Centred vectors (Q, D) of the different texts, and which of them each text has."""
        answers = [read_answer(text) for text in texts]
        place = {answer: row for row, answer in enumerate(dict.fromkeys(answers))}
        query_QD = self.centred_ID.new_empty(len(place), self.centred_ID.shape[1])
        known = {answer: row for answer, row in place.items() if answer in self.item_of}
        if known:
            query_QD[list(known.values())] = self.centred_ID[[self.item_of[answer] for answer in known]]
        unknown = {answer: row for answer, row in place.items() if answer not in self.item_of}
        if unknown:
            query_QD[list(unknown.values())] = self.encode(list(unknown)).to(self.centred_ID) - self.mean_D
        return query_QD, [place[answer] for answer in answers]


def title_vectors(titles: Sequence[str], encode: Encoder) -> Tensor:
    """Vectors (I, D) of all titles; items of one title share one vector, bit by bit."""
    answers = [read_answer(title) for title in titles]
    place = {answer: row for row, answer in enumerate(dict.fromkeys(answers))}
    return encode(list(place))[[place[answer] for answer in answers]]
