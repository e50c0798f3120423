"""Gradient and curvature of the empirical risk of a surrogate, streamed over batches.

The risk is L(θ) = 1/n Σ_s L_s(θ), L_s the mean loss of the targets of sample s; samples without targets count in n.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from tandemrec.selection.block import Block
from tandemrec.selection.forward_mode import along_direction
from tandemrec.selection.surrogate import Batch, Samples, Surrogate

CurvatureKind = Literal["gauss-newton", "hessian"]


class Curvature:
    """Products of a parameter vector with the Hessian of the risk, or with its Gauss–Newton part.

    Nothing is kept from batch to batch but the sum, so memory does not grow with the number of samples.
    """

    def __init__(self, surrogate: Surrogate, block: Block, samples: Samples, kind: CurvatureKind) -> None:
        self.surrogate, self.block, self.samples, self.kind = surrogate, block, samples, kind

    def gradient(self) -> Tensor:
        """∇L, (P,) float64."""
        return self._mean(self._gradient(batch) for batch in self.surrogate.batches(self.samples))

    def product(self, vector_P: Tensor) -> Tensor:
        """H·v, (P,) float64; with `gauss-newton` Σ Jᵀ ∇²ℓ J v, which is never indefinite."""
        return self._mean(self.batch_product(batch, vector_P) for batch in self.surrogate.batches(self.samples))

    def mean_diagonal(self, probes: int, seed: int) -> float:
        """Trace / P, estimated from random signs (Hutchinson)."""
        generator = torch.Generator().manual_seed(seed)
        total = 0.0
        for _ in range(probes):
            signs = torch.randint(0, 2, (self.block.size,), generator=generator).double() * 2 - 1
            total += float(signs @ self.product(signs))
        return total / probes / self.block.size

    def batch_product(self, batch: Batch, vector_P: Tensor) -> Tensor:
        """The product with the curvature of the *sum* of the losses of a batch's samples, (P,) float64."""
        chosen, fixed = self.block.divide(self.surrogate.network)
        names, values = self.block.names, tuple(chosen.values())
        direction = self.block.tensors(vector_P, values[0])
        with sdpa_kernel(SDPBackend.MATH):
            if self.kind == "hessian":
                scores = self.surrogate.scores(batch, chosen | fixed)
                loss = self.surrogate.losses(scores, batch) @ batch.weight_N
                slope = torch.autograd.grad(loss, values, create_graph=True, materialize_grads=True)
                along = sum(((s * direction[name]).sum() for name, s in zip(names, slope, strict=True)), loss * 0)
                product = torch.autograd.grad(along, values, materialize_grads=True)
            else:
                scores, change = along_direction(
                    lambda duals: self.surrogate.scores(batch, duals | fixed), chosen, direction
                )
                bent = self.surrogate.curvature(scores.detach(), change.detach(), batch) * batch.weight_N[:, None]
                product = torch.autograd.grad(scores, values, bent, materialize_grads=True)
        return self.block.flat(product)

    def _gradient(self, batch: Batch) -> Tensor:
        chosen, fixed = self.block.divide(self.surrogate.network)
        values = tuple(chosen.values())
        loss = self.surrogate.losses(self.surrogate.scores(batch, chosen | fixed), batch) @ batch.weight_N
        return self.block.flat(torch.autograd.grad(loss, values, materialize_grads=True))

    def _mean(self, parts: Iterable[Tensor]) -> Tensor:
        total = torch.zeros(self.block.size, dtype=torch.float64)
        for part in parts:
            total += part.cpu()
        return total / len(self.samples)
