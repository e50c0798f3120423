"""A plan for the terminal, and predictions beside measurements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from tandemrec.report.cost import count, duration, money


def plan_table(plan: Mapping[str, Any]) -> Table:
    """A row a stage; times with ≤ are those of all epochs, which validation may cut short."""
    priced = plan["price"] is not None
    table = Table(title=f"{plan['name']} on {plan['device']['title']}")
    table.add_column("stage", no_wrap=True, overflow="ellipsis")
    beside = ("GiB beside",) if plan["total"]["host_memory_gib"] else ()
    for column in ("time", *(("money",) if priced else ()), "epochs", "tokens", "FLOP", "GiB", *beside):
        table.add_column(column, justify="right", no_wrap=True, min_width=len(column) + 1)
    for row in plan["stages"]:
        table.add_row(row["stage"], *_cells(row, priced, bool(beside)), style=None if row["fits"] else "red")
    table.add_section()
    total = plan["total"]
    partly = bool(total["unknown"] or total["untimed"])
    whole = total | {"state": "to make", "epochs": 0, "at_most": total["at_most"] and not partly}
    cells = _cells(whole, priced, bool(beside))
    # What is left out makes the sum no bound of the whole.
    table.add_row("all", *[f"{cell} + ?" if partly and at < 1 + priced else cell for at, cell in enumerate(cells)])
    return table


def _cells(row: Mapping[str, Any], priced: bool, beside: bool) -> list[str]:
    if row["state"] != "to make":
        return [row["state"], *[""] * (4 + priced + beside)]
    bound = "≤ " if row["at_most"] else ""
    return [
        "?" if row["seconds"] is None else bound + duration(row["seconds"]),
        *(("?" if row["money"] is None else _bounded(bound, money(row["money"])),) if priced else ()),
        str(row["epochs"] or ""),
        count(row["read_tokens"] + row["written_tokens"]),
        _operations(row["flops"]),
        *(f"{row[key]:.1f}" if row[key] else "" for key in ("memory_gib", *(("host_memory_gib",) if beside else ()))),
    ]


def _lacking(row: Mapping[str, Any], plan: Mapping[str, Any]) -> Iterator[str]:
    """What a stage needs more than there is: of the device, or of the processor beside it."""
    names = plan["device"]["name"], "the processor beside it"
    for key, device, name in zip(("memory_gib", "host_memory_gib"), (plan["device"], plan["host"]), names, strict=True):
        if device is not None and row[key] > device["memory"] / 2**30:
            yield f"{row[key]:.1f} GiB, {name} has {device['memory'] / 2**30:.1f}"


def _grouped(rows: Sequence[Mapping[str, Any]], state: str) -> dict[str, str]:
    """Stages of a state by the reason why something of them is unknown."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["state"] == state and row["reason"] is not None:
            found.setdefault(row["reason"], []).append(row["stage"])
    return {reason: ", ".join(stages) for reason, stages in found.items()}


def _operations(flops: float) -> str:
    """`3.9 E`, `48 T`, `0.2 T`; empty for what is nothing beside a second of any device."""
    for unit, size in {"E": 1e18, "P": 1e15, "T": 1e12}.items():
        if flops >= size:
            return f"{flops / size:.1f} {unit}" if flops < 9.95 * size else f"{flops / size:.0f} {unit}"
    return f"{flops / 1e12:.1f} T" if flops >= 5e10 else ""


def _bounded(bound: str, value: str) -> str:
    """A value that is below a bound already needs no other."""
    return value if value.startswith("<") else bound + value


def plan_notes(plan: Mapping[str, Any]) -> Iterator[str]:
    """What does not fit and what would, what nobody foresees, and how sure the rates are."""
    device = plan["device"]
    for row in plan["stages"]:
        if not row["fits"]:
            lacking = " and ".join(_lacking(row, plan))
            yield f"{row['stage']} needs {lacking}; it would fit with {row['advice']}"
    if plan["host"] is not None and plan["total"]["host_memory_gib"]:
        yield "GiB beside: memory of the processor beside the accelerator, for what libraries compute nowhere else."
    if plan["total"]["at_most"]:
        yield "≤: with all epochs of the recipe; early stopping may end a training before."
    for reason, stages in _grouped(plan["stages"], "unknown").items():
        yield f"Nobody foresees {stages}: {reason}. They are not in the sum."
    for row in plan["stages"]:
        if row["requests"]:
            fees = f" for {money(row['fees'])}" if row["fees"] else ""
            tokens = f"{row['read_tokens']:,} tokens read, {row['written_tokens']:,} written"
            yield f"{row['stage']} asks a chat endpoint up to {row['requests']:,} times{fees}: about {tokens}."
    for reason, stages in _grouped(plan["stages"], "to make").items():
        yield f"The time of {stages} is left out of the sum: {reason}."
    tuning = plan["tuning"]
    if tuning is not None and tuning["seconds"] is not None:
        yield (
            f"`tandem tune` would train {tuning['model']} {tuning['trials']} times, with the recipe's own settings for "
            f"{duration(tuning['seconds'])} at most; pruned trials take less."
        )
    if device["calibrated"]:
        yield rates_line(device)
    elif device["name"] == "cpu":
        yield "The rates of this machine are a guess from its cores; `tandem plan --calibrate` measures them."
    else:
        yield (
            f"The rates of {device['name']} are shares of its published peaks; `tandem plan --calibrate` on a machine "
            "that has it measures them."
        )


def rates_line(device: Mapping[str, Any]) -> str:
    """Measured rates in words."""
    return (
        f"{device['title']}: {device['flops'] / 1e9:,.0f} GFLOP/s in float32, {device['half_flops'] / 1e9:,.0f} in "
        f"bfloat16, {device['bytes'] / 1e9:,.1f} GB/s between products, {device['call'] * 1e6:,.1f} µs a call."
    )


def foretold(stage: Mapping[str, Any]) -> str:
    """The prediction for a stage of a run card, for the epochs that it took, and what part of its time that is: `14 s
    (0.9)`; empty where nobody foresaw it. Rates that nobody measured are marked by `~`.
    """
    foreseen = stage.get("foreseen")
    if foreseen is None or foreseen["seconds"] is None:
        return ""
    mark = "" if foreseen["calibrated"] else "~"
    share = f" ({foreseen['seconds'] / stage['seconds']:.1f})" if stage["seconds"] >= 1 else ""
    return f"{mark}{duration(foreseen['seconds'])}{share}"
