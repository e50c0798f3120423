"""`tandem llm build`: a nano language model from a recipe's catalogue and further texts, as a folder of its own."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tandemrec.errors import InputError
from tandemrec.experiment.files import check_folder
from tandemrec.experiment.recipe import Recipe
from tandemrec.experiment.run import prepare
from tandemrec.experiment.seeds import derive_seed
from tandemrec.llm.nano import NanoConfig, build_nano
from tandemrec.llm.recommenders.base import LanguageModelUser
from tandemrec.recommender import FitReport


def build_llm(
    recipe: Recipe, to: Path, *, texts: Sequence[Path] = (), millions: float | None = None, store: Path | None = None
) -> FitReport:
    """Build the language model of a recipe (its first nano model, else the defaults) into the folder `to`.

    A killed call continues from the checkpoints in `TO.work` when it is started again.

    Raises:
        InputError: if `to` exists or cannot be made, or a text file cannot be read.
    """
    if to.exists():
        raise InputError(f"{to} exists already; nothing was written")
    check_folder(to, "a language model")
    configs = (config.lm for config in recipe.models.values() if isinstance(config, LanguageModelUser))
    config = next((lm for lm in configs if isinstance(lm, NanoConfig)), NanoConfig())
    tree = config.model_dump() | {"text_files": (*config.text_files, *texts)}
    if millions is not None:
        tree["millions"] = millions
    config = NanoConfig.model_validate(tree)
    dataset = prepare(recipe, store=store)[0].dataset
    draft, work = to.with_name(to.name + ".draft"), to.with_name(to.name + ".work")
    shutil.rmtree(draft, ignore_errors=True)
    report = build_nano(dataset, config, draft, seed=derive_seed(recipe.seed, "language-model"), workspace=work)
    draft.rename(to)
    shutil.rmtree(work)
    return report
