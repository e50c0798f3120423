"""A recipe made from another one: parts of it changed, or some of its systems alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, get_args

from tandemrec.errors import InputError
from tandemrec.experiment.models import ModelConfig
from tandemrec.experiment.recipe import TAGS, Recipe, load_recipe
from tandemrec.recommender import Config


def changed(tree: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's tree with changes merged into it.

    Mappings are merged key by key, but one that says of which kind it is (`model`, `format`, `protocol`, …) takes the
    place of what was there. Models are changed in the order they are written: a name with `*` changes all models that
    match by then, as far as they have such settings; a model with the key `like` begins as a copy of the one that is
    named there.
    """
    tree = _copy(tree)  # aliases of YAML are shared objects; here every system gets its own
    models = tree["models"]
    for name, value in change.get("models", {}).items():
        if "*" in name:
            for matching in (other for other in models if fnmatchcase(other, name)):
                known = _settings(models[matching]["model"])
                models[matching] = merged(models[matching], {key: value[key] for key in value if key in known})
        elif "like" in value:
            rest = {key: setting for key, setting in value.items() if key != "like"}
            kind = {"model": rest.pop("model")} if "model" in rest else {}
            models[name] = merged(_copy(models[value["like"]]), rest) | kind
        else:
            models.update(merged({name: models.get(name)}, {name: value}))
    return merged(tree, {key: value for key, value in change.items() if key != "models"})


def _copy(tree: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(tree))
    return found


def merged(tree: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`change` over `tree`, see `changed`; neither is altered."""
    found = dict(tree)
    for key, value in change.items():
        old = found.get(key)
        into = isinstance(value, Mapping) and isinstance(old, Mapping) and not set(TAGS) & set(value)
        found[key] = merged(old, value) if into and isinstance(old, Mapping) else value
    return found


def reduced(tree: Mapping[str, Any], systems: Sequence[str] | None) -> dict[str, Any]:
    """The tree with some systems, those they build on, and the selectors they learn from.

    Raises:
        InputError: if there is no such system.
    """
    if systems is None:
        return dict(tree)
    recipe = load_recipe(tree)
    unknown = [name for name in systems if name not in recipe.models]
    if unknown:
        raise InputError(f"the recipe has no system '{unknown[0]}', it has: {', '.join(recipe.models)}")
    kept, waiting = set[str](), list(systems)
    while waiting:
        name = waiting.pop()
        if name not in kept:
            kept.add(name)
            waiting += recipe.builds_on(name)
            waiting += _named_by_selection(recipe) if recipe.selector_of(name) else ()
    selectors = {recipe.selector_of(name) for name in kept} - {None}
    found = dict(tree) | {"models": {name: model for name, model in tree["models"].items() if name in kept}}
    selection = tree.get("selection")
    if selection is not None:
        chosen = {name: config for name, config in selection["selectors"].items() if name in selectors}
        found["selection"] = selection | {"selectors": chosen} if chosen else None
    return found


def _named_by_selection(recipe: Recipe) -> list[str]:
    selection = recipe.selection
    assert selection is not None
    return [name for name in (selection.surrogate, selection.language_model) if name is not None]


def _settings(tag: str) -> set[str]:
    """Names of the settings of a kind of model."""
    return next(set(config.model_fields) for config in _members(ModelConfig) if _tag(config) == tag)


def _members(union: Any) -> list[type[Config]]:
    """The configs of a union, those of unions within it included."""
    if isinstance(union, type):
        return [union] if issubclass(union, Config) else []
    return [member for part in get_args(union) for member in _members(part)]


def _tag(config: type[Config]) -> str | None:
    field = config.model_fields.get("model")
    return None if field is None else str(get_args(field.annotation)[0])
