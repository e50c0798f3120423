"""The report of a run or a comparison: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

from markupsafe import Markup

from tandemrec.report.beyond import MEANING, beyond_rows
from tandemrec.report.charts import SERIES, interval_plot, line_plot, scatter_plot
from tandemrec.report.choices import selection_view
from tandemrec.report.comparison import (
    answer,
    board_table,
    how,
    judged_on,
    metrics_table,
    pair_table,
    runs_table,
)
from tandemrec.report.cost import Cost, cost_note, cost_rows, duration, fronts, machines_note, memory, money, run_costs
from tandemrec.report.leaderboard import filled, is_rating
from tandemrec.report.plan import foretold
from tandemrec.report.prepared import HEADING as PREPARED
from tandemrec.report.prepared import origins, prepared_grids
from tandemrec.report.reranking import HEADING, reranking_grids, weights_plot
from tandemrec.report.segments import segment_grids, span
from tandemrec.report.students import STUDENTS_NOTE, student_rows
from tandemrec.report.validated import HEADING as CHOSEN
from tandemrec.report.validated import chosen_grids, chosen_over_runs

Table = tuple[list[str], list[list[str]]]

STAGES_NOTE = (
    "Predicted: before the stage began, for the epochs it took. Peak memory is that of the whole process, predicted "
    "memory that of the stage alone, what lies on an accelerator apart."
)

BOOKKEEPING = {"epoch", "seconds"}
"""Columns of a training's curve that are not drawn."""


def run_page(results: Mapping[str, Any], card: Mapping[str, Any], price: float | None = None) -> str:
    """The report of a finished run.

    Args:
        results: its `results.json`.
        card: its `run_card.json`.
        price: of an hour of the machine, for the costs.
    """
    costs = run_costs(results, card, price)
    view = _judgement(results) | _cost_view(results, costs, price) | _details(results, card)
    view |= {
        "title": results["name"],
        "question": results["description"] or _question(results),
        "tails": list(_tails(results)),
        "students": student_rows(results, card, costs),
        "students_note": STUDENTS_NOTE,
        "protocol": _protocol(results),
        "cleaning": _cleaning(results["cleaning"]),
        "card_title": "Run card",
        "card": _card(results, card),
        "stages_title": "Stages",
        "stages": _stages(card["stages"], price),
        "stages_note": STAGES_NOTE,
    }
    return _render(view)


def _details(results: Mapping[str, Any], card: Mapping[str, Any]) -> dict[str, Any]:
    """What can be told of one run alone: what systems were given, chose, learned and said."""
    headline = results["evaluation"]["headline"]
    return selection_view(card) | {
        "prepared_title": PREPARED,
        "prepared": list(prepared_grids(card)),
        "reranking_title": HEADING,
        "reranking": list(reranking_grids(results, card)),
        "weights": weights_plot(card),
        "beyond": beyond_rows(results),
        "beyond_note": f"Lists of {headline.partition('@')[2]}. "
        + "; ".join(f"{name}: {meaning}" for name, meaning in MEANING.items())
        + ".",
        "curves": list(_curves(card["models"])),
        "chosen_title": CHOSEN,
        "chosen": list(chosen_grids(chosen_over_runs([card]))),
        "users": [_user(user, results) for user in results["examples"]],
        "users_note": "Figures are predicted ratings."
        if is_rating(results)
        else "Place of the best target, then the first titles recommended; targets are bold.",
        "wrote": [
            [row["system"], f"{row['outputs']['exact_share']:.1%}", f"{row['outputs']['distinct']:,}"]
            for row in results["leaderboard"]
            if row["outputs"]
        ],
    }


def comparison_page(
    results: Mapping[str, Any],
    first: tuple[Mapping[str, Any], Mapping[str, Any]],
    shown: Mapping[str, Any] | None = None,
) -> str:
    """The report of a comparison of runs.

    Args:
        results: its `compare.json`.
        first: `results.json` and `run_card.json` of the first run, which stands for all in what is told of single runs.
        shown: what replaces parts of the page or joins them: title, question, answer, and a paper's figures and claims.
    """
    names = list(dict.fromkeys(run["name"] for run in results["runs"]))
    view = _judgement(results) | _cost_view(results, results["costs"], results["price"]) | _details(*first)
    view |= {
        "details_note": f"What is told of single runs below is of {results['runs'][0]['path']}."
        if len(results["runs"]) > 1
        else "",
        "title": f"Comparison of {', '.join(names)}",
        "question": _question(results),
        "tails": list(_tails(results)),
        "tails_note": "" if any(segment_grids(results)) else _no_tails(results["evaluation"]["headline"]),
        "protocol": _protocol(results),
        "card_title": "Runs" if len(results["runs"]) == 1 else "Runs; the card is that of the first",
        "card": _card(*first),
        "stages_title": f"{len(results['runs'])} runs",
        "stages": runs_table(results),
    }
    return _render(view | dict(shown or {}))


def _render(view: Mapping[str, Any]) -> str:
    from jinja2 import Environment

    template = (resources.files("tandemrec") / "report" / "page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(view) + "\n"


def _judgement(results: Mapping[str, Any]) -> dict[str, Any]:
    """What runs and comparisons share: the answer and the leaderboard."""
    metric = results["evaluation"]["headline"]
    intervals = [
        (row["system"], row["metrics"][metric]["mean"], row["low"], row["high"]) for row in results["leaderboard"]
    ]
    return {
        "answer": answer(results),
        "intervals": interval_plot(intervals, metric),
        "level": f"{results['settings']['level']:.0%}",
        "judged": judged_on(results).capitalize(),
        "board": board_table(results),
        "metrics": metrics_table(results),
        "pairs": pair_table(results) if results["pairs"] else None,
        "how": how(results),
    }


def _cost_view(results: Mapping[str, Any], costs: Mapping[str, Cost], price: float | None) -> dict[str, Any]:
    if not costs:
        return {}
    metric, on_front = results["evaluation"]["headline"], fronts(results, costs)
    plots = []
    for key, label, caption in (
        ("seconds", "training", "Training time of a system with all it builds on, logarithmic."),
        ("seconds_per_1000", "inference", "Inference for 1,000 users, logarithmic."),
    ):
        points = [
            (row["system"], max(costs[row["system"]][key] or 0.0, 1e-3), row["metrics"][metric]["mean"])
            for row in results["leaderboard"]
            if row["system"] in costs
        ]
        marked = [(*point, point[0] in on_front[key]) for point in points]
        plots.append((scatter_plot(marked, label, metric, duration), f"{caption} Filled: unbeaten."))
    return {
        "pareto": plots,
        "costs": cost_rows(results, costs),
        "cost_note": cost_note(price),
        "machines_note": machines_note(results),
    }


def _tails(results: Mapping[str, Any]) -> Iterator[tuple[Markup, str, list[str], list[list[str]]]]:
    """Plot, caption and table of every grouping."""
    metric, board = results["evaluation"]["headline"], results["leaderboard"]
    for name, header, rows in segment_grids(results):
        groups = board[0]["segments"][name]
        series = {system: [figure["mean"] for figure in figures] for system, *figures in rows}
        plot = line_plot(series, [span(group) for group in groups], f"{name}: training interactions", metric)
        left_out = f" The first {SERIES} of {len(series)} systems." if len(series) > SERIES else ""
        caption = f"{metric} by {name}, in groups of about equal size; cold: none in training.{left_out}"
        figures = [[system, *(f"{f['mean']:.4f} ± {f['standard_error']:.4f}" for f in row)] for system, *row in rows]
        yield plot, caption, header, figures


def _no_tails(metric: str) -> str:
    """Why a comparison does not say where systems are right."""
    return (
        f"Groups of users and items are left out: the runs did not all cut them by {metric}, but by their own headline "
        f"metric. `tandem run RECIPE --set evaluation.headline={metric}` judges a run again and trains nothing."
    )


def _curves(models: Mapping[str, Any]) -> Iterator[tuple[str, list[Markup], str]]:
    """Name, plots and a note of every training of several epochs."""
    for name, report in models.items():
        curve = report["curve"]
        if len(curve) < 2:
            continue
        across = "epoch" if "epoch" in curve[0] else next(iter(curve[0]))
        drawn = [key for key in curve[0] if key not in BOOKKEEPING | {across} and all(key in row for row in curve)]
        places = [f"{row[across]:g}" for row in curve]
        best = None if report["best_epoch"] is None else _place(places, f"{report['best_epoch']:g}")
        plots = [line_plot({key: [row[key] for row in curve]}, places, across, key, best) for key in drawn]
        kept = f" Epoch {report['best_epoch']} was kept (marked)." if best is not None else ""
        yield name, plots, f"{duration(report['seconds'])} of training.{kept}"


def _place(names: Sequence[str], wanted: str) -> int | None:
    return names.index(wanted) if wanted in names else None


def _user(user: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """The user with what systems said in the order of the leaderboard, and places as they are shown."""
    said = {}
    for name, words in ((row["system"], user["said"][row["system"]]) for row in results["leaderboard"]):
        place = words.get("place")
        said[name] = dict(words) | {"shown_place": f"#{place:g}" if place is not None else "–"}
    return dict(user) | {"said": said}


def _protocol(results: Mapping[str, Any]) -> list[str]:
    data, split = results["data"], results["split"]
    parts = ", ".join(f"{split[part]:,} {part} examples" for part in ("train", "valid", "test"))
    return [
        f"{data['name']}: {data['users']:,} users, {data['items']:,} items, {data['interactions']:,} interactions; "
        f"fingerprint {data['fingerprint'][:12]}.",
        f"Split: {split['protocol']}; {parts}.",
        f"Leak check: {'; '.join(split['leaks'])}.",
        results["evaluation"]["protocol"],
    ]


def _cleaning(rows: Sequence[Mapping[str, Any]]) -> Table | None:
    shown = [[f"{v:,}" if isinstance(v, int) else str(v) for v in row.values()] for row in rows]
    return (list(rows[0]), shown) if rows else None


def _card(results: Mapping[str, Any], card: Mapping[str, Any]) -> list[str]:
    machine = card["hardware"]
    accelerators = ", ".join(machine["accelerators"]) or "no accelerator"
    return [
        f"Seed {results['seed']}, training seed {results['training_seed']}.",
        *origins(card),
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {accelerators}; "
        f"{machine['system']}, Python {machine['python']}; peak memory {card['peak_memory_mib']:,.0f} MiB.",
        ", ".join(f"{name} {version}" for name, version in card["packages"].items() if version) + ".",
    ]


def _question(results: Mapping[str, Any]) -> str:
    """What a run or a comparison asks that does not say itself."""
    return f"Which of {len(results['leaderboard'])} systems is best on {results['data']['name']}, and how sure is that?"


def _stages(stages: Sequence[Mapping[str, Any]], price: float | None) -> Table:
    """A row a stage; columns without any figure are left out."""
    header = ["stage", "time", "predicted", "processor time", "accelerator time"]
    header += ["peak memory", "predicted memory", "peak accelerator", "predicted accelerator"]
    header += ["tokens", "predicted tokens", "fees", "money"]
    rows = [
        [
            stage["stage"],
            duration(stage["seconds"]),
            foretold(stage),
            duration(stage["cpu_seconds"]),
            duration(stage["accelerator_seconds"] or None),
            memory(stage["peak_memory_mib"]),
            memory(_foreseen(stage, "memory_mib")),
            memory(stage["accelerator_peak_mib"] or None),
            memory(_foreseen(stage, "accelerator_mib") or None),
            "" if stage["tokens"] is None else f"{stage['tokens']:,}",
            "" if not _foreseen(stage, "tokens") else f"{_foreseen(stage, 'tokens'):,.0f}",
            money(stage.get("fees") or None),
            money(None if price is None else stage["seconds"] / 3600 * price + (stage.get("fees") or 0.0)),
        ]
        for stage in stages
    ]
    return filled(header, rows)


def _foreseen(stage: Mapping[str, Any], key: str) -> float | None:
    """A prediction for a stage; None where nobody made it."""
    value: float | None = (stage.get("foreseen") or {}).get(key)
    return value
