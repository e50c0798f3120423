"""What a training takes, given what an epoch takes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tandemrec.training.config import TrainingConfig
from tandemrec.work import FLOAT, Work, muon, optimiser, training_memory


def training_work(
    epoch: Work,
    config: TrainingConfig,
    trained: float,
    validation: Work,
    *,
    frozen: float = 0.0,
    examples: float = 0.0,
    matrices: Iterable[tuple[int, int]] = (),
) -> Work:
    """All epochs with the optimiser's steps, the validations and the copies of the best weights.

    Args:
        epoch: forward and backward of an epoch, with the number of its steps; its memory is that of activations.
        config: of the training.
        trained: numbers that are trained.
        validation: of one validation.
        frozen: bytes of weights that are not.
        examples: training examples.
        matrices: shapes of the trained linear maps.
    """
    step = optimiser(trained, config.clip_norm is not None)
    if config.matrix_learning_rate is not None:
        step = sum((muon(*shape) for shape in matrices), step)
    each = replace(epoch, steps=0) + epoch.steps * step
    # A checkpoint an epoch: parameters and moments, and the best weights, copied and written.
    each += Work(bytes=FLOAT * trained * 8, calls=20)
    validations = -(-config.epochs // config.validate_every) / config.epochs
    memory = training_memory(trained) + frozen + max(epoch.memory, validation.memory)
    whole = (each + validations * validation) * config.epochs
    early = config.patience is not None and config.epochs > config.patience * config.validate_every
    return replace(whole, epochs=config.epochs, stops_early=early, memory=memory, examples=examples)
