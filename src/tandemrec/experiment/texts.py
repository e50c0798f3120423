"""Columns of the items' texts that systems name: refused as soon as the data are there, not after hours of training."""

from __future__ import annotations

from collections.abc import Mapping

from tandemrec.augmentation.llm_cf import LLMCFConfig
from tandemrec.data.dataset import Dataset
from tandemrec.llm.content import check_columns
from tandemrec.llm.recommenders.tiger import TIGERConfig
from tandemrec.recommender import Config


def check_texts(models: Mapping[str, Config], dataset: Dataset) -> None:
    """Refuse columns that the items do not have, before the first model is trained.

    Raises:
        InputError: naming model and column.
    """
    for name, config in models.items():
        if isinstance(config, TIGERConfig):
            check_columns(dataset, config.ids.content.columns, f"models.{name}.ids.content.columns")
        elif isinstance(config, LLMCFConfig) and config.encoder is not None:
            check_columns(dataset, config.encoder.columns, f"models.{name}.encoder.columns")
