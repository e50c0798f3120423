"""BIGRec: a language model fine-tuned to write the next title, which is then grounded to the catalogue."""

from __future__ import annotations

from typing import Literal

from tandemrec.llm.recommenders.writer import TitleWriter, WriterConfig


class BIGRecConfig(WriterConfig):
    """Titles alone speak for the items."""

    model: Literal["bigrec"] = "bigrec"
    """Which model this is."""


class BIGRec(TitleWriter):
    """Bao et al., A Bi-Step Grounding Paradigm for Large Language Models in Recommendation Systems (2023)."""

    config_type = BIGRecConfig
