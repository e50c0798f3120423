"""The feature encoder: vocabularies of the training rows, unknown ids, buckets, sets, words, one fused table."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from rated import N_ITEMS, N_USERS, small_dataset, small_split

from tandemrec.conventional.rating.features import EncodedField, FeaturesConfig, encode_fields
from tandemrec.conventional.rating.table import FeatureTable
from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import Ragged
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.ratings import NOBODY, Pairs, training_ratings
from tandemrec.data.split import Split, make_split
from tandemrec.errors import InputError

ALL = FeaturesConfig.model_validate(
    {
        "users": {"age": {"buckets": 3}, "zip_code": {"prefix": 1}},
        "items": {"genres": None, "people": {"kind": "set", "separator": ","}, "title": {"kind": "words"}},
    }
)

YEARS = list(range(1990, 1990 + N_ITEMS))


def field(split: Split, side: str, name: str, **settings: Any) -> EncodedField:
    config = FeaturesConfig.model_validate({side: {name: settings}})
    return encode_fields(split, config)["users" if side == "users" else "items"][1]


def column_split(values: list[Any], trained: list[int], dtype: pl.DataType | None = None) -> Split:
    """Items with a column; item i has `trained[i]` training rows, the others occur in test or validation only."""
    ids = [item for item, count in enumerate(trained) for _ in range(count)]
    n = len(values)
    parts = ["train"] * len(ids) + ["valid", "test"] * n
    ids += [item for item in range(n) for _ in (0, 1)]
    # Every item has one validation and one test row, each with a user of its own who has a training row of item 0.
    frame = pl.DataFrame(
        {"user_id": range(len(ids)), "item_id": ids, "split": parts, "rating": 3.0, "timestamp": range(len(ids))}
    )
    items = pl.DataFrame({"item_id": range(n), "title": "t", "x": pl.Series(values, dtype=dtype)})
    data = Dataset.from_frames(frame, items, name="columns")
    train = frame["split"].to_numpy() == "train"
    values_I = data.interactions["item"].to_numpy()
    starts = np.arange(len(ids))
    from tandemrec.data.examples import Examples

    empty = Examples.from_histories([])
    return Split(data, Ragged(values_I, starts, starts + train), empty, empty, empty, "by hand")


def test_ids_of_one_table_never_overlap_and_the_padding_is_its_own() -> None:
    split = small_split()
    table = FeatureTable.of(split, ALL)
    fields = [field for side in encode_fields(split, ALL).values() for field in side]
    assert table.fields == len(fields) == 7
    assert table.rows == 1 + sum(field.size for field in fields)
    columns = [*table.user_single.T, *table.item_single.T, *table.user_sets, *table.item_sets]
    seen = [set(column.flatten().tolist()) - {0} for column in columns]
    assert sum(map(len, seen)) == len(set.union(*seen))
    assert max(set.union(*seen)) < table.rows
    assert table.user_single.shape == (N_USERS + 1, 3) and table.item_single.shape == (N_ITEMS + 1, 1)
    assert set(table.user_single[-1].tolist()) | set(table.item_single[-1].tolist()) < set(table.unknown.tolist())


def test_nobody_gets_the_unknown_rows() -> None:
    table = FeatureTable.of(small_split(), ALL)
    pairs = Pairs(np.array([NOBODY, 3], np.int32), np.array([2, NOBODY], np.int32))
    ids, inverse = table.lookup(*table.places(pairs))
    single, *sets = ids.split([4, *table.widths], 1)
    assert inverse[0, :2].tolist() == [1, 1] and inverse[1].tolist() == [1, 1, 1]
    unknown = set(table.unknown.tolist())
    assert [[row in unknown for row in rows] for rows in single.tolist()] == [
        [True, True, True, False],
        [False, False, False, True],
    ]
    assert [rows[1, 0].item() in unknown and not rows[1, 1:].any() for rows in sets] == [True] * 3


def test_sets_and_words_by_hand() -> None:
    split = small_split()
    genres = field(split, "items", "genres")
    assert genres.is_set and genres.size == 4
    assert genres.codes[:5].tolist() == [[1, -1], [2, 1], [3, -1], [0, -1], [2, -1]]
    people = field(split, "items", "people", kind="set", separator=",")
    assert people.codes[:3].tolist() == [[1, 2], [2, -1], [0, -1]]
    words = field(split, "items", "title", kind="words", min_count=40)
    # "the" and "one" are in every title, "red" and "blue" in half of them, numbers in one each.
    assert words.size == 5 and (words.codes[:, 3:] == -1).all() and (words.codes[:-1, :3] > 0).all()
    assert field(split, "items", "title", kind="words", most=2).codes.shape[1] == 2
    assert field(split, "users", "zip_code", prefix=1).size == 4
    assert field(split, "users", "zip_code").size == 22


def test_words_of_a_set_count_once() -> None:
    split = column_split([["A", "A", " A", "B"]], [2], pl.List(pl.String))
    assert field(split, "items", "x").codes[0].tolist() == [1, 2]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 3)), min_size=1, max_size=12), st.integers(1, 4))
def test_a_category_is_known_if_its_training_rows_suffice(rows: list[tuple[str, int]], least: int) -> None:
    values, counts = [value for value, _ in rows], [count for _, count in rows]
    encoded = field(column_split(values, counts), "items", "x", min_count=least)
    trained = {value: sum(n for v, n in rows if v == value) for value in values}
    vocabulary = sorted(value for value, n in trained.items() if n >= least)
    expected = [vocabulary.index(value) + 1 if value in vocabulary else 0 for value in values]
    assert encoded.codes[:, 0].tolist() == [*expected, 0]
    assert encoded.size == len(vocabulary) + 1


@given(
    st.lists(st.tuples(st.one_of(st.none(), st.integers(-50, 50)), st.integers(0, 3)), min_size=1, max_size=25),
    st.integers(2, 6),
)
def test_buckets_of_numbers(rows: list[tuple[int | None, int]], buckets: int) -> None:
    values, counts = [value for value, _ in rows], [count for _, count in rows]
    encoded = field(column_split(values, counts, pl.Int64()), "items", "x", buckets=buckets)
    codes = encoded.codes[:-1, 0]
    known = [(value, code) for value, code in zip(values, codes, strict=True) if value is not None]
    if not any(n for value, n in rows if value is not None):
        assert encoded.size == 1 and not codes.any()
        return
    assert [code == 0 for code in codes] == [value is None for value in values]
    assert encoded.codes.max() < encoded.size <= buckets + 1
    ordered = sorted(known)
    assert [code for _, code in ordered] == sorted(code for _, code in ordered)
    trained = sorted(value for value, n in rows if value is not None for _ in range(n))
    used = {code for (value, n), code in zip(rows, codes, strict=True) if value is not None and n}
    assert used == set(range(1, encoded.size)), "every bucket has training rows"
    if len(set(trained)) == len(trained) and len(trained) % buckets == 0:
        shares = np.bincount([code for value, code in known for _ in range(trained.count(value))], minlength=1)
        assert shares.sum() >= len(trained)


def test_rare_users_share_the_unknown_id() -> None:
    split = small_split()
    counts = split.item_counts
    least = int(np.median(counts)) + 1
    item = encode_fields(split, FeaturesConfig(id_min_count=least))["items"][0]
    assert [code == 0 for code in item.codes[:-1, 0]] == (counts < least).tolist()
    kept = item.codes[:-1, 0][counts >= least]
    assert kept.tolist() == list(range(1, len(kept) + 1))


def test_nothing_but_training_rows_speaks() -> None:
    """Validation and test rows of other items and ratings change neither codes nor the ratings that are learnt."""
    data = small_dataset()
    split = make_split(data, LeaveOneOut())
    rows = data.interactions
    last_two = rows.select(pl.int_range(pl.len()).over("user") >= pl.len().over("user") - 2).to_series()
    moved = rows.with_columns(
        item=pl.when(last_two).then((pl.col("item") + 1) % N_ITEMS).otherwise(pl.col("item")).cast(pl.Int32),
        rating=pl.when(last_two).then(1.0).otherwise(pl.col("rating")).cast(pl.Float32),
    )
    other = make_split(Dataset(moved, data.items, data.users, data.clock, data.name), LeaveOneOut())
    assert not np.array_equal(split.test.target.flat(), other.test.target.flat())
    one, two = FeatureTable.of(split, ALL), FeatureTable.of(other, ALL)
    for name, tensor in one.tensors().items():
        assert tensor.equal(two.tensors()[name]), name
    assert one.counts(split).equal(two.counts(other))
    np.testing.assert_array_equal(training_ratings(split).value, training_ratings(other).value)


def test_counts_are_training_rows_of_values() -> None:
    split = small_split()
    table = FeatureTable.of(split, FeaturesConfig(items=["genres"]))  # type: ignore[arg-type]
    counts = table.counts(split)
    ratings = training_ratings(split)
    ids, _ = table.lookup(*table.places(ratings.pairs))
    expected = np.bincount(ids.flatten(), minlength=table.rows)
    assert counts[1:].tolist() == expected[1:].tolist()


def test_a_new_attribute_column_joins_by_name() -> None:
    new = {"director": ["Ann", "Bob", None] * 5}
    old_split, new_split = small_split(), small_split(**new)
    without = FeatureTable.of(new_split, FeaturesConfig())
    joined = FeatureTable.of(new_split, FeaturesConfig.model_validate({"items": ["director"]}))
    assert joined.fields == without.fields + 1 and joined.rows == without.rows + 3
    with pytest.raises(InputError, match=r"key 'features\.items': small has no column 'director', found"):
        FeatureTable.of(old_split, FeaturesConfig.model_validate({"items": ["director"]}))


@pytest.mark.parametrize(
    ("column", "settings", "message"),
    [
        ("title", {"kind": "number"}, r"'features\.items\.title\.kind': the column holds String, expected numbers"),
        ("genres", {"kind": "category"}, "the column holds lists, expected 'set', found 'category'"),
        ("people", {"kind": "set"}, r"'features\.items\.people\.separator': the column holds String, expected what"),
        ("people", {"separator": ","}, "it cuts the text of a set, found a category"),
        ("year", {"prefix": 3}, r"\.items\.year\.prefix': it changes nothing of a number, found a column of Int64"),
        ("year", {"min_count": 5}, r"\.min_count': .* number.*set another kind \(category, set, words\)"),
        ("year", {"most": 2}, r"\.most': .* number.*set another kind \(set, words\)"),
        ("people", {"most": 2}, r"\.most': it changes nothing of a category"),
        ("people", {"buckets": 4}, r"\.buckets': it changes nothing of a category, found a column of String"),
        ("title", {"kind": "words", "buckets": 4}, r"\.buckets': .* words.*set another kind \(number\)"),
    ],
)
def test_kinds_that_do_not_fit_are_refused(column: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        field(small_split(year=YEARS), "items", column, **settings)


def test_numbers_taken_as_categories_have_their_settings() -> None:
    years = small_split(year=YEARS)
    assert field(years, "items", "year", kind="category").size == N_ITEMS + 1
    decades = field(years, "items", "year", kind="category", prefix=3)
    assert decades.size == 3
    assert decades.codes[:N_ITEMS, 0].tolist() == [1] * 10 + [2] * 5
    saved = FeaturesConfig.model_validate({"items": {"year": {}}}).model_dump()  # every setting is written, as in a run
    assert encode_fields(years, FeaturesConfig.model_validate(saved))["items"][1].size == 11


@pytest.mark.parametrize("side", ["users", "items"])
@pytest.mark.parametrize("fields", ["category", ["category", 1], 3, None])
def test_what_is_neither_names_nor_a_mapping_is_refused(side: str, fields: Any) -> None:
    with pytest.raises(ValidationError, match="expected a list of names, or a mapping from names to settings"):
        FeaturesConfig.model_validate({side: fields})


def test_a_missing_rating_is_named() -> None:
    data = small_dataset()
    rows = data.interactions.with_columns(
        rating=pl.when(pl.int_range(pl.len()) == 9).then(None).otherwise(pl.col("rating"))
    )
    split = make_split(Dataset(rows, data.items, data.users, data.clock, data.name), LeaveOneOut())
    with pytest.raises(InputError, match="small, column 'rating': 1 of 240 interactions have no rating, such as that"):
        training_ratings(split)
