"""How long and how fast to learn."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from tandemrec.recommender import Config

Tracker = Literal["tensorboard", "mlflow", "wandb", "trackio"]


class TrainingConfig(Config):
    """Length, speed, precision and bookkeeping of a training."""

    epochs: int = Field(100, ge=1)
    """Upper limit of epochs."""

    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW."""

    matrix_learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate of Muon for the weights of linear maps, embeddings' excepted; null: AdamW takes them too."""

    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay."""

    beta2: float = Field(0.999, gt=0, lt=1)
    """Second moment decay of AdamW (the first is .9)."""

    warmup_steps: int = Field(0, ge=0)
    """Steps of linear warm-up."""

    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Decay after warm-up: none, or to zero at the last step of the last epoch."""

    decay_share: float = Field(1.0, gt=0, le=1)
    """Share of the steps after warm-up, the last ones, over which the rate decays; before them it is constant. Below 1,
    a training can be made longer by going on from a checkpoint of its constant part."""

    clip_norm: float | None = Field(1.0, gt=0)
    """Largest gradient norm; null: no clipping."""

    patience: int | None = Field(10, ge=1)
    """Validations without improvement (a tie is none) before stopping; null: never stop early."""

    validate_every: int = Field(1, ge=1)
    """Epochs between validations; the last epoch is always validated."""

    checkpoint_seconds: float = Field(60.0, ge=0)
    """Least time between two checkpoints within an epoch."""

    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Arithmetic of the forward pass; weights, gradients' sums and the optimiser stay in their own precision."""

    log_every: int = Field(10, ge=1)
    """Steps between two lines of `metrics.jsonl`, which a training with a workspace always writes."""

    trackers: tuple[Tracker, ...] = ()
    """Experiment trackers that get the same figures, each an installed package of that name."""

    @model_validator(mode="after")
    def _a_part_of_a_decay(self) -> Self:
        if self.decay_share < 1 and self.schedule == "constant":
            raise ValueError("decay_share goes with schedule: linear or cosine, found constant")
        return self


def learning_rate_factor(config: TrainingConfig, step: int, total_steps: int) -> float:
    """Share of the peak learning rate at a step (0-based): linear warm-up, then the schedule."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    done = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    done = max(0.0, (done - (1 - config.decay_share)) / config.decay_share)
    return 1.0 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
