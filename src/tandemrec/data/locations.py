"""Where data sets, models and artifacts are looked for: an environment variable, else the user's cache directory."""

from __future__ import annotations

import os
from pathlib import Path

from tandemrec.errors import InputError


def data_root() -> Path:
    """Folder of data sets: `$TANDEMREC_DATA`, else `tandemrec/data` in the user's cache directory."""
    return _root("TANDEMREC_DATA", "data")


def models_root() -> Path:
    """Folder of models: `$TANDEMREC_MODELS`, else `tandemrec/models` in the user's cache directory."""
    return _root("TANDEMREC_MODELS", "models")


def store_root() -> Path:
    """Folder of artifacts: `$TANDEMREC_STORE`, else `tandemrec/artifacts` in the user's cache directory."""
    return _root("TANDEMREC_STORE", "artifacts")


def cache_root() -> Path:
    """`tandemrec` in the user's cache directory."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tandemrec"


def data_folder(path: Path | str) -> Path:
    """The folder of a data set: an absolute path as it is, a relative one below `data_root()` or the working directory.

    Raises:
        InputError: if there is no such folder, saying where it was looked for.
    """
    path = Path(path).expanduser()
    places = [path] if path.is_absolute() else [data_root() / path, Path.cwd() / path]
    for place in places:
        if place.is_dir():
            return place
    looked = " and ".join(str(place) for place in places)
    raise InputError(
        f"data set '{path.name}' not found: looked for the folder {looked}; "
        f"`tandem data get {path.name}` downloads the known public sources, TANDEMREC_DATA names another data folder"
    )


def _root(variable: str, kind: str) -> Path:
    if named := os.environ.get(variable):
        return Path(named).expanduser()
    return cache_root() / kind
