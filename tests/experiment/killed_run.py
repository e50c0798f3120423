"""Runs a recipe and kills itself with SIGKILL in a named stage: at its end, or at its n-th checkpoint.

usage: killed_run.py RECIPE OUT STAGE WHERE      WHERE: "end" or the number of a checkpoint
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from tandemrec.experiment.recipe import load_recipe
from tandemrec.experiment.run import run
from tandemrec.experiment.store import Store
from tandemrec.llm import generate
from tandemrec.training.state import TrainingState


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(recipe: str, out: str, stage: str, where: str) -> None:
    torch.set_num_threads(1)
    current, checkpoints = [""], [0]
    make = Store._make

    def making(store: Store, name: str, key: str, directory: Path, depends: Any, maker: Any, *more: Any) -> Any:
        current[0] = name

        def inner(draft: Path, work: Path) -> Any:
            summary = maker(draft, work)
            if name == stage and where == "end":
                die()
            return summary

        return make(store, name, key, directory, depends, inner, *more)

    save, search = TrainingState.save, generate._beam_search

    def counted() -> None:
        if current[0] == stage and where != "end":
            checkpoints[0] += 1
            if checkpoints[0] > int(where):
                die()

    def saving(state: Any) -> None:
        counted()
        save(state)

    def searching(*arguments: Any) -> Any:
        counted()
        return search(*arguments)

    Store._make = making  # type: ignore[method-assign]
    TrainingState.save = saving  # type: ignore[method-assign]
    generate._beam_search = searching
    run(load_recipe(recipe), Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
