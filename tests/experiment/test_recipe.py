"""Recipes: validated whole, with one clear sentence for what is wrong."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tandemrec.errors import InputError
from tandemrec.experiment.bundled import read_recipe, recipe_names
from tandemrec.experiment.recipe import Recipe, load_recipe
from tests.experiment.test_models import ASKED, RANKING, RATING

GOOD = {
    "name": "good",
    "data": {"format": "sample"},
    "split": {"protocol": "leave-one-out"},
    "models": {"EASE": {"model": "ease", "l2": 5}, "K.N.N": {"model": "itemknn"}},
}


@pytest.mark.parametrize("name", recipe_names())
def test_bundled_recipes_are_valid_and_say_how_they_are_run(name: str) -> None:
    assert load_recipe(name).models
    assert read_recipe(name).startswith(f"# tandem run {name}")


@pytest.mark.parametrize("name", ["ml-100k-rating-backbones", "ml-100k-rating", "ml-1m-rating", "book-crossing-rating"])
def test_llama4rec_begins_with_the_rating_models_as_they_are_best_alone(name: str) -> None:
    alone = load_recipe(name.removesuffix("-backbones")).models
    joined = load_recipe(f"llama4rec/{name}").models
    shared = alone.keys() & joined.keys()
    assert {"Biased MF", "NFM"} <= shared
    assert {system: joined[system] for system in shared} == {system: alone[system] for system in shared}


def test_overrides_leave_the_callers_mapping_alone() -> None:
    before = copy.deepcopy(GOOD)
    load_recipe(GOOD, ["models.EASE.l2=7.5", "seed=3"])
    assert before == GOOD


def test_overrides_reach_any_key() -> None:
    recipe = load_recipe(GOOD, ["models.EASE.l2=7.5", "seed=3", "models.K.N.N.decay=0.5", "evaluation.cutoffs=[1, 10]"])
    assert recipe.models["EASE"].l2 == 7.5  # type: ignore[union-attr]
    assert recipe.models["K.N.N"].decay == 0.5  # type: ignore[union-attr]
    assert (recipe.seed, recipe.evaluation.cutoffs) == (3, (1, 10))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("models.EASE.lambda=3", "key 'models.EASE': unknown key 'lambda'; known are: model, l2"),
        ("modles=3", r"unknown key 'modles'; did you mean 'models'\?"),
        ("models.EASE.l2=-1", "key 'models.EASE.l2': input should be greater than 0, found -1"),
        ("models.EASE.l2=.inf", "key 'models.EASE.l2': .*finite number"),
        (
            "models={E: {model: ease}, R: {model: ranker, base: E, tuned: E}}",
            "tuned for 'E', which is of the kind 'ease'",
        ),
        ("models.EASE.l2=many", "key 'models.EASE.l2': .*valid number.*found 'many'"),
        ("models.EASE.model=eeze", "key 'models.EASE': .*'eeze'"),
        ("split.protocol=random", "key 'split': .*'random'"),
        ("evaluation.headline=ndcg@7", "headline must be one of .*ndcg@10.* found 'ndcg@7'"),
        ("evaluation.cutoffs=[0]", "cutoffs must be at least 1, found 0"),
        ("name=../up", "key 'name'"),
        ("models={}", "key 'models'"),
        ("models={'a/b': {model: ease}}", "the model name 'a/b' may hold only"),
        ("seed.deep=1", "--set seed.deep=|seed"),
        ("seed", "expected KEY=VALUE"),
    ],
)
def test_mistakes_are_named(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        load_recipe(copy.deepcopy(GOOD), [override])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "line 1, column 8|line 2, column 1"),
        ("- a\n- b\n", "found list, expected a mapping"),
        ("", "found NoneType, expected a mapping"),
        ("name: \x00", "expected YAML"),
        ("name: x\n", "key 'split': field required"),
        (
            "name: x\nmodels:\n  A: {model: ease}\n  A: {model: popularity}\n",
            "line 4, column 3: found the key 'A' again",
        ),
        ("models: &m {A: {l2: 1, l2: 2}}\n", "line 1, column 24: found the key 'l2' again, which line 1 has already"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        load_recipe(path)
    assert str(path) in str(error.value)


def test_merged_keys_are_no_repetition(tmp_path: Path) -> None:
    path = tmp_path / "merged.yaml"
    models = "models:\n  A: &a {model: ease, l2: 1}\n  B: &b {<<: *a, l2: 2}\n  C: {<<: *b, l2: 3}\n"
    path.write_text(f"name: x\nsplit: {{protocol: leave-one-out}}\n{models}")
    assert [getattr(config, "l2", None) for config in load_recipe(path).models.values()] == [1, 2, 3]


def test_an_override_is_of_one_place_alone(tmp_path: Path) -> None:
    """Whatever else the recipe wrote by an alias keeps what the anchor says."""
    path = tmp_path / "shared.yaml"
    path.write_text(
        "name: x\nsplit: {protocol: leave-one-out}\nmodels:\n  Plain: &sasrec {model: sasrec, training: {epochs: 7}}\n"
        "  Long: {<<: *sasrec, dim: 8}\n  Teacher: {model: ease}\n"
        "  Taught: {model: dllm2rec, student: *sasrec, teacher: Teacher, vectors: Plain}\n"
    )
    overrides = ["models.Taught.student.dim=4", "models.Long.training.epochs=2"]
    for source in (path, yaml.safe_load(path.read_text())):
        models: Any = load_recipe(source, overrides).models
        assert [models["Plain"].dim, models["Long"].dim, models["Taught"].student.dim] == [64, 8, 4]
        epochs = models["Plain"].training, models["Long"].training, models["Taught"].student.training
        assert [training.epochs for training in epochs] == [7, 2, 7]
    path.write_text("name: x\nsplit: {protocol: leave-one-out}\nmodels: &m {A: *m}\n")
    with pytest.raises(InputError, match="found an alias of what it stands in, expected YAML whose parts end"):
        load_recipe(path)


def test_what_is_no_recipe_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9\xff\n")
    with pytest.raises(InputError, match="byte 6 is not UTF-8"):
        load_recipe(tmp_path / "latin.yaml")
    with pytest.raises(InputError, match=r"there is no recipe file .*gone\.yaml"):
        load_recipe(tmp_path / "gone.yaml")
    with pytest.raises(
        InputError, match=r"there is no recipe .sampel.: give the path of a YAML file or one of .*sample"
    ):
        load_recipe("sampel")
    with pytest.raises(InputError, match="is a directory"):
        load_recipe(tmp_path)


def test_a_resolved_recipe_reads_back_as_itself() -> None:
    recipe = load_recipe("sample")
    assert load_recipe(yaml.safe_load(yaml.safe_dump(recipe.model_dump(mode="json")))) == recipe


STUDENT = RANKING["Student"] | {"embedding_weight": 0.3}
TO_TARGET = RANKING["Student"] | {"ranking": {"distance": "target"}}
RANKER, RATER = RANKING["Ranker"], RATING["Rater"]
NOBODY = ASKED["prompt"] | {"similar_user": False}
WRITTEN = RANKER | {"chat": {"url": "http://localhost:1", "model": "m"}, "style": "listwise"}
CHAT = RATER | {"chat": WRITTEN["chat"], "reading": "written"}
TUNED = RANKER | {"finetune": {}, "instructions": {"like": 40, "source": "random"}, "prompt": NOBODY}


def with_new(model: dict[str, Any], among: dict[str, dict[str, Any]] = RANKING, **others: dict[str, Any]) -> Recipe:
    """A recipe of systems of every kind, and one more."""
    models = among | others | {"New": model}
    return load_recipe({"name": "new", "split": {"protocol": "leave-one-out"}, "models": models})


@pytest.mark.parametrize(
    ("model", "lack"),
    [
        (STUDENT, r"key 'teacher': 'EASE' \(ease\) has no vectors of items to distil; name a system in 'vectors'"),
        (STUDENT | {"teacher": "TIGER"}, r"key 'teacher': 'TIGER' \(tiger\) has no vectors of items"),
        (STUDENT | {"vectors": "Popularity"}, r"key 'vectors': 'Popularity' \(popularity\) has no vectors of items"),
        (STUDENT | {"vectors": "Best"}, r"key 'vectors': 'Best' \(best\) has no vectors of items"),
        (TO_TARGET | {"teacher": "TIGER"}, r"key 'ranking.distance': 'TIGER' \(tiger\) scores no items.*use 'listed'"),
        (TO_TARGET | {"teacher": "Ranker"}, r"key 'ranking.distance': 'Ranker' \(ranker\) scores no items"),
        (RANKING["LLaRA"] | {"vectors": "EASE"}, r"key 'vectors': 'EASE' \(ease\) has no vectors of items"),
        (
            RANKING["LLM-CF"] | {"examples": 32, "thoughts": {"questions": 33}},
            "at least 34 thoughts.questions, found 33",
        ),
        (
            RANKING["Aggregate"] | {"llm": ["EASE", "TIGER"]},
            r"key 'llm': 'TIGER' \(tiger\) cannot be asked about given",
        ),
        (RANKING["MF+DA"] | {"by": "TIGER"}, r"key 'by': 'TIGER' \(tiger\) cannot be asked about given candidates"),
        (
            RANKING["MF+DA"] | {"by": "Lists"},
            r"key 'by': 'TIGER' \(tiger\) is the base under 'Lists' and cannot order given items",
        ),
        (RANKER | {"base": "EASE"}, r"key 'similar': 'EASE' \(ease\) has no vectors of users; .* \(MF, LightGCN\)"),
        (RANKER | {"similar": "SASRec"}, r"key 'similar': 'SASRec' \(sasrec\) has no vectors of users"),
        (RANKER | {"base": "SASRec+DA"}, r"key 'similar': 'SASRec\+DA' \(augmented\) has no vectors of users"),
        (WRITTEN | {"base": "Caser without users"}, r"key 'similar': 'Caser without users' \(caser\) has no vectors"),
        (TUNED | {"base": "TIGER"}, r"key 'instructions.source': 'TIGER' \(tiger\) does not score the whole catalogue"),
        (RANKING["Best"] | {"among": ["MF", "Ranker"]}, r"key 'among': 'Ranker' \(ranker\) does not score the whole"),
        (RANKING["Injection"] | {"base": "TIGER"}, r"key 'base': 'TIGER' \(tiger\) does not score the whole catalogue"),
        (
            RANKING["Injection"] | {"prior": "TIGER"},
            r"key 'prior': 'TIGER' \(tiger\) does not score the whole catalogue",
        ),
    ],
)
def test_partners_that_cannot_serve_are_refused_before_any_work(model: dict[str, Any], lack: str) -> None:
    lists = RANKER | {"base": "TIGER", "prompt": NOBODY}
    with pytest.raises(InputError, match=lack) as error:
        with_new(model, Lists=lists)
    assert "New" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "lack"),
    [
        (
            RATER | {"base": "Biases"},
            r"key 'similar': 'Biases' \(biases\) has no vectors of users; .* \(Biased MF, FM\)",
        ),
        (RATER | {"similar": "Aggregate"}, r"key 'similar': 'Aggregate' \(aggregate-ratings\) has no vectors of users"),
        (RATING["FM+DA"] | {"by": "fm"}, r"key 'by': 'fm' \(fm\) has no language model; name a rater that has"),
        (RATING["FM+DA"] | {"by": "Chat"}, r"key 'by': 'Chat' \(rater\) has no language model"),
    ],
)
def test_raters_partners_that_cannot_serve_are_refused_before_any_work(model: dict[str, Any], lack: str) -> None:
    with pytest.raises(InputError, match=f"'New', {lack}"):
        with_new(model, RATING, Chat=CHAT)


def test_what_is_not_asked_of_partners_is_not_demanded() -> None:
    for model in (
        STUDENT | {"vectors": "MF+DA"},
        STUDENT | {"teacher": "TIGER", "vectors": "BIGRec"},
        STUDENT | {"teacher": "TIGER", "vectors": "LLM-CF", "ranking": {"weight": 0, "distance": "target"}},
        TO_TARGET | {"teacher": "Best"},
        RANKING["LLM-CF"] | {"examples": 32, "thoughts": {"questions": 34}},
        RANKING["Aggregate"] | {"base": "TIGER", "llm": "Ranker"},
        RANKING["MF+DA"] | {"by": "Aggregate"},
        RANKER | {"base": "EASE", "similar": "MF+DA"},
        RANKER | {"base": "Caser"},
        RANKER | {"base": "SASRec", "prompt": NOBODY},
        RANKER | {"base": "TIGER", "prompt": NOBODY, "instructions": {"like": 40, "source": "random"}},
    ):
        assert "New" in with_new(model).models
    for model in (RATER | {"base": "Biases", "similar": "FM+DA"}, RATER | {"base": "nfm"}):
        assert "New" in with_new(model, RATING).models
