"""What every sequence model promises: answers that depend on the history alone, for anybody; storage; resuming."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from tandemrec.conventional.sequential.bert4rec import BERT4Rec, BERT4RecConfig
from tandemrec.conventional.sequential.caser import Caser, CaserConfig
from tandemrec.conventional.sequential.cl4srec import CL4SRec, CL4SRecConfig
from tandemrec.conventional.sequential.dcrec import DCRec, DCRecConfig
from tandemrec.conventional.sequential.dros import DROS, DROSConfig
from tandemrec.conventional.sequential.gru4rec import GRU4Rec, GRU4RecConfig
from tandemrec.conventional.sequential.model import SequenceModel
from tandemrec.conventional.sequential.sasrec import SASRec, SASRecConfig
from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import Examples, Ragged
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.split import Split, make_split
from tandemrec.errors import InputError
from tandemrec.experiment.models import CONVENTIONAL
from tandemrec.training import TrainingConfig, train
from tandemrec.training.state import TrainingState

TRAINING = TrainingConfig(epochs=2, learning_rate=0.01, patience=None, checkpoint_seconds=0)
SHARED: dict[str, Any] = {"max_length": 6, "dim": 8, "dropout": 0.0, "batch_size": 8, "training": TRAINING}

MODELS = {
    "SASRec": (SASRec, SASRecConfig(blocks=1, **SHARED)),
    "SASRec bce": (SASRec, SASRecConfig(blocks=1, loss="bce", bce_negatives=2, chunks=True, **SHARED)),
    "GRU4Rec": (GRU4Rec, GRU4RecConfig(hidden=12, **SHARED)),
    "Caser": (Caser, CaserConfig(window=3, loss="softmax", **SHARED)),
    "Caser bce": (Caser, CaserConfig(window=3, users=False, **SHARED)),
    "BERT4Rec": (BERT4Rec, BERT4RecConfig(layers=1, **SHARED)),
    "BERT4Rec bce": (BERT4Rec, BERT4RecConfig(layers=1, loss="bce", **SHARED)),
    "CL4SRec": (CL4SRec, CL4SRecConfig(blocks=1, **SHARED)),
    "DCRec": (DCRec, DCRecConfig(layers=1, edge_dropout=0.0, neighbours=20, **SHARED)),
    "DROS": (DROS, DROSConfig(backbone=SASRecConfig(blocks=1, scale_embedding=False, **SHARED))),
    "DROS tied": (DROS, DROSConfig(backbone=GRU4RecConfig(loss="bce", **SHARED), head="tied")),
}
Case = tuple[type[SequenceModel[Any, Any]], Any]


@pytest.fixture(params=MODELS, ids=MODELS.keys())
def case(request: pytest.FixtureRequest) -> Case:
    return MODELS[request.param]


def split_of(rename: np.ndarray) -> Split:
    """Thirty users with 3 to 12 of twenty items; item i has id `rename[i]`."""
    rng = np.random.default_rng(5)
    rows = [
        (u, int(rename[i]), t)
        for u in range(30)
        for t, i in enumerate(rng.choice(20, int(rng.integers(3, 13)), replace=u % 7 == 0))
    ]
    rows += [(30, int(rename[i]), i) for i in range(20)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return make_split(Dataset.from_frames(frame), LeaveOneOut())


@pytest.fixture(scope="module")
def split() -> Split:
    return split_of(np.arange(20))


def fitted(case: Case, split: Split, **overrides: Any) -> SequenceModel[Any, Any]:
    kind, config = case
    if overrides and isinstance(config, DROSConfig):
        overrides = {"backbone": config.backbone.model_copy(update=overrides)}
    model = kind(config.model_copy(update=overrides), "cpu")
    model.fit(split, seed=3)
    return model


def test_answers_depend_on_the_example_alone(case: Case, split: Split, tmp_path: Path) -> None:
    model = fitted(case, split)
    asked = Examples.from_histories([[3], [1, 2, 3, 4, 5, 6, 7, 8, 9], [], [5, 6], [7, 7, 7]], users=[4, -1, 2, 9, 99])
    scores = model.scores(asked)
    assert scores.shape == (5, 20)
    assert scores.dtype == torch.float32
    assert torch.isfinite(scores).all()
    assert not scores[2].any(), "an empty history says nothing"
    assert not torch.allclose(scores[0], scores[3])
    order = np.array([3, 1, 0, 2, 4])
    torch.testing.assert_close(model.scores(asked.take(order)), scores[torch.from_numpy(order)])
    for row in range(5):
        torch.testing.assert_close(model.scores(asked.take(slice(row, row + 1)))[0], scores[row])
    recent = Examples.from_histories([[4, 5, 6, 7, 8, 9]], users=[-1])
    torch.testing.assert_close(model.scores(recent)[0], scores[1])
    ranking, alone = model.rank(asked, 5), model.rank(asked.take(slice(1, 2)), 5)
    np.testing.assert_array_equal(ranking.items[1], alone.items[0])

    model.save(tmp_path)
    again = CONVENTIONAL[type(model.config)][1](tmp_path)
    torch.testing.assert_close(again.scores(asked), scores, rtol=0, atol=0)
    assert torch.equal(again.item_vectors, model.item_vectors)
    assert len(model.item_vectors) == 20


@pytest.mark.parametrize("name", [name for name in MODELS if "bce" not in name and name != "DROS tied"])
def test_renamed_items_get_the_same_scores(name: str, split: Split) -> None:
    """Trained from equal vectors; models with negatives are left out, which are drawn by item number."""
    kind, config = MODELS[name]
    rename = np.random.default_rng(0).permutation(20)
    other = split_of(rename)
    model, renamed = kind(config, "cpu"), kind(config, "cpu")
    model.module, renamed.module = model.module_for(split, 3), renamed.module_for(other, 3)
    old_number = torch.from_numpy(np.argsort(rename))
    with torch.no_grad():
        for (parameter, one), two in zip(model.module.named_parameters(), renamed.module.parameters(), strict=True):
            if parameter != "position.weight" and len(one) in (20, 21) and not parameter.startswith("user"):
                two[:20] = one[:20][old_number]
            else:
                assert torch.equal(one, two)
    for which, data in ((model, split), (renamed, other)):
        train(which.make_task(which.module, data, 3), which.settings.training, seed=3)
        which.adopt(which.module)
    np.testing.assert_array_equal(rename[split.test.history.flat()], other.test.history.flat())
    torch.testing.assert_close(
        renamed.scores(other.test)[:, torch.from_numpy(rename)], model.scores(split.test), rtol=1e-3, atol=1e-4
    )


def test_a_killed_training_ends_as_an_uninterrupted_one(
    case: Case, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, config = case
    update = {"dropout": 0.2}
    config = (
        config.model_copy(update={"backbone": config.backbone.model_copy(update=update)})
        if isinstance(config, DROSConfig)
        else config.model_copy(update=update)
    )
    whole = kind(config, "cpu")
    whole.fit(split, seed=3)
    save, saved = TrainingState.save, [0]

    def dying(state: TrainingState) -> None:
        save(state)
        saved[0] += 1
        if saved[0] == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingState, "save", dying)
    with pytest.raises(KeyboardInterrupt):
        kind(config, "cpu").fit(split, seed=3, workspace=tmp_path)
    resumed = kind(config, "cpu")
    resumed.fit(split, seed=3, workspace=tmp_path)
    assert saved[0] > 5
    torch.testing.assert_close(resumed.scores(split.test), whole.scores(split.test), rtol=0, atol=0)


def test_micro_batches_change_nothing(case: Case, split: Split) -> None:
    one, other = (fitted(case, split, micro_batch_tokens=tokens).scores(split.test) for tokens in (6, 4096))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


LEARNING: dict[str, Any] = {
    "dim": 16,
    "dropout": 0,
    "batch_size": 16,
    "training": TrainingConfig(epochs=50, learning_rate=0.01, patience=None, validate_every=50),
}


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (GRU4Rec, GRU4RecConfig(**LEARNING)),
        (Caser, CaserConfig(**LEARNING, loss="softmax", targets=1, users=False)),
        (BERT4Rec, BERT4RecConfig(**LEARNING, last_share=0.3, layers=1)),
        (CL4SRec, CL4SRecConfig(**LEARNING, blocks=1)),
        (DCRec, DCRecConfig(**(LEARNING | {"batch_size": 100}), layers=1)),
        (DROS, DROSConfig(backbone=SASRecConfig(**LEARNING, blocks=1))),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_it_learns_what_follows(kind: type[SequenceModel[Any, Any]], config: Any) -> None:
    rows = [(u, 7 * (u + t) % 20, t) for u in range(80) for t in range(4 + u % 7)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    ring = make_split(Dataset.from_frames(frame), LeaveOneOut())
    asked = ring.test.take(np.flatnonzero(ring.test.history.lengths < 8))  # places that training has seen
    model = kind(config, "cpu")
    model.fit(ring, seed=1)
    assert (model.rank(asked, 1).items[:, 0] == asked.target.flat()).mean() > 0.85


def test_nothing_to_learn_from_is_said(case: Case, split: Split) -> None:
    empty = Ragged.from_lists([[1]] * len(split.sequences))
    with pytest.raises(InputError, match="needs users with two training items, found none"):
        case[0](case[1], "cpu").fit(Split(split.dataset, empty, split.train, split.valid, split.test, "x"))


def test_configs_name_what_cannot_be() -> None:
    for make, words in (
        (lambda: BERT4RecConfig(dim=9), "heads must divide dim, found 2 heads and dim 9"),
        (lambda: DCRecConfig(dim=9), "heads must divide dim, found 2 heads and dim 9"),
        (lambda: CaserConfig(heights=(2, 6)), r"heights must be within 1 and window = 5, found \[2, 6\]"),
    ):
        with pytest.raises(ValueError, match=words):
            make()


def test_recipes_know_every_model(case: Case) -> None:
    assert type(CONVENTIONAL[type(case[1])][0](case[1])) is case[0]
