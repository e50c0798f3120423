"""Weights and losses of ranking distillation against literal transcriptions, and the offset of item vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from tandemrec.augmentation.distillation import (
    ListLesson,
    Offset,
    RankingDistillationConfig,
    TeacherLists,
    fixed_weights,
    list_loss,
    list_weights,
    own_lists,
    robust_lists,
)
from tandemrec.conventional.negatives import NegativeSampler
from tandemrec.conventional.sequential.dros import DROS, DROSConfig, DROSModule
from tandemrec.conventional.sequential.next_item import NextItem
from tandemrec.conventional.sequential.sasrec import SASRec, SASRecConfig
from tandemrec.data.examples import Ragged
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.recommender import NO_ITEM


def config_with(**settings: Any) -> RankingDistillationConfig:
    return RankingDistillationConfig.model_validate(settings)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def literal_weights(
    items: list[int], distances: list[float], own: list[int], low: float, high: float, beta: float
) -> list[float]:
    """γ .3, .5, .1 over one list, as section 4.2 of the paper and the authors' code put it, distances scaled."""
    k = len(items)
    place = [math.exp(-(rank + 1) / beta) for rank in range(k)]
    sure = [math.exp(-(d - low) / (high - low)) + 1e-8 for d in distances]
    weight = [
        0.3 * place[j] / sum(place) + 0.5 * sure[j] / sum(sure) + 0.1 * (1.0 if items[j] in own else 0.0)
        for j in range(k)
    ]
    return [value / sum(weight) for value in weight]


def test_weights_are_the_published_ones() -> None:
    rng = np.random.default_rng(0)
    items = np.stack([rng.choice(30, 5, replace=False) for _ in range(7)])
    own = np.stack([rng.choice(30, 5, replace=False) for _ in range(7)])
    distances = rng.uniform(20, 90, (7, 5)).astype(np.float32)
    config = config_with(beta=2.0)
    fixed = fixed_weights(torch.from_numpy(items), torch.from_numpy(distances), config)
    found = list_weights(fixed, torch.from_numpy(items), torch.from_numpy(own), config)
    low, high = float(distances.min()), float(distances.max())
    for row in range(7):
        expected = literal_weights(items[row].tolist(), distances[row].tolist(), own[row].tolist(), low, high, 2.0)
        assert found[row].tolist() == pytest.approx(expected, rel=1e-5)


def test_consistency_by_hand() -> None:
    config = config_with(position=0, confidence=0, consistency=0.4)
    items, own = torch.tensor([[3, 1, 4, 9]]), torch.tensor([[9, 7, 3, 8]])
    fixed = fixed_weights(items, torch.zeros(1, 4), config)
    assert list_weights(fixed, items, own, config).tolist() == [[0.5, 0, 0, 0.5]]
    raw = config.model_copy(update={"normalise": False})
    assert list_weights(fixed, items, own, raw)[0].tolist() == pytest.approx([0.4, 0, 0, 0.4])


def test_confidence_says_nothing_without_scaling_and_something_with_it() -> None:
    items, distances = torch.tensor([[0, 1, 2]]), torch.tensor([[40.0, 60.0, 90.0]])
    sure = {"position": 0, "consistency": 0, "confidence": 1}
    assert fixed_weights(items, distances, config_with(**sure, scaling="none"))[0].tolist() == pytest.approx(
        [1 / 3] * 3
    )
    scaled = fixed_weights(items, distances, config_with(**sure))[0]
    parts = torch.tensor([1.0, math.exp(-0.4), math.exp(-1.0)])
    torch.testing.assert_close(scaled, parts / parts.sum())


def test_the_distance_to_the_target_weighs_whole_lists() -> None:
    config = config_with(position=0, consistency=0, confidence=1, distance="target", normalise=False)
    items, to_target = torch.tensor([[0, 1], [2, 3], [4, -1]]), torch.tensor([[10.0], [30.0], [20.0]]).expand(3, 2)
    fixed = fixed_weights(items, to_target, config)
    expected = [[1, 1], [math.exp(-1), math.exp(-1)], [math.exp(-0.5), 0]]
    torch.testing.assert_close(fixed, torch.tensor(expected), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", ["none", "bce", "code"])
def test_loss_against_a_literal_transcription(kind: Any) -> None:
    rng = np.random.default_rng(1)
    score, weight, negative = rng.normal(size=(4, 3)), rng.uniform(size=(4, 3)), rng.normal(size=4)
    expected = 0.0
    for s in range(4):
        for j in range(3):
            expected -= weight[s, j] * math.log(sigmoid(score[s, j]))
            if kind == "bce":
                expected -= weight[s, j] * math.log(1 - sigmoid(negative[s]))
            elif kind == "code":
                expected -= weight[s, j] * math.log(sigmoid(1 - negative[s]))
    away = None if kind == "none" else torch.from_numpy(negative)
    found = list_loss(torch.from_numpy(score), torch.from_numpy(weight), away, kind)
    assert float(found) == pytest.approx(expected)


def test_robust_lists_against_a_literal_transcription() -> None:
    rng = torch.Generator().manual_seed(4)
    logits = (3 * torch.randn(5, 12, generator=rng, dtype=torch.float64)).requires_grad_()
    p = torch.rand(12, generator=rng, dtype=torch.float64) + 0.3
    items = torch.stack([torch.randperm(12, generator=rng)[:3] for _ in range(5)])
    weight = torch.rand(5, 3, generator=rng, dtype=torch.float64)
    expected = torch.zeros((), dtype=torch.float64)
    for row in range(5):
        every = (p * logits[row] ** 2).exp().sum()
        for k, item in enumerate(items[row].tolist()):
            y = logits[row, item]
            inner = every - (p[item] * y**2).exp() + (p[item] * (y - 1) ** 2).exp()
            expected = expected + weight[row, k] * inner.log()
    (slope,) = torch.autograd.grad(expected, logits)
    found, gradient = robust_lists(p, items, weight)(logits.detach().clone(), torch.arange(5))
    torch.testing.assert_close(found, expected.detach())
    torch.testing.assert_close(gradient, slope)
    # A list that runs out is one of its real items alone.
    short = torch.cat([items, torch.full((5, 1), -1)], 1)
    shorter = robust_lists(p, short, torch.cat([weight, torch.zeros(5, 1)], 1))(
        logits.detach().clone(), torch.arange(5)
    )
    torch.testing.assert_close(shorter, (found, gradient))
    every = torch.arange(12).expand(5, -1)
    value, slopes = robust_lists(p, every, torch.ones(5, 12))(logits.detach().clone(), torch.arange(5))
    assert torch.isfinite(value)
    assert torch.isfinite(slopes).all()


def test_robust_lists_do_not_overflow() -> None:
    logits = torch.tensor([[300.0, -40.0, 2.0]])
    found, gradient = robust_lists(torch.ones(3), torch.tensor([[0, 1]]), torch.ones(1, 2))(logits, torch.arange(1))
    assert float(found) == pytest.approx(299.0**2 + 300.0**2, rel=1e-6)
    assert torch.isfinite(gradient).all()


def test_own_lists_are_the_best_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tandemrec.augmentation.distillation.SCORED_AT_ONCE", 40)
    hidden, table, bias = torch.randn(9, 4), torch.randn(20, 4), torch.randn(20)
    expected = (hidden @ table.T + bias).argsort(1, descending=True)[:, :3]
    assert torch.equal(own_lists(hidden, table, bias, 3), expected)
    rows = [[], [int(expected[1, 0])], [int(expected[2, 1]), 7], *([[0, 1]] * 6)]
    unmet = [
        [i for i in (hidden[at] @ table.T + bias).argsort(descending=True).tolist() if i not in row][:3]
        for at, row in enumerate(rows)
    ]
    assert own_lists(hidden, table, bias, 3, Ragged.from_lists(rows)).tolist() == unmet


def lists_at(places: np.ndarray, rng: np.random.Generator) -> pl.DataFrame:
    items = np.stack([rng.choice(24, 4, replace=False) for _ in places]).astype(np.int32)
    return pl.DataFrame(
        {
            "place": places,
            "items": items.tolist(),
            "distances": np.sort(rng.uniform(5, 50, (len(places), 4)), 1).tolist(),
            "target_distance": rng.uniform(5, 50, len(places)).astype(np.float32),
        }
    )


def student_task(split: Split, student: str = "sasrec") -> NextItem:
    config = SASRecConfig(dim=8, max_length=3, blocks=1, init_std=0.5)
    if student == "sasrec":
        model: SASRec | DROS = SASRec(config, "cpu")
    else:
        backbone = config.model_copy(update={"loss": "bce"})
        model = DROS(DROSConfig(backbone=backbone, alpha=0.3, beta=2.0), "cpu")
    model.module = module = model.make_module(24, 3)
    if isinstance(module, DROSModule):
        assert module.head is not None
        torch.nn.init.normal_(module.head.bias, generator=torch.Generator().manual_seed(6))
    task = model.make_task(module, split, 0)  # type: ignore[arg-type]
    assert isinstance(task, NextItem)
    return task


def literal_robust(scores: list[float], item: int, propensity: list[float]) -> float:
    """DROS's term of one listed item, propensities being divided by β already."""
    every = sum(math.exp(p * y**2) for p, y in zip(propensity, scores, strict=True))
    p, y = propensity[item], scores[item]
    return math.log(every - math.exp(p * y**2) + math.exp(p * (y - 1) ** 2))


@pytest.mark.parametrize("negative", ["none", "bce", "code"])
@pytest.mark.parametrize("student", ["sasrec", "dros", "dros-robust"])
@pytest.mark.parametrize("only_unseen", [True, False])
def test_the_term_equals_a_loop_over_positions(
    split: Split, monkeypatch: pytest.MonkeyPatch, only_unseen: bool, student: str, negative: str
) -> None:
    rng, robust = np.random.default_rng(2), student == "dros-robust"
    config = config_with(weight=0.8, negative=negative, robust=robust)
    drawn: list[int] = []
    draw = NegativeSampler.draw

    def spy(sampler: NegativeSampler, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        found = draw(sampler, rows, rng)
        drawn.extend(found.tolist())
        return found

    monkeypatch.setattr(NegativeSampler, "draw", spy)
    targets = np.flatnonzero(np.isin(np.arange(len(split.sequences.values)), split.train.target.starts))
    frame = lists_at(np.sort(rng.choice(targets, 80, replace=False)), rng)
    task = student_task(split, student)
    lists = TeacherLists.of(frame, len(split.sequences.values), config)
    lesson = ListLesson(task, lists, config, only_unseen=only_unseen)
    users = rng.permutation(60)[:30]
    batch = task.batch(users, None)
    torch.manual_seed(5)
    hidden = torch.randn(batch.n_targets, 8)
    found = float(lesson(hidden, batch).detach())
    table, bias = task.module.item_table().detach(), task.module.item_bias()
    learned = [p for a, b in zip(task.rows.starts, task.rows.stops, strict=True) for p in range(a + 1, b)]
    count = [1 + sum(split.sequences.values[place] == item for place in learned) for item in range(24)]
    propensity = [(n / sum(count)) ** 0.05 / 2 for n in count]
    expected, at, left = 0.0, 0, list(drawn)
    listed = dict(zip(frame["place"].to_list(), frame.iter_rows(named=True), strict=True))
    every = np.concatenate(list(np.asarray(frame["distances"].to_list())))
    for user, start, stop in zip(users, batch.rows.starts, batch.rows.stops, strict=True):
        for place in range(start + 1, stop):
            scores = (table @ hidden[at] + (0 if bias is None else bias.detach())).tolist()
            at += 1
            if place not in listed:
                continue
            row = listed[place]
            met = set(split.sequences.values[split.sequences.starts[user] : place].tolist()) if only_unseen else set()
            own = sorted((i for i in range(24) if i not in met), key=lambda i: -scores[i])[:4]
            weights = literal_weights(row["items"], row["distances"], own, every.min(), every.max(), 1.0)
            away = 0.0
            if negative != "none":
                other = left.pop(0)
                assert other not in split.sequences[user]
                away = -math.log(1 - sigmoid(scores[other]) if negative == "bce" else sigmoid(1 - scores[other]))
            for w, i in zip(weights, row["items"], strict=True):
                expected += w * (away - math.log(sigmoid(scores[i])))
                expected += 0.3 * w * literal_robust(scores, i, propensity) if robust else 0.0
    assert not left
    used = sum(place in learned for place in listed)
    assert 0 < used < 80
    assert lesson.used == used
    assert found == pytest.approx(expected * 0.8 * len(learned) / used, rel=1e-4)


def test_refusals(split: Split) -> None:
    rng = np.random.default_rng(3)
    frame = lists_at(split.sequences.starts[:2].copy(), rng)  # the first item of a history is no target
    places = len(split.sequences.values)
    with pytest.raises(InputError, match="none of the teacher's lists is about a position"):
        lists = TeacherLists.of(frame, places, config_with())
        ListLesson(student_task(split), lists, config_with(), only_unseen=True)
    unknown = frame.with_columns(target_distance=pl.lit(None, pl.Float32))
    with pytest.raises(InputError, match="its distance to the true one is unknown"):
        TeacherLists.of(unknown, places, config_with(distance="target"))


def test_lists_without_any_item_teach_nothing(split: Split) -> None:
    rng = np.random.default_rng(3)
    places = len(split.sequences.values)
    frame = lists_at(split.sequences.starts[:4] + 1, rng)
    empty = frame.with_columns(
        items=pl.Series([[NO_ITEM] * 4] * 4, dtype=frame.schema["items"]),
        distances=pl.Series([[None] * 4] * 4, dtype=frame.schema["distances"]),
    )
    some = pl.concat([frame[:1], empty[1:3], frame[3:]])
    lists, kept = (TeacherLists.of(table, places, config_with()) for table in (some, some[[0, 3]]))
    assert np.array_equal(lists.row_of_place, kept.row_of_place)
    assert torch.equal(lists.fixed_nK, kept.fixed_nK)
    with pytest.raises(InputError, match="the teacher recommends nothing at any training position"):
        TeacherLists.of(empty, places, config_with())


def test_the_offset_is_affine_in_the_given_vectors() -> None:
    z = torch.randn(6, 5) * torch.tensor([1.0, 10, 100, 1, 1]) + 7
    z[:, 4] = 2.0
    offset = Offset(z, 3, 0.3, seed=1)
    scaled = (z - z.mean(0)) / z.std(0, correction=0).where(z.std(0, correction=0) > 1e-6, torch.ones(5))
    b = torch.randn(6, 3)
    expected = torch.stack([b[i] + 0.3 * (offset.map.weight @ scaled[i] + offset.map.bias) for i in range(6)])
    torch.testing.assert_close(offset(b), expected, atol=1e-5, rtol=1e-5)
