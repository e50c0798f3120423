"""What systems add to those they build on, and added data to a model; whom aggregates listen to; what asking costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from tandemrec.report.charts import line_plot
from tandemrec.report.leaderboard import decimal, is_rating, table_of
from tandemrec.report.segments import span


class Grid(NamedTuple):
    """A table: its title, header, rows of texts, and what is to be known about it."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str


def reranking_grids(results: Mapping[str, Any], card: Mapping[str, Any]) -> Iterator[Grid]:
    """The tables of a run; none where nothing builds on another system's answers or on added data.

    Args:
        results: its `results.json`.
        card: its `run_card.json`.
    """
    found = results.get("rerankings", [])
    if found:
        yield gain_grid(results["evaluation"]["headline"], found)
    for name in found[0]["segments"] if found else ():
        yield _by_group(results, name, found)
    for grid in (_weights(card["models"]), _asking(card["models"], is_rating(results))):
        if grid.rows:
            yield grid


def weights_plot(card: Mapping[str, Any]) -> Markup | None:
    """α_u from the least to the most active user, a line an aggregate; None where there are no aggregates."""
    chosen = [(name, report["notes"].get("weight_by_activity", [])) for name, report in card["models"].items()]
    weights = {name: {point["interactions"]: point["weight"] for point in profile} for name, profile in chosen}
    activities = sorted({count for profile in weights.values() for count in profile})
    drawn = {name: list(profile.values()) for name, profile in weights.items() if list(profile) == activities}
    if not activities or not drawn:
        return None
    names = [f"{count:,}" for count in activities]
    return line_plot(drawn, names, "training interactions of a user", "weight of the language model")


def reranking_markdown(results: Mapping[str, Any], card: Mapping[str, Any]) -> str:
    """The same as Markdown; empty without tables."""
    return grids_markdown(HEADING, reranking_grids(results, card))


def grids_markdown(heading: str, grids: Iterable[Grid]) -> str:
    """A section of tables; empty without any."""
    parts = [f"### {grid.title}\n\n{table_of(grid.header, grid.rows)}\n\n{grid.note}" for grid in grids]
    return "\n\n".join([f"## {heading}", *parts]) if parts else ""


HEADING = "What it adds to its base"


def gain_grid(metric: str, found: Sequence[Mapping[str, Any]]) -> Grid:
    """What every system adds to its base, between which bounds; of repeated trainings also what validation chose.

    Args:
        metric: of all figures.
        found: rows of `rerankings`, or their means over trainings, which have `chosen`; a system may have two bases.
    """
    bounded, chosen = (any(row.get(key) for row in found) for key in ("bounds", "chosen"))
    header = ["system", "base", "gain"]
    if bounded:
        header += ["candidates", "reach", "shuffled", "base's order", "its order", "best order"]
    header += ["chosen, training by training"] if chosen else []
    rows = []
    for row in found:
        shown = [row["system"], row["base"], _signed(row["gain"])]
        if bounded:
            bounds = row["bounds"]
            known = [bounds["shuffled"], bounds["base"], row["value"], bounds["ceiling"]] if bounds else []
            shown += ["" if row["depth"] is None else str(row["depth"]), f"{bounds['reach']:.4f}" if bounds else ""]
            shown += [f"{value:.4f}" for value in known] or [""] * 4
        rows.append([*shown, *(["; ".join(map(_choice, row["chosen"]))] if chosen else [])])
    note = f"Difference in {metric} over the same users ± standard error; positive is better."
    if bounded:
        note += (
            " Reach: share of the users whose target is among the candidates, which no order can exceed (HR of that "
            f"depth); {metric} of shuffled candidates, in the base's order, and with every target in reach first."
        )
        if not all(row["bounds"] for row in found):
            note += " Over a base whose candidates are not put in order there are no such bounds."
    if chosen:
        note += " Chosen on validation: whom it asks, and α₁ and α₂, or α of everybody or of every group of users."
    return Grid(f"Gain in {metric}", header, rows, note)


def _choice(chosen: Mapping[str, Any]) -> str:
    """Whom an aggregate asks, and with which weights."""
    weighting = chosen["weighting"]
    words = {
        "adaptive": f" α₁ {weighting['max_llm_weight']:g} α₂ {weighting['weight_floor']:g}",
        "uniform": f" α {weighting['max_llm_weight']:g}",
        "fitted": f" α {', '.join(f'{weight:g}' for weight in weighting['bucket_weights'])}",
        "none": " alone",
    }
    return f"{chosen['llm']}{words[weighting['method']]}"


def _by_group(results: Mapping[str, Any], name: str, found: list[Mapping[str, Any]]) -> Grid:
    metric, having = results["evaluation"]["headline"], [row for row in found if name in row["segments"]]
    groups = having[0]["segments"][name]
    header = ["system", "base", *(f"{span(group)} (n={group['n']:,})" for group in groups)]
    rows = [[row["system"], row["base"], *(_signed(group) for group in row["segments"][name])] for row in having]
    return Grid(f"Gain in {metric} by {name}", header, rows, "Groups by training interactions; positive is better.")


def _weights(models: Mapping[str, Any]) -> Grid:
    """Weight of the language model over activity, of every aggregate."""
    chosen = {name: report["notes"] for name, report in models.items() if "weight_by_activity" in report["notes"]}
    shown = [point["interactions"] for notes in chosen.values() for point in notes["weight_by_activity"]]
    columns = sorted(set(shown))
    rows = []
    for name, notes in chosen.items():
        weight = {point["interactions"]: f"{point['weight']:.3f}" for point in notes["weight_by_activity"]}
        rows.append([name, notes["llm"], notes["weighting"]["method"], *(weight.get(n, "") for n in columns)])
    note = "Weight α of the language model for a user of so many training interactions, chosen on validation."
    return Grid("Weight by activity", ["system", "asks", "weights", *(f"{n:,}" for n in columns)], rows, note)


def _asking(models: Mapping[str, Any], rated: bool) -> Grid:
    """What one user's question costs, as it was measured on validation users after tuning."""
    asked = {name: report["notes"]["answers"] for name, report in models.items() if "answers" in report["notes"]}
    columns: list[tuple[str, str, str]] = [
        ("users", "users asked", ",.0f"),
        ("tokens_per_user", "tokens a user", ",.0f"),
        ("seconds_per_user", "seconds a user", ".3g"),
        ("unreadable_share", "unreadable", ".1%"),
        ("named_per_answer", "named", ".2f"),
        ("inventions_per_answer", "invented", ".2f"),
        ("duplicates_per_answer", "repeated", ".2f"),
    ]
    kept = [column for column in columns if any(column[0] in answers for answers in asked.values())]
    rows = [
        [name, *(format(answers[key], form) if key in answers else "" for key, _, form in kept)]
        for name, answers in asked.items()
    ]
    what = "one rating of each" if rated else "all candidates of each"
    note = (
        f"Measured on validation users after tuning, {what}: tokens read and written. Unreadable: of the answers that "
        "were written."
    )
    return Grid("What asking costs", ["system", *(title for _, title, _ in kept)], rows, note)


def _signed(figure: Mapping[str, Any]) -> str:
    return f"{decimal(figure['mean'], '+')} ± {figure['standard_error']:.4f}"
