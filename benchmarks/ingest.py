"""Ten million events from a CSV file to a leave-one-out split: our way against straightforward pandas.

    python benchmarks/ingest.py            # 10 million events, 200,000 users; a few minutes and 1 GB of disk
    python benchmarks/ingest.py --quick    # 200,000 events

Both read the same file, drop repeated rows, take the 5-core and cut off the last two items of every user. Each runs in
a process of its own, so that peak memory is its own. `agree` counts users whose targets or histories differ.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

RESULTS = Path(__file__).parent / "results" / "ingest.json"
LIMIT_SECONDS, LIMIT_GIB = 60.0, 4.0
CORE = 5


def generate(path: Path, events: int, users: int, items: int, seed: int = 0) -> None:
    """Write user_id, item_id, rating, timestamp in chunks: text ids, a long tail of items, one row in 200 repeated."""
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        for start in range(0, events, 1_000_000):
            n = min(1_000_000, events - start)
            repeated = n // 200
            user = rng.integers(users, size=n - repeated)
            item = (items * rng.random(n - repeated) ** 3).astype(np.int64)
            chunk = pl.DataFrame(
                {
                    "user_id": user * 7_919 % 10_000_000,
                    "item_id": item * 104_729 % 100_000_000,
                    "rating": rng.integers(1, 6, size=n - repeated).astype(np.float32),
                    "timestamp": np.sort(rng.integers(10**6, size=n - repeated)) + start + 1_500_000_000,
                }
            ).with_columns(
                user_id=pl.format("A{}", pl.col("user_id").cast(pl.String).str.zfill(7)),
                item_id=pl.format("B{}", pl.col("item_id").cast(pl.String).str.zfill(8)),
            )
            pl.concat([chunk, chunk.head(repeated)]).write_csv(file, include_header=start == 0)


def ours(path: Path) -> tuple[pl.DataFrame, dict[str, float]]:
    """One row a test user: user_id, test item, validation item, length of the training history."""
    from tandemrec.data.filter import CleaningConfig, clean
    from tandemrec.data.protocols import LeaveOneOut
    from tandemrec.data.sources.table import Table
    from tandemrec.data.split import make_split

    seconds, begin = {}, time.perf_counter()

    def lap(name: str) -> None:
        nonlocal begin
        seconds[name], begin = time.perf_counter() - begin, time.perf_counter()

    data = Table(interactions=path).load()
    lap("read")
    data, _ = clean(data, CleaningConfig(user_core=CORE, item_core=CORE))
    lap("clean")
    split = make_split(data, LeaveOneOut())
    lap("split")
    ids = data.items["item_id"]
    frame = pl.DataFrame(
        {
            "user": data.users["user_id"].gather(split.test.user),
            "test": ids.gather(split.test.target.flat()),
            "valid": ids.gather(split.valid.target.flat()),
            "trained": split.user_counts[split.test.user],
        }
    )
    return frame, seconds


def usual(path: Path) -> tuple[pl.DataFrame, dict[str, float]]:
    """The same in pandas as most people write it."""
    import pandas as pd

    seconds, begin = {}, time.perf_counter()

    def lap(name: str) -> None:
        nonlocal begin
        seconds[name], begin = time.perf_counter() - begin, time.perf_counter()

    frame = pd.read_csv(path)
    lap("read")
    frame = frame.drop_duplicates()
    while True:
        before = len(frame)
        for column in ("user_id", "item_id"):
            counts = frame[column].value_counts()
            frame = frame[frame[column].isin(counts[counts >= CORE].index)]
        if len(frame) == before:
            break
    for column in ("user_id", "item_id"):
        frame[column.removesuffix("_id")] = frame[column].astype("category").cat.codes
    lap("clean")
    frame = frame.sort_values(["user", "timestamp"], kind="stable")
    from_end = frame.groupby("user").cumcount(ascending=False)
    test, valid, train = frame[from_end == 0], frame[from_end == 1], frame[from_end >= 2]
    histories = train.groupby("user")["item"].apply(list)
    lap("split")
    table = pl.DataFrame(
        {
            "user": test["user_id"].to_list(),
            "test": test["item_id"].to_list(),
            "valid": valid["item_id"].to_list(),
            "trained": histories.str.len().to_list(),
        }
    )
    return table, seconds


def measure(way: str, path: Path, out: Path) -> dict[str, float]:
    """Run one way in a process of its own."""
    command = [sys.executable, __file__, "--way", way, "--csv", str(path), "--out", str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def run_child(way: str, path: Path, out: Path) -> None:
    """What `measure` starts: the way, its times and its peak memory."""
    frame, seconds = {"ours": ours, "usual": usual}[way](path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    frame.write_parquet(out)
    print(json.dumps({**seconds, "seconds": sum(seconds.values()), "peak_gib": peak}))


def main() -> None:
    """Generate, measure both, compare, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="200,000 events instead of 10 million")
    parser.add_argument("--way", choices=["ours", "usual"], help=argparse.SUPPRESS)
    parser.add_argument("--csv", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        run_child(arguments.way, arguments.csv, arguments.out)
        return
    events, users, items = (200_000, 4_000, 2_000) if arguments.quick else (10_000_000, 200_000, 100_000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.csv"
        generate(path, events, users, items)
        size = path.stat().st_size
        found = {way: measure(way, path, Path(folder) / f"{way}.parquet") for way in ("ours", "usual")}
        one, other = (pl.read_parquet(Path(folder) / f"{way}.parquet").sort("user") for way in ("ours", "usual"))
    both = one.join(other.cast(one.schema), on=one.columns, how="inner")
    differ = max(one.height, other.height) - both.height
    a, b = found["ours"], found["usual"]
    name = "ingest-quick" if arguments.quick else "ingest-10m"
    print(
        f"claim={name} ratio={b['seconds'] / a['seconds']:.2f} ours={a['seconds']:.2f} usual={b['seconds']:.2f} "
        f"agree={differ}"
    )
    print(f"peak memory: ours {a['peak_gib']:.2f} GiB, usual {b['peak_gib']:.2f} GiB; file {size / 2**20:,.0f} MiB")
    if not arguments.quick:
        within = a["seconds"] < LIMIT_SECONDS and a["peak_gib"] < LIMIT_GIB
        print(f"under {LIMIT_SECONDS:.0f} s and {LIMIT_GIB:.0f} GiB: {'yes' if within else 'NO'}")
        hardware = {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "polars": pl.__version__,
        }
        facts = {"events": events, "users": users, "items": items, "test_users": one.height, "differ": differ}
        digest = hashlib.sha256(one.write_csv().encode()).hexdigest()
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(
            json.dumps({**facts, **found, "result_sha256": digest, "hardware": hardware}, indent=1) + "\n"
        )
    if differ:
        sys.exit(f"the two ways differ for {differ:,} users")


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
