"""The report of a run as one Markdown page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tandemrec.report.leaderboard import markdown_table, table_of


def markdown_page(results: Mapping[str, Any], card: Mapping[str, Any]) -> str:
    """Leaderboard, protocol, data, generated titles and run card of a finished run."""
    parts = [
        f"# {results['name']}",
        results["description"],
        markdown_table(results),
        f"Mean ± standard error over {results['evaluation']['n']:,} users. {results['evaluation']['protocol']}",
        "## Data",
        f"{results['data']['name']}: {_counts(results['data'])}.",
        _cleaning(results["cleaning"]),
        f"Split: {results['split']['protocol']}. {_parts(results['split'])}",
        "Leak check: " + "; ".join(results["split"]["leaks"]) + ".",
        *(_outputs(row) for row in results["leaderboard"] if row.get("outputs")),
        "## Run card",
        _card(results, card),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _counts(data: Mapping[str, Any]) -> str:
    return f"{data['users']:,} users, {data['items']:,} items, {data['interactions']:,} interactions"


def _parts(split: Mapping[str, Any]) -> str:
    return ", ".join(f"{split[part]:,} {part} examples" for part in ("train", "valid", "test"))


def _cleaning(rows: list[Mapping[str, Any]]) -> str:
    header = list(rows[0]) if rows else []
    return table_of(header, [[_thousands(row[key]) for key in header] for row in rows]) if rows else ""


def _thousands(value: object) -> object:
    return f"{value:,}" if isinstance(value, int) else value


def _outputs(row: Mapping[str, Any]) -> str:
    outputs = row["outputs"]
    table = table_of(
        ["last title in the history", "generated", "exact", "target"],
        [
            [shown["history"][-1] if shown["history"] else "", shown["generated"], shown["exact"], shown["target"]]
            for shown in outputs["examples"]
        ],
    )
    return f"## What {row['system']} wrote\n\n{outputs['exact_share']:.1%} are exact catalogue titles.\n\n{table}"


def _card(results: Mapping[str, Any], card: Mapping[str, Any]) -> str:
    machine = card["hardware"]
    accelerators = ", ".join(machine["accelerators"]) or "no accelerator"
    stages = table_of(["stage", "seconds"], [[stage["stage"], stage["seconds"]] for stage in card["stages"]])
    versions = ", ".join(f"{name} {version}" for name, version in card["packages"].items() if version)
    return (
        f"Seed {results['seed']}; data {results['data']['fingerprint'][:12]}; {machine['processor']}, "
        f"{machine['cores']} cores, {machine['memory_gib']} GiB, {accelerators}; peak memory of the last process "
        f"{card['peak_memory_mib']:,.0f} MiB; {versions}.\n\n{stages}"
    )
