"""Splits: which interactions train, which choose, which judge."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import Examples, IntArray, ItemArray, Ragged
from tandemrec.data.leaks import LeakReport, find_leaks
from tandemrec.data.protocols import GivenColumn, LeaveOneOut, SplitConfig, TimePerUser, TimeWindows
from tandemrec.errors import InputError

PARTS = ("train", "valid", "test")

JUDGING_FILES = ("test.parquet", "split.json")
"""Files of a saved split that only judging reads; what trains depends on the others alone."""


@dataclass(frozen=True)
class Split:
    """A dataset cut into training, validation and test.

    Attributes:
        dataset: what was cut.
        sequences: (U rows) the training items of every user, oldest first; empty for a user without any. Models that
            learn from whole histories use these.
        train: training examples, history → next item(s). Models that learn from prompts use these; a sub-sample thins
            them and leaves `sequences` whole.
        valid: examples that choose epochs and hyper-parameters.
        test: examples that judge; looked at once.
        protocol: one line that names every choice behind a number.
        leaks: what the leak check found.
        order: the row of `dataset.interactions` behind every place of `sequences.values`; None: place p is row p.
    """

    dataset: Dataset
    sequences: Ragged
    train: Examples
    valid: Examples
    test: Examples
    protocol: str
    leaks: LeakReport = field(default_factory=LeakReport)
    order: IntArray | None = None

    @property
    def n_items(self) -> int:
        """Number of items I."""
        return self.dataset.n_items

    @cached_property
    def item_counts(self) -> IntArray:
        """Training interactions of every item, shape (I,)."""
        return np.bincount(self.sequences.flat(), minlength=self.n_items).astype(np.int64)

    @property
    def user_counts(self) -> IntArray:
        """Training interactions of every user, shape (U,)."""
        return self.sequences.lengths

    def untested(self) -> Split:
        """Without its test examples: whatever trains or chooses gets this."""
        return replace(self, test=self.test.take(slice(0, 0)))

    def save(self, directory: Path) -> None:
        """Write the items once and every example as places in them: `items`, `sequences`, `train`, `valid`, `test`."""
        directory.mkdir(parents=True, exist_ok=True)
        order = {} if self.order is None else {"row": self.order}
        pl.DataFrame({"item": self.sequences.values, **order}).write_parquet(directory / "items.parquet")
        pl.DataFrame(_places("sequence", self.sequences)).write_parquet(directory / "sequences.parquet")
        for part in PARTS:
            examples: Examples = getattr(self, part)
            columns = {"user": examples.user, "timestamp": examples.timestamp}
            for name in ("history", "target", "seen"):
                columns |= _places(name, getattr(examples, name))
            pl.DataFrame(columns).write_parquet(directory / f"{part}.parquet")
        (directory / "dataset.json").write_text(
            json.dumps({"fingerprint": self.dataset.fingerprint}) + "\n", encoding="utf-8"
        )
        meta = {"protocol": self.protocol, "leaks": self.leaks.rows()}
        (directory / "split.json").write_text(json.dumps(meta, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path, dataset: Dataset) -> Split:
        """Read what `save` wrote.

        Raises:
            InputError: if the split is not whole, was made from other data, or its tables do not fit together.
        """
        if not (directory / "split.json").exists():
            raise InputError(f"{directory} holds no split: split.json, which is written last, is missing")
        if not (directory / "dataset.json").exists():
            raise InputError(f"{directory} holds a split of an older version, without dataset.json; make it anew")
        meta = json.loads((directory / "split.json").read_text(encoding="utf-8"))
        if json.loads((directory / "dataset.json").read_text(encoding="utf-8"))["fingerprint"] != dataset.fingerprint:
            raise InputError(f"{directory} is a split of other data than '{dataset.name}'")
        places = pl.read_parquet(directory / "items.parquet")
        values = places["item"].to_numpy()
        order = places["row"].to_numpy() if "row" in places.columns else None

        def ragged(frame: pl.DataFrame, name: str) -> Ragged:
            rows = Ragged(values, frame[f"{name}_start"].to_numpy(), frame[f"{name}_stop"].to_numpy())
            inside = (rows.starts >= 0) & (rows.starts <= rows.stops) & (rows.stops <= len(values))
            if not inside.all():
                raise InputError(f"{directory}: '{name}' has rows outside the {len(values):,} items of the split")
            return rows

        parts = {}
        for part in PARTS:
            frame = pl.read_parquet(directory / f"{part}.parquet")
            parts[part] = Examples(
                user=frame["user"].to_numpy(),
                history=ragged(frame, "history"),
                target=ragged(frame, "target"),
                seen=ragged(frame, "seen"),
                timestamp=frame["timestamp"].to_numpy(),
            )
        sequences = ragged(pl.read_parquet(directory / "sequences.parquet"), "sequence")
        if len(values) != dataset.interactions.height or len(sequences) != dataset.n_users:
            raise InputError(f"{directory}: the tables of the split do not have the size of '{dataset.name}'")
        leaks = LeakReport.from_rows(meta["leaks"])
        return cls(dataset, sequences, **parts, protocol=meta["protocol"], leaks=leaks, order=order)


def make_split(dataset: Dataset, config: SplitConfig, seed: int = 0) -> Split:
    """Cut a dataset by a protocol, draw the sub-samples and check for leaks.

    Args:
        dataset: the data, at least one interaction.
        config: the protocol.
        seed: of the sub-samples.

    Raises:
        InputError: if the protocol needs times or a column that the data do not have, or leaves a part empty.
    """
    if isinstance(config, TimeWindows | TimePerUser) and dataset.clock not in ("seconds", "milliseconds"):
        raise InputError(
            f"key 'split.protocol': '{config.protocol}' cuts by time, but {dataset.name} has "
            f"{'only the order per user' if dataset.clock == 'order' else 'no time'}; use 'leave-one-out' or 'column'"
        )
    if isinstance(config, LeaveOneOut):
        split, times = _leave_one_out(dataset, config)
    elif isinstance(config, TimeWindows):
        split, times = _time_windows(dataset, config)
    else:
        split, times = _per_user(dataset, config)
    for part in PARTS:
        if not len(getattr(split, part)):
            raise InputError(f"{dataset.name}: protocol '{config.protocol}' leaves no {part} examples")
    by_time = isinstance(config, TimeWindows | TimePerUser)
    leaks = find_leaks(
        {part: getattr(split, part) for part in PARTS},
        split.sequences,
        None if dataset.clock == "none" else times,
        by_time=by_time,
    )
    return replace(_subsample(split, config, seed), leaks=leaks)


def _leave_one_out(dataset: Dataset, config: LeaveOneOut) -> tuple[Split, IntArray]:
    items, times = _columns(dataset)
    starts, stops = dataset.user_offsets[:-1], dataset.user_offsets[1:]
    order: IntArray | None = None
    if config.order_seed is not None:
        if dataset.clock != "none":
            raise InputError(f"key 'split.order_seed': {dataset.name} has an order of its own, expected null")
        users = dataset.interactions["user"].to_numpy()
        order = np.lexsort((np.random.default_rng(config.order_seed).random(len(items)), users)).astype(np.int64)
        items = items[order]
    elif dataset.clock == "none":
        raise InputError(f"key 'split.order_seed': {dataset.name} has no order, expected a seed for an arbitrary one")
    least = 3 if config.short_users == "train" else 1
    length = stops - starts
    train_stops = np.where(length >= least, np.maximum(stops - 2, starts), stops)
    sequences = Ragged(items, starts, train_stops)
    known = train_stops if config.test_history == "train" else stops - 1
    chosen = np.flatnonzero((length >= max(least, 2)) & (train_stops > starts))
    judged = np.flatnonzero((length >= least) & (known > starts))
    split = Split(
        dataset,
        sequences,
        _positions(sequences, times, config),
        _examples(items, times, chosen, starts[chosen], train_stops[chosen], stops[chosen] - 2, stops[chosen] - 1),
        _examples(items, times, judged, starts[judged], known[judged], stops[judged] - 1, stops[judged]),
        f"leave-one-out, validation item {'in' if config.test_history == 'all' else 'not in'} the test history"
        + ("" if config.short_users == "train" else ", users with one or two interactions judged too")
        + ("" if config.order_seed is None else f", arbitrary order of seed {config.order_seed}")
        + _windows_text(config),
        order=order,
    )
    return split, times


def _time_windows(dataset: Dataset, config: TimeWindows) -> tuple[Split, IntArray]:
    items, times = _columns(dataset)
    offsets = dataset.user_offsets
    sequences = Ragged(items, offsets[:-1], offsets[1:])
    place = np.arange(len(items)) - np.repeat(offsets[:-1], sequences.lengths)
    first = np.ones(len(items), np.int64)
    if config.first_target == "full-history":
        first = np.repeat(np.clip(sequences.lengths - 1, 1, config.history), sequences.lengths)
    target = np.flatnonzero(place >= first)
    target = target[np.argsort(times[target], kind="stable")]
    users = dataset.interactions["user"].to_numpy()[target].astype(np.int64)
    start = offsets[:-1][users]
    windows = _examples(items, times, users, start, target, target, target + 1)
    windows = replace(windows, history=windows.history.tail(config.history))
    a, b = _cuts(len(target), config.train, config.valid)
    train_stops = offsets[:-1].copy()
    np.maximum.at(train_stops, users[:a], target[:a] + 1)
    split = Split(
        dataset,
        Ragged(items, offsets[:-1], train_stops),
        windows.take(slice(0, a)),
        windows.take(slice(a, b)),
        windows.take(slice(b, None)),
        f"windows of up to {config.history} + 1 items by target time, {config.train:g}/{config.valid:g}/rest, "
        f"first target: {config.first_target}",
    )
    return split, times


def _per_user(dataset: Dataset, config: TimePerUser | GivenColumn) -> tuple[Split, IntArray]:
    items, times = _columns(dataset)
    if isinstance(config, GivenColumn):
        part = _given_parts(dataset)
        label = "given split column"
    else:
        part = np.empty(len(items), np.int64)
        part[np.argsort(times, kind="stable")] = np.repeat(
            [0, 1, 2], np.diff([0, *_cuts(len(items), config.train, config.valid), len(items)])
        )
        label = f"interactions by time, {config.train:g}/{config.valid:g}/rest, regrouped per user"
    users = dataset.interactions["user"].to_numpy()
    order = np.lexsort((part, users))
    items, times = items[order], times[order]
    counts = np.bincount(users.astype(np.int64) * 3 + part, minlength=3 * dataset.n_users).reshape(-1, 3)
    bounds = dataset.user_offsets[:-1, None] + np.cumsum(counts, 1)
    start, train_stop, valid_stop, stop = dataset.user_offsets[:-1], *bounds.T
    sequences = Ragged(items, start, train_stop)
    train = _positions(sequences, times, config)
    if config.train_examples == "last":
        train = train.take(np.flatnonzero(np.append(np.diff(train.user) != 0, len(train.user) > 0)))
    if config.targets == "next":
        owner, place = users[order].astype(np.int64), np.arange(len(items))
        asked = [np.flatnonzero(part[order] == number) for number in (1, 2)]
        valid, test = (
            _examples(items, times, owner[at], start[owner[at]], place[at], place[at], place[at] + 1) for at in asked
        )
        targets = "every item of a part is the target of an example, its history all before it"
    else:
        chosen, judged = np.flatnonzero(counts[:, 1]), np.flatnonzero(counts[:, 2])
        known = valid_stop if config.test_history == "all" else train_stop
        valid = _examples(items, times, chosen, *(x[chosen] for x in (start, train_stop, train_stop, valid_stop)))
        test = _examples(items, times, judged, *(x[judged] for x in (start, known, valid_stop, stop)))
        fed = "in" if config.test_history == "all" else "not in"
        targets = f"all items of a part are targets, validation items {fed} the test history"
    windows = f", training example: {config.train_examples} position of a user" + _windows_text(config)
    return Split(dataset, sequences, train, valid, test, f"{label}, {targets}{windows}", order=order), times


def _positions(sequences: Ragged, times: IntArray, config: LeaveOneOut | TimePerUser | GivenColumn) -> Examples:
    """A training example for every position of every sequence from `min_history` on."""
    skip = config.min_history
    lengths = np.maximum(sequences.lengths - skip, 0)
    users = np.repeat(np.arange(len(sequences)), lengths)
    first = np.cumsum(lengths) - lengths
    target = (sequences.starts + skip - first)[users] + np.arange(len(users))
    examples = _examples(sequences.values, times, users, sequences.starts[users], target, target, target + 1)
    return examples if config.history is None else replace(examples, history=examples.history.tail(config.history))


def _windows_text(config: LeaveOneOut | TimePerUser | GivenColumn) -> str:
    return "" if config.history is None else f", training histories of up to {config.history} items"


def _examples(
    items: ItemArray,
    times: IntArray,
    users: IntArray,
    start: IntArray,
    history_stop: IntArray,
    target_start: IntArray,
    target_stop: IntArray,
) -> Examples:
    history = Ragged(items, start, history_stop)
    when = times[target_start] if len(target_start) else np.empty(0, np.int64)
    return Examples(users.astype(np.int32), history, Ragged(items, target_start, target_stop), history, when)


def _columns(dataset: Dataset) -> tuple[ItemArray, IntArray]:
    if not dataset.interactions.height:
        raise InputError(f"{dataset.name}: there are no interactions to split")
    return dataset.interactions["item"].to_numpy(), dataset.interactions["timestamp"].to_numpy()


def _given_parts(dataset: Dataset) -> IntArray:
    if "split" not in dataset.interactions.columns:
        raise InputError(f"key 'split.protocol': {dataset.name} has no split column; use another protocol")
    column = dataset.interactions["split"]
    part = column.replace_strict(list(PARTS), [0, 1, 2], default=None, return_dtype=pl.Int64)
    if part.null_count():
        wrong = column.filter(part.is_null())[0]
        raise InputError(f"{dataset.name}, column 'split': found {wrong!r}, expected train, valid or test")
    return part.to_numpy()


def _cuts(n: int, train: float, valid: float) -> tuple[int, int]:
    """Ends of the training and the validation part, rounded down as published code does, free of binary fractions."""
    return math.floor(n * train + 1e-9), math.floor(n * (train + valid) + 1e-9)


def _subsample(split: Split, config: SplitConfig, seed: int) -> Split:
    kept: dict[str, Examples] = {}
    words = []
    for stream, part in enumerate(PARTS):
        examples: Examples = getattr(split, part)
        size = getattr(config.sample, part)
        if size is not None and size < len(examples):
            rng = np.random.default_rng([seed, stream])
            examples = examples.take(np.sort(rng.choice(len(examples), size, replace=False)))
            words.append(f"{size:,} {part}")
        kept[part] = examples
    drawn = f"; drawn: {', '.join(words)} examples" if words else ""
    return replace(split, train=kept["train"], valid=kept["valid"], test=kept["test"], protocol=split.protocol + drawn)


def _places(name: str, rows: Ragged) -> dict[str, IntArray]:
    return {f"{name}_start": rows.starts, f"{name}_stop": rows.stops}
