"""DROS: its loss against a literal loop, and that without its weight nothing of it is left."""

import math

import numpy as np
import polars as pl
import pytest
import torch

from tandemrec.conventional.sequential.dros import DROS, DROSConfig, RobustNextItem, robust_loss
from tandemrec.conventional.sequential.gru4rec import GRU4RecConfig
from tandemrec.conventional.sequential.losses import bce_loss, catalogue_loss
from tandemrec.conventional.sequential.sasrec import SASRec, SASRecConfig
from tandemrec.data.dataset import Dataset
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.split import Split, make_split
from tandemrec.training import TrainingConfig

BACKBONE = SASRecConfig(
    loss="bce", blocks=1, max_length=5, dim=8, dropout=0, batch_size=8, training=TrainingConfig(epochs=2)
)


@pytest.fixture(scope="module")
def split() -> Split:
    rng = np.random.default_rng(3)
    rows = [(u, int(i), t) for u in range(20) for t, i in enumerate(rng.choice(12, 7, replace=False))]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return make_split(Dataset.from_frames(frame), LeaveOneOut())


@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_the_robust_term_is_its_formula_in_value_and_gradient(chunk: int) -> None:
    torch.manual_seed(0)
    hidden, table = torch.randn(5, 4, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    target, weight = torch.tensor([0, 3, 6, 3, 2]), torch.rand(7) + 0.1
    ours = catalogue_loss(hidden, table, target, robust_loss(weight), chunk)
    scores = hidden @ table.T
    literal = sum(
        torch.log(sum(torch.exp(weight[i] * (scores[n, i] - float(i == target[n])) ** 2) for i in range(7)))
        for n in range(5)
    )
    torch.testing.assert_close(ours, literal)
    for mine, theirs in zip(
        torch.autograd.grad(ours, [hidden, table]), torch.autograd.grad(literal, [hidden, table]), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_large_scores_do_not_overflow() -> None:
    hidden, table = torch.full((1, 1), 40.0), torch.tensor([[1.0], [-1.0]])
    loss = catalogue_loss(hidden, table, torch.tensor([0]), robust_loss(torch.ones(2)))
    assert float(loss) == pytest.approx(40.0**2, rel=1e-5)


def test_the_whole_loss_and_its_propensities(split: Split) -> None:
    model = DROS(DROSConfig(backbone=BACKBONE, alpha=0.3, beta=2.0))
    module = model.module_for(split, 1)
    assert module.head is not None
    with torch.no_grad():
        module.head.bias.copy_(torch.randn(12, generator=torch.Generator().manual_seed(0)))
    task = model.make_task(module, split, 1)
    batch = task.steps(0)[0][0]
    count = [1.0] * 12
    for row in split.sequences:
        for item in row[-5:].tolist() if len(row) > 5 else row[1:].tolist():
            count[item] += 1
    share = [(c / sum(count)) ** 0.05 for c in count]
    hidden = module.states(batch.inputs)
    scores = (hidden @ module.head.weight.T + module.head.bias).detach()
    robust, base = 0.0, 0.0
    for n, (target, negative) in enumerate(zip(batch.targets.tolist(), batch.negatives.tolist(), strict=True)):
        residual = [float(s) - (i == target) for i, s in enumerate(scores[n])]
        robust += math.log(sum(math.exp(p * r * r / 2.0) for p, r in zip(share, residual, strict=True)))
        base += math.log1p(math.exp(-float(scores[n, target]))) + math.log1p(math.exp(float(scores[n, negative])))
    assert float(task.loss(batch)) == pytest.approx(base + 0.3 * robust, rel=1e-4)


def test_without_its_weight_it_is_the_backbone_with_binary_cross_entropy(split: Split) -> None:
    model, plain = DROS(DROSConfig(backbone=BACKBONE, alpha=0, head="tied")), SASRec(BACKBONE)
    model.fit(split, seed=4)
    plain.fit(split, seed=4)
    torch.testing.assert_close(model.scores(split.test), plain.scores(split.test), rtol=0, atol=0)

    headed = DROS(DROSConfig(backbone=BACKBONE, alpha=0))
    module = headed.module_for(split, 1)
    task = headed.make_task(module, split, 1)
    assert isinstance(task, RobustNextItem)
    batch = task.steps(0)[0][0]
    hidden, table = module.states(batch.inputs), module.item_table()
    torch.testing.assert_close(
        task.loss(batch), bce_loss(hidden, table, task.on_device(batch.targets), task.on_device(batch.negatives))
    )


def test_the_default_backbone_is_the_authors_and_others_may_be_named() -> None:
    assert DROSConfig().backbone.loss == "bce"
    assert DROSConfig().backbone.max_length == 10
    named = DROSConfig.model_validate({"backbone": {"model": "gru4rec", "dim": 4}})
    assert named.backbone == GRU4RecConfig(dim=4)
