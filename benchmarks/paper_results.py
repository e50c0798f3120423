"""Experiments of papers for `published.py`: what `tandem reproduce` found, as sections of docs/results.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tandemrec.experiment.papers import experiments
from tandemrec.experiment.reproduce import reproduce
from tandemrec.report.leaderboard import table_of
from tandemrec.report.reproduction import reproduction_markdown

FOLDER = "papers"
"""Below docs/results: a JSON file an experiment."""

NAMES = tuple(experiments())


def measure(name: str, seeds: Sequence[int], runs: Path) -> dict[str, Any]:
    """Run an experiment at its scaled size, or go on with what lies in `runs`."""
    return reproduce(name, "scaled", seeds=seeds, out=runs / f"{name.replace('/', '-')}-scaled")


def file_of(name: str) -> Path:
    """Where its result is kept, below docs/results."""
    return Path(FOLDER) / f"{name.replace('/', '-')}.json"


def sections(docs: Path) -> list[str]:
    """How many claims of every experiment held, then the experiments; empty where none was measured."""
    paths = [docs / "results" / file_of(name) for name in NAMES]
    found = [json.loads(path.read_text()) for path in paths if path.exists()]
    if not found:
        return []
    rows = []
    for one in found:
        verdicts = [claim["verdict"] for claim in one["claims"]]
        counts = [str(verdicts.count(kind)) for kind in ("held", "reversed", "open")]
        rows.append([f"{one['paper']}, {one['shows']}", *counts, f"{one['users']:,}", str(len(one["seeds"]))])
    header = ["what", "claims that held", "came out the other way round", "could not be settled", "users", "trainings"]
    return [
        "## Claims of the papers, at the scaled size",
        "A claim says that one system of a run is better than another, or cheaper, or that own answers are easier to "
        "learn; docs/papers.md lists them. One about accuracy is settled where the corrected p-value is below 5 %, one "
        "about time or losses where all trainings agree.",
        table_of(header, rows),
        *(reproduction_markdown(one, "##").strip() for one in found),
    ]
