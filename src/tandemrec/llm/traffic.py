"""What language models read, write and charge for answers, counted over the whole process; training counts its own."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass
class Traffic:
    """Tokens of prompts (a prompt shared by several answers once), tokens of all answers, and fees of endpoints."""

    read: int = 0
    written: int = 0
    fees: float = 0.0

    def count(self, read: int, written: int = 0, fees: float = 0.0) -> None:
        """Add some."""
        self.read += read
        self.written += written
        self.fees += fees

    def now(self) -> Traffic:
        """The counts of this moment."""
        return replace(self)


TRAFFIC = Traffic()
"""Of this process."""
