"""RecBole atomic files: what is written is read back."""

from __future__ import annotations

import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandemrec.data.dataset import Dataset
from tandemrec.data.sources import RecBole, write_atomic
from tandemrec.errors import InputError


def test_reads_what_recbole_publishes(tmp_path: Path) -> None:
    (tmp_path / "ml.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t242\t3\t881250949\n196\t5\t4.5\t881250900.0\n"
    )
    (tmp_path / "ml.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:float\tclass:token_seq\tv:float_seq\n"
        '5\t"Quoted" Title\t1995\tComedy '
        "Sci-Fi\t1 2.5\n242\tKolya\t\t\t\n"
    )
    (tmp_path / "ml.user").write_text("user_id:token\tage:token\n196\t49\n")
    data = RecBole(path=tmp_path).load()
    assert data.name == "ml"
    assert data.interactions.rows() == [(0, 0, 4.5, 881250900), (0, 1, 3.0, 881250949)]
    assert data.items.rows() == [
        ("5", '"Quoted" Title', 1995.0, ["Comedy", "Sci-Fi"], [1.0, 2.5]),
        ("242", "Kolya", None, None, None),
    ]
    assert data.users.rows() == [("196", "49")]


def test_written_headers_are_typed(tmp_path: Path) -> None:
    data = Dataset.from_frames(
        pl.DataFrame({"user_id": [1], "item_id": [2], "rating": [3.5], "timestamp": [4]}),
        pl.DataFrame(
            {
                "item_id": [2],
                "title": ["A\tB"],
                "genres": [["Toys & Games", "x"]],
                "year": [1999],
                "v": [[1.5]],
                "w": ["q"],
            }
        ),
        name="toy",
    )
    write_atomic(data, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["toy.inter", "toy.item", "toy.user"]
    inter = (tmp_path / "out" / "toy.inter").read_text()
    assert inter == "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t2\t3.5\t4\n"
    assert (tmp_path / "out" / "toy.item").read_text() == (
        "item_id:token\ttitle:token_seq\tgenres:token_seq\tyear:float\tv:float_seq\tw:token\n"
        "2\tA B\tToys\u00a0&\u00a0Games x\t1999\t1.5\tq\n"
    )
    back = RecBole(path=tmp_path / "out").load()
    assert back.items["genres"].to_list() == [["Toys & Games", "x"]]


IDS = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters='"'), min_size=1, max_size=5)
TITLES = st.none() | st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=20).filter(
    lambda text: not text.startswith('"')
)
TOKENS = st.lists(st.text("abc &-'é", min_size=1, max_size=6), max_size=3)


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    rows = draw(
        st.lists(st.tuples(IDS, IDS, st.integers(0, 10) | st.none(), st.integers(0, 2**40)), min_size=1, max_size=15)
    )
    schema = {"user_id": pl.String, "item_id": pl.String, "rating": pl.Float64, "timestamp": pl.Int64}
    interactions = pl.DataFrame(rows, schema=schema, orient="row")
    if draw(st.booleans()) or interactions["rating"].null_count():
        interactions = interactions.drop("rating")
    items = interactions.select(pl.col("item_id").unique(maintain_order=True))
    count = items.height
    items = items.with_columns(
        title=pl.Series(draw(st.lists(TITLES, min_size=count, max_size=count)), dtype=pl.String),
        genres=pl.Series(draw(st.lists(TOKENS, min_size=count, max_size=count)), dtype=pl.List(pl.String)),
        price=pl.Series(
            draw(st.lists(st.none() | st.floats(0, 1e6), min_size=count, max_size=count)), dtype=pl.Float64
        ),
    )
    users = interactions.select(pl.col("user_id").unique(maintain_order=True)).with_columns(town=pl.lit("Ulm"))
    return Dataset.from_frames(interactions, items, users, name="x")


@settings(max_examples=60, deadline=None)
@given(data=datasets())
def test_round_trip(data: Dataset) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_atomic(data, Path(folder))
        back = RecBole(path=Path(folder)).load()
    assert back.interactions.equals(data.interactions)
    assert back.users.equals(data.users)
    assert back.items.select("item_id", "title", "price").equals(data.items.select("item_id", "title", "price"))
    genres = data.items["genres"].to_list()
    assert [lists or [] for lists in back.items["genres"].to_list()] == genres


def test_quotes_at_the_beginning_are_softened(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": [1], "item_id": [2]})
    write_atomic(Dataset.from_frames(frame, pl.DataFrame({"item_id": [2], "title": ['"A" B']})), tmp_path, name="q")
    assert RecBole(path=tmp_path).load().titles == ["''A\" B"]
    assert (tmp_path / "q.inter").read_text() == "user_id:token\titem_id:token\n1\t2\n"


def test_ids_that_cannot_be_written(tmp_path: Path) -> None:
    data = Dataset.from_frames(pl.DataFrame({"user_id": ["a\tb"], "item_id": ["1"]}))
    with pytest.raises(InputError, match=r"user_id 'a\\tb' cannot stand in an atomic file: it holds a tab"):
        write_atomic(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    good = Dataset.from_frames(pl.DataFrame({"user_id": ["a"], "item_id": ["1"]}))
    with pytest.raises(InputError, match="cannot be written"):
        write_atomic(good, tmp_path / "file")


@pytest.mark.parametrize(
    ("inter", "message"),
    [
        ("user_id\titem_id\n1\t2\n", r"line 1: found field 'user_id', expected NAME:TYPE"),
        ("user_id:token\titem_id:tokens\n1\t2\n", r"line 1: found field 'item_id:tokens'"),
        ("user_id:token\tmovie:token\n1\t2\n", r"line 1: no field 'item_id', found 'user_id, movie'"),
        ("user_id:token\titem_id:token\trating:float\n1\t2\tgood\n", r"line 2, column 'rating:float': found 'good'"),
        ("user_id:token\titem_id:token\ttimestamp:float\n1\t2\t-1\n", r"line 2, column 'timestamp:float': found '-1'"),
        ("user_id:token\titem_id:token\n1\n", r"line 2: found 1 fields, expected 2"),
    ],
)
def test_bad_files(tmp_path: Path, inter: str, message: str) -> None:
    (tmp_path / "d.inter").write_text(inter)
    with pytest.raises(InputError, match=message):
        RecBole(path=tmp_path).load()


def test_which_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.inter").write_text("user_id:token\titem_id:token\n1\t2\n")
    with pytest.raises(InputError, match=r"expected one file \*.inter or the key 'name', found a, b"):
        RecBole(path=tmp_path).check()
    assert RecBole(path=tmp_path, name="b").load().name == "b"
    with pytest.raises(InputError, match="needs the key 'path' or the key 'name'"):
        RecBole().check()
