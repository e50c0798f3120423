"""Experiments of papers for `published.py`: what `tandem reproduce` found, as a summary and a page a paper."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tandemrec.experiment.papers import Paper, experiments, papers
from tandemrec.experiment.reproduce import reproduce
from tandemrec.report.leaderboard import table_of
from tandemrec.report.reproduction import (
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
SETTLED = {"held": "Held", "reversed": "The other way round"}
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
        "corrected for all claims of its experiment, is below 5 %, one about time or losses where all trainings agree.",
        f"{_counted(every)} Of the claims that one system is more accurate than another, "
        f"{_count(every, 'held', 'better')} of {_count(every, None, 'better')} held.",
        *(part for name, paper, found in measured for part in _paper_summary(name, paper, found)),
    ]


def _measured(docs: Path) -> list[tuple[str, Paper, list[dict[str, Any]]]]:
    """Name, paper and results, of papers with any."""
    triples = []
    for name, paper in papers().items():
        paths = [docs / "results" / file_of(f"{name}/{one}") for one in paper.experiments]
        triples.append((name, paper, [json.loads(path.read_text()) for path in paths if path.exists()]))
    return [triple for triple in triples if triple[2]]


def _count(found: Sequence[Mapping[str, Any]], verdict: str | None, kind: str | None = None) -> int:
    claims = [claim for one in found for claim in one["claims"]]
    return len([one for one in claims if verdict in (None, one["verdict"]) and kind in (None, one["kind"])])


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
    parts = [
        f"### [{paper.title}](results/{name}.md)",
        f"{len(found)} of its {len(paper.experiments)} experiments were run. {_counted(found)}",
    ]
    for verdict, words in SETTLED.items():
        told = [
            f"- {one['shows']}: {claimed(claim)}. {evidence(claim, one)}"
            for one in found
            for claim in one["claims"]
            if claim["verdict"] == verdict
        ]
        parts += [f"{words}:", "\n".join(told)] if told else []
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
