"""A conventional recommender trained on what the data hold and what a language model adds (Llama4Rec)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import polars as pl
from pydantic import Field, model_validator
from torch import Tensor

from tandemrec.augmentation.preferences import AugmentationConfig, inserted
from tandemrec.conventional.direct.lightgcn import LightGCN, LightGCNConfig
from tandemrec.conventional.direct.mf import MF, MFConfig
from tandemrec.conventional.direct.mixgcf import MixGCF, MixGCFConfig
from tandemrec.conventional.direct.pairwise import PairwiseModel, Preferences
from tandemrec.conventional.direct.sgl import SGL, SGLConfig
from tandemrec.conventional.sequential.bert4rec import BERT4Rec, BERT4RecConfig
from tandemrec.conventional.sequential.cl4srec import CL4SRec, CL4SRecConfig
from tandemrec.conventional.sequential.gru4rec import GRU4Rec, GRU4RecConfig
from tandemrec.conventional.sequential.sasrec import SASRec, SASRecConfig
from tandemrec.data.examples import Examples
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.recommender import Config, FitReport, Scorer

ADDED = "augmentation.parquet"

BackboneConfig = Annotated[
    MFConfig
    | LightGCNConfig
    | MixGCFConfig
    | SGLConfig
    | SASRecConfig
    | BERT4RecConfig
    | CL4SRecConfig
    | GRU4RecConfig,
    Field(discriminator="model"),
]

BACKBONES: dict[type[Config], type[Scorer]] = {
    MFConfig: MF,
    LightGCNConfig: LightGCN,
    MixGCFConfig: MixGCF,
    SGLConfig: SGL,
    SASRecConfig: SASRec,
    BERT4RecConfig: BERT4Rec,
    CL4SRecConfig: CL4SRec,
    GRU4RecConfig: GRU4Rec,
}


class AugmentedConfig(Config):
    """A model, and what is added to its training data."""

    model: Literal["augmented"]
    """Which model this is."""

    backbone: BackboneConfig
    """The model that is trained from scratch on both."""

    by: str
    """The system that is asked: a ranker, or any that scores."""

    data: AugmentationConfig
    """What is added: pairs for models that learn from pairs, insertions for sequences."""

    rounds: int = Field(1, ge=1, le=10)
    """How often language model and backbone improve each other: in every further round the language model is tuned anew
    with the hints of the round before, and its answers replace what was added. More than one asks for a `by` that is
    tuned itself; the steps are systems of their own, `NAME round 1`, `NAME judge 2`, `NAME round 2` …"""

    def partners(self) -> tuple[str, ...]:
        """The system that is asked."""
        return (self.by,)

    @model_validator(mode="after")
    def _pairs_need_a_pairwise_loss(self) -> Self:
        if self.data.method == "pairs" and not issubclass(BACKBONES[type(self.backbone)], PairwiseModel):
            raise ValueError(
                f"pairs join the triples of MF, LightGCN, MixGCF and SGL; '{self.backbone.model}' learns from none: "
                "use the method 'insertions'"
            )
        return self


class Augmented(Scorer):
    """Answers as its backbone does."""

    def __init__(self, config: AugmentedConfig, added: Path | None = None) -> None:
        """Configure.

        Args:
            config: the configuration.
            added: parquet file of `augmentation.preferences.augment`, which training needs.
        """
        self.config, self.added = config, added
        self.backbone: Scorer | None = None

    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        """Train the backbone on the interactions and what was added; the validation part is as it was.

        Raises:
            InputError: if nothing was written to be added.
        """
        if self.added is None:
            raise InputError(f"what '{self.config.by}' adds to the data must be written first")
        frame = pl.read_parquet(self.added)
        make: Any = BACKBONES[type(self.config.backbone)]
        backbone: Scorer = make(self.config.backbone)
        if isinstance(backbone, PairwiseModel) and self.config.data.method == "pairs":
            columns = (frame[name].to_numpy().astype(np.int64) for name in ("user", "chosen", "rejected"))
            backbone.preferences = Preferences(*columns)
        else:
            split = inserted(split, frame)
        report = backbone.fit(split, seed=seed, workspace=workspace)
        self._adopt(backbone)
        report.notes["added"] = frame.height
        return report

    def scores(self, examples: Examples) -> Tensor:
        """Scores (B, I) of the backbone."""
        return self._trained().scores(examples)

    def rows_at_once(self, n_items: int) -> int:
        """The backbone's."""
        return self._trained().rows_at_once(n_items)

    def save(self, directory: Path) -> None:
        """`config.json`, the backbone in a folder of its own, and what was added."""
        self.config.write(directory)
        self._trained().save(directory / "backbone")
        if self.added is not None:
            shutil.copy(self.added, directory / ADDED)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote."""
        config = AugmentedConfig.read(directory)
        model = cls(config, directory / ADDED)
        model._adopt(BACKBONES[type(config.backbone)].load(directory / "backbone"))
        return model

    def _adopt(self, backbone: Scorer) -> None:
        self.backbone = backbone
        self.user_vectors, self.item_vectors = backbone.user_vectors, backbone.item_vectors

    def _trained(self) -> Scorer:
        if self.backbone is None:
            raise RuntimeError("Augmented must be fitted or loaded first")
        return self.backbone
