"""What `best` systems chose, by hand."""

from __future__ import annotations

from typing import Any

from tandemrec.report.validated import chosen_grids, chosen_markdown, chosen_over_runs


def card(chosen: str, plain: float, student: float) -> dict[str, Any]:
    figures = {"Plain": {"ndcg@10": plain, "hr@10": 2 * plain}, "Student": {"ndcg@10": student, "hr@10": 0.5}}
    notes = {"Best": {"chosen": chosen, "validation": figures}, "Plain": {}, "Mixed": {"chosen": {"weight": 1}}}
    return {"models": {name: {"notes": one} for name, one in notes.items()}}


def test_figures_are_means_over_trainings_and_choices_are_counted() -> None:
    runs = [card("Plain", 0.2, 0.1), card("Student", 0.1, 0.3), card("Student", 0.3, 0.5)]
    (row,) = chosen_over_runs(runs)
    assert (row["system"], row["trainings"]) == ("Best", 3)
    assert [(one["system"], one["taken"]) for one in row["among"]] == [("Plain", 1), ("Student", 2)]
    (grid,) = chosen_grids([row])
    assert grid.title == "Best"
    assert grid.header == ["system", "ndcg@10", "hr@10", "chosen"]
    assert grid.rows == [["Plain", "0.2000", "0.4000", "1 of 3"], ["Student", "0.3000", "0.5000", "2 of 3"]]
    assert "means over trainings" in grid.note


def test_one_run_says_what_it_chose() -> None:
    found = chosen_markdown(card("Student", 0.1, 0.2))
    assert "## Chosen on validation\n\n### Best" in found
    assert "means" not in found
    (grid,) = chosen_grids(chosen_over_runs([card("Student", 0.1, 0.2)]))
    assert [row[-1] for row in grid.rows] == ["", "yes"]


def test_nothing_is_shown_where_nothing_chose() -> None:
    assert chosen_markdown({"models": {"Plain": {"notes": {}}}}) == ""
    assert chosen_over_runs([{"models": {}}]) == []
