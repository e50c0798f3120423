"""Tables of what systems were given: which ids are whose."""

from __future__ import annotations

from typing import Any

from tandemrec.report.prepared import id_figures, ids_grid, of_each_set, prepared_grids, prepared_markdown


def ids_of(first: str, second: str) -> dict[str, Any]:
    """Notes of a system whose ids make one item the nearest to another."""
    return {
        "levels": [{"used": 0.5, "perplexity": 3.0}], "digits": [8, 2], "collision_rate": 0.25, "largest_collision": 2,
        "reconstruction_error": 0.125,
        "neighbours": [{"title": first, "id": [3, 1], "nearest": [{"title": second, "shared": 1}]}],
    }  # fmt: skip


def card(**ids: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "models": {name: {"notes": {} if about is None else {"semantic_ids": about}} for name, about in ids.items()}
    }


def test_nearest_items_are_those_of_the_systems_in_the_title() -> None:
    one, other = ids_of("Alien", "Aliens"), ids_of("Alien", "Amadeus")
    told = card(TIGER=one, EASE=None, Large=other, Chosen=one)
    overall, first, second = prepared_grids(told)
    assert [row[0] for row in overall.rows] == ["TIGER", "Large", "Chosen"]
    assert first.title == "Nearest items by shared prefix: TIGER, Chosen"
    assert first.rows == [["Alien", "3 1", "Aliens (1)"]]
    assert second.title == "Nearest items by shared prefix: Large"
    assert second.rows == [["Alien", "3 1", "Amadeus (1)"]]
    assert f"### {second.title}\n" in prepared_markdown(told)


def test_systems_with_the_same_ids_share_a_row_beside_results() -> None:
    one, other = ids_of("Alien", "Aliens"), ids_of("Alien", "Amadeus") | {"collision_rate": 0.5}
    figures = id_figures(card(TIGER=one, EASE=None, Large=other, Chosen=one))
    assert list(figures) == ["TIGER", "Large", "Chosen"]
    assert all("neighbours" not in about for about in figures.values())
    grid = ids_grid(of_each_set(figures))
    assert grid.rows == [
        ["TIGER, Chosen", "8 × 2", "50%", "3", "25.0%", "2", "0.125"],
        ["Large", "8 × 2", "50%", "3", "50.0%", "2", "0.125"],
    ]
    assert ids_grid({}).rows == []


def test_a_run_without_ids_or_thoughts_has_no_tables() -> None:
    assert prepared_markdown(card(EASE=None)) == ""
