"""Whole predictors: what they start from, what they learn, what they leave alone, what comes back from disk."""

from pathlib import Path

import numpy as np
import pytest
import torch
from rated import N_ITEMS, N_USERS, small_dataset, small_split

from tandemrec.conventional.rating.features import FeaturesConfig
from tandemrec.conventional.rating.fm import FM, FMConfig
from tandemrec.conventional.rating.predictor import InteractionConfig, InteractionModule, InteractionPredictor
from tandemrec.conventional.rating.table import FeatureTable
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.ratings import NOBODY, Pairs, target_ratings, training_ratings
from tandemrec.data.split import Split, make_split
from tandemrec.errors import InputError
from tandemrec.evaluation.metrics import rmse
from tandemrec.experiment.rating_models import RATING
from tandemrec.recommender import Config, RatingPredictor
from tandemrec.training import TrainingConfig

FEATURES = FeaturesConfig.model_validate(
    {"users": ["age", "zip_code"], "items": {"genres": {}, "title": {"kind": "words"}}}
)
TRAINING = TrainingConfig(epochs=3, learning_rate=0.02, clip_norm=None, patience=None)
INTERACTING = [config for config in RATING if issubclass(config, InteractionConfig)]


def settings(config: type[Config], **more: object) -> Config:
    if not issubclass(config, InteractionConfig):
        return config.model_validate(more)
    small = {"features": FEATURES, "dim": 4, "batch_size": 64, "training": TRAINING}
    return config.model_validate(small | more)


def made(config: Config) -> RatingPredictor:
    return RATING[type(config)][0](config)


def all_pairs() -> Pairs:
    users, items = np.meshgrid(np.arange(NOBODY, N_USERS), np.arange(NOBODY, N_ITEMS))
    return Pairs(users.ravel().astype(np.int32), items.ravel().astype(np.int32))


def test_rating_models_are_known_by_different_names() -> None:
    names = [config.model_fields["model"].default for config in RATING]
    assert len(set(names)) == len(names) == 9


@pytest.mark.parametrize("config", RATING, ids=lambda config: config.__name__)
def test_every_model_learns_repeats_itself_and_comes_back_from_disk(config: type[Config], tmp_path: Path) -> None:
    split, pairs = small_split(), all_pairs()
    model = made(settings(config))
    report = model.fit(split, seed=3, workspace=tmp_path / "work")
    predicted = model.predict(pairs)
    assert predicted.shape == (len(pairs),) and predicted.dtype == np.float32
    assert predicted.min() >= 1 and predicted.max() <= 5
    rated, _ = target_ratings(split, split.test)
    mean = training_ratings(split).value.mean()
    assert rmse(model.predict(rated.pairs), rated.value) < rmse(np.full(len(rated), mean), rated.value)
    again = made(settings(config))
    again.fit(split, seed=3)
    np.testing.assert_array_equal(again.predict(pairs), predicted)
    assert [row["rmse"] for row in report.curve] == sorted((row["rmse"] for row in report.curve), reverse=True) or (
        report.best_epoch is not None
    )
    model.save(tmp_path / "model")
    loaded = RATING[config][1](tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(pairs), predicted)
    assert not list((tmp_path / "model").glob("*.pkl")) + list((tmp_path / "model").glob("*.pt"))


@pytest.mark.parametrize("config", RATING, ids=lambda config: config.__name__)
def test_answers_of_other_parts_never_reach_the_weights(config: type[Config]) -> None:
    """Other test ratings change nothing; other validation ratings may only choose another epoch."""
    data = small_dataset()
    split = make_split(data, LeaveOneOut())
    rows = data.interactions.to_dict(as_series=False)
    last = np.flatnonzero(np.append(np.diff(rows["user"]) != 0, True))
    for row in last:
        rows["rating"][row] = 6.0 - rows["rating"][row]
    changed = type(data)(
        data.interactions.with_columns(rating=np.array(rows["rating"], np.float32)), data.items, data.users
    )
    pairs = all_pairs()
    first, second = made(settings(config)), made(settings(config))
    first.fit(split, seed=1)
    second.fit(make_split(changed, LeaveOneOut()), seed=1)
    np.testing.assert_array_equal(first.predict(pairs), second.predict(pairs))


def test_the_bias_starts_at_the_training_mean_and_unknown_values_at_nothing() -> None:
    split = small_split()
    table = FeatureTable.of(split, FEATURES)
    module = InteractionModule(FMConfig(dim=4, features=FEATURES), table, mean=3.25, seed=0)
    nobody = Pairs(np.array([NOBODY], np.int32), np.array([NOBODY], np.int32))
    assert module(*table.lookup(*table.places(nobody)))[0].item() == 3.25
    used = torch.ones(table.rows, dtype=torch.bool)
    used[table.unknown] = used[0] = False
    assert module.rows[used, :-1].std().item() == pytest.approx(0.01, rel=0.2)
    assert not module.rows[~used].any() and not module.rows[:, -1].any()


def test_only_touched_rows_move_under_plain_gradient_steps() -> None:
    """The penalty's gradient is zero on every row that the batch does not use."""
    split = small_split()
    model = FM(FMConfig(dim=4, features=FEATURES, l2=0.5, l2_linear=0.25, training=TRAINING))
    model.fit(split, seed=0)
    assert model.module is not None and model.table is not None
    from tandemrec.conventional.rating.predictor import _Rating

    task = _Rating(model, model.module, model.table, split, seed=0)
    (batch,) = task.batches(torch.tensor([0, 5]))
    module = model.module
    module.zero_grad()
    task.loss(batch).backward()
    ids = batch.ids_BK.flatten()
    touched = torch.zeros(model.table.rows, dtype=torch.bool)
    touched[ids[ids > 0]] = True
    assert module.rows.grad is not None
    assert not module.rows.grad[~touched].any() and module.rows.grad[touched].abs().sum(1).all()


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_penalty_by_hand(power: float) -> None:
    """Σ over examples and fields of (λ |v|² + λ' w²) / n^power, a set counting by its mean vector."""
    split = small_split()
    model = FM(FMConfig(dim=3, features=FEATURES, l2=0.5, l2_linear=0.25, l2_power=power, training=TRAINING))
    model.fit(split, seed=0)
    assert model.module is not None and model.table is not None
    from tandemrec.conventional.rating.predictor import _Rating

    table, rows = model.table, model.module.rows.detach().double()
    task, counts = _Rating(model, model.module, table, split, seed=0), table.counts(split)
    chosen = torch.tensor([1, 7, 30])
    (batch,) = task.batches(chosen)
    single, *sets = batch.ids_BK.split([batch.ids_BK.shape[1] - sum(table.widths), *table.widths], 1)
    expected = 0.0
    for b in range(3):
        groups = [[row] for row in single[b].tolist()] + [[row for row in ids[b].tolist() if row] for ids in sets]
        prediction = model.module.bias.item()
        vectors = []
        for members in groups:
            mean = sum(rows[member] for member in members) / len(members)
            weight = sum(max(1.0, float(counts[member])) ** -power for member in members) / len(members)
            expected += weight * (0.5 * float((mean[:-1] ** 2).sum()) + 0.25 * float(mean[-1] ** 2))
            prediction += float(mean[-1])
            vectors.append(mean[:-1])
        prediction += sum(float(vectors[i] @ vectors[j]) for i in range(len(vectors)) for j in range(i))
        expected += (prediction - float(task.value[chosen[b]])) ** 2
    assert task.loss(batch).item() == pytest.approx(expected, rel=1e-4)


def test_dropout_is_on_in_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[bool] = []
    plain = InteractionModule.forward

    def spy(self: InteractionModule, *ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        modes.append(self.training)
        return plain(self, *ids)

    monkeypatch.setattr(InteractionModule, "forward", spy)
    made(settings(INTERACTING[1])).fit(small_split(), seed=0)
    epoch = [True] * 4 + [False]  # 240 training rows in batches of 64, then validation
    assert modes == epoch * 3


@pytest.mark.parametrize("config", INTERACTING, ids=lambda config: config.__name__)
def test_half_precision_learns_about_as_well(config: type[Config]) -> None:
    errors = []
    for precision in ("no", "bf16"):
        training = TRAINING.model_copy(update={"mixed_precision": precision})
        report = made(settings(config, training=training)).fit(small_split(), seed=0)
        errors.append([row["rmse"] for row in report.curve])
    np.testing.assert_allclose(errors[1], errors[0], rtol=0.15)


def test_clipping_is_an_option() -> None:
    split = small_split()
    wild = {"training": TRAINING.model_copy(update={"learning_rate": 0.5}), "l2": 0.0}
    free, cut = FM(settings(FMConfig, clip=False, **wild)), FM(settings(FMConfig, **wild))  # type: ignore[arg-type]
    free.fit(split, seed=0)
    cut.fit(split, seed=0)
    raw = free.predict(all_pairs())
    assert raw.min() < 1 or raw.max() > 5
    assert cut.predict(all_pairs()).max() <= 5 and cut.predict(all_pairs()).min() >= 1


def test_fm_without_attributes_is_biased_matrix_factorization() -> None:
    model = FM(FMConfig(dim=4, training=TRAINING, clip=False))
    model.fit(small_split(), seed=0)
    assert model.module is not None and model.table is not None
    rows = model.module.rows.detach()
    u, i = rows[model.table.user_single[7, 0]], rows[model.table.item_single[3, 0]]
    expected = model.module.bias.item() + (u[-1] + i[-1] + u[:-1] @ i[:-1]).item()
    found = model.predict(Pairs(np.array([7], np.int32), np.array([3], np.int32)))
    assert found[0] == pytest.approx(expected, abs=1e-5)


def test_a_damaged_or_foreign_folder_is_refused(tmp_path: Path) -> None:
    model = FM(settings(FMConfig))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="FM must be fitted"):
        model.predict(all_pairs())
    with pytest.raises(InputError, match=r"holds no saved model: there is no config\.json"):
        FM.load(tmp_path)


def test_abstract_parts_stay_abstract() -> None:
    assert issubclass(FM, InteractionPredictor) and issubclass(InteractionPredictor, RatingPredictor)
    with pytest.raises(TypeError):
        RatingPredictor()  # type: ignore[abstract]


def test_a_split_keeps_whose_rating_is_whose_in_any_order(tmp_path: Path) -> None:
    """An arbitrary order moves items; their ratings go with them, through a save too."""
    data = small_dataset()
    unordered = type(data)(data.interactions, data.items, data.users, "none", "small")
    truth = {(u, i): r for u, i, r, *_ in unordered.interactions.iter_rows()}
    split = make_split(unordered, LeaveOneOut(order_seed=4))
    split.save(tmp_path)
    for one in (split, Split.load(tmp_path, unordered)):
        for ratings in (training_ratings(one), target_ratings(one, one.valid)[0], target_ratings(one, one.test)[0]):
            pairs = zip(ratings.pairs.user.tolist(), ratings.pairs.item.tolist(), strict=True)
            assert [truth[pair] for pair in pairs] == ratings.value.tolist()
