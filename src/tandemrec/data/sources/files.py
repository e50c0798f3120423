"""Files of a data set, plain or gzip-compressed: finding them, reading them whole or in blocks of lines."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tandemrec.errors import InputError

BLOCK_BYTES = 1 << 26
"""Decompressed bytes held at once when a file is read in blocks of lines: 64 MiB."""


def find_file(folder: Path, *names: str) -> Path:
    """The first of `names` in `folder`, plain before `.gz`.

    Raises:
        InputError: if none is there.
    """
    found = find_optional(folder, *names)
    if found is None:
        choices = " or ".join(names)
        raise InputError(f"{folder}: no file {choices} (or with .gz), found {_listing(folder)}")
    return found


def find_optional(folder: Path, *names: str) -> Path | None:
    """The first of `names` in `folder`, plain before `.gz`; None if none is there."""
    for name in names:
        for candidate in (folder / name, folder / f"{name}.gz"):
            if candidate.is_file():
                return candidate
    return None


def match_files(folder: Path, *patterns: str) -> list[Path]:
    """Files of `folder` that match one of the glob patterns, plain or `.gz`, sorted by name."""
    found = {path for pattern in patterns for end in ("", ".gz") for path in folder.glob(pattern + end)}
    return sorted(path for path in found if path.is_file())


def read_bytes(path: Path, encoding: str = "utf-8") -> bytes:
    """Whole content as UTF-8 without a byte order mark, decompressed if the name ends in `.gz`.

    Args:
        path: the file.
        encoding: of the file; of UTF-8 nothing is checked here.

    Raises:
        InputError: if it cannot be read, is empty or not properly compressed.
    """
    with _reading(path):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if not data.strip(b"\r\n"):
        raise InputError(f"{path} is empty")
    _refuse_compressed(path, data)
    if encoding != "utf-8":
        return data.decode(encoding).encode()
    return data.removeprefix(b"\xef\xbb\xbf")


def line_blocks(path: Path, size: int = BLOCK_BYTES) -> Iterator[tuple[int, bytes]]:
    """Whole lines in blocks of about `size` bytes, each with the number of its first line (from 1).

    Raises:
        InputError: if the file cannot be read, is empty or not properly compressed.
    """
    line, rest, empty = 1, b"", True
    with _reading(path), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        while block := file.read(size):
            if empty:
                _refuse_compressed(path, block)
                block = block.removeprefix(b"\xef\xbb\xbf")
            empty = False
            whole, newline, tail = block.rpartition(b"\n")
            if not newline:
                rest += tail
                continue
            yield line, (lines := rest + whole + newline)
            line, rest = line + lines.count(b"\n"), tail
    if empty:
        raise InputError(f"{path} is empty")
    if rest:
        yield line, rest


_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\x78\x01", b"\x78\x9c", b"\x78\xda")
"""First bytes of gzip, Zstandard and zlib, which polars would unpack by itself, though not in blocks."""


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns what can go wrong with a file into one sentence."""
    try:
        yield
    except EOFError:
        raise InputError(f"{path} is truncated: the gzip stream ends early") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} is no intact gzip file: {error}") from None
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


def _refuse_compressed(path: Path, data: bytes) -> None:
    if data.startswith(_COMPRESSED):
        twice = "twice" if path.suffix == ".gz" else "although its name does not end in .gz"
        raise InputError(f"{path} is compressed {twice}, expected text or gzip-compressed text under a name with .gz")


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if not names:
        return "an empty folder" if folder.is_dir() else "no folder"
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
