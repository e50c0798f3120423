"""The code a stage runs, as a hash: a changed formula rebuilds what it made, a changed comment does not."""

from __future__ import annotations

import ast
import hashlib
import re
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]

FORESIGHT = re.compile(r"(.*_)?work\.py")
"""Names of files that foretell what a stage takes, and change nothing of it."""


@cache
def code_version(*rooms: str) -> str:
    """Hash of the syntax trees, docstrings aside, of the named files and folders of the package.

    Args:
        rooms: paths relative to the package, such as `recommender.py` or `llm`.
    """
    digest = hashlib.sha256()
    for room in rooms:
        place = PACKAGE / room
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            if FORESIGHT.fullmatch(path.name):
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    node.body = [statement for statement in node.body if not _is_docstring(statement)]
            digest.update(f"{path.relative_to(PACKAGE)}\n{ast.dump(tree)}\n".encode())
    return digest.hexdigest()[:16]


def _is_docstring(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
