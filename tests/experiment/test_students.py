"""Whole runs in which students learn of teachers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tandemrec.errors import InputError
from tandemrec.experiment.recipe import load_recipe
from tandemrec.experiment.run import Run, run
from tandemrec.experiment.store import StageEvent

TINY = Path(__file__).parent / "tiny.yaml"
PLAIN: dict[str, Any] = load_recipe(TINY).models["SASRec"].model_dump(mode="json")
DISTILLED = {"model": "dllm2rec", "student": PLAIN, "teacher": "BIGRec"}


def recipe_with(**models: Any) -> Any:
    return load_recipe(TINY, {f"models.{name}": model for name, model in models.items()})


def test_teacher_student_and_plain_student_in_one_run(tmp_path: Path) -> None:
    dros = {"model": "dros", "backbone": PLAIN}
    recipe = recipe_with(
        Student=DISTILLED,
        Robust=DISTILLED | {"student": dros},
        OfEASE=DISTILLED | {"teacher": "EASE", "embedding_weight": 0},
    )
    events: list[StageEvent] = []
    run(recipe, tmp_path / "run", store=tmp_path / "store", listen=events.append)
    made = [event.stage for event in events if event.what == "made"]
    assert made.count("lists:BIGRec") == made.count("lists:EASE") == 1
    assert made.index("fit:BIGRec") < made.index("lists:BIGRec") < made.index("fit:Student")
    again: list[StageEvent] = []
    run(recipe, tmp_path / "run", store=tmp_path / "store", listen=again.append)
    assert {event.what for event in again} == {"found"}
    card = json.loads((tmp_path / "run" / "run_card.json").read_text())
    assert card["taught"]["Student"]["teacher"] == "BIGRec"
    assert card["taught"]["Student"]["plain"] == "SASRec"
    assert card["taught"]["Robust"]["plain"] is None
    assert card["taught"]["Student"]["lists"] == 96
    needed = {name.rpartition(" ")[0] for name in card["systems"]["Student"]["training"]}
    assert {"language-model", "fit:BIGRec", "lists:BIGRec", "fit:Student"} <= needed
    report = (tmp_path / "run" / "report.md").read_text()
    section = report.partition("## Students and teachers")[2].partition("##")[0]
    for system in ("BIGRec", "SASRec", "Student", "Robust"):
        assert system in section
    assert "<h2>Students and teachers</h2>" in (tmp_path / "run" / "report.html").read_text()
    finished = Run.open(tmp_path / "run")
    user = finished.dataset().users["user_id"][0]
    assert finished.recommend(user, 3, "Student")[1].height == 3


def test_another_weight_asks_the_teacher_nothing_new(tmp_path: Path) -> None:
    for weight, expected in ((0.7, {"lists:EASE", "fit:S"}), (0.2, {"fit:S"}), (0.0, {"fit:S"})):
        model = DISTILLED | {"teacher": "EASE", "embedding_weight": 0, "ranking": {"weight": weight}}
        events: list[StageEvent] = []
        recipe = load_recipe({"name": "two", "seed": 7, "data": {"format": "sample"}} | _two_models(model))
        run(recipe, tmp_path / "run", store=tmp_path / "store", listen=events.append)
        made = {event.stage for event in events if event.what == "made"}
        assert expected <= made
        assert weight == 0.7 or made == expected | {"evaluate:S"}


def _two_models(student: dict[str, Any]) -> dict[str, Any]:
    tree = load_recipe(TINY).model_dump(mode="json")
    return {"split": tree["split"], "models": {"EASE": tree["models"]["EASE"], "S": student}}


def test_refusals() -> None:
    with pytest.raises(InputError, match="'Student' builds on 'BIGRek', which is no model of the recipe; did you mean"):
        recipe_with(Student=DISTILLED | {"teacher": "BIGRek"})
    with pytest.raises(InputError, match=r"student.*ease"):
        recipe_with(Student=DISTILLED | {"student": {"model": "ease"}})
