"""`SequenceModel`: a scorer whose user vector is what a network makes of the history."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from tandemrec.conventional.sequential.module import SequenceConfig, SequenceModule, last_states
from tandemrec.conventional.sequential.next_item import NextItem
from tandemrec.conventional.storage import load_model, save_model
from tandemrec.data.examples import Examples, Ragged
from tandemrec.data.split import Split
from tandemrec.recommender import Config, FitReport, Scorer
from tandemrec.training import Task, default_device, train

ConfigT = TypeVar("ConfigT", bound=Config)
ModuleT = TypeVar("ModuleT", bound=SequenceModule)


class SequenceModel(Scorer, Generic[ConfigT, ModuleT]):
    """Scores items by the inner product of a history's last state with the item table, plus the item bias if any.

    Answers for any history, also of a user it has never met. A history without items says nothing: all its scores
    are 0. `item_vectors` are those the states are compared with.
    """

    config_class: ClassVar[type[Config]]

    def __init__(self, config: ConfigT, device: torch.device | str | None = None) -> None:
        self.config = config
        self.device = torch.device(device) if device is not None else default_device()
        self.module: ModuleT | None = None

    @property
    def settings(self) -> SequenceConfig:
        """The shared settings among those of the config."""
        assert isinstance(self.config, SequenceConfig)
        return self.config

    @abstractmethod
    def make_module(self, n_items: int, seed: int) -> ModuleT:
        """An untrained network for a catalogue of `n_items`."""

    def module_for(self, split: Split, seed: int) -> ModuleT:
        """An untrained network for these data."""
        return self.make_module(split.n_items, seed)

    def module_like(self, tensors: dict[str, Tensor]) -> ModuleT:
        """A network that stored tensors fit into."""
        return self.make_module(len(tensors["item.weight"]), 0)

    def make_task(self, module: ModuleT, split: Split, seed: int) -> Task[Any]:
        """What the network learns."""
        return NextItem(self, module, self.settings, split, seed)

    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        """Learn from `split.sequences`; `split.valid` chooses the epoch by NDCG@10.

        Raises:
            InputError: if no user has two training items.
        """
        module = self.module_for(split, seed).to(self.device)
        return self.learn(module, self.make_task(module, split, seed), seed=seed, workspace=workspace)

    def learn(self, module: ModuleT, task: Task[Any], *, seed: int, workspace: Path | None = None) -> FitReport:
        """Train this network on this task; `fit` with parts that somebody else may have added to."""
        self.module = module
        report = train(task, self.settings.training, seed=seed, workspace=workspace, label=type(self).__name__)
        self.adopt(module)
        return report

    def scores(self, examples: Examples) -> Tensor:
        """Scores (B, I)."""
        module = self.fitted()
        scores = self.states(examples) @ module.item_table().detach().T
        bias = module.item_bias()
        if bias is None:
            return scores
        known_B = torch.from_numpy(examples.history.lengths > 0).to(self.device)
        return scores + known_B[:, None] * bias.detach()

    def states(self, examples: Examples) -> Tensor:
        """What the item table is multiplied with, (B, D)."""
        return self.encode(examples.history)

    @torch.no_grad()
    def encode(self, histories: Ragged) -> Tensor:
        """Last states (B, D): vectors of users as their histories tell them; 0 for an empty history."""
        module = self.fitted()
        out = torch.zeros(len(histories), module.state_size, device=self.device)
        some = np.flatnonzero(histories.lengths)
        if len(some):
            recent = histories.take(some).tail(self.settings.max_length)
            out[torch.from_numpy(some).to(self.device)] = last_states(module, recent, self.settings.micro_batch_tokens)
        return out

    def save(self, directory: Path) -> None:
        """Write `config.json` and `model.safetensors`."""
        save_model(directory, self.config, self.fitted().state_dict())

    @classmethod
    def load(cls, directory: Path, device: torch.device | str | None = None) -> Self:
        """Read what `save` wrote."""
        config, tensors = load_model(directory, cls.config_class)
        model = cls(cast(ConfigT, config), device=device)
        module = model.module_like(tensors)
        module.load_state_dict(tensors)
        model.adopt(module.to(model.device))
        return model

    def fitted(self) -> ModuleT:
        """The trained network.

        Raises:
            RuntimeError: if there is none yet.
        """
        if self.module is None:
            raise RuntimeError(f"{type(self).__name__} must be fitted or loaded first")
        return self.module

    def adopt(self, module: ModuleT) -> None:
        """Answer by this trained network from now on."""
        self.module = module
        module.eval()
        self.item_vectors = module.item_table().detach()
