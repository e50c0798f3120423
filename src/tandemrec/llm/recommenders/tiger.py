"""TIGER: generative retrieval over semantic ids (Rajput et al., NeurIPS 2023)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from safetensors.torch import load_file, save_file

from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import Examples
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.evaluation.evaluate import validation_figures
from tandemrec.llm.id_model import IdModel, IdNetworkConfig, grow_ids
from tandemrec.llm.id_training import IdTask, IdTrainingConfig, Rows, Tokens, training_rows
from tandemrec.llm.semantic_ids import SemanticIds, SemanticIdsConfig, build_semantic_ids
from tandemrec.llm.trie import Trie, decode_titles
from tandemrec.recommender import BoolArray, Config, FitReport, Ranking, Recommender
from tandemrec.training import default_device, train

WEIGHTS = "model.safetensors"


class TIGERConfig(Config):
    """Ids, network, training and decoding; defaults of the network are the paper's."""

    model: Literal["tiger"] = "tiger"
    """Which model this is."""

    ids: SemanticIdsConfig = SemanticIdsConfig()
    """How items get their ids: from the texts of the whole catalogue, whatever is trained on."""

    network: IdNetworkConfig = IdNetworkConfig()
    """The encoder–decoder."""

    probabilities: Literal["vocabulary", "catalogue"] = "vocabulary"
    """Among which tokens a digit has its probability, in training and decoding: all, as published; or those by which
    some id of the catalogue goes on. Then nothing has to be learned about which ids exist, and the probabilities of all
    items sum to 1."""

    max_items: int = Field(20, ge=1)
    """Latest items of a history that are read."""

    user_tokens: int = Field(2000, ge=0)
    """Tokens that stand for users, each for many, by their number modulo this; 0: none. With any, whoever is not known,
    or whose token no training user shares, is answered with a token that was not learned."""

    learning: IdTrainingConfig = IdTrainingConfig()
    """How it is trained."""

    beams: int = Field(20, ge=1)
    """Ids that grow at once; more where a longer list is asked for."""

    batch_size: int = Field(64, ge=1)
    """Histories that are answered at once."""

    train_on: str | None = None
    """The selector of the recipe's `selection` part whose choice of training examples it learns from, with
    `learning.samples` of `examples` or `prefixes`; null: all."""

    @model_validator(mode="after")
    def _a_choice_is_of_examples(self) -> Self:
        if self.train_on is not None and self.learning.samples not in ("examples", "prefixes"):
            raise ValueError(
                "train_on chooses among training examples; learning.samples must be examples or prefixes, "
                f"found {self.learning.samples}"
            )
        return self

    def check(self) -> None:
        """Refuse a model folder that is not there."""
        self.ids.content.check()


class TIGER(Recommender):
    """Items are named by a few digits that tell what they are like; a T5 reads those of a history and writes the next.

    Decoding is constrained to ids of the catalogue, so a score is the log-probability of an item's id, exactly; with as
    many beams as items the list is that of scoring all of them.

    Attributes:
        config: the configuration.
        ids: of all items.
    """

    def __init__(self, config: TIGERConfig | None = None, semantic_ids: Path | None = None) -> None:
        """Configure.

        Args:
            config: the configuration.
            semantic_ids: folder of ids that were built for it (`build_semantic_ids`); None: `fit` builds them.
        """
        self.config = config or TIGERConfig()
        self.semantic_ids = semantic_ids
        self.ids: SemanticIds | None = None
        self._about: dict[str, Any] = {}
        self._module: IdModel | None = None
        self._trie: Trie | None = None

    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        """Train all parameters; the validation part chooses the epoch.

        Raises:
            InputError: if the ids are of another catalogue, or there is nothing to learn from.
        """
        ids, about = self._ids_of(split.dataset, seed, workspace)
        if len(ids) != split.n_items:
            raise InputError(f"{self.semantic_ids} has ids of {len(ids):,} items, the data have {split.n_items:,}")
        learning = self.config.learning
        shared = self.config.network.reading == "causal"
        rows = training_rows(split, learning.samples, self.config.max_items, shared=shared)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._adopt(ids, about)
        module = self.module
        valid = _drawn(split.valid, learning.judged, seed)
        task = IdTask(module, self.tokens, rows, learning, seed, lambda: self._judge(task, valid))
        report = train(task, learning.training, seed=seed, workspace=workspace, label="TIGER")
        module.eval()
        report.notes |= {
            "semantic_ids": about,
            "targets": int(rows.known.lengths.sum()),
            "parameters": sum(parameter.numel() for parameter in module.parameters()),
        }
        return report

    @torch.no_grad()
    def rank(
        self, examples: Examples, k: int, *, exclude_seen: bool = True, candidates: BoolArray | None = None
    ) -> Ranking:
        """The K likeliest ids that a beam search finds; items that may not be recommended take no beam."""
        closed = [] if candidates is None else np.flatnonzero(~candidates).tolist()
        seen = [row.tolist() for row in examples.seen] if exclude_seen else [[]] * len(examples)
        self.module.eval()
        return decode_titles(
            partial(grow_ids, self.module),
            self.tokens.histories(examples),
            self._catalogue(),
            k,
            beams=max(k, self.config.beams),
            among_titles=self.config.probabilities == "catalogue",
            exclude=[[*row, *closed] for row in seen],
            batch_size=self.config.batch_size,
        )

    @torch.no_grad()
    def log_probabilities(self, examples: Examples) -> torch.Tensor:
        """Log-probabilities (B, I) of the ids of all items, each computed as a whole: what `rank` approaches."""
        answers_IL = torch.from_numpy(self.tokens.items()).to(self._device)
        rows = []
        for history in self.tokens.histories(examples):
            tokens_1S = torch.tensor([history], device=self._device)
            known_1I = torch.full((1, len(answers_IL)), tokens_1S.shape[1] // self.module.length, device=self._device)
            rows.append(self.module(tokens_1S, known_1I, answers_IL[None])[0].sum(1))
        return torch.stack(rows)

    @property
    def module(self) -> IdModel:
        """The network.

        Raises:
            RuntimeError: if there is none yet.
        """
        if self._module is None:
            raise RuntimeError("TIGER must be fitted or loaded first")
        return self._module

    @property
    def tokens(self) -> Tokens:
        """How histories become tokens."""
        assert self.ids is not None
        return Tokens(self.ids, self.config.user_tokens, self.config.max_items)

    def save(self, directory: Path) -> None:
        """`config.json`, the table of ids with what is known about them, and the weights."""
        assert self.ids is not None
        self.config.write(directory)
        self.ids.save(directory, self._about)
        tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in self.module.named_parameters()}
        save_file(tensors, directory / WEIGHTS)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            InputError: if a part is missing.
        """
        model = cls(TIGERConfig.read(directory))
        if not (directory / WEIGHTS).is_file():
            raise InputError(f"{directory} holds no saved model: there is no {WEIGHTS}")
        model._adopt(*SemanticIds.load(directory))
        tensors = load_file(directory / WEIGHTS)
        parameters = dict(model.module.named_parameters())
        if tensors.keys() != parameters.keys():
            raise InputError(f"{directory / WEIGHTS} holds other weights than config.json says")
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(tensors[name])
        model.module.eval()
        return model

    def _ids_of(self, dataset: Dataset, seed: int, workspace: Path | None) -> tuple[SemanticIds, dict[str, Any]]:
        if self.semantic_ids is not None:
            return SemanticIds.load(self.semantic_ids)
        with TemporaryDirectory() as folder:
            place = None if workspace is None else workspace / "semantic-ids"
            build_semantic_ids(dataset, self.config.ids, Path(folder), seed=seed, workspace=place)
            return SemanticIds.load(Path(folder))

    def _adopt(self, ids: SemanticIds, about: dict[str, Any]) -> None:
        """A network of random weights for these ids."""
        self.ids, self._about, self._trie = ids, about, None
        tokens = self.tokens
        self._module = IdModel(self.config.network, tokens.vocabulary, tokens.first_user, ids.length)
        self._device = default_device()
        self._module.to(self._device)
        if self.config.probabilities == "catalogue":
            self._module.catalogue = self._catalogue()

    def _catalogue(self) -> Trie:
        if self._trie is None:
            self._trie = Trie.build(self.tokens.items().tolist(), self._device)
        return self._trie

    def _judge(self, task: IdTask, valid: Examples) -> dict[str, float]:
        likelihood = {"log_likelihood": task.log_likelihood(Rows.of(valid, self.config.max_items))}
        if self.config.learning.select_on == "loss":
            return likelihood
        return validation_figures(self, valid) | likelihood


def _drawn(examples: Examples, n: int | None, seed: int) -> Examples:
    """At most N of the examples, in their order."""
    if n is None or n >= len(examples):
        return examples
    return examples.take(np.sort(np.random.default_rng([seed, 2]).choice(len(examples), n, replace=False)))
