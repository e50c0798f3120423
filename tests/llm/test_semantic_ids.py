"""Semantic ids: one an item whatever collides, what begins alike, and what is told about them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandemrec.data.dataset import Dataset
from tandemrec.errors import InputError
from tandemrec.llm.semantic_ids import SemanticIds, SemanticIdsConfig, build_semantic_ids, diagnostics

codes = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=25)
QUANTISERS: list[dict[str, Any]] = [
    {"method": "residual-kmeans", "levels": 2, "codes": 6},
    {"method": "rq-vae", "levels": 2, "codes": 6, "training": {"epochs": 3}},
]


@given(codes)
def test_collisions_give_distinct_ids_that_keep_their_codes(rows: list[tuple[int, int]]) -> None:
    given_IL = np.array(rows)
    ids = SemanticIds.of_codes(given_IL, 3)
    assert len({tuple(row) for row in ids.digits_IL.tolist()}) == len(rows)
    np.testing.assert_array_equal(ids.digits_IL[:, :2], given_IL)
    assert ids.length == (2 if len(set(rows)) == len(rows) else 3)
    if ids.length == 3:
        for item, row in enumerate(rows):
            assert ids.digits_IL[item, 2] == rows[:item].count(row)
    assert (ids.digits_IL < np.array(ids.sizes)).all()


@given(codes)
def test_tokens_tell_digit_and_place(rows: list[tuple[int, int]]) -> None:
    ids = SemanticIds.of_codes(np.array(rows), 3)
    tokens = ids.tokens(5)
    for item, row in enumerate(ids.digits_IL.tolist()):
        assert tokens[item].tolist() == [5 + sum(ids.sizes[:place]) + digit for place, digit in enumerate(row)]
    assert tokens.max() < 5 + sum(ids.sizes)


@given(codes, st.integers(0, 24))
def test_the_nearest_items_share_the_longest_beginning(rows: list[tuple[int, int]], item: int) -> None:
    item %= len(rows)
    ids = SemanticIds.of_codes(np.array(rows), 3)
    own, shared = ids.digits_IL[item].tolist(), []
    for other, row in enumerate(ids.digits_IL.tolist()):
        length = 0
        while length < ids.length and row[length] == own[length]:
            length += 1
        if other != item and length:
            shared.append((other, length))
    assert ids.nearest(item, 5) == sorted(shared, key=lambda pair: (-pair[1], pair[0]))[:5]


def test_diagnostics_by_hand() -> None:
    told = diagnostics(np.array([[0, 1], [0, 1], [0, 2], [1, 1]]), 4)
    assert told["collision_rate"] == 0.5
    assert told["largest_collision"] == 2
    assert [level["used"] for level in told["levels"]] == [0.5, 0.5]
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert told["levels"][0]["perplexity"] == pytest.approx(math.exp(entropy))


@pytest.mark.parametrize("quantiser", QUANTISERS, ids=lambda quantiser: str(quantiser["method"]))
def test_ids_come_from_the_catalogue_and_a_seed(quantiser: dict[str, Any], toy: Dataset, tmp_path: Path) -> None:
    config = SemanticIdsConfig.model_validate({"quantiser": quantiser})
    report = build_semantic_ids(toy, config, tmp_path / "one", seed=1)
    build_semantic_ids(toy, config, tmp_path / "same", seed=1, workspace=tmp_path / "work")
    build_semantic_ids(toy, config, tmp_path / "other", seed=2)
    (one, told), (same, _), (other, _) = (SemanticIds.load(tmp_path / name) for name in ("one", "same", "other"))
    np.testing.assert_array_equal(one.digits_IL, same.digits_IL)
    assert one.sizes == same.sizes
    assert one.digits_IL.tolist() != other.digits_IL.tolist()
    assert len({tuple(row) for row in one.digits_IL.tolist()}) == len(one) == 24
    assert told == report.notes
    assert told["digits"] == list(one.sizes)
    assert len(told["levels"]) == 2
    example = told["neighbours"][0]
    assert example["title"] == toy.titles[0]
    assert example["nearest"] == [{"title": toy.titles[item], "shared": shared} for item, shared in one.nearest(0, 3)]


def test_residual_kmeans_names_a_series_by_its_first_digit(toy: Dataset, tmp_path: Path) -> None:
    config = SemanticIdsConfig.model_validate({"quantiser": QUANTISERS[0] | {"codes": 24}})
    report = build_semantic_ids(toy, config, tmp_path, seed=0)
    assert report.notes["reconstruction_error"] < 1e-6  # as many codes as items
    assert report.notes["collision_rate"] == 0


def test_a_folder_without_ids_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no semantic ids: there is no ids.parquet"):
        SemanticIds.load(tmp_path)
