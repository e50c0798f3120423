"""Texts of items that systems build on: refused as soon as the data are there, not after hours of training."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from tandemrec.augmentation.llm_cf import LLMCFConfig
from tandemrec.data.dataset import Dataset
from tandemrec.errors import InputError
from tandemrec.llm.content import check_columns
from tandemrec.llm.recommenders.tiger import TIGERConfig
from tandemrec.recommender import Config


def check_texts(models: Mapping[str, Config], dataset: Dataset) -> None:
    """Refuse columns that the items do not have, and items without any text, before the first model is trained.

    Raises:
        InputError: naming model and column.
    """
    for name, config in models.items():
        if isinstance(config, TIGERConfig):
            there = check_columns(dataset, config.ids.content.columns, f"models.{name}.ids.content.columns")
        elif isinstance(config, LLMCFConfig):
            columns = None if config.encoder is None else config.encoder.columns
            there = check_columns(dataset, columns, f"models.{name}.encoder.columns")
        else:
            continue
        # Cleaning gives an item without a title its id.
        untitled = (dataset.items["title"].fill_null("") == dataset.items["item_id"].cast(pl.String)).all()
        if untitled and not there:
            raise InputError(
                f"models.{name}: no item of {dataset.name} has a title or another text, which this system is made from"
            )
