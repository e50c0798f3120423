"""How a conventional model lies on disk: `config.json` and `model.safetensors`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from tandemrec.errors import InputError
from tandemrec.recommender import Config

if TYPE_CHECKING:
    from torch import Tensor

ConfigT = TypeVar("ConfigT", bound=Config)


def save_model(directory: Path, config: Config, tensors: dict[str, Tensor]) -> None:
    """Write a config and its tensors into `directory` (created)."""
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(config.model_dump_json(indent=1) + "\n")
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

    for name in ("config.json", "model.safetensors"):
        if not (directory / name).is_file():
            raise InputError(f"{directory} holds no saved model: there is no {name}")
    try:
        config = config_class.model_validate_json((directory / "config.json").read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(
            f"{directory / 'config.json'} is no {config_class.__name__}: {place}: {first['msg']}"
        ) from None
    try:
        return config, load_file(directory / "model.safetensors")
    except SafetensorError as error:
        raise InputError(f"{directory / 'model.safetensors'} is damaged: {error}") from None
