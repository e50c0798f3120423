"""Caser: its network against a literal transcription for single windows, and its targets."""

import numpy as np
import polars as pl
import pytest
import torch

from tandemrec.conventional.sequential.batches import SequenceBatch
from tandemrec.conventional.sequential.caser import Caser, CaserConfig, CaserModule, WindowBatch, targets_ahead
from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import Examples, Ragged
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.split import Split, make_split
from tandemrec.training import TrainingConfig

SMALL = CaserConfig(window=4, dim=3, horizontal=2, vertical=2, dropout=0, init_std=0.5)


def window_state(module: CaserModule, heights: tuple[int, ...], window: list[int]) -> torch.Tensor:
    """Z of one window of at most L items, filter by filter."""
    length = module.window
    image = torch.zeros(length, module.dim)
    for place, item in enumerate(window):
        image[length - len(window) + place] = module.item.weight[item]
    found = []
    for height, filters in zip(heights, module.horizontal, strict=True):
        for weight, bias in zip(filters.weight, filters.bias, strict=True):
            responses = [
                torch.relu((weight.T * image[i : i + height]).sum() + bias) for i in range(length - height + 1)
            ]
            found.append(max(responses))
    for weight, bias in zip(module.vertical.weight, module.vertical.bias, strict=True):
        found += [(weight * image[:, d]).sum() + bias for d in range(module.dim)]
    return torch.relu(module.full(torch.stack(found)))


@pytest.mark.parametrize("heights", [None, (2, 3)])
def test_states_are_those_of_every_window_alone(heights: tuple[int, ...] | None) -> None:
    module = CaserModule(SMALL.model_copy(update={"heights": heights}), 12, 3, seed=1).eval()
    rows = Ragged.from_lists([[1, 2, 3, 4, 5, 6, 7], [8], [9, 10, 11]])
    expected = [
        window_state(module, heights or (1, 2, 3, 4), row[max(0, end - 4) : end].tolist())
        for row in rows
        for end in range(1, len(row) + 1)
    ]
    states = module.states(rows)
    torch.testing.assert_close(states, torch.stack(expected))
    torch.testing.assert_close(module.last(rows), states[[6, 7, 10]])


@pytest.fixture(scope="module")
def split() -> Split:
    rows = [(u, (u + 3 * t) % 12, t) for u in range(6) for t in range(5 + u)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return make_split(Dataset.from_frames(frame), LeaveOneOut())


def test_scores_add_the_users_taste_and_strangers_get_the_mean(split: Split) -> None:
    model = Caser(SMALL.model_copy(update={"training": TrainingConfig(epochs=2)}))
    model.fit(split, seed=1)
    module = model.fitted()
    assert module.user is not None
    users = module.user.weight.detach()
    assert torch.equal(model.user_vectors, users)
    asked = Examples.from_histories([[1, 2, 3]] * 4, users=[0, 5, -1, 77])
    scores = model.scores(asked)
    z = module.last(Ragged.from_lists([[1, 2, 3]]))[0]
    for row, taste in enumerate([users[0], users[5], users.mean(0), users.mean(0)]):
        torch.testing.assert_close(scores[row], module.score.weight @ torch.cat([z, taste]) + module.bias)


@pytest.mark.parametrize("ahead", [1, 3, 20])
def test_targets_are_the_items_ahead(ahead: int) -> None:
    rows = Ragged.from_lists([[1, 2, 3, 4, 5], [6, 7], [8, 9, 10]]).take(np.array([2, 0, 1]))
    batch = WindowBatch(rows, np.arange(3), None, ahead)
    expected, position = [], 0
    for row in rows:
        for place in range(len(row) - 1):
            expected += [(position, int(target)) for target in row[place + 1 : place + 1 + ahead]]
            position += 1
    assert list(zip(batch.places[0].tolist(), batch.targets.tolist(), strict=True)) == expected
    assert batch.n_targets == len(expected) == targets_ahead(rows.lengths, ahead).sum()
    if ahead == 1:
        plain = SequenceBatch(rows, np.arange(3), None)
        np.testing.assert_array_equal(plain.targets, batch.targets)
        assert plain.n_targets == batch.n_targets


def test_the_loss_is_binary_cross_entropy_of_the_targets_and_their_own_negatives(split: Split) -> None:
    model = Caser(SMALL)
    module = model.module_for(split, 1)
    torch.nn.init.normal_(module.bias, generator=torch.Generator().manual_seed(0))
    task = model.make_task(module, split, 1)
    (batch,) = task.steps(0)[0]
    negatives = batch.negatives.reshape(batch.n_targets, 3)
    expected, at = 0.0, 0
    for row, user in zip(batch.rows, batch.owner.tolist(), strict=True):
        met = set(split.sequences[user].tolist())
        assert module.user is not None
        for end in range(1, len(row)):
            z = window_state(module, (1, 2, 3, 4), row[max(0, end - 4) : end].tolist())
            score = (module.score.weight @ torch.cat([z, module.user.weight[user]]) + module.bias).detach()
            for target in row[end : end + 3].tolist():
                expected -= float(torch.log(torch.sigmoid(score[target])))
                for negative in negatives[at].tolist():
                    assert negative not in met
                    expected -= float(torch.log(1 - torch.sigmoid(score[negative])))
                at += 1
    assert at == batch.n_targets
    assert float(task.loss(batch).detach()) == pytest.approx(expected, rel=1e-4)
