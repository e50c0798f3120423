"""The recipe: one YAML file, validated into one typed tree before any work starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from tandemrec.aggregation.best import BestConfig
from tandemrec.augmentation.dllm2rec import DLLM2RecConfig
from tandemrec.augmentation.llm_cf import LLMCFConfig
from tandemrec.data.filter import CleaningConfig
from tandemrec.data.protocols import SplitConfig
from tandemrec.data.sources import SourceConfig
from tandemrec.errors import InputError
from tandemrec.evaluation.evaluate import EvaluationConfig
from tandemrec.evaluation.ratings import RatingEvaluationConfig
from tandemrec.experiment.bundled import read_recipe
from tandemrec.experiment.models import RATING_SYSTEMS, ModelConfig, predicts_ratings
from tandemrec.experiment.partners import demands
from tandemrec.experiment.rounds import AUGMENTED, in_rounds
from tandemrec.experiment.run_folder import RECIPE
from tandemrec.experiment.search_space import TuningConfig
from tandemrec.experiment.seeds import derive_seed
from tandemrec.llm.recommenders.base import LanguageModelUser
from tandemrec.llm.recommenders.instructed import InstructedConfig
from tandemrec.llm.recommenders.tiger import TIGERConfig
from tandemrec.llm.recommenders.writer import WriterConfig
from tandemrec.recommender import Config
from tandemrec.selection.config import SelectionConfig
from tandemrec.selection.dealrec import DEALRecConfig

TAGS = ("format", "protocol", "model", "build", "loss", "kind", "task", "selector", "method")
"""Keys whose values tell the members of a union apart."""


class Recipe(Config):
    """One experiment: data, split, systems, judgement."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Short name; also the name of the default output directory."""

    description: str = ""
    """What the experiment asks, for the report."""

    seed: int = Field(42, ge=0, lt=2**31)
    """The one seed; every stage derives its own from it and from its name."""

    training_seed: int | None = Field(None, ge=0, lt=2**31)
    """Seed of the fits and of what selectors draw, None: `seed`. Runs that differ in it share data, split and built
    language model, so that their differences are those of training."""

    data: SourceConfig | None = None
    """Where the interactions come from; null only where a program passes a `Dataset`."""

    cleaning: CleaningConfig = CleaningConfig()
    """What is kept of them."""

    split: SplitConfig
    """What trains, what chooses, what judges."""

    models: dict[str, ModelConfig] = Field(min_length=1)
    """The systems to compare, by the name they bear on the leaderboard."""

    trained: dict[str, Path] = Field(default_factory=dict)
    """Systems that are not trained but taken as a finished run trained them, as teachers, partners or rivals: name →
    folder of that run, where the system bears the same name. Their settings, and the systems that they build on, come
    from there. Data, cleaning, split and seed must be those of that run; what training cost there is counted here."""

    evaluation: Annotated[EvaluationConfig | RatingEvaluationConfig, Field(discriminator="task")] = EvaluationConfig()
    """How they are judged; `task`, ranking or rating, follows from the models where it is not given."""

    selection: SelectionConfig | None = None
    """Which training examples `tandem select` chooses, and `tandem run` for the models whose `train_on` names a
    selector."""

    tune: TuningConfig | None = None
    """Which settings `tandem tune` searches; `tandem run` does without."""

    @field_validator("models")
    @classmethod
    def _names_are_file_names(cls, models: dict[str, ModelConfig]) -> dict[str, ModelConfig]:
        for name in models:
            if not name or name != name.strip() or any(not (c.isalnum() or c in " -_+.()@=") for c in name):
                raise ValueError(f"the model name '{name}' may hold only letters, digits, spaces and any of -_+.()@=")
        return models

    @field_validator("models")
    @classmethod
    def _rounds_are_models(cls, models: dict[str, ModelConfig]) -> dict[str, Any]:
        return in_rounds(models)

    @model_validator(mode="after")
    def _partners_are_there(self) -> Self:
        for name, config in self.models.items():
            for partner in config.partners():
                if partner not in self.models:
                    near = get_close_matches(partner, self.models, 1)
                    hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(self.models)}"
                    raise ValueError(
                        f"the model '{name}' builds on '{partner}', which is no model of the recipe; {hint}"
                    )
            teacher = config.teacher if isinstance(config, WriterConfig) else None
            if teacher is not None and self.models[teacher].model != config.model:
                raise ValueError(
                    f"the model '{name}' ({config.model}) cannot learn from '{teacher}' ({self.models[teacher].model})"
                )
        return self

    @model_validator(mode="after")
    def _trained_systems_are_whole(self) -> Self:
        for name, folder in self.trained.items():
            if name not in self.models:
                raise ValueError(f"trained.{name} is no model of the recipe")
            for partner in self.models[name].partners():
                if self.trained.get(partner) != folder:
                    raise ValueError(
                        f"trained.{name} builds on '{partner}', which must come from {folder} too; leave it out of "
                        "'models'"
                    )
        return self

    @model_validator(mode="after")
    def _tuned_language_models_are_there(self) -> Self:
        for name, config in self.models.items():
            if not isinstance(config, InstructedConfig) or config.tuned is None:
                continue
            owner = self.models[config.tuned]
            asks = f"the model '{name}' asks the language model tuned for '{config.tuned}'"
            if not isinstance(owner, InstructedConfig):
                raise ValueError(f"{asks}, which is of the kind '{owner.model}', expected a ranker or rater")
            if owner.remote:
                raise ValueError(f"{asks}, which asks a chat endpoint and has none; give it the same 'chat' instead")
        return self

    @model_validator(mode="after")
    def _selection_names_models(self) -> Self:
        if self.selection is not None:
            named = [(key, getattr(self.selection, key)) for key in ("surrogate", "language_model")]
            named += [("surrogate", config.surrogate) for config in self.selection.selectors.values()]
            for key, name in named:
                if name is not None and name not in self.models:
                    raise ValueError(
                        f"the selection's {key} '{name}' is no model of the recipe; there are: {', '.join(self.models)}"
                    )
            writer = self.selection.language_model
            if writer is not None and not isinstance(self.models[writer], WriterConfig):
                raise ValueError(f"the selection's language_model '{writer}' is no model that writes titles")
        selectors = self.selection.selectors if self.selection is not None else {}
        for name in self.models:
            selector = self.selector_of(name)
            if selector is not None and selector not in selectors:
                there = f"there are: {', '.join(selectors)}" if selectors else "the recipe has no key 'selection'"
                raise ValueError(
                    f"the model '{name}' learns from the choice of '{selector}', which is no selector; {there}"
                )
        self.training_order()
        return self

    @model_validator(mode="after")
    def _tuning_names_a_model(self) -> Self:
        if self.tune is not None and self.tune.model not in self.models:
            near = get_close_matches(self.tune.model, self.models, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(self.models)}"
            raise ValueError(f"tune.model '{self.tune.model}' is no model of the recipe; {hint}")
        return self

    @model_validator(mode="after")
    def _hints_can_be_made(self) -> Self:
        for name, config in self.models.items():
            if not isinstance(config, InstructedConfig) or not config.needs_instructions():
                continue
            for partner in (config.base, config.similar or config.base):
                other = self.models[partner]
                layered = bool(other.partners()) and not isinstance(other, AUGMENTED)
                if layered or isinstance(other, LanguageModelUser):
                    raise ValueError(
                        f"the model '{name}' is tuned with hints of '{partner}' trained on earlier parts of the data, "
                        f"but '{partner}' builds on other systems or a language model; name a conventional model"
                    )
        return self

    def fit_seed(self, name: str) -> int:
        """The seed a system is trained with; a taught one draws what its plain self draws, so that they differ in what
        is taught alone.
        """
        return self._training_seed(f"fit:{self.plain_of(name) or name}")

    def select_seed(self, selector: str) -> int:
        """The seed a selector draws with."""
        return self._training_seed(f"select:{selector}")

    def _training_seed(self, stage: str) -> int:
        return derive_seed(self.seed if self.training_seed is None else self.training_seed, stage)

    def training_order(self) -> list[str]:
        """Names of the models, each after those it builds on.

        Raises:
            ValueError: if models build on each other in a circle.
        """
        graph = {name: self.builds_on(name) for name in self.models}
        try:
            return list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            circle = " → ".join(f"'{name}'" for name in reversed(error.args[1]))
            raise ValueError(f"models build on each other in a circle: {circle}") from None

    def selector_of(self, name: str) -> str | None:
        """The selector whose choice a model learns from; None: it learns from all training examples, or has learned."""
        config = self.models[name]
        if name in self.trained:
            return None
        return config.train_on if isinstance(config, WriterConfig | TIGERConfig) else None

    def plain_of(self, name: str) -> str | None:
        """The model of the recipe that a taught one is without what it is taught; None: there is none."""
        config = self.models[name]
        plain: Config | None = None
        if isinstance(config, DLLM2RecConfig):
            plain = config.student
        elif isinstance(config, LLMCFConfig):
            plain = config.backbone
        return next((other for other, model in self.models.items() if model == plain), None)

    def students(self) -> dict[str, dict[str, str | None]]:
        """The `teacher` of every system that learns from another's lists, or is the best of such ones, and its `plain`
        self, where there is one.
        """
        found = {
            name: {"teacher": config.teacher, "plain": self.plain_of(name)}
            for name, config in self.models.items()
            if isinstance(config, DLLM2RecConfig) and config.teacher in self.models
        }
        for name, config in self.models.items():
            roles = [found[one] for one in config.among if one in found] if isinstance(config, BestConfig) else []
            if roles:
                found[name] = roles[0]
        return found

    def judges(self, selector: str) -> tuple[str, ...]:
        """The models that must be trained before a selector can choose."""
        selection = self.selection
        assert selection is not None
        needed = [selection.surrogate_of(selector)]
        writer = selection.language_model_of(selector)
        if writer is not None:
            effort = isinstance(selection.selectors[selector], DEALRecConfig)
            tuned = effort and selection.effort.weights == "tuned"
            needed += [writer] if tuned else self.models[writer].partners()
        return tuple(dict.fromkeys(name for name in needed if name is not None))

    def builds_on(self, name: str) -> tuple[str, ...]:
        """The models that must be trained before a model can be."""
        selector = self.selector_of(name)
        return (*self.models[name].partners(), *(() if selector is None else self.judges(selector)))

    @model_validator(mode="after")
    def _one_task(self) -> Self:
        for name, config in self.models.items():
            task = "rating" if predicts_ratings(config) else "ranking"
            if task != self.evaluation.task:
                raise ValueError(
                    f"the model '{name}' is for {task}, but the evaluation is of {self.evaluation.task}: "
                    "a recipe compares models of one task"
                )
        reference = getattr(self.evaluation, "reference", None)
        if reference is not None and reference not in self.models:
            raise ValueError(f"evaluation.reference must be one of {', '.join(self.models)}, found '{reference}'")
        return self

    @model_validator(mode="after")
    def _partners_can_serve(self) -> Self:
        for name, config in self.models.items():
            for demand in demands(config, self.models):
                other = self.models[demand.partner]
                if not demand.met(other):
                    raise ValueError(
                        f"the model '{name}', key '{demand.key}': '{demand.partner}' ({other.model}) {demand.lack}"
                    )
        return self


def load_recipe(source: str | Path | Mapping[str, Any], overrides: Sequence[str] | Mapping[str, Any] = ()) -> Recipe:
    """Read and validate a recipe.

    Args:
        source: a path, the name of a bundled recipe, or a mapping.
        overrides: `a.b=c` strings (c is read as YAML) or a mapping from dotted paths to values.

    Raises:
        InputError: if there is no such recipe, the YAML is broken, a key is unknown or a value is out of bounds.
    """
    if isinstance(source, Mapping):
        label, tree = "recipe", dict(source)
    else:
        label, tree = str(source), parse_yaml(read_recipe(source), str(source))
    pairs = overrides.items() if isinstance(overrides, Mapping) else (_parse_override(text) for text in overrides)
    tree = _own(tree, label)
    for path, value in pairs:
        _assign(tree, path, value)
    tree = _with_task(_with_trained(tree))
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise InputError(f"{label}: {explain(error, tree)}") from None


def _own(value: Any, label: str, around: tuple[int, ...] = ()) -> Any:
    """A copy in which nothing is shared: aliases of YAML are one object, and an override is of one place alone."""
    if not isinstance(value, Mapping | list):
        return deepcopy(value)
    if id(value) in around:
        raise InputError(f"{label}: found an alias of what it stands in, expected YAML whose parts end")
    around = (*around, id(value))
    if isinstance(value, list):
        return [_own(one, label, around) for one in value]
    return {key: _own(one, label, around) for key, one in value.items()}


def _with_trained(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree with the settings of systems that other runs trained, and of all that these build on."""
    trained, models = tree.get("trained"), tree.get("models") or {}
    if not isinstance(trained, dict) or not isinstance(models, dict):
        return tree
    found, added = {}, {}
    for name, place in trained.items():
        folder = Path(str(place)).expanduser().absolute()
        found[name] = str(folder)
        if name in models or name in added:
            continue
        if not (folder / RECIPE).is_file():
            raise InputError(f"key 'trained.{name}': {folder} is no finished run: {RECIPE} is missing")
        theirs = load_recipe(folder / RECIPE)
        if name not in theirs.models:
            there = ", ".join(theirs.models)
            raise InputError(f"key 'trained.{name}': {folder} has no system '{name}', it has: {there}")
        waiting = [name]
        while waiting:
            other = waiting.pop()
            if other not in models and other not in added:
                added[other], found[other] = theirs.models[other].model_dump(mode="json"), str(folder)
                waiting += theirs.models[other].partners()
    return tree | {"trained": found, "models": models | added}


def _with_task(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree with `evaluation.task`, which the first model tells where it is missing."""
    models, evaluation = tree.get("models"), tree.get("evaluation", {})
    if not isinstance(models, dict) or not isinstance(evaluation, dict) or "task" in evaluation:
        return tree
    names = {config.model_fields["model"].default for config in RATING_SYSTEMS}
    first = next(iter(models.values()), None)
    rates = isinstance(first, dict) and first.get("model") in names
    return tree | {"evaluation": {"task": "rating" if rates else "ranking"} | evaluation}


def parse_yaml(text: str, label: str) -> dict[str, Any]:
    """A YAML mapping.

    Raises:
        InputError: naming line and column of a mistake, such as a key that is there twice.
    """
    try:
        _refuse_twice(yaml.compose(text, yaml.SafeLoader), label, set())
        tree = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        raise InputError(f"{label}: {place}: {error.problem}, expected YAML") from None
    except yaml.YAMLError as error:
        raise InputError(f"{label}: {str(error).splitlines()[0]}, expected YAML") from None
    if not isinstance(tree, dict):
        raise InputError(f"{label}: found {type(tree).__name__}, expected a mapping with the keys of a recipe")
    return tree


def _refuse_twice(node: yaml.Node | None, label: str, seen: set[int]) -> None:
    """Refuse a mapping with a key written twice, of which YAML would silently keep the last."""
    if node is None or isinstance(node, yaml.ScalarNode) or id(node) in seen:
        return
    seen.add(id(node))
    lines: dict[str, int] = {}
    for child in node.value:
        for part in child if isinstance(node, yaml.MappingNode) else (child,):
            _refuse_twice(part, label, seen)
        if isinstance(node, yaml.MappingNode) and isinstance(child[0], yaml.ScalarNode) and child[0].value != "<<":
            key, mark = child[0].value, child[0].start_mark
            if key in lines:
                place = f"line {mark.line + 1}, column {mark.column + 1}"
                raise InputError(f"{label}: {place}: found the key '{key}' again, which line {lines[key]} has already")
            lines[key] = mark.line + 1


def explain(error: ValidationError, tree: Any) -> str:
    """The first problem of a validation as one sentence with its key path, and how many more there are."""
    problems = error.errors(include_url=False)
    first = problems[0]
    path = _key_path(first["loc"], tree)
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    found = first.get("input")
    shown = f", found {found!r}" if isinstance(found, str | int | float | bool) or found is None else ""
    if first["type"] in {"missing", "unknown_key", "union_tag_invalid", "value_error"}:
        shown = ""
    more = f" (and {len(problems) - 1} more of such problems)" if len(problems) > 1 else ""
    return f"key '{path}': {message}{shown}{more}" if path else f"{message}{shown}{more}"


def _key_path(location: tuple[int | str, ...], tree: Any) -> str:
    """Pydantic's location without the tags of unions, which are no keys of the file."""
    path: list[str] = []
    for place, key in enumerate(location):
        known = isinstance(tree, Mapping) and key in tree
        indexed = isinstance(tree, list) and isinstance(key, int) and key < len(tree)
        if known or indexed:
            tree = tree[key]
            path.append(str(key))
        elif place == len(location) - 1 and not (path and str(key) == _tag(tree)):
            path.append(str(key))
    return ".".join(path)


def _tag(tree: Any) -> str | None:
    return (
        next(
            (str(tree[key]) for key in TAGS if key in tree),
            None,
        )
        if isinstance(tree, Mapping)
        else None
    )


def _parse_override(text: str) -> tuple[str, Any]:
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise InputError(f"--set {text}: expected KEY=VALUE with a dotted key, such as split.seed=1")
    try:
        return path.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        raise InputError(f"--set {text}: the value {value!r} is not YAML") from None


def _assign(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set a dotted path. Names that hold dots themselves (models) are matched before they are cut."""
    node: Any = tree
    rest = path
    while True:
        if not isinstance(node, dict):
            raise InputError(f"--set {path}: '{rest}' is below a single value, which has no keys")
        whole = [key for key in node if rest == str(key) or rest.startswith(f"{key}.")]
        key = max(whole, key=len) if whole else rest.partition(".")[0]
        if rest == key:
            node[key] = value
            return
        if node.get(key) is None:  # a resolved recipe writes null for a part that is not there
            node[key] = {}
        node = node[key]
        rest = rest[len(key) + 1 :]
