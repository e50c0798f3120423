"""Runs a search and kills itself with SIGKILL before the n-th checkpoint.

usage: killed_tune.py RECIPE OUT CHECKPOINT
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from tandemrec.experiment.recipe import load_recipe
from tandemrec.experiment.tune import tune
from tandemrec.training.state import TrainingState


def main(recipe: str, out: str, checkpoint: str) -> None:
    torch.set_num_threads(1)
    count, save = [0], TrainingState.save

    def saving(state: Any) -> None:
        count[0] += 1
        if count[0] == int(checkpoint):
            os.kill(os.getpid(), signal.SIGKILL)
        save(state)

    TrainingState.save = saving  # type: ignore[method-assign]
    tune(load_recipe(recipe), Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
