"""Any table, in files and in memory."""

from __future__ import annotations

import gzip
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import TypeAdapter, ValidationError

from tandemrec.data.dataset import Dataset
from tandemrec.data.sources import ColumnMapping, SourceConfig, Table, TableOptions, dataset_from_frames, load_dataset
from tandemrec.errors import InputError

EVENTS = pl.DataFrame(
    {
        "who": ["b", "a", "a"],
        "sku": [10, 9, 10],
        "stars": [1.0, 2.5, 5.0],
        "at": [30, 20, 10],
        "fold": ["test", "valid", "train"],
        "noise": ["x", "y", "z"],
    }
)
GOODS = pl.DataFrame({"sku": [9, 10, 11], "label": ["nine, 9", "ten", None], "colour": ["red", "blue", "red"]})
PEOPLE = pl.DataFrame({"who": ["a", "b"], "town": ["Ulm", "Rom"]})
MAPPING = ColumnMapping(user="who", item="sku", rating="stars", timestamp="at", split="fold", title="label")


def check(data: Dataset) -> None:
    assert data.interactions.select("user", "item", "rating", "timestamp", "split").rows() == [
        (0, 1, 5.0, 10, "train"),
        (0, 0, 2.5, 20, "valid"),
        (1, 1, 1.0, 30, "test"),
    ]
    assert data.items.rows() == [("9", "nine, 9", "red"), ("10", "ten", "blue"), ("11", None, "red")]
    assert data.items.columns == ["item_id", "title", "colour"]
    assert data.users.rows() == [("a", "Ulm"), ("b", "Rom")]


def save(frame: pl.DataFrame, path: Path) -> None:
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    match plain.suffix:
        case ".csv":
            frame.write_csv(plain)
        case ".tsv" | ".txt":
            frame.write_csv(plain, separator="\t")
        case ".parquet":
            frame.write_parquet(plain)
        case _:
            frame.write_ndjson(plain)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "tsv", "tsv.gz", "parquet", "jsonl", "json.gz", "ndjson"])
def test_files(tmp_path: Path, ending: str) -> None:
    for name, frame in (("events", EVENTS), ("goods", GOODS), ("people", PEOPLE)):
        save(frame, tmp_path / f"{name}.{ending}")
    tree = {
        "format": "table",
        "path": str(tmp_path),
        "interactions": f"events.{ending}",
        "items": f"goods.{ending}",
        "users": f"people.{ending}",
        "columns": MAPPING.model_dump(),
    }
    config = TypeAdapter(SourceConfig).validate_python(tree)
    config.check()
    assert [path.name for path in config.files()] == [f"{name}.{ending}" for name in ("events", "goods", "people")]
    data = load_dataset(config)
    check(data)
    assert data.name == "events"


def test_separator_and_encoding(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_bytes("user_id;item_id\nJosé;1\n".encode("latin-1"))
    data = Table(path=tmp_path, interactions=Path("e.csv"), separator=";", encoding="iso-8859-1").load()
    assert data.users["user_id"].to_list() == ["José"]
    assert data.clock == "none"


def test_relative_files_without_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "e.csv").write_text("user_id,item_id\n1,2\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TANDEMREC_DATA", str(tmp_path / "none"))
    assert Table(interactions=Path("e.csv")).load().interactions.height == 1
    with pytest.raises(InputError, match=r"there is no file .*none/f.csv or .*f.csv"):
        Table(interactions=Path("f.csv")).check()
    with pytest.raises(InputError, match=r"e.xlsx: unknown kind of file, expected one that ends in .csv"):
        (tmp_path / "e.xlsx").write_text("x")
        Table(interactions=Path("e.xlsx")).load()


def test_polars_pandas_and_arrow_frames_agree() -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    options = TableOptions(columns=MAPPING)
    frames = (EVENTS, GOODS, PEOPLE)
    check(dataset_from_frames(*frames, options))
    check(dataset_from_frames(*(frame.to_pandas() for frame in frames), options))
    check(dataset_from_frames(*(frame.to_arrow() for frame in frames), options))
    check(dataset_from_frames(*(frame.lazy() for frame in frames), options))


def test_whole_numbers_that_pandas_made_floats_stay_ids() -> None:
    data = dataset_from_frames(pl.DataFrame({"user_id": [1.0, 2.0], "item_id": [7.0, 8.0]}))
    assert data.users["user_id"].to_list() == ["1", "2"]


@pytest.mark.parametrize(
    ("values", "clock", "time_format", "expected"),
    [
        ([5, 0], "seconds", None, [0, 5]),
        ([5.0, 0.0], "seconds", None, [0, 5]),
        ([date(1970, 1, 2), date(1970, 1, 1)], "seconds", None, [0, 86400]),
        ([datetime(1970, 1, 1, 1), datetime(1970, 1, 1)], "milliseconds", None, [0, 3_600_000]),
        (["1970-01-01T01:00:00Z", "1970-01-01"], "seconds", "iso", [0, 3600]),
        (["1970-01-01 02:00+01:00", "1970-01-01T00:00:00.250"], "milliseconds", "iso", [250, 3_600_000]),
        (["1970-01-01T05:30:01.5+0530", "1970-01-01T00:00"], "seconds", "iso", [0, 1]),
        (["02.01.1970", "01.01.1970"], "seconds", "%d.%m.%Y", [0, 86400]),
        (["01/01/1970 00:01", "01/01/1970 00:00"], "seconds", "%d/%m/%Y %H:%M", [0, 60]),
        (["01/01/1970 01:00:00 +0100", "01/01/1970 00:00:05 +0000"], "seconds", "%d/%m/%Y %H:%M:%S %z", [0, 5]),
    ],
)
def test_times(values: list[Any], clock: Any, time_format: str | None, expected: list[int]) -> None:
    frame = pl.DataFrame({"user_id": [1, 1], "item_id": [1, 2], "timestamp": values})
    options = TableOptions(clock=clock, time_format=time_format)
    assert dataset_from_frames(frame, options=options).interactions["timestamp"].to_list() == expected


def test_times_in_a_zone_are_turned_into_utc() -> None:
    times = (
        pl.Series("timestamp", [datetime(1970, 1, 1)]).dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo")
    )
    frame = pl.DataFrame({"user_id": [1], "item_id": [1]}).with_columns(times)
    assert dataset_from_frames(frame).interactions["timestamp"].to_list() == [0]


def test_clock_none_leaves_times_out() -> None:
    frame = pl.DataFrame({"user_id": [1], "item_id": [1], "timestamp": ["whenever"]})
    assert dataset_from_frames(frame, options=TableOptions(clock="none")).clock == "none"


BASE = {"user_id": ["u", "v"], "item_id": ["i", "j"], "rating": [1.0, 2.0], "timestamp": [1, 2]}


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"user_id": None}, {}, "interactions: no column 'user_id', found"),
        ({"user_id": ["u", None]}, {}, "interactions, row 2: column 'user_id' is empty"),
        ({"item_id": ["", "j"]}, {}, "interactions, row 1: column 'item_id' is empty"),
        ({"item_id": [["a"], ["b"]]}, {}, r"column 'item_id' holds List\(String\), expected texts or numbers"),
        (
            {"rating": [1.0, float("nan")]},
            {},
            "interactions, row 2: column 'rating' holds nan, expected a finite number",
        ),
        ({"rating": [None, 1.0]}, {}, "interactions, row 1: column 'rating' holds None"),
        ({"rating": ["3", "good"]}, {}, "interactions, row 2: column 'rating' holds 'good'"),
        ({"rating": [1, 9]}, {"rating_range": (1, 5)}, "row 2: column 'rating' holds 9, expected a number from 1 to 5"),
        ({"timestamp": [1, -2]}, {}, "row 2: column 'timestamp' holds -2, expected a whole number of at least 0"),
        ({"timestamp": [1.5, 2.0]}, {}, "row 1: column 'timestamp' holds 1.5"),
        ({"timestamp": [1, None]}, {}, "row 2: column 'timestamp' holds None"),
        (
            {"timestamp": ["1970-01-01", "01.01.1970"]},
            {"time_format": "iso"},
            "row 2: .*expected a time in the format iso",
        ),
        ({"timestamp": ["1", "2"]}, {"time_format": "%d%d%Q"}, r"time_format '%d%d%Q'|row 1: column 'timestamp'"),
        ({"timestamp": ["1969-12-31", "1970-01-01"]}, {"time_format": "iso"}, "row 1: column 'timestamp' holds '1969"),
    ],
)
def test_bad_frames(change: dict[str, Any], options: dict[str, Any], message: str) -> None:
    columns = {name: values for name, values in (BASE | change).items() if values is not None}
    with pytest.raises(InputError, match=message):
        dataset_from_frames(pl.DataFrame(columns, strict=False), options=TableOptions(**options))


def test_named_columns_must_be_there() -> None:
    with pytest.raises(InputError, match="interactions: no column 'stars'"):
        dataset_from_frames(pl.DataFrame(BASE), options=TableOptions(columns=ColumnMapping(rating="stars")))
    with pytest.raises(InputError, match="items: no column 'label'"):
        options = TableOptions(columns=ColumnMapping(title="label"))
        dataset_from_frames(pl.DataFrame(BASE), pl.DataFrame({"item_id": ["i"]}), options=options)
    with pytest.raises(InputError, match="interactions: found list, expected a polars, pandas or Arrow table"):
        dataset_from_frames([1, 2])
    with pytest.raises(InputError, match="interactions: found no rows"):
        dataset_from_frames(pl.DataFrame(BASE).clear())


def test_bad_files_name_the_line(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text('user_id,item_id,rating,timestamp\n"a\nb",1,3,1970-01-01\nc,2,4,yesterday\n')
    with pytest.raises(InputError, match=r"e.csv, line 4: column 'timestamp' holds 'yesterday'"):
        Table(path=tmp_path, interactions=Path("e.csv"), time_format="iso").load()
    (tmp_path / "e.csv").write_text("user_id,item_id,rating\na,1,3\nc,2,11\n")
    with pytest.raises(InputError, match=r"e.csv, line 3, column 'rating': found '11', expected a number from 1 to 10"):
        Table(path=tmp_path, interactions=Path("e.csv"), rating_range=(1, 10)).load()
    (tmp_path / "e.jsonl").write_text('{"user_id": 1, "item_id": 2, "rating": 3}\n{"user_id": 1, "item_id": 2}\n')
    with pytest.raises(InputError, match=r"e.jsonl, line 2: no key 'rating'"):
        Table(path=tmp_path, interactions=Path("e.jsonl")).load()
    (tmp_path / "e.parquet").write_bytes(b"PAR1nonsense")
    with pytest.raises(InputError, match=r"e.parquet is no intact Parquet file"):
        Table(path=tmp_path, interactions=Path("e.parquet")).load()


def test_rating_range_must_be_ordered() -> None:
    with pytest.raises(ValidationError, match="rating_range must go from low to high"):
        TableOptions(rating_range=(5, 1))


def test_a_column_is_one_thing_only() -> None:
    with pytest.raises(ValidationError, match="one thing only, found id, id"):
        ColumnMapping(user="id", item="id")
