"""How a conventional model lies on disk: `config.json` and `model.safetensors`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tandemrec.errors import InputError
from tandemrec.recommender import Config

if TYPE_CHECKING:
    from torch import Tensor

ConfigT = TypeVar("ConfigT", bound=Config)


def save_model(directory: Path, config: Config, tensors: dict[str, Tensor]) -> None:
    """Write a config and its tensors into `directory` (created)."""
    from safetensors.torch import save_file

    config.write(directory)
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, directory / "model.safetensors"
    )


def load_model(directory: Path, config_class: type[ConfigT]) -> tuple[ConfigT, dict[str, Tensor]]:
    """Read what `save_model` wrote.

    Raises:
        InputError: if a file is missing, the weights are damaged or the config belongs to another model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = directory / "model.safetensors"
    config = config_class.read(directory)
    if not path.is_file():
        raise InputError(f"{directory} holds no saved model: there is no {path.name}")
    try:
        return config, load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path} is damaged: {error}") from None
