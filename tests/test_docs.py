"""Pages that are written from the code are up to date, and what they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tandemrec
from docs.build import pages
from tandemrec.experiment.bundled import recipe_names
from tandemrec.experiment.papers import experiments

ROOT = Path(__file__).parents[1]
PAPERS = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_a_page_is_as_the_code_has_it(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == pages()[path], "run `python docs/build.py`"


def test_everything_that_papers_names_exists() -> None:
    package = Path(tandemrec.__file__).parent
    named = [name for name in re.findall(r"`([^`\n]+)`", PAPERS) if not name.startswith(("tandem ", "python "))]
    files = [name for name in named if name.endswith(".py")]
    tests = [name for name in files if name.startswith("tests/")]
    modules = [name for name in files if not name.startswith("tests/")]
    assert len(tests) > 60
    assert len(modules) > 60
    assert not [name for name in tests if not (ROOT / name).is_file()]
    assert not [name for name in modules if not (package / name).is_file()]
    slashed = {name for name in named if re.fullmatch(r"(soft|dealrec|llama4rec)/[a-z0-9-]+", name)}
    assert slashed <= set(experiments()) | set(recipe_names())
    assert set(experiments()) <= slashed


def test_every_equation_of_the_papers_is_mapped() -> None:
    for number in (2, 3, 4, 5, 6, 7):
        assert re.search(rf"Equations? [\d, and]*{number}\b", PAPERS.partition("## Llama4Rec")[2])
    assert "Equations 3 to 6" in PAPERS
    assert "Equation 8" in PAPERS
