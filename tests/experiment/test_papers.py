"""The index of papers: every experiment is a valid recipe at every size, and nothing of its data need be there."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

import tandemrec
from tandemrec.augmentation.dllm2rec import DLLM2RecConfig
from tandemrec.errors import InputError
from tandemrec.evaluation.ratings import RatingEvaluationConfig
from tandemrec.experiment.fine_tunings import effort
from tandemrec.experiment.papers import (
    SCALES,
    Better,
    Cheaper,
    Easier,
    Experiment,
    Scale,
    described,
    elsewhere,
    experiment_recipe,
    experiments,
    find_experiment,
    papers,
    read_scale,
    read_seeds,
)
from tandemrec.experiment.recipe import Recipe, load_recipe
from tandemrec.experiment.run import check
from tandemrec.experiment.variation import changed, reduced
from tandemrec.llm.recommenders.base import LanguageModelUser, PretrainedConfig

TESTS = Path(__file__).parents[1]
NAMES = list(experiments())
TREE: dict[str, Any] = {
    "name": "tree",
    "data": {"format": "movielens", "edition": "ml-1m", "path": "here"},
    "split": {"protocol": "leave-one-out", "history": 7},
    "models": {
        "EASE": {"model": "ease", "l2": 5},
        "SASRec": {"model": "sasrec", "dim": 8, "training": {"epochs": 3, "patience": None}},
        "GRU": {"model": "gru4rec", "dim": 8},
        "Best": {"model": "best", "among": ["EASE", "SASRec"]},
    },
}


def systems_of(one: Experiment) -> set[str]:
    return {name for claim in one.claims for name in claim.model_dump().values() if isinstance(name, str)}


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data, no models, no recipes of one's own."""
    monkeypatch.chdir(tmp_path)
    for folder in ("DATA", "MODELS"):
        monkeypatch.setenv(f"TANDEMREC_{folder}", str(tmp_path / "nothing"))


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_is_a_recipe_at_every_size(name: str, scale: Scale) -> None:
    one, recipe = find_experiment(name), experiment_recipe(name, scale)
    asked = one.size(scale).systems or one.systems or ()
    assert set(asked) <= set(recipe.models)
    assert recipe.tune is None
    if scale != "smoke":
        assert systems_of(one) | set(one.rivals) <= set(recipe.models)
        assert not [name for name in asked if any(fnmatchcase(name, part) for part in one.parts)]
    assert one.judged_by in one.metrics
    if not isinstance(recipe.evaluation, RatingEvaluationConfig):
        assert {int(metric.partition("@")[2]) for metric in one.metrics} <= set(recipe.evaluation.cutoffs)
    users = [config for config in recipe.models.values() if isinstance(config, LanguageModelUser)]
    if scale == "full":
        assert all(isinstance(user.lm, PretrainedConfig) and "/" in user.lm.path for user in users)
    else:
        assert not any(isinstance(user.lm, PretrainedConfig) and "/" in user.lm.path for user in users)
    if scale == "smoke":
        check(recipe)  # would name what is missing


@pytest.mark.parametrize("name", NAMES)
def test_modules_tests_and_published_systems_are_there(name: str) -> None:
    one = find_experiment(name)
    package = Path(tandemrec.__file__).parent
    assert not [path for path in one.modules if not (package / path).is_file()]
    assert not [path for path in one.tests if not (TESTS / path).is_file()]
    scaled, full = (set(experiment_recipe(name, scale).models) for scale in ("scaled", "full"))
    assert set(one.published) & scaled == set(one.published) & full
    assert set(one.published) - full <= {"LLM-CF", "DLLM2Rec"}


def test_the_papers_are_there() -> None:
    assert list(papers()) == ["dealrec", "dllm2rec", "llama4rec", "soft"]
    assert len(described()) == len(NAMES) > 25
    assert {"soft/table-2-game", "dealrec/table-4", "llama4rec/table-5-ml-1m"} <= set(NAMES)


def test_systems_of_other_parts_of_a_table_are_found() -> None:
    parts = {"LLM-CF": "soft/table-2-game-llm-cf", "DLLM2Rec": "soft/table-2-game-dllm2rec"}
    assert elsewhere("soft/table-2-game", "scaled") == parts
    assert elsewhere("dllm2rec/table-5-games", "scaled") == {}


def test_published_figures_by_hand() -> None:
    """One cell of every table, and what the tables themselves say of them."""
    assert find_experiment("soft/table-2-kindle").published["LLaRA SOFT"][3] == 0.0269
    assert find_experiment("dealrec/table-2-games").published["DEALRec"][1] == 0.0276
    assert find_experiment("dllm2rec/table-5-toys").published["DLLM2Rec DROS"] == (0.0463, 0.0225)
    assert find_experiment("dealrec/table-3-book").published["Full"][1] == 0.0108
    assert find_experiment("dealrec/table-4").published["DEALRec DCRec"][0] == 0.0211
    assert find_experiment("llama4rec/table-2-ml-1m").published["SGL Llama4Rec"][2] == 0.0480
    assert find_experiment("llama4rec/table-4-book-crossing").published["AFM Llama4Rec"][0] == 1.6244


@pytest.mark.parametrize("name", NAMES)
def test_published_figures_are_possible(name: str) -> None:
    """HR and recall do not fall with K, nor does NDCG, which is never above them."""
    one = find_experiment(name)
    for system, figures in one.published.items():
        known = {metric: value for metric, value in zip(one.metrics, figures, strict=True) if value is not None}
        for metric, value in known.items():
            kind, _, k = metric.partition("@")
            for other, beside in known.items():
                if other.partition("@")[0] == kind and k and int(other.partition("@")[2]) > int(k):
                    assert beside >= value, (system, metric, other)
            if kind == "ndcg":
                hit = known.get(f"hr@{k}", known.get(f"recall@{k}", 1.0))
                assert value <= hit, (system, metric)


def test_changes_are_merged_and_kinds_replace() -> None:
    change = {
        "data": {"format": "sample"},
        "split": {"history": 3},
        "models": {
            "*": {"dim": 4, "training": {"epochs": 1}},
            "SASRec": {"blocks": 1},
            "Small": {"like": "SASRec", "dim": 2},
            "Other": {"like": "SASRec", "model": "gru4rec", "training": {"epochs": 9}},
            "EASE": {"model": "ease"},
        },
    }
    tree = changed(TREE, change)
    assert tree["data"] == {"format": "sample"}
    assert tree["split"] == {"protocol": "leave-one-out", "history": 3}
    assert tree["models"]["SASRec"] == {
        "model": "sasrec", "dim": 4, "blocks": 1, "training": {"epochs": 1, "patience": None},
    }  # fmt: skip
    assert tree["models"]["Small"] == tree["models"]["SASRec"] | {"dim": 2}
    assert tree["models"]["Other"]["model"] == "gru4rec"
    assert tree["models"]["Other"]["training"] == {"epochs": 9, "patience": None}
    assert tree["models"]["EASE"] == {"model": "ease"}
    assert tree["models"]["Best"] == TREE["models"]["Best"]
    assert TREE["models"]["SASRec"]["dim"] == 8


def test_aliases_of_a_file_are_changed_apart() -> None:
    shared = {"epochs": 3}
    models = {"A": {"model": "sasrec", "training": shared}, "B": {"model": "sasrec", "training": shared}}
    tree = changed(TREE | {"models": models}, {"models": {"A": {"training": {"epochs": 1}}}})
    assert [tree["models"][name]["training"]["epochs"] for name in "AB"] == [1, 3]


def test_systems_come_with_what_they_build_on() -> None:
    assert list(reduced(TREE, ["Best"])["models"]) == ["EASE", "SASRec", "Best"]
    assert list(reduced(TREE, ["GRU"])["models"]) == ["GRU"]
    assert reduced(TREE, None) == TREE
    with pytest.raises(InputError, match="no system 'Beast', it has: EASE"):
        reduced(TREE, ["Beast"])


def test_selectors_go_with_those_who_learn_from_them() -> None:
    recipe = experiment_recipe("dealrec/ablation", "scaled")
    assert recipe.selection is not None
    assert set(recipe.selection.selectors) == {
        "Random", "DEALRec 0.3", "DEALRec without influence", "DEALRec without effort", "DEALRec greedy",
    }  # fmt: skip
    tree = load_recipe("dealrec/games").model_dump(mode="json")
    assert Recipe.model_validate(reduced(tree, ["SASRec"])).selection is None


@pytest.mark.parametrize(
    ("name", "bundled"),
    [
        ("soft/table-2-game", "soft/games"),
        ("soft/table-2-movie-dllm2rec", "dllm2rec/ml-1m"),
        ("dealrec/table-2-games", "dealrec/games"),
        ("dealrec/table-2-microlens", "dealrec/microlens"),
    ],
)
def test_a_scaled_experiment_is_the_bundled_recipe_itself(name: str, bundled: str) -> None:
    """Its stages are found again by who has run the recipe."""
    recipe, one = load_recipe(bundled), experiment_recipe(name, "scaled")
    assert one.models == {name: config for name, config in recipe.models.items() if name in one.models}
    assert (one.data, one.split, one.cleaning, one.evaluation) == (
        recipe.data, recipe.split, recipe.cleaning, recipe.evaluation,
    )  # fmt: skip


@pytest.mark.parametrize("data", ["ml-100k", "ml-1m", "book-crossing"])
def test_scaled_tables_of_the_same_data_share_their_trainings(data: str) -> None:
    """A table, its ablation, its other protocol: their conventional models and tuned language models are the same."""
    other = f"table-2-{data}-mf" if data == "ml-100k" else f"table-5-{data}"
    one, two, proper = (
        experiment_recipe(f"llama4rec/{name}", "scaled")
        for name in (f"table-2-{data}", other, f"table-2-{data}-proper")
    )
    assert all(one.models[name] == two.models[name] for name in ("EASE", "MF", "MF IFT", "MF tuned"))
    assert one.models == proper.models
    assert (one.data, one.cleaning, one.split.sample) == (two.data, two.cleaning, two.split.sample)


@pytest.mark.parametrize("scale", ["full", "scaled"])
@pytest.mark.parametrize("data", ["game", "movie", "kindle"])
def test_what_language_models_help_is_its_plain_self(data: str, scale: Scale) -> None:
    """Students keep their kinds at every size, and LLM-CF's backbone is the plain model beside it."""
    taught = experiment_recipe(f"soft/table-2-{data}-dllm2rec", scale).models
    students = {name: model.student for name, model in taught.items() if isinstance(model, DLLM2RecConfig)}
    assert students
    for name, student in students.items():
        assert student.model == name.split()[1].lower(), name
        if scale == "full":
            assert student == taught[name.split()[1]]
    thoughts = experiment_recipe(f"soft/table-2-{data}-llm-cf", scale).models
    assert thoughts["LLM-CF"].backbone == thoughts["SASRec sampled"]


def test_another_protocol_is_another_experiment() -> None:
    one, other = (find_experiment(f"llama4rec/table-5-ml-1m{protocol}") for protocol in ("", "-proper"))
    assert (other.shows, other.claims) == (f"{one.shows}, proper protocol", one.claims)
    assert other.scaled.differs == f"{one.scaled.differs} {one.protocols['proper'].differs}"
    for scale in ("full", "scaled"):
        mine, theirs = (experiment_recipe(f"llama4rec/table-5-ml-1m{name}", scale) for name in ("", "-proper"))
        assert mine.models == theirs.models
        assert (mine.split.test_history, theirs.split.test_history) == ("train", "all")
        assert mine.split == theirs.split.model_copy(update={"test_history": "train"})
        assert theirs.evaluation == mine.evaluation.model_copy(update={"candidates": "all", "unreachable": "miss"})
    direct = [f"table-{table}" for table in ("2-ml-100k", "2-ml-1m", "2-book-crossing", "5-ml-1m", "5-book-crossing")]
    assert {f"llama4rec/{table}-proper" for table in direct} <= set(NAMES)
    sequences = [name for name in NAMES if name.startswith("llama4rec/table-3")]
    judged = {name: experiment_recipe(name, "scaled") for name in sequences}
    for name, recipe in judged.items():
        proper = name.endswith("-proper")
        assert (recipe.split.test_history == "all") is recipe.evaluation.exclude_seen is proper, name
    assert len(sequences) == 8


def test_what_is_said_of_how_much_is_trained() -> None:
    words = effort(experiment_recipe("soft/table-2-game", "full"))
    assert "12 fine-tunings of meta-llama/Llama-3.2-3B on up to 4,096 examples, 7 epochs" in words
    assert effort(load_recipe(TREE)) == "4 systems"
    assert "on up to all examples" in effort(experiment_recipe("dealrec/table-3-games", "scaled"))


def test_mistakes_are_named() -> None:
    with pytest.raises(InputError, match=r"no experiment 'soft/table-2'; did you mean .*soft/table-2-game"):
        find_experiment("soft/table-2")
    with pytest.raises(InputError, match="--scale: found 'huge', expected one of full, scaled, smoke"):
        read_scale("huge")
    with pytest.raises(InputError, match="--seeds: found 'x', expected whole numbers"):
        read_seeds("1,x")
    assert read_seeds("1, 2") == [1, 2]
    assert read_seeds(None) is None
    with pytest.raises(ValueError, match="'EASE' has 1 published figures for 2 metrics"):
        Experiment.model_validate(
            {"shows": "a", "asks": "b", "recipe": "sample", "metrics": ["hr@5", "hr@10"], "judged_by": "hr@5"}
            | {"modules": ["cli.py"], "tests": ["test_cli.py"], "full": {}, "smoke": {}, "published": {"EASE": [0.1]}}
        )


def test_a_claim_is_one_of_three() -> None:
    kinds = {type(claim) for one in experiments().values() for claim in one.claims}
    assert kinds == {Better, Cheaper, Easier}
