"""`Reader`: a language model as far as foresight needs it: its maps, and how long texts are in its tokens.

The network is built on torch's `meta` device, where tensors have shapes and no memory, so one of 70 billion parameters
is measured on a laptop. The tokenizer is the real one: that of a nano model, which takes seconds, is trained for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tandemrec.data.dataset import Dataset
from tandemrec.errors import InputError
from tandemrec.llm.finetune import ADAPTED
from tandemrec.llm.nano import learned_texts, new_model, train_tokenizer
from tandemrec.llm.recommenders.base import LanguageModelConfig, PretrainedConfig


@dataclass(frozen=True)
class Reader:
    """A causal language model without its weights. It tokenises as a `LanguageModel` does.

    Attributes:
        layers: number of them.
        width: D.
        inner: width of the feed-forward part.
        attention: heads times their size.
        cached: numbers that a layer keeps of a token, keys and values.
        heads: of a layer.
        vocabulary: V.
        parameters: all of them.
        maps: entries of the linear maps below the vocabulary; a token takes two flops an entry.
        adapted: (inputs, outputs) of the maps that carry LoRA adapters.
        half: whether the checkpoint is in half precision.
        bos: as of `LanguageModel`.
        eos: likewise.
        context: likewise.
        pieces: token ids of texts.
    """

    layers: int
    width: int
    inner: int
    attention: int
    cached: int
    heads: int
    vocabulary: int
    parameters: int
    maps: int
    adapted: tuple[tuple[int, int], ...]
    half: bool
    bos: list[int]
    eos: int
    context: int
    pieces: Callable[[Sequence[str]], list[list[int]]]

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids without any special token."""
        return self.pieces(texts) if texts else []

    def adapter(self, rank: int) -> int:
        """Parameters of a LoRA adapter."""
        return sum(rank * (inputs + outputs) for inputs, outputs in self.adapted)


def reader_of(config: LanguageModelConfig, dataset: Dataset, built: Path | None = None) -> Reader:
    """The language model that a config names.

    Args:
        config: an existing model, or one that is built.
        dataset: whose catalogue a nano model learns.
        built: folder of the nano model, if it exists.

    Raises:
        InputError: if there is no such model.
    """
    if isinstance(config, PretrainedConfig):
        return _folder_reader(config.path)
    if built is not None:
        return _folder_reader(str(built))
    tokenizer = train_tokenizer(chain(*learned_texts(dataset, config)), config)
    return _measured(new_model, config, len(tokenizer), tokens=_tokens(tokenizer))


def encoder_of(path: str) -> Reader:
    """A sentence encoder, whose texts have its special tokens; see `llm.sentences.sentence_vectors`.

    Raises:
        InputError: if there is no such model.
    """
    from transformers import AutoModel

    from tandemrec.llm.sentences import encoder_part

    return _stored(path, lambda config: encoder_part(AutoModel.from_config(config)), special=True)


@cache
def _folder_reader(place: str) -> Reader:
    from transformers import AutoModelForCausalLM

    return _stored(place, AutoModelForCausalLM.from_config)


def _stored(place: str, make: Callable[..., Any], *, special: bool = False) -> Reader:
    from transformers import AutoConfig, AutoTokenizer

    from tandemrec.llm.model import find_folder

    folder = find_folder(place)
    origin = str(folder or place)
    try:
        config, tokenizer = AutoConfig.from_pretrained(origin), AutoTokenizer.from_pretrained(origin)
    except Exception as error:  # as of `LanguageModel.load`
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"'{place}' is neither a folder nor a readable model of the hub: {reason}") from error
    stored = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
    found = _measured(make, config, tokens=_tokens(tokenizer, special))
    return replace(found, half=stored in (torch.float16, torch.bfloat16))


def _tokens(tokenizer: Any, special: bool = False) -> tuple[Callable[[Sequence[str]], list[list[int]]], list[int], int]:
    """Token ids of texts, the beginning and the end of a sequence."""

    def pieces(texts: Sequence[str]) -> list[list[int]]:
        return list(tokenizer(list(texts), add_special_tokens=special, verbose=False)["input_ids"])

    bos = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    return pieces, bos, int(tokenizer.eos_token_id or 0)


def _measured(make: Callable[..., Any], *arguments: Any, tokens: tuple[Any, list[int], int]) -> Reader:
    """The shapes of a network that is built without memory."""
    with torch.device("meta"):
        model = make(*arguments)
    config, head = model.config, model.get_output_embeddings()
    linear = {
        name: (int(module.weight.shape[0]), int(module.weight.shape[1]))
        for name, module in model.named_modules()
        if module is not head and (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
    }
    size = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    heads = int(config.num_attention_heads)
    names = {name.rpartition(".")[2] for name in linear}
    targets: tuple[str, ...] = next((found for found in ADAPTED if set(found) <= names), ())
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * config.hidden_size
    return Reader(
        layers=int(config.num_hidden_layers),
        width=int(config.hidden_size),
        inner=int(inner),
        attention=heads * size,
        cached=2 * int(getattr(config, "num_key_value_heads", None) or heads) * size,
        heads=heads,
        vocabulary=int(config.vocab_size),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        maps=sum(a * b for a, b in linear.values()),
        adapted=tuple(shape for name, shape in linear.items() if name.rpartition(".")[2] in targets),
        half=False,
        context=int(getattr(config, "max_position_embeddings", getattr(config, "n_positions", 1024))),
        pieces=tokens[0],
        bos=tokens[1],
        eos=tokens[2],
    )
