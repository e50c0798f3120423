"""Whole runs in which students learn of teachers."""

from __future__ import annotations

from dataclasses import dataclass
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
        "LLM-CF": llm_cf,
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
    section = (made.run.path / "report.md").read_text().partition("## Students and teachers")[2].partition("##")[0]
    for system in ("BIGRec", "SASRec", "Student", "Robust"):
        assert system in section
    assert "<h2>Students and teachers</h2>" in (made.run.path / "report.html").read_text()
    user = made.run.dataset().users["user_id"][0]
    assert made.run.recommend(user, 3, "Student")[1].height == 3


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
