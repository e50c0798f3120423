"""Students beside their teachers and their plain selves: accuracy, agreement, and what answering costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tandemrec.report.cost import Cost, duration
from tandemrec.report.leaderboard import cell, filled, table_of
from tandemrec.report.reranking import Grid

HEADING = "Students and teachers"

AGREEMENT_NOTE = (
    "A student learns from what its teacher recommends at training positions, and answers alone; plain is the same "
    "model without a teacher. Agreement: share of what the teacher recommends to test users that a system recommends "
    "to them too. Used: positions with a list that the student learned from."
)

STUDENTS_NOTE = (
    f"{AGREEMENT_NOTE} The last column is the share of the teacher's lists that hold the true next item of the "
    "training position they are about."
)


def student_rows(
    results: Mapping[str, Any], card: Mapping[str, Any], costs: Mapping[str, Cost]
) -> tuple[list[str], list[list[str]]]:
    """Header and a row a system: each teacher, plain model and student, in groups; no rows without students."""
    headline = results["evaluation"]["headline"]
    cells = {row["system"]: cell(row["metrics"][headline]) for row in results["leaderboard"]}
    rows = []
    for role, name, agreement in _in_groups(results.get("students", {})):
        cost, facts, used = costs.get(name, {}), card["taught"].get(name, {}), used_positions(card, name)
        rows.append(
            [
                name,
                role,
                cells[name],
                "" if agreement is None else f"{agreement:.1%}",
                duration(cost.get("seconds_per_1000")),
                duration(cost.get("seconds")),
                f"{facts['lists']:,}" if "lists" in facts else "",
                "" if used is None else f"{used:,}",
                f"{facts['hit_share']:.1%}" if "hit_share" in facts else "",
            ]
        )
    header = ["system", "role", headline, "agreement", "1,000 users", "training", "lists", "used"]
    return filled([*header, "lists with the truth"], rows)


def _in_groups(students: Mapping[str, Any]) -> Iterator[tuple[str, str, float | None]]:
    """Role, name and agreement of every system, with each teacher and plain model once for all their students."""
    groups: dict[tuple[str, str | None], dict[str, Any]] = {}
    for student, roles in students.items():
        groups.setdefault((roles["teacher"], roles["plain"]), {})[student] = roles
    told = set()
    for (teacher, plain), group in groups.items():
        if teacher not in told:
            told.add(teacher)
            yield "teacher", teacher, None
        if plain is not None:
            yield "plain", plain, next(iter(group.values()))["plain_agreement"]
        for student, roles in group.items():
            yield "student", student, roles["agreement"]


def students_markdown(results: Mapping[str, Any], card: Mapping[str, Any], costs: Mapping[str, Cost]) -> str:
    """The table with its note; empty where nobody learned so."""
    header, rows = student_rows(results, card, costs)
    return f"## {HEADING}\n\n{STUDENTS_NOTE}\n\n{table_of(header, rows)}" if rows else ""


def over_trainings(runs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Students of runs that differ in their training seed only: roles, means of agreement, positions with a list.

    Args:
        runs: results and card of each.
    """
    rows = []
    for student, roles in runs[0][0].get("students", {}).items():
        every = [results["students"][student] for results, _ in runs if student in results.get("students", {})]
        means = {
            key: None if roles[key] is None else float(np.mean([one[key] for one in every]))
            for key in ("agreement", "plain_agreement")
        }
        used = [places for _, card in runs if (places := used_positions(card, student)) is not None]
        rows.append({"system": student, **roles, **means, "used": max(used, default=None)})
    return rows


def used_positions(card: Mapping[str, Any], student: str) -> int | None:
    """Positions that a student learns from and has a list for; None where no lists were used, or a choice was made."""
    notes: Mapping[str, Any] = card["models"].get(student, {}).get("notes", {})
    return notes.get("positions_with_a_list")


def agreement_grid(students: Iterable[Mapping[str, Any]]) -> Grid:
    """A row a student of `over_trainings`; accuracy and costs are in an experiment's own table."""
    rows = [
        [
            one["system"],
            one["teacher"],
            one["plain"] or "",
            f"{one['agreement']:.1%}",
            "" if one["plain_agreement"] is None else f"{one['plain_agreement']:.1%}",
            "" if one["used"] is None else f"{one['used']:,}",
        ]
        for one in students
    ]
    header, cells = filled(["student", "teacher", "plain", "agreement", "of the plain one", "used"], rows)
    return Grid(HEADING, header, cells, AGREEMENT_NOTE)
