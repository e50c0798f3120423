"""Backbones trained on more than the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from tandemrec.augmentation.augmented import Augmented, AugmentedConfig
from tandemrec.augmentation.preferences import augment
from tandemrec.conventional.direct.interactions import Pairs
from tandemrec.conventional.direct.mf import MF, MFConfig
from tandemrec.conventional.direct.pairwise import PairwiseTask, Preferences
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tests.fixed import Fixed

TABLE = np.random.default_rng(0).normal(size=(60, 24))
BRIEF = {"epochs": 3, "validate_every": 3}
MF_ON_PAIRS: dict[str, Any] = {
    "model": "augmented",
    "backbone": {"model": "mf", "dim": 8, "batch_size": 64, "training": BRIEF},
    "by": "Ranker",
    "data": {"method": "pairs", "per_user": 2},
}


def fitted(split: Split, tmp_path: Path, **settings: Any) -> Augmented:
    config = AugmentedConfig.model_validate(MF_ON_PAIRS | settings)
    augment(split, config.data, Fixed(TABLE), "Ranker", 1).write_parquet(tmp_path / "added.parquet")
    model = Augmented(config, tmp_path / "added.parquet")
    model.fit(split, seed=2)
    return model


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"backbone": {"model": "mixgcf", "dim": 8, "candidates": 4, "training": BRIEF}},
        {"data": {"method": "insertions", "offered": 4}},
        {
            "backbone": {"model": "sasrec", "dim": 8, "max_length": 8, "training": BRIEF},
            "data": {"method": "insertions", "offered": 4},
        },
    ],
    ids=["mf", "mixgcf", "mf-insertions", "sasrec"],
)
def test_training_and_storage(split: Split, tmp_path: Path, settings: dict[str, Any]) -> None:
    model = fitted(split, tmp_path, **settings)
    model.save(tmp_path / "model")
    again = Augmented.load(tmp_path / "model")
    torch.testing.assert_close(again.scores(split.test), model.scores(split.test))
    assert (again.user_vectors is None) == (model.config.backbone.model == "sasrec")
    assert pl.read_parquet(tmp_path / "model" / "augmentation.parquet").height >= 60


def test_every_triple_takes_part_once_an_epoch_with_its_own_rejected_item(split: Split) -> None:
    model = MF(MFConfig(batch_size=50))
    given = Preferences(np.arange(60), np.arange(60) % 24, (np.arange(60) + 7) % 24)
    model.preferences = given
    pairs = Pairs.of(split.sequences, 24)
    task = PairwiseTask(model, model.module_class(model.config, pairs, model.device, 0), split, pairs, 3)
    triples = [
        (user, positive - 60, negative - 60)
        for step in task.steps(0)
        for batch in step
        for user, positive, negative in zip(
            batch.user.tolist(), batch.positive.tolist(), batch.negative[:, 0].tolist(), strict=True
        )
    ]
    assert len(triples) == len(pairs) + 60
    left = list(triples)
    for triple in zip(given.users.tolist(), given.preferred.tolist(), given.rejected.tolist(), strict=True):
        left.remove(triple)
    assert sorted((user, positive) for user, positive, _ in left) == sorted(
        zip(pairs.users.tolist(), pairs.items.tolist(), strict=True)
    )
    assert all(negative not in split.sequences[user] for user, _, negative in left)


def test_preferences_are_learned(split: Split, tmp_path: Path) -> None:
    long = {"model": "mf", "dim": 16, "l2": 0, "batch_size": 64, "training": {"epochs": 60, "validate_every": 60}}
    plain = MF(MFConfig.model_validate(long))
    plain.fit(split, seed=2)
    model = fitted(split, tmp_path, backbone=long, data={"method": "pairs", "per_user": 10})
    frame = pl.read_parquet(tmp_path / "added.parquet")
    users, chosen, rejected = (frame[name].to_numpy() for name in ("user", "chosen", "rejected"))

    def agreement(system: Any) -> float:
        scores = (system.user_vectors @ system.item_vectors.T).numpy()
        return float((scores[users, chosen] > scores[users, rejected]).mean())

    assert agreement(model) > agreement(plain) + 0.2


def test_refusals(split: Split) -> None:
    with pytest.raises(ValueError, match="'sasrec' learns from none: use the method 'insertions'"):
        AugmentedConfig.model_validate(MF_ON_PAIRS | {"backbone": {"model": "sasrec"}})
    with pytest.raises(InputError, match="what 'Ranker' adds to the data must be written first"):
        Augmented(AugmentedConfig.model_validate(MF_ON_PAIRS)).fit(split)
