"""Attributes of items as stages: one a column, which splits of the same items share."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from safetensors.torch import load_file, save_file

from tandemrec.data.dataset import Dataset
from tandemrec.errors import InputError
from tandemrec.experiment.devices import here
from tandemrec.experiment.plan import plan
from tandemrec.experiment.recipe import load_recipe
from tandemrec.experiment.run import Run, run
from tandemrec.experiment.store import StageEvent
from tests.llm.conftest import nano_folder, rated, split, toy
from tests.llm.test_chat import FakeChat, server

__all__ = ["nano_folder", "rated", "server", "split", "toy"]

SHORT = {"template": "compact", "history": 2, "similar_user": False}
SHOWN = {"examples": {"Alien": "Ridley Scott"}}
ELSEWHERE = {"protocol": "time-per-user", "train": 0.6, "valid": 0.2}
ITEMS = 24


@pytest.fixture
def films(rated: Any) -> Dataset:
    data: Dataset = rated.dataset
    return data


def asking(*columns: str, **settings: Any) -> dict[str, Any]:
    """A recipe in which FM is given columns."""
    data = {"columns": dict.fromkeys(columns, SHOWN), "max_new_tokens": 3}
    backbone = {"model": "fm", "dim": 2, "features": {"items": list(columns)}, "training": {"epochs": 1}}
    return {
        "name": "asking",
        "seed": 7,
        "split": settings.pop("split", {"protocol": "leave-one-out"}),
        "models": {
            **settings.pop("models", {}),
            "FM+DA": {"model": "augmented-ratings", "backbone": backbone, "data": data, **settings},
        },
    }


def chat(server: FakeChat, cache: Path, **settings: Any) -> dict[str, Any]:
    """A client with answers of its own, so that nothing but the store keeps it from asking."""
    return {"url": server.url, "model": "toy", "cache": str(cache), "parallel": 1} | settings


def made(tree: dict[str, Any], folder: Path, films: Dataset) -> tuple[Run, list[str]]:
    """The run, and the stages it had to make."""
    events: list[StageEvent] = []
    finished = run(load_recipe(tree), folder / "run", dataset=films, store=folder / "store", listen=events.append)
    return finished, [event.stage for event in events if event.what == "made"]


def test_neither_another_split_nor_one_more_column_asks_again(server: FakeChat, films: Dataset, tmp_path: Path) -> None:
    first, _ = made(asking("maker", chat=chat(server, tmp_path / "1")), tmp_path, films)
    assert len(server.requests) == ITEMS
    other = asking("maker", chat=chat(server, tmp_path / "2", retries=1), split=ELSEWHERE)
    _, stages = made(other, tmp_path, films)
    assert len(server.requests) == ITEMS
    assert "fit:FM+DA" in stages
    assert not any(stage.startswith("augment:") for stage in stages)
    wider, stages = made(asking("star", "maker", chat=chat(server, tmp_path / "3")), tmp_path, films)
    assert len(server.requests) == 2 * ITEMS
    assert all("star" in request["messages"][0]["content"] for request in server.requests[ITEMS:])
    assert [stage for stage in stages if stage.startswith("augment:")] == [
        "augment:attributes:star",
        "augment:attributes",
    ]
    frames = [pl.read_parquet(one.artifact("fit:FM+DA").path / "augmentation.parquet") for one in (first, wider)]
    assert frames[1].columns == ["item_id", "title", "star", "star_written", "maker", "maker_written"]
    assert frames[1].select(frames[0].columns).equals(frames[0])
    training = [stage.split()[0] for stage in wider.card["systems"]["FM+DA"]["training"]]
    assert {"augment:attributes:star", "augment:attributes:maker", "augment:attributes"} <= set(training)
    assert wider.card["augmented"]["FM+DA"] == {"known_share": {"star": 1.0, "maker": 1.0}}


def test_other_answers_are_asked_for(server: FakeChat, films: Dataset, tmp_path: Path) -> None:
    settings = chat(server, tmp_path / "1")
    made(asking("maker", chat=settings), tmp_path, films)
    renamed = films.items.with_columns(pl.col("title").str.replace("Star 1", "Star One"))
    other = Dataset(films.interactions, renamed, films.users, films.clock, films.name)
    made(asking("maker", chat=settings | {"cache": str(tmp_path / "2")}), tmp_path, other)
    assert len(server.requests) == 2 * ITEMS
    made(asking("maker", chat=settings | {"cache": str(tmp_path / "3"), "temperature": 1}), tmp_path, films)
    assert len(server.requests) == 3 * ITEMS


def test_a_column_that_was_answered_survives_what_ends_the_next_one(
    server: FakeChat, films: Dataset, tmp_path: Path
) -> None:
    server.failures = [200] * (ITEMS + 10) + [400]
    with pytest.raises(InputError, match="refuses with 400"):
        made(asking("maker", "star", chat=chat(server, tmp_path / "1")), tmp_path, films)
    assert ITEMS + 11 <= len(server.requests) < 2 * ITEMS
    server.requests.clear()
    made(asking("maker", "star", chat=chat(server, tmp_path / "2")), tmp_path, films)
    assert len(server.requests) == ITEMS


def test_columns_are_foreseen_one_by_one(server: FakeChat, films: Dataset, tmp_path: Path) -> None:
    recipe = load_recipe(asking("maker", "star", chat=chat(server, tmp_path / "1", per_minute=60)))
    rows = plan(recipe, here(), dataset=films, store=tmp_path / "store")["stages"]
    asked = {row["stage"]: row["requests"] for row in rows if row["stage"].startswith("augment:")}
    assert asked == {"augment:attributes:maker": ITEMS, "augment:attributes:star": ITEMS, "augment:attributes": 0}
    assert all(row["state"] == "to make" for row in rows)
    assert server.requests == []


def test_the_language_model_alone_decides_what_a_rater_answers(
    films: Dataset, nano_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "lm"
    shutil.copytree(nano_folder, folder)
    untuned = {"model": "rater", "base": "Biases", "finetune": None, "prompt": SHORT, "checked": 0}
    models = {
        "Biases": {"model": "biases"},
        "Rater": untuned | {"lm": {"build": "pretrained", "path": str(folder)}},
        "Taker": untuned | {"tuned": "Rater", "batch_tokens": 100},
    }
    _, stages = made(asking("maker", by="Taker", models=models), tmp_path, films)
    assert "augment:attributes:maker" in stages
    _, stages = made(asking("maker", by="Taker", models=models, split=ELSEWHERE), tmp_path, films)
    assert {"fit:Rater", "fit:Taker"} <= set(stages)
    assert not any(stage.startswith("augment:") for stage in stages)
    _, stages = made(asking("maker", by="Rater", models=models), tmp_path, films)
    assert not any(stage.startswith("augment:") for stage in stages)
    weights = load_file(folder / "model.safetensors")
    save_file({name: -value for name, value in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    _, stages = made(asking("maker", by="Rater", models=models), tmp_path, films)
    assert "augment:attributes:maker" in stages
