"""What was made before a training and says much about it: semantic ids of items, and a language model's thoughts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tandemrec.report.reranking import Grid, grids_markdown

HEADING = "What they were given"


def prepared_grids(card: Mapping[str, Any]) -> Iterator[Grid]:
    """The tables of a run; none where no system names items by ids or reads thoughts.

    Args:
        card: its `run_card.json`.
    """
    ids = _notes(card)
    if ids:
        yield ids_grid(ids)
        sharing = _alike({name: about["neighbours"] for name, about in ids.items()})
        yield from (_neighbours(names, ids[names[0]]) for names in sharing)
    if card.get("thoughts"):
        yield _thoughts(card["thoughts"])


def prepared_markdown(card: Mapping[str, Any]) -> str:
    """The same as Markdown; empty without tables."""
    return grids_markdown(HEADING, prepared_grids(card))


def origins(card: Mapping[str, Any]) -> list[str]:
    """A sentence a run that systems were taken from."""
    systems: dict[str, list[str]] = {}
    for name, facts in sorted(card.get("trained", {}).items()):
        systems.setdefault(f"{facts['run']} (training seed {facts['training_seed']})", []).append(name)
    return [
        f"{', '.join(names)} {'were' if len(names) > 1 else 'was'} trained by the run {run}."
        for run, names in systems.items()
    ]


def id_figures(card: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What is known of the semantic ids of a run's systems, by name, without the items that stand as examples."""
    return {
        name: {key: value for key, value in about.items() if key != "neighbours"}
        for name, about in _notes(card).items()
    }


def of_each_set(ids: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The figures of ids with the names of all systems that have the same, one after another."""
    return {", ".join(names): ids[names[0]] for names in _alike(ids)}


def _alike(facts: Mapping[str, Any]) -> list[list[str]]:
    """Names of equal facts together, in the order of the first ones."""
    names: dict[str, list[str]] = {}
    for name, about in facts.items():
        names.setdefault(str(about), []).append(name)
    return list(names.values())


def _notes(card: Mapping[str, Any]) -> dict[str, Any]:
    named = {name: report["notes"].get("semantic_ids") for name, report in card["models"].items()}
    return {name: about for name, about in named.items() if about}


def ids_grid(ids: Mapping[str, Mapping[str, Any]]) -> Grid:
    """Digits, use of codes, collisions and errors of semantic ids, by system."""
    rows = []
    for name, about in ids.items():
        levels = about["levels"]
        used = ", ".join(f"{level['used']:.0%}" for level in levels)
        perplexity = ", ".join(f"{level['perplexity']:.0f}" for level in levels)
        digits = " × ".join(f"{size:,}" for size in about["digits"])
        shares = [f"{about['collision_rate']:.1%}", f"{about['largest_collision']:,}"]
        rows.append([name, digits, used, perplexity, *shares, f"{about['reconstruction_error']:.3f}"])
    header = ["system", "digits", "codes in use", "perplexity", "colliding", "most alike", "error"]
    note = (
        "Codes in use and their perplexity (as many equally frequent codes) of every level; share of items whose codes "
        "another item has too, told apart by a further digit, and the most that share one; squared error of the "
        "vectors that the codes stand for, as a share of the vectors' own."
    )
    return Grid("Semantic ids", header, rows, note)


def _neighbours(systems: Sequence[str], about: Mapping[str, Any]) -> Grid:
    """Of the ids that these systems share."""
    rows = [
        [
            item["title"],
            " ".join(map(str, item["id"])),
            "; ".join(f"{other['title']} ({other['shared']})" for other in item["nearest"]),
        ]
        for item in about["neighbours"]
    ]
    note = "Evenly spaced items, and others by how many digits their ids begin alike."
    title = f"Nearest items by shared prefix: {', '.join(systems)}"
    return Grid(title, ["item", "id", "nearest (digits shared)"], rows, note)


def _thoughts(thoughts: Mapping[str, Mapping[str, Any]]) -> Grid:
    parts = [key for key, value in next(iter(thoughts.values())).items() if isinstance(value, float)]
    rows = [
        [
            name,
            f"{found['thoughts']:,}",
            f"{found['chosen']:,}",
            *(f"{found[part]:.3f}" for part in parts),
            *found["best"],
        ]
        for name, found in thoughts.items()
    ]
    note = "Kept thoughts, how many of them are about an item that was chosen, and their mean scores."
    return Grid("Thoughts", ["system", "thoughts", "chosen", *parts, "the best one"], rows, note)
