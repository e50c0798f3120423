"""The language model as a ranker of a base's candidates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import Examples
from tandemrec.data.origins import earlier
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.split import Split, make_split
from tandemrec.errors import InputError
from tandemrec.llm import recommenders
from tandemrec.llm.instructions import Origin, write_instructions
from tandemrec.llm.recommenders.ranker import Ranker, RankerConfig
from tandemrec.recommender import NO_ITEM
from tests.fixed import Fixed

LONG = {"epochs": 25, "learning_rate": 3e-3, "schedule": "cosine", "patience": None}
TUNED: dict[str, Any] = {"tuning": "full", "batch_size": 16, "training": LONG | {"epochs": 2}}
SETTINGS: dict[str, Any] = {
    "base": "MF",
    "candidates": 4,
    "lm": {"build": "nano", "millions": 0.05},
    "prompt": {"template": "compact", "history": 2, "similar": 1},
    "instructions": {"listwise": 0, "like": 400, "origins": 1, "horizon": 2, "source": "random", "named": 2},
    "finetune": TUNED,
    "style": "like",
}
RATINGS = {"rating": 100}


def config(**settings: Any) -> RankerConfig:
    return RankerConfig.model_validate(SETTINGS | settings)


def base(split: Split) -> Fixed:
    """Knows nothing, but has user vectors."""
    rng = np.random.default_rng(6)
    system = Fixed(rng.normal(size=(60, 24)))
    system.user_vectors = torch.from_numpy(rng.normal(size=(60, 4)))
    return system


def fitted(split: Split, folder: Path, tmp_path: Path, settings: RankerConfig, system: Fixed) -> Ranker:
    known = earlier(split, 0, 1, 2)
    first = Origin(known, known.test, system, system.user_vectors)
    chosen = settings.instructions
    frame = write_instructions([first], settings.counts(), chosen, settings.prompt, settings.candidates, 3)
    frame.write_parquet(tmp_path / "instructions.parquet")
    model = Ranker(settings, system, language_model=folder, instructions=tmp_path / "instructions.parquet")
    model.fit(split, seed=3)
    return model


@pytest.fixture(scope="module")
def yes(split: Split, nano_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Ranker:
    return fitted(split, nano_folder, tmp_path_factory.mktemp("like"), config(), base(split))


def against_random(split: Split, n: int = 4) -> np.ndarray:
    """The true next item and n − 1 others, in random order, for every test example."""
    rng = np.random.default_rng(8)
    rows = []
    for history, target in zip(split.test.history, split.test.target, strict=True):
        left = np.setdiff1d(np.arange(24), [*history, *target])
        rows.append(rng.permutation([int(target[0]), *rng.choice(left, n - 1, replace=False)]))
    return np.array(rows, np.int32)


def test_pointwise_learns_what_follows(split: Split, nano_folder: Path, tmp_path: Path) -> None:
    prompt = {"template": "compact", "history": 2, "similar_user": False, "prediction": False}
    settings = config(prompt=prompt, finetune=TUNED | {"training": LONG}, checked=0)
    model = fitted(split, nano_folder, tmp_path, settings, base(split))
    items = against_random(split)
    best = np.take_along_axis(items, model.utilities(split.test, items).argmax(1)[:, None], 1)
    assert (best[:, 0] == split.test.target.flat()).mean() > 0.5  # chance: .25


def test_ranking_puts_the_bases_candidates_in_order(yes: Ranker, split: Split) -> None:
    mine, its = yes.rank(split.test, 7), yes.base.rank(split.test, 7)
    np.testing.assert_array_equal(mine.items[:, 4:], its.items[:, 4:])
    np.testing.assert_array_equal(np.sort(mine.items[:, :4]), np.sort(its.items[:, :4]))
    utility = yes.utilities(split.test, its.items[:, :4])
    for row in range(len(split.test)):
        order = sorted(range(4), key=lambda place: (-utility[row, place], place))
        assert mine.items[row, :4].tolist() == [int(its.items[row, place]) for place in order]


def test_an_answer_does_not_depend_on_the_batch(yes: Ranker, split: Split) -> None:
    items = against_random(split)
    whole = yes.utilities(split.test, items)
    some = np.array([7, 3, 41])
    np.testing.assert_allclose(yes.utilities(split.test.take(some), items[some]), whole[some], atol=1e-5)
    items[0, 2:] = NO_ITEM
    short = yes.utilities(split.test, items)
    assert np.isnan(short[0]).tolist() == [False, False, True, True]
    np.testing.assert_allclose(short[1:], whole[1:], atol=1e-5)


def test_strangers_and_empty_histories_are_answered(yes: Ranker) -> None:
    # The base of this test knows users by number only.
    found = yes.utilities(Examples.from_histories([[], [1, 2]]), np.array([[1, 2], [3, 4]], np.int32))
    assert np.isfinite(found).all()


def test_it_survives_saving_and_its_model_can_be_taken(yes: Ranker, split: Split, tmp_path: Path) -> None:
    items = against_random(split)
    yes.save(tmp_path / "ranker")
    again = Ranker.load(tmp_path / "ranker", yes.base)
    np.testing.assert_allclose(again.utilities(split.test, items), yes.utilities(split.test, items), atol=1e-6)
    taker = Ranker(config(tuned="R", base="MF"), yes.base, again)
    taker.fit(split)
    np.testing.assert_allclose(taker.utilities(split.test, items), yes.utilities(split.test, items), atol=1e-6)
    taker.save(tmp_path / "taker")
    assert not (tmp_path / "taker" / "model").exists()
    blind = Ranker(config(tuned="R", prompt=SETTINGS["prompt"] | {"prediction": False}), yes.base, again)
    blind.fit(split)
    assert not np.allclose(blind.utilities(split.test, items), yes.utilities(split.test, items))


def test_listwise_answers_are_read(
    split: Split, nano_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instructions = {"listwise": 60, "origins": 1, "horizon": 2, "source": "random", "named": 2}
    brief = TUNED | {"tuning": "lora", "training": {"epochs": 1}}
    settings = config(style="listwise", instructions=instructions, finetune=brief, checked=20)
    model = fitted(split, nano_folder, tmp_path, settings, base(split))
    seen: list[str] = []

    def told(lm: Any, prompts: list[list[int]], *rest: Any) -> list[str]:
        """The last two candidates as they are shown, the better one misspelt, behind an invention."""
        texts = [lm.tokenizer.decode(prompt, skip_special_tokens=True) for prompt in prompts]
        seen.extend(texts)
        shown = [text.split("candidates: ")[1].split("\n")[0].split("; ") for text in texts]
        return [f'"Titanic"; {row[3].lower()}; {row[2]}' for row in shown]

    monkeypatch.setattr(recommenders.ranker, "generate", told)
    items = against_random(split)
    utility = model.utilities(split.test, items)
    assert (np.isnan(utility).sum(1) == 2).all()
    for text, row, values in zip(seen, items, utility, strict=True):
        shown = text.split("candidates: ")[1].split("\n")[0].replace('"', "").split("; ")
        hint = text.split("hint: ")[1].split("\n")[0].replace('"', "").split("; ")
        assert hint == [model.titles[item] for item in row]
        named = [model.titles[item] for item, value in zip(row, values, strict=True) if not np.isnan(value)]
        best = model.titles[row[int(np.nanargmax(values))]]
        assert (sorted(named), best) == (sorted(shown[2:]), shown[3])
    assert len({text.split("candidates: ")[1] for text in seen}) > 30
    facts = model._check(split.valid.take(slice(0, 10)))
    assert facts["inventions_per_answer"] == 1
    assert facts["named_per_answer"] == 2
    assert facts["unreadable_share"] == 0


def test_the_report_tells_readability_and_cost(split: Split, nano_folder: Path, tmp_path: Path) -> None:
    model = Ranker(config(finetune=None, style="listwise", checked=5), base(split), language_model=nano_folder)
    report = model.fit(split)
    assert set(report.notes["answers"]) >= {"unreadable_share", "seconds_per_user", "named_per_answer"}
    model.save(tmp_path)
    assert Ranker.load(tmp_path, base(split)).rank(split.test.take(slice(0, 2)), 5).items.shape == (2, 5)


def test_refusals(split: Split, nano_folder: Path, yes: Ranker) -> None:
    with pytest.raises(InputError, match="'MF' has no vectors of users; name a system that has"):
        Ranker(config(), Fixed(np.ones((60, 24))), language_model=nano_folder).fit(split)
    with pytest.raises(InputError, match="learns from instructions, which must be written first"):
        Ranker(config(), base(split), language_model=nano_folder).fit(split)
    with pytest.raises(InputError, match="'EASE' is no ranker or rater"):
        Ranker(config(tuned="EASE"), base(split), base(split))
    with pytest.raises(ValueError, match="style 'rating' needs instructions of that task"):
        config(style="rating")


def finely_rated(toy: Dataset) -> Split:
    """Every rating is another one."""
    rows = toy.interactions.with_columns(rating=pl.int_range(pl.len()).cast(pl.Float32))
    return make_split(Dataset(rows, toy.items, toy.users, toy.clock, "finely rated toy"), LeaveOneOut())


def test_ratings_need_no_scale_where_nobody_asks_for_them(toy: Dataset, nano_folder: Path, tmp_path: Path) -> None:
    split = finely_rated(toy)
    model = fitted(split, nano_folder, tmp_path, config(), base(split))
    assert model.options == []
    model.save(tmp_path / "ranker")
    again, few = Ranker.load(tmp_path / "ranker", model.base), split.test.take(slice(0, 5))
    np.testing.assert_array_equal(again.rank(few, 4).items, model.rank(few, 4).items)
    for settings in (config(style="rating", finetune=None), config(instructions=SETTINGS["instructions"] | RATINGS)):
        with pytest.raises(InputError, match=r"column 'rating': found \d+ different ratings, expected a scale"):
            Ranker(settings, base(split), language_model=nano_folder).fit(split)


def test_ratings_are_answers_where_they_are_asked_for_or_learned(
    rated: Split, nano_folder: Path, tmp_path: Path
) -> None:
    settings = config(instructions=SETTINGS["instructions"] | RATINGS)
    assert fitted(rated, nano_folder, tmp_path, settings, base(rated)).options == [1, 2, 3, 4, 5]
    model = Ranker(config(style="rating", finetune=None), base(rated), language_model=nano_folder)
    model.fit(rated)
    assert np.isfinite(model.utilities(rated.test, against_random(rated))).all()


@pytest.mark.parametrize("known", [0, 1])
def test_ratings_that_are_asked_for_must_be_there(
    toy: Dataset, nano_folder: Path, known: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ranker, "_load", None)
    some = pl.when(pl.int_range(pl.len()) < known * 400).then(pl.lit(3.0, pl.Float32))
    data = Dataset(toy.interactions.with_columns(rating=some), toy.items, toy.users, toy.clock, "half rated toy")
    split = make_split(data, LeaveOneOut())
    model = Ranker(config(style="rating", finetune=None), base(split), language_model=nano_folder)
    with pytest.raises(InputError, match="half rated toy, column 'rating': a system that asks for ratings needs one"):
        model.fit(split)


def test_a_base_that_reaches_no_validation_item(split: Split, nano_folder: Path, tmp_path: Path) -> None:
    table, known = np.zeros((60, 24)), earlier(split, 0, 1, 2)
    for user, targets in zip(known.test.user, known.test.target, strict=True):
        table[user, targets] = 1
    for user, targets in zip(split.valid.user, split.valid.target, strict=True):
        table[user, targets] = -1
    system = Fixed(table)
    system.user_vectors = base(split).user_vectors
    settings = config(instructions=SETTINGS["instructions"] | {"source": "base"})
    sentence = "toy, validation part: none of its 60 examples .* where 'MF' reaches none of their items, raise candid"
    with pytest.raises(InputError, match=sentence):
        fitted(split, nano_folder, tmp_path, settings, system)
    nobody = replace(split, valid=split.valid.take(slice(0, 0)))
    with pytest.raises(InputError, match="toy, validation part: none of its 0 examples gives an instruction"):
        fitted(nobody, nano_folder, tmp_path, config(), base(split))


def test_a_task_without_validation_instructions_is_left_out(rated: Split, nano_folder: Path, tmp_path: Path) -> None:
    first = rated.dataset.interactions.with_row_index().group_by("user").agg(pl.col("index").max() - 1)
    place = pl.int_range(pl.len()).is_in(first["index"].implode())  # of the validation items
    rows = rated.dataset.interactions.with_columns(rating=pl.when(~place).then("rating"))
    data = rated.dataset
    split = make_split(Dataset(rows, data.items, data.users, data.clock, "half rated toy"), LeaveOneOut())
    settings = config(instructions=SETTINGS["instructions"] | RATINGS)
    model = fitted(split, nano_folder, tmp_path, settings, base(split))
    assert set(model._valid_instructions(split, model.base.user_vectors, 3)["task"]) == {"like"}


def test_instructions_lose_the_hints_that_are_switched_off(yes: Ranker, tmp_path: Path) -> None:
    assert yes.instructions is not None
    frame = pl.read_parquet(yes.instructions)
    yes_texts = [yes.language_model.tokenizer.decode(ids) for ids in yes._prompted(frame).prompts]
    assert all("hint: place" in text and "similar: " in text for text in yes_texts)
    blind = Ranker(config(prompt=SETTINGS["prompt"] | {"prediction": False, "similar_user": False}), yes.base)
    blind.titles, blind._lm, blind.budget = yes.titles, yes.language_model, yes.budget
    texts = [yes.language_model.tokenizer.decode(ids) for ids in blind._prompted(frame).prompts]
    assert not any("hint" in text or "similar" in text for text in texts)
