"""What models of users and items say they take."""

from typing import Any

import pytest
import torch

import tandemrec.experiment.foresight  # noqa: F401  # what every model takes is registered there
from tandemrec.conventional.direct.ease import EASEConfig
from tandemrec.conventional.direct.graph import _Propagate
from tandemrec.conventional.direct.interactions import Pairs
from tandemrec.conventional.direct.lightgcn import LightGCN, LightGCNConfig
from tandemrec.conventional.direct.mf import MF, MFConfig
from tandemrec.conventional.direct.mixgcf import MixGCF, MixGCFConfig
from tandemrec.conventional.direct.pairwise import PairwiseTask
from tandemrec.conventional.direct.sgl import SGL, SGLConfig
from tandemrec.conventional.direct.work import step_work
from tandemrec.data.sample import load_sample
from tandemrec.data.split import Split, make_split
from tandemrec.experiment.models import CONVENTIONAL
from tandemrec.experiment.recipe import load_recipe
from tandemrec.work import Scene, answer_work, fit_work
from tests.counted import counted

MODELS: dict[str, tuple[Any, Any]] = {
    "MF": (MF, MFConfig(dim=16, batch_size=512)),
    "LightGCN": (LightGCN, LightGCNConfig(dim=16, batch_size=512)),
    "MixGCF": (MixGCF, MixGCFConfig(dim=16, batch_size=512, candidates=8)),
    "SGL": (SGL, SGLConfig(dim=16, batch_size=512)),
}


@pytest.fixture(scope="module")
def split() -> Split:
    recipe = load_recipe(
        {"name": "x", "split": {"protocol": "leave-one-out"}, "models": {"A": {"model": "popularity"}}}
    )
    return make_split(load_sample(), recipe.split, 0)


@pytest.mark.parametrize("name", MODELS)
def test_a_step_takes_the_flops_it_says(name: str, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    make, config = MODELS[name]
    pairs = Pairs.of(split.sequences, split.n_items)
    model = make(config, "cpu")
    module = make.module_class(config, pairs, torch.device("cpu"), 0)
    task = PairwiseTask(model, module, split, pairs, 0)
    (batch,) = task.steps(0)[0]
    # The counter takes sparse products for dense ones; they are traffic here, as one row is read for every edge.
    monkeypatch.setattr(_Propagate, "forward", staticmethod(lambda ctx, adjacency, table: table.clone()))
    monkeypatch.setattr(_Propagate, "backward", staticmethod(lambda ctx, slope: (None, slope)))
    found = counted(lambda: task.loss(batch).backward())
    # How many different items a step has is foreseen as if all were equally popular.
    assert found == pytest.approx(step_work(config, pairs).flops, rel=0.15 if name == "SGL" else 0.03)


def test_every_conventional_model_says_what_it_takes(split: Split) -> None:
    scene = Scene(split, {})
    for kind in CONVENTIONAL:
        for work in (fit_work(kind(), scene), answer_work(kind(), scene, split.test)):  # type: ignore[call-arg]
            assert work is not None, kind
            assert work.bytes + work.host_bytes > 0
            assert work.calls + work.flops + work.host_flops > 0


def test_ease_grows_with_the_cube_of_its_items(split: Split) -> None:
    work = fit_work(EASEConfig(), Scene(split, {}))
    assert work is not None
    # Cholesky I³ / 3 and the inverse 2 I³, at half the rate of float32; and three matrices of float64.
    assert work.host_flops == pytest.approx(2 * 7 / 3 * split.n_items**3)
    assert work.host_memory >= 3 * 8 * split.n_items**2
