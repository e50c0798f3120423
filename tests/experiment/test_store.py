"""The artifact store: found again, whole or made again, never half."""

import json
from pathlib import Path

import pytest

from tandemrec.errors import InputError
from tandemrec.experiment.code_version import code_version
from tandemrec.experiment.files import hash_files
from tandemrec.experiment.seeds import derive_seed
from tandemrec.experiment.store import StageEvent, Store, find_damage


class Maker:
    """Writes a file and counts its calls; may fail after writing."""

    def __init__(self, text: str = "x", fail: bool = False) -> None:
        self.text, self.fail, self.calls = text, fail, 0

    def __call__(self, draft: Path, work: Path) -> dict[str, int]:
        self.calls += 1
        (work / "checkpoint").write_text(str(self.calls))
        (draft / "sub").mkdir()
        (draft / "sub" / "value.txt").write_text(self.text)
        if self.fail:
            raise KeyboardInterrupt
        return {"calls": self.calls}


def test_a_stage_is_made_once(tmp_path: Path) -> None:
    events: list[StageEvent] = []
    store, maker = Store(tmp_path, events.append), Maker()
    first, second = (store.get("fit:A", {"seed": 1}, maker) for _ in range(2))
    assert maker.calls == 1
    assert first.path == second.path
    assert first.manifest["summary"] == {"calls": 1}
    assert [event.what for event in events] == ["made", "found"]
    assert store.get("fit:A", {"seed": 2}, maker).path != first.path


def test_an_interrupted_stage_leaves_its_checkpoint_and_nothing_under_its_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        store.get("a", {}, Maker(fail=True))
    assert [
        path.name for path in tmp_path.glob("a-*") if path.is_dir() and path.suffix not in (".draft", ".work")
    ] == []
    assert len(list(tmp_path.glob("a-*.work/checkpoint"))) == 1
    artifact = store.get("a", {}, Maker("y"))
    assert (artifact.path / "sub" / "value.txt").read_text() == "y"
    assert not list(tmp_path.glob("a-*.work")), "checkpoints go when the stage is finished"


@pytest.mark.parametrize("harm", ["change", "delete", "manifest"])
def test_damage_is_named_and_mended(tmp_path: Path, harm: str) -> None:
    events: list[StageEvent] = []
    store, maker = Store(tmp_path, events.append), Maker()
    path = store.get("a", {}, maker).path / "sub" / "value.txt"
    if harm == "change":
        path.write_text("z")
    elif harm == "delete":
        path.unlink()
    else:
        (path.parents[1] / "manifest.json").write_text("{")
    assert find_damage(path.parents[1]) is not None
    artifact = store.get("a", {}, maker)
    assert maker.calls == 2
    assert path.read_text() == "x"
    assert find_damage(artifact.path) is None
    damaged = next(event for event in events if event.what == "damaged")
    assert ("manifest.json" if harm == "manifest" else "value.txt") in damaged.detail


def test_equal_outcomes_have_equal_content(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one, same, other = (store.get("a", {"n": n}, Maker(text)) for n, text in enumerate(["x", "x", "y"]))
    assert one.content == same.content != other.content
    assert one.key != same.key


def test_the_key_knows_every_dependency() -> None:
    store_key = Store.key
    base = store_key(None, "a", {"x": 1, "y": [1, 2]})  # type: ignore[arg-type]
    assert base == store_key(None, "a", {"y": [1, 2], "x": 1})  # type: ignore[arg-type]
    assert len({base, store_key(None, "b", {"x": 1}), store_key(None, "a", {"x": 2, "y": [1, 2]})}) == 3  # type: ignore[arg-type]


def test_a_store_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        Store(tmp_path / "file" / "store")


def test_input_files_are_known_by_content(tmp_path: Path) -> None:
    for folder, text in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "u.data").write_text(text)
    hashes = [json.dumps(hash_files([tmp_path / folder / "u.data"])) for folder in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]


def test_seeds_are_independent_of_each_other() -> None:
    assert derive_seed(1, "fit:A") == derive_seed(1, "fit:A")
    assert len({derive_seed(seed, stage) for seed in (1, 2) for stage in ("a", "b")}) == 4
    assert all(0 <= derive_seed(seed, "a") < 2**31 for seed in range(100))


def test_code_versions_tell_rooms_apart() -> None:
    assert code_version("training") == code_version("training")
    assert code_version("training") != code_version("recommender.py")
    assert code_version("data") != code_version("evaluation")


def test_foresight_is_no_part_of_a_code_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tandemrec.experiment.code_version.PACKAGE", tmp_path)
    versions = []
    for name in ("model.py", "work.py", "chat_work.py", "network.py"):
        (tmp_path / name).write_text("a = 1\n")
        code_version.cache_clear()
        versions.append(code_version("."))
    assert versions[0] == versions[1] == versions[2] != versions[3]
    code_version.cache_clear()
