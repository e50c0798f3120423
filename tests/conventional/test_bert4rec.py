"""BERT4Rec: what its encoder may see, how rows are masked, and its loss."""

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tandemrec.conventional.sequential.bert4rec import (
    BERT4Rec,
    BERT4RecConfig,
    BERT4RecModule,
    MaskedBatch,
    draw_masks,
    with_mask,
)
from tandemrec.conventional.sequential.encoder import BidirectionalEncoder
from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import Ragged
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.split import make_split

SMALL = BERT4RecConfig(dim=8, max_length=9, layers=2, dropout=0)


def test_the_encoder_is_torchs_post_norm_transformer() -> None:
    torch.manual_seed(0)
    ours = BidirectionalEncoder(8, 2, 2, dropout=0.0).eval()
    theirs = torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(8, 2, 32, 0.0, "gelu", layer_norm_eps=1e-12, batch_first=True),
        2,
        enable_nested_tensor=False,
    ).eval()
    with torch.no_grad():
        for mine, other in zip(ours.layers, theirs.layers, strict=True):
            other.self_attn.in_proj_weight.copy_(torch.cat([x.weight for x in (mine.query, mine.key, mine.value)]))
            other.self_attn.in_proj_bias.copy_(torch.cat([x.bias for x in (mine.query, mine.key, mine.value)]))
            for a, b in (
                (other.self_attn.out_proj, mine.out),
                (other.linear1, mine.first),
                (other.linear2, mine.second),
            ):
                a.load_state_dict(b.state_dict())
    hidden, lengths = torch.randn(3, 6, 8), torch.tensor([6, 2, 4])
    real = torch.arange(6) < lengths[:, None]
    expected = theirs(hidden, src_key_padding_mask=~real)
    torch.testing.assert_close(ours(hidden, lengths)[real], expected[real])


def test_a_prediction_does_not_depend_on_padding() -> None:
    module = BERT4RecModule(SMALL.model_copy(update={"init_std": 0.5}), 20, seed=1).eval()
    rows = Ragged.from_lists([[1, 2, 3], [4, 5, 6, 7, 8, 9, 10, 11], [5]])
    together = module.last(rows)
    for number in range(3):
        torch.testing.assert_close(module.last(rows.take(slice(number, number + 1)))[0], together[number])
    items = torch.tensor([[1, 2, 3, 20, 0, 0]])
    for pad in (7, 20):
        padded = torch.where(torch.arange(6) < 4, items, pad)
        torch.testing.assert_close(module(padded, torch.tensor([4]))[0, 3], together[0])


def test_every_item_of_the_history_is_seen_and_the_mask_is_read() -> None:
    module = BERT4RecModule(SMALL.model_copy(update={"init_std": 0.5}), 20, seed=1).eval()
    base = module.last(Ragged.from_lists([[1, 2, 3]]))
    for changed in ([9, 2, 3], [1, 9, 3], [1, 2, 9]):
        assert not torch.allclose(module.last(Ragged.from_lists([changed])), base)
    torch.testing.assert_close(base[0], module(torch.tensor([[1, 2, 3, 20]]), torch.tensor([4]))[0, 3])


def test_the_output_layer_is_equation_7() -> None:
    module = BERT4RecModule(SMALL, 20, seed=1).eval()
    items, lengths = torch.tensor([[1, 20, 3]]), torch.tensor([3])
    embedded = module.input_norm(module.item.weight[items[0]] + module.position.weight[:3])[None]
    hidden = module.encoder(embedded, lengths)
    torch.testing.assert_close(module(items, lengths), module.output_norm(F.gelu(module.output(hidden))))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=30),
    st.floats(0.01, 0.99),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.integers(0, 2**31),
)
def test_masks_hit_every_row(lengths: list[int], share: float, last_share: float, seed: int) -> None:
    lengths_B = np.array(lengths)
    masked = draw_masks(lengths_B, share, last_share, np.random.default_rng(seed))
    rows = np.split(masked, np.cumsum(lengths_B)[:-1])
    assert [len(row) for row in rows] == lengths
    assert all(row.any() for row in rows)
    if last_share == 1:
        assert all(row[-1] and row.sum() == 1 for row in rows)


def test_masks_have_the_shares_asked_for() -> None:
    lengths = np.full(4000, 50)
    rng = np.random.default_rng(0)
    masked = draw_masks(lengths, 0.2, 0.25, rng).reshape(4000, 50)
    alone = (masked.sum(1) == 1) & masked[:, -1]
    assert alone.mean() == pytest.approx(0.25, abs=0.03)
    assert masked[~alone].mean() == pytest.approx(0.2, abs=0.005)
    np.testing.assert_allclose(masked[~alone].mean(0), 0.2, atol=0.04)
    spare = draw_masks(np.full(6000, 3), 1e-9, 0.0, rng).reshape(6000, 3)
    np.testing.assert_allclose(spare.mean(0), 1 / 3, atol=0.03)


def test_masks_change_with_the_epoch_and_repeat_from_it() -> None:
    rows = [(u, (u + 3 * t) % 20, t) for u in range(30) for t in range(8)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    split = make_split(Dataset.from_frames(frame), LeaveOneOut())
    model = BERT4Rec(SMALL)
    task = model.make_task(model.module_for(split, 1), split, 1)
    masks = []
    for epoch in (0, 1, 0):
        batches = [batch for step in task.steps(epoch) for batch in step]
        for batch in batches:
            assert isinstance(batch, MaskedBatch)
            items, hidden = batch.rows.flat(), batch.inputs.flat()
            np.testing.assert_array_equal(hidden[~batch.masked], items[~batch.masked])
            assert (hidden[batch.masked] == 20).all()
            np.testing.assert_array_equal(batch.targets, items[batch.masked])
            assert batch.n_targets == batch.masked.sum() == task.weight(batch)
        masks.append(np.concatenate([batch.masked for batch in batches]))
    assert (masks[0] == masks[2]).all()
    assert (masks[0] != masks[1]).any()


def test_the_loss_is_equation_8() -> None:
    rows = [(u, (u + 3 * t) % 20, t) for u in range(12) for t in range(4 + u % 3)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    split = make_split(Dataset.from_frames(frame), LeaveOneOut())
    model = BERT4Rec(SMALL)
    module = model.module_for(split, 1)
    torch.nn.init.normal_(module.bias, generator=torch.Generator().manual_seed(0))
    task = model.make_task(module, split, 1)
    (batch,) = task.steps(0)[0]
    assert isinstance(batch, MaskedBatch)
    expected, at = 0.0, 0
    for row, hidden_row in zip(batch.rows, batch.inputs, strict=True):
        states = module(torch.from_numpy(hidden_row.astype(np.int64))[None], torch.tensor([len(row)]))[0]
        for place, item in enumerate(row.tolist()):
            if batch.masked[at + place]:
                log_p = torch.log_softmax(states[place] @ module.item.weight[:20].T + module.bias, 0)
                expected -= float(log_p[item].detach())
        at += len(row)
    assert float(task.loss(batch).detach()) == pytest.approx(expected, rel=1e-5)


def test_a_mask_is_put_behind_every_row() -> None:
    rows = Ragged.from_lists([[1, 2], [3], [4, 5, 6]]).take(np.array([2, 0, 1]))
    assert [row.tolist() for row in with_mask(rows, 9)] == [[4, 5, 6, 9], [1, 2, 9], [3, 9]]
