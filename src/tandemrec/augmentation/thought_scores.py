"""How good a chain of thought is: coherence, completeness, relevance and consistency, a quarter of the score each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import polars as pl
from torch import Tensor

from tandemrec.recommender import FloatArray

PARTS = ("coherence", "completeness", "relevance", "consistency")

SHORTEST = 10
"""Characters below which a text is no thought and scores 0."""

REQUIRED = (
    "Sum up the user's profile from the history of interactions.",
    "Weigh how the user's profile and the features of the new item agree.",
    "Reflect on the user's wish for diversity.",
    "Examine biases, such as those of popularity and position, that may sway the user.",
)
"""What a complete thought speaks of."""

DECISIONS = ("The user does not choose the new item.", "The user chooses the new item.")
"""By label."""

PLEASANT = frozenset(
    "good great best better love loves loved like likes liked enjoy enjoys enjoyed favourite favorite fun happy nice "
    "perfect excellent wonderful amazing interesting interested exciting popular beautiful strong positive".split()
)
UNPLEASANT = frozenset(
    "bad worse worst hate hates hated dislike dislikes disliked boring bored sad poor terrible awful wrong unlikely "
    "unhappy angry ugly weak negative difficult annoying disappointing disappointed lacks never not".split()
)

Encode = Callable[[Sequence[str]], Tensor]
"""Texts → vectors (N, Z)."""


def score_thoughts(
    texts: Sequence[str], inputs: Sequence[str], labels: Sequence[int], encode: Encode
) -> tuple[pl.DataFrame, FloatArray]:
    """Scores between 0 and 1, and the vectors of the texts.

    Similarities are cosines of an encoder's vectors around their common mean, which last-token vectors of language
    models need, mapped to 0…1.

    Args:
        texts: N thoughts.
        inputs: what each is about: history and item, without the decision.
        labels: 1 where the user chose the item.
        encode: the encoder.

    Returns:
        A row a text: the four parts and their mean, `score`; and the vectors (N, Z) float32.
    """
    distinct = list(dict.fromkeys([*texts, *inputs, *REQUIRED, *DECISIONS]))
    place = {text: row for row, text in enumerate(distinct)}
    raw_QZ = encode(distinct).double().cpu().numpy()
    unit_QZ = raw_QZ - raw_QZ.mean(0)
    unit_QZ /= np.maximum(np.linalg.norm(unit_QZ, axis=1, keepdims=True), 1e-12)

    def rows(some: Sequence[str]) -> list[int]:
        return [place[text] for text in some]

    thought_NZ = unit_QZ[rows(texts)]
    similarity = {
        "completeness": (thought_NZ @ unit_QZ[rows(REQUIRED)].T).mean(1),
        "relevance": (thought_NZ * unit_QZ[rows(inputs)]).sum(1),
        "consistency": (thought_NZ * unit_QZ[rows([DECISIONS[label] for label in labels])]).sum(1),
    }
    frame = pl.DataFrame(
        {"coherence": [coherence(text) for text in texts]} | {name: (1 + c) / 2 for name, c in similarity.items()}
    )
    thought = pl.Series([float(len(text.strip()) >= SHORTEST) for text in texts], dtype=pl.Float64)
    frame = frame.with_columns(score=pl.mean_horizontal(*PARTS) * thought)
    return frame, raw_QZ[rows(texts)].astype(np.float32)


def coherence(text: str) -> float:
    """Half: how little the sentiment changes from sentence to sentence; half: the share of words that occur once.

    The sentiment of a sentence is (pleasant − unpleasant) / (pleasant + unpleasant) words of two short English lists, 0
    without any: enough to tell a thought that keeps its mind from one that does not, and no dependency.
    """
    sentences = [sentence for sentence in re.split(r"[.!?\n]+", text) if sentence.strip()]
    words = re.findall(r"[^\W\d_]+", text.lower())
    if not sentences or not words:
        return 0.0
    moods = [_sentiment(sentence) for sentence in sentences]
    change = sum(abs(a - b) for a, b in pairwise(moods)) / len(sentences)
    repeated = sum(count for count in Counter(words).values() if count > 1) / len(words)
    return (1 - min(change, 1.0) + 1 - repeated) / 2


def _sentiment(sentence: str) -> float:
    words = re.findall(r"[^\W\d_]+", sentence.lower())
    up, down = (sum(word in some for word in words) for some in (PLEASANT, UNPLEASANT))
    return (up - down) / (up + down) if up + down else 0.0
