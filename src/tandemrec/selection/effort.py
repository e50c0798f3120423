"""Effort of a language model: the norm of its gradient on each sample (DEALRec, eq. 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from tandemrec.data.examples import Examples
from tandemrec.errors import InputError
from tandemrec.llm.finetune import length_batches
from tandemrec.llm.model import LanguageModel
from tandemrec.llm.objectives import Prompted
from tandemrec.llm.packing import Packed
from tandemrec.llm.recommenders.writer import TitleWriter
from tandemrec.llm.scoring import CompletionScorer
from tandemrec.recommender import Config
from tandemrec.selection.capture import captured
from tandemrec.selection.sample_norms import weight_square_norms
from tandemrec.selection.selector import FloatArray


class EffortConfig(Config):
    """Which gradient, of which loss."""

    weights: Literal["start", "tuned"] = "start"
    """The weights that fine-tuning starts from, as published, with a fresh adapter where there is to be one; or those
    of the fine-tuned model, which must be trained before anything can be chosen."""

    matrices: Literal["last-value", "adapters", "modules"] = "last-value"
    """B of the adapter of the last layer's value projection, as in DEALRec's code (without adapters, that projection
    itself): nothing below that layer is run backwards; A and B of all adapters; or the weights of `modules`."""

    modules: tuple[str, ...] = ()
    """Ends of names of linear maps, for `modules`: 'layers.31.mlp.down_proj', 'v_proj.lora_B.default'."""

    tokens: Literal["label", "all"] = "label"
    """Tokens in the loss: the target's, or the prompt's too, as in DEALRec's code, which then measures mostly how
    unusual the prompt is."""

    reduction: Literal["mean", "sum"] = "mean"
    """Loss of a sample: the mean over those tokens, as in training; or their sum, the paper's negative log-likelihood,
    which grows with the title's length."""

    micro_batch_tokens: int = Field(4096, ge=16)
    """Tokens that are run through the model at once; leaves the result alone."""


def effort(lm: LanguageModel, prompted: Prompted, config: EffortConfig) -> FloatArray:
    """‖∂L/∂φ‖₂ of every sample, (B,), φ all entries of the chosen matrices; exact, with dropout off.

    Args:
        lm: with an adapter, if adapter matrices are asked for.
        prompted: B prompts; the first completion of each is the target.
        config: matrices and loss.

    Raises:
        InputError: if the model has no such matrices.
    """
    chosen = chosen_matrices(lm.model, config)
    part = prompted.keep([0]) if config.tokens == "label" else prompted.keep([0]).whole()
    squares = np.zeros(len(part))
    with _only_trainable(lm.scorer, chosen):
        for rows in length_batches(part, range(len(part)), config.micro_batch_tokens):
            packed = lm.packed([part.prompts[row] for row in rows], [part.completions[row] for row in rows])
            squares[rows] = _square_norms(lm.scorer, packed, chosen, config).double().cpu().numpy()
    norms: FloatArray = np.sqrt(squares)
    return norms


@dataclass(frozen=True)
class LanguageModelEffort:
    """Effort of a recommender's language model on examples, asked as in its training (LLaRA: with item vectors).

    Attributes:
        writer: fitted, or started (`TitleWriter.start`).
        config: matrices and loss.
    """

    writer: TitleWriter
    config: EffortConfig

    def __call__(self, examples: Examples) -> FloatArray:
        """(B,); see `effort`.

        Raises:
            InputError: if an example has no target, or the model has no such matrices.
        """
        if not examples.target.lengths.all():
            row = int(np.argmin(examples.target.lengths))
            raise InputError(f"effort needs a target for every example, found none in example {row}")
        return effort(self.writer.language_model, self.writer.answered(examples), self.config)


def chosen_matrices(model: nn.Module, config: EffortConfig) -> list[nn.Linear]:
    """The linear maps whose weights' gradient counts.

    Raises:
        InputError: if there are none.
    """
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if config.matrices == "modules":
        for end in config.modules:
            if not any(name.endswith(end) for name in linear):
                raise InputError(f"key 'effort.modules': no linear map of the language model is named '…{end}'")
        found = [module for name, module in linear.items() if name.endswith(config.modules)]
    elif config.matrices == "adapters":
        found = [module for name, module in linear.items() if ".lora_A." in name or ".lora_B." in name]
    else:
        after = {name: module for name, module in linear.items() if ".lora_B." in name}
        value = [module for name, module in after.items() if ".v_proj." in name] or list(after.values())
        found = (
            value or [module for name, module in linear.items() if name.endswith((".v_proj", ".query_key_value"))]
        )[-1:]
    if not found:
        raise InputError(
            f"key 'effort.matrices': '{config.matrices}' finds no matrix in the language model; put an adapter on it "
            "or name the matrices by 'modules'"
        )
    return found


def _square_norms(scorer: CompletionScorer, packed: Packed, chosen: list[nn.Linear], config: EffortConfig) -> Tensor:
    """Squared norms (B,) in float32."""
    with captured(chosen) as calls:
        values_N = scorer.tokens(packed)
    counts_B = packed.counts_BC[:, 0].to(values_N.device)
    if config.reduction == "mean":
        values_N = values_N / counts_B.repeat_interleave(counts_B)
    slopes = torch.autograd.grad(-values_N.sum(), [call.output for call in calls])
    by_sample = _regrouping(packed)
    total_B = torch.zeros(len(counts_B), device=values_N.device)
    for call, slope in zip(calls, slopes, strict=True):
        total_B += weight_square_norms(by_sample(call.input), by_sample(slope))
    return total_B


def _regrouping(packed: Packed) -> Callable[[Tensor], Tensor]:
    """Brings what rows hold, (R, T, D), to one row a sample in float32, (B, T', D) with zeros or padding behind.

    Padding needs no mask: nothing depends on it, so its slopes are 0.
    """
    if packed.causal:
        order_B = torch.argsort(packed.example_RT[:, 0])
        return lambda rows_RTD: rows_RTD.detach()[order_B].float()
    example = packed.example_RT.flatten()
    n, size = len(packed.counts_BC), len(example)
    counts = torch.bincount(example, minlength=n + 1)[1:]
    within = torch.arange(int(counts.max()), device=example.device)
    first = torch.cumsum(counts, 0) - counts
    order = torch.argsort(example, stable=True)[size - int(counts.sum()) :]
    place = (first[:, None] + within).clamp(max=len(order) - 1)
    place_BT = torch.where(within < counts[:, None], order[place], size)

    def regroup(rows_RTD: Tensor) -> Tensor:
        flat = rows_RTD.detach().flatten(0, 1).float()
        return torch.cat([flat, flat.new_zeros(1, flat.shape[1])])[place_BT]

    return regroup


@contextmanager
def _only_trainable(model: nn.Module, chosen: list[nn.Linear]) -> Iterator[None]:
    """Eval mode, and gradients for the chosen weights alone, so that nothing below them is recorded."""
    asked = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    modes = [(part, part.training) for part in model.modules()]
    model.eval().requires_grad_(False)
    for module in chosen:
        module.weight.requires_grad_()
    try:
        yield
    finally:
        for parameter, was in asked:
            parameter.requires_grad_(was)
        for part, mode in modes:
            part.training = mode
