"""TIGER on a toy catalogue: lists against scoring every item, what is left out, what is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tandemrec.data.examples import Examples, IntArray
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.evaluation.evaluate import evaluate
from tandemrec.llm.id_training import IdTask
from tandemrec.llm.recommenders.tiger import TIGER, TIGERConfig, _drawn
from tandemrec.llm.semantic_ids import SemanticIds

SETTINGS: dict[str, Any] = {
    "ids": {"quantiser": {"method": "residual-kmeans", "levels": 2, "codes": 5}},
    "network": {
        **{"dim": 24, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "head_dim": 12, "feed_forward": 48},
        **{"dropout": 0.0, "reading": "causal"},
    },
    "user_tokens": 7,
    "max_items": 6,
    "batch_size": 16,
    "learning": {
        **{"batch_size": 32, "judged": 30},
        "training": {"epochs": 8, "learning_rate": 5e-3, "patience": None, "validate_every": 4},
    },
}


@pytest.fixture(scope="module")
def tiger(split: Split) -> TIGER:
    model = TIGER(TIGERConfig.model_validate(SETTINGS))
    report = model.fit(split, seed=3)
    assert report.notes["targets"] == 60 * 5
    assert report.notes["semantic_ids"]["collision_rate"] > 0  # ten titles of 24 need a further digit
    assert {"ndcg@10", "hr@10", "log_likelihood"} <= set(report.curve[-1])
    return model


def test_it_learns_what_follows(tiger: TIGER, split: Split) -> None:
    assert evaluate(tiger, split).metrics["hr@5"]["mean"] > 0.6  # chance: 0.3


def test_wide_beams_rank_like_scoring_every_item(tiger: TIGER, split: Split) -> None:
    found, log_p = tiger.rank(split.test, 24, exclude_seen=False), tiger.log_probabilities(split.test)
    best = log_p.sort(1, descending=True)
    np.testing.assert_allclose(found.scores, best.values, atol=1e-4)
    np.testing.assert_allclose(found.scores, log_p.gather(1, torch.from_numpy(found.items).long()), atol=1e-4)
    assert all(sorted(row) == list(range(24)) for row in found.items.tolist())
    assert float(log_p.exp().sum(1).max()) <= 1 + 1e-5  # what is left over are ids that no item has


def test_among_the_catalogue_all_items_share_a_probability_of_one(split: Split) -> None:
    learning = {"select_on": "loss", "training": {"epochs": 2, "learning_rate": 5e-3, "patience": None}}
    model = TIGER(TIGERConfig.model_validate(SETTINGS | {"probabilities": "catalogue", "learning": learning}))
    report = model.fit(split, seed=0)
    assert report.curve[0]["log_likelihood"] > -np.log(24) - 0.2  # which ids exist need not be learned
    log_p, found = model.log_probabilities(split.test), model.rank(split.test, 24, exclude_seen=False)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(len(log_p)))
    np.testing.assert_allclose(found.scores, log_p.sort(1, descending=True).values, atol=1e-4)


@pytest.mark.parametrize("judged", [None, 20])
def test_an_epochs_likelihood_is_that_of_scoring_every_item(split: Split, judged: int | None) -> None:
    training = {"epochs": 2, "learning_rate": 5e-3, "patience": None}
    learning = {"batch_size": 64, "select_on": "loss", "judged": judged, "training": training}
    network = SETTINGS["network"] | {"dropout": 0.2}
    settings = SETTINGS | {"network": network, "max_items": 4, "learning": learning}
    model = TIGER(TIGERConfig.model_validate(settings))
    report = model.fit(split, seed=5)
    valid = _drawn(split.valid, judged, 5)
    log_p = model.log_probabilities(valid).gather(1, torch.from_numpy(valid.target.flat()).long()[:, None])
    best = next(row for row in report.curve if row["epoch"] == report.best_epoch)
    assert best["log_likelihood"] == report.best_value == pytest.approx(float(log_p.mean()), rel=1e-4)


def test_judged_examples_are_drawn_from_all_by_the_seed(split: Split) -> None:
    chosen = [_drawn(split.valid, 20, seed).user.tolist() for seed in range(30)]
    assert all(users == sorted(set(users)) and len(users) == 20 for users in chosen)
    assert chosen[4] == _drawn(split.valid, 20, 4).user.tolist()
    assert len({tuple(users) for users in chosen}) == 30
    assert {user for users in chosen for user in users} == set(split.valid.user.tolist())
    for n in (None, 60, 61):
        assert _drawn(split.valid, n, 0).user.tolist() == split.valid.user.tolist()


def test_narrow_beams_name_existing_items_with_exact_scores(tiger: TIGER, split: Split) -> None:
    tiger.config, whole = tiger.config.model_copy(update={"beams": 2}), tiger.config
    found, log_p = tiger.rank(split.test, 2, exclude_seen=False), tiger.log_probabilities(split.test)
    tiger.config = whole
    assert (found.items >= 0).all()
    assert (found.items[:, 0] != found.items[:, 1]).all()
    np.testing.assert_allclose(found.scores, log_p.gather(1, torch.from_numpy(found.items).long()), atol=1e-4)


def test_what_may_not_be_recommended_is_left_out(tiger: TIGER, split: Split) -> None:
    candidates = np.arange(24) % 3 > 0
    found, log_p = tiger.rank(split.test, 24, candidates=candidates), tiger.log_probabilities(split.test)
    for row, (items, seen) in enumerate(zip(found.items.tolist(), split.test.seen, strict=True)):
        allowed = [item for item in range(24) if candidates[item] and item not in seen]
        assert sorted(item for item in items if item >= 0) == allowed
        order = sorted(allowed, key=lambda item: -float(log_p[row, item]))
        assert items[:3] == order[:3]
        assert items[len(allowed) :] == [-1] * (24 - len(allowed))


def test_answers_depend_on_nothing_but_user_and_history(tiger: TIGER, split: Split) -> None:
    together = tiger.rank(split.test, 5)
    alone = tiger.rank(split.test.take(slice(7, 8)), 5)
    np.testing.assert_array_equal(together.items[7], alone.items[0])
    strangers = tiger.rank(Examples.from_histories([[1, 2, 3], []]), 5)
    assert (strangers.items >= 0).all()


def test_saved_and_loaded_it_is_the_same(tiger: TIGER, split: Split, tmp_path: Path) -> None:
    tiger.save(tmp_path)
    again = TIGER.load(tmp_path)
    assert torch.equal(again.log_probabilities(split.test), tiger.log_probabilities(split.test))
    assert again.config == tiger.config
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".parquet", ".safetensors"}
    again.save(tmp_path / "twice")
    assert (tmp_path / "twice" / "ids.json").read_bytes() == (tmp_path / "ids.json").read_bytes()
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"there is no model.safetensors"):
        TIGER.load(tmp_path)


def test_a_seed_gives_the_same_model(tiger: TIGER, split: Split, tmp_path: Path) -> None:
    again = TIGER(TIGERConfig.model_validate(SETTINGS))
    again.fit(split, seed=3, workspace=tmp_path)
    assert again.ids is not None
    assert tiger.ids is not None
    np.testing.assert_array_equal(again.ids.digits_IL, tiger.ids.digits_IL)
    assert torch.equal(again.log_probabilities(split.test), tiger.log_probabilities(split.test))


def test_a_killed_training_ends_with_the_same_model(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = {"epochs": 2, "patience": None, "checkpoint_seconds": 0}
    network = SETTINGS["network"] | {"dropout": 0.2}
    learning = {"batch_size": 64, "select_on": "loss", "training": training}
    config = TIGERConfig.model_validate(SETTINGS | {"network": network, "learning": learning})
    whole = TIGER(config)
    whole.fit(split, seed=4)
    loss, calls = IdTask.loss, []

    def killed(self: IdTask, batch: IntArray) -> torch.Tensor:
        calls.append(batch)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(self, batch)

    monkeypatch.setattr(IdTask, "loss", killed)
    with pytest.raises(KeyboardInterrupt):
        TIGER(config).fit(split, seed=4, workspace=tmp_path)
    again = TIGER(config)
    again.fit(split, seed=4, workspace=tmp_path)
    assert torch.equal(again.log_probabilities(split.test), whole.log_probabilities(split.test))


def test_ids_that_were_built_are_used_and_must_fit(split: Split, tmp_path: Path) -> None:
    codes = np.stack(np.divmod(np.arange(24), 5), 1)
    SemanticIds.of_codes(codes, 5).save(tmp_path, {"of": "hand"})
    config = TIGERConfig.model_validate(
        SETTINGS | {"learning": {"select_on": "loss", "training": {"epochs": 1, "patience": None}}}
    )
    model = TIGER(config, tmp_path)
    report = model.fit(split, seed=0)
    assert report.notes["semantic_ids"] == {"of": "hand"}
    assert report.best_value == report.curve[0]["log_likelihood"]
    assert model.ids is not None
    np.testing.assert_array_equal(model.ids.digits_IL, codes)
    SemanticIds.of_codes(codes[:20], 5).save(tmp_path, {})
    with pytest.raises(InputError, match="has ids of 20 items, the data have 24"):
        TIGER(config, tmp_path).fit(split)


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValidationError, match="must be examples or prefixes, found sequences"):
        TIGERConfig.model_validate({"train_on": "Random"})
    with pytest.raises(InputError, match="there is no model folder"):
        TIGERConfig.model_validate({"ids": {"content": {"kind": "language-model", "path": "nowhere"}}}).check()
    with pytest.raises(RuntimeError, match="must be fitted or loaded first"):
        TIGER().rank(Examples.from_histories([[0]]), 1)
