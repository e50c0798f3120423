"""Downloading known data sets: resumable, checksum verified, unpacked safely, never half-written.

While it is under way everything lies in `NAME.part` beside the folder-to-be; the last step renames. `NAME.lock.json`
beside the folder keeps the SHA-256 of what was downloaded, so that a later download of the same name is the same data.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from tandemrec.data.fetch import fetch
from tandemrec.data.known import KnownFile, KnownSource
from tandemrec.errors import InputError

_JUNK = ("__MACOSX", ".DS_Store")


def download(source: KnownSource, root: Path, *, base_url: str | None = None, timeout: float = 60) -> Path:
    """Download a known data set into the folder `root/NAME`; what is there already is verified instead.

    Args:
        source: what to download.
        root: the data folder; created if need be.
        base_url: a mirror: every file is taken from there under its own name.
        timeout: seconds without an answer after which the server counts as gone.

    Returns:
        The folder of the data set.

    Raises:
        InputError: if the server cannot be reached or fails (what has arrived is kept, and the next call continues), a
            checksum is wrong, an archive is damaged or unsafe, or the folder exists but was not made by this function.
    """
    folder, lock = root / source.name, root / f"{source.name}.lock.json"
    draft = root / f"{source.name}.part"
    try:
        recorded = _read_lock(lock)
        if folder.exists() and any(folder.iterdir()):
            _verify_folder(folder, lock, recorded)
            return folder
        draft.mkdir(parents=True, exist_ok=True)
        sums = _fetch_all(source, draft, recorded.get("downloads", {}), lock, base_url, timeout)
        content = _unpack(source, draft)
        files = {path.relative_to(content).as_posix(): _digest(path, "sha256") for path in _files(content)}
        _write_lock(lock, {"name": source.name, "downloads": sums, "files": files})
        if folder.exists():
            folder.rmdir()
        content.rename(folder)
        shutil.rmtree(draft)
    except OSError as error:
        raise InputError(f"{root}: cannot write '{source.name}' there: {error.strerror or error}") from None
    return folder


def _fetch_all(
    source: KnownSource, draft: Path, recorded: dict[str, str], lock: Path, base_url: str | None, timeout: float
) -> dict[str, str]:
    """Download what is not there yet; the SHA-256 of every file by its name."""
    sums = {}
    with _progress() as progress:
        for file in source.files:
            path = draft / file.name
            url = file.url if base_url is None else f"{base_url.rstrip('/')}/{file.name}"
            if not path.exists():
                task = progress.add_task(file.name, total=None)

                def report(done: int, total: int | None, task: Any = task) -> None:
                    progress.update(task, completed=done, total=total)

                fetch(url, path, report, timeout=timeout)
            sums[file.name] = _checked(file, path, recorded.get(file.name), lock)
    return sums


def _checked(file: KnownFile, path: Path, recorded: str | None, lock: Path) -> str:
    """SHA-256 of a downloaded file; a wrong file is removed."""
    sha256 = _digest(path, "sha256")
    wrong = None
    if file.md5 is not None and (found := _digest(path, "md5")) != file.md5:
        wrong = f"MD5 {found}, but its publisher gives {file.md5}"
    elif file.md5 is None and recorded is not None and recorded != sha256:
        wrong = (
            f"SHA-256 {sha256}, but {lock} recorded {recorded} at an earlier download (delete it to take the new file)"
        )
    if wrong:
        path.unlink()
        raise InputError(f"{file.name} from {file.url} has {wrong}; the file was removed")
    return sha256


def _unpack(source: KnownSource, draft: Path) -> Path:
    """The folder that becomes the data set: archives unpacked, without a single folder around everything."""
    content = draft / "content"
    if content.exists():
        shutil.rmtree(content)
    content.mkdir()
    for file in source.files:
        path = draft / file.name
        if path.suffix == ".zip":
            _unzip(path, content)
        else:
            # A copy, so that an interruption here loses no download.
            shutil.copyfile(path, content / path.name)
    inside = list(content.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else content


def _unzip(archive: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as zipped:
            members = [info for info in zipped.infolist() if not set(_JUNK) & set(PurePosixPath(info.filename).parts)]
            for info in members:
                _refuse_unsafe(archive, info)
            for info in members:
                zipped.extract(info, target)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        archive.unlink()
        raise InputError(f"{archive.name} is no intact zip archive ({error}); the file was removed") from None


def _refuse_unsafe(archive: Path, info: zipfile.ZipInfo) -> None:
    """Members that would land outside the folder, or point there, have no place in a data set."""
    parts = PurePosixPath(info.filename.replace("\\", "/"))
    outside = parts.is_absolute() or ".." in parts.parts or ":" in info.filename
    if outside or stat.S_ISLNK(info.external_attr >> 16):
        kind = "a path outside its folder" if outside else "a link"
        raise InputError(f"{archive.name} holds {kind} ('{info.filename}'); nothing was unpacked")


def _verify_folder(folder: Path, lock: Path, recorded: dict[str, Any]) -> None:
    if "files" not in recorded:
        raise InputError(f"{folder} exists already and is no download of this command; nothing was changed")
    for name, sha256 in recorded["files"].items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path} is missing although {lock} lists it; delete the folder and get it again")
        if _digest(path, "sha256") != sha256:
            raise InputError(f"{path} differs from what was downloaded ({lock}); delete the folder and get it again")


def _read_lock(lock: Path) -> dict[str, Any]:
    if not lock.exists():
        return {}
    try:
        recorded = json.loads(lock.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        recorded = None
    if not isinstance(recorded, dict) or not all(isinstance(recorded.get(k), dict) for k in ("downloads", "files")):
        raise InputError(f"{lock} is no lock file of a download; delete it and get the data again")
    return recorded


def _write_lock(lock: Path, recorded: dict[str, Any]) -> None:
    draft = lock.with_suffix(".json.part")
    draft.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    draft.replace(lock)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    hidden = os.environ.get("TANDEMREC_PROGRESS", "1") == "0"
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=hidden)
