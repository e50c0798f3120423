"""Systems that chose among others on validation: what they chose, and the figures they chose by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tandemrec.report.reranking import Grid, grids_markdown

HEADING = "Chosen on validation"


def chosen_over_runs(cards: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every system of kind `best`: of those it chose from, mean validation figures and how often it took them.

    Args:
        cards: run cards that differ in their training seed only.
    """
    notes = [{name: report["notes"] for name, report in card["models"].items()} for card in cards]
    rows = []
    for system, first in notes[0].items():
        if "chosen" in first and "validation" in first:
            every = [one[system] for one in notes if "validation" in one.get(system, {})]
            among = [
                {
                    "system": name,
                    "taken": sum(one["chosen"] == name for one in every),
                    "figures": {
                        metric: float(np.mean([one["validation"][name][metric] for one in every])) for metric in figures
                    },
                }
                for name, figures in first["validation"].items()
            ]
            rows.append({"system": system, "trainings": len(every), "among": among})
    return rows


def chosen_grids(rows: Iterable[Mapping[str, Any]]) -> Iterator[Grid]:
    """A table a system of `chosen_over_runs`."""
    for row in rows:
        metrics, several = list(row["among"][0]["figures"]), row["trainings"] > 1
        table = [
            [
                one["system"],
                *(f"{one['figures'][metric]:.4f}" for metric in metrics),
                (f"{one['taken']} of {row['trainings']}" if several else "yes") if one["taken"] else "",
            ]
            for one in row["among"]
        ]
        note = f"Of validation users{', means over trainings' * several}; the test part has no say."
        yield Grid(row["system"], ["system", *metrics, "chosen"], table, note)


def chosen_markdown(card: Mapping[str, Any]) -> str:
    """The tables of a run; empty where nothing was chosen so."""
    return grids_markdown(HEADING, chosen_grids(chosen_over_runs([card])))
