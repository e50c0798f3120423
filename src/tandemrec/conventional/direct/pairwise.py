"""What MF, LightGCN, MixGCF and SGL share: a vector a user and an item, learned from pairs by the BPR loss.

B pairs of a step, K negatives of a pair, U users, I items, N = U + I vertices, D vector size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, overload

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from tandemrec.conventional.direct.interactions import Pairs
from tandemrec.conventional.negatives import NegativeSampler
from tandemrec.conventional.storage import load_model, save_model
from tandemrec.data.examples import Examples, IntArray
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.evaluation.evaluate import validation_figures
from tandemrec.recommender import Config, FitReport, Scorer
from tandemrec.training import Task, TrainingConfig, default_device, train

CACHE_SCORES = 1 << 19
"""Scores that a thread of a processor writes and reads again best: 2 MB, so that blocks of them stay in its caches."""


class PairwiseConfig(Config):
    """What the four models choose alike."""

    dim: int = Field(64, ge=1)
    """Size of user and item vectors D."""

    l2: float = Field(1e-4, ge=0)
    """λ of λ/2 · (‖e_u‖² + ‖e_i‖² + ‖e_j‖²), the mean over a step's triples of the learned vectors they use."""

    init_std: float | None = Field(None, gt=0)
    """Standard deviation of the normal the vectors start from; null: Xavier's √(2 / (rows + D)), for each table."""

    batch_size: int = Field(2048, ge=1)
    """Pairs of an optimiser step."""

    training: TrainingConfig = TrainingConfig(epochs=1000, clip_norm=None, validate_every=5)
    """Length and speed of learning."""


@dataclass(frozen=True)
class PairBatch:
    """B training triples as rows of the vertex table: user u is row u, item i row U + i.

    Attributes:
        user: (B,).
        positive: (B,), items the users met.
        negative: (B, K), items they did not meet.
        views: random views of the graph that hold for the whole epoch, for models that use them.
    """

    user: Tensor
    positive: Tensor
    negative: Tensor
    views: tuple[Sequence[Tensor], ...] = ()

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class Preferences:
    """Triples beside those of the interactions: a user would rather have one item than another; (N,) int64 each."""

    users: IntArray
    preferred: IntArray
    rejected: IntArray

    def __len__(self) -> int:
        return len(self.users)


NO_PREFERENCES = Preferences(*(np.empty(0, np.int64) for _ in range(3)))


def bpr_loss(user_BD: Tensor, positive_BD: Tensor, negative_BD: Tensor) -> Tensor:
    """Σ −log σ(u·i − u·j) over the triples (BPR-OPT of Rendle et al. 2009, without its regulariser)."""
    return F.softplus((user_BD * (negative_BD - positive_BD)).sum(1)).sum()


class _TableLoss(torch.autograd.Function):
    """BPR and L2 of the rows of one table, with the gradient in closed form: fewer passes over fewer temporary arrays.

    With x = u·(j − i): ∂u = σ(x)(j − i) + λu, ∂i = −σ(x)u + λi, ∂j = σ(x)u + λj.
    """

    @staticmethod
    def forward(ctx: Any, table_ND: Tensor, rows_3B: Tensor, l2: float) -> Tensor:
        taken = table_ND.index_select(0, rows_3B)
        user, positive, negative = taken.view(3, -1, taken.shape[1])
        difference = negative - positive
        x_B = (user * difference).sum(1)
        ctx.save_for_backward(rows_3B, taken, difference, x_B)
        ctx.l2, ctx.shape = l2, table_ND.shape
        return F.softplus(x_B).sum() + l2 / 2 * torch.dot(taken.view(-1), taken.view(-1))

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        rows_3B, taken, difference, x_B = ctx.saved_tensors
        pull_B1 = (torch.sigmoid(x_B) * upstream)[:, None]
        gradient = taken * (ctx.l2 * upstream)
        user, positive, negative = gradient.view(3, -1, taken.shape[1])
        pulled = pull_B1 * taken[: len(x_B)]
        user.addcmul_(pull_B1, difference)
        positive.sub_(pulled)
        negative.add_(pulled)
        return taken.new_zeros(ctx.shape).index_add_(0, rows_3B, gradient), None, None


class PairwiseModule(nn.Module):
    """One table of all learned vectors; without more it is matrix factorisation."""

    n_negatives = 1
    """K, items drawn for every pair."""

    def __init__(self, config: PairwiseConfig, pairs: Pairs, device: torch.device, seed: int) -> None:
        super().__init__()
        self.l2, self.n_users = config.l2, pairs.n_users
        generator = torch.Generator().manual_seed(seed)
        tables = []
        for rows in (pairs.n_users, pairs.n_items):
            std = config.init_std or (2 / (rows + config.dim)) ** 0.5
            tables.append(torch.randn(rows, config.dim, generator=generator) * std)
        self.table = nn.Parameter(torch.cat(tables).to(device))

    def vectors(self) -> Tensor:
        """What scores are inner products of, users first: (N, D)."""
        return self.table

    def views(self, rng: np.random.Generator) -> tuple[Sequence[Tensor], ...]:
        """Random views of the graph for one epoch."""
        return ()

    def forward(self, batch: PairBatch) -> Tensor:
        """The loss of a batch: BPR of the final vectors plus L2 of the learned ones, summed over the triples."""
        return self.pair_loss(self.vectors(), batch)

    def pair_loss(self, vectors_ND: Tensor, batch: PairBatch) -> Tensor:
        """BPR of given final vectors with the first negative, plus L2, summed over the triples."""
        rows_3B = torch.cat([batch.user, batch.positive, batch.negative[:, 0]])
        if vectors_ND is self.table:
            loss: Tensor = _TableLoss.apply(self.table, rows_3B, self.l2)  # type: ignore[no-untyped-call]
            return loss
        user, positive, negative = vectors_ND.index_select(0, rows_3B).view(3, len(batch), -1)
        learned = self.table.index_select(0, rows_3B).view(-1)
        return bpr_loss(user, positive, negative) + self.l2 / 2 * torch.dot(learned, learned)


class PairwiseModel(Scorer):
    """Scores are inner products of a user's and an item's vector; only users of the training part have one."""

    config_class: ClassVar[type[PairwiseConfig]]
    module_class: ClassVar[type[PairwiseModule]]
    preferences: Preferences = NO_PREFERENCES
    """Learned from beside the interactions, each as often and with the same weight; edges of no graph."""

    def __init__(self, config: Any = None, device: torch.device | str | None = None) -> None:
        self.config = config or self.config_class()
        self.device = torch.device(device) if device is not None else default_device()
        self.known_U = torch.empty(0, dtype=torch.bool)

    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        """Learn from `split.sequences`; `split.valid` chooses the epoch by NDCG@10.

        Raises:
            InputError: if there are no training pairs, or a validation user has none.
        """
        pairs = Pairs.of(split.sequences, split.n_items)
        if not len(pairs):
            raise InputError(f"{split.dataset.name}: {self._name} needs training interactions, found none")
        self.known_U = torch.from_numpy(np.bincount(pairs.users, minlength=pairs.n_users) > 0)
        self._refuse_unknown(split.valid)
        module = self.module_class(self.config, pairs, self.device, seed)
        report = train(
            PairwiseTask(self, module, split, pairs, seed),
            self.config.training,
            seed=seed,
            workspace=workspace,
            label=self._name,
        )
        self.publish(module)
        return report

    @torch.no_grad()
    def publish(self, module: PairwiseModule) -> None:
        """Answer with the vectors of `module` from now on."""
        vectors = module.vectors().detach()
        self.user_vectors, self.item_vectors = vectors[: module.n_users], by_column(vectors[module.n_users :])

    def scores(self, examples: Examples) -> Tensor:
        """Scores (B, I).

        Raises:
            InputError: if an example has no user, or one without training interactions.
        """
        if self.user_vectors is None or self.item_vectors is None:
            raise RuntimeError(f"{self._name} must be fitted or loaded first")
        self._refuse_unknown(examples)
        users = torch.from_numpy(examples.user.astype(np.int64)).to(self.device)
        return self.user_vectors[users] @ self.item_vectors.T

    def rows_at_once(self, n_items: int) -> int:
        """Few enough for the cache of a processor, enough for a matrix product to be worth it."""
        most = super().rows_at_once(n_items)
        cached = CACHE_SCORES * torch.get_num_threads()
        return min(most, max(64, cached // n_items)) if self.device.type == "cpu" else most

    def save(self, directory: Path) -> None:
        """Write `config.json` and `model.safetensors`: the final vectors, which are all that answering takes."""
        if self.user_vectors is None or self.item_vectors is None:
            raise RuntimeError(f"{self._name} must be fitted or loaded first")
        tensors = {"user_vectors": self.user_vectors, "item_vectors": self.item_vectors, "known_users": self.known_U}
        save_model(directory, self.config, tensors)

    @classmethod
    def load(cls, directory: Path, device: torch.device | str | None = None) -> Self:
        """Read what `save` wrote."""
        config, tensors = load_model(directory, cls.config_class)
        model = cls(config, device)
        model.known_U = tensors["known_users"]
        model.user_vectors = tensors["user_vectors"].to(model.device)
        model.item_vectors = by_column(tensors["item_vectors"].to(model.device))
        return model

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _refuse_unknown(self, examples: Examples) -> None:
        users, known = examples.user.astype(np.int64), self.known_U.numpy()
        inside = (users >= 0) & (users < len(known))
        wrong = np.flatnonzero(~(inside & known[np.where(inside, users, 0)]))
        if len(wrong):
            user = int(users[wrong[0]])
            who = "a history without a user" if user < 0 else f"user number {user}, who has no training interactions"
            raise InputError(
                f"{self._name} has vectors only for users with training interactions, but {len(wrong):,} of "
                f"{len(users):,} examples are of others, such as example {wrong[0]}: {who}; a model that reads "
                "histories (EASE, ItemKNN, ALS, SASRec) can answer them"
            )


def by_column(vectors_ID: Tensor) -> Tensor:
    """The same vectors, number after number in memory: small blocks of users times all items are a third quicker so."""
    return vectors_ID.T.contiguous().T


class PairwiseTask(Task[PairBatch]):
    """The task of the training loop: rank what a user met above what the user did not meet."""

    module: PairwiseModule

    def __init__(self, model: PairwiseModel, module: PairwiseModule, split: Split, pairs: Pairs, seed: int) -> None:
        self.model, self.module, self.split, self.pairs, self.seed = model, module, split, pairs, seed
        self.sampler = NegativeSampler(split.sequences, split.n_items)
        self.users = np.concatenate([pairs.users, model.preferences.users])
        self.positives = np.concatenate([pairs.items, model.preferences.preferred])

    def steps(self, epoch: int) -> Sequence[Sequence[PairBatch]]:
        """Every pair once."""
        return _Epoch(self, epoch)

    def weight(self, batch: PairBatch) -> float:
        """B."""
        return len(batch)

    def loss(self, batch: PairBatch) -> Tensor:
        """Sum over the triples."""
        loss: Tensor = self.run(batch)
        return loss

    def validate(self) -> dict[str, float]:
        """NDCG@10 and HR@10 of the validation part."""
        self.model.publish(self.module)
        return validation_figures(self.model, self.split.valid)


class _Epoch(Sequence[Sequence[PairBatch]]):
    """Every pair once in random order, with negatives drawn when a step is asked for: only one step's lie in memory."""

    def __init__(self, task: PairwiseTask, epoch: int) -> None:
        self.task, self.epoch, self.size = task, epoch, task.model.config.batch_size
        rng = np.random.default_rng([task.seed, epoch])
        self.order = rng.permutation(len(task.users))
        self.views = task.module.views(rng)

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.size)

    @overload
    def __getitem__(self, index: int) -> Sequence[PairBatch]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sequence[PairBatch]]: ...
    def __getitem__(self, index: int | slice) -> Sequence[Any]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        if index >= len(self):
            raise IndexError(index)
        task, n_users, given = self.task, self.task.pairs.n_users, self.task.model.preferences
        rng = np.random.default_rng([task.seed, self.epoch, index])
        chosen = self.order[index * self.size : (index + 1) * self.size]
        users, count = task.users[chosen], task.module.n_negatives
        drawn = task.sampler.draw(np.repeat(users, count), rng).reshape(-1, count).astype(np.int64)
        if len(given):
            beyond = np.flatnonzero(chosen >= len(task.pairs))
            drawn[beyond] = given.rejected[chosen[beyond] - len(task.pairs), None]
        user, positive, negative = (
            torch.from_numpy(array).to(task.model.device)
            for array in (users, task.positives[chosen] + n_users, drawn + n_users)
        )
        return [PairBatch(user, positive, negative, self.views)]
