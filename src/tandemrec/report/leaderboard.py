"""The leaderboard of a run, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table


def headline_metrics(results: Mapping[str, Any]) -> list[str]:
    """Metric names of a run in the order of the table."""
    rows = results["leaderboard"]
    return list(rows[0]["metrics"]) if rows else []


def decimal(value: float, sign: str = "") -> str:
    """Four decimals, no minus before a zero; `sign="+"` writes every sign, of what is rounded to zero too."""
    return f"{value:+.4f}" if sign else f"{round(value, 4) + 0.0:.4f}"


def cell(metric: Mapping[str, float]) -> str:
    """`.1234 ± .0012`: mean and standard error over users."""
    return f"{metric['mean']:.4f} ± {metric['standard_error']:.4f}"


def judged(results: Mapping[str, Any]) -> str:
    """How many questions of how many users were judged."""
    n, users = results["evaluation"]["n"], results["users"]
    asked = f"{n:,} ratings of " if is_rating(results) else "" if n == users else f"{n:,} examples of "
    return f"{asked}{users:,} users"


def terminal_table(results: Mapping[str, Any]) -> Table:
    """One row a system, best first; the standard error stands beside the headline metric, the best values are bold.

    Only the smallest cutoff and the headline's are shown, and no reciprocal ranks, so that the lines fit a terminal;
    the Markdown table has everything.
    """
    headline, metrics = results["evaluation"]["headline"], _shown(results)
    rates = is_rating(results)
    table = Table(title=f"{results['name']}: {results['evaluation']['part']} part, {judged(results)}")
    table.add_column("system", no_wrap=True, max_width=32)
    for metric in metrics:
        table.add_column(metric, justify="right", no_wrap=True)
    table.add_column(_last_header(results, "exact"), justify="right", no_wrap=True)
    choose = min if rates else max
    best = {metric: choose(row["metrics"][metric]["mean"] for row in results["leaderboard"]) for metric in metrics}
    for row in results["leaderboard"]:
        values = []
        for metric in metrics:
            figure = row["metrics"][metric]
            text = f"{figure['mean']:.4f}"
            if metric == headline or rates:
                text += f" ±{figure['standard_error']:.4f}"
            values.append(f"[bold]{text}[/bold]" if figure["mean"] == best[metric] else text)
        table.add_row(row["system"], *values, _last(row, results))
    return table


def markdown_table(results: Mapping[str, Any]) -> str:
    """The leaderboard as a Markdown table."""
    metrics = headline_metrics(results)
    return table_of(
        ["system", *metrics, _last_header(results, "exact titles")],
        [
            [row["system"], *(cell(row["metrics"][metric]) for metric in metrics), _last(row, results)]
            for row in results["leaderboard"]
        ],
    )


def table_of(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; bars inside cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(value).replace("|", "\\|") for value in line) + " |" for line in lines)


def filled(header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """A table without the columns that hold no text; the first one stays."""
    kept = [place for place in range(len(header)) if not place or any(row[place] for row in rows)]
    return [header[place] for place in kept], [[row[place] for place in kept] for row in rows]


def is_rating(results: Mapping[str, Any]) -> bool:
    """Whether the run predicts ratings; else it ranks."""
    return bool(results["evaluation"].get("task") == "rating")


def _shown(results: Mapping[str, Any]) -> list[str]:
    headline, measured = results["evaluation"]["headline"], headline_metrics(results)
    if is_rating(results):
        return measured
    cutoffs = {min(_cutoff(name) for name in measured), _cutoff(headline)}
    return [name for name in measured if name == headline or (_cutoff(name) in cutoffs and not name.startswith("mrr"))]


def _cutoff(metric: str) -> int:
    return int(metric.partition("@")[2])


def _last_header(results: Mapping[str, Any], ranking: str) -> str:
    return f"p against {results['evaluation']['reference']}" if is_rating(results) else ranking


def _last(row: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Share of exact titles; of a rating run the p-value of the headline error against the reference, corrected."""
    if is_rating(results):
        asked = {row["system"], results["evaluation"]["reference"]}
        tests = [pair for pair in results["pairs"] if {pair["system"], pair["other"]} == asked]
        return f"{tests[0]['p_holm']:.2g}" if tests else ""
    outputs = row.get("outputs")
    return f"{outputs['exact_share']:.1%}" if outputs else ""
