"""What all feature-interaction models share: embedding, linear part, squared loss, training, prediction, storage."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self, overload

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from tandemrec.conventional.rating.embedding import Members, field_rows, field_vectors
from tandemrec.conventional.rating.features import FeaturesConfig
from tandemrec.conventional.rating.table import FeatureTable
from tandemrec.conventional.storage import load_model, save_model
from tandemrec.data.ratings import Pairs, target_ratings, training_ratings
from tandemrec.data.split import Split
from tandemrec.evaluation.metrics import mae, rmse
from tandemrec.recommender import Config, FitReport, FloatArray, RatingPredictor
from tandemrec.training import Task, TrainingConfig, default_device, train
from tandemrec.training.dropout import drop

BLOCK = 1 << 16
"""Pairs that are looked up at once."""


class InteractionConfig(Config):
    """Settings of every feature-interaction model."""

    features: FeaturesConfig = FeaturesConfig()
    """Attributes beside the two ids."""

    dim: int = Field(16, ge=1)
    """Size of a field's vector D."""

    linear: bool = True
    """Add one weight a value (Σ w_f); the papers of DCN and AutoInt have none, published libraries add it."""

    init_std: float = Field(0.01, gt=0)
    """Standard deviation of the normal the vectors start from; unknown values start from 0."""

    l2: float = Field(0.01, ge=0)
    """Penalty on the squared norms of the vectors an example uses, in units of its squared error."""

    l2_linear: float = Field(0.0, ge=0)
    """The same for linear weights."""

    l2_power: float = Field(0.0, ge=0, le=1)
    """Divides a value's penalty by its training rows to this power. 0: a value pays each time it is used; 1: once an
    epoch, however frequent it is, which is the damping of a mean. Only the rows a batch touches are ever paid for."""

    embedding_dropout: float = Field(0.0, ge=0, lt=1)
    """Of the vectors."""

    clip: bool = True
    """Cut predictions to the smallest and largest rating of the training rows."""

    batch_size: int = Field(1024, ge=1)
    """Ratings of an optimiser step."""

    training: TrainingConfig = TrainingConfig(epochs=30, learning_rate=2e-3, clip_norm=None, patience=3)
    """Length and speed of learning; these models overfit within few epochs, so validation RMSE chooses the epoch."""

    @abstractmethod
    def interactions(self, fields: int) -> nn.Module:
        """The model's own part: vectors (B, F, D) → (B,)."""


class InteractionModule(nn.Module):
    """ŷ = b + Σ_f w_f + g(e_1 … e_F): a bias, linear weights and the interactions g of the fields' vectors.

    One table has a row for every value of every field: D entries of its vector and one linear weight.
    """

    def __init__(self, config: InteractionConfig, table: FeatureTable, mean: float, seed: int) -> None:
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            rows = torch.randn(table.rows, config.dim + 1) * config.init_std
            rows[:, -1] = 0
            rows[0] = 0
            rows[table.unknown] = 0
            self.rows = nn.Parameter(rows)
            self.interactions = config.interactions(table.fields)
        self.bias = nn.Parameter(torch.tensor(mean, dtype=torch.float32))
        self.widths = table.widths

    def forward(self, ids_BK: Tensor, inverse_BG: Tensor, share_BF: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Predictions (B,) for `Members`, and the penalty of the rows that made them; `share_BF` are its weights."""
        members = Members(ids_BK, inverse_BG)
        rates = self.config.l2, self.config.l2_linear
        vectors_BFD, linear_B, penalty = field_vectors(self.rows, members, self.widths, rates, share_BF)
        vectors_BFD = drop(vectors_BFD, self.config.embedding_dropout, self.training)
        predicted = self.bias + self.interactions(vectors_BFD)
        return predicted + linear_B if self.config.linear else predicted, penalty


class InteractionPredictor(RatingPredictor):
    """A feature-interaction model; its config says which."""

    config_class: ClassVar[type[InteractionConfig]]

    def __init__(self, config: InteractionConfig | None = None, device: torch.device | str | None = None) -> None:
        self.config = config or self.config_class()
        self.device = torch.device(device) if device is not None else default_device()
        self.table: FeatureTable | None = None
        self.module: InteractionModule | None = None
        self.scale = (-np.inf, np.inf)

    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        """Learn from the training rows; the validation ratings choose the epoch by RMSE.

        Raises:
            InputError: if an interaction has no rating, or the data lack a column that `features` names.
        """
        ratings = training_ratings(split)
        self.scale = float(ratings.value.min()), float(ratings.value.max())
        self.table = FeatureTable.of(split, self.config.features).to(self.device)
        mean = float(ratings.value.mean(dtype=np.float64))
        self.module = InteractionModule(self.config, self.table, mean, seed).to(self.device)
        task = _Rating(self, self.module, self.table, split, seed)
        report = train(task, self.config.training, seed=seed, workspace=workspace, label=type(self).__name__)
        self.module.eval()
        return report

    @property
    def user_vectors(self) -> Tensor:
        """The vectors (U, D) of the users' ids."""
        if self.module is None or self.table is None:
            raise RuntimeError(f"{type(self).__name__} must be fitted or loaded first")
        return self.module.rows.detach()[self.table.user_single[:-1, 0], :-1]

    @torch.no_grad()
    def predict(self, pairs: Pairs) -> FloatArray:
        """Predicted ratings (B,)."""
        if self.module is None or self.table is None:
            raise RuntimeError(f"{type(self).__name__} must be fitted or loaded first")
        user_B, item_B = self.table.places(pairs)
        blocks = [
            self.module(*self.table.lookup(*block))[0]
            for block in zip(torch.split(user_B, BLOCK), torch.split(item_B, BLOCK), strict=True)
        ]
        predicted: FloatArray = torch.cat(blocks).float().cpu().numpy()
        return predicted.clip(*self.scale) if self.config.clip else predicted

    def save(self, directory: Path) -> None:
        """Write `config.json` and `model.safetensors`, which holds the encoded users and items too."""
        if self.module is None or self.table is None:
            raise RuntimeError(f"{type(self).__name__} must be fitted first")
        codes = {f"table:{name}": tensor for name, tensor in self.table.tensors().items()}
        scale = {"scale": torch.tensor(self.scale, dtype=torch.float64)}
        save_model(directory, self.config, self.module.state_dict() | codes | scale)

    @classmethod
    def load(cls, directory: Path, device: torch.device | str | None = None) -> Self:
        """Read what `save` wrote."""
        config, tensors = load_model(directory, cls.config_class)
        low, high = tensors.pop("scale").tolist()
        codes = {name: tensors.pop(name) for name in list(tensors) if name.startswith("table:")}
        model = cls(config, device)
        table = FeatureTable.from_tensors(
            {name.removeprefix("table:"): tensor for name, tensor in codes.items()}, len(tensors["rows"])
        )
        model.table, model.scale = table.to(model.device), (low, high)
        model.module = InteractionModule(config, table, 0.0, seed=0)
        model.module.load_state_dict(tensors)
        model.module.to(model.device).eval()
        return model


@dataclass(frozen=True)
class _Batch:
    """Training rows with everything their loss needs: `Members`, ratings, and the weights of their penalty."""

    ids_BK: Tensor
    inverse_BG: Tensor
    value_B: Tensor
    share_BF: Tensor | None


class _Rating(Task[_Batch]):
    """The task of the training loop: squared error of the training ratings."""

    def __init__(
        self, model: InteractionPredictor, module: InteractionModule, table: FeatureTable, split: Split, seed: int
    ) -> None:
        self.model, self.table, self.seed = model, table, seed
        self.module: InteractionModule = module
        ratings = training_ratings(split)
        self.user, self.item = table.places(ratings.pairs)
        self.value = torch.from_numpy(ratings.value.copy()).to(self.user.device)
        self.chosen_by, _ = target_ratings(split, split.valid)
        self.share_N1: Tensor | None = None
        if model.config.l2_power:
            share_N = table.counts(split).clamp(min=1) ** -model.config.l2_power
            share_N[0] = 0
            self.share_N1 = share_N[:, None].float().to(self.value.device)

    def steps(self, epoch: int) -> Sequence[Sequence[_Batch]]:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.value))
        return _Steps(self, torch.from_numpy(order).to(self.value.device))

    def batches(self, rows: Tensor) -> list[_Batch]:
        """Training rows, looked up together and then cut."""
        ids, inverse = members = self.table.lookup(self.user[rows], self.item[rows])
        size = self.model.config.batch_size
        parts = [torch.split(part, size) for part in (ids, inverse, self.value[rows])]
        shares: Sequence[Tensor | None] = [None] * len(parts[0])
        if self.share_N1 is not None:
            shares = torch.split(field_rows(self.share_N1, members, self.table.widths)[..., 0], size)
        return [_Batch(*columns) for columns in zip(*parts, shares, strict=True)]

    def weight(self, batch: _Batch) -> float:
        return len(batch.value_B)

    def loss(self, batch: _Batch) -> Tensor:
        predicted, penalty = self.run(batch.ids_BK, batch.inverse_BG, batch.share_BF)
        loss: Tensor = F.mse_loss(predicted, batch.value_B, reduction="sum") + penalty
        return loss

    def validate(self) -> dict[str, float]:
        predicted = self.model.predict(self.chosen_by.pairs)
        error = rmse(predicted, self.chosen_by.value)
        return {"negative_rmse": -error, "rmse": error, "mae": mae(predicted, self.chosen_by.value)}


class _Steps(Sequence[Sequence[_Batch]]):
    """Steps of an epoch. Rows are looked up for many steps at once, when the first of them is asked for: a step's own
    lookups would take longer than its arithmetic, those of an epoch more memory than the data.
    """

    def __init__(self, task: _Rating, order: Tensor) -> None:
        self.task, self.order, self.chunk = task, order, -1
        self.size = task.model.config.batch_size
        self.together = max(1, BLOCK // self.size)

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.size)

    @overload
    def __getitem__(self, index: int) -> Sequence[_Batch]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sequence[_Batch]]: ...
    def __getitem__(self, index: int | slice) -> Sequence[_Batch] | Sequence[Sequence[_Batch]]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        chunk, place = divmod(range(len(self))[index], self.together)
        if chunk != self.chunk:
            length = self.size * self.together
            self.batches = self.task.batches(self.order[chunk * length : (chunk + 1) * length])
            self.chunk = chunk
        return [self.batches[place]]
