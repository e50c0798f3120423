"""Which config makes which rating predictor, and whether the data have what it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tandemrec.augmentation.augmented_ratings import AugmentedRatingsConfig
from tandemrec.conventional.rating.afm import AFM, AFMConfig
from tandemrec.conventional.rating.autoint import AutoInt, AutoIntConfig
from tandemrec.conventional.rating.biases import Biases, BiasesConfig
from tandemrec.conventional.rating.dcn import DCN, DCNConfig
from tandemrec.conventional.rating.deepfm import DeepFM, DeepFMConfig
from tandemrec.conventional.rating.features import check_columns
from tandemrec.conventional.rating.fm import FM, FMConfig
from tandemrec.conventional.rating.mf import BiasedMF, BiasedMFConfig
from tandemrec.conventional.rating.nfm import NFM, NFMConfig
from tandemrec.conventional.rating.predictor import InteractionConfig
from tandemrec.conventional.rating.xdeepfm import XDeepFM, XDeepFMConfig
from tandemrec.data.dataset import Dataset
from tandemrec.errors import InputError
from tandemrec.recommender import Config, RatingPredictor

RatingModelConfig = (
    BiasesConfig
    | BiasedMFConfig
    | FMConfig
    | DeepFMConfig
    | NFMConfig
    | DCNConfig
    | AFMConfig
    | XDeepFMConfig
    | AutoIntConfig
)

RATING: dict[type[Config], tuple[Callable[[Any], RatingPredictor], Callable[[Path], RatingPredictor], str]] = {
    BiasesConfig: (Biases, Biases.load, "conventional/rating"),
    BiasedMFConfig: (BiasedMF, BiasedMF.load, "conventional/rating"),
    FMConfig: (FM, FM.load, "conventional/rating"),
    DeepFMConfig: (DeepFM, DeepFM.load, "conventional/rating"),
    NFMConfig: (NFM, NFM.load, "conventional/rating"),
    DCNConfig: (DCN, DCN.load, "conventional/rating"),
    AFMConfig: (AFM, AFM.load, "conventional/rating"),
    XDeepFMConfig: (XDeepFM, XDeepFM.load, "conventional/rating"),
    AutoIntConfig: (AutoInt, AutoInt.load, "conventional/rating"),
}
"""Config class → how its predictor is made, how it is read, and the code whose change means training it again."""


def check_attributes(models: Mapping[str, Config], dataset: Dataset) -> None:
    """Refuse attributes that the data do not have, before the first model is trained.

    Raises:
        InputError: naming model and column; also where an attribute is to be added that is there already.
    """
    for name, config in models.items():
        augmented = config if isinstance(config, AugmentedRatingsConfig) else None
        model = augmented.backbone if augmented is not None else config
        if not isinstance(model, InteractionConfig):
            continue
        key = f"models.{name}" if augmented is None else f"models.{name}.backbone"
        added = [] if augmented is None else list(augmented.data.columns)
        check_columns(model.features, dataset, key=f"{key}.features", added=added)
        again = [column for column in added if column in dataset.items.columns]
        if again:
            raise InputError(f"key 'models.{name}.data.columns': {dataset.name} has a column '{again[0]}' already")
