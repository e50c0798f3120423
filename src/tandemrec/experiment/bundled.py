"""The recipes that ship with the package, as texts. Imports nothing heavy: listing them is instant."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from tandemrec.errors import InputError


def recipe_names() -> dict[str, Traversable]:
    """The bundled recipes: name (`soft/games`) to file."""
    return dict(sorted(_walk(resources.files("tandemrec") / "recipes", "")))


def read_recipe(source: str | Path) -> str:
    """Text of a recipe file, or of the bundled recipe of that name.

    Raises:
        InputError: if there is neither, or the file is not text.
    """
    path = Path(source)
    bundled = recipe_names()
    if path.suffix in {".yaml", ".yml"} or path.exists():
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise InputError(f"there is no recipe file {path}") from None
        except IsADirectoryError:
            raise InputError(f"{path} is a directory, expected a recipe file (YAML)") from None
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: byte {error.start} is not UTF-8, expected a YAML text") from None
    if str(source) in bundled:
        return bundled[str(source)].read_text(encoding="utf-8")
    raise InputError(f"there is no recipe '{source}': give the path of a YAML file or one of {', '.join(bundled)}")


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    found = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _walk(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".yaml"):
            found.append((prefix + entry.name.removesuffix(".yaml"), entry))
    return found
