"""Pages of results and benchmarks are those of the committed figures, and their links lead somewhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from paper_results import file_of  # noqa: E402
from published import DOCS, pages  # noqa: E402

from tandemrec.experiment.papers import experiments  # noqa: E402

PAGES = pages()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_is_as_the_figures_have_it(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == PAGES[path], "run `python benchmarks/published.py --render`"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    headings = {anchor(line.lstrip("# ")) for line in PAGES[path].splitlines() if line.startswith("#")}
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[path]):
        assert target[1:] in headings if target.startswith("#") else (path.parent / target).exists(), target


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_measured_experiment_is_on_its_papers_page() -> None:
    for name in experiments():
        page = PAGES.get(DOCS / "results" / f"{name.partition('/')[0]}.md", "")
        assert (f"`{name}`" in page) == (DOCS / "results" / file_of(name)).exists(), name
