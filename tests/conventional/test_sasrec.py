"""SASRec: what it may look at, what it must not depend on, and that it learns."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from tandemrec.conventional.sequential.sasrec import Block, SASRec, SASRecConfig, SASRecModule
from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import Examples
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.split import Split, make_split
from tandemrec.evaluation.evaluate import EvaluationConfig, evaluate
from tandemrec.training import TrainingConfig

SMALL = SASRecConfig(max_length=8, dim=16, blocks=1, dropout=0.0, training=TrainingConfig(epochs=2, patience=None))


@pytest.fixture(scope="module")
def cycle() -> Split:
    """Every item has one item that follows it, on a ring of 30 in no numerical order."""
    rows = [(u, 7 * (u + t) % 30, t) for u in range(90) for t in range(7)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return make_split(Dataset.from_frames(frame), LeaveOneOut())


@pytest.mark.parametrize("norm", ["original", "pre"])
def test_the_block_is_its_formula(norm: str) -> None:
    torch.manual_seed(0)
    block = Block(SASRecConfig(dim=8, heads=2, norm=norm)).eval()
    h = torch.randn(1, 5, 8)
    q = block.attention_norm(h)
    k = h if norm == "original" else q
    out = torch.zeros(1, 5, 8)
    for t in range(5):
        heads = []
        for head in range(2):
            at = slice(4 * head, 4 * head + 4)
            query = block.query(q)[0, t, at]
            weight = torch.softmax(torch.stack([query @ block.key(k)[0, s, at] / 2 for s in range(t + 1)]), 0)
            heads.append(sum(weight[s] * block.value(k)[0, s, at] for s in range(t + 1)))
        out[0, t] = block.out(torch.cat(heads))
    attended = (q if norm == "original" else h) + out
    b = block.forward_norm(attended)
    expected = (b if norm == "original" else attended) + block.second(torch.relu(block.first(b)))
    torch.testing.assert_close(block(h), expected)


def test_the_past_does_not_see_the_future() -> None:
    module = SASRecModule(SMALL, 20, seed=1).eval()
    one, other = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 2, 9, 8]])
    torch.testing.assert_close(module(one)[:, :2], module(other)[:, :2])
    assert not torch.allclose(module(one)[:, 2:], module(other)[:, 2:])


@pytest.mark.parametrize("loss", ["softmax", "sampled-softmax", "bce"])
def test_it_learns_what_follows(cycle: Split, loss: str) -> None:
    training = TrainingConfig(epochs=60, learning_rate=0.01, patience=None)
    config = SMALL.model_copy(update={"loss": loss, "batch_size": 16, "negatives": 6, "training": training})
    model = SASRec(config)
    model.fit(cycle, seed=1)
    metrics = evaluate(model, cycle, EvaluationConfig(cutoffs=(1,), headline="hr@1")).metrics
    assert metrics["hr@1"]["mean"] > 0.95


def test_scores_depend_on_the_history_alone(cycle: Split, tmp_path: Path) -> None:
    model = SASRec(SMALL)
    model.fit(cycle, seed=1)
    asked = Examples.from_histories([[3], [1, 2, 3, 4, 5, 6, 7, 8, 9], [], [5, 6]])
    scores = model.scores(asked)
    assert torch.isfinite(scores).all()
    assert not scores[2].any(), "an empty history says nothing"
    order = np.array([3, 1, 0, 2])
    torch.testing.assert_close(model.scores(asked.take(order)), scores[torch.from_numpy(order)])
    torch.testing.assert_close(model.scores(asked.take(slice(3, 4))), scores[3:])
    torch.testing.assert_close(model.scores(Examples.from_histories([[2, 3, 4, 5, 6, 7, 8, 9]]))[0], scores[1])
    model.save(tmp_path)
    torch.testing.assert_close(SASRec.load(tmp_path).scores(asked), scores)


def test_micro_batches_change_nothing(cycle: Split) -> None:
    scores = []
    for tokens in (8, 4096):
        model = SASRec(SMALL.model_copy(update={"micro_batch_tokens": tokens}))
        model.fit(cycle, seed=1)
        scores.append(model.scores(cycle.test))
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-3, atol=1e-4)
