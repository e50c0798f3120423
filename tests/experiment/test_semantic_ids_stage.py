"""TIGER in recipes: ids are made once for all systems that share them, also for those that learn from a choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tandemrec.errors import InputError
from tandemrec.experiment.recipe import load_recipe
from tandemrec.experiment.run import Run, run
from tandemrec.experiment.store import StageEvent
from tandemrec.llm.recommenders.tiger import TIGER

TINY = Path(__file__).parent / "tiny.yaml"
SYSTEM: dict[str, Any] = {
    "model": "tiger",
    "ids": {"quantiser": {"method": "residual-kmeans", "levels": 2, "codes": 8}},
    "network": {"dim": 16, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "head_dim": 8, "feed_forward": 32},
    "learning": {"samples": "examples", "training": {"epochs": 1, "patience": None}},
}
SELECTION = {"budget": 10, "selectors": {"Random": {"selector": "random"}}}


def test_systems_share_ids_and_learn_from_choices(tmp_path: Path) -> None:
    models = {"All": SYSTEM, "Chosen": SYSTEM | {"train_on": "Random"}}
    recipe, events = load_recipe(TINY, {"models": models, "selection": SELECTION}), list[StageEvent]()
    done = run(recipe, tmp_path / "out", store=tmp_path / "store", listen=events.append)
    made = [event.stage for event in events if event.what == "made"]
    assert made.count("semantic-ids") == 1
    summaries = done.card["models"]
    assert summaries["All"]["notes"]["targets"] == 96
    assert summaries["Chosen"]["notes"]["targets"] == 10
    told = summaries["All"]["notes"]["semantic_ids"]
    assert told == summaries["Chosen"]["notes"]["semantic_ids"]
    assert [set(level) for level in told["levels"]] == [{"used", "perplexity"}] * 2
    assert {"collision_rate", "reconstruction_error", "neighbours"} <= set(told)
    for page in ("report.md", "report.html"):
        text = (tmp_path / "out" / page).read_text(encoding="utf-8")
        assert "Semantic ids" in text
        assert f"{told['collision_rate']:.1%}" in text
        assert text.count(told["neighbours"][0]["title"]) >= 1
        assert text.count("Nearest items by shared prefix") == 1
    assert any(stage.startswith("semantic-ids") for stage in done.card["systems"]["Chosen"]["training"])
    _, frame = Run.open(tmp_path / "out").recommend(done.dataset().users["user_id"][0], 5, "Chosen")
    assert frame["item_id"].n_unique() == 5
    one, other = done.model("All"), done.model("Chosen")
    assert isinstance(one, TIGER)
    assert isinstance(other, TIGER)
    assert one.ids is not None
    assert other.ids is not None
    assert one.ids.digits_IL.tolist() == other.ids.digits_IL.tolist()
    again: list[StageEvent] = []
    run(recipe, tmp_path / "twice", store=tmp_path / "store", listen=again.append)
    assert not [event for event in again if event.what == "made"]
    assert (tmp_path / "twice" / "results.json").read_bytes() == (tmp_path / "out" / "results.json").read_bytes()
    assert pl.read_parquet(done.artifact("fit:All").path / "ids.parquet").height == done.dataset().n_items


def test_a_choice_needs_examples() -> None:
    system = SYSTEM | {"train_on": "Random", "learning": {"samples": "last"}}
    with pytest.raises(InputError, match=r"key 'models.A': train_on chooses among training examples"):
        load_recipe(TINY, {"models": {"A": system}, "selection": SELECTION})
    with pytest.raises(InputError, match="learns from the choice of 'Best', which is no selector"):
        load_recipe(TINY, {"models": {"A": SYSTEM | {"train_on": "Best"}}, "selection": SELECTION})
