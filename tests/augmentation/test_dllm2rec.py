"""Students: nothing without weights, something with them, the same after a kill, plain when stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from tandemrec.augmentation.distillation import TeacherLists
from tandemrec.augmentation.dllm2rec import STUDENTS, DLLM2Rec, DLLM2RecConfig
from tandemrec.augmentation.teacher_lists import TeacherListsConfig, ask_teacher, lists_summary
from tandemrec.augmentation.work import asked_positions
from tandemrec.conventional.sequential.next_item import NextItem
from tandemrec.conventional.sequential.sasrec import SASRec
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tests.fixed import Fixed

TABLE = np.random.default_rng(0).normal(size=(60, 24))
VECTORS = torch.randn(24, 6, generator=torch.Generator().manual_seed(5))
BRIEF = {"epochs": 3, "patience": None, "clip_norm": None, "checkpoint_seconds": 0}
SASREC = {"model": "sasrec", "dim": 8, "max_length": 5, "blocks": 1, "training": BRIEF}
GRU = {"model": "gru4rec", "dim": 8, "hidden": 8, "max_length": 5, "training": BRIEF}
STUDENT: list[dict[str, Any]] = [SASREC, GRU, {"model": "dros", "backbone": SASREC | {"loss": "bce"}}]
NAMES = ["sasrec", "gru4rec", "dros"]


def lists_file(split: Split, folder: Path, **settings: Any) -> Path:
    config = TeacherListsConfig.model_validate({"items": 4} | settings)
    ask_teacher(Fixed(TABLE), split, config, seed=1).write_parquet(folder / "lists.parquet")
    return folder / "lists.parquet"


def config_with(student: dict[str, Any] = SASREC, **settings: Any) -> DLLM2RecConfig:
    return DLLM2RecConfig.model_validate({"student": student, "teacher": "T"} | settings)


def fitted(split: Split, folder: Path, config: DLLM2RecConfig) -> DLLM2Rec:
    model = DLLM2Rec(config, lists_file(split, folder), VECTORS)
    model.fit(split, seed=4)
    return model


@pytest.mark.parametrize("student", STUDENT, ids=NAMES)
def test_without_weights_it_is_the_plain_student_bit_for_bit(split: Split, student: dict[str, Any]) -> None:
    config = config_with(student, ranking={"weight": 0}, embedding_weight=0)
    model = DLLM2Rec(config)
    report = model.fit(split, seed=4)
    plain = STUDENTS[type(config.student)](config.student)
    expected = plain.fit(split, seed=4)
    pairs = zip(model.student.fitted().state_dict().items(), plain.fitted().state_dict().items(), strict=True)
    for (name, value), (other, wanted) in pairs:
        assert name == other
        assert torch.equal(value, wanted), name
    assert [row["loss"] for row in report.curve] == [row["loss"] for row in expected.curve]
    assert torch.equal(model.scores(split.test), plain.scores(split.test))


@pytest.mark.parametrize("student", STUDENT, ids=NAMES)
@pytest.mark.parametrize("part", ["ranking", "embedding"])
def test_each_part_changes_what_is_learned_and_is_stored(
    split: Split, tmp_path: Path, student: dict[str, Any], part: str
) -> None:
    off = {"embedding_weight": 0} if part == "ranking" else {"ranking": {"weight": 0}}
    config = config_with(student, **off)
    model = fitted(split, tmp_path, config)
    plain = STUDENTS[type(config.student)](config.student)
    plain.fit(split, seed=4)
    scores = model.scores(split.test)
    assert not torch.allclose(scores, plain.scores(split.test))
    model.save(tmp_path / "model")
    again = DLLM2Rec.load(tmp_path / "model")
    assert torch.equal(again.scores(split.test), scores)
    assert again.item_vectors is not None
    # Stored as the plain model: nothing of the teacher is left.
    alone = STUDENTS[type(config.student)].load(tmp_path / "model" / "student")
    assert torch.equal(alone.scores(split.test), scores)
    assert set(alone.fitted().state_dict()) == set(plain.fitted().state_dict())


def test_a_student_moves_towards_its_teachers_lists(split: Split, tmp_path: Path) -> None:
    long = SASREC | {"training": BRIEF | {"epochs": 15, "validate_every": 15}}
    ask_teacher(Fixed(TABLE[:1].repeat(60, 0)), split, TeacherListsConfig(items=4), seed=1).write_parquet(
        tmp_path / "same.parquet"
    )
    listed = pl.read_parquet(tmp_path / "same.parquet")["items"].to_list()
    asked = split.train.take(np.argsort(split.train.target.starts, kind="stable"))

    def agreement(system: Any) -> float:
        own = system.rank(asked, 4).items
        return float(np.mean([len(set(a) & set(b)) for a, b in zip(own.tolist(), listed, strict=True)]))

    config = config_with(long, ranking={"weight": 3}, embedding_weight=0)
    student, plain = DLLM2Rec(config, tmp_path / "same.parquet"), SASRec(config.student)  # type: ignore[arg-type]
    student.fit(split, seed=4)
    plain.fit(split, seed=4)
    assert agreement(student) > agreement(plain) + 0.5


@pytest.mark.parametrize("negative", ["none", "code"])
def test_a_killed_training_goes_on(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, negative: str
) -> None:
    config = config_with(ranking={"weight": 0.7, "negative": negative})
    whole = fitted(split, tmp_path, config)
    model = DLLM2Rec(config, tmp_path / "lists.parquet", VECTORS)
    validate, calls = NextItem.validate, []

    def dies(task: NextItem) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return validate(task)

    monkeypatch.setattr(NextItem, "validate", dies)
    with pytest.raises(KeyboardInterrupt):
        model.fit(split, seed=4, workspace=tmp_path / "work")
    again = DLLM2Rec(config, tmp_path / "lists.parquet", VECTORS)
    again.fit(split, seed=4, workspace=tmp_path / "work")
    assert torch.equal(again.scores(split.test), whole.scores(split.test))


@pytest.mark.parametrize("positions", ["examples", "sequences"])
def test_lists_are_the_teachers_answers(split: Split, positions: Any) -> None:
    config = TeacherListsConfig(items=4, positions=positions)
    frame = ask_teacher(Fixed(TABLE), split, config, seed=1)
    starts, stops = split.sequences.starts, split.sequences.stops
    expected = {place for a, b in zip(starts, stops, strict=True) for place in range(a + 1, b)}
    assert frame["place"].to_list() == sorted(expected)
    for row in frame.sample(20, seed=0).iter_rows(named=True):
        user = int(np.searchsorted(stops, row["place"], side="right"))
        known = set(split.sequences.values[starts[user] : row["place"]].tolist())
        best = sorted((i for i in range(24) if i not in known), key=lambda i: -TABLE[user, i])[:4]
        assert row["items"] == best
        assert row["distances"] == pytest.approx([-TABLE[user, i] for i in best], rel=1e-6)
        target = split.sequences.values[row["place"]]
        assert row["target_distance"] == pytest.approx(-TABLE[user, target], rel=1e-6)
    summary = lists_summary(frame, split)
    assert summary["lists"] == len(expected)
    assert summary["share_of_positions"] == 1.0
    hits = [split.sequences.values[row["place"]] in row["items"] for row in frame.iter_rows(named=True)]
    assert summary["hit_share"] == pytest.approx(np.mean(hits))


@pytest.mark.parametrize("positions", ["examples", "sequences"])
def test_of_long_histories_the_latest_positions_are_asked(split: Split, positions: Any) -> None:
    frame = ask_teacher(Fixed(TABLE), split, TeacherListsConfig(items=2, positions=positions, latest=2), seed=1)
    rows = zip(split.sequences.starts, split.sequences.stops, strict=True)
    expected = {place for start, stop in rows for place in range(max(start + 1, stop - 2), stop)}
    assert frame["place"].to_list() == sorted(expected)
    config = TeacherListsConfig(items=2, positions=positions, latest=2)
    assert asked_positions(config, split) == len(expected)


def test_a_drawn_sample_is_that_of_its_seed(split: Split) -> None:
    config = TeacherListsConfig(items=3, sample=30, exclude_seen=False)
    one, same, other = (ask_teacher(Fixed(TABLE), split, config, seed=seed) for seed in (1, 1, 2))
    assert one.height == 30
    assert one.equals(same)
    assert not one.equals(other)
    best = {user: np.argsort(-TABLE[user])[:3].tolist() for user in range(60)}
    stops = split.sequences.stops
    users = np.searchsorted(stops, one["place"].to_numpy(), side="right")
    assert one["items"].to_list() == [best[user] for user in users]


def test_a_teacher_that_runs_out_of_items_says_less(split: Split, tmp_path: Path) -> None:
    frame = ask_teacher(Fixed(TABLE), split, TeacherListsConfig(items=22), seed=1)
    row = frame.row(frame["place"].to_list().index(int(split.sequences.starts[0]) + 5), named=True)
    assert row["items"][19:] == [-1] * 3  # five of 24 items are known
    assert row["distances"][19:] == [None] * 3
    frame.write_parquet(tmp_path / "long.parquet")
    lists = TeacherLists.of(frame, len(split.sequences.values), config_with().ranking)
    assert torch.isfinite(lists.fixed_nK).all()
    assert ((lists.fixed_nK == 0) == (lists.items_nK == -1)).all()
    model = DLLM2Rec(config_with(), tmp_path / "long.parquet", VECTORS)
    assert np.isfinite(model.fit(split, seed=1).curve[-1]["loss"])


def test_the_robust_part_is_for_dros(split: Split, tmp_path: Path) -> None:
    models = [
        fitted(split, tmp_path, config_with(STUDENT[2], embedding_weight=0, ranking={"robust": robust}))
        for robust in (False, True)
    ]
    assert not torch.equal(models[0].scores(split.test), models[1].scores(split.test))
    with pytest.raises(ValueError, match=r"ranking\.robust is for students that are DROS, found 'sasrec'"):
        config_with(ranking={"robust": True})


def test_refusals(split: Split, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the lists of the teacher 'T' must be written first"):
        DLLM2Rec(config_with(), None, VECTORS).fit(split)
    with pytest.raises(InputError, match="the model 'T' has no item vectors to distil"):
        DLLM2Rec(config_with(), lists_file(split, tmp_path)).fit(split)
    with pytest.raises(InputError, match="'V' has vectors of 5 items, expected 24"):
        DLLM2Rec(config_with(vectors="V"), lists_file(split, tmp_path), VECTORS[:5]).fit(split)
    assert config_with(vectors="V").partners() == ("T", "V")
    assert config_with(vectors="V", embedding_weight=0).partners() == ("T",)
