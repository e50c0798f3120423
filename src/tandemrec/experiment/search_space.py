"""What `tandem tune` searches: the settings of one model of a recipe, and how long."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from tandemrec.errors import InputError
from tandemrec.recommender import Config

Setting = bool | int | float | str | list[Any] | None
"""A value of a key, as YAML has it."""


class Dimension(Config):
    """One key's values: a range (`low`, `high`, perhaps `log`) or a list of `choices`."""

    low: float | None = None
    """Least value."""

    high: float | None = None
    """Greatest value. Where the key takes whole numbers only, whole numbers are drawn, both ends among them."""

    log: bool = False
    """Draw the logarithm evenly: for learning rates, penalties and sizes."""

    choices: list[Setting] | None = Field(None, min_length=1)
    """Any values, in no order."""

    @model_validator(mode="after")
    def _range_or_choices(self) -> Self:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("give choices, or low and high, found both")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        if not (math.isfinite(self.low) and math.isfinite(self.high)) or self.low >= self.high:
            raise ValueError(f"low must be below high, found {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low must be above 0 where log is true, found {self.low:g}")
        return self


class Pruning(Config):
    """A trial ends early when its best validated epoch so far is worse than that of most earlier trials by then."""

    percentile: float = Field(50.0, gt=0, lt=100)
    """Share of the earlier trials, in percent, that it must belong to the best of; 50 is the median rule."""

    startup_trials: int = Field(5, ge=1)
    """Trials that are never ended."""

    warmup_epochs: int = Field(5, ge=0)
    """Epochs that every trial is given."""


class TuningConfig(Config):
    """A search by the tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), judged on validation alone."""

    model: str
    """Name of the recipe's model whose settings are searched; one that builds on no other and writes no titles."""

    space: dict[str, Dimension] | None = Field(None, min_length=1)
    """Dotted keys of the model's config, such as `training.learning_rate`, and their values; null: rates, penalties,
    dropout and sizes the model has, in usual ranges."""

    trials: int = Field(20, ge=1, le=10_000)
    """Settings that are tried. The first is the recipe's own, as far as the space contains it. A later call with more
    of them goes on from here."""

    startup_trials: int = Field(10, ge=1)
    """Trials drawn at random before the estimator has a say."""

    seed: int = Field(0, ge=0, lt=2**31)
    """Of the draws; trainings have the recipe's seed."""

    pruning: Pruning | None = Pruning()
    """When bad trials end early; null: never."""

    @field_validator("space")
    @classmethod
    def _keys(cls, space: dict[str, Dimension] | None) -> dict[str, Dimension] | None:
        if space is not None and "model" in space:
            raise ValueError("the key 'model' cannot be searched: name another model of the recipe instead")
        return space


USUAL: dict[str, Dimension] = {
    "training.learning_rate": Dimension(low=3e-4, high=1e-2, log=True),
    "dropout": Dimension(low=0, high=0.6),
    "dim": Dimension(choices=[32, 64, 128]),
    "l2": Dimension(low=1e-5, high=1e-1, log=True),
    "layers": Dimension(choices=[1, 2, 3]),
    "blocks": Dimension(choices=[1, 2, 3]),
    "contrast": Dimension(low=0.01, high=0.5, log=True),
    "alpha": Dimension(low=0.1, high=1),
    "shrink": Dimension(low=1, high=300, log=True),
    "decay": Dimension(low=0.5, high=1),
    "damping": Dimension(low=0.5, high=50, log=True),
}
"""Key → values that are searched where a recipe gives no space and the model has the key."""

OWN: dict[str, dict[str, Dimension]] = {
    "ease": {"l2": Dimension(low=10, high=3000, log=True)},
    "als": {
        "dim": Dimension(choices=[32, 64, 128]),
        "l2": Dimension(low=1e-3, high=100, log=True),
        "alpha": Dimension(low=1, high=100, log=True),
    },
    "biased-mf": {"dim": Dimension(choices=[5, 10, 20]), "l2": Dimension(low=0.02, high=1, log=True)},
}
"""The same for models whose keys mean something else."""


def search_space(config: Config, given: Mapping[str, Dimension] | None) -> dict[str, Dimension]:
    """The space of a model: the given one, checked against its config, or the usual one.

    Raises:
        InputError: if a key does not exist, a value is out of its bounds, or nothing is there to be searched.
    """
    if given is None:
        model = str(getattr(config, "model", ""))
        found = OWN.get(model) or {key: values for key, values in USUAL.items() if _has(config, key)}
        if not found:
            raise InputError(f"key 'tune.space' is missing, and the model '{model}' has no usual one")
        return found
    for key, dimension in given.items():
        for value in dimension.choices or ends(config, key, dimension):
            with_settings(config, {key: value}, alone=True)
    return dict(given)


def ends(config: Config, key: str, dimension: Dimension) -> list[float] | list[int]:
    """Both ends of a range: whole numbers where the key takes no others.

    Raises:
        InputError: if they are no whole numbers though the key takes no others.
    """
    assert dimension.low is not None
    assert dimension.high is not None
    low, high = dimension.low, dimension.high
    if not (low.is_integer() and high.is_integer()):
        return [low, high]
    try:
        with_settings(config, {key: low + (high - low) * 0.5078125})  # a value within that is no whole number
    except InputError:
        return [int(low), int(high)]
    return [low, high]


def with_settings(config: Config, settings: Mapping[str, Setting], *, alone: bool = False) -> Config:
    """The config with other values at dotted keys.

    Args:
        config: of a model.
        settings: dotted keys and their values.
        alone: judge the values alone: one that only does not go together with others passes, without an effect.

    Raises:
        InputError: if a key does not exist or the config refuses a value.
    """
    tree = config.model_dump(mode="json")
    for key, value in settings.items():
        *parents, last = key.split(".")
        node: Any = tree
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if not isinstance(node, dict) or last not in node:
            known = node if isinstance(node, dict) else tree
            raise InputError(f"key 'tune.space.{key}': unknown key; known are: {', '.join(known)}")
        node[last] = value
    try:
        return type(config).model_validate(tree)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if alone and not any(key.split(".")[-1] in first["loc"] for key in settings):
            return config
        shown = ", ".join(f"{key}={value!r}" for key, value in settings.items())
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"key 'tune.space': {shown} is refused: {message[0].lower()}{message[1:]}") from None


def setting(config: Config, key: str) -> Setting:
    """The value of a dotted key."""
    node: Any = config.model_dump(mode="json")
    for part in key.split("."):
        node = node[part]
    value: Setting = node
    return value


def _has(config: Config, key: str) -> bool:
    try:
        return setting(config, key) is not None
    except (KeyError, TypeError):
        return False
