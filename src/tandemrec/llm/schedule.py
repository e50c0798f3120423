"""How much a training listens to its own outputs: SOFT's self-adaptive weight τ, and schedules that do not adapt."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from tandemrec.llm.objectives import SOFT
from tandemrec.recommender import Config


class AdaptiveSchedule(Config):
    """τ falls as the model comes nearer to the truth: τ = min(1, exp(α (d / d₀ − 1))), SOFT eq. for w(t).

    d is the distance between what the model writes for some training prompts and their real targets, in the space that
    grounds titles; d₀ is d before the first step. So the first epoch has τ = 1. The clamp keeps τ a weight where the
    model moves away from the truth; the paper does not mention it, its code has it.
    """

    kind: Literal["adaptive"] = "adaptive"
    """Which kind of schedule this is."""

    alpha: float = Field(1.0, ge=0)
    """Steepness α; 0 keeps τ at 1."""

    distance: Literal["plain", "squared"] = "plain"
    """Mean of Euclidean distances, as in the code of SOFT, or of their squares, as in its text."""

    progression: Literal["exponential", "linear"] = "exponential"
    """`linear`: τ = 1 + α (d / d₀ − 1), within [0, 1]."""

    prompts: int = Field(256, ge=1)
    """Training prompts M, drawn once, whose answers are measured before each epoch."""

    def tau(self, ratio: float) -> float:
        """The weight at d / d₀ = `ratio`."""
        change = self.alpha * (ratio - 1)
        if self.progression == "exponential":
            return math.exp(min(0.0, change))
        return min(1.0, max(0.0, 1 + change))


class FixedSchedule(Config):
    """The same τ in every epoch; 1 learns from the self-distilled answers alone ("w/o SA" in the paper)."""

    kind: Literal["fixed"]
    """Which kind of schedule this is."""

    tau: float = Field(1.0, ge=0, le=1)
    """The weight."""


class StepSchedule(Config):
    """One τ, and another one from some epoch on."""

    kind: Literal["step"]
    """Which kind of schedule this is."""

    epoch: int = Field(1, ge=1)
    """Epochs with the first weight."""

    before: float = Field(1.0, ge=0, le=1)
    """The first weight."""

    after: float = Field(0.0, ge=0, le=1)
    """The second weight."""


ScheduleConfig = Annotated[AdaptiveSchedule | FixedSchedule | StepSchedule, Field(discriminator="kind")]


class Curriculum:
    """Sets an objective's τ before every epoch and reports it, with the distance where that decides."""

    def __init__(self, schedule: ScheduleConfig, objective: SOFT, measure: Callable[[], float]) -> None:
        """Configure.

        Args:
            schedule: how τ comes about.
            objective: whose `tau` is set.
            measure: the mean distance d of the model as it is; asked only where the schedule adapts.
        """
        self.schedule, self.objective, self.measure = schedule, objective, measure

    def begin_epoch(self, epoch: int, curve: Sequence[Mapping[str, float]], memory: dict[str, float]) -> None:
        """Set τ; see `Task.begin_epoch`. d is the latest one validated, `memory` keeps d₀."""
        schedule = self.schedule
        if isinstance(schedule, FixedSchedule):
            self.objective.tau = schedule.tau
        elif isinstance(schedule, StepSchedule):
            self.objective.tau = schedule.before if epoch < schedule.epoch else schedule.after
        else:
            if "start_distance" not in memory:
                memory["start_distance"] = self.measure()
            start = memory["start_distance"]
            now = curve[-1]["distance"] if curve else start
            self.objective.tau = schedule.tau(now / start if start > 0 else 1.0)

    def figures(self) -> dict[str, float]:
        """τ of the epoch that ends, and d at its end."""
        figures = {"tau": self.objective.tau}
        return figures | {"distance": self.measure()} if isinstance(self.schedule, AdaptiveSchedule) else figures
