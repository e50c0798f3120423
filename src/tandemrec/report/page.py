"""The report of a run as one Markdown page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tandemrec.report.beyond import beyond_markdown
from tandemrec.report.comparison import answer
from tandemrec.report.cost import cost_markdown, run_costs
from tandemrec.report.leaderboard import cell, is_rating, judged, markdown_table, table_of
from tandemrec.report.plan import foretold
from tandemrec.report.prepared import origins, prepared_markdown
from tandemrec.report.reranking import reranking_markdown
from tandemrec.report.segments import segments_markdown
from tandemrec.report.students import students_markdown
from tandemrec.report.validated import chosen_markdown


def markdown_page(results: Mapping[str, Any], card: Mapping[str, Any]) -> str:
    """Leaderboard, protocol, data, generated titles and run card of a finished run."""
    costs = run_costs(results, card)
    parts = [
        f"# {results['name']}",
        results["description"],
        answer(results),
        markdown_table(results),
        f"{_what(results)} over {judged(results)} ± standard error over users. {results['evaluation']['protocol']}",
        segments_markdown(results),
        reranking_markdown(results, card),
        prepared_markdown(card),
        beyond_markdown(results),
        cost_markdown(results, costs),
        students_markdown(results, card, costs),
        chosen_markdown(card),
        "## Data",
        f"{results['data']['name']}: {_counts(results['data'])}.",
        _cleaning(results["cleaning"]),
        f"Split: {results['split']['protocol']}. {_parts(results['split'])}",
        "Leak check: " + "; ".join(results["split"]["leaks"]) + ".",
        *(_outputs(row) for row in results["leaderboard"] if row.get("outputs")),
        _chosen(results, card),
        _distilled(card),
        *(_curriculum(name, report["curve"]) for name, report in card["models"].items()),
        "## Run card",
        _card(results, card),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(results: Mapping[str, Any]) -> str:
    return "RMSE and MAE" if is_rating(results) else "Mean"


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


def _chosen(results: Mapping[str, Any], card: Mapping[str, Any]) -> str:
    """What selection and training cost beside what they led to; empty where nobody learned from a choice."""
    headline, rows = results["evaluation"]["headline"], []
    for row in results["leaderboard"]:
        choice, fit = card["chosen"].get(row["system"]), card["models"][row["system"]]
        if choice is not None:
            seconds = (choice["seconds"], fit["seconds"], choice["seconds"] + fit["seconds"])
            shown = (row["system"], choice["selector"], f"{choice['examples']:,}", cell(row["metrics"][headline]))
            rows.append([*shown, *(f"{value:,.1f}" for value in seconds)])
    header = ["system", "selector", "examples", headline, "seconds of selection", "of fine-tuning", "of both"]
    return (
        "## What was chosen\n\nSelection counts the training of the models that the selector looked at, whether other "
        f"selectors share them or not.\n\n{table_of(header, rows)}"
        if rows
        else ""
    )


def _distilled(card: Mapping[str, Any]) -> str:
    """What teachers answered, and how easily it is learned beside the real answers; empty where nobody learned so."""
    rows = []
    for student, answers in card["distilled"].items():
        losses = (card["models"][name]["curve"][0]["loss"] for name in (answers["teacher"], student))
        shares = (answers[f"{share}_share"] for share in ("exact", "hit", "hit_kind"))
        rows.append(
            [
                *(answers["teacher"], student, f"{answers['answers']:,}", f"{answers['distinct']:,}"),
                *("" if share is None else f"{share:.1%}" for share in shares),
                *(f"{loss:.3f}" for loss in losses),
            ]
        )
    header = ["teacher", "student", "answers", "different", "exact titles", "hits", "hits of the kind"]
    table = table_of([*header, "first loss, real answers", "first loss, own answers"], rows)
    return (
        "## Self-distillation\n\nA teacher's answers to its training prompts; the loss of the first epoch on the real "
        f"answers (teacher's) and on these (student's).\n\n{table}"
        if rows
        else ""
    )


def _curriculum(name: str, curve: list[Mapping[str, float]]) -> str:
    """τ and, where it decides, the distance, epoch by epoch; empty for systems without."""
    shown = [key for key in ("epoch", "tau", "distance", "loss") if curve and key in curve[0]]
    if "tau" not in shown:
        return ""
    rows = [[f"{row[key]:.0f}" if key == "epoch" else f"{row[key]:.4f}" for key in shown] for row in curve]
    header = (
        ["epoch", "τ", "distance after it", "training loss"] if "distance" in shown else ["epoch", "τ", "training loss"]
    )
    return f"## How far {name} listened to itself\n\n{table_of(header, rows)}"


def _card(results: Mapping[str, Any], card: Mapping[str, Any]) -> str:
    machine = card["hardware"]
    accelerators = ", ".join(machine["accelerators"]) or "no accelerator"
    rows = [[stage["stage"], stage["seconds"], foretold(stage)] for stage in card["stages"]]
    stages = table_of(["stage", "seconds", "predicted"], rows)
    versions = ", ".join(f"{name} {version}" for name, version in card["packages"].items() if version)
    return (
        f"Seed {results['seed']}; data {results['data']['fingerprint'][:12]}; {machine['processor']}, "
        f"{machine['cores']} cores, {machine['memory_gib']} GiB, {accelerators}; peak memory "
        f"{card['peak_memory_mib']:,.0f} MiB; {versions}. {' '.join(origins(card))}".rstrip()
        + f"\n\n{stages}"
    )
