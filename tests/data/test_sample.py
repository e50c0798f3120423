"""The bundled sample is what its generator makes, and holds what it promises to hold."""

from importlib import resources
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tandemrec.data.dataset import Dataset
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.sample import load_sample, write
from tandemrec.data.split import make_split


@pytest.fixture(scope="module")
def sample() -> Dataset:
    return load_sample()


def test_committed_files_are_what_the_generator_makes(tmp_path: Path) -> None:
    write(tmp_path)
    committed = resources.files("tandemrec.data") / "sample"
    for name in ("interactions.parquet", "items.parquet"):
        with resources.as_file(committed / name) as path:
            assert_frame_equal(pl.read_parquet(tmp_path / name), pl.read_parquet(path))


def test_another_seed_makes_other_events(tmp_path: Path) -> None:
    write(tmp_path, seed=1)
    events = pl.read_parquet(tmp_path / "interactions.parquet")
    with resources.as_file(resources.files("tandemrec.data") / "sample" / "interactions.parquet") as path:
        assert not events.equals(pl.read_parquet(path))


def test_files_are_small_and_say_that_they_are_synthetic() -> None:
    folder = resources.files("tandemrec.data") / "sample"
    with resources.as_file(folder) as path:
        assert sum(file.stat().st_size for file in path.iterdir()) < 1_000_000
    assert "Synthetic" in (folder / "README.md").read_text()


def test_sizes_and_texts(sample: Dataset) -> None:
    assert (sample.n_users, sample.n_items) == (1000, 500)
    assert 15_000 <= sample.interactions.height <= 20_000
    assert sample.items["title"].n_unique() == 500 and sample.items["title"].null_count() == 0
    starts_with_franchise = sample.items.select(pl.col("title").str.starts_with(pl.col("franchise")).all()).item()
    assert starts_with_franchise
    first_parts = sample.items.unique("franchise", keep="first", maintain_order=True)
    assert first_parts.select(pl.col("title").str.ends_with(pl.col("category")).all()).item()
    assert sample.interactions["rating"].is_between(1, 5).all()


def test_popularity_has_a_long_tail(sample: Dataset) -> None:
    counts = np.sort(np.bincount(sample.interactions["item"].to_numpy()))[::-1]
    assert counts[:50].sum() > 0.3 * counts.sum()
    assert counts[250:].sum() < 0.2 * counts.sum()


def test_sequence_matters_three_times_as_much_as_popularity(sample: Dataset) -> None:
    """A table of which item follows which, against popularity, both over unseen items: HR@10."""
    split = make_split(sample, LeaveOneOut())
    follows = np.zeros((sample.n_items, sample.n_items))
    for sequence in split.sequences:
        for gap in (1, 2, 3):
            np.add.at(follows, (sequence[:-gap], sequence[gap:]), 1 / gap)
    follows /= follows.sum(1, keepdims=True) + 5
    hits = {"popularity": 0, "follows": 0}
    for history, target in zip(split.test.history, split.test.target, strict=True):
        recent = history[::-1][:8]
        scores = {
            "popularity": split.item_counts.astype(float),
            "follows": (follows[recent] * 0.8 ** np.arange(len(recent))[:, None]).sum(0),
        }
        for name, score in scores.items():
            score[history] = -1
            hits[name] += int((score > score[target[0]]).sum() < 10)
    assert 0.1 < hits["popularity"] / 1000 < 0.2
    assert hits["follows"] > 3 * hits["popularity"]


def test_title_words_do_not_give_the_item_number_away(sample: Dataset) -> None:
    assert not sample.items["title"].str.contains(r"\d{2,}").any()
