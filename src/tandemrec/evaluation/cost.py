"""What a system costs, from the run card, and which systems are worth their cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SUMMED = ("seconds", "cpu_seconds", "accelerator_seconds", "tokens")
PEAKS = ("peak_memory_mib", "accelerator_peak_mib")

BUILDING = "language-model"
"""The stage that builds a language model."""


def system_cost(
    card: Mapping[str, Any], system: str, *, users: int, price: float | None = None
) -> dict[str, float | None] | None:
    """Training and inference of a system.

    Training is every stage it took, those of the language model and of the systems that it builds on included, each
    once; sums and the largest peaks. Inference is its judgement, loading included, over the number of users.

    Args:
        card: a run card.
        system: name on the leaderboard.
        users: of the judged questions, of which one may have several.
        price: of an hour of the machine; None: money is what endpoints charged, and left out where that is nothing.

    Returns:
        Of training `seconds`, `cpu_seconds`, `accelerator_seconds`, `tokens`, `peak_memory_mib` and
        `accelerator_peak_mib`; of inference `seconds_per_1000` users; with a price or fees `money` and
        `money_per_1000`; None for what was not measured, None altogether for cards that do not say what a system took.
    """
    if "systems" not in card:
        return None
    needed, judging = _training(card, system), card["systems"][system]["judging"]
    judgement = _stages(card)[judging]
    cost: dict[str, float | None] = {key: _total(needed, key) for key in SUMMED}
    cost |= {key: max((stage[key] for stage in needed if stage[key] is not None), default=None) for key in PEAKS}
    each = judgement["seconds"] / users * 1000
    cost["seconds_per_1000"] = each
    fees, judged = _fees(needed), _fees([judgement]) / users * 1000
    if price is not None or fees or judged:
        hour = price or 0.0
        cost |= {"money": (cost["seconds"] or 0.0) / 3600 * hour + fees, "money_per_1000": each / 3600 * hour + judged}
    return cost


def tuning_seconds(card: Mapping[str, Any], system: str) -> float | None:
    """Training time of a system and of all it builds on, a language model as given: building one is left out.

    Returns:
        Seconds; None for cards that do not say what a system took.
    """
    if "systems" not in card:
        return None
    return sum(float(stage["seconds"]) for stage in _training(card, system) if stage["stage"] != BUILDING)


def _training(card: Mapping[str, Any], system: str) -> list[Mapping[str, Any]]:
    """Every stage that training a system took."""
    stages = _stages(card)
    return [stages[name] for name in card["systems"][system]["training"]]


def _stages(card: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Every stage of a run by its id."""
    return {stage["id"]: stage for stage in card["stages"]}


def _fees(stages: Sequence[Mapping[str, Any]]) -> float:
    """What endpoints charged; older cards do not say."""
    return sum(float(stage.get("fees") or 0.0) for stage in stages)


def _total(stages: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """None if a stage was not measured; stages without a language model read no tokens."""
    values = [stage[key] for stage in stages]
    if key == "tokens":
        return sum(value or 0 for value in values)
    return None if any(value is None for value in values) else float(sum(values))


def pareto_front(costs: Sequence[float], values: Sequence[float], *, lower_is_better: bool = False) -> list[bool]:
    """Which systems no other one beats: as good for less, or better for no more.

    Args:
        costs: of every system.
        values: its accuracy.
        lower_is_better: the values are errors.
    """
    worth = [-value if lower_is_better else value for value in values]
    points = list(zip(costs, worth, strict=True))
    return [
        not any(other[0] <= cost and other[1] >= value and other != (cost, value) for other in points)
        for cost, value in points
    ]
