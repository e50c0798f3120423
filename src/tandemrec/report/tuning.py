"""The trials of a search: a line each for the terminal, a Markdown page, and a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.table import Table

from tandemrec.report.leaderboard import table_of

COLUMNS = 3
"""Panels beside each other."""

MARKS = {"complete": ("o", "tab:blue"), "pruned": ("x", "tab:gray")}
"""State of a trial → its mark and colour; failed ones have no value to be shown."""


class ShownTrial(Protocol):
    """What a line tells of a trial."""

    @property
    def number(self) -> int:
        """From 1."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Searched keys and their values."""

    @property
    def state(self) -> str:
        """complete, pruned or failed."""

    @property
    def value(self) -> float | None:
        """The headline metric."""

    @property
    def reason(self) -> str:
        """Why it failed."""


def trial_line(trial: ShownTrial, trials: int) -> str:
    """`trial 3 of 20: 0.1234, dropout=0.2`."""
    outcome = f"failed: {trial.reason}" if trial.value is None else f"{trial.value:.4f}"
    early = " (ended early)" if trial.state == "pruned" else ""
    settings = ", ".join(f"{key}={_shown(value)}" for key, value in trial.settings.items())
    return f"trial {trial.number} of {trials}: {outcome}{early}, {settings}"


def tuning_table(results: Mapping[str, Any]) -> Table:
    """The best setting."""
    best = results["best"]
    table = Table(title=f"{results['name']}: {results['model']}, best of {_counts(results)}")
    table.add_column("key")
    table.add_column("value", justify="right")
    for key, value in best["settings"].items():
        table.add_row(key, _shown(value))
    table.add_row(f"{results['headline']} on validation", f"{best['value']:.4f}", style="bold")
    return table


def tuning_page(results: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Every trial, best first, as Markdown."""
    headline, keys = results["headline"], list(results["best"]["settings"])
    sign = 1 if results["lower_is_better"] else -1
    order = sorted(rows, key=lambda row: (row[headline] is None, sign * (row[headline] or 0.0)))
    columns = ["trial", "state", headline, "best_epoch", "epochs", "seconds", *keys]
    cells = [[_shown(row[column]) for column in columns] for row in order]
    failed = [f"- Trial {row['trial']} failed: {row['reason']}" for row in rows if row["reason"]]
    parts = [
        f"# {results['name']}: settings of {results['model']}",
        f"{_counts(results)[0].upper()}{_counts(results)[1:]}, judged on the validation part alone. "
        f"{results['protocol']}",
        table_of(columns, cells),
        *(["\n".join(failed)] if failed else []),
        "![Values against trials and settings](trials.svg)",
    ]
    return "\n\n".join(parts) + "\n"


def tuning_plot(results: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write an SVG: the headline metric against the trial, with the best so far, and against every searched key."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    headline, space = results["headline"], results["space"]
    shown = [row for row in rows if row[headline] is not None]
    panels = len(space) + 1
    height = -(-panels // COLUMNS)
    # A salt of its own instead of a random one: equal searches draw equal files.
    with mpl.rc_context({"svg.hashsalt": "tandemrec", "svg.fonttype": "none"}):
        figure = Figure(figsize=(4.2 * min(panels, COLUMNS), 3.2 * height), layout="constrained")
        axes = figure.subplots(height, min(panels, COLUMNS), squeeze=False, sharey=True).ravel()
        for axis in axes[panels:]:
            axis.remove()
        _scatter(axes[0], shown, "trial", headline)
        _best_so_far(axes[0], results, shown)
        for axis, (key, dimension) in zip(axes[1:panels], space.items(), strict=True):
            _scatter(axis, shown, key, headline, categorical="choices" in dimension)
            if dimension.get("log"):
                axis.set_xscale("log")
        axes[0].legend()
        figure.suptitle(f"{results['name']}: {results['model']}, {headline} on validation")
        figure.savefig(path, format="svg", metadata={"Date": None})


def _scatter(
    axis: Any, rows: Sequence[Mapping[str, Any]], key: str, headline: str, *, categorical: bool = False
) -> None:
    names = sorted({str(row[key]) for row in rows}) if categorical else []
    for state, (mark, colour) in MARKS.items():
        some = [row for row in rows if row["state"] == state]
        if some:
            place = [names.index(str(row[key])) if categorical else row[key] for row in some]
            axis.scatter(place, [row[headline] for row in some], marker=mark, color=colour, label=state)
    if categorical:
        axis.set_xticks(range(len(names)), names)
    axis.set_xlabel(key)
    axis.grid(alpha=0.3)


def _best_so_far(axis: Any, results: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    complete = [row for row in rows if row["state"] == "complete"]
    choose = min if results["lower_is_better"] else max
    values = [row[results["headline"]] for row in complete]
    best = [choose(values[: place + 1]) for place in range(len(values))]
    axis.step([row["trial"] for row in complete], best, where="post", color="tab:orange", label="best so far")
    axis.set_ylabel(results["headline"])


def _counts(results: Mapping[str, Any]) -> str:
    states = results["states"]
    early = f", {states['pruned']} of them ended early" if states["pruned"] else ""
    return f"{sum(states.values())} trials{early}" + (f", {states['failed']} failed" if states["failed"] else "")


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
