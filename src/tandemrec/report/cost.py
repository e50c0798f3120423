"""Cost beside accuracy, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tandemrec.evaluation.cost import pareto_front, system_cost
from tandemrec.report.leaderboard import filled, is_rating, table_of

Cost = Mapping[str, float | None]


def run_costs(results: Mapping[str, Any], card: Mapping[str, Any], price: float | None = None) -> dict[str, Cost]:
    """The cost of every system of a run; empty for cards that do not say."""
    n = results["users"]
    found = {row["system"]: system_cost(card, row["system"], users=n, price=price) for row in results["leaderboard"]}
    return {system: cost for system, cost in found.items() if cost is not None}


def fronts(results: Mapping[str, Any], costs: Mapping[str, Cost]) -> dict[str, set[str]]:
    """Systems that no other beats, by `seconds` of training and by `seconds_per_1000` users of inference."""
    headline = results["evaluation"]["headline"]
    board = [row for row in results["leaderboard"] if row["system"] in costs]
    values = [row["metrics"][headline]["mean"] for row in board]
    found = {}
    for key in ("seconds", "seconds_per_1000"):
        spent = [costs[row["system"]][key] or 0.0 for row in board]
        kept = pareto_front(spent, values, lower_is_better=is_rating(results))
        found[key] = {row["system"] for row, unbeaten in zip(board, kept, strict=True) if unbeaten}
    return found


def cost_rows(results: Mapping[str, Any], costs: Mapping[str, Cost]) -> tuple[list[str], list[list[str]]]:
    """Header and a row a system, in the order of the leaderboard; columns without any figure are left out."""
    headline, on_front = results["evaluation"]["headline"], fronts(results, costs)
    means = {row["system"]: row["metrics"][headline]["mean"] for row in results["leaderboard"]}
    words = {"training": "seconds", "inference": "seconds_per_1000"}
    header = [
        *("system", headline, "training", "processor time", "accelerator time", "tokens", "peak memory"),
        *("peak accelerator", "money", "1,000 users", "money, 1,000 users", "unbeaten in"),
    ]
    rows = [
        [
            system,
            f"{means[system]:.4f}",
            duration(cost["seconds"]),
            duration(cost["cpu_seconds"]),
            duration(cost["accelerator_seconds"] or None),
            count(cost["tokens"]),
            memory(cost["peak_memory_mib"]),
            memory(cost["accelerator_peak_mib"] or None),
            money(cost.get("money")),
            duration(cost["seconds_per_1000"]),
            money(cost.get("money_per_1000")),
            " and ".join(word for word, key in words.items() if system in on_front[key]),
        ]
        for system, cost in costs.items()
    ]
    return filled(header, rows)


_NOTE = (
    "Training is every stage a system took, those of the language model and of the systems it builds on included; "
    "inference is loading and judging. Unbeaten: no other system is as good for less or better for no more. Stages "
    "share the machine with whatever else ran on it. Money is "
)


def cost_note(price: float | None) -> str:
    """What stands in the table, at a price of an hour of the machine."""
    machine = "" if price is None else f"the machine's time at {price:g} an hour, and "
    return f"{_NOTE}{machine}what chat endpoints charged for answers that were not paid before."


def machines_note(results: Mapping[str, Any]) -> str:
    """A warning where the compared runs are of different machines; empty for one machine, and for a single run."""
    machines = dict.fromkeys(run["machine"] for run in results.get("runs", ()))
    if len(machines) < 2:
        return ""
    return (
        f"The runs are of {len(machines)} different machines: {'; '.join(machines)}. Their times differ by the machine "
        "too, so costs, and who is unbeaten, can be believed between systems of one machine only."
    )


def cost_markdown(results: Mapping[str, Any], costs: Mapping[str, Cost], price: float | None = None) -> str:
    """The table with its note; empty where nothing is known."""
    if not costs:
        return ""
    note = f"{cost_note(price)} {machines_note(results)}".rstrip()
    return f"## Cost\n\n{table_of(*cost_rows(results, costs))}\n\n{note}"


def mean_cost(costs: Sequence[Cost]) -> Cost:
    """Of repetitions of a training; None for what was not measured in all of them."""
    keys = [key for key in costs[0] if all(key in cost for cost in costs)]
    mean: dict[str, float | None] = {}
    for key in keys:
        values = [cost[key] for cost in costs]
        known = [value for value in values if value is not None]
        mean[key] = sum(known) / len(known) if len(known) == len(values) else None
    return mean


def duration(seconds: float | None) -> str:
    """`12 ms`, `0.3 s`, `45 s`, `12.5 min`, `3.2 h`; empty for None."""
    if seconds is None:
        return ""
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def count(value: float | None) -> str:
    """`1.2 M`, `45 k`; empty for none."""
    if not value:
        return ""
    return f"{value / 1e6:.1f} M" if value >= 1e6 else f"{value / 1e3:.0f} k"


def memory(mib: float | None) -> str:
    """MiB, or GiB from one on; empty for None."""
    if mib is None:
        return ""
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"


def money(value: float | None) -> str:
    """Two digits, or whole units from ten on, and no less than a hundredth; empty for None."""
    if value is None:
        return ""
    if 0 < value < 0.01:
        return "< 0.01"
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"
