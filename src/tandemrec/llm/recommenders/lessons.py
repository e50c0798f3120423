"""What a recommender that writes titles learns from: real answers, its own, or preferences between titles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from rich.progress import track
from safetensors.torch import load_file, save_file

from tandemrec.data.examples import Examples, ItemArray, Ragged
from tandemrec.errors import InputError
from tandemrec.llm.finetune import length_batches
from tandemrec.llm.generate import SamplingConfig
from tandemrec.llm.model import LanguageModel
from tandemrec.llm.objectives import SDPO, Prompted, Reduction
from tandemrec.llm.schedule import AdaptiveSchedule, ScheduleConfig
from tandemrec.recommender import Config
from tandemrec.training import process_rank, show_progress


class DistilConfig(Config):
    """How the answers of self-distillation are written and kept."""

    sampling: SamplingConfig | None = None
    """Learn from several answers drawn from the teacher, each with the weight τ / K; null: from its best beam, as in
    the paper."""

    ground: bool = False
    """Keep the nearest title of the catalogue in place of the text as it was written, which need not exist."""

    kind: str | None = Field(None, min_length=1)
    """Column of the items that says what kind an item is, for the share of hits of the right kind; null: the first
    there is of genres, genre, categories, category, main_category, series."""


class SFTConfig(Config):
    """Supervised fine-tuning on the real answers."""

    loss: Literal["sft"] = "sft"
    """Which objective this is."""

    reduction: Reduction = "tokens"
    """What the loss is averaged over: the label tokens of a step, or its examples."""


class SOFTConfig(Config):
    """Self-optimised fine-tuning on a mix of the teacher's answers and the real ones, by an adaptive weight."""

    loss: Literal["soft"]
    """Which objective this is."""

    teacher: str
    """The system whose answers are learned: the same model after supervised fine-tuning."""

    start: Literal["fresh", "teacher"] = "fresh"
    """Start from the base model, as the code of SOFT does, or from the teacher."""

    schedule: ScheduleConfig = AdaptiveSchedule()
    """The weight τ of the teacher's answers."""

    distil: DistilConfig = DistilConfig()
    """Which answers are kept."""

    reduction: Reduction = "tokens"
    """What the loss is averaged over: the label tokens of a step, or its examples."""


class SDPOConfig(Config):
    """Softmax-DPO: the target against titles the user has not met; one negative is DPO."""

    loss: Literal["sdpo"]
    """Which objective this is."""

    teacher: str
    """The system that training starts from, and that is the reference: the model after supervised fine-tuning."""

    negatives: int = Field(3, ge=1)
    """Titles K, uniform over the items outside the example's history and targets, drawn once."""

    beta: float = Field(1.0, gt=0)
    """Sharpness β."""


ObjectiveConfig = Annotated[SFTConfig | SOFTConfig | SDPOConfig, Field(discriminator="loss")]


def sdpo_lesson(
    config: SDPOConfig, lm: LanguageModel, preferences: Prompted, batch_tokens: int, workspace: Path | None
) -> SDPO:
    """Softmax-DPO against the model as it is now, whose log-probabilities are computed once.

    Args:
        config: the settings.
        lm: the reference, before its first step.
        preferences: N prompts with 1 + K completions, the target's first.
        batch_tokens: tokens that are run through the model at once.
        workspace: keeps the log-probabilities for a training that goes on after a kill, when `lm` has moved.
    """
    path = None if workspace is None else workspace / "reference.safetensors"
    if path is not None and path.exists():
        return SDPO(load_file(path)["reference_NC"], config.beta)
    reference_NC = torch.empty(len(preferences), len(preferences.completions[0]))
    batches = length_batches(preferences, range(len(preferences)), batch_tokens)
    lm.model.eval()
    with torch.no_grad():
        for rows in track(batches, "reference", transient=True, disable=not show_progress()):
            several = [preferences.completions[row] for row in rows]
            reference_NC[rows] = lm.log_probs([preferences.prompts[row] for row in rows], several).cpu()
    if path is not None and process_rank() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        save_file({"reference_NC": reference_NC}, draft)
        draft.replace(path)
    return SDPO(reference_NC, config.beta)


def draw_negatives(examples: Examples, n_items: int, k: int, seed: int) -> ItemArray:
    """K different items (B, K) for each example, uniform over those outside its history, seen items and targets.

    Raises:
        InputError: if an example leaves fewer than K items.
    """
    met = (examples.history, examples.seen, examples.target)
    return draw_unmet(met, n_items, k, np.random.default_rng(seed), f"key 'objective.negatives': found {k}")


def draw_unmet(met: Sequence[Ragged], n_items: int, k: int, rng: np.random.Generator, wanted: str) -> ItemArray:
    """K different items (B, K) for each row, uniform over those that the row has not met.

    Args:
        met: parts of what is met, each of B rows.
        n_items: size of the catalogue I.
        k: items of a row, at least 1.
        rng: where the draws come from.
        wanted: who asks for how many, with which the message begins.

    Raises:
        InputError: if a row leaves fewer than K items.
    """
    keys = np.sort(np.concatenate([part.rows() * n_items + part.flat() for part in met]))
    keys = keys[np.diff(keys, prepend=-1) > 0]
    left = n_items - int(np.bincount(keys // n_items, minlength=1).max())
    if left < k:
        raise InputError(f"{wanted}, but a user leaves only {left} item{'' if left == 1 else 's'} unmet")
    drawn = rng.integers(n_items, size=(len(met[0]), k))
    rows = np.arange(len(drawn))
    keys = np.append(keys, len(drawn) * n_items)  # an end that is no item, so that every search finds a place
    # Wrong entries alone are drawn again: a row of many would hardly ever be right as a whole. No unmet item is treated
    # otherwise than another, so all sequences of K different ones remain equally likely.
    while len(rows):
        items = drawn[rows]
        order = np.argsort(items, axis=1, kind="stable")
        ordered = np.take_along_axis(items, order, 1)
        again = np.zeros(items.shape, bool)
        np.put_along_axis(again, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], 1)
        asked = items + rows[:, None] * n_items
        again |= keys[np.searchsorted(keys, asked)] == asked
        wrong = again.any(1)
        rows, items, again = rows[wrong], items[wrong], again[wrong]
        items[again] = rng.integers(n_items, size=int(again.sum()))
        drawn[rows] = items
    return drawn.astype(np.int32)
