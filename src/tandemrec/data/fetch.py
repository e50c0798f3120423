"""One file over HTTP, continued where an earlier attempt ended if the server still has the same file."""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tandemrec import __version__
from tandemrec.errors import InputError

_CHUNK = 1 << 18
_ATTEMPTS = 5

Report = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes there will be, if known."""


def fetch(url: str, target: Path, report: Report, *, timeout: float = 60) -> None:
    """Download `url` to `target`, by way of `target.part`, which stays when the connection ends early.

    A broken connection is taken up again as long as every attempt brings the file forward, five times at most.

    Args:
        url: http or https.
        target: the file to make.
        report: told about progress.
        timeout: seconds without an answer after which the server counts as gone.

    Raises:
        InputError: if the server cannot be reached, refuses, or ends the connection too often.
    """
    if not url.startswith(("http://", "https://")):
        raise InputError(f"cannot download '{url}', expected an http or https address")
    part, notes = target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.part.json")
    for attempt in range(_ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        why = _attempt(url, part, notes, report, timeout)
        if why is None:
            part.replace(target)
            notes.unlink(missing_ok=True)
            return
        size = part.stat().st_size if part.exists() else 0
        if size <= before or attempt == _ATTEMPTS - 1:
            raise InputError(f"{url}: {why}; {size} bytes are kept, the same command continues from there")


def _attempt(url: str, part: Path, notes: Path, report: Report, timeout: float) -> str | None:
    """One connection: None when the file is whole, else why it ended early."""
    size = part.stat().st_size if part.exists() else 0
    validator = _noted(notes).get("validator") if size else None
    request = urllib.request.Request(
        url, headers={"User-Agent": f"tandemrec/{__version__}", "Accept-Encoding": "identity"}
    )
    if validator:
        request.add_header("Range", f"bytes={size}-")
        request.add_header("If-Range", validator)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return _receive(response, part, notes, size, report)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and validator:
            return _after_refused_range(error, part, notes, size, url, report, timeout)
        raise InputError(f"{url}: the server answers {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        return f"the server cannot be reached ({error.reason})"
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        return f"the connection broke ({str(error) or type(error).__name__})"


def _receive(response: Any, part: Path, notes: Path, size: int, report: Report) -> str | None:
    """Write the body behind what is there (206) or in its place (any other success)."""
    start, total = 0, _number(response.headers.get("Content-Length"))
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        start, total = _content_range(response.headers.get("Content-Range", ""))
        if start != size:
            raise InputError(f"{response.url}: asked for bytes from {size} on, the server sends them from {start}")
    _note(notes, response.headers)
    with part.open("ab" if start else "wb") as file:
        done = start
        report(done, total)
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            done += len(chunk)
            report(done, total)
    if total is not None and done != total:
        return f"the connection ended after {done} of {total} bytes"
    return None


def _after_refused_range(
    error: urllib.error.HTTPError, part: Path, notes: Path, size: int, url: str, report: Report, timeout: float
) -> str | None:
    """The server has no bytes after those here: the file is whole, or another one, to be fetched from its beginning."""
    _, total = _content_range(error.headers.get("Content-Range", ""))
    same = _validator(error.headers) in (None, _noted(notes).get("validator"))
    if total == size and same:
        return None
    part.unlink()
    notes.unlink(missing_ok=True)
    return _attempt(url, part, notes, report, timeout)


def _content_range(header: str) -> tuple[int, int | None]:
    match = re.fullmatch(r"bytes (?:([0-9]+)-[0-9]+|\*)/([0-9]+|\*)", header.strip())
    if match is None:
        return -1, None
    return int(match[1] or -1), _number(match[2])


def _validator(headers: Any) -> str | None:
    """What identifies this version of the file: a strong ETag, else the time of its last change."""
    tag = headers.get("ETag")
    value = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")
    return str(value) if value else None


def _note(notes: Path, headers: Any) -> None:
    notes.write_text(json.dumps({"validator": _validator(headers)}), encoding="utf-8")


def _noted(notes: Path) -> dict[str, Any]:
    try:
        noted = json.loads(notes.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None
