"""The published Games split: which users the published influence cannot see."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from tandemrec.conventional.sequential.sasrec import SASRecConfig, SASRecModule
from tandemrec.data.examples import Examples, Ragged
from tandemrec.data.locations import data_root
from tandemrec.errors import InputError
from tandemrec.experiment.recipe import load_recipe
from tandemrec.experiment.run import prepare
from tandemrec.selection.influence import InfluenceConfig, influence
from tandemrec.selection.solver import ConjugateGradientsConfig
from tandemrec.selection.surrogate import Surrogate, SurrogateConfig

N_ITEMS = 17_332


@pytest.fixture(scope="module")
def games() -> Examples:
    """Every user's training items, the last one as target."""
    path = data_root() / "reference_splits" / "dealrec_games" / "sequential_train.txt.gz"
    if not path.exists():
        pytest.skip(f"needs the published split {path} (set TANDEMREC_DATA)")
    rows = [np.array(line.split()[1:], np.int32) - 1 for line in gzip.decompress(path.read_bytes()).splitlines()]
    sequences = Ragged.from_lengths(np.concatenate(rows), np.array([len(row) for row in rows]))
    history = Ragged(sequences.values, sequences.starts, sequences.stops - 1)
    n = len(sequences)
    return Examples(np.arange(n, dtype=np.int32), history, sequences.tail(1), history, np.zeros(n, np.int64))


def test_published_mode_gives_7935_users_no_influence(games: Examples) -> None:
    assert len(games) == 49_156
    network = SASRecModule(SASRecConfig(dim=8, blocks=1, max_length=50), N_ITEMS, seed=0)
    config = InfluenceConfig(solver=ConjugateGradientsConfig(max_iterations=2))
    published = influence(Surrogate(network, 50, SurrogateConfig(own_target=False)), games, config)
    nothing = published.scores == 0
    assert nothing.sum() == 7_935
    assert (games.history.lengths[nothing] < 2).all()
    paper = influence(Surrogate(network, 50, SurrogateConfig()), games, config)
    assert (paper.scores == 0).sum() == (games.history.lengths < 1).sum() == 3_382


@pytest.mark.parametrize(
    ("name", "train", "short", "askers", "targets"),
    [("games", 49_156, 7_935, 8_696, 19_733), ("microlens", 49_416, None, 20_748, 35_310)],
)
def test_the_recipes_read_the_published_splits(
    name: str, train: int, short: int | None, askers: int, targets: int, tmp_path: Path
) -> None:
    """One training example a user, and all test items of a user are targets of one example."""
    recipe = load_recipe(f"dealrec/{name}", {"split.sample": {}})
    try:
        split, _ = prepare(recipe, store=tmp_path)
    except InputError as error:
        pytest.skip(f"needs the data of the recipe: {error}")
    assert len(split.train) == train
    assert (split.train.target.lengths == 1).all()
    assert len(set(split.test.user.tolist())) == len(split.test) == askers
    assert split.test.target.lengths.sum() == targets
    if short is not None:
        assert (split.train.history.lengths < 2).sum() == short
