"""Experiments of papers for `published.py`: what `tandem reproduce` found, as a summary and a page a paper."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from distinct_claims import RULE, counted_once, disagreements
from scipy import stats

from tandemrec.evaluation.crossed import SeedSpread, SeedSquares
from tandemrec.evaluation.significance import holm
from tandemrec.experiment.claims import settle, shares
from tandemrec.experiment.papers import Paper, elsewhere, experiments, papers
from tandemrec.experiment.reproduce import reproduce
from tandemrec.report.leaderboard import table_of
from tandemrec.report.reproduction import (
    SHORT,
    VERDICTS,
    beside_the_paper,
    beyond_chance,
    claimed,
    evidence,
    names_text,
    reproduction_markdown,
)

FOLDER = "papers"
"""Below docs/results: a JSON file an experiment."""

NAMES = tuple(experiments())
BEFORE_POOLING = "t over users and seeds"
"""The test of results that were judged before trainings of all systems were pooled."""

SAFE_SIDE = (
    "(Ours were judged before trainings were pooled over systems; p-values and intervals are computed again from "
    "stored errors, on the safe side.)"
)

HEADER = (
    "experiment",
    "held",
    "the other way round",
    "open",
    "paper's gain excluded",
    "beyond chance",
    "users",
    "trainings",
)


def measure(name: str, seeds: Sequence[int], runs: Path) -> dict[str, Any]:
    """Run an experiment at its scaled size, or go on with what lies in `runs`."""
    return reproduce(name, "scaled", seeds=seeds, out=runs / f"{name.replace('/', '-')}-scaled")


def file_of(name: str) -> Path:
    """Where its result is kept, below docs/results."""
    return Path(FOLDER) / f"{name.replace('/', '-')}.json"


def links(docs: Path) -> list[tuple[str, str]]:
    """Title and place of every page of a paper, relative to `docs`."""
    return [(paper.title, f"results/{name}.md") for name, paper, _ in _measured(docs)]


def pages(docs: Path) -> dict[Path, str]:
    """A page for every paper of which anything was run."""
    return {docs / "results" / f"{name}.md": _page(paper, found) for name, paper, found in _measured(docs)}


def summary(docs: Path) -> list[str]:
    """What became of the papers' claims, in words and figures."""
    measured = _measured(docs)
    if not measured:
        return []
    every = [one for _, _, found in measured for one in found]
    return [
        "## Claims of the papers",
        "All of it at the scaled size: language models of .1 to 3 million parameters, at most 2,000 users of a test "
        "part. What is open or reversed here is so for models of this size; nothing follows for billions of "
        "parameters. A claim says that one system of a run is better than another, or cheaper, or that own answers are "
        "easier to learn; [papers.md](papers.md) lists them. One about accuracy is settled where the p-value, "
        "corrected for all claims of its experiment, is below 5 %, one about time or losses where all trainings agree. "
        "Where there is one training, that says nothing about other trainings. Where there are several, how "
        "much they vary is judged from all systems of a run together (moderated variances); two trainings tell hardly "
        "anything apart.",
        f"{_counted(every)} Of the claims that one system is more accurate than another, "
        f"{_count(every, 'held', 'better')} of {_count(every, None, 'better')} held. {_by_chance(every)}",
        f"{RULE} {counted_once(every)}",
        *(part for name, paper, found in measured for part in _paper_summary(name, paper, found)),
    ]


def _measured(docs: Path) -> list[tuple[str, Paper, list[dict[str, Any]]]]:
    """Name, paper and results, of papers with any."""
    triples = []
    for name, paper in papers().items():
        paths = {f"{name}/{one}": docs / "results" / file_of(f"{name}/{one}") for one in paper.experiments}
        found = [
            on_the_safe_side(json.loads(path.read_text())) | {"elsewhere": elsewhere(one, "scaled")}
            for one, path in paths.items()
            if path.exists()
        ]
        triples.append((name, paper, found))
    return [triple for triple in triples if triple[2]]


def on_the_safe_side(results: dict[str, Any]) -> dict[str, Any]:
    """Results of several trainings that were judged before trainings were pooled, judged again from what is stored.

    Those tests believed each pair's few trainings and raised too many alarms. Here the variance of a gain is that of
    its stored interval (as if by normal quantiles, which makes it larger) plus what `SeedSpread` says about trainings.
    """
    kinds = ("claims", "rivals")
    if not any(claim.get("test") == BEFORE_POOLING for kind in kinds for claim in results[kind]):
        return results
    metric, repeats = results["judged_by"], len(results["seeds"])
    errors = {row["system"]: row["metrics"][metric]["seed_error"] for row in results["systems"]}
    squares = {system: SeedSquares(error**2, repeats - 1 if error else 0) for system, error in errors.items()}
    spread = SeedSpread.of(squares.values())
    judged: dict[str, Any] = {}
    for kind in kinds:
        claims = [dict(claim) for claim in results[kind]]
        tested = [claim for claim in claims if "p_value" in claim]
        for claim in tested:
            stored = ((claim["high"] - claim["low"]) / 2 / stats.norm.isf((1 - results["level"]) / 2)) ** 2
            seeds = spread and spread.of_difference(*(squares[system] for system in claim["systems"]))
            error = sqrt(stored + (seeds.squares if seeds else 0.0))
            by_seeds = seeds.squares**2 / seeds.freedom if seeds else 0.0
            df = error**4 / (stored**2 / (results["users"] - 1) + by_seeds) if error else 1.0
            reach = stats.t.isf((1 - results["level"]) / 2, df) * error
            claim |= {"low": claim["gain"] - reach, "high": claim["gain"] + reach}
            claim["share"] = shares(claim)
            claim["p_value"] = float(2 * stats.t.sf(abs(claim["gain"]) / error, df)) if error else 1.0
        settle(claims, results["level"])
        judged[kind] = claims
    return results | judged | {"resolvable": None, "note": f"{results['note']} {SAFE_SIDE}".strip()}


def _count(found: Sequence[Mapping[str, Any]], verdict: str | None, kind: str | None = None) -> int:
    claims = [claim for one in found for claim in one["claims"]]
    return len([one for one in claims if verdict in (None, one["verdict"]) and kind in (None, one["kind"])])


def _by_chance(found: Sequence[Mapping[str, Any]]) -> str:
    """What a correction for each experiment leaves to chance, and what one for all of them together leaves over."""
    tested = [[claim for claim in one["claims"] if claim.get("p_value") is not None] for one in found]
    errors = [1 - one["level"] for one, several in zip(found, tested, strict=True) if several]
    claims = [claim for several in tested for claim in several]
    corrected = holm(np.array([claim["p_value"] for claim in claims]))
    left = [claim["verdict"] for claim, p in zip(claims, corrected, strict=True) if p < min(errors)]
    kept = [left.count(verdict) for verdict in ("held", "reversed")]
    return (
        "Many are asked in two protocols, and some in two experiments. The correction is for each experiment: among "
        f"{len(errors)} with such claims about {sum(errors):.0f} would settle something by chance if no two systems "
        f"differed. Corrected for all {len(claims)} together, {kept[0]} held and {kept[1]} came out the other way "
        "round."
    )


def _excluded(found: Sequence[Mapping[str, Any]]) -> int:
    """Open claims of a gain that is larger in the paper than our intervals allow."""
    claims = [claim for one in found for claim in one["claims"] if claim["verdict"] == "open"]
    return len([claim for claim in claims if beside_the_paper(claim) == "above"])


def _counted(found: Sequence[Mapping[str, Any]]) -> str:
    said = ", ".join(f"{_count(found, kind)} {words}" for kind, words in VERDICTS.items() if _count(found, kind))
    return (
        f"Of {_count(found, None)} claims {said}; for {_excluded(found)} of those that could not be settled the "
        "paper's gain is larger than our interval allows."
    )


def _paper_summary(name: str, paper: Paper, found: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = []
    for one in found:
        verdicts = [str(_count([one], verdict)) for verdict in ("held", "reversed", "open")]
        beyond = beyond_chance(one)
        better = "" if beyond is None else f"{beyond} of {len(one['systems'])}"
        size = [f"{one['users']:,}", str(len(one["seeds"]))]
        rows.append([one["shows"], *verdicts, str(_excluded([one])), better, *size])
    run = f"{len(found)} of its {len(paper.experiments)} experiments were run."
    parts = [f"### [{paper.title}](results/{name}.md)", f"{run} {_counted(found)} {counted_once(found)}".rstrip()]
    for verdict in ("held", "reversed"):
        told = [
            f"- {one['shows']}: {claimed(claim)}. {evidence(claim, one)}"
            for one in found
            for claim in one["claims"]
            if claim["verdict"] == verdict
        ]
        parts += [f"{SHORT[verdict].capitalize()}:", "\n".join(told)] if told else []
    differing = disagreements(found)
    parts += ["Different from experiment to experiment:", "\n".join(differing)] if differing else []
    return [*parts, table_of(HEADER, rows)]


def _page(paper: Paper, found: Sequence[Mapping[str, Any]]) -> str:
    systems = [row["system"] for one in found for row in one["systems"]]
    parts = [
        f"# {paper.title}: tables and figures, at the scaled size",
        f"{paper.reference}. Written by `python benchmarks/published.py --render`; [results.md](../results.md) says in "
        "words what held.",
        names_text(paper.meaning(systems)),
        "\n".join(f"- {one['shows']}: `{one['experiment']}`" for one in found),
        *(reproduction_markdown(dict(one) | {"names": {}}, "##").strip() for one in found),
    ]
    return "\n\n".join(parts) + "\n"
