"""Which config makes which rating predictor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tandemrec.conventional.rating.afm import AFM, AFMConfig
from tandemrec.conventional.rating.autoint import AutoInt, AutoIntConfig
from tandemrec.conventional.rating.biases import Biases, BiasesConfig
from tandemrec.conventional.rating.dcn import DCN, DCNConfig
from tandemrec.conventional.rating.deepfm import DeepFM, DeepFMConfig
from tandemrec.conventional.rating.fm import FM, FMConfig
from tandemrec.conventional.rating.mf import BiasedMF, BiasedMFConfig
from tandemrec.conventional.rating.nfm import NFM, NFMConfig
from tandemrec.conventional.rating.xdeepfm import XDeepFM, XDeepFMConfig
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
