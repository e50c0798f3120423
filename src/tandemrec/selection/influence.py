"""Influence of training samples on the empirical risk of a surrogate (DEALRec, eq. 3–6)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tandemrec.data.examples import Examples
from tandemrec.recommender import Config
from tandemrec.selection.block import Block, BlockConfig
from tandemrec.selection.curvature import Curvature, CurvatureKind
from tandemrec.selection.selector import FloatArray
from tandemrec.selection.solver import (
    ConjugateGradientsConfig,
    LissaConfig,
    Solution,
    conjugate_gradients,
    lissa,
)
from tandemrec.selection.surrogate import Surrogate

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

    cache_mebibytes: int = Field(512, ge=0)
    """Most memory for what is kept of every position from product to product; the rest is computed again. 0: nothing
    is kept."""


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
    curvature = Curvature(surrogate, block, samples, config.curvature, config.cache_mebibytes << 20)
    if risk is None:
        gradient = curvature.gradient()
    else:
        gradient = Curvature(surrogate, block, surrogate.samples(risk, seed), config.curvature).gradient()
    lap("gradient")
    solution = _solve(curvature, gradient, config, seed)
    lap("solve")
    scores = curvature.directional(solution.vector_P) / len(samples)
    lap("scores")
    return Influence(scores, solution, block.size, seconds)


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
