"""Which config makes which recommender: the one place where a new model is made known to recipes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from tandemrec.aggregation.best import Best, BestConfig
from tandemrec.aggregation.injection import Injection, InjectionConfig
from tandemrec.aggregation.rankings import RankingAggregate, RankingAggregateConfig
from tandemrec.aggregation.ratings import RatingAggregate, RatingAggregateConfig
from tandemrec.augmentation.augmented import Augmented, AugmentedConfig
from tandemrec.augmentation.augmented_ratings import AugmentedRatings, AugmentedRatingsConfig
from tandemrec.augmentation.dllm2rec import DLLM2Rec, DLLM2RecConfig
from tandemrec.augmentation.llm_cf import LLMCF, LLMCFConfig
from tandemrec.conventional.direct.als import ALS, ALSConfig
from tandemrec.conventional.direct.ease import EASE, EASEConfig
from tandemrec.conventional.direct.itemknn import ItemKNN, ItemKNNConfig
from tandemrec.conventional.direct.lightgcn import LightGCN, LightGCNConfig
from tandemrec.conventional.direct.mf import MF, MFConfig
from tandemrec.conventional.direct.mixgcf import MixGCF, MixGCFConfig
from tandemrec.conventional.direct.pairwise import PairwiseModel
from tandemrec.conventional.direct.sgl import SGL, SGLConfig
from tandemrec.conventional.popularity import Popularity, PopularityConfig
from tandemrec.conventional.rating.mf import BiasedMF
from tandemrec.conventional.rating.predictor import InteractionPredictor
from tandemrec.conventional.sequential.bert4rec import BERT4Rec, BERT4RecConfig
from tandemrec.conventional.sequential.caser import Caser, CaserConfig
from tandemrec.conventional.sequential.cl4srec import CL4SRec, CL4SRecConfig
from tandemrec.conventional.sequential.dcrec import DCRec, DCRecConfig
from tandemrec.conventional.sequential.dros import DROS, DROSConfig
from tandemrec.conventional.sequential.gru4rec import GRU4Rec, GRU4RecConfig
from tandemrec.conventional.sequential.model import SequenceModel
from tandemrec.conventional.sequential.sasrec import SASRec, SASRecConfig
from tandemrec.experiment.files import hash_folder
from tandemrec.experiment.rating_models import RATING, RatingModelConfig
from tandemrec.llm.recommenders.base import LanguageModelUser
from tandemrec.llm.recommenders.bigrec import BIGRec, BIGRecConfig
from tandemrec.llm.recommenders.instructed import InstructedConfig
from tandemrec.llm.recommenders.llara import LLaRA, LLaRAConfig
from tandemrec.llm.recommenders.ranker import Ranker, RankerConfig
from tandemrec.llm.recommenders.rater import Rater, RaterConfig
from tandemrec.llm.recommenders.tiger import TIGER, TIGERConfig
from tandemrec.llm.recommenders.writer import TitleWriter, WriterConfig
from tandemrec.recommender import Config, RatingPredictor, Recommender, Reranker, Scorer

ModelConfig = Annotated[
    PopularityConfig
    | ItemKNNConfig
    | EASEConfig
    | ALSConfig
    | MFConfig
    | LightGCNConfig
    | MixGCFConfig
    | SGLConfig
    | SASRecConfig
    | GRU4RecConfig
    | CaserConfig
    | BERT4RecConfig
    | CL4SRecConfig
    | DROSConfig
    | DCRecConfig
    | BIGRecConfig
    | LLaRAConfig
    | TIGERConfig
    | InjectionConfig
    | BestConfig
    | AugmentedConfig
    | AugmentedRatingsConfig
    | DLLM2RecConfig
    | LLMCFConfig
    | RankerConfig
    | RaterConfig
    | RankingAggregateConfig
    | RatingAggregateConfig
    | RatingModelConfig,
    Field(discriminator="model"),
]

System = Recommender | RatingPredictor
"""What a recipe compares: recommenders, or predictors of ratings."""

Maker = Callable[..., Recommender]

CONVENTIONAL: dict[type[Config], tuple[Maker, Callable[[Path], Recommender], str]] = {
    PopularityConfig: (Popularity, Popularity.load, "conventional/popularity.py"),
    ItemKNNConfig: (ItemKNN, ItemKNN.load, "conventional/direct"),
    EASEConfig: (EASE, EASE.load, "conventional/direct"),
    ALSConfig: (ALS, ALS.load, "conventional/direct"),
    MFConfig: (MF, MF.load, "conventional/direct"),
    LightGCNConfig: (LightGCN, LightGCN.load, "conventional/direct"),
    MixGCFConfig: (MixGCF, MixGCF.load, "conventional/direct"),
    SGLConfig: (SGL, SGL.load, "conventional/direct"),
    SASRecConfig: (SASRec, SASRec.load, "conventional/sequential"),
    GRU4RecConfig: (GRU4Rec, GRU4Rec.load, "conventional/sequential"),
    CaserConfig: (Caser, Caser.load, "conventional/sequential"),
    BERT4RecConfig: (BERT4Rec, BERT4Rec.load, "conventional/sequential"),
    CL4SRecConfig: (CL4SRec, CL4SRec.load, "conventional/sequential"),
    DROSConfig: (DROS, DROS.load, "conventional/sequential"),
    DCRecConfig: (DCRec, DCRec.load, "conventional"),
}
"""Config class → how its recommender is made, how it is read, and the code whose change means training it again."""

OVERLAYS: dict[type[Config], tuple[Callable[..., System], Callable[..., System], str]] = {
    InjectionConfig: (Injection, Injection.load, "aggregation"),
    BestConfig: (Best, Best.load, "aggregation"),
    RankingAggregateConfig: (RankingAggregate, RankingAggregate.load, "aggregation"),
    RatingAggregateConfig: (RatingAggregate, RatingAggregate.load, "aggregation"),
}
"""The same for systems over trained systems: those that `partners` names are further arguments."""

RATING_SYSTEMS: tuple[type[Config], ...] = (*RATING, AugmentedRatingsConfig, RaterConfig, RatingAggregateConfig)
"""Configs of rating predictors."""

WRITERS: dict[type[Config], type[TitleWriter]] = {BIGRecConfig: BIGRec, LLaRAConfig: LLaRA}
"""Config class → recommender, of those that write titles."""

ENHANCED: dict[type[Config], type[System]] = {
    AugmentedConfig: Augmented,
    AugmentedRatingsConfig: AugmentedRatings,
    DLLM2RecConfig: DLLM2Rec,
    LLMCFConfig: LLMCF,
}
"""Config class → system, of conventional ones that learn from what others made for them."""

INSTRUCTED: dict[type[Config], type[Ranker] | type[Rater]] = {RankerConfig: Ranker, RaterConfig: Rater}
"""Config class → system, of those that ask a language model about candidates."""

SYSTEMS: dict[type[Config], Any] = {
    **{kind: made for kind, (made, *_) in (CONVENTIONAL | RATING | OVERLAYS).items()},
    **WRITERS,
    **ENHANCED,
    **INSTRUCTED,
    TIGERConfig: TIGER,
}
"""Config class → class of its system."""

WITH_ITEM_VECTORS = (ALS, PairwiseModel, SequenceModel, TitleWriter, DLLM2Rec, Augmented)
"""Classes of systems that have `item_vectors` once they are trained."""

WITH_USER_VECTORS = (ALS, PairwiseModel, BiasedMF, InteractionPredictor, AugmentedRatings)
"""Classes of systems that have `user_vectors` once they are trained; others have them by their config alone."""


@dataclass(frozen=True)
class Materials:
    """What earlier stages made for a recommender.

    Attributes:
        language_model: folder of the language model that was built for it.
        distilled: its teacher's answers to the training prompts.
        folders: of its trained partners, by name.
        partners: the same, loaded when asked for.
        semantic_ids: folder of its items' ids.
        instructions: what it is tuned on.
        augmentation: what is added to its training data.
        lists: what its teacher recommends at training positions.
        thoughts: folder of a language model's thoughts about training examples.
        item_vectors: folder of an encoder's vectors of the items' texts.
    """

    language_model: Path | None
    distilled: Path | None
    folders: Mapping[str, Path]
    partners: Callable[[str], System]
    semantic_ids: Path | None = None
    instructions: Path | None = None
    augmentation: Path | None = None
    lists: Path | None = None
    thoughts: Path | None = None
    item_vectors: Path | None = None


def make_recommender(config: Config, materials: Materials) -> System:
    """An untrained recommender or rating predictor.

    Raises:
        InputError: if a partner is of a kind that cannot serve it.
    """
    given: dict[str, Any]
    if type(config) in OVERLAYS:
        return OVERLAYS[type(config)][0](config, *map(materials.partners, config.partners()))
    if type(config) in ENHANCED:
        return _enhanced(config, materials)
    if isinstance(config, TIGERConfig):
        return TIGER(config, materials.semantic_ids)
    if isinstance(config, InstructedConfig):
        systems: Any = map(materials.partners, config.partners())
        given = {"language_model": materials.language_model, "instructions": materials.instructions}
        return INSTRUCTED[type(config)](config, *systems, **given)  # type: ignore[arg-type]
    if not isinstance(config, WriterConfig):
        plain: Callable[..., System] = (CONVENTIONAL | RATING)[type(config)][0]
        return plain(config)
    given = {"teacher": materials.folders.get(config.teacher or ""), "distilled": materials.distilled}
    if isinstance(config, LLaRAConfig):
        given["item_vectors"] = getattr(materials.partners(config.vectors), "item_vectors", None)
    return WRITERS[type(config)](config, materials.language_model, **given)


def _enhanced(config: Config, materials: Materials) -> System:
    if isinstance(config, DLLM2RecConfig):
        vectors = materials.partners(config.vectors or config.teacher) if config.embedding_weight else None
        return DLLM2Rec(config, materials.lists, getattr(vectors, "item_vectors", None))
    if isinstance(config, LLMCFConfig):
        return LLMCF(config, materials.thoughts, item_vectors=materials.item_vectors)
    if isinstance(config, AugmentedConfig):
        return Augmented(config, materials.augmentation)
    assert isinstance(config, AugmentedRatingsConfig)
    return AugmentedRatings(config, materials.augmentation)


def load_recommender(config: Config, directory: Path, partners: Callable[[str], System]) -> System:
    """A finished model from its artifact; `partners` loads others by name, for models that work on top of others."""
    if type(config) in OVERLAYS:
        return OVERLAYS[type(config)][1](directory, *map(partners, config.partners()))
    if type(config) in ENHANCED:
        return ENHANCED[type(config)].load(directory)
    if isinstance(config, InstructedConfig):
        systems: Any = map(partners, config.partners())
        return INSTRUCTED[type(config)].load(directory, *systems)
    if isinstance(config, WriterConfig):
        return WRITERS[type(config)].load(directory)
    if isinstance(config, TIGERConfig):
        return TIGER.load(directory)
    return (CONVENTIONAL | RATING)[type(config)][1](directory)


def folder_identity(config: Config) -> dict[str, str] | None:
    """Content of the local model folder a config names: a changed checkpoint is another model."""
    return hash_folder(config.model_folder()) if isinstance(config, LanguageModelUser) else None


def predicts_ratings(config: Config) -> bool:
    """Whether a config's system is a rating predictor rather than a recommender."""
    return type(config) in RATING_SYSTEMS


def scores_catalogue(config: Config) -> bool:
    """Whether a config's system scores every item of the catalogue."""
    return issubclass(SYSTEMS[type(config)], Scorer)


def judges_candidates(config: Config) -> bool:
    """Whether a config's system can be asked about given items."""
    return issubclass(SYSTEMS[type(config)], Scorer | Reranker)


def has_item_vectors(config: Config) -> bool:
    """Whether a config's system has a vector of every item."""
    return issubclass(SYSTEMS[type(config)], WITH_ITEM_VECTORS)


def has_user_vectors(config: Config) -> bool:
    """Whether a config's system has a vector of every user."""
    if isinstance(config, AugmentedConfig):
        return has_user_vectors(config.backbone)
    if isinstance(config, CaserConfig):
        return config.users
    return issubclass(SYSTEMS[type(config)], WITH_USER_VECTORS)


def code_rooms(config: Config) -> tuple[str, ...]:
    """The code that a model's training runs."""
    shared = ("training", "recommender.py")
    if type(config) in OVERLAYS:
        return (OVERLAYS[type(config)][2], *shared)
    if isinstance(config, WriterConfig | InstructedConfig | TIGERConfig):
        return ("llm", *shared)
    if isinstance(config, AugmentedConfig | AugmentedRatingsConfig):
        return ("augmentation", *code_rooms(config.backbone))
    if isinstance(config, DLLM2RecConfig):
        own = (f"augmentation/{name}.py" for name in ("dllm2rec", "distillation", "memory"))
        return (*own, *code_rooms(config.student))
    if isinstance(config, LLMCFConfig):
        own = (f"augmentation/{name}.py" for name in ("llm_cf", "in_context", "memory", "retrieval"))
        return (*own, *code_rooms(config.backbone))
    return ((CONVENTIONAL | RATING)[type(config)][2], "conventional/negatives.py", *shared)
