"""Gradient and curvature of the empirical risk of a surrogate, streamed over batches.

The risk is L(θ) = 1/n Σ_s L_s(θ), L_s the mean loss of the targets of sample s; samples without targets count in n.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from tandemrec.selection.block import Block
from tandemrec.selection.directional import directional_losses
from tandemrec.selection.factors import Factors, factored_map, factors_of
from tandemrec.selection.forward_mode import along_direction
from tandemrec.selection.selector import FloatArray
from tandemrec.selection.surrogate import Batch, Samples, Surrogate

CurvatureKind = Literal["gauss-newton", "hessian"]


class Curvature:
    """Gradients of the risk and products of a parameter vector with its Hessian, or with its Gauss–Newton part.

    From batch to batch nothing is kept but sums and, where the block is a linear map that `factors` knows, its factors
    up to `cache_bytes`; what does not fit is computed again. So memory does not grow with the number of samples.
    """

    def __init__(
        self, surrogate: Surrogate, block: Block, samples: Samples, kind: CurvatureKind, cache_bytes: int = 0
    ) -> None:
        self.surrogate, self.block, self.samples, self.kind = surrogate, block, samples, kind
        self.groups = surrogate.groups(samples)
        self.room = cache_bytes
        self._cache: dict[int, Factors] = {}
        self._linear = factored_map(surrogate, block)
        if self._linear is not None and self.groups:
            longest = surrogate.batch(samples, self.groups[-1])
            if factors_of(surrogate, self._linear, block, longest, check=True) is None:
                self._linear = None

    @property
    def factored(self) -> bool:
        """Whether the block's gradients are known as sums of outer products, see `factors`."""
        return self._linear is not None

    def gradient(self) -> Tensor:
        """∇L, (P,) float64."""
        total = self._zero()
        for number in range(len(self.groups)):
            part = self._factors(number)
            total += self._gradient(self._batch(number)) if part is None else self.block.flat([part.gradient()]).cpu()
        return total / len(self.samples)

    def product(self, vector_P: Tensor) -> Tensor:
        """H·v, (P,) float64; with `gauss-newton` Σ Jᵀ ∇²ℓ J v, which is never indefinite."""
        total, direction = self._zero(), list(self._named(vector_P).values())
        for number in range(len(self.groups)):
            part = self._factors(number) if self.kind == "gauss-newton" else None
            if part is None:
                total += self.batch_product(self._batch(number), vector_P)
            else:
                total += self.block.flat([part.product(direction[0])]).cpu()
        return total / len(self.samples)

    def directional(self, vector_P: Tensor) -> FloatArray:
        """hᵀ∇L(s) of every sample, (S,), in one pass; 0 for samples without targets."""
        scores, direction = np.zeros(len(self.samples)), self._named(vector_P)
        for number, group in enumerate(self.groups):
            part = self._factors(number)
            if part is None:
                values = directional_losses(self.surrogate, self.block, self._batch(number), direction)
            else:
                values = part.directional(next(iter(direction.values())))
            scores[group] = values.double().cpu().numpy()
        return scores

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
        return self.block.flat(product).cpu()

    def _gradient(self, batch: Batch) -> Tensor:
        chosen, fixed = self.block.divide(self.surrogate.network)
        values = tuple(chosen.values())
        loss = self.surrogate.losses(self.surrogate.scores(batch, chosen | fixed), batch) @ batch.weight_N
        return self.block.flat(torch.autograd.grad(loss, values, materialize_grads=True)).cpu()

    def _factors(self, number: int) -> Factors | None:
        """Of a group; kept while there is room. None where there are none."""
        if self._linear is None or number in self._cache:
            return self._cache.get(number)
        part = factors_of(self.surrogate, self._linear, self.block, self._batch(number), check=False)
        if part is not None and part.size() <= self.room:
            self._cache[number] = part
            self.room -= part.size()
        return part

    def _batch(self, number: int) -> Batch:
        return self.surrogate.batch(self.samples, self.groups[number])

    def _named(self, vector_P: Tensor) -> dict[str, Tensor]:
        return self.block.tensors(vector_P, self.surrogate.sequence_network.item_table())

    def _zero(self) -> Tensor:
        return torch.zeros(self.block.size, dtype=torch.float64)
