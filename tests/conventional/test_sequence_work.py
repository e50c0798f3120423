"""What sequence models say they take, against torch's flop counter on the real network and the real task."""

from typing import Any

import numpy as np
import pytest
import torch

from tandemrec.conventional.sequential.bert4rec import BERT4Rec, BERT4RecConfig
from tandemrec.conventional.sequential.caser import Caser, CaserConfig
from tandemrec.conventional.sequential.cl4srec import CL4SRec, CL4SRecConfig
from tandemrec.conventional.sequential.dcrec import DCRec, DCRecConfig
from tandemrec.conventional.sequential.dros import DROS, DROSConfig
from tandemrec.conventional.sequential.gru4rec import GRU4Rec, GRU4RecConfig
from tandemrec.conventional.sequential.losses import next_item_loss
from tandemrec.conventional.sequential.sasrec import SASRec, SASRecConfig
from tandemrec.conventional.sequential.work import epoch_work, loss_work, network_work, parameters
from tandemrec.data.examples import Ragged
from tandemrec.data.split import Split
from tandemrec.experiment.recipe import load_recipe
from tandemrec.experiment.run import prepare
from tandemrec.training import TrainingConfig
from tandemrec.work import Scene, answer_work, fit_work
from tests.counted import counted

SHARED: dict[str, Any] = {"max_length": 12, "dim": 16, "batch_size": 4096}
MODELS: dict[str, tuple[Any, Any]] = {
    "SASRec": (SASRec, SASRecConfig(**SHARED)),
    "SASRec bce": (SASRec, SASRecConfig(loss="bce", blocks=1, **SHARED)),
    "SASRec sampled": (SASRec, SASRecConfig(loss="sampled-softmax", negatives=50, chunks=True, **SHARED)),
    "GRU4Rec": (GRU4Rec, GRU4RecConfig(hidden=24, layers=2, **SHARED)),
    "Caser": (Caser, CaserConfig(loss="softmax", **SHARED)),
    "BERT4Rec": (BERT4Rec, BERT4RecConfig(**SHARED)),
    "CL4SRec": (CL4SRec, CL4SRecConfig(**SHARED)),
    "DCRec": (DCRec, DCRecConfig(**SHARED | {"batch_size": 128})),
    "DROS": (DROS, DROSConfig(backbone=SASRecConfig(blocks=1, **SHARED))),
}


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    recipe = {
        "name": "few",
        "data": {"format": "sample"},
        "split": {"protocol": "leave-one-out", "sample": {"valid": 50, "test": 50}},
        "models": {"Popularity": {"model": "popularity"}},
    }
    return prepare(load_recipe(recipe), store=tmp_path_factory.mktemp("store"))[0]


@pytest.mark.parametrize("name", MODELS)
def test_a_network_takes_the_flops_it_says(name: str, split: Split) -> None:
    make, config = MODELS[name]
    module = make(config, "cpu").module_for(split, 0).train()
    lengths = np.array([3, 7, 9, 9])
    rows = Ragged.from_lengths(np.arange(lengths.sum(), dtype=np.int32), lengths)
    states = module.sequence_view if isinstance(config, DCRecConfig) else module.states
    said = network_work(getattr(config, "backbone", config), lengths, True)
    assert counted(lambda: states(rows)) == pytest.approx(said.flops, rel=0.01)
    # The first maps need no gradient of their inputs, which is little here.
    assert counted(lambda: states(rows).sum().backward()) == pytest.approx(said.differentiated().flops, rel=0.1)


@pytest.mark.parametrize("kind", ["softmax", "sampled-softmax"])
def test_a_loss_takes_the_flops_it_says(kind: Any) -> None:
    config = SASRecConfig(loss=kind, negatives=100)
    hidden, table = (torch.randn(rows, 64, requires_grad=True) for rows in (50, 700))
    negatives = torch.arange(100) if kind == "sampled-softmax" else None
    target = torch.arange(50)
    found = counted(lambda: next_item_loss(kind, hidden, table, None, target, negatives).backward())
    assert found == pytest.approx(loss_work(config, 50, 700).flops, rel=0.01)


@pytest.mark.parametrize("name", MODELS)
def test_an_epoch_takes_the_flops_it_says(name: str, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    # The counter takes sparse products for dense ones; they are traffic here.
    monkeypatch.setattr("tandemrec.conventional.sequential.item_graphs.ItemGraph.times", lambda graph, value, x: x)
    make, config = MODELS[name]
    model = make(config, "cpu")
    model.module = model.module_for(split, 0)
    task = model.make_task(model.module, split, 0)
    steps = [step for _, step in zip(range(2), task.steps(0), strict=False)]
    found = counted(lambda: [task.loss(batch).backward() for step in steps for batch in step]) / len(steps)
    said = epoch_work(config, split)
    # Masks and views are drawn; the first maps need no gradient of their inputs.
    tolerance = 0.1 if name in {"BERT4Rec", "CL4SRec", "DCRec", "GRU4Rec"} else 0.05
    assert found == pytest.approx(said.flops / said.steps, rel=tolerance)


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_counted(name: str, split: Split) -> None:
    make, config = MODELS[name]
    module = make(config, "cpu").module_for(split, 0)
    assert parameters(config, split) == sum(p.numel() for p in module.parameters() if p.requires_grad)


def test_scores_take_the_flops_they_say(split: Split) -> None:
    config = SASRecConfig(**SHARED)
    model = SASRec(config, "cpu")
    model.module = model.module_for(split, 0).eval()
    said = answer_work(config, Scene(split, {}), split.test)
    assert said is not None
    assert counted(lambda: model.scores(split.test)) == pytest.approx(said.flops, rel=0.02)


def test_training_says_its_steps_and_whether_it_may_stop_early(split: Split) -> None:
    for patience, early in ((None, False), (3, True), (40, False)):
        training = TrainingConfig(epochs=20, patience=patience)
        work = fit_work(SASRecConfig(**SHARED | {"batch_size": 100, "training": training}), Scene(split, {}))
        assert work is not None
        users = int((split.sequences.lengths >= 2).sum())
        assert (work.epochs, work.steps, work.stops_early) == (20, 20 * -(-users // 100), early)
