"""What systems ask of those they build on, as far as configs tell: refused in a recipe, not after hours of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from tandemrec.aggregation.best import BestConfig
from tandemrec.aggregation.injection import InjectionConfig
from tandemrec.aggregation.rankings import RankingAggregateConfig
from tandemrec.augmentation.augmented import AugmentedConfig
from tandemrec.augmentation.augmented_ratings import AugmentedRatingsConfig
from tandemrec.augmentation.dllm2rec import DLLM2RecConfig
from tandemrec.experiment.models import has_item_vectors, has_user_vectors, judges_candidates, scores_catalogue
from tandemrec.llm.recommenders.instructed import InstructedConfig
from tandemrec.llm.recommenders.llara import LLaRAConfig
from tandemrec.llm.recommenders.ranker import RankerConfig
from tandemrec.llm.recommenders.rater import RaterConfig
from tandemrec.recommender import Config


class Demand(NamedTuple):
    """What a partner must be able to do.

    Attributes:
        key: of the config that asks.
        partner: its name.
        met: whether a config's system is able to.
        lack: what to say of a partner that is not.
    """

    key: str
    partner: str
    met: Callable[[Config], bool]
    lack: str


def demands(config: Config, models: Mapping[str, Config]) -> Iterator[Demand]:
    """What a config's system asks of its partners among the models of a recipe, which are all there."""
    if isinstance(config, DLLM2RecConfig):
        yield from _of_student(config)
    elif isinstance(config, InstructedConfig):
        yield from _of_instructed(config)
    elif isinstance(config, AugmentedConfig):
        yield from _of_augmented(config, models)
    elif isinstance(config, AugmentedRatingsConfig) and config.by is not None:
        yield Demand("by", config.by, _has_language_model, "has no language model; name a rater that has, or a 'chat'")
    elif isinstance(config, RankingAggregateConfig):
        yield from (_judging("llm", name) for name in config.llm)
    elif isinstance(config, LLaRAConfig):
        yield Demand("vectors", config.vectors, has_item_vectors, "has no vectors of items; SASRec, for one, has")
    elif isinstance(config, BestConfig):
        yield from (_scoring("among", name) for name in config.among)
    elif isinstance(config, InjectionConfig):
        yield from (_scoring("base", config.base), _scoring("prior", config.prior))


def _of_student(config: DLLM2RecConfig) -> Iterator[Demand]:
    if config.embedding_weight:
        key, name = ("teacher", config.teacher) if config.vectors is None else ("vectors", config.vectors)
        lack = "has no vectors of items to distil; name a system in 'vectors' that has, or set embedding_weight to 0"
        yield Demand(key, name, has_item_vectors, lack)
    if config.ranking.weight and config.ranking.distance == "target":
        lack = "scores no items, so that its distance to the true one is unknown; use 'listed'"
        yield Demand("ranking.distance", config.teacher, scores_catalogue, lack)


def _of_instructed(config: InstructedConfig) -> Iterator[Demand]:
    if config.prompt.similar_user:
        some = "Biased MF, FM" if isinstance(config, RaterConfig) else "MF, LightGCN"
        lack = f"has no vectors of users; name a system that has ({some}), or set prompt.similar_user to false"
        yield Demand("similar", config.similar or config.base, has_user_vectors, lack)
    if isinstance(config, RankerConfig) and config.needs_instructions() and config.instructions.source == "random":
        yield _scoring("instructions.source", config.base)


def _of_augmented(config: AugmentedConfig, models: Mapping[str, Config]) -> Iterator[Demand]:
    yield _judging("by", config.by)
    judge = models[config.by]
    while isinstance(judge, RankerConfig | RankingAggregateConfig):
        lack = f"is the base under '{config.by}' and cannot order given items; name a ranker over a system that scores"
        yield Demand("by", judge.base, judges_candidates, lack)
        judge = models[judge.base]


def _judging(key: str, name: str) -> Demand:
    return Demand(key, name, judges_candidates, "cannot be asked about given candidates; a ranker or a scorer can")


def _scoring(key: str, name: str) -> Demand:
    return Demand(key, name, scores_catalogue, "does not score the whole catalogue")


def _has_language_model(config: Config) -> bool:
    return isinstance(config, InstructedConfig) and not config.remote
