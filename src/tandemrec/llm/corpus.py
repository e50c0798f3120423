"""Documents that a small language model learns a catalogue from: the catalogue's own texts and further text files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from tandemrec.data.dataset import Dataset
from tandemrec.errors import InputError

TEXT_KEYS = ("title", "text", "extract")
LIST_TITLES = 10
"""Titles of a list document."""

MAX_LABEL = 60
"""Characters: a longer attribute value describes its item and is no heading of a list."""


def catalogue_documents(dataset: Dataset) -> list[str]:
    """What the catalogue says, in the forms that prompts use; the same list for the same data.

    For every item its title in quotes, and its title with its text attributes; for every attribute value that several
    items share (a category, a franchise, a brand) the list of their quoted titles in catalogue order, at most
    `LIST_TITLES` a document.
    """
    titles, described = dataset.titles, _text_columns(dataset.items)
    texts = [f'"{title}"' for title in titles]
    for title, *row in dataset.items.select(pl.Series("title", titles), *described).iter_rows():
        words = "; ".join(", ".join(value) if isinstance(value, list) else value for value in row if value)
        texts.append(f"{title} — {words}" if words else title)
    for column in described:
        texts += _lists(dataset.items[column], titles)
    return texts


def _text_columns(items: pl.DataFrame) -> list[str]:
    kinds = (pl.String(), pl.List(pl.String()))
    return [name for name, kind in items.schema.items() if name not in ("item_id", "title") and kind in kinds]


def _lists(column: pl.Series, titles: Sequence[str]) -> list[str]:
    shared = (
        pl.DataFrame({"label": column, "title": titles}).explode("label")
        if column.dtype == pl.List
        else pl.DataFrame({"label": column, "title": titles})
    )
    groups = (
        shared.filter(pl.col("label").str.len_chars().is_between(1, MAX_LABEL))
        .group_by("label", maintain_order=True)
        .agg("title")
        .filter(pl.col("title").list.len() > 1)
    )
    return [
        f"{label}: " + ", ".join(f'"{title}"' for title in members[start : start + LIST_TITLES])
        for label, members in groups.iter_rows()
        for start in range(0, len(members), LIST_TITLES)
    ]


def read_texts(path: Path) -> Iterator[str]:
    """Documents of a text file: the lines of a .txt, the records of a .jsonl; either may be gzipped.

    Raises:
        InputError: if it is missing, not text, or a line of a .jsonl is no JSON object with a known key.
    """
    opened: Any = gzip.open if path.suffix == ".gz" else open
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if kind not in (".txt", ".jsonl"):
        raise InputError(f"{path}: found a file named *{kind or path.name}, expected .txt or .jsonl, plain or .gz")
    number = 0
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _json_text(path, number, line) if kind == ".jsonl" else line.strip()
    except FileNotFoundError:
        raise InputError(f"there is no text file {path}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: after line {number} found bytes that are not UTF-8 ({error.reason})") from None
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read after line {number}: {error}") from None


def _json_text(path: Path, number: int, line: str) -> str:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise InputError(f"{path}, line {number}: found no JSON ({error})") from None
    parts = [str(record[key]) for key in TEXT_KEYS if record.get(key)] if isinstance(record, dict) else []
    if not parts:
        raise InputError(f"{path}, line {number}: expected an object with one of the keys {', '.join(TEXT_KEYS)}")
    return "\n".join(parts)
