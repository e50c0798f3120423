"""Semantic ids: a few digits an item, such that items of similar content begin alike (TIGER, section 3.1)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
import torch
from pydantic import Field
from torch import Tensor

from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import IntArray
from tandemrec.errors import InputError
from tandemrec.llm.content import ContentConfig, TfIdfConfig, content_vectors
from tandemrec.llm.kmeans import residual_kmeans
from tandemrec.llm.rq_vae import RQVAEConfig, fit_rq_vae
from tandemrec.recommender import Config, FitReport
from tandemrec.training import default_device

TABLE, REPORT = "ids.parquet", "ids.json"
SHOWN_ITEMS, SHOWN_NEIGHBOURS = 5, 3
"""Examples in the report: items, and neighbours of each."""


class ResidualKMeansConfig(Config):
    """k-means, level by level, of what the levels before it leave."""

    method: Literal["residual-kmeans"] = "residual-kmeans"
    """Which quantiser this is."""

    levels: int = Field(3, ge=1, le=16)
    """Digits of an id."""

    codes: int = Field(256, ge=2, le=65536)
    """Centres of a level."""

    rounds: int = Field(50, ge=1)
    """Most rounds of Lloyd's algorithm at a level."""


class SemanticIdsConfig(Config):
    """What ids are made of. Interactions play no part, so one set of ids serves whatever is trained on them."""

    content: ContentConfig = TfIdfConfig()
    """The vectors of the items' texts."""

    quantiser: Annotated[RQVAEConfig | ResidualKMeansConfig, Field(discriminator="method")] = RQVAEConfig()
    """How vectors become digits."""


@dataclass(frozen=True)
class SemanticIds:
    """One id an item, all of equal length, no two the same.

    Attributes:
        digits_IL: (I, L); the last digit tells items of equal codes apart, where there are any.
        sizes: how many values each digit may have.
    """

    digits_IL: IntArray
    sizes: tuple[int, ...]

    @classmethod
    def of_codes(cls, codes_IL: IntArray, codes: int) -> SemanticIds:
        """Ids from codes (I, L) below `codes`; items of equal codes get a further digit 0, 1, 2, … in their order."""
        _, group_I, count_G = np.unique(codes_IL, axis=0, return_inverse=True, return_counts=True)
        group_I = group_I.reshape(-1)
        sizes = (codes,) * codes_IL.shape[1]
        if count_G.max(initial=1) == 1:
            return cls(codes_IL.astype(np.int64), sizes)
        order = np.argsort(group_I, kind="stable")
        digit_I = np.empty(len(order), np.int64)
        digit_I[order] = np.arange(len(order)) - np.repeat(np.cumsum(count_G) - count_G, count_G)
        return cls(np.column_stack([codes_IL, digit_I]).astype(np.int64), (*sizes, int(count_G.max())))

    def __len__(self) -> int:
        return len(self.digits_IL)

    @property
    def length(self) -> int:
        """Digits of an id."""
        return len(self.sizes)

    def tokens(self, first: int) -> IntArray:
        """The digits as tokens (I, L): every digit has tokens of its own, from `first` on."""
        offsets = first + np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        tokens: IntArray = self.digits_IL + offsets
        return tokens

    def shared_prefix(self, item: int) -> IntArray:
        """With how many first digits of an item's id every id begins, (I,)."""
        equal_IL = self.digits_IL == self.digits_IL[item]
        shared: IntArray = np.cumprod(equal_IL, axis=1).sum(1)
        return shared

    def nearest(self, item: int, k: int = 10) -> list[tuple[int, int]]:
        """The K other items whose ids begin alike for longest, with the digits shared; of equal ones the lower first.

        Items that share no digit are left out.
        """
        shared = self.shared_prefix(item)
        shared[item] = 0
        order = np.argsort(-shared, kind="stable")[:k]
        return [(int(other), int(shared[other])) for other in order if shared[other]]

    def save(self, directory: Path, report: dict[str, Any]) -> None:
        """Write the table of ids and what is known about them."""
        directory.mkdir(parents=True, exist_ok=True)
        columns = {f"digit_{level + 1}": self.digits_IL[:, level].astype(np.int32) for level in range(self.length)}
        pl.DataFrame({"item": np.arange(len(self), dtype=np.int32), **columns}).write_parquet(directory / TABLE)
        told = json.dumps({"sizes": self.sizes, "report": report}, indent=1, ensure_ascii=False)
        (directory / REPORT).write_text(told + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> tuple[SemanticIds, dict[str, Any]]:
        """Read what `save` wrote.

        Raises:
            InputError: if there are no ids.
        """
        if not (directory / TABLE).is_file() or not (directory / REPORT).is_file():
            raise InputError(f"{directory} holds no semantic ids: there is no {TABLE} with {REPORT}")
        told = json.loads((directory / REPORT).read_text(encoding="utf-8"))
        digits = pl.read_parquet(directory / TABLE).drop("item").to_numpy().astype(np.int64)
        return cls(np.ascontiguousarray(digits), tuple(told["sizes"])), told["report"]


def build_semantic_ids(
    dataset: Dataset, config: SemanticIdsConfig, directory: Path, *, seed: int, workspace: Path | None = None
) -> FitReport:
    """Ids of a whole catalogue, from its texts alone, written to `directory`.

    Args:
        dataset: whose items.
        config: vectors and quantiser.
        directory: see `SemanticIds.save`.
        seed: of the quantiser.
        workspace: for checkpoints of its training.

    Raises:
        InputError: if a column or model that the vectors need is missing.
    """
    x_ID = standardised(content_vectors(dataset, config.content)).to(default_device())
    codes_IL, decoded_ID, report = _quantised(x_ID, config, seed, workspace)
    ids = SemanticIds.of_codes(codes_IL.cpu().numpy(), config.quantiser.codes)
    left, spread = (float(part.square().sum()) for part in (x_ID - decoded_ID, x_ID))
    report.notes = {
        "vectors": list(x_ID.shape),
        "reconstruction_error": left / spread if spread else 0.0,  # no spread: all texts are the same
        **diagnostics(codes_IL.cpu().numpy(), config.quantiser.codes),
        "digits": list(ids.sizes),
        "neighbours": neighbour_examples(ids, dataset.titles),
    }
    ids.save(directory, report.notes)
    return report


def standardised(x_ID: Tensor) -> Tensor:
    """Around their mean, and divided by one number such that an entry's mean square is 1; all 0 where all are equal."""
    centred_ID = x_ID - x_ID.mean(0)
    size, spread = (part.square().mean().sqrt() for part in (x_ID, centred_ID))
    if spread <= 1e-6 * size:  # what rounding leaves is no difference
        return torch.zeros_like(x_ID)
    return centred_ID / spread


def diagnostics(codes_IL: IntArray, codes: int) -> dict[str, Any]:
    """How codes are used: of every level the share of codes in use and the perplexity; and how many items collide.

    Perplexity is exp of the entropy of a level's codes: `codes`, if all are equally frequent. The collision rate is the
    share of items whose codes another item has too, before the further digit tells them apart.
    """
    levels = []
    for code_I in codes_IL.T:
        share = np.bincount(code_I, minlength=codes) / len(code_I)
        share = share[share > 0]
        levels.append({"used": len(share) / codes, "perplexity": float(np.exp(-(share * np.log(share)).sum()))})
    counts = np.unique(codes_IL, axis=0, return_counts=True)[1]
    return {
        "levels": levels,
        "collision_rate": float(counts[counts > 1].sum() / len(codes_IL)),
        "largest_collision": int(counts.max()),
    }


def neighbour_examples(ids: SemanticIds, titles: Sequence[str]) -> list[dict[str, Any]]:
    """A few items, evenly spaced, with those whose ids begin alike."""
    items = np.unique(np.linspace(0, len(ids) - 1, min(SHOWN_ITEMS, len(ids))).astype(int)).tolist()
    return [
        {
            "title": titles[item],
            "id": ids.digits_IL[item].tolist(),
            "nearest": [
                {"title": titles[other], "shared": shared} for other, shared in ids.nearest(item, SHOWN_NEIGHBOURS)
            ],
        }
        for item in items
    ]


def _quantised(
    x_ID: Tensor, config: SemanticIdsConfig, seed: int, workspace: Path | None
) -> tuple[Tensor, Tensor, FitReport]:
    """Codes (I, L), the vectors they stand for (I, D), and what training did."""
    settings = config.quantiser
    if isinstance(settings, RQVAEConfig):
        module, report = fit_rq_vae(x_ID, settings, seed=seed, workspace=workspace)
        codes_IL, _ = module.codes(x_ID)
        return codes_IL, module.decoded(codes_IL), report
    rng = np.random.default_rng(seed)
    books_LKD, codes_IL = residual_kmeans(x_ID, settings.levels, settings.codes, rng, settings.rounds)
    decoded_ID = torch.stack([book[code] for book, code in zip(books_LKD, codes_IL.T, strict=True)]).sum(0)
    return codes_IL, decoded_ID, FitReport()
