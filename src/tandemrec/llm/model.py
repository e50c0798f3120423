"""`LanguageModel`: a Hugging Face causal LM, its tokenizer and an optional adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from tandemrec.data.locations import models_root
from tandemrec.errors import InputError
from tandemrec.llm.packing import Packed, pack, pack_apart
from tandemrec.llm.scoring import CompletionScorer, backbone_and_head
from tandemrec.llm.traffic import TRAFFIC
from tandemrec.training import default_device

Precision = Literal["auto", "float32", "bfloat16"]
"""`auto`: float32 on a CPU; elsewhere bfloat16 for a checkpoint in half precision and float32 for one in float32."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
ENCODE_TOKENS = 8192
"""Tokens of a batch of texts that are encoded at once."""


class LanguageModel:
    """A causal language model with left-to-right generation and text vectors.

    Attributes:
        model: the Hugging Face model, wrapped by PEFT where there is an adapter.
        tokenizer: its tokenizer.
        origin: folder or hub id of the base weights.
        slots: gives the input vectors (N, D) of N items: token −1−i of a prompt stands for item i; None: none does.
    """

    def __init__(self, model: Any, tokenizer: Any, origin: str, slots: nn.Module | None = None) -> None:
        from transformers import GenerationConfig

        self.model, self.tokenizer, self.origin, self.slots = model, tokenizer, origin, slots
        self._base: Any = None
        # Decoding settings are always passed; what the checkpoint recommends must not mix into them.
        model.generation_config = GenerationConfig()

    @classmethod
    def load(
        cls,
        origin: str,
        *,
        device: torch.device | None = None,
        dtype: Precision = "auto",
        adapter: Path | None = None,
        four_bit: bool = False,
    ) -> Self:
        """Read a model.

        Args:
            origin: a folder (relative: below the working directory or `$TANDEMREC_MODELS`) or a hub id.
            device: default `training.default_device()`.
            dtype: of the weights; a CPU always computes in float32.
            adapter: a PEFT folder to put on top.
            four_bit: keep the linear maps in 4 bits (NF4, doubly quantised); needs the package bitsandbytes.

        Raises:
            InputError: if there is no such model, a file of the folder is missing or damaged, or a package is missing.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        device = device or default_device()
        folder = find_folder(origin)
        place = str(folder) if folder is not None else origin
        quantised = _four_bits(device, dtype) if four_bit else {"dtype": "auto"}
        try:
            tokenizer = AutoTokenizer.from_pretrained(place)
            model, found = AutoModelForCausalLM.from_pretrained(place, output_loading_info=True, **quantised)
        except Exception as error:  # tokenizers and safetensors raise types of their own for damaged files
            reason = " ".join(str(error).split())[:200]
            what = "is no readable model folder" if folder else "is neither a folder nor a readable model of the hub"
            raise InputError(f"'{origin}' {what}: {reason}") from error
        if found["missing_keys"]:
            name = min(found["missing_keys"])
            raise InputError(f"'{origin}' is no complete causal language model: its weights lack '{name}'")
        if tokenizer.eos_token_id is None:
            raise InputError(f"'{origin}' cannot end an answer: its tokenizer names no eos_token")
        if four_bit:  # can neither move nor be cast: they are loaded where they belong
            _leave_unpacked(model)
        else:
            model = model.to(device, _chosen_dtype(model.dtype, dtype, device))
        if adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, adapter, autocast_adapter_dtype=True)
        return cls(model.eval(), tokenizer, place)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def has_adapter(self) -> bool:
        """Whether a PEFT adapter is on top."""
        return hasattr(self.model, "disable_adapter")

    @property
    def context(self) -> int:
        """Most positions the model knows."""
        config = self.model.config
        return int(getattr(config, "max_position_embeddings", getattr(config, "n_positions", 1024)))

    @property
    def bos(self) -> list[int]:
        """What every text starts with: the BOS token, where the tokenizer puts one."""
        # Rebuilt tokenizers often name a BOS without adding it; the model was trained with it all the same.
        return [] if self.tokenizer.bos_token_id is None else [int(self.tokenizer.bos_token_id)]

    @property
    def eos(self) -> int:
        """What every completion ends with."""
        return int(self.tokenizer.eos_token_id)

    @property
    def pad(self) -> int:
        """Fills batches; always masked, so any token does where the tokenizer names none."""
        return int(
            next(t for t in (self.tokenizer.pad_token_id, self.tokenizer.unk_token_id, self.eos) if t is not None)
        )

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids without any special token."""
        if not texts:
            return []
        return list(self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"])

    @cached_property
    def scorer(self) -> CompletionScorer:
        """What computes log-probabilities, as a module that can be trained."""
        return CompletionScorer(self.model, self.slots)

    def packed(self, prompts: Sequence[list[int]], completions: Sequence[Sequence[list[int]]]) -> Packed:
        """B prompts with C completions each on the model's device, laid out as it can read them; see `llm.packing`."""
        lay_out = pack if self.scorer.reads_packed_rows else pack_apart
        return lay_out(prompts, completions, self.pad).to(self.device)

    def label_log_probs(self, prompts: Sequence[list[int]], labels: Sequence[list[int]]) -> Tensor:
        """Log-probability of every label token, one row after another; shape (sum of label lengths,)."""
        packed = self.packed(prompts, [[label] for label in labels])
        values_N: Tensor = self.scorer.tokens(packed)
        return values_N

    def log_probs(self, prompts: Sequence[list[int]], completions: Sequence[Sequence[list[int]]]) -> Tensor:
        """Log-probabilities (B, C) of C completions of each of B prompts; a prompt is computed once."""
        packed = self.packed(prompts, completions)
        values_BC: Tensor = self.scorer(packed)
        return values_BC

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Vectors (N, D) float32: the last hidden state, after the final norm, at the last token of BOS + text.

        Of a longer text as many first tokens are read as the context has room for. The base weights are used: an
        adapter is switched off, a fully tuned model steps back behind its origin.
        """
        rows = [(self.bos + ids)[: self.context] or [self.eos] for ids in self.tokenize(texts)]
        TRAFFIC.count(sum(map(len, rows)))
        order = np.argsort([len(row) for row in rows], kind="stable")
        out: Tensor | None = None
        with self._base_backbone() as backbone:
            for chosen in _token_batches(order, rows):
                ids, mask = self._padded([rows[i] for i in chosen], left=False)
                hidden = backbone(input_ids=ids, use_cache=False).last_hidden_state
                last = hidden[torch.arange(len(chosen), device=self.device), mask.sum(1) - 1].float()
                out = last.new_empty(len(rows), last.shape[1]) if out is None else out
                out[torch.from_numpy(np.asarray(chosen)).to(self.device)] = last
        return torch.empty(0, 0) if out is None else out

    def save(self, directory: Path) -> None:
        """A PEFT folder where there is an adapter, else a Hugging Face folder."""
        self.model.save_pretrained(directory)
        if not self.has_adapter:
            self.tokenizer.save_pretrained(directory)

    @contextmanager
    def _base_backbone(self) -> Iterator[Any]:
        """The network below the vocabulary with the weights of the origin."""
        if self.has_adapter:
            with self.model.disable_adapter():
                yield backbone_and_head(self.model)[0]
            return
        if self._base is None:
            self._base = LanguageModel.load(self.origin, device=self.device).model
        yield self._base.base_model

    def _padded(self, rows: Sequence[list[int]], *, left: bool) -> tuple[Tensor, Tensor]:
        width = max(len(row) for row in rows)
        ids = torch.full((len(rows), width), self.pad)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            place = slice(width - len(row), width) if left else slice(0, len(row))
            ids[i, place] = torch.tensor(row)
            mask[i, place] = 1
        return ids.to(self.device), mask.to(self.device)

    def left_padded(self, rows: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """Ids and attention mask (B, T) of prompts for generation: the last prompt token is last in every row."""
        return self._padded(rows, left=True)


def find_folder(origin: str) -> Path | None:
    """The folder of a local model; None where `origin` can only be a hub id.

    Raises:
        InputError: if it is a folder but no model, or is written as a path and does not exist.
    """
    path = Path(origin).expanduser()
    for place in (path, models_root() / path):
        if place.is_dir():
            _check_folder(place)
            return place.resolve()
    if path.is_absolute() or origin.startswith((".", "~")) or origin.count("/") > 1 or "/" not in origin:
        raise InputError(f"there is no model folder '{origin}', looked in {Path.cwd()} and {models_root()}")
    return None


def _check_folder(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    if "config.json" not in names:
        raise InputError(f"{folder} is no model folder: config.json is missing")
    if not any(name.endswith((".safetensors", ".bin", ".safetensors.index.json")) for name in names):
        raise InputError(f"{folder} is no model folder: weights (model.safetensors) are missing")
    if not names & set(TOKENIZER_FILES):
        raise InputError(f"{folder} is no model folder: a tokenizer (tokenizer.json) is missing")


def _chosen_dtype(stored: torch.dtype, asked: Precision, device: torch.device) -> torch.dtype:
    # Half precision is some fifty times slower on a CPU, and transformers would take the checkpoint's; float16
    # overflows in training, so a checkpoint in it is read as bfloat16.
    if device.type == "cpu" or asked == "float32" or (asked == "auto" and stored == torch.float32):
        return torch.float32
    return torch.bfloat16


def _four_bits(device: torch.device, asked: Precision) -> dict[str, Any]:
    if find_spec("bitsandbytes") is None:
        raise InputError("key 'finetune.tuning': qlora needs the package bitsandbytes (pip install 'tandemrec[qlora]')")
    from transformers import BitsAndBytesConfig

    dtype = _chosen_dtype(torch.bfloat16, asked, device)
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    return {"quantization_config": config, "device_map": {"": device}, "dtype": dtype}


def _leave_unpacked(model: nn.Module) -> None:
    """A CPU computes in float32. Where it knows bfloat16 products, bitsandbytes would pack maps for those when they are
    first evaluated, rounding their scales, and fail at widths that are no multiples of its blocks.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear) and hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def _token_batches(order: np.ndarray, rows: Sequence[list[int]]) -> Iterator[list[int]]:
    """Consecutive groups of row numbers, ordered by length, of about `ENCODE_TOKENS` padded tokens."""
    group: list[int] = []
    for i in order.tolist():
        if group and (len(group) + 1) * len(rows[i]) > ENCODE_TOKENS:
            yield group
            group = []
        group.append(i)
    if group:
        yield group
