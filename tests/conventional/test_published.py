"""The likes-only protocol on real data: counts and figures of the reference measurements, to four digits."""

import pytest

from tandemrec.conventional.direct.ease import EASE, EASEConfig
from tandemrec.conventional.direct.itemknn import ItemKNN, ItemKNNConfig
from tandemrec.conventional.popularity import Popularity
from tandemrec.data.filter import CleaningConfig, clean
from tandemrec.data.locations import data_root
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.sources import Amazon, MovieLens
from tandemrec.data.split import make_split
from tandemrec.evaluation.evaluate import EvaluationConfig, evaluate
from tandemrec.recommender import Scorer

LIKES = EvaluationConfig(cutoffs=(3, 5, 10), candidates="train", unreachable="skip")


@pytest.mark.parametrize(
    ("edition", "model", "users", "hit_rate", "ndcg"),
    [
        ("ml-100k", Popularity(), 927, 0.0820, 0.0408),
        ("ml-100k", ItemKNN(), 927, 0.1122, 0.0617),
        ("ml-100k", EASE(EASEConfig(l2=100)), 927, 0.1370, 0.0755),
        ("ml-1m", EASE(EASEConfig(l2=300)), 6032, 0.0905, 0.0442),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Scorer) else None,
)
def test_figures_of_the_likes_only_protocol(
    edition: str, model: Scorer, users: int, hit_rate: float, ndcg: float
) -> None:
    if not (data_root() / edition).is_dir():
        pytest.skip(f"{edition} is not in {data_root()} (TANDEMREC_DATA)")
    data, _ = clean(MovieLens(edition=edition).load(), CleaningConfig(min_rating=4))  # type: ignore[arg-type]
    split = make_split(data, LeaveOneOut(test_history="train"))
    model.fit(split)
    judged = evaluate(model, split, LIKES)
    assert judged.per_example.height == users
    assert judged.metrics["hr@10"]["mean"] == pytest.approx(hit_rate, abs=6e-5)
    assert judged.metrics["ndcg@10"]["mean"] == pytest.approx(ndcg, abs=6e-5)


def test_figures_on_amazon_toys() -> None:
    """Without decay those of the reference measurement; with it ours, which a sequential model must beat."""
    if not (data_root() / "amazon-toys").is_dir():
        pytest.skip(f"amazon-toys is not in {data_root()} (TANDEMREC_DATA)")
    data, _ = clean(Amazon(edition="2014", path="amazon-toys").load(), CleaningConfig())
    split = make_split(data, LeaveOneOut())
    for decay, hit_rate, ndcg in ((1.0, 0.0725, 0.0428), (0.7, 0.0857, 0.0527)):
        model = ItemKNN(ItemKNNConfig(decay=decay))
        model.fit(split)
        judged = evaluate(model, split, EvaluationConfig(cutoffs=(10,)))
        assert judged.per_example.height == 19_412
        assert judged.metrics["hr@10"]["mean"] == pytest.approx(hit_rate, abs=6e-5)
        assert judged.metrics["ndcg@10"]["mean"] == pytest.approx(ndcg, abs=6e-5)


@pytest.mark.parametrize(
    ("edition", "users", "trained", "items", "reachable", "two"),
    [("ml-100k", 942, 53_491, 1_427, 927, 940), ("ml-1m", 6_038, 563_206, 3_525, 6_032, 6_035)],
)
def test_counts_of_the_likes_only_protocol(
    edition: str, users: int, trained: int, items: int, reachable: int, two: int
) -> None:
    if not (data_root() / edition).is_dir():
        pytest.skip(f"{edition} is not in {data_root()} (TANDEMREC_DATA)")
    data, _ = clean(MovieLens(edition=edition).load(), CleaningConfig(min_rating=4))  # type: ignore[arg-type]
    split = make_split(data, LeaveOneOut(test_history="train", short_users="cut"))
    has_item = split.item_counts > 0
    assert (len(data.users), int(split.user_counts.sum()), int(has_item.sum())) == (users, trained, items)
    assert int(has_item[split.test.target.flat()].sum()) == reachable
    assert int((split.user_counts >= 2).sum()) == two
