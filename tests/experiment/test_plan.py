"""A plan has every stage of its run, makes none, and says what does not fit."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tandemrec.cli import app
from tandemrec.errors import InputError
from tandemrec.experiment import devices
from tandemrec.experiment.costs import stage_cost
from tandemrec.experiment.devices import DEVICES, Device, calibrate, find_device, here
from tandemrec.experiment.plan import LIBRARIES, plan
from tandemrec.experiment.recipe import load_recipe
from tandemrec.experiment.run import run
from tandemrec.experiment.store import Artifact
from tandemrec.report.plan import foretold, plan_notes, plan_table
from tandemrec.work import Work

TINY = Path(__file__).with_name("tiny.yaml")
SELECTED = {
    "models.BIGRec.train_on": "DEALRec",
    "selection": {"budget": 20, "surrogate": "SASRec", "language_model": "BIGRec"},
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_a_plan_has_every_stage_of_its_run_and_makes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, store = load_recipe(TINY, SELECTED), tmp_path / "store"
    before = files(tmp_path)

    def trained(*arguments: Any, **named: Any) -> None:
        raise AssertionError("a plan trains")

    with monkeypatch.context() as patched:
        patched.setattr("tandemrec.training.loop._train_epoch", trained)
        found = plan(recipe, here(), store=store)
    assert files(tmp_path) == before
    finished = run(recipe, tmp_path / "out", store=store)
    assert [row["stage"] for row in found["stages"]] == [stage["stage"] for stage in finished.card["stages"]]
    states = {row["stage"]: row["state"] for row in found["stages"]}
    assert set(states.values()) == {"to make"}
    assert {"influence:SASRec", "effort", "select:DEALRec"} < set(states)

    again = plan(recipe, here(), store=store)
    assert {row["state"] for row in again["stages"]} == {"found"}
    assert again["total"]["seconds"] == 0


def test_predictions_stand_beside_measurements(tmp_path: Path) -> None:
    recipe = load_recipe(TINY)
    finished = run(recipe, tmp_path / "out", store=tmp_path / "store")
    stages = {stage["stage"]: stage for stage in finished.card["stages"]}
    told = stages["fit:SASRec"]["foreseen"]
    assert told["seconds"] == told["at_most"] > 0  # three epochs of three
    assert stages["data"]["foreseen"] is None
    assert stages["evaluate:BIGRec"]["written_tokens"] > 0
    assert stages["evaluate:BIGRec"]["tokens"] > stages["evaluate:BIGRec"]["written_tokens"]
    assert "foreseen" not in (tmp_path / "out" / "results.json").read_text()
    assert "predicted" in (tmp_path / "out" / "report.md").read_text()
    assert "<th>predicted</th>" in (tmp_path / "out" / "report.html").read_text().replace(' scope="col"', "")


def test_early_stopping_makes_a_bound(tmp_path: Path) -> None:
    recipe = load_recipe(TINY, {"models.SASRec.training": {"epochs": 30, "patience": 1, "clip_norm": None}})
    row = next(row for row in plan(recipe, here(), store=tmp_path)["stages"] if row["stage"] == "fit:SASRec")
    assert row["at_most"]
    assert row["epochs"] == 30


def test_what_does_not_fit_is_said_with_the_switch_that_helps(tmp_path: Path) -> None:
    recipe = load_recipe(TINY, {"models.BIGRec.finetune.tuning": "full"})
    generous = plan(recipe, DEVICES["h100"], price=2.0, store=tmp_path)
    assert generous["total"]["fits"]
    assert generous["total"]["money"] == pytest.approx(generous["total"]["seconds"] / 3600 * 2)
    memory = next(row["memory_gib"] for row in generous["stages"] if row["stage"] == "fit:BIGRec")
    for share, advice in ((0.9, "finetune."), (0.0001, "such devices or more that each hold a part")):
        small = DEVICES["h100"].model_copy(update={"memory": memory * share * 2**30})
        found = plan(recipe, small, store=tmp_path)
        row = next(row for row in found["stages"] if row["stage"] == "fit:BIGRec")
        assert not row["fits"]
        assert advice in row["advice"]
        assert any("would fit with" in note and "fit:BIGRec" in note for note in plan_notes(found))


def test_what_processors_compute_is_held_against_their_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a catalogue whose Gram matrix is larger than any accelerator's memory, which never sees it."""
    monkeypatch.setattr("tandemrec.data.split.Split.n_items", property(lambda split: 80_000))
    recipe = load_recipe(load_recipe(TINY).model_dump(mode="json") | {"models": {"EASE": {"model": "ease"}}})
    gib, cpu = 8 * 3.5 * 80_000**2 / 2**30, here("cpu")
    for room in (200, 20):
        host = cpu.model_copy(update={"memory": room * 2.0**30})
        monkeypatch.setattr("tandemrec.experiment.plan.here", lambda kind, host=host: host)
        found = plan(recipe, DEVICES["t4"], store=tmp_path)
        row = next(row for row in found["stages"] if row["stage"] == "fit:EASE")
        assert (row["memory_gib"], row["host_memory_gib"]) == (0, pytest.approx(gib + LIBRARIES / 2**30))
        assert row["fits"] == (room == 200)
        assert found["host"]["memory"] == room * 2.0**30
    notes = list(plan_notes(found))
    assert notes[0] == (
        "fit:EASE needs 167.5 GiB, the processor beside it has 20.0; it would fit with a smaller model, or less data"
    )
    assert any(note.startswith("GiB beside: ") for note in notes)
    column = list(plan_table(found).columns)[-1]
    assert (column.header, list(column.cells)[-1]) == ("GiB beside", "167.5")
    alone = plan(recipe, host, store=tmp_path)
    row = next(row for row in alone["stages"] if row["stage"] == "fit:EASE")
    assert (row["memory_gib"], row["host_memory_gib"], row["fits"]) == (pytest.approx(gib, abs=0.7), 0, False)
    assert next(plan_notes(alone)).startswith("fit:EASE needs 167.5 GiB, cpu has 20.0; ")
    assert "GiB beside" not in {column.header for column in plan_table(alone).columns}


def test_memory_is_foreseen_where_it_is_taken(tmp_path: Path) -> None:
    work = Work(memory=2.0**21) + Work(memory=2.0**20).hosted() + Work(memory=2.0**19)
    assert (work.memory, work.host_memory) == (2.0**21, 2.0**20)
    made = {"stage": "x", "key": "key", "summary": {}, "seconds": 3.0, "foreseen": asdict(work)}
    artifact = Artifact(tmp_path, "key", made)
    told = [stage_cost(artifact, device)["foreseen"] for device in (here("cpu"), DEVICES["t4"])]
    assert [(one["memory_mib"], one["accelerator_mib"]) for one in told] == [(2, 0), (1, 2)]


def test_a_system_without_a_formula_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tandemrec.experiment.foresight.fit_work", lambda config, scene: None)
    found = plan(load_recipe(TINY), here(), store=tmp_path)
    assert {"fit:EASE", "fit:SASRec"} < set(found["total"]["unknown"])
    notes = list(plan_notes(found))
    assert (
        "Nobody foresees fit:EASE: there is no formula for `ease`, or for what it builds on. They are not" in notes[0]
    )
    assert next(row for row in found["stages"] if row["stage"] == "fit:EASE")["reason"] in notes[0]


def test_endpoints_of_known_pace_take_time_and_others_are_left_out(tmp_path: Path) -> None:
    chat = {"url": "http://localhost:1", "model": "toy", "input_price": 5.0, "per_minute": 30}
    ranker = {"model": "ranker", "base": "EASE", "candidates": 5, "finetune": None, "checked": 4, "chat": chat}
    shown = {"similar_user": False}
    recipe = load_recipe(TINY, {"models": {"EASE": {"model": "ease"}, "Chat": ranker | {"prompt": shown}}})
    found = plan(recipe, here(), price=3600.0, store=tmp_path)
    rows = {row["stage"]: row for row in found["stages"]}
    assert (rows["fit:Chat"]["requests"], rows["evaluate:Chat"]["requests"]) == (4, 60)
    assert 2 * 60 < rows["evaluate:Chat"]["seconds"] < 2 * 60 + 5
    assert rows["evaluate:Chat"]["money"] == pytest.approx(
        rows["evaluate:Chat"]["seconds"] + rows["evaluate:Chat"]["fees"]
    )
    assert found["total"]["fees"] == pytest.approx(rows["fit:Chat"]["fees"] + rows["evaluate:Chat"]["fees"])
    assert found["total"]["untimed"] == found["total"]["unknown"] == []
    notes = "\n".join(plan_notes(found))
    assert "evaluate:Chat asks a chat endpoint up to 60 times for " in notes

    found = plan(
        load_recipe(recipe.model_dump(mode="json"), {"models.Chat.chat.per_minute": None}), here(), store=tmp_path
    )
    assert found["total"]["untimed"] == ["fit:Chat", "evaluate:Chat"]
    rows = {row["stage"]: row for row in found["stages"]}
    assert rows["evaluate:Chat"]["seconds"] is None
    assert rows["evaluate:Chat"]["read_tokens"] > 0
    notes = "\n".join(plan_notes(found))
    assert (
        "The time of fit:Chat, evaluate:Chat is left out of the sum: how fast the chat endpoint answers is not" in notes
    )
    cells = list(plan_table(found).columns[1].cells)
    assert cells.count("?") == 2
    work = Work(read=5, requests=1, unpaced=True)
    artifact = Artifact(
        tmp_path, "key", {"stage": "x", "key": "key", "summary": {}, "seconds": 3.0, "foreseen": asdict(work)}
    )
    told = stage_cost(artifact, here())
    assert (told["foreseen"]["seconds"], told["foreseen"]["tokens"], foretold(told)) == (None, 5, "")


def test_tiger_and_every_selector_are_foreseen(tmp_path: Path) -> None:
    tiger = {
        "model": "tiger",
        "learning": {"samples": "examples"},
        "ids": {"quantiser": {"method": "rq-vae", "codes": 8}},
    }
    kinds = ("random", "grand", "el2n", "ccs", "tf-dcon", "recranker", "dealrec")
    models = {f"TIGER {kind}": tiger | {"train_on": kind} for kind in kinds}
    selection = {"budget": 10, "surrogate": "SASRec", "language_model": "BIGRec"}
    selectors = {kind: {"selector": kind} for kind in kinds}
    recipe = load_recipe(
        load_recipe(TINY).model_dump(mode="json"),
        {f"models.{name}": config for name, config in models.items()}
        | {"selection": selection | {"selectors": selectors}},
    )
    found = plan(recipe, here(), store=tmp_path)
    assert found["total"]["unknown"] == []
    rows = {row["stage"]: row for row in found["stages"]}
    assert {"semantic-ids", "fit:TIGER tf-dcon", "evaluate:TIGER random", "select:recranker"} < set(rows)
    assert all(row["seconds"] > 0 for row in rows.values())
    assert rows["fit:TIGER random"]["examples"] == 10


def test_seconds_are_products_traffic_and_calls() -> None:
    device = Device(name="cpu", title="x", flops=10, half_flops=20, bytes=5, call=0.5, memory=1)
    work = Work(flops=30, half_flops=40, bytes=10, calls=4)
    assert device.seconds(work) == 3 + 2 + 2 + 2
    assert device.seconds(work + Work(flops=20, bytes=5).hosted()) == 9 + 2 + 1
    other = device.model_copy(update={"name": "h100"})
    host = here("cpu")
    assert other.seconds(Work(bytes=5).hosted()) == 5 / host.bytes


def test_an_unknown_device_is_refused_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="found 'abacus', expected cpu or one of h200, h100") as told:
        find_device("abacus")
    assert str(told.value).count(".") == 0


def test_measured_rates_are_kept_and_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not here().calibrated
    monkeypatch.setattr(devices, "CALIBRATION", 0.2)
    measured = calibrate()
    assert measured.calibrated
    assert min(measured.flops, measured.half_flops, measured.bytes, measured.call) > 0
    assert here() == measured == find_device("cpu")
    assert find_device("CPU") == measured
    assert not find_device("h100").calibrated
    devices._path().write_text("{]")
    with pytest.raises(InputError, match=r"devices\.json does not hold rates"):
        here()


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100 80GB PCIe", "a100"),
        ("NVIDIA A100-PCIE-40GB", "a100-40"),
        ("Tesla T4", "t4"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA GeForce RTX 4090", "4090"),
    ],
)
def test_devices_are_known_by_what_drivers_call_them(title: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.torch.cuda, "get_device_name", lambda: title)
    monkeypatch.setattr(devices, "_memory", lambda kind: 2.0**34)
    found = here("cuda")
    assert (found.title, found.flops, found.memory) == (title, DEVICES[name].flops, 2.0**34)
    assert not any(other.title != DEVICES[name].title and devices._named(title) == other for other in DEVICES.values())


def test_a_device_that_nobody_knows_is_said_to_be_taken_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.torch.cuda, "get_device_name", lambda: "Tesla V100-SXM2-16GB")
    monkeypatch.setattr(devices, "_memory", lambda kind: 2.0**34)
    assert here("cuda").title == "Tesla V100-SXM2-16GB, foreseen as an NVIDIA T4"


def test_a_sum_that_leaves_stages_out_is_no_bound(tmp_path: Path) -> None:
    found = plan(load_recipe(TINY), DEVICES["h100"], price=2.0, store=tmp_path)
    found["total"]["at_most"] = True
    last = [list(column.cells)[-1] for column in plan_table(found).columns]
    assert last[1].startswith("≤ ")
    found["total"]["unknown"] = ["fit:other"]
    last = [list(column.cells)[-1] for column in plan_table(found).columns]
    assert last[1].endswith(" + ?")
    assert last[2].endswith(" + ?")
    assert "≤" not in last[1] + last[2]


def test_the_verb_prints_a_table_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for extra in ((), ("--json",)):
        with pytest.raises(SystemExit) as left:
            app(["plan", str(TINY), "--device", "h100", "--price", "2", "--store", str(tmp_path), *extra])
        assert left.value.code == 0
        out = capsys.readouterr().out
        assert "fit:SASRec" in out
        if extra:
            assert json.loads(out)["device"]["name"] == "h100"
        else:
            assert "published peaks" in " ".join(out.split())


def test_small_change_and_nothing_are_told_apart(tmp_path: Path) -> None:
    for price, money in ((1e-6, "< 0.01"), (0.0, "0")):
        table = plan_table(plan(load_recipe(TINY), DEVICES["h100"], price=price, store=tmp_path))
        assert money in list(table.columns[2].cells), price


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(InputError, match="store is a file, expected a folder for the artifact store"):
        plan(load_recipe(TINY), here(), store=tmp_path / "store")


def test_a_store_that_is_not_there_stays_so(tmp_path: Path) -> None:
    plan(load_recipe(TINY), here(), store=tmp_path / "none")
    assert not (tmp_path / "none").exists()
