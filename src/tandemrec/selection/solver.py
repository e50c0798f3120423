"""Solvers of (H + μI) h = v that only ever multiply by H."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tandemrec.errors import InputError
from tandemrec.recommender import Config

Product = Callable[[Tensor], Tensor]


class ConjugateGradientsConfig(Config):
    """Full-batch products until the residual is small."""

    method: Literal["conjugate-gradients"] = "conjugate-gradients"
    """Which solver this is."""

    tolerance: float = Field(1e-6, gt=0, lt=1)
    """Stop when ‖v − (H + μI)h‖ / ‖v‖ is below it."""

    max_iterations: int = Field(200, ge=1)
    """Most products."""


class LissaConfig(Config):
    """The recursion h ← v + (1 − damp)·h − H_s h / scale over random samples s; its fixed point is
    scale · (H + scale·damp·I)⁻¹ v, so the effective damping is scale · damp.

    The paper has neither damp nor scale (0 and 1), its code .01 and 25. The iterate remembers about 1 / damp samples
    and does not come nearer to the solution than their noise, however many steps it takes.
    """

    method: Literal["lissa"] = "lissa"
    """Which solver this is."""

    steps: int = Field(5000, ge=1)
    """Steps T."""

    scale: float = Field(25.0, gt=0)
    """Divides the Hessian, so that the recursion contracts."""

    damp: float = Field(0.01, ge=0, lt=1)
    """Share of h that is forgotten in a step."""


@dataclass(frozen=True)
class Solution:
    """What a solver found.

    Attributes:
        vector_P: h.
        iterations: products used, or steps of the recursion.
        residual: ‖v − (H + μI)h‖ / ‖v‖ by one more product with the full H.
        damping: μ.
    """

    vector_P: Tensor
    iterations: int
    residual: float
    damping: float


def conjugate_gradients(
    product: Product, gradient_P: Tensor, damping: float, config: ConjugateGradientsConfig
) -> Solution:
    """Solve by conjugate gradients, in float64 whatever the products are computed in.

    Raises:
        InputError: if H + μI turns out to be indefinite, so that there is no minimum to speak of.
    """
    solution, residual = torch.zeros_like(gradient_P), gradient_P.clone()
    direction, norm = residual.clone(), float(gradient_P.norm())
    iterations, square = 0, float(residual @ residual)
    while iterations < config.max_iterations and square**0.5 > config.tolerance * norm:
        bent = product(direction) + damping * direction
        curvature = float(direction @ bent)
        if curvature <= 0:
            raise InputError(
                f"key 'damping': the Hessian has curvature below −{damping:g} in some direction; raise the damping or "
                "use the curvature 'gauss-newton'"
            )
        step = square / curvature
        solution += step * direction
        residual -= step * bent
        before, square = square, float(residual @ residual)
        direction = residual + square / before * direction
        iterations += 1
    return Solution(solution, iterations, _residual(product, solution, gradient_P, damping), damping)


def lissa(
    sample_product: Callable[[int, Tensor], Tensor],
    product: Product,
    gradient_P: Tensor,
    n_samples: int,
    config: LissaConfig,
    seed: int,
) -> Solution:
    """The stochastic recursion, one random sample a step; the result is divided by the scale, so that it estimates the
    same h as conjugate gradients at damping scale · damp.

    Raises:
        InputError: if it diverges.
    """
    estimate = gradient_P.clone()
    for sample in np.random.default_rng(seed).integers(n_samples, size=config.steps).tolist():
        estimate = gradient_P + (1 - config.damp) * estimate - sample_product(sample, estimate) / config.scale
    if not bool(torch.isfinite(estimate).all()):
        raise InputError(f"key 'solver.scale': the recursion diverged at scale {config.scale:g}; raise it")
    damping = config.scale * config.damp
    estimate /= config.scale
    return Solution(estimate, config.steps, _residual(product, estimate, gradient_P, damping), damping)


def _residual(product: Product, solution_P: Tensor, gradient_P: Tensor, damping: float) -> float:
    norm = float(gradient_P.norm())
    return float((gradient_P - product(solution_P) - damping * solution_P).norm()) / norm if norm else 0.0
