"""How much a recipe trains, in a few words."""

from __future__ import annotations

from typing import TypeGuard

from tandemrec.experiment.recipe import Recipe
from tandemrec.llm.recommenders.base import LanguageModelUser, PretrainedConfig
from tandemrec.llm.recommenders.instructed import InstructedConfig
from tandemrec.llm.recommenders.tiger import TIGERConfig
from tandemrec.llm.recommenders.writer import WriterConfig


def effort(recipe: Recipe) -> str:
    """Systems, fine-tunings, the language models, examples and epochs."""
    tuned = {name: config for name, config in recipe.models.items() if _is_tuned(config)}
    tigers = sum(isinstance(config, TIGERConfig) for config in recipe.models.values())
    words = f"{len(recipe.models)} systems" + (f", {tigers} training{'s' * (tigers > 1)} of TIGER" if tigers else "")
    if not tuned:
        return words
    labels = " and ".join(dict.fromkeys(_label(config) for config in tuned.values()))
    epochs = max(_epochs(config) for config in tuned.values())
    examples = [_examples(recipe, name) for name in tuned]
    most = "all" if None in examples else f"{max(count for count in examples if count is not None):,}"
    tunings = f"{len(tuned)} fine-tuning{'s' * (len(tuned) > 1)} of {labels}"
    return f"{words}, {tunings} on up to {most} examples, {epochs} epoch{'s' * (epochs > 1)}"


def _is_tuned(config: object) -> TypeGuard[WriterConfig | InstructedConfig]:
    return isinstance(config, WriterConfig) or (isinstance(config, InstructedConfig) and config.needs_instructions())


def _epochs(config: WriterConfig | InstructedConfig) -> int:
    return 0 if config.finetune is None else config.finetune.training.epochs


def _label(config: LanguageModelUser) -> str:
    return config.lm.path if isinstance(config.lm, PretrainedConfig) else f"nano ({config.lm.millions:g} M)"


def _examples(recipe: Recipe, name: str) -> int | None:
    """Most examples that a fine-tuning learns from; None: all of the training part."""
    config, selector = recipe.models[name], recipe.selector_of(name)
    if isinstance(config, InstructedConfig):
        return sum(config.counts().values())
    if selector is not None and recipe.selection is not None:
        return recipe.selection.budget_of(selector)
    return recipe.split.sample.train
