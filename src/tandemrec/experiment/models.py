"""Which config makes which recommender: the one place where a new model is made known to recipes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from tandemrec.conventional.direct.ease import EASE, EASEConfig
from tandemrec.conventional.direct.itemknn import ItemKNN, ItemKNNConfig
from tandemrec.conventional.popularity import Popularity, PopularityConfig
from tandemrec.conventional.sequential.sasrec import SASRec, SASRecConfig
from tandemrec.llm.recommenders.bigrec import BIGRec, BIGRecConfig
from tandemrec.recommender import Config, Recommender

ModelConfig = Annotated[
    PopularityConfig | ItemKNNConfig | EASEConfig | SASRecConfig | BIGRecConfig, Field(discriminator="model")
]

Maker = Callable[[Any], Recommender]

CONVENTIONAL: dict[type[Config], tuple[Maker, Callable[[Path], Recommender], str]] = {
    PopularityConfig: (Popularity, Popularity.load, "conventional/popularity.py"),
    ItemKNNConfig: (ItemKNN, ItemKNN.load, "conventional/direct"),
    EASEConfig: (EASE, EASE.load, "conventional/direct"),
    SASRecConfig: (SASRec, SASRec.load, "conventional/sequential"),
}
"""Config class → how its recommender is made, how it is read, and the code whose change means training it again."""


def make_recommender(config: Config, language_model: Path | None = None) -> Recommender:
    """An untrained recommender; `language_model` is the folder of a language model built for it."""
    if isinstance(config, BIGRecConfig):
        return BIGRec(config, language_model)
    return CONVENTIONAL[type(config)][0](config)


def code_rooms(config: Config) -> tuple[str, ...]:
    """The code that a model's training runs."""
    shared = ("training", "recommender.py")
    return ("llm", *shared) if isinstance(config, BIGRecConfig) else (CONVENTIONAL[type(config)][2], *shared)


def load_recommender(config: Config, directory: Path) -> Recommender:
    """A finished model from its artifact."""
    return BIGRec.load(directory) if isinstance(config, BIGRecConfig) else CONVENTIONAL[type(config)][1](directory)
