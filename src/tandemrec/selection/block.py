"""A block of a network's parameters, by name, as one flat vector of P numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from tandemrec.errors import InputError
from tandemrec.recommender import Config

PROJECTIONS = ("out", "out_proj", "o_proj")
"""What attention output projections are called."""


class BlockConfig(Config):
    """Which parameters count."""

    parameters: Literal["last-projection", "modules", "non-embedding", "all"] = "last-projection"
    """The weight of the last attention's output projection, as in DEALRec's code; those of `modules`; all but
    embedding tables; or all."""

    modules: tuple[str, ...] = Field(())
    """Names of modules or parameters, for `modules`: 'blocks.1', 'blocks.1.out.weight'."""


@dataclass(frozen=True)
class Block:
    """Names and shapes of the parameters, in the order in which they lie in the vector."""

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]

    @classmethod
    def of(cls, network: nn.Module, config: BlockConfig) -> Block:
        """Find the block.

        Raises:
            InputError: if there are no such parameters.
        """
        parameters = dict(network.named_parameters())
        if config.parameters == "last-projection":
            names = [_last_projection(network)]
        elif config.parameters == "modules":
            names = _named(list(parameters), config.modules)
        elif config.parameters == "non-embedding":
            tables = {
                f"{prefix}.{name}".lstrip(".")
                for prefix, module in network.named_modules()
                if isinstance(module, nn.Embedding)
                for name, _ in module.named_parameters(recurse=False)
            }
            names = [name for name in parameters if name not in tables]
        else:
            names = list(parameters)
        if not names:
            raise InputError(f"key 'block.parameters': '{config.parameters}' names no parameter of the surrogate")
        return cls(tuple(names), tuple(parameters[name].shape for name in names))

    @property
    def size(self) -> int:
        """Number of parameters P."""
        return sum(shape.numel() for shape in self.shapes)

    def flat(self, tensors: Sequence[Tensor]) -> Tensor:
        """One vector (P,) in float64, in which sums over batches are kept."""
        return torch.cat([tensor.detach().double().flatten() for tensor in tensors])

    def tensors(self, vector_P: Tensor, like: Tensor) -> dict[str, Tensor]:
        """The vector cut into named tensors of the type and device of `like`."""
        pieces = torch.split(vector_P.to(like.device, like.dtype), [shape.numel() for shape in self.shapes])
        return {name: piece.view(shape) for name, piece, shape in zip(self.names, pieces, self.shapes, strict=True)}

    def divide(self, network: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(those of the block, asking for gradients; all others, fixed): below the block nothing is then recorded."""
        fixed = {name: parameter.detach() for name, parameter in network.named_parameters()}
        chosen = {name: fixed.pop(name).clone().requires_grad_() for name in self.names}
        return chosen, fixed


def _last_projection(network: nn.Module) -> str:
    found = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in PROJECTIONS
    ]
    if not found:
        raise InputError(
            "key 'block.parameters': the surrogate has no attention output projection; name the block by 'modules'"
        )
    return f"{found[-1]}.weight"


def _named(parameters: Sequence[str], wanted: Sequence[str]) -> list[str]:
    for name in wanted:
        if not any(_inside(parameter, name) for parameter in parameters):
            raise InputError(
                f"key 'block.modules': the surrogate has no '{name}'; its parameters are {', '.join(parameters)}"
            )
    return [parameter for parameter in parameters if any(_inside(parameter, name) for name in wanted)]


def _inside(parameter: str, module: str) -> bool:
    return parameter == module or parameter.startswith(f"{module}.")
