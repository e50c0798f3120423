"""Files: written whole or not at all, places that can be written, contents as hashes."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from tandemrec.errors import InputError


def check_folder(path: Path, purpose: str = "results") -> None:
    """Refuse a place where no folder can be made or written, before hours of work end there.

    Raises:
        InputError: naming what stands in the way.
    """
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise InputError(f"{there} is a file, expected a folder for {purpose}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{there} may not be written, expected a folder for {purpose}")


def write_whole(path: Path, content: Any) -> None:
    """Write JSON beside its place and rename it, so that what stands under the name is never half a file."""
    draft = path.with_name(path.name + ".draft")
    draft.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)


def hash_files(paths: list[Path]) -> dict[str, str]:
    """Content hashes of input files, by file name (not by place: a moved folder is the same data)."""
    return {path.name: sha256(path) for path in sorted(paths)}


def hash_folder(folder: Path | None) -> dict[str, str] | None:
    """Content hashes of the files of a folder and of those in it, by place in the folder; None for none.

    What is hidden, such as the notes of a download, is no part of a model.
    """
    if folder is None:
        return None
    inside = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        place.as_posix(): sha256(path)
        for place, path in inside.items()
        if not any(part.startswith(".") for part in place.parts)
    }


def sha256(path: Path) -> str:
    """Hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
