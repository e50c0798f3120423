"""Documents of a catalogue and of text files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from tandemrec.data.dataset import Dataset
from tandemrec.errors import InputError
from tandemrec.llm.corpus import catalogue_documents, read_texts


def test_a_catalogue_speaks_in_titles_descriptions_and_lists() -> None:
    items = pl.DataFrame(
        {
            "item_id": [1, 2, 3],
            "title": ["Alien", "Heat", "Up"],
            "genres": [["Horror", "Space"], ["Crime"], ["Space"]],
            "studio": ["Fox", None, "Fox"],
            "year": [1979, 1995, 2009],
        }
    )
    events = pl.DataFrame({"user_id": [1, 1, 1], "item_id": [1, 2, 3]})
    assert catalogue_documents(Dataset.from_frames(events, items)) == [
        '"Alien"',
        '"Heat"',
        '"Up"',
        "Alien — Horror, Space; Fox",
        "Heat — Crime",
        "Up — Space; Fox",
        'Space: "Alien", "Up"',
        'Fox: "Alien", "Up"',
    ]


def test_a_catalogue_of_titles_alone_speaks_too() -> None:
    events = pl.DataFrame({"user_id": [1, 1], "item_id": [1, 2]})
    items = pl.DataFrame({"item_id": [1, 2], "title": ["Alien", "Up"]})
    assert catalogue_documents(Dataset.from_frames(events, items)) == ['"Alien"', '"Up"', "Alien", "Up"]


def test_long_lists_are_cut_and_long_values_are_no_headings() -> None:
    n = 23
    items = pl.DataFrame({"item_id": range(n), "title": [f"t{i}" for i in range(n)], "kind": ["x"] * n})
    items = items.with_columns(text=pl.lit("a long description " * 10))
    events = pl.DataFrame({"user_id": [0] * n, "item_id": range(n)})
    lists = catalogue_documents(Dataset.from_frames(events, items))[2 * n :]
    assert [text.count('"') // 2 for text in lists] == [10, 10, 3]
    assert lists[2] == 'x: "t20", "t21", "t22"'


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_text_files_plain_or_zipped(suffix: str, tmp_path: Path) -> None:
    lines = [json.dumps({"title": "Up", "extract": "A house flies."}), "", json.dumps({"text": "Naïve."})]
    for name, content in (("a.txt", "one\n\n two \n"), ("b.jsonl", "\n".join(lines))):
        data = content.encode()
        (tmp_path / (name + suffix)).write_bytes(gzip.compress(data) if suffix else data)
    assert list(read_texts(tmp_path / f"a.txt{suffix}")) == ["one", "two"]
    assert list(read_texts(tmp_path / f"b.jsonl{suffix}")) == ["Up\nA house flies.", "Naïve."]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"body": 1}\n', "line 2: expected an object with one of the keys"),
        ("a.jsonl", b'{"text": "x"}\n[1]\n', "line 2: expected an object"),
        ("a.jsonl", b'{"text": \n', "line 1: found no JSON"),
        ("a.txt", b"fine\n\xff\xfe\n", "not UTF-8"),
        ("a.txt.gz", gzip.compress(b"hello\n" * 5000, mtime=0)[:40], "cannot be read"),
        ("a.txt.gz", b"no gzip", "cannot be read"),
        ("a.pdf", b"%PDF", r"expected \.txt or \.jsonl"),
    ],
)
def test_bad_text_files_are_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(read_texts(tmp_path / name))


def test_missing_text_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no text file"):
        list(read_texts(tmp_path / "none.txt"))
