"""SOFT and S-DPO on a toy catalogue: the stages, what they learn from, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from tandemrec.data.examples import Examples
from tandemrec.data.kinds import item_kinds
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.llm.distil import distil, distil_summary
from tandemrec.llm.generate import SamplingConfig
from tandemrec.llm.recommenders.bigrec import BIGRec, BIGRecConfig
from tandemrec.llm.recommenders.lessons import DistilConfig, draw_negatives

BASE: dict[str, Any] = {
    "lm": {"build": "nano", "millions": 0.05},
    "prompt": {"template": "compact", "history": 4},
    "generation": {"beams": 2},
    "finetune": {"tuning": "full", "batch_size": 16, "training": {"epochs": 3, "learning_rate": 3e-3}},
}
SOFT_LOSS: dict[str, Any] = {"loss": "soft", "teacher": "T", "schedule": {"kind": "adaptive", "alpha": 5, "prompts": 8}}


@pytest.fixture(scope="module")
def teacher(split: Split, nano_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = BIGRec(BIGRecConfig.model_validate(BASE), nano_folder)
    model.fit(split, seed=3)
    folder: Path = tmp_path_factory.mktemp("teacher") / "model"
    model.save(folder)
    return folder


@pytest.fixture(scope="module")
def answers(teacher: Path, split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    frame = distil(BIGRec.load(teacher), split.train, split.dataset, DistilConfig())
    path: Path = tmp_path_factory.mktemp("answers") / "answers.parquet"
    frame.write_parquet(path)
    return path


def student(settings: dict[str, Any], nano_folder: Path, teacher: Path, answers: Path | None = None) -> BIGRec:
    config = BIGRecConfig.model_validate(BASE | settings)
    return BIGRec(config, nano_folder, teacher=teacher, distilled=answers)


def test_distilled_answers_line_up_with_the_training_prompts(teacher: Path, answers: Path, split: Split) -> None:
    model, frame = BIGRec.load(teacher), pl.read_parquet(answers)
    written = model.complete(split.train)
    titles = split.dataset.titles
    targets = [int(row[0]) for row in split.train.target]
    assert frame["written"].to_list() == written
    assert frame["target"].to_list() == targets
    assert frame["exact"].to_list() == [text.strip().strip('"') in titles for text in written]
    assert frame["hit"].to_list() == [
        text.strip().strip('"') == titles[target] for text, target in zip(written, targets, strict=True)
    ]
    same = [titles[a].split()[0] == titles[b].split()[0] for a, b in zip(frame["nearest"], targets, strict=True)]
    assert frame["hit_kind"].to_list() == same
    assert distil_summary(frame)["hit_kind_share"] == pytest.approx(np.mean(same))
    grounded = distil(model, split.train, split.dataset, DistilConfig(ground=True))
    assert set(grounded["answer"]) <= set(titles)


def test_several_answers_are_drawn_for_each_prompt(teacher: Path, split: Split) -> None:
    model, sampling = BIGRec.load(teacher), SamplingConfig(samples=3, temperature=1.3)
    frame = distil(model, split.train, split.dataset, DistilConfig(sampling=sampling), seed=4)
    assert frame["user"].to_list() == split.train.user.repeat(3).tolist()
    again = model.sampled(split.train, sampling, seed=4)
    assert frame["written"].to_list() == [text for several in again for text in several]
    assert any(len(set(several)) > 1 for several in again)
    titles = split.dataset.titles
    hits = [
        text.strip().strip('"') == titles[item] for text, item in zip(frame["written"], frame["target"], strict=True)
    ]
    assert frame["hit"].to_list() == hits


def test_equal_answers_count_as_one(
    split: Split, nano_folder: Path, teacher: Path, answers: Path, tmp_path: Path
) -> None:
    frame = pl.read_parquet(answers)
    frame[np.arange(frame.height).repeat(3)].write_parquet(tmp_path / "thrice.parquet")
    mixed = SOFT_LOSS | {"schedule": {"kind": "fixed", "tau": 0.7}}
    once = student({"objective": mixed}, nano_folder, teacher, answers)
    several = {"objective": mixed | {"distil": {"sampling": {"samples": 3}}}}
    thrice = student(several, nano_folder, teacher, tmp_path / "thrice.parquet")
    losses = [[row["loss"] for row in model.fit(split, seed=3).curve] for model in (once, thrice)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    torch.testing.assert_close(once.scores(split.test), thrice.scores(split.test), rtol=1e-3, atol=1e-4)


def test_unknown_column_of_kinds_is_refused(split: Split) -> None:
    with pytest.raises(InputError, match=r"'distil.kind': found 'genre', the items have: item_id, title, series"):
        item_kinds(split.dataset.items, "genre", "distil.kind")


def test_soft_starts_with_its_own_answers_and_turns_to_the_real_ones(
    split: Split, nano_folder: Path, teacher: Path, answers: Path
) -> None:
    report = student({"objective": SOFT_LOSS}, nano_folder, teacher, answers).fit(split, seed=3)
    taus, distances = ([row[key] for row in report.curve] for key in ("tau", "distance"))
    assert taus[0] == 1.0
    start = None
    for tau, distance in zip(taus[1:], distances, strict=False):
        start = distance / (1 + np.log(tau) / 5) if start is None and tau < 1 else start
        assert tau <= 1
        if start is not None and tau < 1:
            assert tau == pytest.approx(np.exp(5 * (distance / start - 1)), rel=1e-6)
    assert taus[-1] < 1


def test_soft_without_adaptation_is_sft_on_the_distilled_set(
    split: Split, nano_folder: Path, teacher: Path, answers: Path
) -> None:
    only = {"objective": SOFT_LOSS | {"schedule": {"kind": "fixed", "tau": 1}}}
    none = {"objective": SOFT_LOSS | {"schedule": {"kind": "fixed", "tau": 0}}}
    own = student(only, nano_folder, teacher, answers)
    real = student(none, nano_folder, teacher, answers)
    own_report, real_report = own.fit(split, seed=3), real.fit(split, seed=3)
    plain = BIGRec.load(teacher)
    torch.testing.assert_close(real.scores(split.test), plain.scores(split.test))
    assert own_report.curve[0]["loss"] != pytest.approx(real_report.curve[0]["loss"], rel=1e-4)


def test_soft_can_go_on_with_the_teacher(split: Split, nano_folder: Path, teacher: Path, answers: Path) -> None:
    fresh, further = (
        student({"objective": SOFT_LOSS | {"start": start}}, nano_folder, teacher, answers).fit(split, seed=3)
        for start in ("fresh", "teacher")
    )
    assert further.curve[0]["loss"] < fresh.curve[0]["loss"]


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_sdpo_starts_from_the_teacher_at_log_1_plus_k(
    split: Split, nano_folder: Path, tmp_path: Path, tuning: str
) -> None:
    slow = {"tuning": tuning, "batch_size": 1000, "dropout": 0.0, "training": {"epochs": 3, "learning_rate": 1e-3}}
    settings = BASE | {"finetune": slow}
    first = BIGRec(BIGRecConfig.model_validate(settings), nano_folder)
    first.fit(split, seed=3)
    first.save(tmp_path / "teacher")
    loss = {"loss": "sdpo", "teacher": "T", "negatives": 3}
    config = BIGRecConfig.model_validate(settings | {"objective": loss})
    model = BIGRec(config, nano_folder, teacher=tmp_path / "teacher")
    report = model.fit(split, seed=3, workspace=tmp_path / "work")
    losses = [row["loss"] for row in report.curve]
    assert losses[0] == pytest.approx(np.log(4), abs=1e-4)
    assert losses[-1] < losses[0]
    again = BIGRec(config, nano_folder, teacher=tmp_path / "teacher")
    assert again.fit(split, seed=3, workspace=tmp_path / "work").curve == report.curve
    model.save(tmp_path / "model")
    assert BIGRec.load(tmp_path / "model").complete(split.test) == model.complete(split.test)


def test_negatives_are_uniform_over_what_the_user_has_not_met() -> None:
    examples = Examples.from_histories([[0, 1], [5]] * 2000)
    drawn = draw_negatives(examples, 8, 3, seed=1)
    assert all(len(set(row)) == 3 for row in drawn.tolist())
    for start, met in ((0, {0, 1}), (1, {5})):
        counts = np.bincount(drawn[start::2].ravel(), minlength=8)
        assert not counts[list(met)].any()
        free = np.delete(counts, list(met))
        assert free.std() < 0.06 * free.mean()
    assert np.array_equal(drawn, draw_negatives(examples, 8, 3, seed=1))
    with pytest.raises(InputError, match="found 7, but a user leaves only 6 items unmet"):
        draw_negatives(examples, 8, 7, seed=1)


def test_what_does_not_fit_is_refused(split: Split, nano_folder: Path, teacher: Path, tmp_path: Path) -> None:
    soft = BIGRecConfig.model_validate(BASE | {"objective": SOFT_LOSS})
    with pytest.raises(InputError, match="the answers of 'T' must be written first"):
        BIGRec(soft, nano_folder).fit(split)
    pl.DataFrame({"answer": ["a"]}).write_parquet(tmp_path / "short.parquet")
    with pytest.raises(InputError, match=r"found 1 answers, expected \d+, 1 a training prompt"):
        BIGRec(soft, nano_folder, distilled=tmp_path / "short.parquet").fit(split)
    sdpo = BIGRecConfig.model_validate(BASE | {"objective": {"loss": "sdpo", "teacher": "T"}})
    with pytest.raises(InputError, match="the system 'T' must be trained first"):
        BIGRec(sdpo, nano_folder).fit(split)
    other = sdpo.model_copy(update={"finetune": sdpo.finetune.model_copy(update={"tuning": "lora"})})
    with pytest.raises(InputError, match=r"finetune\.tuning.: found lora, but .* a teacher that has full"):
        BIGRec(other, nano_folder, teacher=teacher).fit(split)
    with pytest.raises(ValueError, match="does not go with loss_on: all"):
        BIGRecConfig.model_validate(BASE | {"loss_on": "all", "objective": {"loss": "sdpo", "teacher": "T"}})
