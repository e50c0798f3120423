"""The contracts through which language models, conventional models, evaluation and serving meet.

A `Recommender` answers `rank`; a `Scorer` also answers `scores` for the whole catalogue and gets `rank` for free. A
`RatingPredictor` answers `predict`: how a user would rate an item.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from tandemrec.data.examples import Examples, ItemArray, Ragged
from tandemrec.errors import InputError

if TYPE_CHECKING:
    import torch

    from tandemrec.data.ratings import Pairs
    from tandemrec.data.split import Split

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

CONFIG = "config.json"
"""Where a saved model keeps its configuration."""

NO_ITEM = -1
"""Fills a `Ranking` row that has fewer than K candidates."""

BLOCK_SCORES = 8_000_000
"""Scores held at once when a block of examples is scored: 32 MB in float32."""


class Config(BaseModel):
    """Base of every config: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def check(self) -> None:
        """Refuse what is known to fail before any work starts, such as a missing folder; most configs have nothing.

        Raises:
            InputError: naming what is missing.
        """

    def write(self, directory: Path) -> None:
        """Write `config.json` into `directory` (created)."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / CONFIG).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read what `write` wrote.

        Raises:
            InputError: if the file is missing or belongs to another model.
        """
        path = directory / CONFIG
        if not path.is_file():
            raise InputError(f"{directory} holds no saved model: there is no {CONFIG}")
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the file"
            raise InputError(f"{path} is no {cls.__name__}: {place}: {first['msg']}") from None

    def partners(self) -> tuple[str, ...]:
        """Names of the recipe's systems that must be trained before this one; most configs need none."""
        return ()

    @model_validator(mode="before")
    @classmethod
    def _name_unknown_keys(cls, data: Any) -> Any:
        """Refuse unknown keys with the known ones in the message, which pydantic's own message lacks."""
        if isinstance(data, dict):
            known = list(cls.model_fields)
            for key in data:
                if key not in known:
                    near = get_close_matches(str(key), known, 1)
                    hint = f"did you mean '{near[0]}'?" if near else f"known are: {', '.join(known)}"
                    raise PydanticCustomError("unknown_key", "unknown key '{key}'; {hint}", {"key": key, "hint": hint})
        return data


@dataclass(frozen=True)
class Ranking:
    """K best items of B examples, best first: `items` (B, K) int32 with -1 where there is none, `scores` (B, K)."""

    items: ItemArray
    scores: FloatArray


class FitReport(BaseModel):
    """What training did: its length, its curve and which epoch was kept."""

    seconds: float = 0.0
    epochs: int = 0
    best_epoch: int | None = None
    best_value: float | None = None
    curve: list[dict[str, float]] = Field(default_factory=list)
    notes: dict[str, Any] = Field(default_factory=dict)


class Recommender(ABC):
    """Something that learns from a `Split` and ranks the catalogue for histories."""

    needs_training_examples: ClassVar[bool] = False
    """True for models that learn from `split.train` (prompts) rather than from `split.sequences` (whole histories)."""

    @abstractmethod
    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        """Learn from the training part; the validation part may choose the epoch; the test part is never looked at.

        Args:
            split: the data.
            seed: of everything random.
            workspace: a directory for checkpoints; a second call with the same arguments continues from them.
        """

    @abstractmethod
    def rank(
        self, examples: Examples, k: int, *, exclude_seen: bool = True, candidates: BoolArray | None = None
    ) -> Ranking:
        """The K best items of every example, without the items in `examples.seen` if `exclude_seen`.

        Args:
            examples: B questions.
            k: length of the list.
            exclude_seen: leave out what the user has met.
            candidates: (I,) which items may be recommended; None: all.
        """

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write everything `load` needs into `directory` (created; JSON, safetensors, PEFT folders; never pickle)."""

    @classmethod
    @abstractmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote."""


class Scorer(Recommender):
    """A recommender that scores every item of the catalogue."""

    user_vectors: torch.Tensor | None = None
    """(U, D) where the model has one vector a known user."""

    item_vectors: torch.Tensor | None = None
    """(I, D) where the model has one vector an item."""

    @abstractmethod
    def scores(self, examples: Examples) -> torch.Tensor:
        """Float32 scores (B, I) on the model's device; higher is better. Callers pass blocks, see `score_blocks`.

        The tensor is contiguous and the caller's, who may write into it.
        """

    def rows_at_once(self, n_items: int) -> int:
        """Examples of a block of `score_blocks`, at least 1."""
        return max(1, BLOCK_SCORES // max(1, n_items))

    def rank(
        self, examples: Examples, k: int, *, exclude_seen: bool = True, candidates: BoolArray | None = None
    ) -> Ranking:
        """Top K by score; of equal scores the lower item id comes first."""
        import torch

        # Filled in place: small results kept between large temporary ones would keep the allocator from reusing these.
        answer = Ranking(
            np.full((len(examples), k), NO_ITEM, np.int32), np.full((len(examples), k), -np.inf, np.float32)
        )
        at = 0
        for block, scores in score_blocks(self, examples):
            mask_scores(scores, block, exclude_seen=exclude_seen, candidates=candidates)
            best = stable_topk(scores, min(k, scores.shape[1]))
            value = scores.gather(1, best)
            best = torch.where(torch.isneginf(value), torch.full_like(best, NO_ITEM), best)
            place = np.s_[at : at + len(block), : best.shape[1]]
            answer.items[place], answer.scores[place] = best.cpu().numpy(), value.cpu().numpy()
            at += len(block)
        return answer


class Reranker(Recommender):
    """Puts the first candidates of another recommender, its base, into an order of its own.

    Attributes:
        base: whose list is put in order.
        depth: how many of its items, K; those behind keep their order.
    """

    base: Recommender
    depth: int

    @abstractmethod
    def utilities(self, examples: Examples, items: ItemArray) -> FloatArray:
        """How much each of K candidates appeals, (B, K) float32: higher is better, NaN where there is no opinion.

        Args:
            examples: B questions.
            items: (B, K) candidates in the order of the base, `NO_ITEM` where a row has fewer.
        """

    def rank(
        self, examples: Examples, k: int, *, exclude_seen: bool = True, candidates: BoolArray | None = None
    ) -> Ranking:
        """The base's list with its first candidates by utility; scores are minus the places, see `reordered`."""
        listed = self.base.rank(examples, max(k, self.depth), exclude_seen=exclude_seen, candidates=candidates)
        return reordered(listed, self.utilities(examples, listed.items[:, : self.depth]), k)


class TextRecommender(Scorer):
    """A scorer that answers in words first; the words are then grounded to items."""

    @abstractmethod
    def complete(self, examples: Examples, *, workspace: Path | None = None) -> list[str]:
        """The generated text of every example, remembered: `scores` of the same examples generates nothing again.

        Args:
            examples: B questions.
            workspace: where finished chunks are kept, so that a killed generation continues.
        """

    @abstractmethod
    def is_title(self, text: str) -> bool:
        """Whether a generated text is exactly a title of the catalogue."""


class RatingPredictor(ABC):
    """Something that learns from the ratings of a `Split` and predicts those of (user, item) pairs."""

    @abstractmethod
    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        """Learn from the training ratings; see `Recommender.fit`.

        Raises:
            InputError: if the data have no ratings.
        """

    @abstractmethod
    def predict(self, pairs: Pairs) -> FloatArray:
        """Predicted ratings (B,) float32. A user or item without training rows, or that the data do not have, is
        predicted from what else is known.
        """

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write everything `load` needs into `directory`; see `Recommender.save`."""

    @classmethod
    @abstractmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote."""


def reordered(ranking: Ranking, utility_BK: FloatArray, k: int) -> Ranking:
    """A ranking whose first K places are sorted by utility, the best k of it; scores are −1, −2, … by place.

    Equal utilities keep their order, and items without one (NaN) follow those that have one, in their order. All other
    places stay as they are.
    """
    n, depth = utility_BK.shape
    known = np.where(np.isnan(utility_BK) | (ranking.items[:, :depth] == NO_ITEM), -np.inf, utility_BK)
    absent = np.isnan(utility_BK) + 2 * (ranking.items[:, :depth] == NO_ITEM)
    order = np.lexsort((np.broadcast_to(np.arange(depth), (n, depth)), -known, absent), axis=1)
    items = ranking.items.copy()
    items[:, :depth] = np.take_along_axis(ranking.items[:, :depth], order, 1)
    items = items[:, :k]
    scores = np.where(items == NO_ITEM, -np.inf, -np.arange(1.0, items.shape[1] + 1)).astype(np.float32)
    return Ranking(items, scores)


def score_blocks(scorer: Scorer, examples: Examples) -> Iterator[tuple[Examples, torch.Tensor]]:
    """Scores block by block, so that at most about `BLOCK_SCORES` of them exist at once.

    The first block has one example: it tells the size of the catalogue.
    """
    if not len(examples):
        return
    first = examples.take(slice(0, 1))
    scores = scorer.scores(first)
    yield first, scores
    for block in examples.take(slice(1, None)).blocks(scorer.rows_at_once(scores.shape[1])):
        yield block, scorer.scores(block)


def mask_scores(scores: torch.Tensor, examples: Examples, *, exclude_seen: bool, candidates: BoolArray | None) -> None:
    """Write −∞ into `scores` (B, I) at items that may not be recommended (0 is no mask: scores may be negative)."""
    import torch

    if exclude_seen:
        mask_rows(scores, examples.seen)
    if candidates is not None:
        scores[:, torch.from_numpy(~candidates).to(scores.device)] = -torch.inf


def mask_rows(scores: torch.Tensor, items: Ragged) -> None:
    """Write −∞ into `scores` (B, I) at the items of each of B rows."""
    import torch

    places = np.repeat(np.arange(len(items)) * scores.shape[1], items.lengths)
    places += items.flat()
    scores.view(-1).index_fill_(0, torch.from_numpy(places).to(scores.device), -torch.inf)


def stable_topk(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Indices of the K largest, ties by index: `topk` alone promises no order among equal scores."""
    import torch

    value, index = torch.topk(scores, k, dim=1)
    tied_at_end = (scores == value[:, -1:]).sum(1) > (value == value[:, -1:]).sum(1)
    if bool(tied_at_end.any()):
        redo = torch.argsort(scores[tied_at_end], dim=1, descending=True, stable=True)[:, :k]
        index[tied_at_end] = redo
        value[tied_at_end] = scores[tied_at_end].gather(1, redo)
    by_index = torch.argsort(index, dim=1, stable=True)
    index, value = index.gather(1, by_index), value.gather(1, by_index)
    by_value = torch.argsort(value, dim=1, descending=True, stable=True)
    return index.gather(1, by_value)
