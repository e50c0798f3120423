"""Whole runs in which students learn of teachers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tandemrec.errors import InputError
from tandemrec.experiment.agreement import agreement
from tandemrec.experiment.recipe import load_recipe
from tandemrec.experiment.run import Run, run
from tandemrec.experiment.store import StageEvent
from tandemrec.recommender import NO_ITEM, Scorer
from tandemrec.report.students import agreement_grid, over_trainings

TINY = Path(__file__).parent / "tiny.yaml"
PLAIN: dict[str, Any] = load_recipe(TINY).models["SASRec"].model_dump(mode="json")
DISTILLED = {"model": "dllm2rec", "student": PLAIN, "teacher": "BIGRec"}


def recipe_with(**models: Any) -> Any:
    return load_recipe(TINY, {f"models.{name}": model for name, model in models.items()})


@dataclass(frozen=True)
class Made:
    """A finished run, the stages it made, and what a second run of the recipe did."""

    run: Run
    stages: list[str]
    again: set[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("students")
    lm = load_recipe(TINY).models["BIGRec"].model_dump(mode="json")["lm"]
    thoughts = {"questions": 40, "samples": 2, "max_new_tokens": 12}
    llm_cf = {"model": "llm-cf", "lm": lm, "backbone": PLAIN, "thoughts": thoughts, "share": 0.2}
    models = {
        "Student": DISTILLED,
        "Robust": DISTILLED | {"student": {"model": "dros", "backbone": PLAIN}},
        "OfEASE": DISTILLED | {"teacher": "EASE", "embedding_weight": 0},
        "Untaught": DISTILLED | {"ranking": {"weight": 0}, "embedding_weight": 0},
        "Best": {"model": "best", "among": ["Student", "SASRec"]},
        "LLM-CF": llm_cf,
        "Silent": llm_cf | {"mix": 0},
        "Rebuilding": llm_cf | {"reconstruction": 1.0, "encoder": {"kind": "tf-idf", "dim": 4}},
    }
    told: list[list[StageEvent]] = [[], []]
    for events in told:
        run(recipe_with(**models), folder / "run", store=folder / "store", listen=events.append)
    stages = [event.stage for event in told[0] if event.what == "made"]
    return Made(Run.open(folder / "run"), stages, {event.what for event in told[1]})


def test_teacher_student_and_plain_student_in_one_run(made: Made) -> None:
    assert made.stages.count("lists:BIGRec") == made.stages.count("lists:EASE") == 1
    assert made.stages.index("fit:BIGRec") < made.stages.index("lists:BIGRec") < made.stages.index("fit:Student")
    assert made.again == {"found"}
    card = made.run.card
    assert card["taught"]["Student"]["teacher"] == "BIGRec"
    assert card["taught"]["Student"]["plain"] == "SASRec"
    assert card["taught"]["Robust"]["plain"] is None
    assert card["taught"]["Student"]["lists"] == 96
    assert {"language-model", "fit:BIGRec", "lists:BIGRec", "fit:Student"} <= needed(made.run, "Student")
    assert card["taught"]["Best"] == {"teacher": "BIGRec", "plain": "SASRec"}
    students = made.run.results["students"]
    assert (
        students["Student"]["plain_agreement"]
        == students["Untaught"]["plain_agreement"]
        == students["Untaught"]["agreement"]
    )
    assert students["Robust"]["plain_agreement"] is None
    section = (made.run.path / "report.md").read_text().partition("## Students and teachers")[2].partition("##")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")]
    told = {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[2:]}
    assert set(told) == {"BIGRec", "EASE", "SASRec", "Student", "Robust", "OfEASE", "Untaught", "Best"}
    assert {name for name, row in told.items() if row["role"] == "teacher"} == {"BIGRec", "EASE"}
    assert told["SASRec"]["role"] == "plain"
    assert told["Student"]["agreement"] == f"{students['Student']['agreement']:.1%}"
    used = card["models"]["Student"]["notes"]["positions_with_a_list"]
    assert told["Student"]["used"] == f"{used:,}"
    assert told["Untaught"]["used"] == ""
    assert "<h2>Students and teachers</h2>" in (made.run.path / "report.html").read_text()
    user = made.run.dataset().users["user_id"][0]
    assert made.run.recommend(user, 3, "Student")[1].height == 3


@pytest.mark.parametrize("untaught", ["Untaught", "Silent"])
def test_what_is_taught_nothing_is_its_plain_self_bit_for_bit(made: Made, untaught: str) -> None:
    def scores(system: str) -> torch.Tensor:
        model = made.run.model(system)
        assert isinstance(model, Scorer)
        return model.scores(made.run.split().test)

    assert torch.equal(scores(untaught), scores("SASRec"))
    assert not torch.equal(scores("Student"), scores("SASRec"))
    assert not torch.equal(scores("LLM-CF"), scores("SASRec"))


def test_agreement_by_hand() -> None:
    teacher = np.array([[1, 2, 3], [4, 5, NO_ITEM]], np.int32)
    other = np.array([[3, 9, 1], [NO_ITEM, NO_ITEM, NO_ITEM]], np.int32)
    assert agreement(teacher, other) == 2 / 5
    assert agreement(teacher, teacher) == 1.0
    assert agreement(np.full_like(teacher, NO_ITEM), other) == 0.0


def test_agreement_over_trainings() -> None:
    def training(shares: tuple[float, float], used: int | None) -> tuple[dict[str, Any], dict[str, Any]]:
        own = {"teacher": "T", "plain": "P", "agreement": shares[0], "plain_agreement": shares[1]}
        lone = {"teacher": "T", "plain": None, "agreement": 0.5, "plain_agreement": None}
        notes = {} if used is None else {"positions_with_a_list": used}
        return {"students": {"S": own, "L": lone}}, {"models": {"S": {"notes": notes}, "L": {"notes": {}}}}

    rows = over_trainings([training((0.1, 0.2), 30), training((0.3, 0.0), 30)])
    grid = agreement_grid(rows)
    assert grid.rows == [["S", "T", "P", "20.0%", "10.0%", "30"], ["L", "T", "", "50.0%", "", ""]]
    assert agreement_grid(over_trainings([({}, {})])).rows == []


def test_llm_cf_in_a_run(made: Made) -> None:
    assert made.stages.count("thoughts") == made.stages.count("language-model") == 1
    assert made.stages.index("language-model") < made.stages.index("thoughts") < made.stages.index("fit:LLM-CF")
    user = made.run.dataset().users["user_id"][0]
    assert made.run.recommend(user, 3, "LLM-CF")[1].height == 3
    about = made.run.card["thoughts"]["LLM-CF"]
    for page in ("report.md", "report.html"):
        text = (made.run.path / page).read_text(encoding="utf-8")
        assert "Kept thoughts" in text
        assert f"{about['score']:.3f}" in text
    assert needed(made.run, "LLM-CF") == {"language-model", "thoughts", "fit:LLM-CF"}
    # Another encoder finds other examples, among the same thoughts.
    assert made.stages.count("item-vectors") == 1
    assert needed(made.run, "Rebuilding") == {"language-model", "thoughts", "item-vectors", "fit:Rebuilding"}
    (vectors,) = [stage for stage in made.run.card["stages"] if stage["stage"] == "item-vectors"]
    assert vectors["foreseen"]["seconds"] > 0
    assert made.run.recommend(user, 3, "Rebuilding")[1].height == 3


def needed(finished: Run, system: str) -> set[str]:
    """Stages that training the system took."""
    return {name.rpartition(" ")[0] for name in finished.card["systems"][system]["training"]}


def test_another_weight_asks_the_teacher_nothing_new(tmp_path: Path) -> None:
    for weight, expected in ((0.7, {"lists:EASE", "fit:S"}), (0.2, {"fit:S"}), (0.0, {"fit:S"})):
        model = DISTILLED | {"teacher": "EASE", "embedding_weight": 0, "ranking": {"weight": weight}}
        events: list[StageEvent] = []
        recipe = load_recipe(_small({"EASE": {"model": "ease"}, "S": model}))
        run(recipe, tmp_path / "run", store=tmp_path / "store", listen=events.append)
        made = {event.stage for event in events if event.what == "made"}
        assert expected <= made
        assert weight == 0.7 or made == expected | {"evaluate:S"}


def _small(models: dict[str, Any]) -> dict[str, Any]:
    """The small recipe with these models alone."""
    return load_recipe(TINY).model_dump(mode="json") | {"models": models}


def test_refusals() -> None:
    with pytest.raises(InputError, match="'Student' builds on 'BIGRek', which is no model of the recipe; did you mean"):
        recipe_with(Student=DISTILLED | {"teacher": "BIGRek"})
    with pytest.raises(InputError, match=r"student.*ease"):
        recipe_with(Student=DISTILLED | {"student": {"model": "ease"}})
