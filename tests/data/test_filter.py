"""Cleaning, step by step, against plain Python and the published k-core counts."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tandemrec.data.dataset import Dataset
from tandemrec.data.filter import CleaningConfig, clean, k_core
from tandemrec.data.locations import data_root
from tandemrec.errors import InputError

PAIRS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=40)


def dataset(
    rows: list[tuple[str, str, float, int]], titles: dict[str, str | None] | None = None, **attributes: list[object]
) -> Dataset:
    interactions = pl.DataFrame(rows, schema=["user_id", "item_id", "rating", "timestamp"], orient="row")
    items = None
    if titles is not None:
        items = pl.DataFrame({"item_id": list(titles), "title": list(titles.values()), **attributes})
    return Dataset.from_frames(interactions, items, name="tiny")


def slow_k_core(pairs: list[tuple[int, int]], user_core: int, item_core: int) -> list[bool]:
    kept = [True] * len(pairs)
    while True:
        alive = [pair for pair, keep in zip(pairs, kept, strict=True) if keep]
        users, items = [u for u, _ in alive], [i for _, i in alive]
        after = [
            keep and users.count(u) >= user_core and items.count(i) >= item_core
            for (u, i), keep in zip(pairs, kept, strict=True)
        ]
        if after == kept:
            return kept
        kept = after


@given(PAIRS, st.integers(1, 4), st.integers(1, 4))
def test_k_core_equals_the_plain_loop(pairs: list[tuple[int, int]], user_core: int, item_core: int) -> None:
    users, items = np.array(pairs, np.int32).reshape(-1, 2).T
    mask, _ = k_core(users, items, user_core, item_core)
    assert mask.tolist() == slow_k_core(pairs, user_core, item_core)


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("Tom &amp; Jerry", "Tom & Jerry"),
        ("Tom &amp;amp; Jerry", "Tom & Jerry"),
        ("caf&eacute; &#39;Z&#x41;&#39;", "café 'ZA'"),
        ("  two \t\n lines  ", "two lines"),
        ("a<br/>b <b>bold</b>", "a b bold"),
        ('<span class="a-size-medium a-color-secondary"', None),
        ("&lt;i&gt;Alien&lt;/i&gt;", "Alien"),
        ("1 < 2 & 3 > 2", "1 < 2 & 3 > 2"),
        ("I <3 AT&T", "I <3 AT&T"),
        ("Wall<E and friends", "Wall<E and friends"),
        ("   ", None),
        ("R&D; Vol. 2", "R&D; Vol. 2"),
    ],
)
def test_texts(raw: str, cleaned: str | None) -> None:
    data = dataset([("a", "x", 5, 0), ("a", "y", 5, 1)], {"x": raw, "y": "other"})
    result, _ = clean(data, CleaningConfig(missing_titles="id"))
    assert result.titles == [cleaned if cleaned is not None else "x", "other"]


def test_text_attributes_are_cleaned_and_numbers_left_alone() -> None:
    data = dataset([("a", "x", 5, 0)], {"x": "X"}, genres=[["Food &amp; Drink", " "]], year=[1999], brand=["A&amp;B"])
    items = clean(data, CleaningConfig())[0].items
    assert items.row(0, named=True) == {
        "item_id": "x",
        "title": "X",
        "genres": ["Food & Drink"],
        "year": 1999,
        "brand": "A&B",
    }
    untouched = clean(data, CleaningConfig(clean_texts=False))[0].items
    assert untouched["brand"].to_list() == ["A&amp;B"]


DUPLICATES = [("a", "x", 5.0, 1), ("a", "x", 5.0, 1), ("a", "x", 3.0, 2), ("a", "y", 1.0, 3)]


@pytest.mark.parametrize(
    ("mode", "kept"),
    [
        ("keep", [("x", 5.0), ("x", 5.0), ("x", 3.0), ("y", 1.0)]),
        ("exact", [("x", 5.0), ("x", 3.0), ("y", 1.0)]),
        ("first", [("x", 5.0), ("y", 1.0)]),
        ("last", [("x", 3.0), ("y", 1.0)]),
    ],
)
def test_duplicates(mode: str, kept: list[tuple[str, float]]) -> None:
    result, _ = clean(dataset(DUPLICATES), CleaningConfig(duplicates=mode))  # type: ignore[arg-type]
    ids = result.items["item_id"].to_list()
    assert [(ids[item], rating) for item, rating in result.interactions.select("item", "rating").rows()] == kept


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(1, 2), st.integers(0, 2)), min_size=1))
def test_exact_duplicates_equal_the_plain_reading(rows: list[tuple[int, int, int, int]]) -> None:
    result, _ = clean(dataset([(f"u{u}", f"i{i}", float(r), t) for u, i, r, t in rows]), CleaningConfig())
    users, items = result.users["user_id"].to_list(), result.items["item_id"].to_list()
    got = [(users[u], items[i], r, t) for u, i, r, t in result.interactions.rows()]
    unique = dict.fromkeys((f"u{u}", f"i{i}", float(r), t) for u, i, r, t in rows)
    assert got == sorted(unique, key=lambda row: (row[0], row[3]))


def test_items_without_title_are_dropped_or_named_by_id() -> None:
    rows = [("a", "x", 5.0, 1), ("a", "y", 5.0, 2), ("b", "z", 5.0, 3)]
    data = dataset(rows, {"x": "Good", "y": None, "z": "title_7"})
    dropped, report = clean(data, CleaningConfig())
    assert dropped.titles == ["Good", "title_7"] and report.rows[-1]["dropped"] == 1
    strict, _ = clean(data, CleaningConfig(placeholder_titles=r"^title_[0-9]+$"))
    assert strict.titles == ["Good"] and strict.users["user_id"].to_list() == ["a"]
    named, _ = clean(data, CleaningConfig(missing_titles="id"))
    assert named.titles == ["Good", "y", "title_7"]


def test_data_without_any_title_keep_their_ids() -> None:
    result, _ = clean(dataset([("a", "x", 5.0, 1)]), CleaningConfig())
    assert result.titles == ["x"]


def test_report_accounts_for_every_row() -> None:
    rows = [(user, item, 4.0, k) for k, (user, item) in enumerate([("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")])]
    rows += [("a", "x", 4.0, 0), ("c", "x", 2.0, 9), ("d", "q", 5.0, 9), ("e", "x", 5.0, 1)]
    data = dataset(rows, {"x": "X", "y": "Y", "q": None})
    result, report = clean(data, CleaningConfig(min_rating=3, user_core=2, item_core=2))
    table = {row["step"]: (row["users"], row["items"], row["interactions"], row["dropped"]) for row in report.rows}
    assert table == {
        "as read": (5, 3, 8, 0),
        "texts": (5, 3, 8, 0),
        "duplicates": (5, 3, 7, 1),
        "titles": (4, 2, 6, 1),
        "ratings": (3, 2, 5, 1),
        "k-core": (2, 2, 4, 1),
    }
    assert all(row["why"] for row in report.rows if row["dropped"])
    assert (result.n_users, result.n_items, result.interactions.height) == (2, 2, 4)


@given(PAIRS.filter(len), st.integers(1, 3))
def test_what_remains_is_encoded_without_gaps_in_the_old_order(pairs: list[tuple[int, int]], core: int) -> None:
    data = dataset([(f"u{u}", f"i{i}", 5.0, k) for k, (u, i) in enumerate(pairs)])
    mask = slow_k_core(pairs, core, core)
    config = CleaningConfig(user_core=core, item_core=core)
    if not any(mask):
        with pytest.raises(InputError, match="cleaning left no interactions"):
            clean(data, config)
        return
    result, _ = clean(data, config)
    users, items = result.users["user_id"].to_list(), result.items["item_id"].to_list()
    assert users == sorted(users) and items == sorted(items)
    got = {(users[u], items[i], t) for u, i, t in result.interactions.select("user", "item", "timestamp").rows()}
    assert got == {(f"u{u}", f"i{i}", k) for k, ((u, i), keep) in enumerate(zip(pairs, mask, strict=True)) if keep}
    assert result.interactions["user"].n_unique() == result.n_users
    assert result.interactions["item"].n_unique() == result.n_items


def test_cleaning_twice_changes_nothing() -> None:
    data = dataset([("a", "x", 5.0, 1), ("b", "y", 4.0, 2)], {"x": "A &amp; B", "y": "C"})
    once, _ = clean(data, CleaningConfig())
    assert clean(once, CleaningConfig())[0].fingerprint == once.fingerprint


def test_unknown_ratings_and_bad_expressions_are_refused() -> None:
    data = Dataset.from_frames(pl.DataFrame({"user_id": ["a"], "item_id": ["x"]}), name="plain")
    with pytest.raises(InputError, match=r"'cleaning\.min_rating': plain has no ratings"):
        clean(data, CleaningConfig(min_rating=4))
    with pytest.raises((InputError, ValidationError), match="placeholder_titles"):
        clean(dataset([("a", "x", 1, 1)], {"x": "X"}), CleaningConfig(placeholder_titles="("))


K_CORES = [
    ("amazon-video-games", "interactions.csv.gz", ",", (0, 1), 5, (29_609, 11_642, 261_407)),
    ("amazon-video-games", "interactions.csv.gz", ",", (0, 1), 10, (2_038, 1_527, 34_419)),
    ("amazon-toys", "interactions.csv.gz", ",", (0, 1), 5, (19_412, 11_924, 167_597)),
    ("amazon-toys", "interactions.csv.gz", ",", (0, 1), 10, (921, 871, 18_637)),
    ("microlens-50k", "MicroLens-50k_pairs.csv.gz", ",", (0, 1), 5, (46_312, 14_071, 332_085)),
    ("book-crossing", "BX-Book-Ratings.csv.gz", ";", (0, 1), 5, (6_731, 8_796, 112_815)),
    ("book-crossing", "BX-Book-Ratings.csv.gz", ";", (0, 1), 10, (1_803, 2_015, 41_105)),
]


@pytest.mark.parametrize(("name", "file", "separator", "columns", "core", "counts"), K_CORES)
def test_published_k_cores(
    name: str, file: str, separator: str, columns: tuple[int, int], core: int, counts: tuple[int, int, int]
) -> None:
    path = data_root() / name / file
    if not path.exists():
        pytest.skip(f"{path} is not here; TANDEMREC_DATA names the data folder")
    raw = pl.read_csv(path, separator=separator, infer_schema=False, encoding="utf8-lossy").to_numpy()[:, columns]
    users, items = (np.unique(column.astype(str), return_inverse=True)[1].astype(np.int32) for column in raw.T)
    mask, _ = k_core(users, items, core, core)
    assert (len(np.unique(users[mask])), len(np.unique(items[mask])), int(mask.sum())) == counts


def test_drawn_users_keep_all_their_interactions_and_nobody_else_has_any() -> None:
    rows = [(f"u{user:02}", f"i{item}", 5.0 if user else 1.0, item) for user in range(20) for item in range(3)]
    data = dataset(rows)
    drawn, report = clean(data, CleaningConfig(min_rating=4, draw_users=6))
    again, _ = clean(data, CleaningConfig(min_rating=4, draw_users=6))
    other, _ = clean(data, CleaningConfig(min_rating=4, draw_users=6, draw_seed=1))
    names = drawn.users["user_id"].to_list()
    assert len(set(names)) == 6 and "u00" not in names and drawn.interactions.height == 18
    assert drawn.fingerprint == again.fingerprint != other.fingerprint
    assert report.rows[-1]["why"] == "6 users drawn with seed 0"
    with pytest.raises(InputError, match=r"'cleaning\.draw_users': found 20, tiny has 19 users here"):
        clean(data, CleaningConfig(min_rating=4, draw_users=20))


@pytest.mark.parametrize(
    ("title", "cut"),
    [
        ("eight ab", "eight ab"),
        ("eight abc", "eight"),
        ("one two three", "one two"),
        ("one two  three", "one two"),
        ("ninelettered", "ninelett"),
        ("éléphant rose", "éléphant"),
    ],
)
def test_long_titles_end_with_a_whole_word(title: str, cut: str) -> None:
    data = dataset([("u", "i", 5.0, 1)], {"i": title})
    cleaned, report = clean(data, CleaningConfig(title_length=8, clean_texts=False))
    assert cleaned.titles == [cut]
    assert report.rows[-1]["why"] == f"{int(title != cut)} titles cut to 8 characters or fewer"
