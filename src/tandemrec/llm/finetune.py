"""Fine-tuning on prompts with completions, with an adapter or of all weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tandemrec.errors import InputError
from tandemrec.llm.model import LanguageModel
from tandemrec.llm.objectives import Objective, Prompted
from tandemrec.llm.packing import Packed, label_count
from tandemrec.llm.schedule import Curriculum
from tandemrec.llm.scoring import CompletionScorer
from tandemrec.recommender import Config, FitReport
from tandemrec.training import Task, TrainingConfig, process_count, train

ADAPTED = (("q_proj", "v_proj"), ("query_key_value",), ("c_attn",))
"""Linear maps that carry adapters, by what an architecture calls them: Llama, Qwen and GPT-Neo; GPT-NeoX; GPT-2."""


class FineTuneConfig(Config):
    """Defaults are BIGRec's and SOFT's, for a pretrained model of some billion parameters."""

    tuning: Literal["lora", "qlora", "full"] = "lora"
    """A LoRA adapter in float32; the same over a base model in 4 bits (needs bitsandbytes); or all weights in float32.
    On a CPU a small model tunes no slower whole."""

    rank: int = Field(8, ge=1)
    """Rank of the adapter."""

    alpha: float = Field(16, gt=0)
    """Scale of the adapter: its output is multiplied by alpha / rank."""

    dropout: float = Field(0.05, ge=0, lt=1)
    """Dropout before the adapter."""

    batch_size: int = Field(128, ge=1)
    """Examples of an optimiser step."""

    micro_batch_tokens: int = Field(4096, ge=16)
    """Tokens, padding included, that are run through the model at once; leaves the result alone."""

    gradient_checkpointing: bool = False
    """Keep only the inputs of every layer and compute the rest again on the way back: slower, far less memory."""

    examples_per_epoch: int | None = Field(None, ge=1)
    """Examples of an epoch, drawn anew for each from the seed; null: all."""

    select_on: Literal["loss", "ndcg@10"] = "loss"
    """What chooses the epoch on the validation part: the likelihood of the true titles, or generation and grounding."""

    training: TrainingConfig = TrainingConfig(epochs=7, learning_rate=1e-4, warmup_steps=20, patience=2)
    """Length and speed of learning."""


class FineTuning(Task[list[int]]):
    """A task of the training loop. Micro-batches are examples of about equal length, packed; see `llm.packing`.

    Attributes:
        judge: figures that choose the epoch in place of the likelihood, the first of them maximised.
        curriculum: moves the objective's weight between epochs.
    """

    may_shard = True

    def __init__(
        self,
        lm: LanguageModel,
        objective: Objective,
        config: FineTuneConfig,
        train_part: Prompted,
        valid_part: Prompted,
        seed: int,
    ) -> None:
        """Configure.

        Args:
            lm: made trainable by `prepare`.
            objective: the loss.
            config: sizes.
            train_part: what is learned from; as many completions a prompt as the objective has columns.
            valid_part: whose first completions' likelihood is watched.
            seed: of the order.
        """
        self.lm, self.objective, self.config, self.seed = lm, objective, config, seed
        self.judge: Callable[[], dict[str, float]] | None = None
        self.curriculum: Curriculum | None = None
        self.train_part, self.valid_part = train_part, valid_part.keep([0])
        self.module: CompletionScorer = lm.scorer

    def begin_epoch(self, epoch: int, curve: Sequence[Mapping[str, float]], memory: dict[str, float]) -> None:
        """The curriculum's, if there is one."""
        if self.curriculum is not None:
            self.curriculum.begin_epoch(epoch, curve, memory)

    def steps(self, epoch: int) -> Sequence[Sequence[list[int]]]:
        """Row numbers of every micro-batch of every step."""
        needed = self.train_part.keep(self.objective.columns())
        tokens, processes = self.config.micro_batch_tokens, process_count()
        return [length_batches(needed, rows, tokens, processes) for rows in self.drawn(epoch)]

    def drawn(self, epoch: int) -> list[list[int]]:
        """Row numbers of every step."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.train_part))
        order, size = order[: self.config.examples_per_epoch], self.config.batch_size
        return [order[start : start + size].tolist() for start in range(0, len(order), size)]

    def weight(self, batch: list[int]) -> float:
        """The objective's number of terms."""
        return self.objective.weight(self._counts(batch))

    def loss(self, batch: list[int]) -> Tensor:
        """The objective's sum of terms."""
        packed = self._packed(self.train_part, batch, self.objective.columns())
        return self.objective.loss(batch, self.run(packed), packed.counts_BC)

    def validate(self) -> dict[str, float]:
        """The judge's figures, if there is one; the mean log-probability of a label token; the curriculum's figures."""
        part, total, tokens = self.valid_part, 0.0, 0.0
        for batch in length_batches(part, list(range(len(part))), self.config.micro_batch_tokens):
            packed = self._packed(part, batch, (0,))
            total += float(self.run(packed).detach().double().sum())
            tokens += float(packed.counts_BC.sum())
        figures = {"log_likelihood": total / tokens}
        figures |= {} if self.curriculum is None else self.curriculum.figures()
        return figures if self.judge is None else self.judge() | figures

    def _packed(self, part: Prompted, batch: list[int], columns: Sequence[int]) -> Packed:
        prompts = [part.prompts[row] for row in batch]
        return self.lm.packed(prompts, [[part.completions[row][c] for c in columns] for row in batch])

    def _counts(self, batch: list[int]) -> Tensor:
        columns = self.objective.columns()
        return torch.tensor([[label_count(self.train_part.completions[row][c]) for c in columns] for row in batch])


def length_batches(part: Prompted, rows: Sequence[int], tokens: int, at_least: int = 1) -> list[list[int]]:
    """Groups of rows ordered by length, each of at most `tokens` padded tokens (a longer row is alone).

    Several processes share the groups, so there are `at_least` as many of them, as far as there are rows.
    """
    ordered = sorted(rows, key=lambda row: (part.length(row), row))
    most = -(-len(ordered) // at_least)
    groups: list[list[int]] = []
    for row in ordered:
        if not groups or len(groups[-1]) == most or (len(groups[-1]) + 1) * part.length(row) > tokens:
            groups.append([])
        groups[-1].append(row)
    return groups


def fine_tune(task: FineTuning, workspace: Path | None = None) -> FitReport:
    """Run a task and leave the best epoch's weights in its model."""
    report = train(task, task.config.training, seed=task.seed, workspace=workspace, label="fine-tuning")
    task.module.eval()
    share = min(1.0, (task.config.examples_per_epoch or len(task.train_part)) / len(task.train_part))
    report.notes |= {
        "examples": len(task.train_part),
        "tokens": round(task.train_part.tokens() * share) * report.epochs,
        "trained_parameters": sum(p.numel() for p in task.module.parameters() if p.requires_grad),
    }
    return report


def prepare(lm: LanguageModel, config: FineTuneConfig, seed: int) -> LanguageModel:
    """The model with a fresh float32 adapter, or with all weights trainable in float32.

    Raises:
        InputError: if the architecture has none of the maps that adapters go to.
    """
    _save_memory(lm, config)
    if config.tuning == "full":
        return LanguageModel(lm.model.float(), lm.tokenizer, lm.origin, lm.slots)
    from peft import LoraConfig, get_peft_model

    names = {name.rpartition(".")[2] for name, _ in lm.model.named_modules()}
    targets = next((found for found in ADAPTED if set(found) <= names), None)
    if targets is None:
        raise InputError(f"{lm.origin}: no linear maps named {ADAPTED} to adapt; use tuning: full")
    torch.manual_seed(seed)
    adapter = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(targets),
        fan_in_fan_out=targets == ("c_attn",),
        task_type="CAUSAL_LM",
    )
    tuned = get_peft_model(lm.model, adapter, autocast_adapter_dtype=True)
    return LanguageModel(tuned, lm.tokenizer, lm.origin, lm.slots)


def go_on(lm: LanguageModel, config: FineTuneConfig) -> LanguageModel:
    """A fine-tuned model made trainable again: its adapter, or all its weights in float32."""
    _save_memory(lm, config)
    if not lm.has_adapter:
        return LanguageModel(lm.model.float(), lm.tokenizer, lm.origin, lm.slots)
    for name, parameter in lm.model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return lm


def _save_memory(lm: LanguageModel, config: FineTuneConfig) -> None:
    if config.gradient_checkpointing:
        lm.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
