"""Every protocol against a slow reading of its definition, and the counts and splits that papers published."""

import gzip
import json
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tandemrec.data.dataset import Clock, Dataset
from tandemrec.data.examples import Examples
from tandemrec.data.filter import CleaningConfig, clean
from tandemrec.data.locations import data_root
from tandemrec.data.protocols import (
    GivenColumn,
    LeaveOneOut,
    SampleConfig,
    SplitConfig,
    TimePerUser,
    TimeWindows,
)
from tandemrec.data.sources.amazon import Amazon
from tandemrec.data.sources.microlens import MicroLens
from tandemrec.data.sources.movielens import MovieLens
from tandemrec.data.split import Split, make_split
from tandemrec.errors import InputError

Event = tuple[int, int, int]
Row = tuple[int, list[int], list[int], list[int], int]
"""user, history, target, seen, time."""

EVENTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 9)), min_size=1, max_size=40)
PARTS = ("train", "valid", "test")


def dataset(events: list[Event], parts: list[str] | None = None, clock: Clock = "seconds") -> Dataset:
    """Numbers 0…4 and 0…6 are kept as codes by listing all of them."""
    columns = {name: [event[k] for event in events] for k, name in enumerate(("user_id", "item_id", "timestamp"))}
    frame = pl.DataFrame(columns | ({} if parts is None else {"split": parts}))
    users, items = pl.DataFrame({"user_id": range(5)}), pl.DataFrame({"item_id": range(7)})
    return Dataset.from_frames(frame, items, users, clock=clock, name="tiny")


def rows(examples: Examples) -> list[Row]:
    lists = ([row.tolist() for row in ragged] for ragged in (examples.history, examples.target, examples.seen))
    return list(zip(examples.user.tolist(), *lists, examples.timestamp.tolist(), strict=True))


def per_user(events: list[Event]) -> dict[int, list[tuple[int, int]]]:
    """User → (item, time), by time, then file order."""
    grouped = defaultdict(list)
    for user, item, time in events:
        grouped[user].append((item, time))
    return {user: sorted(grouped[user], key=lambda event: event[1]) for user in range(5)}


def whole(user: int, events: list[tuple[int, int]], place: int, known: int | None = None) -> Row:
    history = [item for item, _ in events[: place if known is None else known]]
    return user, history, [events[place][0]], history, events[place][1]


def split_or_none(data: Dataset, config: SplitConfig) -> Split | None:
    try:
        return make_split(data, config)
    except InputError as error:
        assert "leaves no" in str(error)
        return None


@given(EVENTS, st.sampled_from(["all", "train"]))
def test_leave_one_out(events: list[Event], test_history: str) -> None:
    split = split_or_none(dataset(events), LeaveOneOut(test_history=test_history, history=None))  # type: ignore[arg-type]
    train, valid, test, sequences = [], [], [], []
    for user, own in per_user(events).items():
        n = len(own) if len(own) < 3 else len(own) - 2
        sequences.append([item for item, _ in own[:n]])
        train += [whole(user, own, place) for place in range(1, n)]
        if len(own) >= 3:
            valid.append(whole(user, own, n))
            test.append(whole(user, own, n + 1, known=n if test_history == "train" else None))
    if split is None:
        assert not (train and valid and test)
        return
    assert (rows(split.train), rows(split.valid), rows(split.test)) == (train, valid, test)
    assert [row.tolist() for row in split.sequences] == sequences
    assert split.leaks.clean


@given(EVENTS)
def test_leave_one_out_that_cuts_short_users(events: list[Event]) -> None:
    config = LeaveOneOut(short_users="cut", test_history="train")
    split = split_or_none(dataset(events), config)
    if split is None:
        return
    own = per_user(events)
    assert split.user_counts.tolist() == [max(len(own[user]) - 2, 0) for user in range(5)]
    assert split.test.user.tolist() == [user for user in range(5) if len(own[user]) > 2]


@given(EVENTS, st.integers(1, 4), st.sampled_from(["full-history", "second-item"]))
def test_time_windows(events: list[Event], h: int, first_target: str) -> None:
    config = TimeWindows(history=h, first_target=first_target, train=0.6, valid=0.2)  # type: ignore[arg-type]
    split = split_or_none(dataset(events), config)
    windows, places = [], []
    for user, own in per_user(events).items():
        short = len(own) <= h + 1
        first = 1 if first_target == "second-item" else len(own) - 1 if short else h
        for place in range(max(first, 1), len(own)):
            _, history, target, _, time = whole(user, own, place)
            windows.append((user, history[-h:], target, history, time))
            places.append(place)
    order = sorted(range(len(windows)), key=lambda k: windows[k][4])
    windows, places = [windows[k] for k in order], [places[k] for k in order]
    a, b = int(len(windows) * 0.6 + 1e-9), int(len(windows) * 0.8 + 1e-9)
    if split is None:
        assert a in (0, b) or b == len(windows)
        return
    assert (rows(split.train), rows(split.valid), rows(split.test)) == (windows[:a], windows[a:b], windows[b:])
    ends = {
        user: max([p + 1 for w, p in zip(windows[:a], places, strict=False) if w[0] == user], default=0)
        for user in range(5)
    }
    items = {user: [item for item, _ in own] for user, own in per_user(events).items()}
    assert [row.tolist() for row in split.sequences] == [items[user][: ends[user]] for user in range(5)]
    assert split.leaks.clean


def regrouped(events: list[tuple[int, int, int, int]], config: TimePerUser | GivenColumn) -> tuple[list[Row], ...]:
    """Slow regrouping of (user, item, time, part) rows that lie in the order of user, part, place."""
    train, valid, test = [], [], []
    for user in range(5):
        own = [[(item, time) for u, item, time, part in events if (u, part) == (user, p)] for p in range(3)]
        sequence = own[0] + own[1] + own[2]
        positions = range(config.min_history, len(own[0]))
        chosen = positions if config.train_examples == "every" else positions[-1:]
        train += [whole(user, sequence, place) for place in chosen]
        for out, p in ((valid, 1), (test, 2)):
            start = len(own[0]) + (len(own[1]) if p == 2 else 0)
            if config.targets == "next":
                out += [whole(user, sequence, start + k) for k in range(len(own[p]))]
            elif own[p]:
                known = len(own[0]) if config.test_history == "train" else start
                history = [item for item, _ in sequence[:known]]
                out.append((user, history, [item for item, _ in own[p]], history, own[p][0][1]))
    return train, valid, test


PER_USER = st.fixed_dictionaries(
    {
        "min_history": st.integers(0, 2),
        "train_examples": st.sampled_from(["last", "every"]),
        "targets_and_history": st.sampled_from([("all", "all"), ("all", "train"), ("next", "all")]),
    }
).map(
    lambda d: (
        {"targets": d["targets_and_history"][0], "test_history": d["targets_and_history"][1]}
        | {k: d[k] for k in ("min_history", "train_examples")}
    )
)


@given(EVENTS, PER_USER)
def test_time_per_user(events: list[Event], choices: dict[str, object]) -> None:
    config = TimePerUser(train=0.6, valid=0.2, **choices)  # type: ignore[arg-type]
    split = split_or_none(dataset(events), config)
    ordered = [(user, item, time) for user, own in per_user(events).items() for item, time in own]
    ordered.sort(key=lambda event: event[2])
    a, b = int(len(ordered) * 0.6 + 1e-9), int(len(ordered) * 0.8 + 1e-9)
    parted = [(*event, 0 if k < a else 1 if k < b else 2) for k, event in enumerate(ordered)]
    train, valid, test = regrouped(parted, config)
    if split is None:
        assert not (train and valid and test)
        return
    assert (rows(split.train), rows(split.valid), rows(split.test)) == (train, valid, test)
    assert split.leaks.clean


@given(EVENTS, st.lists(st.sampled_from(PARTS), min_size=40, max_size=40), PER_USER)
def test_given_column(events: list[Event], parts: list[str], choices: dict[str, object]) -> None:
    config = GivenColumn(**choices)  # type: ignore[arg-type]
    split = split_or_none(dataset(events, parts[: len(events)]), config)
    parted = [(*event, PARTS.index(part)) for event, part in zip(events, parts, strict=False)]
    train, valid, test = regrouped(sorted(parted, key=lambda event: (event[0], event[2])), config)
    if split is None:
        assert not (train and valid and test)
        return
    assert (rows(split.train), rows(split.valid), rows(split.test)) == (train, valid, test)


def test_training_windows_are_capped_and_seen_is_not() -> None:
    data = dataset([(0, item, item) for item in range(7)])
    split = make_split(data, LeaveOneOut(history=2))
    assert [row.tolist() for row in split.train.history] == [[0], [0, 1], [1, 2], [2, 3]]
    assert [row.tolist() for row in split.train.seen] == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]
    assert split.test.history[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert split.train.history.values is split.sequences.values


def test_shares_that_do_not_add_up_in_binary() -> None:
    """.8 + .1 of 70 windows is 63, although the sum of the fractions is a little less than .9."""
    events = [(0, k % 7, k) for k in range(71)]
    split = make_split(dataset(events), TimeWindows(first_target="second-item"))
    assert (len(split.train), len(split.valid), len(split.test)) == (56, 7, 7)


@pytest.mark.parametrize("config", [TimeWindows(), TimePerUser()])
@pytest.mark.parametrize(("clock", "word"), [("order", "only the order per user"), ("none", "no time")])
def test_time_protocols_refuse_data_without_time(config: SplitConfig, clock: Clock, word: str) -> None:
    with pytest.raises(InputError, match=f"'{config.protocol}' cuts by time, but tiny has {word}"):
        make_split(dataset([(0, 0, 0)], clock=clock), config)


def test_an_arbitrary_order_must_be_asked_for() -> None:
    events = [(user, item, 0) for user in range(5) for item in range(7)]
    with pytest.raises(InputError, match="tiny has no order, expected a seed"):
        make_split(dataset(events, clock="none"), LeaveOneOut())
    with pytest.raises(InputError, match="an order of its own, expected null"):
        make_split(dataset(events), LeaveOneOut(order_seed=1))
    one, same, other = (make_split(dataset(events, clock="none"), LeaveOneOut(order_seed=seed)) for seed in (1, 1, 2))
    assert rows(one.test) == rows(same.test) != rows(other.test)
    assert "arbitrary order of seed 1" in one.protocol
    everything = [sorted([*history, *target]) for _, history, target, _, _ in rows(one.test)]
    assert everything == [list(range(7))] * 5
    assert not one.leaks.timed and "cannot be checked" in one.leaks.lines()[-1]


def test_split_column_must_exist_and_hold_known_words() -> None:
    with pytest.raises(InputError, match="tiny has no split column"):
        make_split(dataset([(0, 0, 0)]), GivenColumn())
    with pytest.raises(InputError, match="column 'split': found 'dev', expected train, valid or test"):
        make_split(dataset([(0, 0, 0)], ["dev"]), GivenColumn())


@pytest.mark.parametrize(
    "config",
    [
        {"protocol": "leave-one-out", "history": 0},
        {"protocol": "time-windows", "train": 0.9, "valid": 0.1},
        {"protocol": "column", "targets": "next", "test_history": "train"},
        {"protocol": "leave-two-out"},
        {"protocol": "leave-one-out", "sample": {"train": 0}},
    ],
)
def test_bad_configs_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(SplitConfig).validate_python(config)


LONG = [(user, (user + k) % 7, 10 * k + user) for user in range(5) for k in range(20)]


def test_sub_samples_come_from_the_seed_and_keep_the_order() -> None:
    config = LeaveOneOut(sample=SampleConfig(train=30, valid=3, test=99))
    full, one, same, other = (
        make_split(dataset(LONG), c, seed) for c, seed in ((LeaveOneOut(), 0), (config, 7), (config, 7), (config, 8))
    )
    assert (len(one.train), len(one.valid), len(one.test)) == (30, 3, 5)
    assert rows(one.train) == rows(same.train) != rows(other.train)
    assert rows(one.test) == rows(full.test)
    in_order = iter(rows(full.train))
    assert all(row in in_order for row in rows(one.train))
    assert one.sequences.lengths.sum() == full.sequences.lengths.sum()
    assert one.protocol.endswith("drawn: 30 train, 3 valid examples")


@pytest.mark.parametrize("config", [LeaveOneOut(), TimeWindows(history=3), TimePerUser(train_examples="every")])
def test_saved_splits_come_back(config: SplitConfig, tmp_path: Path) -> None:
    data = dataset(LONG)
    split = make_split(data, config)
    split.save(tmp_path)
    back = Split.load(tmp_path, data)
    for part in PARTS:
        assert rows(getattr(back, part)) == rows(getattr(split, part))
    assert [row.tolist() for row in back.sequences] == [row.tolist() for row in split.sequences]
    assert (back.protocol, back.leaks) == (split.protocol, split.leaks)


def test_damaged_or_foreign_splits_are_refused(tmp_path: Path) -> None:
    data = dataset(LONG)
    make_split(data, LeaveOneOut()).save(tmp_path)
    with pytest.raises(InputError, match="a split of other data"):
        Split.load(tmp_path, dataset(LONG[:-1]))
    train = pl.read_parquet(tmp_path / "train.parquet")
    train.with_columns(target_stop=pl.lit(10_000)).write_parquet(tmp_path / "train.parquet")
    with pytest.raises(InputError, match="'target' has rows outside the 100 items"):
        Split.load(tmp_path, data)
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(InputError, match="a split of an older version"):
        Split.load(tmp_path, data)
    (tmp_path / "split.json").unlink()
    with pytest.raises(InputError, match="holds no split"):
        Split.load(tmp_path, data)


def needs(*names: str) -> Path:
    for name in names:
        if not (data_root() / name).is_dir():
            pytest.skip(f"data set {name} is not in {data_root()}; TANDEMREC_DATA names the data folder")
    return data_root()


@pytest.mark.parametrize(
    ("edition", "users", "train", "items", "reachable", "two"),
    [("ml-100k", 942, 53_491, 1_427, 927, 940), ("ml-1m", 6_038, 563_206, 3_525, 6_032, 6_035)],
)
def test_likes_only_leave_one_out(edition: str, users: int, train: int, items: int, reachable: int, two: int) -> None:
    needs(edition)
    data, _ = clean(MovieLens(edition=edition).load(), CleaningConfig(min_rating=4))  # type: ignore[arg-type]
    split = make_split(data, LeaveOneOut(short_users="cut", test_history="train"))
    catalogue = split.item_counts > 0
    assert (data.n_users, split.sequences.lengths.sum(), catalogue.sum()) == (users, train, items)
    assert catalogue[split.test.target.flat()].sum() == reachable
    assert (split.user_counts >= 2).sum() == two


def test_movielens_1m_as_sasrec_has_it() -> None:
    root = needs("ml-1m", "reference_splits")
    data, _ = clean(MovieLens(edition="ml-1m").load(), CleaningConfig(min_item_count=5))
    lines = (root / "reference_splits/sasrec_ml-1m/sas_to_original_items.txt").read_text().split("\n")
    published = {line.split()[1] for line in lines if line}
    assert set(data.items["item_id"]) == published
    assert (data.n_users, data.n_items, data.interactions.height) == (6_040, 3_416, 999_611)


@cache
def dealrec(name: str) -> tuple[dict[str, list[list[str]]], list[str]]:
    """The published lines as original item ids, part by part, and the original user ids."""
    folder = data_root() / "reference_splits" / name
    with gzip.open(folder / "maps.json.gz", "rt") as file:
        maps = json.load(file)
    parts = {}
    for part in PARTS:
        with gzip.open(folder / f"sequential_{part}.txt.gz", "rt") as file:
            parts[part] = [[str(maps["item_map_reverse"][int(n) - 1]) for n in line.split()[1:]] for line in file]
    return parts, [str(user) for user in maps["user_map_reverse"]]


@pytest.mark.parametrize(
    ("name", "folder", "load"),
    [
        ("dealrec_games", "amazon-video-games", lambda: Amazon(path=Path("amazon-video-games"), metadata=False).load()),
        ("dealrec_microlens-50k", "microlens-50k", lambda: MicroLens().load()),
    ],
)
def test_dealrec_splits_example_for_example(name: str, folder: str, load: Callable[[], Dataset]) -> None:
    needs(folder, "reference_splits")
    data = load()
    split = make_split(data, GivenColumn(min_history=0))
    parts, users = dealrec(name)
    places = {user: u for u, user in enumerate(data.users["user_id"])}
    ids = data.items["item_id"].to_numpy()

    def by_user(examples: Examples) -> dict[int, tuple[list[str], list[str]]]:
        return {user: (ids[history].tolist(), ids[target].tolist()) for user, history, target, _, _ in rows(examples)}

    lines = list(zip([places[user] for user in users], *(parts[part] for part in PARTS), strict=True))
    assert by_user(split.train) == {u: (train[:-1], train[-1:]) for u, train, _, _ in lines if train}
    assert by_user(split.valid) == {u: (train, valid) for u, train, valid, _ in lines if valid}
    assert by_user(split.test) == {u: (train + valid, test) for u, train, valid, test in lines if test}
    assert all(ids[split.sequences[u]].tolist() == train for u, train, _, _ in lines)
    assert split.leaks.clean


@pytest.mark.parametrize(
    ("category", "counts"),
    [("Office_Products", (3_585, 3_861)), ("Industrial_and_Scientific", (3_589, 3_726))],
)
def test_d3_windows(category: str, counts: tuple[int, int]) -> None:
    """The published validation and test windows, but for those that hold one review twice.

    Our copy of the reviews lacks the exact repetitions of the published files, and the older 60 percent of the data, so
    the cut itself cannot be compared; every window without a repetition is there, history in order, target and time.
    """
    root = needs("amazon-office-industrial", "reference_splits")
    data = Amazon(path=Path("amazon-office-industrial"), category=category, metadata=False).load()
    split = make_split(data, TimeWindows(first_target="second-item"))
    users, ids = data.users["user_id"].to_list(), data.items["item_id"].to_numpy()
    ours = {
        (users[user], tuple(ids[history]), ids[target[0]], time)
        for part in PARTS
        for user, history, target, _, time in rows(getattr(split, part))
    }
    for part, expected in zip(("valid", "test"), counts, strict=True):
        (path,) = (root / "reference_splits/d3_amazon2018").glob(f"{part}_{category}_*.csv.gz")
        table = pl.read_csv(path)
        published = 0
        for row in table.iter_rows(named=True):
            lists = (json.loads(row[f"history_{name}"]) for name in ("timestamp", "rating"))
            history = [word.strip("' ") for word in row["item_asins"].strip("[]").split(",")]
            reviews = [*zip(history, *lists, strict=True), (row["item_asin"], row["timestamp"], row["rating"])]
            if len(set(reviews)) == len(reviews):
                published += 1
                assert (row["user_id"], tuple(history), row["item_asin"], row["timestamp"]) in ours
        assert published == expected
    assert np.all(np.diff(split.test.timestamp) >= 0)
