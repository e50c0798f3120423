"""Influence against explicit Hessians, per-sample autograd and retraining."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from tandemrec.conventional.sequential.sasrec import SASRec, SASRecConfig, SASRecModule
from tandemrec.data.examples import Examples, Ragged
from tandemrec.errors import InputError
from tandemrec.selection.block import Block, BlockConfig
from tandemrec.selection.curvature import Curvature
from tandemrec.selection.influence import InfluenceConfig, influence
from tandemrec.selection.solver import ConjugateGradientsConfig, LissaConfig, conjugate_gradients
from tandemrec.selection.surrogate import Samples, Surrogate, SurrogateConfig
from tests.selection.conftest import LONGEST, random_examples

LAST = "blocks.1.out.weight"
EXACT = ConjugateGradientsConfig(tolerance=1e-12, max_iterations=2000)


class Slow:
    """The same loss written sample by sample and position by position."""

    def __init__(self, surrogate: Surrogate, examples: Examples, samples: Samples) -> None:
        self.network, self.config, self.samples = surrogate.network, surrogate.config, samples
        own = [t[:1].tolist() if self.config.own_target else [] for t in examples.target]
        rows = [h.tolist() + t for h, t in zip(examples.history, own, strict=True)]
        self.rows = [row[-(LONGEST + 1) :] for row in rows]

    def scores(self, parameters: dict[str, Tensor], s: int) -> list[tuple[Tensor, list[int]]]:
        """Of every target: scores of all items, and (target, negatives)."""
        row, out = self.rows[s], []
        whole = dict(self.network.named_parameters()) | parameters
        first = len(row) - 1 if self.config.positions == "last" else 1
        start = int(self.samples.counts[:s].sum())
        for t in range(max(first, 1), len(row)):
            hidden = functional_call(self.network, whole, (torch.tensor([row[:t]]),))[0, -1]
            drawn = [] if self.samples.negatives is None else self.samples.negatives[start].tolist()
            out.append((whole["item.weight"] @ hidden, [row[t], *drawn]))
            start += 1
        return out

    def loss(self, parameters: dict[str, Tensor], s: int) -> Tensor:
        losses = []
        for scores, items in self.scores(parameters, s):
            if self.config.loss == "softmax":
                losses.append(-scores.log_softmax(0)[items[0]])
            else:
                negative = sum(-torch.log(1 - scores[i].sigmoid()) for i in items[1:]) / len(items[1:])
                losses.append(-torch.log(scores[items[0]].sigmoid()) + negative)
        return sum(losses, torch.zeros((), dtype=torch.float64)) / max(len(losses), 1)

    def solve(self, names: list[str], kind: str, damping: float) -> np.ndarray:
        """1/n ∇L(s)ᵀ (H + μI)⁻¹ v with everything explicit."""
        shapes = [dict(self.network.named_parameters())[name].shape for name in names]
        start = torch.cat([dict(self.network.named_parameters())[name].detach().flatten() for name in names])

        def named(flat: Tensor) -> dict[str, Tensor]:
            pieces = flat.split([shape.numel() for shape in shapes])
            return {name: piece.view(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}

        n = len(self.rows)
        gradients = torch.stack([jacrev(lambda p, s=s: self.loss(named(p), s))(start) for s in range(n)])
        if kind == "hessian":
            total = lambda p: sum(self.loss(named(p), s) for s in range(n)) / n  # noqa: E731
            steps = 1e-5 * torch.eye(len(start), dtype=torch.float64)
            matrix = torch.stack([gradient(total, start + e) - gradient(total, start - e) for e in steps]) / 2e-5
        else:
            matrix = sum((self._gauss_newton(named, start, s) for s in range(n)), torch.zeros(())) / n
        v = gradients.mean(0)
        h = torch.linalg.solve(matrix + damping * torch.eye(len(start), dtype=torch.float64), v)
        return (gradients @ h / n).detach().numpy()

    def _gauss_newton(self, named: Any, start: Tensor, s: int) -> Tensor:
        total = torch.zeros(len(start), len(start), dtype=torch.float64)
        if not self.scores(named(start), s):
            return total
        jacobians = jacrev(lambda p: [scores for scores, _ in self.scores(named(p), s)])(start)
        for jacobian, (scores, items) in zip(jacobians, self.scores(named(start), s), strict=True):
            if self.config.loss == "softmax":
                p = scores.softmax(0)
                bend = torch.diag(p) - torch.outer(p, p)
                total += jacobian.T @ bend @ jacobian / len(jacobians)
            else:
                slope = scores.sigmoid() * (1 - scores.sigmoid())
                for place, item in enumerate(items):
                    share = 1.0 if place == 0 else 1 / len(items[1:])
                    total += share * slope[item] * torch.outer(jacobian[item], jacobian[item]) / len(jacobians)
        return total.detach()


def gradient(function: Any, point: Tensor) -> Tensor:
    point = point.clone().requires_grad_()
    return torch.autograd.grad(function(point), point)[0]


def check(network: SASRecModule, examples: Examples, names: list[str], kind: Any, **settings: Any) -> None:
    surrogate = Surrogate(network, LONGEST, SurrogateConfig(**settings))
    block = BlockConfig(parameters="modules", modules=tuple(names))
    config = InfluenceConfig(block=block, curvature=kind, damping=0.5, solver=EXACT)
    found = influence(surrogate, examples, config, seed=3)
    names = list(Block.of(network, block).names)
    expected = Slow(surrogate, examples, surrogate.samples(examples, 3)).solve(names, kind, 0.5)
    assert found.solution.residual < 1e-8
    np.testing.assert_allclose(found.scores, expected, rtol=1e-4, atol=1e-10 * np.abs(expected).max())
    assert np.abs(expected).max() > 0


@pytest.mark.parametrize("kind", ["hessian", "gauss-newton"])
@pytest.mark.parametrize("loss", ["bce", "softmax"])
def test_last_projection_equals_brute_force(network: SASRecModule, examples: Examples, kind: str, loss: str) -> None:
    check(network, examples, [LAST], kind, loss=loss, negatives=2, micro_batch_tokens=7)


@pytest.mark.parametrize("settings", [{"positions": "last"}, {"own_target": False}])
def test_other_losses_equal_brute_force(network: SASRecModule, examples: Examples, settings: dict[str, Any]) -> None:
    check(network, examples, [LAST], "gauss-newton", **settings)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["blocks.1.first", "blocks.1.second"], "gauss-newton"),  # linear maps with biases: contraction
        (["blocks.1.forward_norm", "blocks.0.query"], "gauss-newton"),  # forward mode, through attention
        (["blocks.1.attention_norm", "last_norm"], "hessian"),
        (["position"], "gauss-newton"),
    ],
)
def test_any_block_equals_brute_force(network: SASRecModule, examples: Examples, names: list[str], kind: str) -> None:
    check(network, examples, names, kind)


def test_blocks_by_name(network: SASRecModule) -> None:
    assert Block.of(network, BlockConfig()).names == (LAST,)
    names = {name for name, _ in network.named_parameters()}
    assert set(Block.of(network, BlockConfig(parameters="all")).names) == names
    tables = {"item.weight", "position.weight"}
    assert set(Block.of(network, BlockConfig(parameters="non-embedding")).names) == names - tables
    with pytest.raises(InputError, match=r"no 'blocks\.7'"):
        Block.of(network, BlockConfig(parameters="modules", modules=("blocks.7",)))
    with pytest.raises(InputError, match="name the block by 'modules'"):
        Block.of(nn.Linear(2, 2), BlockConfig())


@pytest.mark.parametrize("parameters", ["non-embedding", "all"])
def test_large_blocks_are_solved(network: SASRecModule, examples: Examples, parameters: Any) -> None:
    config = InfluenceConfig(block=BlockConfig(parameters=parameters), damping=0.5, solver=EXACT)
    found = influence(Surrogate(network, LONGEST, SurrogateConfig()), examples, config)
    assert found.parameters == Block.of(network, config.block).size
    assert found.solution.residual < 1e-8
    assert found.solution.iterations < 400


class Linear(nn.Module):
    """Multinomial logistic regression of the next item on fixed features of the last one: convex in its table."""

    def __init__(self, n_items: int, dim: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.features = torch.randn(n_items, dim, generator=generator, dtype=torch.float64)
        self.table = nn.Parameter(torch.zeros(n_items, dim, dtype=torch.float64))

    def states(self, rows: Ragged) -> Tensor:
        return self.features[torch.from_numpy(rows.flat().astype(np.int64))]

    def last(self, rows: Ragged) -> Tensor:
        return self.states(rows.tail(1))

    def item_table(self) -> Tensor:
        return self.table

    def item_bias(self) -> None:
        return None


def fit(pairs: Tensor, network: Linear, decay: float, n: int) -> None:
    """Minimise 1/n Σ loss + decay/2 ‖W‖² to the last digit."""
    optimizer = torch.optim.LBFGS([network.table], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(network.features[pairs[:, 0]] @ network.table.T, pairs[:, 1], reduction="sum") / n
        loss = loss + decay / 2 * network.table.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]


def test_leave_one_out_retraining_of_a_convex_model() -> None:
    rng, n, n_items, decay = np.random.default_rng(1), 80, 6, 0.2
    pairs = torch.from_numpy(rng.integers(n_items, size=(n, 2)))
    mean_loss = lambda net: F.cross_entropy(net.features[pairs[:, 0]] @ net.table.T, pairs[:, 1]).item()  # noqa: E731
    network = Linear(n_items, 4)
    fit(pairs, network, decay, n)
    history = Ragged.from_lists(pairs[:, :1].tolist())
    examples = Examples(
        np.arange(n, dtype=np.int32), history, Ragged.from_lists(pairs[:, 1:].tolist()), history, np.zeros(n, np.int64)
    )
    config = InfluenceConfig(block=BlockConfig(parameters="all"), curvature="hessian", damping=decay, solver=EXACT)
    surrogate = Surrogate(network, 5, SurrogateConfig(loss="softmax"))
    predicted = influence(surrogate, examples, config).scores
    actual = []
    for left_out in range(n):
        again = Linear(n_items, 4)
        fit(pairs[torch.arange(n) != left_out], again, decay, n)
        actual.append(mean_loss(again) - mean_loss(network))
    assert spearmanr(predicted, actual).statistic >= 0.95
    np.testing.assert_allclose(predicted, actual, rtol=0.5, atol=0.2 * np.abs(actual).max())


def test_published_mode_ignores_short_histories(network: SASRecModule) -> None:
    history = Ragged.from_lists([[], [1], [1, 2], [3, 4, 5]])
    examples = Examples(
        np.arange(4, dtype=np.int32), history, Ragged.from_lists([[6]] * 4), history, np.zeros(4, np.int64)
    )
    without = influence(Surrogate(network, LONGEST, SurrogateConfig(own_target=False)), examples, InfluenceConfig())
    assert (without.scores == 0).tolist() == [True, True, False, False]
    with_own = influence(Surrogate(network, LONGEST, SurrogateConfig()), examples, InfluenceConfig())
    assert (with_own.scores == 0).tolist() == [True, False, False, False]


def test_negatives_are_fixed_and_unmet(network: SASRecModule) -> None:
    examples = random_examples(50, seed=2)
    surrogate = Surrogate(network, LONGEST, SurrogateConfig(negatives=3))
    samples = surrogate.samples(examples, 9)
    assert samples.negatives is not None
    np.testing.assert_array_equal(samples.negatives, surrogate.samples(examples, 9).negatives)  # type: ignore[arg-type]
    owner = np.repeat(np.arange(50), samples.counts)
    for place, s in enumerate(owner):
        met = {*examples.history[s].tolist(), *examples.target[s].tolist()}
        assert not met & set(samples.negatives[place].tolist())


def test_risk_of_others_and_removal_of_all(network: SASRecModule, examples: Examples) -> None:
    """Influence on another risk uses its gradient; with itself as that risk nothing changes."""
    surrogate = Surrogate(network, LONGEST, SurrogateConfig(loss="softmax"))
    config = InfluenceConfig(solver=EXACT)
    own = influence(surrogate, examples, config).scores
    np.testing.assert_allclose(influence(surrogate, examples, config, risk=examples).scores, own)
    other = influence(surrogate, examples, config, risk=random_examples(9, seed=4)).scores
    assert not np.allclose(own, other)


def test_lissa_comes_near_conjugate_gradients(network: SASRecModule, examples: Examples) -> None:
    surrogate = Surrogate(network, LONGEST, SurrogateConfig())
    exact = influence(surrogate, examples, InfluenceConfig(damping=0.25, curvature="gauss-newton"))
    recursion = LissaConfig(steps=200)
    near = influence(surrogate, examples, InfluenceConfig(solver=recursion, curvature="gauss-newton"))
    assert near.solution.damping == pytest.approx(0.25)
    assert spearmanr(exact.scores, near.scores).statistic > 0.8
    assert exact.solution.residual < 1e-5 < near.solution.residual < 1


@pytest.mark.parametrize("positions", ["all", "last"])
def test_kept_factors_change_nothing(network: SASRecModule, positions: Any) -> None:
    """A room for none, some or all of the factors, and a network whose positions are mixed further up."""
    examples, found = random_examples(40), []
    surrogate = Surrogate(network, LONGEST, SurrogateConfig(negatives=2, micro_batch_tokens=20, positions=positions))
    block, samples = Block.of(network, BlockConfig()), surrogate.samples(examples, 0)
    for room in (0, 20_000, 1 << 30):
        curvature = Curvature(surrogate, block, samples, "gauss-newton", room)
        assert curvature.factored
        v = curvature.gradient()
        found.append(torch.cat([v, curvature.product(v), torch.from_numpy(curvature.directional(v))]))
        assert 0 <= curvature.room <= room
        assert (curvature.room < room) == (room > 0)
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])
    streamed = Curvature(surrogate, block, samples, "gauss-newton")
    streamed._linear = None
    v = streamed.gradient()
    again = torch.cat([v, streamed.product(v), torch.from_numpy(streamed.directional(v))])
    torch.testing.assert_close(found[0], again)


def test_positions_that_mix_have_no_factors(network: SASRecModule, examples: Examples) -> None:
    surrogate = Surrogate(network, LONGEST, SurrogateConfig())
    block = Block.of(network, BlockConfig(parameters="modules", modules=("blocks.0.out.weight",)))
    assert not Curvature(surrogate, block, surrogate.samples(examples, 0), "gauss-newton").factored
    check(network, examples, ["blocks.0.out.weight"], "gauss-newton")


def test_mean_diagonal_damping_follows_the_trace(network: SASRecModule, examples: Examples) -> None:
    surrogate = Surrogate(network, LONGEST, SurrogateConfig())
    block = Block.of(network, BlockConfig())
    curvature = Curvature(surrogate, block, surrogate.samples(examples, 0), "gauss-newton")
    unit = torch.eye(block.size, dtype=torch.float64)
    diagonal = np.mean([float(curvature.product(unit[i])[i]) for i in range(block.size)])
    assert curvature.mean_diagonal(probes=100, seed=0) == pytest.approx(diagonal, rel=0.2)
    config = InfluenceConfig(damping=2.0, damping_unit="mean-diagonal")
    used = influence(surrogate, examples, config).solution.damping
    assert used == pytest.approx(2 * curvature.mean_diagonal(probes=4, seed=0))


def test_negative_curvature_is_refused() -> None:
    matrix = torch.diag(torch.tensor([1.0, -2.0], dtype=torch.float64))
    with pytest.raises(InputError, match="gauss-newton"):
        conjugate_gradients(lambda v: matrix @ v, torch.ones(2, dtype=torch.float64), 0.1, EXACT)


def test_of_a_fitted_model() -> None:
    with pytest.raises(RuntimeError, match="SASRec must be fitted"):
        Surrogate.of(SASRec(SASRecConfig()))
