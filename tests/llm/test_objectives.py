"""Objectives: hand values and the invariants of their papers."""

from __future__ import annotations

import math

import pytest
import torch

from tandemrec.llm.objectives import SDPO, SFT, SOFT

LOG_P = torch.tensor([[-1.0, -3.0], [-2.0, -0.5]])
COUNTS = torch.tensor([[2, 5], [3, 1]])


def test_sft_by_hand() -> None:
    assert SFT().loss([0, 1], LOG_P[:, :1], COUNTS[:, :1]).item() == 3
    assert SFT().weight(COUNTS[:, :1]) == 5
    assert SFT("examples").weight(COUNTS[:, :1]) == 2


def test_soft_by_hand() -> None:
    mixed = SOFT(tau=0.25)
    assert list(mixed.columns()) == [0, 1]
    assert mixed.loss([0, 1], LOG_P, COUNTS).item() == pytest.approx(0.75 * 3 + 0.25 * 3.5)
    assert mixed.weight(COUNTS) == pytest.approx(0.75 * 5 + 0.25 * 6)
    assert SOFT(tau=0.25, reduction="examples").weight(COUNTS) == 2


@pytest.mark.parametrize(("tau", "column"), [(1.0, 1), (0.0, 0)])
def test_soft_leaves_out_the_part_of_weight_zero(tau: float, column: int) -> None:
    pure = SOFT(tau=tau)
    assert list(pure.columns()) == [column]
    own, counts = LOG_P[:, [column]], COUNTS[:, [column]]
    torch.testing.assert_close(pure.loss([0, 1], own, counts), SFT().loss([0, 1], own, counts))
    assert pure.weight(counts) == SFT().weight(counts)


@pytest.mark.parametrize("k", [1, 3, 15])
def test_sdpo_of_the_reference_itself_is_log_1_plus_k(k: int) -> None:
    values = torch.randn(4, k + 1, generator=torch.Generator().manual_seed(k))
    loss = SDPO(values).loss(range(4), values, torch.ones(4, k + 1)) / 4
    assert loss.item() == pytest.approx(math.log(1 + k), rel=1e-6)


def test_sdpo_with_one_negative_is_dpo() -> None:
    generator = torch.Generator().manual_seed(0)
    policy, reference = torch.randn(5, 2, generator=generator), torch.randn(5, 2, generator=generator)
    margin = 0.3 * ((policy - reference)[:, 0] - (policy - reference)[:, 1])
    expected = -torch.nn.functional.logsigmoid(margin).sum()
    torch.testing.assert_close(SDPO(reference, beta=0.3).loss(range(5), policy, torch.ones(5, 2)), expected)


def test_sdpo_matches_its_definition_and_ignores_the_order_of_negatives() -> None:
    generator = torch.Generator().manual_seed(1)
    policy, reference = torch.randn(5, 4, generator=generator), torch.randn(5, 4, generator=generator)
    reward = (policy - reference).double()
    literal = -torch.log(torch.sigmoid(-torch.log(torch.exp(2 * (reward[:, 1:] - reward[:, :1])).sum(1)))).sum()
    loss = SDPO(reference, beta=2).loss(range(5), policy, torch.ones(5, 4))
    assert loss.item() == pytest.approx(literal.item(), rel=1e-5)
    order = [0, 3, 1, 2]
    shuffled = SDPO(reference[:, order], beta=2).loss(range(5), policy[:, order], torch.ones(5, 4))
    torch.testing.assert_close(shuffled, loss)


def test_sdpo_stays_finite_and_reads_the_reference_of_its_rows() -> None:
    reference = torch.tensor([[0.0, 0.0], [0.0, -500.0]])
    policy = torch.tensor([[0.0, 0.0]], requires_grad=True)
    loss = SDPO(reference, beta=10).loss([1], policy, torch.ones(1, 2))
    assert loss.item() == pytest.approx(5000)
    loss.backward()
    assert torch.isfinite(policy.grad).all()
