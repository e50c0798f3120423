"""The artifact store: one directory a finished stage, found again by the hash of everything it depends on.

A stage writes into `NAME-KEY.draft`, keeps its checkpoints in `NAME-KEY.work` and is renamed to `NAME-KEY` when
complete, with a manifest of file hashes. So whatever stands under its final name is whole, a killed stage leaves only
its checkpoints behind, and a file that changed afterwards is noticed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tandemrec.errors import InputError
from tandemrec.experiment.files import sha256
from tandemrec.experiment.meter import Meter, of_all_processes, own_notes
from tandemrec.recommender import Config
from tandemrec.training.processes import from_first, process_rank, wait_for_all
from tandemrec.work import Foresight

MANIFEST = "manifest.json"

METER = "meter.json"
"""What attempts at an unfinished stage took so far."""


@dataclass(frozen=True)
class Artifact:
    """A finished stage: where its files are, its key, and what making it cost."""

    path: Path
    key: str
    manifest: dict[str, Any]

    @property
    def seconds(self) -> float:
        """Wall time of all attempts at it."""
        return float(self.manifest["seconds"])

    @property
    def content(self) -> str:
        """Hash of its files. Later stages depend on this: a stage made again with the same outcome remakes nothing."""
        return self.content_but()

    def content_but(self, *names: str) -> str:
        """Hash of its files but some: stages that do not read those do not depend on them."""
        files = {name: sha for name, sha in self.manifest["files"].items() if name not in names}
        return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:20]

    @property
    def name(self) -> str:
        """The stage's name, such as `data` or `fit:SASRec`."""
        return str(self.manifest["stage"])


@dataclass(frozen=True)
class StageEvent:
    """What happened to a stage, for the terminal: `made`, `found`, or `damaged` (then made again)."""

    stage: str
    what: str
    seconds: float
    detail: str = ""


class Store:
    """Finished stages under one root, shared by all recipes that point at it."""

    def __init__(self, root: Path, listen: Callable[[StageEvent], None] = lambda event: None) -> None:
        self.root = root
        self.listen = listen
        try:
            root.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise InputError(f"the artifact store {root} cannot be made: {error.strerror}") from error

    def key(self, stage: str, depends: Mapping[str, Any]) -> str:
        """Hash of a stage's name and everything it depends on (JSON-able: configs, input keys, code version, seed)."""
        text = json.dumps({"stage": stage, **depends}, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    def get(
        self,
        stage: str,
        depends: Mapping[str, Any],
        make: Callable[[Path, Path], Any],
        foresight: Foresight | None = None,
    ) -> Artifact:
        """The artifact of a stage, made now if it is not there or not whole.

        Args:
            stage: its name; part of the directory name.
            depends: everything the result depends on.
            make: called with the draft directory (to be filled) and the work directory (survives a kill; for
                checkpoints). What it returns (JSON-able or None) is kept in the manifest as `summary`.
            foresight: what making it takes; kept in the manifest beside what it took.
        """
        key = self.key(stage, depends)
        directory = self.place(stage, key)
        if process_rank():
            return self._join(directory, make)
        with self._lock(directory):
            artifact = self._find(stage, directory)
            from_first(artifact is not None)
            artifact = artifact or self._make(stage, key, directory, depends, make, foresight)
            wait_for_all()
            return artifact

    def place(self, stage: str, key: str) -> Path:
        """The directory of a finished stage."""
        return self.root / f"{stage.replace(':', '-').replace('/', '-')}-{key}"

    def _find(self, stage: str, directory: Path) -> Artifact | None:
        if not directory.exists():
            return None
        damage = find_damage(directory)
        if damage is None:
            artifact = self.open(directory)
            self.listen(StageEvent(stage, "found", artifact.seconds))
            return artifact
        self.listen(StageEvent(stage, "damaged", 0.0, f"{damage}; it is made again"))
        shutil.rmtree(directory)
        return None

    def _join(self, directory: Path, make: Callable[[Path, Path], Any]) -> Artifact:
        """What processes beside the first do: they work with it on a stage, but its files are the ones that count."""
        if not from_first(False):
            with TemporaryDirectory() as scratch:
                work = directory.with_name(directory.name + ".work")
                work.mkdir(exist_ok=True)
                with Meter(own_notes(work / METER)) as meter:
                    make(Path(scratch), work)
                    wait_for_all()
                of_all_processes(meter.read(), work / METER)
        wait_for_all()
        return self.open(directory)

    @staticmethod
    def open(directory: Path) -> Artifact:
        """A finished artifact by its directory."""
        manifest = json.loads((directory / MANIFEST).read_text())
        return Artifact(directory, manifest["key"], manifest)

    def _make(
        self,
        stage: str,
        key: str,
        directory: Path,
        depends: Mapping[str, Any],
        make: Callable[[Path, Path], Any],
        foresight: Foresight | None,
    ) -> Artifact:
        foreseen = _foreseen(foresight)
        draft = directory.with_name(directory.name + ".draft")
        work = directory.with_name(directory.name + ".work")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        work.mkdir(exist_ok=True)
        with Meter(work / METER) as meter:
            summary = make(draft, work)
            wait_for_all()
        cost = of_all_processes(meter.read(), work / METER)
        manifest = {
            "stage": stage,
            "key": key,
            "depends": depends,
            "summary": summary,
            "seconds": cost["seconds"],
            "cost": cost,
            "foreseen": foreseen,
            "files": manifest_files(draft),
        }
        (draft / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
        draft.rename(directory)
        shutil.rmtree(work)
        self.listen(StageEvent(stage, "made", manifest["seconds"]))
        return Artifact(directory, key, manifest)

    @contextmanager
    def _lock(self, directory: Path) -> Iterator[None]:
        """One process makes an artifact; a second one waits and then finds it. A killed holder's lock is gone."""
        path = directory.with_name(directory.name + ".lock")
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _foreseen(foresight: Foresight | None) -> dict[str, Any] | None:
    """None for what nobody foresees; a stage is made all the same."""
    try:
        work = None if foresight is None else foresight()
    except InputError:
        return None
    return None if work is None else asdict(work)


def find_damage(directory: Path) -> str | None:
    """What is wrong with a finished artifact, as a phrase naming the file; None if every file is as it was written."""
    try:
        files = json.loads((directory / MANIFEST).read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"{directory / MANIFEST} is missing or unreadable"
    for name, digest in files.items():
        path = directory / name
        if not path.is_file():
            return f"{path} is missing"
        if sha256(path) != digest:
            return f"{path} is not what was written"
    return None


def manifest_files(directory: Path) -> dict[str, str]:
    """Content hashes of all files of a stage, by their place in its directory."""
    return {str(path.relative_to(directory)): sha256(path) for path in _files(directory)}


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def plain(config: Config) -> dict[str, Any]:
    """A config as JSON, for the key of a stage."""
    return config.model_dump(mode="json")
