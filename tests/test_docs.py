"""Pages that are written from the code are up to date, and what they name exists."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import tandemrec
from docs.build import pages
from tandemrec.experiment.bundled import recipe_names
from tandemrec.experiment.papers import experiments
from tandemrec.recommender import Config

ROOT = Path(__file__).parents[1]
PAPERS = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_a_page_is_as_the_code_has_it(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == pages()[path], "run `python docs/build.py`"


def test_every_setting_is_on_its_rooms_page() -> None:
    """Each field of each config: name, bounds and text, as the classes themselves have them."""
    seen = 0
    for room in ("data", "evaluation", "training", "conventional", "llm", "selection", "augmentation", "aggregation"):
        page = (ROOT / "docs" / "api" / f"{room}.md").read_text(encoding="utf-8")
        for config in configs(room):
            section = page.partition(f"\n### {config.__name__}\n")[2].partition("\n### ")[0]
            private = [base for base in config.__mro__[1:] if base.__name__.startswith("_")]
            for name in {name for base in (config, *private) for name in inspect.get_annotations(base)}:
                if name not in config.model_fields:
                    continue
                line = next((line for line in section.splitlines() if line.startswith(f"| `{name}` |")), "")
                assert line, f"{room}: {config.__name__}.{name}"
                cells = [cell.strip().strip("`") for cell in line.replace("\\|", "/").strip("| ").split(" | ")]
                _, written, default, bounds, text = cells
                assert text.endswith((".", ")", ":")) or len(text) > 20, line
                if written.startswith("Literal") and default not in ("required", "null", ""):
                    assert default in written, line
                for mark in config.model_fields[name].metadata:
                    for kind, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
                        assert getattr(mark, kind, None) is None or sign in bounds, line
                seen += 1
    assert seen > 250


def configs(room: str) -> list[type[Config]]:
    """Public configs of a room."""
    package = importlib.import_module(f"tandemrec.{room}")
    for found in pkgutil.walk_packages(package.__path__, f"tandemrec.{room}."):
        importlib.import_module(found.name)
    waiting, classes = [Config], set[type[Config]]()
    while waiting:
        for one in waiting.pop().__subclasses__():
            if one not in classes:
                classes.add(one)
                waiting.append(one)
    mine = [one for one in classes if one.__module__.startswith(f"tandemrec.{room}.")]
    return [one for one in mine if not one.__name__.startswith("_")]


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
    slashed = {name for name in named if re.fullmatch(r"(soft|dealrec|llama4rec|dllm2rec)/[a-z0-9-]+", name)}
    assert slashed <= set(experiments()) | set(recipe_names())
    assert set(experiments()) <= slashed


def test_every_equation_of_the_papers_is_mapped() -> None:
    for number in (2, 3, 4, 5, 6, 7):
        assert re.search(rf"Equations? [\d, and]*{number}\b", PAPERS.partition("## Llama4Rec")[2])
    assert "Equations 3 to 6" in PAPERS
    assert "Equation 8" in PAPERS
