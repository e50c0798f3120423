"""Influence of training samples on the empirical risk of a surrogate (DEALRec, eq. 3–6)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from tandemrec.data.examples import Examples
from tandemrec.recommender import Config
from tandemrec.selection.block import Block, BlockConfig
from tandemrec.selection.capture import captured
from tandemrec.selection.curvature import Curvature, CurvatureKind
from tandemrec.selection.forward_mode import along_direction
from tandemrec.selection.selector import FloatArray
from tandemrec.selection.solver import (
    ConjugateGradientsConfig,
    LissaConfig,
    Solution,
    conjugate_gradients,
    lissa,
)
from tandemrec.selection.surrogate import Batch, Samples, Surrogate

SolverConfig = Annotated[ConjugateGradientsConfig | LissaConfig, Field(discriminator="method")]


class InfluenceConfig(Config):
    """How influence is computed."""

    block: BlockConfig = BlockConfig()
    """Parameters that are thought to react to a sample's removal."""

    curvature: CurvatureKind = "gauss-newton"
    """The Hessian, or its Gauss–Newton part: the same at a perfect fit, and never indefinite."""

    damping: float = Field(0.25, ge=0)
    """μ added to the curvature's diagonal; .25 is what the published recursion amounts to. LiSSA brings its own."""

    damping_unit: Literal["absolute", "mean-diagonal"] = "absolute"
    """`mean-diagonal`: μ is `damping` times the mean diagonal entry, so it follows the scale of the loss."""

    solver: SolverConfig = ConjugateGradientsConfig()
    """How (H + μI)⁻¹ v is found."""


@dataclass(frozen=True)
class Influence:
    """Influence of B samples.

    Attributes:
        scores: (B,) predicted change of the risk when the sample is removed from training: 1/n ∇L(s)ᵀ (H + μI)⁻¹ v.
        solution: the solver's vector, iterations, residual and damping.
        parameters: size P of the block.
        seconds: of gradient, solve and scores.
    """

    scores: FloatArray
    solution: Solution
    parameters: int
    seconds: dict[str, float]


def influence(
    surrogate: Surrogate,
    examples: Examples,
    config: InfluenceConfig,
    seed: int = 0,
    risk: Examples | None = None,
) -> Influence:
    """Influence of every example on the mean loss of `risk` (of the examples themselves, if None).

    Args:
        surrogate: trained on the examples.
        examples: B training samples; their losses give the curvature.
        config: block, curvature, damping, solver.
        seed: of negatives and of a solver that draws.
        risk: examples whose mean loss counts instead.

    Raises:
        InputError: if there is no such block, the curvature is indefinite, or the solver diverges.
    """
    seconds, begin = {}, time.perf_counter()

    def lap(name: str) -> None:
        nonlocal begin
        seconds[name], begin = time.perf_counter() - begin, time.perf_counter()

    samples = surrogate.samples(examples, seed)
    block = Block.of(surrogate.network, config.block)
    curvature = Curvature(surrogate, block, samples, config.curvature)
    judged = samples if risk is None else surrogate.samples(risk, seed)
    gradient = Curvature(surrogate, block, judged, config.curvature).gradient()
    lap("gradient")
    solution = _solve(curvature, gradient, config, seed)
    lap("solve")
    scores = directional(surrogate, block, samples, solution.vector_P) / len(samples)
    lap("scores")
    return Influence(scores, solution, block.size, seconds)


def directional(surrogate: Surrogate, block: Block, samples: Samples, vector_P: Tensor) -> FloatArray:
    """hᵀ∇L(s) of every sample, (S,), in one pass; 0 for samples without targets.

    Where all of the block lies in linear maps that see one row a sample, Σ_t δ_tᵀ h c_t from one backward pass for the
    whole batch; else the forward-mode derivative of all losses in the direction h.
    """
    total = torch.zeros(len(samples), dtype=torch.float64)
    linear = linear_maps(surrogate.network, block)
    for batch in surrogate.batches(samples):
        values = _contracted(surrogate, block, linear, batch, vector_P) if linear else None
        if values is None:
            values = _forward_mode(surrogate, block, batch, vector_P)
        total[batch.samples.cpu()] = values.double().cpu()
    return total.numpy()


def linear_maps(network: nn.Module, block: Block) -> dict[str, nn.Linear]:
    """The linear maps that hold the block, by name; none if some of it lies elsewhere."""
    found = {}
    modules = dict(network.named_modules())
    for name in block.names:
        owner = modules[name.rpartition(".")[0]]
        if not isinstance(owner, nn.Linear):
            return {}
        found[name.rpartition(".")[0]] = owner
    return found


def _contracted(
    surrogate: Surrogate, block: Block, linear: dict[str, nn.Linear], batch: Batch, vector_P: Tensor
) -> Tensor | None:
    """None if a map was not called with one row a sample."""
    chosen, fixed = block.divide(surrogate.network)
    with captured(list(linear.values())) as calls:
        losses = surrogate.losses(surrogate.scores(batch, chosen | fixed), batch)
    n = len(batch.samples)
    if {call.module for call in calls} != set(linear.values()) or any(len(call.input) != n for call in calls):
        return None
    slopes = torch.autograd.grad(losses @ batch.weight_N, [call.output for call in calls])
    direction = block.tensors(vector_P, losses)
    names = {module: name for name, module in linear.items()}
    total = losses.new_zeros(n)
    for call, slope in zip(calls, slopes, strict=True):
        weight, bias = (direction.get(f"{names[call.module]}.{part}") for part in ("weight", "bias"))  # type: ignore[index]
        if weight is not None:
            total += (slope * (call.input.detach() @ weight.T)).flatten(1).sum(1)
        if bias is not None:
            total += (slope * bias).flatten(1).sum(1)
    return total


def _forward_mode(surrogate: Surrogate, block: Block, batch: Batch, vector_P: Tensor) -> Tensor:
    fixed = {name: parameter.detach() for name, parameter in surrogate.network.named_parameters()}
    point = {name: fixed.pop(name) for name in block.names}
    direction = block.tensors(vector_P, next(iter(point.values())))
    with torch.no_grad():
        _, change_N = along_direction(
            lambda duals: surrogate.losses(surrogate.scores(batch, fixed | duals), batch), point, direction
        )
    total = change_N.new_zeros(len(batch.samples))
    return total.index_add(0, batch.owner_N, change_N * batch.weight_N)


def _solve(curvature: Curvature, gradient_P: Tensor, config: InfluenceConfig, seed: int) -> Solution:
    if isinstance(config.solver, LissaConfig):
        return lissa(
            _sample_product(curvature), curvature.product, gradient_P, len(curvature.samples), config.solver, seed
        )
    damping = config.damping
    if config.damping_unit == "mean-diagonal":
        damping *= curvature.mean_diagonal(probes=4, seed=seed)
    return conjugate_gradients(curvature.product, gradient_P, damping, config.solver)


def _sample_product(curvature: Curvature) -> Callable[[int, Tensor], Tensor]:
    def product(sample: int, vector_P: Tensor) -> Tensor:
        if not curvature.samples.counts[sample]:
            return torch.zeros_like(vector_P)
        batch = curvature.surrogate.batch(curvature.samples, np.array([sample]))
        return curvature.batch_product(batch, vector_P).cpu()

    return product
