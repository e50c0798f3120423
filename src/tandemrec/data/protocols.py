"""Split protocols: one config each, every field a choice that changes numbers."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tandemrec.recommender import Config


class SampleConfig(Config):
    """Sub-samples of examples, drawn without replacement from the split's seed; null keeps a part whole.

    SOFT draws 4,096 / 512 / 1,000. `Split.sequences`, which conventional models learn from, is never thinned.
    """

    train: int | None = Field(None, ge=1)
    """Training examples kept."""

    valid: int | None = Field(None, ge=1)
    """Validation examples kept."""

    test: int | None = Field(None, ge=1)
    """Test examples kept."""


class _Protocol(Config):
    sample: SampleConfig = SampleConfig()
    """Optional sub-samples of the examples."""


class LeaveOneOut(_Protocol):
    """The last item of a user is the test target, the one before the validation target, the rest trains.

    Users with fewer than three interactions only train, unless `short_users` says otherwise.
    """

    protocol: Literal["leave-one-out"] = "leave-one-out"
    """Which protocol this is."""

    history: int | None = Field(10, ge=1)
    """Longest history of a training example (every training position but the first is one); null: the whole prefix."""

    min_history: int = Field(1, ge=0)
    """Shortest history of a training example; 0 makes the first item of a user a target too."""

    test_history: Literal["all", "train"] = "all"
    """`train` hides the validation item from the test history, as some published code does; `all` is the proper way."""

    short_users: Literal["train", "cut"] = "train"
    """Users with one or two interactions: `train` uses them for training only; `cut` takes the test item, then the
    validation item from them as from anybody, so that nothing is left to train on, and asks nothing of a user whose
    history is empty then (the counts of Llama4Rec)."""

    order_seed: int | None = Field(None, ge=0)
    """Seed of an arbitrary order per user, for data without any order; refused for data that have one."""


class _TimeFractions(_Protocol):
    train: float = Field(0.8, gt=0, lt=1)
    """Share of the earliest examples (interactions) that train."""

    valid: float = Field(0.1, gt=0, lt=1)
    """Share of the following ones that choose; the rest judges."""

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        if self.train + self.valid >= 1:
            raise ValueError(f"train and valid leave nothing to test, found {self.train} + {self.valid}")
        return self


class TimeWindows(_TimeFractions):
    """History of up to h items and the next one; all windows sorted by target time and cut (BIGRec, SOFT, D3)."""

    protocol: Literal["time-windows"] = "time-windows"
    """Which protocol this is."""

    history: int = Field(10, ge=1)
    """Longest history h, in every part."""

    first_target: Literal["full-history", "second-item"] = "full-history"
    """`full-history` (SOFT): targets from place h on; a user with at most h + 1 items gives one window, whose target is
    the last item. `second-item` (D3): every item but the first is a target."""


class _PerUser(_Protocol):
    history: int | None = Field(None, ge=1)
    """Longest history of a training example; null: the whole prefix."""

    min_history: int = Field(1, ge=0)
    """Shortest history of a training example; 0 (DEALRec) keeps users of one training item, with an empty history."""

    train_examples: Literal["last", "every"] = "last"
    """One training example a user, whose target is the last training item (DEALRec), or one for every position."""

    targets: Literal["all", "next"] = "all"
    """One validation (test) example a user whose targets are all items of the part (DEALRec), or an example for every
    one of them, with all before it as history."""

    test_history: Literal["all", "train"] = "all"
    """Whether validation items belong to the history of the test part (DEALRec: yes)."""

    @model_validator(mode="after")
    def _next_item_knows_all_before(self) -> Self:
        if self.targets == "next" and self.test_history == "train":
            raise ValueError("test_history must be 'all' where targets is 'next', found 'train'")
        return self


class TimePerUser(_PerUser, _TimeFractions):
    """Interactions sorted by time, cut, and regrouped per user (DEALRec)."""

    protocol: Literal["time-per-user"] = "time-per-user"
    """Which protocol this is."""


class GivenColumn(_PerUser):
    """The parts are given by the data's `split` column: train, valid or test. Regrouped per user as `time-per-user`."""

    protocol: Literal["column"] = "column"
    """Which protocol this is."""


SplitConfig = Annotated[LeaveOneOut | TimeWindows | TimePerUser | GivenColumn, Field(discriminator="protocol")]
