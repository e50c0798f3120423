"""Systems that build on systems: order, refusals, and a whole run of SOFT with its rivals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tandemrec.errors import InputError
from tandemrec.experiment.export import export_training_set
from tandemrec.experiment.recipe import load_recipe
from tandemrec.experiment.run import Run, run
from tandemrec.experiment.store import StageEvent
from tandemrec.llm.recommenders.bigrec import BIGRec

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
    assert set(card["distilled"]) == {"SOFT", "Fixed"}
    assert set(card["distilled"]["SOFT"]) >= {"teacher", "exact_share", "hit_share", "hit_kind_share"}
    curve = card["models"]["SOFT"]["curve"]
    assert curve[0]["tau"] == 1.0
    assert all(row["distance"] > 0 for row in curve)
    report = (tmp_path / "run" / "report.md").read_text()
    assert "## How far SOFT listened to itself" in report
    assert "## Self-distillation" in report
    finished = Run.open(tmp_path / "run")
    user = finished.dataset().users["user_id"][0]
    for system in recipe.models:
        assert finished.recommend(user, 3, system)[1].height == 3
    _check_exports(finished, tmp_path)


def _check_exports(finished: Run, tmp_path: Path) -> None:
    train, titles = finished.split().train, finished.dataset().titles
    n, real = len(train), [f' "{titles[row[0]]}"' for row in train.target]
    for system, rows in {"BIGRec": n, "SOFT": n, "SDPO": 2 * n}.items():
        assert export_training_set(finished, system, tmp_path / system)["train"] == rows
    read = {
        system: [json.loads(line) for line in (tmp_path / system / "train.jsonl").read_text().splitlines()]
        for system in ("BIGRec", "SOFT", "SDPO")
    }
    assert [row["completion"] for row in read["BIGRec"]] == real
    assert [row["prompt"] for row in read["BIGRec"]] == [row["prompt"] for row in read["SOFT"]]
    assert [row["chosen"] for row in read["SDPO"][::2]] == real
    assert all(row["rejected"] != row["chosen"] for row in read["SDPO"])
    assert [row["completion"] for row in read["SOFT"]] != real
    info = json.loads((tmp_path / "SDPO" / "dataset_info.json").read_text())
    assert info["train"]["ranking"]
    with pytest.raises(InputError, match="exists already; nothing was written"):
        export_training_set(finished, "BIGRec", tmp_path / "SDPO")
    with pytest.raises(InputError, match="'EASE' learns from no prompts"):
        export_training_set(finished, "EASE", tmp_path / "new")
    with pytest.raises(InputError, match="prompts of LLaRA hold item vectors"):
        export_training_set(finished, "LLaRA", tmp_path / "new")
    _trl_trains_on(tmp_path / "BIGRec" / "train.jsonl", finished, tmp_path)


def _trl_trains_on(file: Path, finished: Run, tmp_path: Path) -> None:
    """TRL takes the file as it is and computes its loss on the completion's tokens."""
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    rows = datasets.load_dataset("json", data_files=str(file), cache_dir=str(tmp_path / "cache"))["train"]
    writer = finished.model("BIGRec")
    assert isinstance(writer, BIGRec)
    config = trl.SFTConfig(
        output_dir=str(tmp_path / "trl"),
        max_steps=1,
        per_device_train_batch_size=4,
        report_to=[],
        use_cpu=True,
        bf16=False,
    )
    base = writer.language_model.model.unload()
    tokenizer = writer.language_model.tokenizer
    trainer = trl.SFTTrainer(base, config, train_dataset=rows, processing_class=tokenizer)
    assert trainer.train().training_loss > 0
    example = trainer.train_dataset[0]
    labels = [token for token in example["labels"] if token != -100]
    assert tokenizer.decode(labels, skip_special_tokens=True).strip() == rows[0]["completion"].strip()


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
