"""LLaRA: behind every title of the history stands the item's vector from a conventional recommender."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tandemrec.errors import InputError
from tandemrec.llm.finetune import FineTuneConfig, FineTuning
from tandemrec.llm.model import LanguageModel
from tandemrec.llm.objectives import Objective, Prompted
from tandemrec.llm.recommenders.lessons import SDPOConfig
from tandemrec.llm.recommenders.writer import TitleWriter, WriterConfig


class LLaRAConfig(WriterConfig):
    """Titles and vectors speak for the items."""

    model: Literal["llara"]
    """Which model this is."""

    vectors: str
    """The system whose item vectors are read, such as SASRec."""

    train_vectors: bool = False
    """Let the item vectors learn with the rest; the paper freezes them."""

    curriculum: bool = True
    """Start with prompts of titles alone and bring the vectors in: at step t of T with probability t / T an example,
    as in the paper. (Its code restarts the count every epoch and never gets beyond a fifth; the variant of LLaRA in
    SOFT's code has no curriculum.) Preference training always shows the vectors."""

    def partners(self) -> tuple[str, ...]:
        """The teacher, if any, and the system that gives the vectors."""
        return (*super().partners(), self.vectors)


class Projector(nn.Module):
    """Linear(D → H) – GELU – Linear(H → H) over item vectors: from a recommender's space into a prompt (LLaRA §3.2)."""

    def __init__(self, vectors_ID: Tensor, hidden: int, *, trained: bool = False) -> None:
        super().__init__()
        self.vectors_ID = nn.Parameter(vectors_ID.float().clone(), requires_grad=trained)
        self.into = nn.Linear(vectors_ID.shape[1], hidden)
        self.onto = nn.Linear(hidden, hidden)

    def forward(self, items_N: Tensor) -> Tensor:
        """Input vectors (N, H) of N items."""
        projected_NH: Tensor = self.onto(nn.functional.gelu(self.into(self.vectors_ID[items_N])))
        return projected_NH


class HybridFineTuning(FineTuning):
    """Fine-tuning in which each example shows its item vectors with a probability that grows with the global step."""

    def __init__(
        self,
        lm: LanguageModel,
        objective: Objective,
        config: FineTuneConfig,
        hybrid: Prompted,
        valid_part: Prompted,
        seed: int,
    ) -> None:
        """Configure; `hybrid` are prompts with vectors, the rest is as in `FineTuning`."""
        text_only = without_slots(hybrid)
        both = Prompted([*hybrid.prompts, *text_only.prompts], [*hybrid.completions, *text_only.completions])
        super().__init__(lm, objective, config, both, valid_part, seed)
        self.examples = len(hybrid)

    def drawn(self, epoch: int) -> list[list[int]]:
        """Row numbers of every step: i is example i with its vectors, i + N without."""
        size, share = self.config.batch_size, self.config.examples_per_epoch
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(self.examples)[:share]
        steps = [order[start : start + size] for start in range(0, len(order), size)]
        chances = (epoch * len(steps) + 1 + np.arange(len(steps))) / (len(steps) * self.config.training.epochs)
        return [
            (rows + self.examples * (rng.random(len(rows)) >= chance)).tolist()
            for rows, chance in zip(steps, chances, strict=True)
        ]


class LLaRA(TitleWriter):
    """Liao et al., LLaRA: Large Language-Recommendation Assistant (SIGIR 2024), ranking the whole catalogue."""

    config_type = LLaRAConfig
    config: LLaRAConfig
    form = "slots"

    def __init__(
        self,
        config: LLaRAConfig,
        language_model: Path | None = None,
        *,
        teacher: Path | None = None,
        distilled: Path | None = None,
        item_vectors: Tensor | None = None,
    ) -> None:
        """Configure; `item_vectors` (I, D) are those of the partner, the rest is as in `TitleWriter`."""
        super().__init__(config, language_model, teacher=teacher, distilled=distilled)
        self.partner_vectors = item_vectors

    def start(self, titles: list[str], *, seed: int = 0) -> None:
        """As `TitleWriter.start`, with a fresh projector.

        Raises:
            InputError: as `TitleWriter.start` does, and if the partner has no vector for every item.
        """
        if self.partner_vectors is None or len(self.partner_vectors) != len(titles):
            found = "none" if self.partner_vectors is None else f"{len(self.partner_vectors):,}"
            raise InputError(
                f"key 'vectors': '{self.config.vectors}' gives {found}, expected one of each of {len(titles):,} items"
            )
        super().start(titles, seed=seed)

    def save(self, directory: Path) -> None:
        """As `TitleWriter.save`, and the projector with the item vectors."""
        super().save(directory)
        slots = self.language_model.slots
        assert slots is not None
        save_file(
            {name: tensor.cpu() for name, tensor in slots.state_dict().items()}, directory / "projector.safetensors"
        )

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote."""
        model = super().load(directory)
        stored = load_file(directory / "projector.safetensors")
        model.partner_vectors = stored["vectors_ID"]
        model._fill_slots(model.language_model, seed=0)
        assert model.language_model.slots is not None
        model.language_model.slots.load_state_dict(stored)
        return model

    def _starting_model(self, seed: int) -> LanguageModel:
        lm = super()._starting_model(seed)
        if lm.slots is None:
            self._fill_slots(lm, seed)
        return lm

    def _fill_slots(self, lm: LanguageModel, seed: int) -> None:
        assert self.partner_vectors is not None
        torch.manual_seed(seed)
        width = lm.model.get_input_embeddings().embedding_dim
        lm.slots = Projector(self.partner_vectors, width, trained=self.config.train_vectors).to(lm.device)

    def _task(self, objective: Objective, part: Prompted, valid: Prompted, seed: int) -> FineTuning:
        if not self.config.curriculum or isinstance(self.config.objective, SDPOConfig):
            return super()._task(objective, part, valid, seed)
        return HybridFineTuning(self.language_model, objective, self.config.finetune, part, valid, seed)


def without_slots(part: Prompted) -> Prompted:
    """The same texts without the item vectors."""

    def text(tokens: list[int]) -> list[int]:
        return [token for token in tokens if token >= 0]

    completions = [[text(completion) for completion in several] for several in part.completions]
    return Prompted([text(prompt) for prompt in part.prompts], completions)
