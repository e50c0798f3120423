"""Semantic ids: one an item whatever collides, what begins alike, and what is told about them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tandemrec.data.dataset import Dataset
from tandemrec.errors import InputError
from tandemrec.llm.content import content_vectors
from tandemrec.llm.rq_vae import RQVAEConfig, fit_rq_vae
from tandemrec.llm.semantic_ids import SemanticIds, SemanticIdsConfig, build_semantic_ids, diagnostics, standardised

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


def test_vectors_are_standardised_by_hand() -> None:
    x_ID = torch.tensor([[1.0, 2.0], [3.0, 8.0]])  # mean (2, 5), mean square around it (1 + 9) / 2
    wanted_ID = torch.tensor([[-1.0, -3.0], [1.0, 3.0]]) / 5**0.5
    torch.testing.assert_close(standardised(x_ID), wanted_ID)
    torch.testing.assert_close(standardised(100 + 7 * x_ID), wanted_ID)
    assert torch.equal(standardised(torch.full((3, 2), 4.0)), torch.zeros(3, 2))


def test_the_error_of_residual_kmeans_is_what_the_stored_codes_leave(toy: Dataset, tmp_path: Path) -> None:
    config = SemanticIdsConfig.model_validate({"quantiser": QUANTISERS[0] | {"codes": 4}})
    report = build_semantic_ids(toy, config, tmp_path, seed=1)
    x_ID = content_vectors(toy, config.content).double().numpy()
    left_ID = x_ID = x_ID - x_ID.mean(0)
    for code_I in SemanticIds.load(tmp_path)[0].digits_IL[:, :2].T:
        left_ID = left_ID - np.stack([left_ID[code_I == code].mean(0) for code in code_I])
    error = float((left_ID**2).sum() / (x_ID**2).sum())
    assert error > 0.05
    assert report.notes["reconstruction_error"] == pytest.approx(error, rel=1e-4)


def test_the_error_of_an_rq_vae_is_what_the_stored_codes_leave(toy: Dataset, tmp_path: Path) -> None:
    config = SemanticIdsConfig.model_validate({"quantiser": QUANTISERS[1]})
    report = build_semantic_ids(toy, config, tmp_path, seed=1)
    x_ID = standardised(content_vectors(toy, config.content))
    assert isinstance(config.quantiser, RQVAEConfig)
    module, _ = fit_rq_vae(x_ID, config.quantiser, seed=1)
    digits_IL = SemanticIds.load(tmp_path)[0].digits_IL
    entries_ID = module.books_LKD[0][digits_IL[:, 0]] + module.books_LKD[1][digits_IL[:, 1]]
    decoded_ID = module.decoder(entries_ID).detach()
    error = float(((x_ID - decoded_ID) ** 2).sum() / (x_ID**2).sum())
    assert report.notes["reconstruction_error"] == pytest.approx(error, rel=1e-4)


def test_residual_kmeans_names_a_series_by_its_first_digit(toy: Dataset, tmp_path: Path) -> None:
    build_semantic_ids(toy, SemanticIdsConfig.model_validate({"quantiser": QUANTISERS[0]}), tmp_path, seed=1)
    first = SemanticIds.load(tmp_path)[0].digits_IL[:, 0].tolist()
    series = [title.split()[0] for title in toy.titles]
    assert len(set(first)) == len(set(series)) == len(set(zip(series, first, strict=True))) == 6


def test_as_many_codes_as_items_leave_nothing(toy: Dataset, tmp_path: Path) -> None:
    config = SemanticIdsConfig.model_validate({"quantiser": QUANTISERS[0] | {"codes": 24}})
    report = build_semantic_ids(toy, config, tmp_path, seed=0)
    assert report.notes["reconstruction_error"] < 1e-6
    assert report.notes["collision_rate"] == 0


@pytest.mark.parametrize("quantiser", QUANTISERS)
def test_items_of_one_text_collide_and_leave_nothing(toy: Dataset, quantiser: dict[str, Any], tmp_path: Path) -> None:
    items = toy.items.select("item_id", title=pl.lit("two words"))
    same = Dataset(toy.interactions, items, toy.users, toy.clock, toy.name)
    report = build_semantic_ids(same, SemanticIdsConfig.model_validate({"quantiser": quantiser}), tmp_path, seed=0)
    assert (report.notes["reconstruction_error"], report.notes["collision_rate"]) == (0, 1)
    assert len({tuple(row) for row in SemanticIds.load(tmp_path)[0].digits_IL.tolist()}) == len(toy.titles)


def test_a_folder_without_ids_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no semantic ids: there is no ids.parquet"):
        SemanticIds.load(tmp_path)
