"""A table or figure of a paper beside ours, and what became of its claims, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from rich.table import Table

from tandemrec.evaluation.metrics import chance
from tandemrec.report.cost import duration
from tandemrec.report.html import comparison_page
from tandemrec.report.leaderboard import cell, decimal, filled, table_of
from tandemrec.report.prepared import ids_grid, of_each_set
from tandemrec.report.reranking import HEADING, Grid, gain_grid
from tandemrec.report.students import agreement_grid
from tandemrec.report.validated import HEADING as CHOSEN
from tandemrec.report.validated import chosen_grids

VERDICTS = {
    "held": "held",
    "reversed": "came out the other way round",
    "open": "could not be settled by these runs",
    "not asked": "not asked at this size",
}
"""Verdict of several claims → words."""

RIVALS = "Against systems beside the paper's"

CERTAIN = 2.0
"""Standard errors by which a system must exceed chance to be counted as better."""

SHORT = {"held": "held", "reversed": "the other way round", "open": "open", "not asked": "not asked"}


def experiment_table(rows: Iterable[Mapping[str, str]]) -> Table:
    """All experiments for the terminal: name, what it shows, recipe, and what it trains at two sizes."""
    table = Table(title="experiments of the papers")
    for name in ("experiment", "shows", "recipe", "scaled", "full"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(row[key] for key in ("experiment", "shows", "recipe", "scaled", "full")))
    return table


def verdict(results: Mapping[str, Any]) -> str:
    """How many claims held, how many did not, and how large a difference could have been seen."""
    where = f"{results['paper']}, {results['shows']}"
    if not results["claims"]:
        return f"{where}: the figures beside each other; no claim to test."
    counts = {kind: [claim["verdict"] for claim in results["claims"]].count(kind) for kind in VERDICTS}
    said = ", ".join(f"{count} {VERDICTS[kind]}" for kind, count in counts.items() if count)
    total = len(results["claims"])
    return f"{where}. Of {total} claim{'s' * (total > 1)} {said}. {_resolution(results)}"


def _resolution(results: Mapping[str, Any]) -> str:
    """How sure all this is."""
    seeds, size = len(results["seeds"]), f"{results['users']:,} users"
    if results["scale"] == "smoke":
        return "At this size that means nothing: it shows that the experiment runs."
    trained = (
        f"{size} and {seeds} trainings, both random"
        if seeds > 1
        else f"{size} and one training, so nothing is said about other trainings"
    )
    found = ""
    if results["resolvable"] is not None:
        found = f" One test finds a true difference of {results['resolvable']:.4f} in {results['power']:.0%} of cases."
    return f"Judged by {results['judged_by']} over {trained}.{found}"


def sentence(claim: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """A claim, what became of it, and what was found, in plain words."""
    if claim["verdict"] == "not asked":
        return f"{claimed(claim)}: {VERDICTS['not asked']}."
    return f"{claimed(claim)}: {SHORT[claim['verdict']]}. {evidence(claim, results)}"


def claimed(claim: Mapping[str, Any]) -> str:
    """What is claimed, in words."""
    first, *rest = claim["systems"]
    if claim["kind"] == "better":
        return f"{first} is better than {rest[0]}"
    if claim["kind"] == "cheaper":
        return f"{first} takes less time to train than {rest[0]}"
    return f"{first}: its teacher's own answers are easier to learn than the real ones"


def evidence(claim: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """What runs say to a claim; nothing where it was not asked."""
    if claim["verdict"] == "not asked":
        return ""
    if claim["kind"] == "better":
        return _gain(claim, results)
    ratios = claim["ratios"]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}" if len(ratios) > 1 else f"{ratios[0]:.2f}"
    what = "the time" if claim["kind"] == "cheaper" else "the first epoch's loss"
    published = claim.get("published_ratio")
    beside = f"; {published:.2f} in the paper" if published is not None else ""
    over = f"{len(ratios)} training{'s' * (len(ratios) > 1)}"
    told = ""
    if claim["kind"] == "easier":
        names = {"exact": "exact titles", "hit": "hits", "hit_kind": "of the target's kind"}
        shares = [f"{share:.1%} {names[key]}" for key, share in claim["answers"].items() if share is not None]
        told = f" Of its answers: {', '.join(shares)}."
    return f"{spread} times {what}, in {over}{beside}.{told}"


def _gain(claim: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    mine, theirs = claim["figures"]
    if claim["gain"] == claim["low"] == claim["high"] == 0:  # as where validation chose the other one itself
        return f"{mine:.4f} both, and no user is served better by one of them: they are the same where it counts."
    gain, low, high = (decimal(claim[key], "+") for key in ("gain", "low", "high"))
    interval = f"{results['level']:.0%} interval {low} to {high}; p {_p(claim['p_holm'])} after Holm's correction"
    return f"{mine:.4f} against {theirs:.4f}, a gain of {gain} ({interval}).{_beside_the_paper(claim, results)}"


def beside_the_paper(claim: Mapping[str, Any]) -> Literal["opposite", "above", "below", "inside"] | None:
    """Where the paper's gain, a share of the loser's figure, lies: opposite to its claim, above or below our interval,
    or inside; None where the paper or the runs do not tell.
    """
    published, share = claim.get("published_share"), claim.get("share") or [None]
    if published is None or None in share:
        return None
    _, low, high = share
    if published <= 0:
        return "opposite"
    return "above" if published > high else "below" if published < low else "inside"


def _beside_the_paper(claim: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """The paper's gain (ratings: error saved) as a share of the loser's figure, and whether ours can be as large."""
    place = beside_the_paper(claim)
    if place is None:
        return ""
    told = {
        "opposite": "the paper's own figures do not say what it claims",
        "above": "so large a gain lies outside our interval",
        "below": "ours is larger",
        "inside": "as large a gain lies within our interval",
    }
    worst = float("-inf") if results["lower_is_better"] else -1.0  # a mean that is not negative cannot lose more
    middle, low, high = (max(worst, share) for share in claim["share"])
    here = f"{_percent(middle)} here ({_percent(low)} to {_percent(high)})"
    return f" {_percent(claim['published_share'])} in the paper, {here}: {told[place]}."


def _p(value: float) -> str:
    return f"= {value:.3f}" if value >= 0.001 else "< 0.001"


def _percent(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.1%}"


def figures_table(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and a row a system: our figures, each with the paper's behind it, and the times of training and of
    answering; no column that is empty.
    """
    header = ["system"]
    for metric in results["metrics"]:
        header += [metric, "paper"]
    rows = []
    for row in results["systems"]:
        figures = [(cell(row["metrics"][name]), _figure(row["published"][name])) for name in results["metrics"]]
        times = duration(row["seconds"]), duration(row.get("seconds_per_1000"))
        rows.append([row["system"], *(text for pair in figures for text in pair), *times])
    for system, published in results["absent"].items():
        pairs = [("", _figure(published[name])) for name in results["metrics"]]
        where = results.get("elsewhere", {}).get(system)
        rows.append(
            [
                f"{system} ({f'in {where}' if where else 'not in this experiment'})",
                *(text for pair in pairs for text in pair),
                "",
                "",
            ]
        )
    return filled([*header, "training", "1,000 users"], rows)


def beyond_chance(results: Mapping[str, Any]) -> int | None:
    """How many systems are better than a random order by two standard errors; None for ratings."""
    if not results["systems"] or results["lower_is_better"]:
        return None
    metric = results["judged_by"]
    level = chance(metric, results["data"]["items"])
    figures = [row["metrics"][metric] for row in results["systems"]]
    return len([one for one in figures if one["mean"] > level + CERTAIN * one["standard_error"]])


def _chance(results: Mapping[str, Any]) -> str:
    """What a random order would reach, and how many systems exceed it; empty for ratings."""
    beyond, systems = beyond_chance(results), len(results["systems"])
    if beyond is None:
        return ""
    metric, items = results["judged_by"], results["data"]["items"]
    level = f"A random order of all {items:,} items would have {metric} {chance(metric, items):.4f}"
    if beyond == systems:
        return f"{level}; every system is better by two standard errors."
    return f"{level}; {beyond} of {systems} systems are better by two standard errors, the rest may be guessing."


def claims_table(results: Mapping[str, Any], kind: str) -> tuple[list[str], list[list[str]]] | None:
    """Header and a row a claim of the paper (`claims`) or against a rival (`rivals`); None without any."""
    rows = [[claimed(claim), SHORT[claim["verdict"]], evidence(claim, results)] for claim in results[kind]]
    return (["claim", "verdict", "found"], rows) if rows else None


def reproduction_markdown(results: Mapping[str, Any], heading: str = "#") -> str:
    """The verdict, the paper's figures beside ours, every claim, bounds, and what differs from the paper."""
    claims, rivals = (
        "\n".join(f"- {sentence(claim, results)}" for claim in results[kind]) for kind in ("claims", "rivals")
    )
    beside = (
        gains(results)._replace(title=HEADING),
        choices(results),
        ids_grid(of_each_set(results.get("semantic_ids", {}))),
        agreement_grid(results.get("students", [])),
        *validated(results),
    )
    parts = [
        f"{heading} {results['paper']}, {results['shows']}, {results['scale']}: {results['experiment']}",
        results["asks"],
        verdict(results),
        table_of(*figures_table(results)),
        claims,
        f"{RIVALS}, corrected by themselves:\n\n{rivals}" if rivals else "",
        *(f"{grid.title}:\n\n{table_of(grid.header, grid.rows)}\n\n{grid.note}" for grid in beside if grid.rows),
        *footnotes(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def gains(results: Mapping[str, Any]) -> Grid:
    """What rankers and aggregates add to their bases, within which bounds, and the weights that were chosen."""
    return gain_grid(results["rerankings"]["metric"], results["rerankings"]["rows"])


def choices(results: Mapping[str, Any]) -> Grid:
    """Which examples systems learned from, best system first, below those that there are."""
    rows = [
        [
            "(all there are)" if row["system"] == "all" else row["system"],
            f"{row['examples']:,.0f}",
            f"{row['mean_history']:.1f}",
            f"{row['popular_1']:.1%}",
            f"{row['items']:.1%}",
        ]
        for row in results.get("choices", [])
    ]
    header = ["system", "examples", "items of a history", "targets in the most popular fifth", "items met"]
    note = "Means over trainings. Items met: in histories and targets, of those that all examples have."
    return Grid("What they learned from", header, rows, note)


def validated(results: Mapping[str, Any]) -> list[Grid]:
    """Which systems others chose on validation, and the figures they chose by."""
    return [
        grid._replace(title=f"{CHOSEN}, {grid.title}") for grid in chosen_grids(results.get("chosen_on_validation", []))
    ]


def footnotes(results: Mapping[str, Any]) -> list[str]:
    """What is to be known beside the figures."""
    data = results["data"]
    command = f"`tandem reproduce {results['experiment']} --scale {results['scale']}`"
    return [
        _chance(results),
        "Intervals are of each difference by itself; verdicts go by the corrected p. Shares are of the loser's figure."
        if any(claim["kind"] == "better" for claim in [*results["claims"], *results["rivals"]])
        else "",
        f"Not as in the paper: {results['differs']}" if results["differs"] else "",
        f"About the paper's figures: {results['note']}" if results["note"] else "",
        names_text(results.get("names", {})),
        "Training: of a system and all it builds on; the language model counts as given, building one is left out. "
        "1,000 users: how long answering and judging as many takes."
        if any(row["seconds"] for row in results["systems"])
        else "",
        f"{command}: recipe {results['recipe']}, {results['effort']}. {data['name']}: {data['users']:,} users, "
        f"{data['items']:,} items, {data['interactions']:,} interactions. Training seeds "
        f"{', '.join(map(str, results['seeds']))}; ± is the standard error over users"
        f"{' and seeds' if len(results['seeds']) > 1 else ''}. Split: {results['split']}. {results['protocol']} "
        f"{_machines(results)}.",
    ]


def _machines(results: Mapping[str, Any]) -> str:
    """Where it ran; times are means over trainings, so of several machines that is said."""
    machine, several = results["hardware"], results.get("machines", ())
    if len(several) > 1:
        return f"Trainings ran on different machines, whose times are averaged: {'; '.join(several)}"
    return f"{machine['processor']}, {machine['cores']} cores"


def names_text(names: Mapping[str, str]) -> str:
    """Parts of systems' names and what they mean; empty without any."""
    told = "; ".join(f"*{part}*: {words}" for part, words in names.items())
    return f"Names: {told}." if told else ""


def reproduction_page(
    results: Mapping[str, Any], compared: Mapping[str, Any], first: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> str:
    """The page of a comparison with the paper's figures and claims before everything else.

    Args:
        results: a reproduction.
        compared: the comparison of its runs.
        first: `results.json` and `run_card.json` of the first of them.
    """
    shown = {
        "title": f"{results['paper']}, {results['shows']} ({results['scale']})",
        "question": results["asks"],
        "answer": verdict(results),
        "figures": figures_table(results),
        "claims": claims_table(results, "claims"),
        "rivals_title": RIVALS,
        "rivals": claims_table(results, "rivals"),
        "reranking_title": HEADING,
        "reranking": [grid for grid in (gains(results),) if grid.rows],
        "footnotes": [note.replace("`", "").replace("*", "") for note in footnotes(results) if note],
    }
    return comparison_page(compared, first, shown)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
