"""Systems that another run trained, in runs that go on from them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tandemrec.errors import InputError
from tandemrec.evaluation.cost import system_cost
from tandemrec.experiment.compare import compare
from tandemrec.experiment.devices import find_device
from tandemrec.experiment.export import export_training_set
from tandemrec.experiment.plan import plan
from tandemrec.experiment.recipe import Recipe, load_recipe
from tandemrec.experiment.run import Run, check, judge_again, run
from tandemrec.experiment.store import StageEvent

TINY = load_recipe(Path(__file__).parent / "tiny.yaml").model_dump(mode="json")
PLAIN = TINY["models"]["SASRec"]
STUDENT = {"model": "dllm2rec", "student": PLAIN, "teacher": "BIGRec"}


@dataclass(frozen=True)
class Two:
    """A run that trained, one that went on from it in a store of its own, and the stages that this one made."""

    first: Run
    second: Run
    made: list[str]


def going_on(first: Path, models: dict[str, Any], *names: str, **changes: Any) -> Recipe:
    return load_recipe(TINY | {"models": models, "trained": dict.fromkeys(names, str(first))} | changes)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Two:
    folder = tmp_path_factory.mktemp("trained")
    injected = {"model": "injection", "base": "BIGRec", "prior": "EASE", "strengths": [0, 1]}
    models = {name: TINY["models"][name] for name in ("EASE", "BIGRec")} | {"Injected": injected}
    first = run(load_recipe(TINY | {"models": models}), folder / "first", store=folder / "store")
    events: list[StageEvent] = []
    recipe = going_on(folder / "first", {"Student": STUDENT}, "BIGRec", "Injected", training_seed=43)
    second = run(recipe, folder / "second", store=folder / "other", listen=events.append)
    return Two(first, second, [event.stage for event in events if event.what == "made"])


def test_a_student_of_another_runs_teacher(two: Two) -> None:
    assert {stage for stage in two.made if stage.startswith("fit:")} == {"fit:Student"}
    assert "lists:BIGRec" in two.made
    assert set(two.second.recipe.models) == {"Student", "BIGRec", "Injected", "EASE"}
    assert two.second.card["taught"]["Student"]["teacher"] == "BIGRec"
    theirs, ours = (
        {row["system"]: row["metrics"] for row in r.results["leaderboard"]} for r in (two.first, two.second)
    )
    assert all(ours[name] == theirs[name] for name in theirs)


def test_what_training_cost_elsewhere_is_counted(two: Two) -> None:
    costs = [system_cost(found.card, "BIGRec", users=60) for found in (two.first, two.second)]
    assert costs[0] is not None
    assert costs[1] is not None
    assert costs[0]["seconds"] == costs[1]["seconds"]
    needed = {name.rpartition(" ")[0] for name in two.second.card["systems"]["Student"]["training"]}
    assert needed == {"language-model", "fit:BIGRec", "lists:BIGRec", "fit:Student"}
    for page in ("report.md", "report.html"):
        text = (two.second.path / page).read_text(encoding="utf-8")
        assert f"BIGRec, EASE, Injected were trained by the run {two.first.path}" in text


def test_it_serves_like_any_other(two: Two, tmp_path: Path) -> None:
    user = two.second.dataset().users["user_id"][0]
    for system in two.second.recipe.models:
        assert two.second.recommend(user, 3, system)[1].height == 3
    assert two.second.trainer("BIGRec").path == two.first.path
    assert two.second.trainer("Student") is two.second
    assert len(two.second.lesson("BIGRec").train) == 96
    parts = [export_training_set(found, "BIGRec", tmp_path / found.path.name) for found in (two.first, two.second)]
    assert parts[0] == parts[1]
    again = judge_again(two.second, ["cutoffs=[3, 10]"], store=two.first.path.parent / "third")
    assert {row["system"] for row in again["leaderboard"]} == set(two.second.recipe.models)


def test_it_is_one_repetition_of_the_run_that_trained_it(two: Two, tmp_path: Path) -> None:
    rows = compare([two.first.path, two.second.path], tmp_path / "both")["leaderboard"]
    assert {row["system"]: row["repetitions"] for row in rows} == dict.fromkeys(two.second.recipe.models, 1)
    runs = json.loads((tmp_path / "both" / "compare.json").read_text())["runs"]
    assert [told["training_seed"] for told in runs] == [7, 43]


def test_a_run_that_goes_on_from_one_that_went_on(two: Two, tmp_path: Path) -> None:
    recipe = going_on(two.second.path, {"EASE again": TINY["models"]["EASE"]}, "BIGRec", "Student", training_seed=44)
    third = run(recipe, tmp_path / "third", store=tmp_path / "store")
    assert third.card["trained"]["BIGRec"]["training_seed"] == 7
    assert third.card["trained"]["Student"]["training_seed"] == 43
    assert third.trainer("BIGRec").path == two.first.path


def test_a_plan_trains_it_no_more(two: Two, tmp_path: Path) -> None:
    recipe = going_on(two.first.path, {"Student": STUDENT}, "BIGRec")
    stages = plan(recipe, find_device("h100"), store=tmp_path / "none")["stages"]
    assert "fit:Student" in {stage["stage"] for stage in stages}
    assert "fit:BIGRec" not in {stage["stage"] for stage in stages}


def test_refusals(two: Two, tmp_path: Path) -> None:
    first = two.first.path
    with pytest.raises(InputError, match=r"key 'trained.BIGRec': .*nowhere is no finished run: recipe.yaml is missing"):
        going_on(tmp_path / "nowhere", {"Student": STUDENT}, "BIGRec")
    with pytest.raises(InputError, match=r"key 'trained.BIGRek': .* has no system 'BIGRek', it has: EASE, BIGRec, Inj"):
        going_on(first, {"Student": STUDENT}, "BIGRek")
    ease = TINY["models"]["EASE"]
    with pytest.raises(InputError, match=r"trained.Injected builds on 'EASE', which must come from .* leave it out"):
        going_on(first, {"EASE": ease}, "Injected")
    with pytest.raises(InputError, match=r"key 'trained.EASE': .* has other settings of 'EASE'; leave it out of"):
        check(going_on(first, {"EASE": ease | {"l2": 1.0}}, "EASE"))
    with pytest.raises(ValidationError, match="no model of the recipe"):
        Recipe.model_validate(TINY | {"trained": {"MF": str(first)}})
    other = going_on(first, {"Student": STUDENT}, "BIGRec", seed=8)
    with pytest.raises(InputError, match=r"key 'trained.BIGRec': .* on other data or another split; take"):
        run(other, tmp_path / "run", store=tmp_path / "store")
    assert not (tmp_path / "run").exists()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "recipe.yaml").write_text((first / "recipe.yaml").read_text())
    with pytest.raises(InputError, match=r"broken is no finished run: run_card.json is missing"):
        check(going_on(broken, {"Student": STUDENT}, "BIGRec"))
