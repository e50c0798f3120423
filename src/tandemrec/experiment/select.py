"""`tandem select`: the training examples worth fine-tuning on, chosen by every selector of a recipe.

The surrogate, the language model, influence, effort and choices are stages, found again by `tandem run`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import IntArray
from tandemrec.data.kinds import item_kinds
from tandemrec.data.locations import store_root
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.experiment.card import hardware, package_versions
from tandemrec.experiment.choices import Choices
from tandemrec.experiment.files import check_folder, write_whole
from tandemrec.experiment.recipe import Recipe
from tandemrec.experiment.run import check_data
from tandemrec.experiment.selection_facts import groups_of
from tandemrec.experiment.stages import Stages
from tandemrec.experiment.store import Artifact, StageEvent, Store
from tandemrec.selection.report import coverage_table, overlap_table, score_table
from tandemrec.selection.selector import FloatArray

SELECTION = "selection.json"


def select(
    recipe: Recipe,
    out: Path | None = None,
    *,
    validate: bool = False,
    dataset: Dataset | None = None,
    store: Path | None = None,
    listen: Callable[[StageEvent], None] = lambda event: None,
) -> dict[str, Any]:
    """Choose by every selector; one parquet file each, with all its scores, and `selection.json`.

    Args:
        recipe: with a `selection` part.
        out: where the files go; default `selections/NAME`.
        validate: also train the surrogate again on random subsets and say how well influence foretells its loss.
        dataset: replaces the recipe's data source.
        store: the artifact store.
        listen: told what happens to every stage.

    Returns:
        What `selection.json` holds.

    Raises:
        InputError: if the recipe selects nothing, or names models or columns that cannot serve.
    """
    if recipe.selection is None:
        raise InputError(f"recipe '{recipe.name}': key 'selection' is missing")
    out = out or Path("selections") / recipe.name
    check_folder(out)
    check_data(recipe, dataset)
    stages = Stages(Store(store or store_root(), listen), recipe)
    data, data_artifact = stages.data(dataset)
    kinds = item_kinds(data.items, recipe.selection.category, "selection.category")
    split, cut = stages.split(data, data_artifact)
    stages.take_trained(cut)
    split = split.untested()
    choices = Choices(stages, recipe.selection, split, cut)
    _train_judges(stages, choices, split, cut)
    chosen = {name: choices.choose(name) for name in recipe.selection.selectors}
    rows = {name: choice.rows for name, choice in chosen.items()}
    scores = {name: choices.scores(choice) for name, choice in chosen.items()}
    results = {
        "name": recipe.name,
        "seed": recipe.seed,
        "protocol": split.protocol,
        "examples": len(split.train),
        "budget": recipe.selection.budget,
        "coverage": coverage_table(split, split.train, rows, kinds),
        "overlap": overlap_table(rows),
        "groups": groups_of(recipe, scores),
        "influence": choices.facts,
    }
    if validate:
        results["validity"] = choices.validate()
    card = _card(stages, {name: choice.seconds for name, choice in chosen.items()})
    _write(out, split, rows, scores, results, card)
    return results | {"card": card}


def _train_judges(stages: Stages, choices: Choices, split: Split, cut: Artifact) -> None:
    """The models that selectors look at, those they build on, and the choices that any of these learn from."""
    recipe, needed = stages.recipe, set[str]()
    assert recipe.selection is not None
    waiting = [judge for selector in recipe.selection.selectors for judge in recipe.judges(selector)]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += recipe.builds_on(name)
    for name in recipe.training_order():
        if name in needed:
            selector = recipe.selector_of(name)
            stages.fit(name, split, cut, None if selector is None else choices.choose(selector))


def _card(stages: Stages, seconds: Mapping[str, float]) -> dict[str, Any]:
    """What it took, and where."""
    return {
        "seconds": {artifact.name: artifact.seconds for artifact in stages.made},
        "selectors": seconds,
        "packages": package_versions(),
        "hardware": hardware(),
    }


def _write(
    out: Path,
    split: Split,
    chosen: Mapping[str, IntArray],
    scores: Mapping[str, Mapping[str, FloatArray]],
    results: Mapping[str, Any],
    card: Mapping[str, Any],
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in chosen.items():
        table = score_table(split, split.train, scores[name], rows)
        table.write_parquet(out / f"{name}.all.parquet")
        table.filter("chosen").drop("chosen").write_parquet(out / f"{name}.parquet")
    write_whole(out / "selection_card.json", card)
    write_whole(out / SELECTION, results)
