"""CL4SRec: the three operators by their properties, the contrast by loops, and that without it SASRec is left."""

import math

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tandemrec.conventional.sequential.cl4srec import (
    CL4SRec,
    CL4SRecConfig,
    ViewBatch,
    augmented,
    crop,
    mask_items,
    reorder,
    two_views,
    view_loss,
)
from tandemrec.conventional.sequential.losses import softmax_loss
from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import Ragged
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.split import make_split

MASK = 1000
LENGTHS = st.lists(st.integers(1, 15), min_size=1, max_size=12)


def rows_of(lengths: list[int]) -> Ragged:
    """Rows without any item twice, taken from a longer array in another order."""
    lists = [list(range(20 * number, 20 * number + n)) for number, n in enumerate(lengths)]
    return Ragged.from_lists(lists[::-1]).take(np.arange(len(lists))[::-1])


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.floats(0.01, 1), st.integers(0, 2**31))
def test_a_crop_is_one_piece_of_the_row(lengths: list[int], share: float, seed: int) -> None:
    rows = rows_of(lengths)
    for row, view in zip(rows, crop(rows, share, np.random.default_rng(seed)), strict=True):
        assert len(view) == max(1, int(share * len(row)))
        at = row.tolist().index(view[0])
        assert view.tolist() == row[at : at + len(view)].tolist()


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.floats(0, 0.99), st.integers(0, 2**31))
def test_masking_replaces_a_share_and_moves_nothing(lengths: list[int], share: float, seed: int) -> None:
    rows = rows_of(lengths)
    before = rows.values.copy()
    for row, view in zip(rows, mask_items(rows, share, MASK, np.random.default_rng(seed)), strict=True):
        assert len(view) == len(row)
        assert (view == MASK).sum() == int(share * len(row))
        assert (view[view != MASK] == row[view != MASK]).all()
    np.testing.assert_array_equal(rows.values, before)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.floats(0, 1), st.integers(0, 2**31))
def test_reordering_shuffles_one_piece(lengths: list[int], share: float, seed: int) -> None:
    rows = rows_of(lengths)
    before = rows.values.copy()
    for row, view in zip(rows, reorder(rows, share, np.random.default_rng(seed)), strict=True):
        assert sorted(view) == sorted(row)
        moved = np.flatnonzero(row != view)
        assert not len(moved) or moved[-1] - moved[0] < int(share * len(row))
    np.testing.assert_array_equal(rows.values, before)


def test_operators_reach_every_place() -> None:
    rows = Ragged.from_lists([list(range(10))] * 5000)
    rng = np.random.default_rng(0)
    cropped = crop(rows, 0.6, rng)
    np.testing.assert_allclose(np.bincount([row[0] for row in cropped], minlength=5) / 5000, 0.2, atol=0.03)
    masked = np.stack(list(mask_items(rows, 0.3, MASK, rng))) == MASK
    np.testing.assert_allclose(masked.mean(0), 0.3, atol=0.03)
    whole = np.stack(list(reorder(rows, 1.0, rng)))
    for place in range(10):
        np.testing.assert_allclose(np.bincount(whole[:, place], minlength=10) / 5000, 0.1, atol=0.025)


def test_the_two_views_come_from_different_operators() -> None:
    rows = Ragged.from_lists([[number] for number in range(3000)])

    def constant(value: int):
        return lambda rows, rng: Ragged.from_lengths(rows.flat() * 10 + value, rows.lengths)

    first, second = two_views(rows, [constant(0), constant(1), constant(2)], np.random.default_rng(0))
    one, two = first.flat(), second.flat()
    np.testing.assert_array_equal(one // 10, np.arange(3000))
    np.testing.assert_array_equal(two // 10, np.arange(3000))
    pairs, counts = np.unique(np.stack([one % 10, two % 10], 1), axis=0, return_counts=True)
    assert pairs.tolist() == [[0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1]]
    np.testing.assert_allclose(counts / 3000, 1 / 6, atol=0.03)
    chosen = np.array([2, 0, 1])
    some = augmented(rows.take(slice(0, 3)), [constant(0), constant(1), constant(2)], chosen, np.random.default_rng(0))
    assert some.flat().tolist() == [2, 10, 21]


def test_the_contrast_by_loops() -> None:
    torch.manual_seed(0)
    first, second, owner = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([5, 6, 5, 7])
    views = [*first, *second]
    total = 0.0
    for n in range(8):
        partner = (n + 4) % 8
        negatives = [m for m in range(8) if m not in (n, partner) and owner[m % 4] != owner[n % 4]]
        logits = [float(views[n] @ views[m]) / 0.7 for m in (partner, *negatives)]
        total -= logits[0] - math.log(sum(math.exp(logit) for logit in logits))
    assert float(view_loss(first, second, owner, 0.7)) == pytest.approx(total / 8, rel=1e-5)


def test_the_loss_is_next_item_and_contrast() -> None:
    rows = [(u, (u + 3 * t) % 20, t) for u in range(12) for t in range(4 + u % 3)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    split = make_split(Dataset.from_frames(frame), LeaveOneOut())
    parts = []
    for weight in (0.0, 0.5):
        model = CL4SRec(CL4SRecConfig(dim=8, max_length=4, dropout=0, contrast=weight, temperature=0.5))
        module = model.module_for(split, 1)
        task = model.make_task(module, split, 1)
        ((batch,),) = task.steps(0)
        parts.append(float(task.loss(batch).detach()))
    assert isinstance(batch, ViewBatch)
    hidden = module.states(batch.inputs)
    target = torch.from_numpy(batch.targets.astype(np.int64))
    assert parts[0] == pytest.approx(float(softmax_loss(hidden, module.item_table(), target).detach()), rel=1e-5)
    one, two = (module.last(view) for view in batch.views)
    contrast = float(view_loss(one, two, torch.from_numpy(batch.owner), 0.5).detach())
    assert parts[1] - parts[0] == pytest.approx(0.5 * batch.n_targets * contrast, rel=1e-4)
    assert max(batch.views[0].lengths) <= 4
    again = task.steps(0)[0][0]
    assert [view.flat().tolist() for view in again.views] == [view.flat().tolist() for view in batch.views]
    assert task.steps(1)[0][0].views[0].flat().tolist() != batch.views[0].flat().tolist()
