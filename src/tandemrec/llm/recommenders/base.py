"""Which language model a system stands on: one that exists, or one that is built first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tandemrec.data.dataset import Dataset
from tandemrec.errors import InputError
from tandemrec.llm.model import Precision, find_folder
from tandemrec.llm.nano import NanoConfig, build_nano
from tandemrec.recommender import Config, FitReport


class PretrainedConfig(Config):
    """A language model that exists."""

    build: Literal["pretrained"] = "pretrained"
    """Which kind of language model this is."""

    path: str
    """A Hugging Face folder (relative: below the working directory or `$TANDEMREC_MODELS`) or a hub id."""

    dtype: Precision = "auto"
    """Of the weights on an accelerator; `auto` reads a checkpoint in half precision as bfloat16. A CPU uses float32."""


LanguageModelConfig = Annotated[NanoConfig | PretrainedConfig, Field(discriminator="build")]


class LanguageModelUser(Config):
    """Settings of every system that stands on a language model."""

    lm: LanguageModelConfig = NanoConfig()
    """The language model: built from the catalogue's texts, or an existing one."""

    def check(self) -> None:
        """Refuse a model folder or text file that is not there."""
        if isinstance(self.lm, PretrainedConfig):
            find_folder(self.lm.path)
        for path in self.text_files():
            if not path.is_file():
                raise InputError(f"key 'lm.text_files': there is no text file {path}")

    def origin(self, built: Path | str | None) -> str:
        """The folder or hub id that the language model is read from.

        Args:
            built: folder of the one that was built; None: there is none.

        Raises:
            InputError: if it must be built first.
        """
        if built is not None:
            return str(built)
        if isinstance(self.lm, PretrainedConfig):
            return self.lm.path
        raise InputError("a nano model needs the folder of the built model, see build_nano")

    @property
    def builds_language_model(self) -> bool:
        """Whether the language model must be built first."""
        return isinstance(self.lm, NanoConfig)

    def build_language_model(
        self, dataset: Dataset, directory: Path, *, seed: int, workspace: Path | None = None
    ) -> FitReport:
        """Build it (see `build_nano`)."""
        assert isinstance(self.lm, NanoConfig)
        return build_nano(dataset, self.lm, directory, seed=seed, workspace=workspace)

    def text_files(self) -> list[Path]:
        """Files the language model is built from, beside the catalogue."""
        return list(self.lm.text_files) if isinstance(self.lm, NanoConfig) else []

    def model_folder(self) -> Path | None:
        """The local folder of an existing language model; None for one of the hub, or one that is built."""
        return find_folder(self.lm.path) if isinstance(self.lm, PretrainedConfig) else None
