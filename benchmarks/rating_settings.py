"""Settings of the rating recipes, chosen on the validation part: every setting of a small grid, a few seeds each.

    python benchmarks/rating_settings.py ml-100k-rating DCN AFM                  # the usual grid
    python benchmarks/rating_settings.py ml-1m-rating DeepFM --grid l2=0.1,0.3   # another one
    python benchmarks/rating_settings.py ml-100k-rating xDeepFM --origins 4      # four validation ratings a user
    python benchmarks/rating_settings.py --show                                  # the best setting of every model

What is learnt ends up in `results/rating_settings.json`, one row a setting: the validation RMSE of the best epoch, its
mean over seeds and origins. The test part is never predicted. One validation rating a user is few: settings whose true
errors differ by .01 change places. With `--origins N` each user's last rating is taken away N − 1 times, and every time
the models are trained and validated on what is left.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from operator import itemgetter
from pathlib import Path
from statistics import mean
from typing import Any

import polars as pl

from tandemrec import load_recipe
from tandemrec.data.dataset import Dataset
from tandemrec.data.split import make_split
from tandemrec.experiment.rating_models import RATING
from tandemrec.experiment.run import prepare

RESULTS = Path(__file__).resolve().parent / "results" / "rating_settings.json"
GRID = ("l2=0.3,1,3", "init_std=0.01,0.1")
SEEDS = (0, 1)


def settings(grid: Sequence[str]) -> list[dict[str, str]]:
    """All combinations of `key=value,value` texts."""
    keys = [text.partition("=")[0] for text in grid]
    values = [text.partition("=")[2].split(",") for text in grid]
    return [dict(zip(keys, chosen, strict=True)) for chosen in product(*values)]


def validated(recipe: str, system: str, setting: dict[str, str], seeds: Sequence[int], origins: int) -> dict[str, Any]:
    """Validation RMSE of one setting of a recipe's system: best epochs and their RMSE, one an origin and seed."""
    loaded = load_recipe(recipe, [f"models.{system}.{key}={value}" for key, value in setting.items()])
    config = loaded.models[system]
    dataset = prepare(loaded)[0].dataset
    reports = []
    for origin in range(origins):
        split = make_split(without_last(dataset, origin), loaded.split, loaded.seed)
        reports += [RATING[type(config)][0](config).fit(split, seed=seed) for seed in seeds]
    rmse = [-(report.best_value or 0.0) for report in reports]
    return {
        **{"recipe": recipe, "system": system, "setting": setting, "mean": mean(rmse), "rmse": rmse},
        **{"epochs": [report.best_epoch for report in reports], "origins": origins},
    }


def without_last(dataset: Dataset, n: int) -> Dataset:
    """The data without the last N ratings of every user."""
    from_behind = pl.int_range(pl.len()).reverse().over("user")
    return replace(dataset, interactions=dataset.interactions.filter(from_behind >= n))


def stored() -> list[dict[str, Any]]:
    """All settings measured so far; older rows do not say that they have one origin."""
    return [{"origins": 1} | row for row in json.loads(RESULTS.read_text())] if RESULTS.exists() else []


def store(row: dict[str, Any]) -> None:
    """Add a row; one of the same setting is replaced."""
    key = itemgetter("recipe", "system", "setting", "origins")
    rows = [old for old in stored() if key(old) != key(row)]
    RESULTS.write_text("[\n" + ",\n".join(json.dumps(one) for one in [*rows, row]) + "\n]\n")


def main() -> None:
    """Measure, print and keep every setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?")
    parser.add_argument("systems", nargs="*")
    parser.add_argument("--grid", nargs="+", default=GRID, metavar="KEY=VALUE,VALUE")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--origins", type=int, default=1, metavar="N")
    parser.add_argument("--show", action="store_true")
    arguments = parser.parse_args()
    for system in arguments.systems:
        for setting in settings(arguments.grid):
            row = validated(arguments.recipe, system, setting, arguments.seeds, arguments.origins)
            store(row)
            print(json.dumps(row), flush=True)
    if arguments.show:
        best: dict[tuple[str, str, int], dict[str, Any]] = {}
        for row in sorted(stored(), key=lambda row: -row["mean"]):
            best[row["recipe"], row["system"], row["origins"]] = row
        for row in best.values():
            print(json.dumps(row))


if __name__ == "__main__":
    main()
