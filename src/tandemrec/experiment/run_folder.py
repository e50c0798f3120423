"""The folder of a finished run: the names of its files, and the artifacts that its card tells of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tandemrec.errors import InputError
from tandemrec.experiment.store import Artifact, Store, find_damage

RESULTS, CARD, RECIPE, PER_USER = "results.json", "run_card.json", "recipe.yaml", "per_user.parquet"
REPORT, LATEX = "report.html", "report.tex"

PARTS = {RESULTS: {"data", "evaluation", "leaderboard", "name", "split"}, CARD: {"artifacts", "models", "stages"}}
"""What a run's JSON files have at least."""


def read_part(folder: Path, name: str) -> dict[str, Any]:
    """One of a run's JSON files.

    Raises:
        InputError: if the folder is none of a finished run.
    """
    try:
        found = json.loads((folder / name).read_text())
    except FileNotFoundError:
        raise InputError(f"{folder} is no finished run: {name} is missing") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} is no finished run: {name} cannot be read: {error}") from None
    expected = PARTS[name]
    if not isinstance(found, dict) or not expected <= found.keys():
        raise InputError(f"{folder} is no finished run: {name} has no {', '.join(map(repr, sorted(expected)))}")
    return found


def artifact_of(folder: Path, card: Mapping[str, Any], stage: str) -> Artifact:
    """The artifact of a run's stage, such as `data`, `split` or `fit:NAME`.

    Raises:
        InputError: if it is gone or damaged.
    """
    path = Path(card["artifacts"][stage])
    damage = find_damage(path)
    if damage is not None:
        raise InputError(f"{damage}; `tandem run {folder / RECIPE} --out {folder}` makes it again")
    return Store.open(path)
