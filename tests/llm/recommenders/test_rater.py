"""The language model as a predictor of ratings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from tandemrec.data.dataset import Dataset
from tandemrec.data.origins import earlier
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.ratings import Pairs, target_ratings
from tandemrec.data.split import Split, make_split
from tandemrec.errors import InputError
from tandemrec.evaluation.metrics import rmse
from tandemrec.llm.instructions import Origin, write_instructions
from tandemrec.llm.recommenders.rater import Rater, RaterConfig
from tandemrec.recommender import FloatArray, RatingPredictor

SETTINGS: dict[str, Any] = {
    "base": "MF",
    "lm": {"build": "nano", "millions": 0.05},
    "prompt": {"template": "compact", "history": 3, "similar": 1},
    "instructions": {"origins": 1, "horizon": 3},
    "finetune": {
        "tuning": "full",
        "batch_size": 16,
        "training": {"epochs": 10, "learning_rate": 3e-3, "schedule": "cosine", "patience": None},
    },
}


class Mean(RatingPredictor):
    """Predicts 3 for everybody; has user vectors."""

    user_vectors = torch.from_numpy(np.random.default_rng(3).normal(size=(60, 4)))

    def predict(self, pairs: Pairs) -> FloatArray:
        return np.full(len(pairs), 3.0, np.float32)

    fit = save = load = None  # type: ignore[assignment]


@pytest.fixture(scope="module")
def rated(toy: Dataset) -> Split:
    """Ratings that follow from the series in the title: 1 to 5, one rating a series."""
    series = pl.col("item") // 4
    rows = toy.interactions.with_columns(rating=(series % 5 + 1).cast(pl.Float32))
    return make_split(Dataset(rows, toy.items, toy.users, toy.clock, "rated toy"), LeaveOneOut())


@pytest.fixture(scope="module")
def rater(rated: Split, nano_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Rater:
    config = RaterConfig.model_validate(SETTINGS)
    known = earlier(rated, 0, 1, 3)
    origin = Origin(known, known.test, Mean(), Mean.user_vectors)
    place = tmp_path_factory.mktemp("rater") / "instructions.parquet"
    frame = write_instructions([origin], config.counts(), config.instructions, config.prompt, 0, 3)
    frame.write_parquet(place)
    model = Rater(config, Mean(), language_model=nano_folder, instructions=place)
    model.fit(rated, seed=1)
    return model


def test_it_learns_ratings_that_titles_tell(rater: Rater, rated: Split) -> None:
    truth, _ = target_ratings(rated, rated.test)
    assert rater.options == [1, 2, 3, 4, 5]
    assert rmse(rater.predict(truth.pairs), truth.value) < 0.6 * rmse(np.full(len(truth), 3.0), truth.value)


def test_pairs_in_any_order_and_company(rater: Rater, rated: Split) -> None:
    pairs = Pairs(np.array([5, 2, 5, -1, 2, 5], np.int32), np.array([1, 1, 9, 3, 20, 23], np.int32))
    whole = rater.predict(pairs)
    for row in range(len(pairs)):
        np.testing.assert_allclose(rater.predict(pairs.take(slice(row, row + 1))), whole[row : row + 1], atol=1e-4)
    assert ((whole >= 1) & (whole <= 5)).all()


def test_the_likeliest_rating_is_one_of_the_scale(rater: Rater, rated: Split, tmp_path: Path) -> None:
    rater.save(tmp_path)
    again = Rater.load(tmp_path, Mean())
    truth, _ = target_ratings(rated, rated.test)
    np.testing.assert_allclose(again.predict(truth.pairs), rater.predict(truth.pairs), atol=1e-5)
    again.config = again.config.model_copy(update={"reading": "likeliest"})
    assert set(again.predict(truth.pairs)) <= {1, 2, 3, 4, 5}


def test_data_without_ratings_are_refused(split: Split, nano_folder: Path) -> None:
    with pytest.raises(InputError, match="a rater needs a rating in every row"):
        Rater(RaterConfig.model_validate(SETTINGS), Mean(), language_model=nano_folder).fit(split)
