"""Dropout by shared random numbers: its share, its mean, its gradient."""

from __future__ import annotations

import math

import pytest
import torch

from tandemrec.training.dropout import Dropout, drop


@pytest.mark.parametrize("probability", [0.1, 0.3, 0.5, 0.9])
def test_dropout_keeps_the_mean_and_drops_its_share(probability: float) -> None:
    torch.manual_seed(0)
    inputs = torch.ones(500, 801, requires_grad=True)
    out = drop(inputs, probability, training=True)
    values = out.unique().tolist()
    assert values == pytest.approx([0, 1 / (1 - probability)], rel=1e-4)
    error = math.sqrt(probability * (1 - probability) / out.numel())
    assert (out == 0).double().mean().item() == pytest.approx(probability, abs=5 * error)
    assert (out[:, :400] == 0).double().mean(0).std().item() == pytest.approx(error * math.sqrt(801), rel=0.2)
    (out * 3).sum().backward()
    assert inputs.grad is not None and inputs.grad.equal(3 * out.detach())
    assert not drop(inputs, probability, training=True).equal(out), "another call, another mask"
    assert drop(inputs, probability, training=False) is inputs


def test_the_module_drops_in_training_alone() -> None:
    module, inputs = Dropout(0.25), torch.ones(1000)
    assert module.eval()(inputs) is inputs
    assert module.train()(inputs).unique().tolist() == pytest.approx([0, 4 / 3], rel=1e-4)
