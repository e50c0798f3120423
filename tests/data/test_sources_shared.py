"""Counts of the real data sets equal what is published with them."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest

from tandemrec.data.dataset import Dataset
from tandemrec.data.filter import CleaningConfig, clean
from tandemrec.data.locations import data_root
from tandemrec.data.sources import Amazon, BookCrossing, MicroLens, MovieLens, SourceConfig, Steam, load_dataset


def load(config: SourceConfig) -> Dataset:
    folder = data_root() / (config.path or config.default_name)  # type: ignore[union-attr]
    if not folder.is_dir():
        pytest.skip(f"needs the data set {folder} (set TANDEMREC_DATA)")
    return load_dataset(config)


def sizes(dataset: Dataset) -> tuple[int, int, int]:
    """Users and items that occur, interactions."""
    interactions = dataset.interactions
    return interactions["user"].n_unique(), interactions["item"].n_unique(), interactions.height


def period(dataset: Dataset) -> tuple[str, str]:
    times = dataset.interactions["timestamp"]
    return tuple(datetime.fromtimestamp(t, UTC).date().isoformat() for t in (times.min(), times.max()))  # type: ignore[return-value, arg-type]


def repeated_titles(dataset: Dataset) -> int:
    """Items whose title another item bears already."""
    titles = dataset.items["title"].drop_nulls()
    return len(titles) - titles.n_unique()


def repeated_pairs(dataset: Dataset) -> int:
    return dataset.interactions.height - dataset.interactions.select("user", "item").n_unique()


def test_movielens_100k() -> None:
    data = load(MovieLens(edition="ml-100k"))
    assert sizes(data) == (943, 1682, 100_000)
    assert period(data) == ("1997-09-20", "1998-04-22")
    assert data.interactions["rating"].unique().sort().to_list() == [1, 2, 3, 4, 5]
    assert data.interactions["user"].value_counts()["count"].min() == 20
    assert repeated_titles(data) == 18
    item = data.items.row(by_predicate=pl.col("item_id") == "267", named=True)
    assert (item["title"], item["genres"]) == ("unknown", ["unknown"])
    first = data.items.row(0, named=True)
    assert (first["title"], first["year"]) == ("Toy Story (1995)", 1995)
    assert first["genres"] == ["Animation", "Children's", "Comedy"]
    user = data.users.row(0, named=True)
    assert user == {"user_id": "1", "gender": "M", "age": 24, "occupation": "technician", "zip_code": "85711"}


def test_movielens_1m() -> None:
    data = load(MovieLens(edition="ml-1m"))
    assert sizes(data) == (6040, 3706, 1_000_209)
    assert (data.n_users, data.n_items) == (6040, 3883)
    assert period(data) == ("2000-04-25", "2003-02-28")
    assert data.interactions["user"].value_counts()["count"].min() == 20
    assert "Misérables, Les (1995)" in data.titles
    assert data.items["year"].null_count() == 0
    user = data.users.row(0, named=True)
    assert (user["gender"], user["age_group"], user["occupation"]) == ("F", "Under 18", "K-12 student")
    at_least_five = data.interactions["item"].value_counts().filter(pl.col("count") >= 5)
    assert (at_least_five.height, at_least_five["count"].sum()) == (3416, 999_611)


def test_movielens_latest_small() -> None:
    data = load(MovieLens(edition="ml-latest-small"))
    assert sizes(data) == (610, 9724, 100_836)
    assert data.n_items == 9742
    assert period(data) == ("1996-03-29", "2018-09-24")
    assert data.interactions["rating"].min() == 0.5
    assert repeated_titles(data) == 5
    assert (data.items["genres"].list.len() == 0).sum() == 34


def test_book_crossing() -> None:
    data = load(BookCrossing())
    assert sizes(data) == (52_908, 27_108, 234_649)
    assert data.clock == "none"
    assert (data.interactions["rating"].min(), data.interactions["rating"].max()) == (1, 10)
    assert data.users["age"].null_count() == 22_724
    assert ((data.users["age"] > 100).sum(), data.users["age"].max(), (data.users["age"] < 5).sum()) == (55, 244, 135)
    assert data.items["year"].null_count() == 499
    assert repeated_titles(data) == 3010


def test_amazon_toys() -> None:
    data = load(Amazon(edition="2014", path="amazon-toys"))
    assert sizes(data) == (19_412, 11_924, 167_597)
    assert data.n_items == 11_924
    assert data.clock == "order"
    titles = data.items["title"]
    assert titles.str.contains(r"^title_\d+$").sum() == 59
    assert repeated_titles(data) == 63
    assert titles.str.contains(r"&#?\w+;").sum() == 1775
    assert titles.str.len_chars().max() == 554


def test_amazon_video_games() -> None:
    data = load(Amazon(path="amazon-video-games"))
    assert sizes(data) == (49_156, 17_332, 342_329)
    assert data.n_items == 17_332
    splits = dict(data.interactions["split"].value_counts().iter_rows())
    assert splits == {"train": 299_987, "valid": 22_609, "test": 19_733}
    assert data.items["title"].str.contains(r"^title_\d+$").sum() == 19
    assert (data.items["categories"].list.len() == 0).sum() == 152
    assert data.items["categories"].n_unique() == 3600
    assert repeated_titles(data) == 448
    assert data.items["title"].str.len_chars().max() == 683
    per_user = data.interactions["user"].value_counts()["count"]
    assert ((per_user < 5).sum(), (per_user < 3).sum()) == (16_660, 3_856)
    order = pl.col("split").replace_strict({"train": 0, "valid": 1, "test": 2}, return_dtype=pl.Int64)
    steps = data.interactions.select((order.diff() < 0) & (pl.col("user").diff() == 0)).to_series()
    assert not steps.any()


@pytest.mark.parametrize(
    ("category", "users", "items", "reviews", "dates", "titles"),
    [
        ("Office_Products", 3231, 3317, 21_297, ("2016-10-01", "2018-10-02"), 15),
        ("Industrial_and_Scientific", 3285, 3541, 21_746, ("2006-04-17", "2018-09-28"), 36),
    ],
)
def test_amazon_office_and_industrial(
    category: str, users: int, items: int, reviews: int, dates: tuple[str, str], titles: int
) -> None:
    data = load(Amazon(path="amazon-office-industrial", category=category))
    assert sizes(data) == (users, items, reviews)
    assert period(data) == dates
    assert repeated_titles(data) == titles
    assert data.items["brand"].null_count() < 0.02 * data.n_items


def test_amazon_magazines_have_web_pages_for_titles() -> None:
    data = load(Amazon(path="amazon-magazine-subscriptions"))
    assert sizes(data) == (348, 157, 2375)
    assert data.n_items == 2320 + 6
    assert period(data) == ("2001-11-12", "2018-05-20")
    assert repeated_pairs(data) == 73
    assert data.items["title"].null_count() > 2000
    assert not data.items["title"].str.contains("<span").any()
    named = load(Amazon(path="amazon-magazine-subscriptions", title_from=("title", "brand", "description")))
    assert named.items["title"].null_count() == 7
    assert "Reason Magazine" in named.titles


def test_microlens() -> None:
    data = load(MicroLens())
    assert sizes(data) == (49_887, 19_217, 359_048)
    assert data.clock == "order"
    splits = dict(data.interactions["split"].value_counts().iter_rows())
    assert splits == {"train": 287_768, "valid": 35_970, "test": 35_310}
    assert data.items["title"].str.len_chars().max() == 6293
    assert repeated_titles(data) == 87
    assert data.items["title"].str.contains(r"\p{Han}").sum() == 88


def test_steam() -> None:
    data = load(Steam())
    assert sizes(data) == (25_458, 3682, 59_305)
    assert period(data)[0] == "2010-10-16"
    assert period(data)[1].startswith("2016-")
    assert data.interactions.height - data.interactions.n_unique() == 874
    assert round(data.interactions["rating"].mean(), 2) == 0.88  # type: ignore[arg-type, call-overload]
    dated = load(Steam(missing_year=None))
    assert dated.interactions.height == 59_305 - 10_119
    assert period(dated) == ("2010-10-16", "2015-12-31")
    bare = pl.all_horizontal(pl.exclude("item_id", "item").is_null())
    unknown = data.items.with_row_index("item").filter(bare).select(pl.col("item").cast(pl.Int32))
    without_metadata = data.interactions.join(unknown, on="item", how="semi")
    assert (without_metadata.height, without_metadata["item"].n_unique()) == (5317, 487)


@pytest.mark.parametrize(
    ("config", "duplicates", "counts"),
    [
        (Steam(path="steam"), "exact", (2_416, 577, 15_324)),
        (Amazon(path="amazon-office-industrial", category="Office_Products"), "first", (385, 218, 2_342)),
        (Amazon(path="amazon-office-industrial", category="Industrial_and_Scientific"), "first", (275, 149, 1_744)),
    ],
    ids=["steam", "office", "industrial"],
)
def test_five_cores_of_the_small_sets(config: SourceConfig, duplicates: str, counts: tuple[int, int, int]) -> None:
    cleaning = {"user_core": 5, "item_core": 5, "missing_titles": "id", "duplicates": duplicates}
    assert sizes(clean(load(config), CleaningConfig.model_validate(cleaning))[0]) == counts
