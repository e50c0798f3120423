"""Systems that build on systems: order, refusals, and a whole run of SOFT with its rivals."""

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
WRITER: dict[str, Any] = load_recipe(TINY).models["BIGRec"].model_dump(mode="json")
SOFT = {"loss": "soft", "teacher": "BIGRec", "schedule": {"kind": "adaptive", "prompts": 8}}
FIXED = SOFT | {"schedule": {"kind": "fixed"}}
SDPO = {"loss": "sdpo", "teacher": "BIGRec", "negatives": 2}


def recipe_with(**models: Any) -> Any:
    return load_recipe(TINY, {f"models.{name}": model for name, model in models.items()})


def test_a_run_with_teacher_students_and_partners(tmp_path: Path) -> None:
    llara = WRITER | {"model": "llara", "vectors": "SASRec"}
    recipe = recipe_with(
        SOFT=WRITER | {"objective": SOFT},
        Fixed=WRITER | {"objective": FIXED},
        SDPO=WRITER | {"objective": SDPO},
        LLaRA=llara,
        Injected={"model": "injection", "base": "SOFT", "prior": "EASE", "strengths": [0, 1]},
    )
    events: list[StageEvent] = []
    run(recipe, tmp_path / "run", store=tmp_path / "store", listen=events.append)
    made = [event.stage for event in events if event.what == "made"]
    assert made.count("distil:BIGRec") == 1
    assert made.index("distil:BIGRec") < made.index("fit:SOFT") < made.index("fit:Injected")
    assert made.index("fit:SASRec") < made.index("fit:LLaRA")
    again: list[StageEvent] = []
    run(recipe, tmp_path / "run", store=tmp_path / "store", listen=again.append)
    assert {event.what for event in again} == {"found"}
    card = json.loads((tmp_path / "run" / "run_card.json").read_text())
    assert set(card["distilled"]["BIGRec"]) >= {"exact_share", "hit_share", "hit_kind_share"}
    curve = card["models"]["SOFT"]["curve"]
    assert curve[0]["tau"] == 1.0
    assert all(row["distance"] > 0 for row in curve)
    report = (tmp_path / "run" / "report.md").read_text()
    assert "## How far SOFT listened to itself" in report
    assert "## What BIGRec answers to its training prompts" in report
    finished = Run.open(tmp_path / "run")
    user = finished.dataset().users["user_id"][0]
    for system in recipe.models:
        assert finished.recommend(user, 3, system)[1].height == 3


def test_changing_the_schedule_trains_one_student_again(tmp_path: Path) -> None:
    for alpha, expected in ((1.0, {"distil:BIGRec", "fit:SOFT", "fit:BIGRec"}), (2.0, {"fit:SOFT"})):
        objective = SOFT | {"schedule": {"kind": "adaptive", "alpha": alpha, "prompts": 8}}
        events: list[StageEvent] = []
        recipe = recipe_with(SOFT=WRITER | {"objective": objective})
        run(recipe, tmp_path / "run", store=tmp_path / "store", listen=events.append)
        made = {event.stage for event in events if event.what == "made"}
        assert expected <= made
        assert alpha == 1.0 or made <= {"fit:SOFT", "evaluate:SOFT"}


@pytest.mark.parametrize(
    ("models", "sentence"),
    [
        (
            {"S": WRITER | {"objective": SOFT | {"teacher": "BIGrec"}}},
            r"builds on 'BIGrec', which is no model of the recipe; did you mean 'BIGRec'\?",
        ),
        (
            {"S": WRITER | {"objective": SDPO | {"teacher": "SASRec"}}},
            r"'S' \(bigrec\) cannot learn from 'SASRec' \(sasrec\)",
        ),
        (
            {
                "A": {"model": "injection", "base": "B", "prior": "EASE"},
                "B": {"model": "injection", "base": "A", "prior": "EASE"},
            },
            "models build on each other in a circle: '[AB]' → '[AB]' → '[AB]'",
        ),
        (
            {"S": WRITER | {"objective": SOFT | {"schedule": {"kind": "adaptive", "alfa": 1}}}},
            r"unknown key 'alfa'; did you mean 'alpha'\?",
        ),
    ],
)
def test_partners_that_are_not_there_are_refused(models: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        recipe_with(**models)
