"""tandemrec: recommenders in which a language model and conventional models ride in tandem.

The names below are the library's front door. They are imported when first asked for: `import tandemrec` loads neither
torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tandemrec.data.dataset import Dataset
    from tandemrec.data.sources.frames import dataset_from_frames
    from tandemrec.errors import InputError
    from tandemrec.experiment.recipe import Recipe, load_recipe
    from tandemrec.experiment.run import Run, run

__version__ = "0.1.0"

__all__ = ["Dataset", "InputError", "Recipe", "Run", "__version__", "dataset_from_frames", "load_recipe", "run"]

_HOMES = {
    "Dataset": "data.dataset",
    "InputError": "errors",
    "Recipe": "experiment.recipe",
    "Run": "experiment.run",
    "dataset_from_frames": "data.sources.frames",
    "load_recipe": "experiment.recipe",
    "run": "experiment.run",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'tandemrec' has no attribute '{name}'")
    return getattr(import_module(f"tandemrec.{_HOMES[name]}"), name)
