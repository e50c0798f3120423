"""A conventional rating predictor with attributes that a language model adds (Llama4Rec)."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote

import polars as pl
from pydantic import Field, model_validator

from tandemrec.augmentation.attributes import AttributesConfig, Writer, with_attributes, write_attributes
from tandemrec.augmentation.augmented import ADDED
from tandemrec.conventional.rating.afm import AFM, AFMConfig
from tandemrec.conventional.rating.autoint import AutoInt, AutoIntConfig
from tandemrec.conventional.rating.dcn import DCN, DCNConfig
from tandemrec.conventional.rating.deepfm import DeepFM, DeepFMConfig
from tandemrec.conventional.rating.fm import FM, FMConfig
from tandemrec.conventional.rating.nfm import NFM, NFMConfig
from tandemrec.conventional.rating.predictor import InteractionPredictor
from tandemrec.conventional.rating.xdeepfm import XDeepFM, XDeepFMConfig
from tandemrec.data.ratings import Pairs
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.llm.chat import Chat, ChatConfig
from tandemrec.llm.generate import GenerationConfig, generate
from tandemrec.llm.recommenders.instructed import Instructed
from tandemrec.recommender import Config, FitReport, FloatArray, RatingPredictor

RatingBackboneConfig = Annotated[
    FMConfig | DeepFMConfig | NFMConfig | DCNConfig | AFMConfig | XDeepFMConfig | AutoIntConfig,
    Field(discriminator="model"),
]

BACKBONES: dict[type[Config], type[InteractionPredictor]] = {
    FMConfig: FM,
    DeepFMConfig: DeepFM,
    NFMConfig: NFM,
    DCNConfig: DCN,
    AFMConfig: AFM,
    XDeepFMConfig: XDeepFM,
    AutoIntConfig: AutoInt,
}


class AugmentedRatingsConfig(Config):
    """A model of ratings, and the attributes that are added to the items."""

    model: Literal["augmented-ratings"] = "augmented-ratings"
    """Which model this is."""

    backbone: RatingBackboneConfig
    """The model that is trained from scratch; its `features.items` names the new columns among others."""

    by: str | None = None
    """The rater whose language model is asked."""

    chat: ChatConfig | None = None
    """A chat endpoint that is asked in its place."""

    data: AttributesConfig
    """What is added."""

    rounds: int = Field(1, ge=1, le=10)
    """How often language model and backbone improve each other, see `AugmentedConfig.rounds`."""

    def partners(self) -> tuple[str, ...]:
        """The system that is asked."""
        return () if self.by is None else (self.by,)

    @model_validator(mode="after")
    def _somebody_is_asked_for_what_is_used(self) -> Self:
        if (self.by is None) == (self.chat is None):
            raise ValueError("attributes come from either a system ('by') or a chat endpoint ('chat'): name one")
        unused = [name for name in self.data.columns if name not in self.backbone.features.items]
        if unused:
            raise ValueError(f"the backbone does not use the added column '{unused[0]}': name it in features.items")
        return self


class AugmentedRatings(RatingPredictor):
    """Predicts as its backbone does."""

    def __init__(self, config: AugmentedRatingsConfig, added: Path | None = None) -> None:
        """Configure.

        Args:
            config: the configuration.
            added: parquet file of `augmentation.attributes.write_attributes`, which training needs.
        """
        self.config, self.added = config, added
        self.backbone: InteractionPredictor | None = None

    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        """Train the backbone on the ratings, with the items' added attributes among the fields.

        Raises:
            InputError: if the attributes were not written, or are of other items.
        """
        if self.added is None:
            raise InputError("the attributes that join the items must be written first")
        backbone = BACKBONES[type(self.config.backbone)](self.config.backbone)
        frame = pl.read_parquet(self.added)
        report = backbone.fit(with_attributes(split, frame, self.config.data), seed=seed, workspace=workspace)
        self.backbone = backbone
        return report

    def predict(self, pairs: Pairs) -> FloatArray:
        """Predicted ratings (B,) of the backbone."""
        return self._trained().predict(pairs)

    @property
    def user_vectors(self) -> Any:
        """The backbone's."""
        return self._trained().user_vectors

    def save(self, directory: Path) -> None:
        """`config.json`, the backbone in a folder of its own, and the attributes."""
        self.config.write(directory)
        self._trained().save(directory / "backbone")
        if self.added is not None:
            shutil.copy(self.added, directory / ADDED)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote."""
        config = AugmentedRatingsConfig.read(directory)
        model = cls(config, directory / ADDED)
        model.backbone = BACKBONES[type(config.backbone)].load(directory / "backbone")
        return model

    def _trained(self) -> InteractionPredictor:
        if self.backbone is None:
            raise RuntimeError("AugmentedRatings must be fitted or loaded first")
        return self.backbone


def ask_for_attributes(split: Split, config: AugmentedRatingsConfig, judge: object, workspace: Path) -> pl.DataFrame:
    """The attributes, by the chat endpoint or by the language model of `judge`; see `write_attributes`.

    Args:
        split: whose items are asked about.
        config: who is asked for what.
        judge: the system `config.by`; None where a chat endpoint is asked.
        workspace: keeps what the language model answers about every column in a folder of its own, so that a second
            call asks only for what a killed one did not get; a chat endpoint's answers are kept by its client.

    Raises:
        InputError: if the judge has no language model, or `max_new_tokens` leave no room for the question.
    """
    if config.chat is not None:
        chat = Chat(config.chat)
        return write_attributes(split, config.data, lambda _, prompts: chat.ask(prompts))
    return write_attributes(split, config.data, _greedy(judge, config, workspace))


def _greedy(judge: object, config: AugmentedRatingsConfig, workspace: Path) -> Writer:
    if not isinstance(judge, Instructed) or judge.config.remote:
        raise InputError(f"key 'by': '{config.by}' has no language model; name a rater that has, or a chat endpoint")
    lm, limit = judge.language_model, config.data.max_new_tokens
    room = lm.context - limit
    if room < 1:
        raise InputError(
            f"key 'data.max_new_tokens': found {limit}, expected fewer than the {lm.context} tokens that the language "
            f"model of '{config.by}' has for question and answer together"
        )

    def write(name: str, prompts: Sequence[str]) -> list[str]:
        rows = [(lm.bos + ids)[-room:] for ids in lm.tokenize(prompts)]
        # A folder has room for the answers to one set of prompts.
        return generate(lm, rows, GenerationConfig(beams=1), limit, workspace / f"attribute-{quote(name, safe='')}")

    return write
