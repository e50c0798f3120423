"""The one training loop: conventional models, language-model pre-training and fine-tuning all run through it."""

from tandemrec.training.config import TrainingConfig, learning_rate_factor
from tandemrec.training.engine import default_device, process_count, show_progress
from tandemrec.training.loop import train
from tandemrec.training.task import Task

__all__ = [
    "Task",
    "TrainingConfig",
    "default_device",
    "learning_rate_factor",
    "process_count",
    "show_progress",
    "train",
]
