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
from tandemrec.recommender import Config
from tandemrec.training import default_device

DENSE = 1000
"""Texts or words up to which singular values are computed densely."""

ENCODED_TEXTS = 64
"""Texts that a sentence encoder reads at once."""


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
    """The mean of an encoder's last hidden states over a text's tokens, as sentence encoders are meant to be read."""

    kind: Literal["sentence-encoder"] = "sentence-encoder"
    """Which kind of vectors these are."""

    path: str
    """A Hugging Face folder (relative: below the working directory or `$TANDEMREC_MODELS`) or a hub id."""

    max_tokens: int = Field(256, ge=4)
    """Longer texts are cut; also to what the encoder has positions for."""

    def folder(self) -> Path | None:
        """See `find_folder`."""
        return find_folder(self.path)


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
        vectors = mean_pooled(list(place), config.path, config.max_tokens)
    return vectors[[place[text] for text in texts]]


def item_texts(dataset: Dataset, columns: Sequence[str] | None = None) -> list[str]:
    """The title of every item and its text attributes behind it, (I,).

    Raises:
        InputError: if the items lack a named column or it holds no text.
    """
    kinds = (pl.String(), pl.List(pl.String()))
    there = [name for name, kind in dataset.items.schema.items() if name not in ("item_id", "title") and kind in kinds]
    for name in columns or ():
        if name not in there:
            raise InputError(f"key 'content.columns': found '{name}', the items' columns of text are: {there}")
    titled = dataset.items.select(pl.Series("title", dataset.titles), *(there if columns is None else columns))
    return [
        "; ".join(", ".join(value) if isinstance(value, list) else value for value in row if value)
        for row in titled.iter_rows()
    ]


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


@torch.no_grad()
def mean_pooled(texts: Sequence[str], path: str, max_tokens: int) -> Tensor:
    """Vectors (N, D) float32 of an encoder: the mean of its last hidden states over a text's tokens.

    Of a longer text the first `max_tokens` are read, or as many as the encoder has positions for.

    Raises:
        InputError: if there is no such model.
    """
    from transformers import AutoModel, AutoTokenizer

    folder = find_folder(path)
    place = path if folder is None else str(folder)
    try:
        tokenizer, model = AutoTokenizer.from_pretrained(place), AutoModel.from_pretrained(place)
    except Exception as error:  # tokenizers and safetensors raise types of their own for damaged files
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"'{path}' is no readable sentence encoder: {reason}") from error
    model = model.float().to(default_device()).eval()
    encoder = model.get_encoder() if model.config.is_encoder_decoder else model
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    limit = _readable(encoder, max_tokens)
    order = np.argsort([len(text) for text in texts], kind="stable")
    out: Tensor | None = None
    for start in range(0, len(order), ENCODED_TEXTS):
        rows = order[start : start + ENCODED_TEXTS]
        read = tokenizer(
            [texts[row] for row in rows], padding=True, truncation=True, max_length=limit, return_tensors="pt"
        ).to(model.device)
        mask = read["attention_mask"]
        hidden = encoder(input_ids=read["input_ids"], attention_mask=mask).last_hidden_state
        pooled = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        out = torch.empty(len(texts), pooled.shape[1]) if out is None else out
        out[torch.from_numpy(rows)] = pooled.float().cpu()
    return torch.empty(0, 0) if out is None else out


def _readable(encoder: Any, max_tokens: int) -> int:
    """Tokens of a text that are read: `max_tokens`, or as many as the encoder has positions for."""
    table = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    # RoBERTa and its kin count positions from behind the padding's; an encoder without a limit names none, or -1.
    positions = getattr(encoder.config, "max_position_embeddings", -1) - (0 if padding is None else padding + 1)
    return min(max_tokens, positions) if positions > 0 else max_tokens
