"""Mutual augmentation in several rounds: what one model made for the other improves what the other makes for it."""

from __future__ import annotations

from collections.abc import Mapping

from tandemrec.augmentation.augmented import AugmentedConfig
from tandemrec.augmentation.augmented_ratings import AugmentedRatingsConfig
from tandemrec.llm.recommenders.instructed import InstructedConfig
from tandemrec.recommender import Config

AUGMENTED = (AugmentedConfig, AugmentedRatingsConfig)


def in_rounds(models: Mapping[str, Config]) -> dict[str, Config]:
    """The models, and those that systems with `rounds` take on their way; every one of them is a system of its own.

    A system S of n rounds, whose data the judge J adds, becomes `S round 1` by J; for r = 2 … n `S judge r`, which is
    J tuned anew with the hints of `S round r−1`, and `S round r` by it, which is called S itself for r = n. Every judge
    is asked the same questions, and what it answers replaces what was added before.

    Raises:
        ValueError: if the judge is not tuned, or a name is taken.
    """
    found: dict[str, Config] = {}
    for name, config in models.items():
        unknown = isinstance(config, AUGMENTED) and config.by is not None and config.by not in models
        if (
            not isinstance(config, AUGMENTED) or config.rounds == 1 or unknown
        ):  # the recipe refuses unknown names itself
            found[name] = config
            continue
        for new, system in _rounds(name, config, models):
            if new in found or (new in models and new != name):
                raise ValueError(f"the model '{name}' of {config.rounds} rounds needs the name '{new}', which is taken")
            found[new] = system
    return found


def _rounds(
    name: str, config: AugmentedConfig | AugmentedRatingsConfig, models: Mapping[str, Config]
) -> list[tuple[str, Config]]:
    first = models.get(config.by or "")
    if not isinstance(first, InstructedConfig) or not first.needs_instructions():
        judge = "the chat endpoint" if config.by is None else f"'{config.by}'"
        raise ValueError(
            f"the model '{name}' has {config.rounds} rounds, but {judge}, which adds its data, is tuned on no hints "
            "that could become better: name a ranker or rater with 'finetune' and without 'tuned'"
        )
    systems: list[tuple[str, Config]] = []
    by = config.by
    for number in range(1, config.rounds + 1):
        if number > 1:
            by, base = f"{name} judge {number}", f"{name} round {number - 1}"
            similar = None if first.similar == first.base else first.similar
            systems.append((by, first.model_copy(update={"base": base, "similar": similar})))
        last = number == config.rounds
        this = config.model_copy(update={"by": by, "rounds": 1})
        systems.append((name if last else f"{name} round {number}", this))
    return systems
