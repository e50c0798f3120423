"""Pictures of a selection, as SVG files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from tandemrec.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 5000
"""Most samples of a scatter that were not chosen; an SVG holds every point. All chosen ones are drawn."""

REACHED = ("users", "items", "categories")
GREY, BLUE, ORANGE = "#b8b8b8", "#1f5fa8", "#d9730d"


def write_selection_plots(out: Path, results: Mapping[str, Any]) -> list[Path]:
    """Draw what `tandem select` wrote into the folder `out`; the same bytes for the same selection.

    `scatter-NAME.svg`, influence against effort, and `groups-NAME.svg`, size and budget of every score group, of the
    selectors that have them; `overlap.svg` and `coverage.svg` of all.

    Raises:
        InputError: if matplotlib is not installed.
    """
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise InputError("plots need the package matplotlib (pip install 'tandemrec[plots]')") from None
    written = []
    # Without a salt the ids inside an SVG are random; without a backend of its own a screen would be asked for.
    with matplotlib.rc_context({"svg.hashsalt": "tandemrec", "svg.fonttype": "none", "font.size": 9}):
        for name, figure in _figures(out, results):
            path = out / f"{name}.svg"
            figure.savefig(path, format="svg", metadata={"Date": None}, bbox_inches="tight")
            written.append(path)
    return written


def _figures(out: Path, results: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    for row in results["overlap"]:
        name = row["selector"]
        frame = pl.read_parquet(out / f"{name}.all.parquet")
        if {"influence", "effort"} <= set(frame.columns):
            yield f"scatter-{name}", _scatter(name, frame)
    for name, groups in results["groups"].items():
        yield f"groups-{name}", _groups(name, groups)
    yield "overlap", _overlap(results["overlap"])
    yield "coverage", _coverage(results["coverage"])


def _scatter(name: str, frame: pl.DataFrame) -> Figure:
    """Influence against effort of all samples, the chosen ones in front."""
    figure, axes = _canvas(5.0, 4.0)
    others = frame.filter(~pl.col("chosen"))
    for part, colour, size, label in (
        (others.sample(min(SHOWN, others.height), seed=0), GREY, 3, f"not chosen ({others.height:,})"),
        (frame.filter("chosen"), BLUE, 7, f"chosen ({frame['chosen'].sum():,})"),
    ):
        x, y = (part[column].to_numpy() for column in ("influence", "effort"))
        axes.scatter(x, y, s=size, color=colour, linewidths=0, alpha=0.7, label=label)
    axes.set(xlabel="influence on the surrogate's risk", ylabel="effort of the language model", title=name)
    axes.legend(frameon=False, markerscale=2)
    return figure


def _groups(name: str, groups: list[Mapping[str, Any]]) -> Figure:
    """How many samples every score group has, and how many of them are chosen."""
    figure, axes = _canvas(6.0, 3.2)
    low = np.array([group["low"] for group in groups])
    width = np.array([group["high"] for group in groups]) - low
    for key, colour, label in (("size", GREY, "samples"), ("budget", BLUE, "chosen")):
        axes.bar(low, [group[key] for group in groups], width, align="edge", color=colour, label=label)
    axes.set(xlabel="overall score", ylabel="samples (logarithmic)", title=name, yscale="log")
    axes.legend(frameon=False)
    return figure


def _overlap(rows: list[Mapping[str, Any]]) -> Figure:
    """Share of each selector's samples (rows) that another one (columns) chose too."""
    names = [row["selector"] for row in rows]
    share = np.array([[row[name] for name in names] for row in rows])
    figure, axes = _canvas(1.8 + 0.45 * len(names), 1.5 + 0.4 * len(names))
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), value in np.ndenumerate(share):
        axes.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.6 else "black", size=7)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_title("share of the row's samples that the column chose too")
    return figure


def _coverage(rows: list[Mapping[str, Any]]) -> Figure:
    """Users, items and categories that are reached, and targets by popularity."""
    from matplotlib.figure import Figure

    chosen = rows[1:]
    names, places = [row["selector"] for row in chosen], np.arange(len(chosen))
    figure = Figure(figsize=(9.0, 1.2 + 0.3 * len(chosen)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    reached = [key for key in REACHED if key in chosen[0]]
    for number, (key, colour) in enumerate(zip(reached, (BLUE, ORANGE, GREY), strict=False)):
        height = 0.8 / len(reached)
        left.barh(places + number * height - 0.4, [row[key] for row in chosen], height, color=colour, label=key)
    left.set(xlabel="share of all that the samples reach", xlim=(0, 1))
    left.set_yticks(places, names)
    left.invert_yaxis()
    left.legend(frameon=False)
    before = np.zeros(len(rows))
    parts = sorted(key for key in rows[0] if key.startswith("popular_"))
    for number, key in enumerate(parts):
        shares = np.array([row[key] for row in chosen])
        shade = str(0.15 + 0.7 * number / max(1, len(parts) - 1))
        right.barh(places, shares, 0.7, before[1:], color=shade, label=key.replace("popular_", "fifth "))
        before[1:] += shares
    right.set(xlabel="share of the targets, most popular fifth of the items first", xlim=(0, 1))
    right.legend(frameon=False, ncols=len(parts), fontsize=6, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()
