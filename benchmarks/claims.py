"""What the claims of `benchmarks/conventional.py` share: their data, their lines, and the libraries beside us."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tandemrec.data.split import Split

HERE = Path(__file__).resolve().parent
SEED = 0


class PeerMissingError(Exception):
    """The environment of a library to compare with was not named."""


@dataclass(frozen=True)
class Bench:
    """What every claim is measured on."""

    split: Split
    folder: Path
    quick: bool
    threads: int
    recbole: Path | None
    rectools: Path | None
    rectools_epochs: int


@dataclass(frozen=True)
class Claim:
    """One line of the result.

    `unit` is that of `ours` and `usual`, `target` the least ratio wanted, `data` names data that are not the bench's.
    """

    name: str
    ours: float
    usual: float
    agree: float
    unit: str = "s"
    target: float = 1.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    data: str = ""

    @property
    def ratio(self) -> float:
        """How many times as much the usual way takes."""
        return self.usual / self.ours

    def line(self) -> str:
        """As `make bench` prints it."""
        return (
            f"claim={self.name} ratio={self.ratio:.2f} ours={self.ours:.3f} usual={self.usual:.3f} "
            f"agree={self.agree:.2g}"
        )


def run_peer(library: str, python: Path | None, folder: Path, task: dict[str, Any]) -> dict[str, Any]:
    """What a library's side says: the last line of `peers/LIBRARY_peer.py` in the library's own environment.

    Raises:
        PeerMissingError: if no environment was named.
    """
    name = library.lower()
    if python is None:
        raise PeerMissingError(
            f"{library} is needed in an environment of its own: install benchmarks/peers/{name}.txt into one and name "
            f"its Python by --{name} or $TANDEMREC_PEER_{name.upper()}"
        )
    (folder / "task.json").write_text(json.dumps(task))
    command = [str(python), str(HERE / "peers" / f"{name}_peer.py"), str(folder / "task.json")]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    if done.returncode:
        raise SystemExit(f"{library} failed: {done.stderr.strip().splitlines()[-1]}")
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts
