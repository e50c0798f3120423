"""Tokens that language models read and write for answers, counted over the whole process; training counts its own."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass
class Traffic:
    """Tokens of prompts (a prompt shared by several answers once), and tokens of all answers."""

    read: int = 0
    written: int = 0

    def count(self, read: int, written: int = 0) -> None:
        """Add some."""
        self.read += read
        self.written += written

    def now(self) -> Traffic:
        """The counts of this moment."""
        return replace(self)


TRAFFIC = Traffic()
"""Of this process."""
