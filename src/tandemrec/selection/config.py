"""What a recipe says about selection."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from tandemrec.recommender import Config
from tandemrec.selection.ccs import CCSConfig
from tandemrec.selection.dealrec import DEALRecConfig
from tandemrec.selection.effort import EffortConfig
from tandemrec.selection.el2n import EL2NConfig
from tandemrec.selection.grand import GraNdConfig
from tandemrec.selection.random import RandomConfig
from tandemrec.selection.recranker import RecRankerConfig
from tandemrec.selection.surrogate import SurrogateConfig
from tandemrec.selection.tf_dcon import TFDConConfig
from tandemrec.selection.validity import ValidityConfig

SelectorConfig = Annotated[
    DEALRecConfig | RandomConfig | GraNdConfig | EL2NConfig | CCSConfig | TFDConConfig | RecRankerConfig,
    Field(discriminator="selector"),
]


class SelectionConfig(Config):
    """Which training examples are chosen, by whom and by which models."""

    budget: int = Field(1024, ge=1)
    """Examples that are chosen."""

    surrogate: str | None = None
    """The sequence model of the recipe that stands in for the language model; null where no selector needs one."""

    language_model: str | None = None
    """The model of the recipe that writes titles whose effort counts; null where no selector needs one. It is looked
    at before it is fine-tuned, unless `effort.weights` says otherwise."""

    loss: SurrogateConfig = SurrogateConfig()
    """The surrogate's loss of a sample."""

    effort: EffortConfig = EffortConfig()
    """What effort is."""

    selectors: dict[str, SelectorConfig] = Field({"DEALRec": DEALRecConfig(), "Random": RandomConfig()}, min_length=1)
    """The selectors to compare, by the name their files bear."""

    validity: ValidityConfig = ValidityConfig()
    """How `--validate` checks influence."""

    category: str | None = None
    """Column of the items whose values count as categories in the report; null: the first there is of genres,
    genre, categories, category, main_category, series."""

    @model_validator(mode="after")
    def _models_are_named(self) -> Self:
        for name, config in self.selectors.items():
            if not name.replace(" ", "").replace("-", "").replace("_", "").replace(".", "").isalnum():
                raise ValueError(f"the selector name '{name}' may hold only letters, digits, spaces and any of -_.")
            if self.surrogate_of(name) is None and needs_surrogate(config):
                raise ValueError(f"the selector '{name}' needs a key 'surrogate' that names a sequence model")
            if self.language_model is None and needs_language_model(config):
                raise ValueError(f"the selector '{name}' needs a key 'language_model' that names a model of titles")
        return self

    def budget_of(self, selector: str) -> int:
        """Examples that a selector chooses."""
        return self.selectors[selector].budget or self.budget

    def surrogate_of(self, selector: str) -> str | None:
        """The sequence model that a selector looks at; None: it looks at none."""
        config = self.selectors[selector]
        return (config.surrogate or self.surrogate) if needs_surrogate(config) else None

    def language_model_of(self, selector: str) -> str | None:
        """The model of titles that a selector looks at; None: it looks at none."""
        return self.language_model if needs_language_model(self.selectors[selector]) else None


def needs_surrogate(config: SelectorConfig) -> bool:
    """Whether a selector looks at the surrogate."""
    if isinstance(config, DEALRecConfig):
        return config.influence is not None
    return not isinstance(config, RandomConfig)


def needs_language_model(config: SelectorConfig) -> bool:
    """Whether a selector looks at the language model."""
    return isinstance(config, TFDConConfig) or (isinstance(config, DEALRecConfig) and config.use_effort)
