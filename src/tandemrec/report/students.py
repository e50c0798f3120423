"""Students beside their teachers and their plain selves: accuracy, and what answering costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tandemrec.report.cost import Cost, duration
from tandemrec.report.leaderboard import cell, table_of

STUDENTS_NOTE = (
    "A student learns from what its teacher recommends at training positions, and answers alone; plain is the same "
    "model without a teacher. The last column is the share of the teacher's lists that hold the true next item of the "
    "training position they are about."
)


def student_rows(
    results: Mapping[str, Any], card: Mapping[str, Any], costs: Mapping[str, Cost]
) -> tuple[list[str], list[list[str]]]:
    """Header and a row a system, student by student: teacher, student, plain student; no rows without students."""
    headline = results["evaluation"]["headline"]
    cells = {row["system"]: cell(row["metrics"][headline]) for row in results["leaderboard"]}
    rows = []
    for student, facts in card.get("taught", {}).items():
        for role, name in (("teacher", facts["teacher"]), ("student", student), ("plain", facts["plain"])):
            if name is not None:
                cost = costs.get(name, {})
                inference = duration(cost.get("seconds_per_1000"))
                told = role == "student" and "lists" in facts
                lists = (f"{facts['lists']:,}", f"{facts['hit_share']:.1%}") if told else ("", "")
                rows.append([student, role, name, cells[name], inference, duration(cost.get("seconds")), *lists])
    return ["student", "role", "system", headline, "1,000 users", "training", "lists", "lists with the truth"], rows


def students_markdown(results: Mapping[str, Any], card: Mapping[str, Any], costs: Mapping[str, Cost]) -> str:
    """The table with its note; empty where nobody learned so."""
    header, rows = student_rows(results, card, costs)
    return f"## Students and teachers\n\n{STUDENTS_NOTE}\n\n{table_of(header, rows)}" if rows else ""
