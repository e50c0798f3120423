"""The one training loop: conventional models, language-model pre-training and fine-tuning all run through it."""

from tandemrec.training.config import TrainingConfig, learning_rate_factor
from tandemrec.training.loop import train
from tandemrec.training.processes import (
    default_device,
    from_first,
    gathered,
    part,
    process_count,
    process_rank,
    show_progress,
    wait_for_all,
)
from tandemrec.training.task import Task
from tandemrec.training.watch import watched

__all__ = [
    "Task",
    "TrainingConfig",
    "default_device",
    "from_first",
    "gathered",
    "learning_rate_factor",
    "part",
    "process_count",
    "process_rank",
    "show_progress",
    "train",
    "wait_for_all",
    "watched",
]
