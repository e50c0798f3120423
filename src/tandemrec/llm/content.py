"""Item content vectors: what the texts of a catalogue say about its items, without any interaction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
import torch
from pydantic import Field
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import svds
from torch import Tensor

from tandemrec.data.dataset import Dataset
from tandemrec.errors import InputError
from tandemrec.llm.model import LanguageModel, find_folder
from tandemrec.llm.sentences import head_of, sentence_vectors
from tandemrec.recommender import Config

DENSE = 1000
"""Texts or words up to which singular values are computed densely."""


class _Texts(Config):
    columns: tuple[str, ...] | None = None
    """Columns of the items whose values follow the title; null: all columns of text or of lists of text."""

    def folder(self) -> Path | None:
        """The local folder of a model that exists; None where there is none, or one of the hub."""
        return None

    def check(self) -> None:
        """Refuse a model folder that is not there."""
        self.folder()


class TfIdfConfig(_Texts):
    """Words weighted by how rare they are, in as few dimensions as a truncated singular value decomposition keeps."""

    kind: Literal["tf-idf"] = "tf-idf"
    """Which kind of vectors these are."""

    dim: int = Field(128, ge=2, le=4096)
    """Dimensions; fewer where the texts have fewer."""

    min_items: int = Field(2, ge=1)
    """Items that have a word, at least, for it to count."""


class LanguageModelVectorsConfig(_Texts):
    """The last hidden state of a causal language model at the last token, as in grounding."""

    kind: Literal["language-model"] = "language-model"
    """Which kind of vectors these are."""

    path: str
    """A Hugging Face folder (relative: below the working directory or `$TANDEMREC_MODELS`) or a hub id."""

    def folder(self) -> Path | None:
        """See `find_folder`."""
        return find_folder(self.path)


class SentenceEncoderConfig(_Texts):
    """A sentence encoder: the last hidden states of a text's tokens, pooled and mapped as `modules.json` of the folder
    says (pooling by mean or first token, dense layers, normalisation), which sentence-transformers writes; without that
    file their mean.
    """

    kind: Literal["sentence-encoder"] = "sentence-encoder"
    """Which kind of vectors these are."""

    path: str
    """A Hugging Face folder (relative: below the working directory or `$TANDEMREC_MODELS`) or a hub id."""

    max_tokens: int = Field(256, ge=4)
    """Longer texts are cut; also to what the encoder has positions for."""

    def folder(self) -> Path | None:
        """See `find_folder`."""
        return find_folder(self.path)

    def check(self) -> None:
        """Refuse a model folder that is not there, or whose modules are not known here."""
        if self.folder() is not None:
            head_of(self.path)


ContentConfig = Annotated[
    TfIdfConfig | LanguageModelVectorsConfig | SentenceEncoderConfig,
    Field(discriminator="kind"),
]


def content_vectors(dataset: Dataset, config: ContentConfig) -> Tensor:
    """Vectors (I, D) float32 of all items on the CPU; items of one text share one vector, bit by bit.

    Raises:
        InputError: if a column or a model is missing, or no text says anything.
    """
    texts = item_texts(dataset, config.columns)
    place = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    if isinstance(config, TfIdfConfig):
        vectors = _tf_idf(list(place), texts, config)
    elif isinstance(config, LanguageModelVectorsConfig):
        vectors = LanguageModel.load(config.path).encode(list(place)).cpu()
    else:
        vectors = sentence_vectors(list(place), config.path, config.max_tokens)
    return vectors[[place[text] for text in texts]]


def item_texts(dataset: Dataset, columns: Sequence[str] | None = None) -> list[str]:
    """The title of every item and its text attributes behind it, (I,).

    Raises:
        InputError: if the items lack a named column or it holds no text.
    """
    there = check_columns(dataset, columns, "content.columns")
    titled = dataset.items.select(pl.Series("title", dataset.titles), *(there if columns is None else columns))
    return [
        "; ".join(", ".join(value) if isinstance(value, list) else value for value in row if value)
        for row in titled.iter_rows()
    ]


def check_columns(dataset: Dataset, columns: Sequence[str] | None, key: str) -> list[str]:
    """The names of the items' columns of text, but for ids and titles.

    Args:
        dataset: where they must be.
        columns: those that are asked for.
        key: what asks.

    Raises:
        InputError: if the items lack a named column or it holds no text.
    """
    kinds = (pl.String(), pl.List(pl.String()))
    there = [name for name, kind in dataset.items.schema.items() if name not in ("item_id", "title") and kind in kinds]
    for name in columns or ():
        if name not in there:
            raise InputError(f"key '{key}': found '{name}', the items' columns of text are: {there}")
    return there


def _tf_idf(different: list[str], texts: list[str], config: TfIdfConfig) -> Tensor:
    """Vectors of the different texts; rarity is counted over all items."""
    words = (
        pl.DataFrame({"text": different})
        .with_row_index("row")
        .join(pl.DataFrame({"text": texts}).group_by("text").agg(items=pl.len()), on="text", maintain_order="left")
        .with_columns(word=pl.col("text").str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]+"))
        .explode("word")
        .drop_nulls("word")
    )
    counts = words.group_by("row", "word", "items", maintain_order=True).agg(count=pl.len())
    vocabulary = (
        counts.group_by("word")
        .agg(within=pl.col("items").sum())
        .filter(pl.col("within") >= config.min_items)
        .sort("word")
        .with_row_index("column")
    )
    cells = counts.join(vocabulary, on="word", how="inner", maintain_order="left")
    rarity = np.log((1 + len(texts)) / (1 + cells["within"].to_numpy())) + 1
    weights = (1 + np.log(cells["count"].to_numpy())) * rarity
    place = (cells["row"].to_numpy().astype(np.int64), cells["column"].to_numpy().astype(np.int64))
    matrix = csr_matrix((weights, place), shape=(len(different), vocabulary.height))
    if not matrix.nnz:
        raise InputError(f"key 'content': tf-idf needs words that {config.min_items} items share, found none")
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1))).reshape(-1, 1)
    matrix = csr_matrix(matrix.multiply(1 / np.maximum(norms, 1e-12)))
    vectors = torch.from_numpy(_reduced(matrix, config.dim).astype(np.float32))
    return torch.nn.functional.normalize(vectors)


def _reduced(matrix: Any, dim: int) -> np.ndarray:
    """U·S of the largest singular values; each direction with its largest entry positive."""
    least = min(matrix.shape)
    if least <= max(DENSE, dim + 1):
        u, s, _ = np.linalg.svd(matrix.toarray(), full_matrices=False)
        kept = min(dim, int((s > 1e-9 * s[0]).sum()))
    else:
        # A fixed start, since the default one is random; a matrix of so low a rank that it is not enough is small.
        u, s, _ = svds(matrix, k=dim, v0=np.ones(least) / np.sqrt(least), solver="arpack")
        kept = dim
    order = np.argsort(-s, kind="stable")[:kept]
    vectors = u[:, order] * s[order]
    signs = np.sign(vectors[np.abs(vectors).argmax(0), np.arange(kept)])
    return np.asarray(vectors * signs)
