"""The language model as a predictor of ratings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tandemrec.experiment.foresight  # noqa: F401  (it knows what every system takes)
from tandemrec.conventional.rating.mf import BiasedMFConfig
from tandemrec.data.origins import earlier
from tandemrec.data.ratings import Pairs, target_ratings
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.evaluation.metrics import rmse
from tandemrec.llm import recommenders
from tandemrec.llm.instructions import Origin, write_instructions
from tandemrec.llm.questions import tail_text
from tandemrec.llm.reader import reader_of
from tandemrec.llm.recommenders.base import PretrainedConfig
from tandemrec.llm.recommenders.rater import Rater, RaterConfig
from tandemrec.recommender import FloatArray, RatingPredictor
from tandemrec.work import Scene, answer_work

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


def test_a_written_rating_is_the_likeliest_one(rater: Rater, rated: Split, tmp_path: Path) -> None:
    rater.save(tmp_path)
    again = Rater.load(tmp_path, Mean())
    truth, _ = target_ratings(rated, rated.test)
    again.config = again.config.model_copy(update={"reading": "likeliest"})
    likeliest = again.predict(truth.pairs)
    again.config = again.config.model_copy(update={"reading": "written"})
    before = again.tokens
    # A tiny model may write something else than a rating now and then; where it does not, that is the likeliest one.
    assert (again.predict(truth.pairs) == likeliest).mean() > 0.9
    assert again.tokens > before
    assert 0 <= again._check(truth.pairs)["unreadable_share"] < 0.1
    assert len(again.predict(truth.pairs.take(slice(0, 0)))) == 0


def test_what_cannot_be_read_is_the_bases_prediction(
    rater: Rater, rated: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rater.save(tmp_path)
    model = Rater.load(tmp_path, Mean())
    model.config = model.config.model_copy(update={"reading": "written", "max_new_tokens": 7})

    def told(lm: Any, prompts: list[list[int]], config: Any, limit: int) -> list[str]:
        assert (config.beams, limit) == (1, 7)
        assert all('"' in lm.tokenizer.decode(prompt) and len(prompt) <= lm.context - limit for prompt in prompts)
        return [("I cannot say", "five stars", "0", "4/5")[place % 4] for place in range(len(prompts))]

    monkeypatch.setattr(recommenders.rater, "generate", told)
    pairs = target_ratings(rated, rated.test)[0].pairs.take(slice(0, 8))
    assert model.predict(pairs).tolist() == 2 * [3, 5, 3, 4]
    assert model._check(pairs)["unreadable_share"] == 0.5


@pytest.mark.parametrize("reading", ["expected", "written"])
def test_nothing_is_asked_about_an_item_that_is_not_known(
    rater: Rater, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reading: str
) -> None:
    rater.save(tmp_path)
    model = Rater.load(tmp_path, Mean())
    model.config = model.config.model_copy(update={"reading": reading})
    monkeypatch.setattr(Mean, "predict", lambda _, pairs: np.linspace(2.25, 2.75, len(pairs), dtype=np.float32))
    pairs = Pairs(np.array([0, 4, -1, 4], np.int32), np.array([-1, 3, -1, -1], np.int32))
    texts = list[str]()
    for module in (recommenders.rater, recommenders.instructed):

        def kept(task: Any, title: str, *rest: Any) -> str:
            texts.append(title)
            return tail_text(task, title, *rest)

        monkeypatch.setattr(module, "tail_text", kept)
    found = model.predict(pairs)
    assert texts == [model.titles[3]]
    np.testing.assert_array_equal(found[[0, 2, 3]], np.linspace(2.25, 2.75, 4, dtype=np.float32)[[0, 2, 3]])
    assert 1 <= found[1] <= 5
    nobody, before = model.predict(Pairs(np.array([4], np.int32), np.array([-1], np.int32))), model.tokens
    assert nobody.tolist() == [2.25]
    assert model.tokens == before


def test_validation_without_instructions_is_refused_before_tuning(
    rater: Rater, rated: Split, nano_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommenders.instructed, "prepare", None)
    model = Rater(rater.config, Mean(), language_model=nano_folder, instructions=rater.instructions)
    with pytest.raises(InputError, match="rated toy, validation part: none of its 0 examples gives an instruction"):
        model.fit(replace(rated, valid=rated.valid.take(slice(0, 0))))


def test_written_ratings_are_foreseen(rater: Rater, rated: Split, nano_folder: Path) -> None:
    config = rater.config.model_copy(update={"reading": "written", "tuned": None})
    models = {"MF": BiasedMFConfig(), "Rater": config}
    scene = Scene(rated, models, reader=reader_of(PretrainedConfig(path=str(nano_folder)), rated.dataset))
    written, judged = answer_work(config, scene, rated.test), answer_work(rater.config, scene, rated.test)
    assert written is not None
    assert judged is not None
    assert 0 == judged.written < written.written <= 3 * len(rated.test)


def test_an_unknown_neighbour_is_answered_with_models_of_ratings(rated: Split, nano_folder: Path) -> None:
    class Alone(Mean):
        user_vectors = None  # type: ignore[assignment]

    model = Rater(RaterConfig.model_validate(SETTINGS | {"finetune": None}), Alone(), language_model=nano_folder)
    with pytest.raises(InputError, match=r"name a system that has \(Biased MF, FM\)"):
        model.fit(rated)


def test_data_without_ratings_are_refused(split: Split, nano_folder: Path) -> None:
    with pytest.raises(InputError, match="column 'rating': a system that asks for ratings needs one in every row"):
        Rater(RaterConfig.model_validate(SETTINGS), Mean(), language_model=nano_folder).fit(split)
