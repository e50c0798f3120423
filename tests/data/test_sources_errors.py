"""Bad input: one sentence that names the place, never anything else than an `InputError`."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tandemrec.data.dataset import Dataset
from tandemrec.data.sources import Amazon, BookCrossing, ColumnMapping, MicroLens, MovieLens, RecBole, Steam, Table
from tandemrec.errors import InputError

RATINGS = b"userId,movieId,rating,timestamp\n1,10,4.0,100\n1,11,3.5,101\n2,10,5.0,102\n"
MOVIES = b"movieId,title,genres\n10,A (1999),Drama\n11,B,Drama\n"


def movielens(folder: Path, ratings: bytes = RATINGS, movies: bytes = MOVIES) -> Dataset:
    (folder / "ratings.csv").write_bytes(ratings)
    (folder / "movies.csv").write_bytes(movies)
    return MovieLens(edition="ml-25m", path=folder).load()


BAD_RATINGS = {
    "empty": (b"", r"ratings.csv is empty"),
    "only_line_ends": (b"\n\r\n", r"ratings.csv is empty"),
    "only_header": (RATINGS.splitlines()[0], r"line 1: found no rows"),
    "missing_column": (
        b"user,movieId,rating,timestamp\n1,2,3,4\n",
        r"line 1: no column 'userId', found 'user, movieId",
    ),
    "column_twice": (b"userId,userId,movieId,rating,timestamp\n1,1,2,3,4\n", r"column 'userId' 2 times"),
    "short_row": (RATINGS + b"3,10,4.0\n1,1,1,1\n", r"line 5: found 3 fields, expected 4 \(userId, movieId"),
    "short_first_row": (RATINGS[:32] + b"3,10\n" + RATINGS[32:], r"line 2: found 2 fields"),
    "long_row": (RATINGS + b"3,10,4.0,1,9\n", r"line 5: found 5 fields"),
    "empty_line": (RATINGS + b"\n3,10,4.0,1\n", r"line 5: found an empty line"),
    "text_rating": (
        RATINGS + b"3,10,good,1\n",
        r"line 5, column 'rating': found 'good', expected a number from 0.5 to 5",
    ),
    "nan_rating": (RATINGS + b"3,10,NaN,1\n", r"line 5, column 'rating': found 'NaN'"),
    "infinite_rating": (RATINGS + b"3,10,inf,1\n", r"line 5, column 'rating': found 'inf'"),
    "no_rating": (RATINGS + b"3,10,,1\n", r"line 5, column 'rating': found ''"),
    "high_rating": (RATINGS + b"3,10,5.5,1\n", r"line 5, column 'rating': found '5.5'"),
    "negative_time": (
        RATINGS + b"3,10,5,-1\n",
        r"line 5, column 'timestamp': found '-1', expected a whole number of at",
    ),
    "huge_time": (RATINGS + b"3,10,5,99999999999999999999\n", r"line 5, column 'timestamp'"),
    "fractional_time": (RATINGS + b"3,10,5,1.5\n", r"line 5, column 'timestamp': found '1.5'"),
    "no_user": (RATINGS + b",10,5,1\n", r"line 5, column 'userId': found ''"),
    "quoted_empty_user": (RATINGS + b'"",10,5,1\n', r"line 5, column 'userId': found ''"),
    "bad_encoding": (RATINGS + b"\xff\xfe,10,5,1\n", r"line 5: byte 1 \(0xff\) is not UTF-8"),
    "open_quote": (RATINGS + b'3,"10,5,1\n4,10,5,1\n', r"line 5: .*expected 4 fields|line 5: found"),
    "latin_header": (b"userId,movieId,rating,timestamp\xe9\n1,2,3,4\n", r"line 1: byte 32 is not UTF-8"),
}


@pytest.mark.parametrize("case", BAD_RATINGS)
def test_bad_csv(tmp_path: Path, case: str) -> None:
    data, message = BAD_RATINGS[case]
    with pytest.raises(InputError, match=message) as caught:
        movielens(tmp_path, data)
    assert str(tmp_path / "ratings.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_line_numbers_count_line_ends_inside_quotes(tmp_path: Path) -> None:
    movies = b'movieId,title,genres\n10,"A\nlong\ntitle",Drama\n11,B\n'
    with pytest.raises(InputError, match=r"movies.csv, line 5: found 2 fields"):
        movielens(tmp_path, movies=movies)


def test_good_edge_cases(tmp_path: Path) -> None:
    bom = b"\xef\xbb\xbf" + RATINGS.replace(b"\n", b"\r\n") + b"\r\n\r\n"
    assert movielens(tmp_path, bom).fingerprint == movielens(tmp_path).fingerprint
    assert movielens(tmp_path, RATINGS.rstrip()).fingerprint == movielens(tmp_path).fingerprint


def test_missing_file_and_folder(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_bytes(RATINGS)
    source = MovieLens(edition="ml-25m", path=tmp_path)
    with pytest.raises(InputError, match=r"no file movies.csv \(or with .gz\), found ratings.csv"):
        source.check()
    with pytest.raises(InputError, match="data set 'nowhere' not found"):
        MovieLens(edition="ml-25m", path=tmp_path / "nowhere").check()


@pytest.mark.parametrize("cut", [1, 9, 20, 30])
def test_truncated_gzip(tmp_path: Path, cut: int) -> None:
    whole = gzip.compress(RATINGS * 3)
    (tmp_path / "ratings.csv.gz").write_bytes(whole[:-cut])
    (tmp_path / "movies.csv").write_bytes(MOVIES)
    with pytest.raises(InputError, match=r"ratings.csv.gz is (truncated|no intact gzip file)"):
        MovieLens(edition="ml-25m", path=tmp_path).load()


def test_gzip_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv.gz").write_bytes(RATINGS)
    (tmp_path / "movies.csv").write_bytes(MOVIES)
    with pytest.raises(InputError, match=r"ratings.csv.gz is no intact gzip file"):
        MovieLens(edition="ml-25m", path=tmp_path).load()


REVIEW = b'{"reviewerID": "A", "asin": "B", "overall": 5.0, "unixReviewTime": 100}\n'
META = b'{"asin": "B", "title": "t"}\n'


def amazon(folder: Path, reviews: bytes = REVIEW, meta: bytes = META) -> Dataset:
    (folder / "X.json").write_bytes(reviews)
    (folder / "meta_X.json").write_bytes(meta)
    return Amazon(path=folder).load()


BAD_REVIEWS = {
    "empty": (b"", r"X.json is empty"),
    "blank": (b"\n \n", r"X.json holds no rows"),
    "no_json": (REVIEW + b"{'reviewerID': 'A'}\n", r"line 2, column 2: .*expected one JSON object a line"),
    "cut_line": (REVIEW + REVIEW[:30], r"line 2, column \d+: "),
    "no_object": (REVIEW + b"[1, 2]\n", r"line 2: found \[1, 2\], expected a JSON object"),
    "missing_key": (REVIEW + b'{"reviewerID": "A", "asin": "B", "overall": 5.0}\n', r"line 2: no key 'unixReviewTime'"),
    "null": (REVIEW + REVIEW.replace(b'"A"', b"null"), r"line 2, column 'reviewerID': found None, expected a text"),
    "nan": (REVIEW + REVIEW.replace(b"5.0", b"NaN"), r"line 2, column 'overall': found nan"),
    "out_of_range": (
        REVIEW + REVIEW.replace(b"5.0", b"7"),
        r"line 2, column 'overall': found 7, expected a number from",
    ),
    "boolean": (REVIEW + REVIEW.replace(b"5.0", b"true"), r"line 2, column 'overall': found True"),
    "negative": (REVIEW + REVIEW.replace(b"100", b"-5"), r"line 2, column 'unixReviewTime': found -5"),
    "fraction": (REVIEW + REVIEW.replace(b"100", b"1.5"), r"line 2, column 'unixReviewTime': found 1.5"),
    "huge": (REVIEW + REVIEW.replace(b"100", b"1e300"), r"line 2, column 'unixReviewTime'"),
    "encoding": (REVIEW + REVIEW.replace(b'"A"', b'"\xff"'), r"line 2: byte \d+ \(0xff\) is not UTF-8"),
    "surrogate": (REVIEW + REVIEW.replace(b'"A"', b'"\\ud800"'), r"line 2, column 'reviewerID'"),
    "deep": (b"[" * 100_000, r"line 1: "),
}


@pytest.mark.parametrize("case", BAD_REVIEWS)
def test_bad_json_lines(tmp_path: Path, case: str) -> None:
    data, message = BAD_REVIEWS[case]
    with pytest.raises(InputError, match=message) as caught:
        amazon(tmp_path, data)
    assert "\n" not in str(caught.value)


def test_json_numbers_may_be_texts(tmp_path: Path) -> None:
    texts = REVIEW.replace(b"5.0", b'"5"').replace(b"100", b'"100"') + REVIEW.replace(b"100", b"100.0")
    data = amazon(tmp_path, texts)
    assert data.interactions["rating"].to_list() == [5, 5]
    assert data.interactions["timestamp"].to_list() == [100, 100]


def test_blocks_of_lines_keep_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tandemrec.data.sources import files

    monkeypatch.setattr(files.line_blocks, "__defaults__", (50,))
    assert amazon(tmp_path, REVIEW * 40 + b"\n").interactions.height == 40
    with pytest.raises(InputError, match="line 31, column 'overall'"):
        amazon(tmp_path, REVIEW * 30 + REVIEW.replace(b"5.0", b"9") + REVIEW)


def test_compressed_without_the_ending(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"X.json is compressed although its name does not end in .gz"):
        amazon(tmp_path, gzip.compress(REVIEW))
    with pytest.raises(InputError, match=r"ratings.csv is compressed although"):
        movielens(tmp_path, gzip.compress(RATINGS))


def one_file(name: str, others: dict[str, bytes], load: Callable[[Path], object]) -> Callable[[bytes], None]:
    """Put garbage into one file of a data set: loading may work, or fail with `InputError`."""

    def attempt(garbage: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for other, data in others.items():
                (Path(folder) / other).write_bytes(data)
            (Path(folder) / name).write_bytes(garbage)
            try:
                load(Path(folder))
            except InputError as error:
                assert str(error)

    return attempt


TABLE_MAPPING = ColumnMapping(user="u", item="i")
PARSERS = {
    "100k": one_file(
        "u.data",
        {"u.item": b"1|T|||" + b"|0" * 19 + b"\n", "u.user": b"1|2|M|x|9\n"},
        lambda p: MovieLens(edition="ml-100k", path=p).load(),
    ),
    "1m": one_file(
        "movies.dat",
        {"ratings.dat": b"1::1::5::9\n", "users.dat": b"1::F::1::10::48067\n"},
        lambda p: MovieLens(edition="ml-1m", path=p).load(),
    ),
    "25m": one_file("ratings.csv", {"movies.csv": MOVIES}, lambda p: MovieLens(edition="ml-25m", path=p).load()),
    "25m-gz": one_file("ratings.csv.gz", {"movies.csv": MOVIES}, lambda p: MovieLens(edition="ml-25m", path=p).load()),
    "book-crossing": one_file(
        "BX-Books.csv",
        {
            "BX-Book-Ratings.csv": b'"User-ID";"ISBN";"Book-Rating"\n"1";"2";"3"\n',
            "BX-Users.csv": b"User-ID;Location;Age\n1;a;2\n",
        },
        lambda p: BookCrossing(path=p).load(),
    ),
    "reviews": one_file("X.json", {"meta_X.json": META}, lambda p: Amazon(path=p).load()),
    "loose": one_file("meta_X.json", {"reviews_X.json": REVIEW}, lambda p: Amazon(edition="2014", path=p).load()),
    "microlens": one_file("M_pairs.csv", {"M_titles.csv": b"item,title\n1,a\n"}, lambda p: MicroLens(path=p).load()),
    "steam": one_file(
        "australian_user_reviews.json", {"steam_games.json": b'{"id": "1"}\n'}, lambda p: Steam(path=p).load()
    ),
    "recbole": one_file("d.inter", {}, lambda p: RecBole(path=p).load()),
    "recbole-items": one_file(
        "d.item", {"d.inter": b"user_id:token\titem_id:token\n1\t2\n"}, lambda p: RecBole(path=p).load()
    ),
    "csv": one_file("d.csv", {}, lambda p: Table(path=p, interactions=Path("d.csv"), columns=TABLE_MAPPING).load()),
    "iso": one_file(
        "d.csv",
        {},
        lambda p: Table(path=p, interactions=Path("d.csv"), columns=TABLE_MAPPING, time_format="iso").load(),
    ),
    "jsonl": one_file(
        "d.jsonl", {}, lambda p: Table(path=p, interactions=Path("d.jsonl"), columns=TABLE_MAPPING).load()
    ),
    "parquet": one_file(
        "d.parquet", {}, lambda p: Table(path=p, interactions=Path("d.parquet"), columns=TABLE_MAPPING).load()
    ),
    "items-jsonl": one_file(
        "i.jsonl",
        {"d.csv": b"u,i\n1,2\n"},
        lambda p: Table(path=p, interactions=Path("d.csv"), items=Path("i.jsonl"), columns=TABLE_MAPPING).load(),
    ),
}
HEADERS = [
    b"",
    b"userId,movieId,rating,timestamp\n",
    b"ISBN;Book-Title;Book-Author;Year-Of-Publication;Publisher\n",
    b"user,item,timestamp\n",
    b"u,i,rating,timestamp\n",
    b"user_id:token\titem_id:token\trating:float\n",
    b"item_id:token\ttitle:token_seq\tx:float_seq\n",
    b"\x1f\x8b\x08\x00",
    b"PAR1",
]
BYTES = [
    b",",
    b";",
    b"\t",
    b"|",
    b"::",
    b'"',
    b"\\",
    b"\n",
    b"\r\n",
    b"\r",
    b"1",
    b"-1",
    b"5",
    b"nan",
    b"1e9",
    b"\xff",
    b"\x00",
]
JSON = [
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b"null",
        b'{"u": 1, "i": "x"}\n',
        b"{'asin': 'B', 'title': (1,)}\n",
        b"\xc3\xa9",
        b" ",
    ),
    *(b'{"user_id": "a", "reviews": [{}]}\n', b'{"asin": {"a": 1}, "title": [1], "overall": 1e999}\n', b"2020-01-01"),
]
PIECES = st.sampled_from([*BYTES, *JSON])
GARBAGE = st.builds(
    lambda head, parts: head + b"".join(parts),
    st.sampled_from(HEADERS),
    st.lists(PIECES | st.binary(max_size=8), max_size=25),
)


@pytest.mark.parametrize("parser", PARSERS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(garbage=GARBAGE)
def test_garbage_is_refused_or_read(parser: str, garbage: bytes) -> None:
    PARSERS[parser](garbage)
