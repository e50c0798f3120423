"""Every published layout, in files of a few lines."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tandemrec.data.dataset import Dataset
from tandemrec.data.sources import Amazon, BookCrossing, MicroLens, MovieLens, Steam
from tandemrec.errors import InputError


def write(folder: Path, files: dict[str, str], encoding: str = "utf-8") -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    for name, text in files.items():
        data = text.encode(encoding)
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder


def decoded(dataset: Dataset) -> list[tuple[Any, ...]]:
    """user_id, item_id, rating, timestamp in the order of the dataset."""
    rows = dataset.interactions
    users, items = dataset.users["user_id"].gather(rows["user"]), dataset.items["item_id"].gather(rows["item"])
    return list(zip(users, items, rows["rating"], rows["timestamp"], strict=True))


def item(dataset: Dataset, item_id: str) -> dict[str, Any]:
    return dataset.items.row(by_predicate=pl.col("item_id") == item_id, named=True)


def test_movielens_csv(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "ratings.csv.gz": "userId,movieId,rating,timestamp\r\n2,10,3.5,1147880044\r\n1,296,5.0,1147880045\r\n",
            "movies.csv": "movieId,title,genres\r\n"
            '10,"American President, The (1995)",Comedy|Drama\r\n'
            "11,No year,(no genres listed)\r\n"
            '12,"Say ""when"" (2005–2007)",Drama\r\n',
            "tags.csv": "this file is not read",
        },
    )
    data = MovieLens(edition="ml-25m", path=tmp_path).load()
    assert decoded(data) == [("1", "296", 5.0, 1147880045), ("2", "10", 3.5, 1147880044)]
    assert data.name == "ml-25m"
    assert item(data, "10") == {
        "item_id": "10",
        "title": "American President, The (1995)",
        "genres": ["Comedy", "Drama"],
        "year": 1995,
    }
    assert item(data, "11")["genres"] == []
    assert item(data, "11")["year"] is None
    assert item(data, "12")["title"] == 'Say "when" (2005–2007)'
    assert item(data, "12")["year"] == 2005
    assert item(data, "296")["title"] is None


def test_movielens_10m(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "ratings.dat": "1::122::4.5::838985046\n1::185::5::838983525\n",
            "movies.dat": "122::Amélie (2001)::Comedy|Romance\n185::Net, The (1995)::Action\n",
        },
    )
    data = MovieLens(edition="ml-10m", path=tmp_path).load()
    assert decoded(data) == [("1", "185", 5.0, 838983525), ("1", "122", 4.5, 838985046)]
    assert data.titles == ["Amélie (2001)", "Net, The (1995)"]


BOOKS = (
    '"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher";"Image-URL-S";"Image-URL-M";"Image-URL-L"\r\n'
    '"0140620494";"Les Mis\xe9rables; \\"abridged\\"";"Victor Hugo";"1994";"Penguin &amp; Co";"http://s";"http://m";"http://l"\r\n'
    '"0425176428";"Back\\\\slash";NULL;"0";"X";"http://s";"http://m";"http://l"\r\n'
)
USERS = '"User-ID";"Location";"Age"\r\n"1";"nyc, new york, usa";NULL\r\n"2";"";"18"\r\n'
RATINGS = '"User-ID";"ISBN";"Book-Rating"\r\n"1";"0140620494";"0"\r\n"1";"0425176428";"5"\r\n"2";"0140620494";"9"\r\n'


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    files = {"BX-Books.csv": BOOKS, "BX-Users.csv.gz": USERS, "BX-Book-Ratings.csv": RATINGS}
    return write(tmp_path / "bx", files, "iso-8859-1")


def test_book_crossing_dump(dump: Path) -> None:
    data = BookCrossing(path=dump).load()
    assert decoded(data) == [("1", "0425176428", 5.0, 0), ("2", "0140620494", 9.0, 0)]
    assert data.clock == "none"
    assert item(data, "0140620494")["title"] == 'Les Misérables; "abridged"'
    assert item(data, "0140620494")["publisher"] == "Penguin &amp; Co"
    assert item(data, "0425176428")["title"] == "Back\\slash"
    assert item(data, "0425176428")["author"] is None
    assert item(data, "0425176428")["year"] is None
    assert data.users.rows() == [("1", "nyc, new york, usa", None), ("2", None, 18)]


def test_book_crossing_implicit_and_order(dump: Path) -> None:
    data = BookCrossing(path=dump, keep_implicit=True, order_seed=0).load()
    assert data.clock == "order"
    assert sorted(row[:3] for row in decoded(data) if row[2] is not None) == [
        ("1", "0425176428", 5.0),
        ("2", "0140620494", 9.0),
    ]
    assert [row[3] for row in decoded(data)] == [0, 1, 0]
    assert data.interactions["rating"].null_count() == 1
    orders = {
        tuple(row[1] for row in decoded(BookCrossing(path=dump, keep_implicit=True, order_seed=seed).load())[:2])
        for seed in range(10)
    }
    assert len(orders) == 2
    again = BookCrossing(path=dump, keep_implicit=True, order_seed=3).load()
    assert again.fingerprint == BookCrossing(path=dump, keep_implicit=True, order_seed=3).load().fingerprint


META_2014 = (
    "{'asin': '0001048791', 'salesRank': {'Books': 6334800}, 'imUrl': 'http:\\/\\/x', 'price': 12.99, "
    "'categories': [['Books', 'Audio'], ['Books', 'Prize']], 'title': \"The Crucible: Performed by Stuart Pankin\"}\n"
    "{'asin': '0000143561', 'categories': [['Movies']], 'description': '3Pack DVD', 'brand': '', 'price': '$3.00'}\n"
)


def test_amazon_2014(tmp_path: Path) -> None:
    reviews = (
        '{"reviewerID": "A10", "asin": "0001048791", "reviewerName": "J", "helpful": [0, 0], "reviewText": "\\u00e9", '
        '"overall": 5.0, "summary": "s", "unixReviewTime": 1252800000, "reviewTime": "09 13, 2009"}\n'
        '{"reviewerID": "A11", "asin": "0000143561", "overall": 2.0, "unixReviewTime": 1252800001}\n'
    )
    write(tmp_path, {"reviews_Books_5.json.gz": reviews, "meta_Books.json.gz": META_2014})
    data = Amazon(edition="2014", path=tmp_path).load()
    assert decoded(data) == [("A10", "0001048791", 5.0, 1252800000), ("A11", "0000143561", 2.0, 1252800001)]
    assert data.clock == "seconds"
    crucible = item(data, "0001048791")
    assert crucible["title"] == "The Crucible: Performed by Stuart Pankin"
    assert crucible["categories"] == ["Books", "Audio", "Prize"]
    assert crucible["price"] == 12.99
    assert item(data, "0000143561")["title"] is None
    assert item(data, "0000143561")["price"] == 3.0


def test_amazon_2014_ratings_only(tmp_path: Path) -> None:
    write(tmp_path, {"ratings_Books.csv": "A10,0001048791,5.0,1252800000\n", "meta_Books.json": META_2014})
    data = Amazon(edition="2014", path=tmp_path, category="Books").load()
    assert decoded(data) == [("A10", "0001048791", 5.0, 1252800000)]
    assert data.name == "amazon-2014-books"


META_2018 = (
    '{"category": ["Gift &amp; Cards"], "description": ["One. Two.", "", "One. Two."], "title": "<span class=\\"a\\"", '
    '"brand": "Amazon", "rank": [], "main_cat": "Gift Cards", "price": "$1,025.00", "asin": "B01", "x": {"a": 1}}\n'
    '{"category": [], "description": [], "title": "Card", "brand": "", "price": ".a-box{color}", "asin": "B02"}\n'
    '{"category": [], "description": [], "title": "Card, later", "brand": "", "asin": "B02"}\n'
)


def test_amazon_2018(tmp_path: Path) -> None:
    reviews = (
        '{"overall": 5.0, "vote": "2", "reviewTime": "12 19, 2008", "reviewerID": "A1", "asin": "B01", '
        '"style": {"Gift Amount:": " 50"}, "reviewText": "t", "unixReviewTime": 1229644800}\n\n'
        '{"overall": 1.0, "reviewerID": "A1", "asin": "B02", "unixReviewTime": 1229644800}\n'
    )
    write(tmp_path, {"Gift_Cards.json.gz": reviews, "meta_Gift_Cards.json.gz": META_2018})
    data = Amazon(path=tmp_path).load()
    assert decoded(data) == [("A1", "B01", 5.0, 1229644800), ("A1", "B02", 1.0, 1229644800)]
    assert item(data, "B01") == {
        "item_id": "B01",
        "title": None,
        "brand": "Amazon",
        "categories": ["Gift &amp; Cards"],
        "main_category": "Gift Cards",
        "description": "One. Two.",
        "price": 1025.0,
    }
    assert item(data, "B02")["title"] == "Card"
    assert item(data, "B02")["price"] is None
    described = Amazon(path=tmp_path, title_from=("title", "description", "brand")).load()
    assert item(described, "B01")["title"] == "One."


def test_amazon_2018_ratings_only_and_choice_of_reviews(tmp_path: Path) -> None:
    files = {"Gift_Cards.csv": "B01,A1,5.0,1229644800\n", "Gift_Cards_5.json": "{}", "meta_Gift_Cards.json": META_2018}
    write(tmp_path, files)
    with pytest.raises(InputError, match=r"Gift_Cards.csv, Gift_Cards_5.json.*key 'reviews'"):
        Amazon(path=tmp_path).load()
    data = Amazon(path=tmp_path, reviews="Gift_Cards.csv").load()
    assert decoded(data) == [("A1", "B01", 5.0, 1229644800)]
    bare = Amazon(path=tmp_path, category="Gift_Cards", reviews="Gift_Cards.csv", metadata=False).load()
    assert bare.items.columns == ["item_id", "title"]


META_2023 = (
    '{"main_category": "All Beauty", "title": "Spray", "average_rating": 4.8, "features": [], "description": ["d"], '
    '"price": "None", "images": [{"thumb": "u"}], "videos": [], "store": "Howard", "categories": ["A", "B"], '
    '"details": {"Color": "x"}, "parent_asin": "P1", "bought_together": null}\n'
    '{"main_category": null, "title": "Free", "description": [], "price": 24.99, "store": null, "categories": [], '
    '"parent_asin": "P2"}\n'
)


def test_amazon_2023(tmp_path: Path) -> None:
    reviews = (
        '{"rating": 5.0, "title": "Such a scent", "text": "x", "images": [], "asin": "V1", "parent_asin": "P1", '
        '"user_id": "U1", "timestamp": 1588687728923, "helpful_vote": 0, "verified_purchase": true}\n'
    )
    write(tmp_path, {"All_Beauty.jsonl.gz": reviews, "meta_All_Beauty.jsonl.gz": META_2023})
    data = Amazon(edition="2023", path=tmp_path).load()
    assert decoded(data) == [("U1", "P1", 5.0, 1588687728923)]
    assert data.clock == "milliseconds"
    assert item(data, "P1")["brand"] == "Howard"
    assert item(data, "P1")["price"] is None
    assert item(data, "P2")["price"] == 24.99


def test_amazon_2023_ratings_only(tmp_path: Path) -> None:
    ratings = "user_id,parent_asin,rating,timestamp\nU1,P1,5.0,1588687728923\n"
    write(tmp_path, {"All_Beauty.csv.gz": ratings, "meta_All_Beauty.jsonl": META_2023})
    assert decoded(Amazon(edition="2023", path=tmp_path).load()) == [("U1", "P1", 5.0, 1588687728923)]


def test_amazon_needs_to_know_which_category(tmp_path: Path) -> None:
    write(tmp_path, {"meta_A.json": META_2018, "meta_B.json": META_2018})
    with pytest.raises(InputError, match=r"key 'category', found those of A, B"):
        Amazon(path=tmp_path).check()
    with pytest.raises(InputError, match="key 'path' or the key 'category'"):
        Amazon().check()


def test_microlens_with_times(tmp_path: Path) -> None:
    pairs = "user,item,timestamp\n1,20,1662984066555\n1,10,1662984066000\n"
    write(tmp_path, {"MicroLens-50k_pairs.csv": pairs, "MicroLens-50k_titles.csv": 'item,title\n10,"a, b"\n20,\n'})
    data = MicroLens(path=tmp_path).load()
    assert decoded(data) == [("1", "10", None, 1662984066000), ("1", "20", None, 1662984066555)]
    assert data.clock == "milliseconds"
    assert data.items["title"].to_list() == ["a, b", None]


GAMES = (
    "{u'publisher': u'Valve', u'genres': [u'Action'], u'app_name': u'CS', u'id': u'10', u'price': u'Free to Play'}\n"
    "{u'app_name': u'No id', u'price': 4.99}\n"
)


def test_steam_version_1_as_published(tmp_path: Path) -> None:
    reviews = (
        "{'user_id': 'u1', 'user_url': 'x', 'reviews': [{'funny': '', 'posted': 'Posted November 5, 2011.', "
        "'item_id': '10', 'recommend': True, 'review': \"it's\"}, "
        "{'posted': 'Posted July 3.', 'item_id': '20', 'recommend': False}]}\n"
        "{'user_id': 'u2', 'reviews': []}\n"
    )
    write(tmp_path, {"australian_user_reviews.json.gz": reviews, "steam_games.json.gz": GAMES})
    data = Steam(path=tmp_path).load()
    assert decoded(data) == [("u1", "10", 1.0, 1320451200), ("u1", "20", 0.0, 1467504000)]
    assert item(data, "10") == {
        "item_id": "10",
        "title": "CS",
        "developer": None,
        "publisher": "Valve",
        "release_date": None,
        "price": 0.0,
        "genres": ["Action"],
        "tags": None,
        "specs": None,
    }


def test_steam_version_2(tmp_path: Path) -> None:
    reviews = "{u'username': u'Chaos', u'hours': u'0.1', u'product_id': u'10', u'date': u'2017-12-17', u'text': u'x'}\n"
    write(tmp_path, {"steam_reviews.json.gz": reviews, "steam_games.json": GAMES})
    assert decoded(Steam(path=tmp_path).load()) == [("Chaos", "10", 1.0, 1513468800)]


@pytest.mark.parametrize(
    ("posted", "missing_year", "rows"),
    [("Posted July 3.", 2015, 2), ("Posted July 3.", None, 1), ("Posted February 29.", 2016, 2)],
)
def test_steam_missing_year(tmp_path: Path, posted: str, missing_year: int | None, rows: int) -> None:
    reviews = f'user_id,item_id,posted,recommend\nu,1,"Posted May 1, 2012.",True\nu,2,{posted},True\n'
    write(tmp_path, {"user_reviews.csv": reviews, "steam_games.json": GAMES})
    assert Steam(path=tmp_path, missing_year=missing_year).load().interactions.height == rows


@pytest.mark.parametrize("posted", ["Posted Juli 3.", "yesterday", "Posted February 29.", "Posted May 32, 2011."])
def test_steam_wrong_date(tmp_path: Path, posted: str) -> None:
    reviews = f'user_id,item_id,posted,recommend\nu,1,"Posted May 1, 2012.",True\nu,2,"{posted}",True\n'
    write(tmp_path, {"user_reviews.csv": reviews, "steam_games.json": GAMES})
    with pytest.raises(InputError, match=r"user_reviews.csv, line 3, column 'posted': found 'P?.*expected a date"):
        Steam(path=tmp_path, missing_year=2015).load()
