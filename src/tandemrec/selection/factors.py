"""The gradient of a linear map's weight as a sum of outer products, one a position, kept from pass to pass.

Where all that follows a linear map z_t = W c_t works position by position (a last attention's output projection, with
its residual, feed-forward net and norms), every score k of position t has the weight gradient g_{kt} c_tᵀ with
g_{kt} = ∂f_{kt}/∂z_t. Gradients, Gauss–Newton products and influence are then sums over c and g alone, and the network
is run once: v = Σ w ℓ' g cᵀ, (J ᵀ∇²ℓ J) V = Σ w ℓ'' (gᵀ V c) g cᵀ, hᵀ∇L(s) = Σ w ℓ' gᵀ h c.

N positions, K scores of a position, I inputs and O outputs of the map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tandemrec.selection.block import Block
from tandemrec.selection.capture import captured
from tandemrec.selection.surrogate import Batch, Surrogate

MOST_SCORES = 8
"""Each score of a position takes a backward pass and a vector; with more of them (full softmax) nothing is gained."""


@dataclass(frozen=True)
class Factors:
    """Of one batch.

    Attributes:
        input_NI: c.
        slope_KNO: g.
        first_KN: w ℓ', the weighted first derivative of the loss by each score.
        second_KN: w ℓ''; the losses are sums over scores, so there are no mixed derivatives.
        owner_N: which of the batch's samples a position belongs to.
        samples_B: their numbers.
    """

    input_NI: Tensor
    slope_KNO: Tensor
    first_KN: Tensor
    second_KN: Tensor
    owner_N: Tensor
    samples_B: Tensor

    def size(self) -> int:
        """Bytes."""
        return sum(tensor.nbytes for tensor in vars(self).values())

    def gradient(self) -> Tensor:
        """Σ w ℓ' g cᵀ, (O, I)."""
        return (self.first_KN[:, :, None] * self.slope_KNO).sum(0).T @ self.input_NI

    def product(self, matrix_OI: Tensor) -> Tensor:
        """Σ w ℓ'' (gᵀ V c) g cᵀ, (O, I)."""
        scale_KN = self.second_KN * self._along(matrix_OI)
        return (scale_KN[:, :, None] * self.slope_KNO).sum(0).T @ self.input_NI

    def directional(self, matrix_OI: Tensor) -> Tensor:
        """Σ w ℓ' gᵀ h c over the positions of each sample, (B,)."""
        values_N = (self.first_KN * self._along(matrix_OI)).sum(0)
        return values_N.new_zeros(len(self.samples_B)).index_add(0, self.owner_N, values_N)

    def _along(self, matrix_OI: Tensor) -> Tensor:
        """gᵀ V c, (K, N)."""
        return torch.einsum("kno,no->kn", self.slope_KNO, self.input_NI @ matrix_OI.T)


def factored_map(surrogate: Surrogate, block: Block) -> nn.Linear | None:
    """The linear map, if the block is the weight of one and the loss looks at few scores; None otherwise."""
    if len(block.names) != 1 or surrogate.config.loss != "bce" or surrogate.config.negatives + 1 > MOST_SCORES:
        return None
    owner, _, own = block.names[0].rpartition(".")
    module = surrogate.network.get_submodule(owner)
    return module if isinstance(module, nn.Linear) and own == "weight" else None


def factors_of(surrogate: Surrogate, linear: nn.Linear, block: Block, batch: Batch, *, check: bool) -> Factors | None:
    """The factors of a batch; None where the map is not called once, or what follows mixes positions.

    Args:
        surrogate: the network and its loss.
        linear: the map.
        block: its weight.
        batch: samples.
        check: make sure that positions do not mix, by slopes with random signs; once is enough for a network.
    """
    chosen, fixed = block.divide(surrogate.network)
    with captured([linear]) as calls:
        scores_NK = surrogate.scores(batch, chosen | fixed)
    if len(calls) != 1:
        return None
    call, n = calls[0], len(scores_NK)
    slopes = [torch.autograd.grad(scores_K.sum(), call.output, retain_graph=True)[0] for scores_K in scores_NK.T]
    used = torch.stack([slope.flatten(0, -2).abs().sum(1) for slope in slopes]).sum(0) > 0
    if int(used.sum()) != n:
        return None
    slope_KNO = torch.stack([slope.flatten(0, -2)[used] for slope in slopes])
    if check:
        generator = torch.Generator().manual_seed(0)
        sign_N = (torch.randint(0, 2, (n,), generator=generator) * 2 - 1).to(scores_NK)
        (signed,) = torch.autograd.grad((scores_NK[:, 0] * sign_N).sum(), call.output, retain_graph=True)
        expected_NO = slope_KNO[0] * sign_N[:, None]
        tolerance = 1e-5 * float(expected_NO.abs().max())
        if not torch.allclose(signed.flatten(0, -2)[used], expected_NO, rtol=1e-3, atol=tolerance):
            return None
    scores_NK = scores_NK.detach().requires_grad_()
    (first_NK,) = torch.autograd.grad(surrogate.losses(scores_NK, batch) @ batch.weight_N, scores_NK)
    second_NK = surrogate.curvature(scores_NK.detach(), torch.ones_like(scores_NK), batch) * batch.weight_N[:, None]
    return Factors(
        input_NI=call.input.detach().flatten(0, -2)[used],
        slope_KNO=slope_KNO,
        first_KN=first_NK.T.contiguous(),
        second_KN=second_NK.T.contiguous(),
        owner_N=batch.owner_N,
        samples_B=batch.samples,
    )
