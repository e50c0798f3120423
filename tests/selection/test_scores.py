"""GraNd, EL2N and AUM against literal computations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tandemrec.conventional.sequential.sasrec import SASRecModule
from tandemrec.data.examples import Examples, Ragged
from tandemrec.errors import InputError
from tandemrec.selection.el2n import EL2N, error_norms, margins
from tandemrec.selection.grand import GraNd, gradient_norms
from tandemrec.selection.surrogate import Surrogate, SurrogateConfig
from tests.selection.conftest import LONGEST, N_ITEMS
from tests.selection.test_influence import Slow


@pytest.mark.parametrize(
    "settings",
    [{"negatives": 3}, {"loss": "softmax"}, {"positions": "last"}, {"loss": "softmax", "positions": "last"}],
)
def test_grand_is_the_norm_of_each_samples_gradient(
    network: SASRecModule, examples: Examples, settings: dict[str, Any]
) -> None:
    surrogate = Surrogate(network, LONGEST, SurrogateConfig(micro_batch_tokens=9, **settings))
    slow = Slow(surrogate, examples, surrogate.samples(examples, 4))
    parameters = dict(network.named_parameters())
    expected = []
    for s in range(len(examples)):
        loss = slow.loss({}, s)
        slopes = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True) if loss.requires_grad else []
        expected.append(sum(float(g.square().sum()) for g in slopes if g is not None) ** 0.5)
    np.testing.assert_allclose(gradient_norms(surrogate, examples, 4), expected, rtol=1e-9)
    np.testing.assert_allclose(GraNd([surrogate, surrogate], seed=4).scores(examples), expected, rtol=1e-9)
    assert max(expected) > 0


class Biased(nn.Module):
    """A network with a bias for every item and an output table of its own."""

    def __init__(self, stray: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.item, self.map = nn.Embedding(N_ITEMS, 4), nn.Linear(4, 4)
        self.table, self.bias = nn.Parameter(torch.randn(N_ITEMS, 4)), nn.Parameter(torch.randn(N_ITEMS))
        self.scale = nn.Parameter(torch.ones(4)) if stray else 1.0
        self.double()

    def forward(self, items_BT: Tensor) -> Tensor:
        out: Tensor = self.map(self.item(items_BT)).cumsum(1) * self.scale
        return out

    def states(self, rows: Ragged) -> Tensor:
        padded = torch.from_numpy(rows.padded(int(rows.lengths.max()), 0, "right").astype(np.int64))
        return torch.cat([row[:n] for row, n in zip(self(padded), rows.lengths, strict=True)])

    def last(self, rows: Ragged) -> Tensor:
        return self.states(rows)[torch.from_numpy(np.cumsum(rows.lengths) - 1)]

    def item_table(self) -> Tensor:
        return self.table

    def item_bias(self) -> Tensor:
        return self.bias


@pytest.mark.parametrize("loss", ["bce", "softmax"])
def test_grand_with_biases_and_an_untied_table(examples: Examples, loss: Any) -> None:
    network = Biased()
    surrogate = Surrogate(network, LONGEST, SurrogateConfig(loss=loss))
    samples = surrogate.samples(examples, 0)
    expected = []
    for s in np.flatnonzero(samples.counts):
        batch = surrogate.batch(samples, np.array([s]))
        loss_s = surrogate.losses(surrogate(batch), batch) @ batch.weight_N
        slopes = torch.autograd.grad(loss_s, list(network.parameters()))
        expected.append(sum(float(g.square().sum()) for g in slopes) ** 0.5)
    found = gradient_norms(surrogate, examples)
    np.testing.assert_allclose(found[samples.counts > 0], expected, rtol=1e-9)


class Masked(Biased):
    """One table for input and output with a row more than there are items, as masked models have it."""

    def __init__(self) -> None:
        super().__init__()
        self.item = nn.Embedding(N_ITEMS + 1, 4).double()
        del self.table

    def last(self, rows: Ragged) -> Tensor:
        longer = Ragged.from_lists([[*row.tolist(), N_ITEMS] for row in rows])
        return self.states(longer)[torch.from_numpy(np.cumsum(longer.lengths) - 1)]

    def item_table(self) -> Tensor:
        return self.item.weight[:N_ITEMS]


@pytest.mark.parametrize("loss", ["bce", "softmax"])
def test_grand_with_a_mask_in_the_table(examples: Examples, loss: Any) -> None:
    network = Masked()
    surrogate = Surrogate(network, LONGEST, SurrogateConfig(loss=loss, positions="last"))
    samples = surrogate.samples(examples, 0)
    expected = []
    for s in np.flatnonzero(samples.counts):
        batch = surrogate.batch(samples, np.array([s]))
        slopes = torch.autograd.grad(surrogate.losses(surrogate(batch), batch).sum(), list(network.parameters()))
        expected.append(sum(float(g.square().sum()) for g in slopes) ** 0.5)
    np.testing.assert_allclose(gradient_norms(surrogate, examples)[samples.counts > 0], expected, rtol=1e-9)


def test_a_network_that_looks_ahead_needs_the_last_position() -> None:
    class Ahead(Biased):
        def forward(self, items_BT: Tensor) -> Tensor:
            return super().forward(items_BT).flip(1)

    with pytest.raises(InputError, match="Ahead reads a sequence from both ends"):
        Surrogate(Ahead(), LONGEST, SurrogateConfig())
    Surrogate(Ahead(), LONGEST, SurrogateConfig(positions="last"))


def test_unknown_parameters_are_refused(examples: Examples) -> None:
    with pytest.raises(InputError, match="parameter 'scale' of Biased"):
        gradient_norms(Surrogate(Biased(stray=True), LONGEST, SurrogateConfig()), examples)


def literal_p(network: SASRecModule, examples: Examples) -> list[Tensor]:
    out = []
    for history in examples.history:
        recent = history[-LONGEST:].astype(np.int64)
        hidden = network(torch.from_numpy(recent)[None])[0, -1] if len(recent) else torch.zeros(4).double()
        out.append((network.item.weight @ hidden).detach())
    return out


def test_el2n_and_aum(network: SASRecModule, examples: Examples) -> None:
    surrogate = Surrogate(network.eval(), LONGEST, SurrogateConfig(micro_batch_tokens=5))
    logits = literal_p(network, examples)
    targets = [int(target[0]) for target in examples.target]
    one_hot = torch.eye(N_ITEMS, dtype=torch.float64)
    expected = [float((x.softmax(0) - one_hot[y]).norm()) for x, y in zip(logits, targets, strict=True)]
    np.testing.assert_allclose(error_norms(surrogate, examples), expected, rtol=1e-9)
    np.testing.assert_allclose(EL2N([surrogate, surrogate]).scores(examples), expected, rtol=1e-9)
    margin = [float(x[y] - max(x[k] for k in range(N_ITEMS) if k != y)) for x, y in zip(logits, targets, strict=True)]
    np.testing.assert_allclose(margins([surrogate, surrogate], examples), margin, rtol=1e-9, atol=1e-12)


def test_the_largest_errors_are_taken(network: SASRecModule, examples: Examples) -> None:
    selector = EL2N([Surrogate(network, LONGEST, SurrogateConfig())])
    chosen = selector.select(examples, 3, seed=1)
    scores = selector.scores(examples)
    assert chosen.tolist() == sorted(chosen)
    assert scores[chosen].min() >= np.delete(scores, chosen).max()


def test_an_example_without_a_target_is_refused(network: SASRecModule, examples: Examples) -> None:
    nothing = Examples.from_histories([[1, 2]])
    with pytest.raises(InputError, match="none in example 0"):
        error_norms(Surrogate(network, LONGEST, SurrogateConfig()), nothing)
