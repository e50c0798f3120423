"""MF: matrix factorisation learned by Bayesian personalised ranking (Rendle et al., UAI 2009)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tandemrec.conventional.direct.pairwise import PairwiseConfig, PairwiseModel, PairwiseModule
from tandemrec.training import TrainingConfig


class MFConfig(PairwiseConfig):
    """Defaults are those usual for comparisons with LightGCN; recipe `ml-100k-direct` has tuned settings."""

    model: Literal["mf"] = "mf"
    """Which model this is."""

    training: TrainingConfig = Field(TrainingConfig(epochs=300, clip_norm=None, validate_every=2))
    """Length and speed of learning."""


class MF(PairwiseModel):
    """s(u, i) = p_u·q_i; −ln σ(s(u, i) − s(u, j)) + λ/2·(‖p_u‖² + ‖q_i‖² + ‖q_j‖²), one uniform negative j a pair.

    This is BPR-MF (section 4.3.1 of the paper) with Adam in place of plain stochastic gradient descent, every training
    pair once an epoch.
    """

    config_class = MFConfig
    module_class = PairwiseModule
