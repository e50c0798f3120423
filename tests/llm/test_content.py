"""Content vectors: TF-IDF against a slow reference, encoders against single texts."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import torch

from tandemrec.data.dataset import Dataset
from tandemrec.errors import InputError
from tandemrec.llm import content as module
from tandemrec.llm.content import (
    LanguageModelVectorsConfig,
    SentenceEncoderConfig,
    TfIdfConfig,
    content_vectors,
    item_texts,
)
from tandemrec.llm.model import LanguageModel

TITLES = ["Red Dragon", "red dragon, red robot", "Blue robot", "Ocean", "Ocean", "blue ocean robot", None]


@pytest.fixture
def shop() -> Dataset:
    items = pl.DataFrame(
        {"item_id": range(7), "title": TITLES, "maker": ["A", None, "B", "B", "B", "A", "A"], "tags": [["x", "y"]] * 7}
    )
    events = pl.DataFrame({"user_id": [0] * 7, "item_id": range(7), "timestamp": range(7)})
    return Dataset.from_frames(events, items)


def test_texts_are_titles_with_their_attributes(shop: Dataset) -> None:
    assert item_texts(shop)[:2] == ["Red Dragon; A; x, y", "red dragon, red robot; x, y"]
    assert item_texts(shop, ["maker"])[2] == "Blue robot; B"
    assert item_texts(shop, [])[6] == "6"  # an item without a title answers with its id
    with pytest.raises(InputError, match="found 'brand', the items' columns of text are"):
        item_texts(shop, ["brand"])


def test_tf_idf_keeps_the_cosines_of_weighted_words(shop: Dataset) -> None:
    found = content_vectors(shop, TfIdfConfig(columns=("maker",), dim=64)).double()
    rows = [Counter(re.findall(r"\w+", text.lower())) for text in item_texts(shop, ["maker"])]
    within = Counter(word for row in rows for word in row)
    wide = np.zeros((7, len(within)))
    for item, row in enumerate(rows):
        for column, word in enumerate(sorted(within)):
            if word in row and within[word] >= 2:
                wide[item, column] = (1 + math.log(row[word])) * (math.log((1 + 7) / (1 + within[word])) + 1)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    np.testing.assert_allclose(found @ found.T, wide @ wide.T, atol=1e-5)
    assert torch.equal(found[3], found[4])
    assert torch.equal(found, content_vectors(shop, TfIdfConfig(columns=("maker",), dim=64)).double())
    assert content_vectors(shop, TfIdfConfig(dim=2)).shape == (7, 2)


def test_a_sparse_decomposition_keeps_what_a_dense_one_does(shop: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = content_vectors(shop, TfIdfConfig(dim=3))
    monkeypatch.setattr(module, "DENSE", 0)
    torch.testing.assert_close(content_vectors(shop, TfIdfConfig(dim=3)), dense, atol=1e-5, rtol=1e-5)


def test_texts_without_common_words_are_refused(shop: Dataset) -> None:
    with pytest.raises(InputError, match="tf-idf needs words that 9 items share"):
        content_vectors(shop, TfIdfConfig(columns=(), min_items=9))


@pytest.mark.parametrize(
    ("titles", "cosines"),
    [
        (["Red", "red", "Blue", "red green"], [1, 1, 0, 1]),  # one word that is shared, and a text without it
        (["Red robot"] * 4, [1, 1, 1, 1]),  # one text
    ],
)
def test_small_catalogues_have_content_vectors_too(titles: list[str], cosines: list[float]) -> None:
    events = pl.DataFrame({"user_id": [0] * 4, "item_id": range(4), "timestamp": range(4)})
    tiny = Dataset.from_frames(events, pl.DataFrame({"item_id": range(4), "title": titles}))
    found = content_vectors(tiny, TfIdfConfig())
    torch.testing.assert_close(found @ found[0], torch.tensor(cosines, dtype=torch.float32), atol=1e-6, rtol=0)


def test_texts_longer_than_the_context_are_cut(shop: Dataset, tiny: Callable[[str], str]) -> None:
    """GPT-2 has learned positions and fails behind its last one."""
    folder, novel = tiny("gpt2"), "Red dragon and blue robot " * 40
    long = Dataset(shop.interactions, shop.items.with_columns(tags=pl.lit(novel)), shop.users, shop.clock, "long")
    lm = LanguageModel.load(folder)
    texts = item_texts(long)
    kept = lm.tokenize(texts)[2][: lm.context - len(lm.bos)]
    assert len(lm.tokenize(texts)[2]) > lm.context > len(kept) > 100
    with torch.no_grad():
        hidden = lm.model.base_model(input_ids=torch.tensor([lm.bos + kept])).last_hidden_state[0]
    found = content_vectors(long, LanguageModelVectorsConfig(path=folder))
    torch.testing.assert_close(found[2], hidden[-1], atol=1e-5, rtol=1e-4)
    ids = lm.tokenizer(texts[2], return_tensors="pt")["input_ids"][:, : lm.context]
    with torch.no_grad():
        mean = lm.model.base_model(input_ids=ids).last_hidden_state[0].mean(0)
    found = content_vectors(long, SentenceEncoderConfig(path=folder, max_tokens=1000))
    torch.testing.assert_close(found[2], mean, atol=1e-5, rtol=1e-4)


def test_a_language_model_reads_every_text(shop: Dataset, tiny: Callable[[str], str]) -> None:
    folder = tiny("llama")
    found = content_vectors(shop, LanguageModelVectorsConfig(path=folder))
    alone = LanguageModel.load(folder).encode([item_texts(shop)[2]])
    torch.testing.assert_close(found[2:3], alone, atol=1e-5, rtol=1e-4)
    with pytest.raises(InputError, match="there is no model folder"):
        LanguageModelVectorsConfig(path="nowhere").check()


def test_a_sentence_encoder_averages_over_the_tokens(shop: Dataset, tiny: Callable[[str], str]) -> None:
    folder = tiny("llama")
    config = SentenceEncoderConfig(path=folder, max_tokens=16)
    found = content_vectors(shop, config)
    lm = LanguageModel.load(folder)
    for item in (0, 3):
        ids = lm.tokenizer(item_texts(shop)[item], return_tensors="pt")["input_ids"][:, :16]
        with torch.no_grad():
            wanted = lm.model.model(input_ids=ids).last_hidden_state[0].mean(0)
        torch.testing.assert_close(found[item], wanted, atol=1e-5, rtol=1e-4)
