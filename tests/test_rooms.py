"""The order of the rooms, and what the front door may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tandemrec

PACKAGE = Path(tandemrec.__file__).parent
ORDER = [
    ["errors"],
    ["data", "recommender", "work"],
    ["evaluation"],
    ["training"],
    ["conventional", "llm"],
    ["selection", "augmentation", "aggregation"],
    ["report"],
    ["experiment"],
    ["doctor"],
    ["cli"],
    ["__main__"],
]
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(module: str) -> str:
    return module.split(".")[1]


def imports(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tandemrec."):
            found.append(node.module)
        elif isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name.startswith("tandemrec.")]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_from_rooms_before_it(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imports(path):
        other = room_of(module)
        assert other == own or RANK[other] <= RANK[own], f"{own} imports {module}"
        assert {own, other} != {"conventional", "llm"}, "conventional models and language models meet in contracts only"


def test_every_room_has_a_place() -> None:
    assert {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES} == set(RANK)


@pytest.mark.parametrize(
    "what", ["import tandemrec", "from tandemrec.cli import app; app(['--help'], standalone_mode=False)"]
)
def test_the_front_door_is_light(what: str) -> None:
    code = f"import sys; {what}; sys.exit(bool({{'torch', 'transformers'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_public_names_resolve() -> None:
    for name in tandemrec.__all__:
        assert getattr(tandemrec, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = tandemrec.nonsense
