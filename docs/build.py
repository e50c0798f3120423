"""Writes the pages that come from the code: `python docs/build.py`; a test says when it is needed.

docs/papers.md: the tables of experiments, from the index of papers. docs/api: a page a room, from docstrings.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tandemrec
from docs.api_pages import api_pages
from tandemrec.experiment.papers import Better, Cheaper, Claim, Easier, Experiment, papers
from tandemrec.report.leaderboard import table_of

DOCS = Path(__file__).resolve().parent
PLACE = re.compile(r"(<!-- experiments: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
"""Where docs/papers.md holds a table that is written here."""


def papers_page() -> str:
    """docs/papers.md with its tables of experiments as the index has them."""
    text = (DOCS / "papers.md").read_text(encoding="utf-8")
    return PLACE.sub(lambda found: f"{found[1]}\n{_experiments(found[2])}\n\n{found[4]}", text)


def _experiments(paper: str) -> str:
    rows = [
        [
            f"`{paper}/{name}`",
            one.shows,
            f"`{one.recipe}`",
            f"{', '.join(one.metrics)}; judged by {one.judged_by}",
            "; ".join([*map(_claim, one.claims), *_rivals(one)]) or "none to test",
            _paths(one.modules),
            _paths(one.tests, "tests/"),
        ]
        for name, one in papers()[paper].experiments.items()
    ]
    header = ["experiment", "shows", "recipe", "metrics", "claims", "modules", "tests"]
    sizes = [
        [f"`{paper}/{name}`", one.full.differs, one.scaled.differs or "as the recipe has it", one.note]
        for name, one in papers()[paper].experiments.items()
    ]
    said = ["experiment", "full size, not as in the paper", "scaled, not as in the paper", "about the paper's figures"]
    return "\n\n".join([table_of(header, rows), table_of(said, sizes)])


def _claim(claim: Claim) -> str:
    if isinstance(claim, Easier):
        return f"own answers are easier to learn ({claim.easier})"
    if isinstance(claim, Cheaper):
        return f"{claim.cheaper} takes less time than {claim.than}"
    assert isinstance(claim, Better)
    return f"{claim.better} > {claim.than}"


def _rivals(one: Experiment) -> list[str]:
    """What winners of claims are tested against beside them."""
    return [f"beside them, the winners against {' and '.join(one.rivals)}"] if one.rivals else []


def _paths(paths: tuple[str, ...], folder: str = "") -> str:
    return ", ".join(f"`{folder}{path}`" for path in paths)


def pages() -> dict[Path, str]:
    """Every page that is written here, and its text."""
    package = Path(tandemrec.__file__).parent
    return {DOCS / "papers.md": papers_page()} | api_pages(package, DOCS / "api")


if __name__ == "__main__":
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
