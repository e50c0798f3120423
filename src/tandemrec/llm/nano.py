"""`nano`: a small Llama with a byte-level BPE tokenizer, trained from scratch on the catalogue's own texts."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from tandemrec.data.dataset import Dataset
from tandemrec.llm.corpus import catalogue_documents, read_texts
from tandemrec.recommender import Config, FitReport
from tandemrec.training import Task, TrainingConfig, default_device, train

BOS, EOS = "<s>", "</s>"
BOS_ID, EOS_ID = 0, 1
TokenArray = NDArray[np.int32]


class NanoConfig(Config):
    """One dial for the size; the rest follows."""

    build: Literal["nano"] = "nano"
    """Which kind of language model this is."""

    millions: float = Field(1.0, ge=0.05, le=100)
    """Parameters outside the embedding, in millions: depth and width grow together, width ≈ 96 × depth."""

    vocabulary: int = Field(4096, ge=300, le=65536)
    """Most tokens of the tokenizer; a small text gives fewer."""

    context: int = Field(512, ge=32, le=8192)
    """Positions the model knows; a history, its answer and the template must fit."""

    row_tokens: int = Field(128, ge=16)
    """Tokens of a training row, at most the context. Documents are laid end to end and cut into rows."""

    repeats: int = Field(20, ge=1)
    """How often the catalogue's documents are seen in an epoch, beside further text files seen once."""

    text_files: tuple[Path, ...] = ()
    """Further texts: .txt (a document a line) or .jsonl with title, text or extract; plain or .gz."""

    batch_size: int = Field(16, ge=1)
    """Rows of an optimiser step."""

    training: TrainingConfig = TrainingConfig(
        epochs=1, learning_rate=3e-3, beta2=0.95, warmup_steps=20, schedule="cosine", weight_decay=0.01, patience=None
    )
    """Length and speed of learning."""

    def shape(self) -> tuple[int, int, int]:
        """Layers, width and heads for the asked number of parameters, 12 · layers · width²."""
        layers = max(1, round((self.millions * 1e6 / (12 * 96**2)) ** (1 / 3)))
        width = max(32, 32 * round((self.millions * 1e6 / (12 * layers)) ** 0.5 / 32))
        return layers, width, width // 32


def build_nano(
    dataset: Dataset, config: NanoConfig, directory: Path, *, seed: int, workspace: Path | None = None
) -> FitReport:
    """Train tokenizer and model and write an ordinary Hugging Face folder.

    Args:
        dataset: whose catalogue is learned; its interactions are not looked at.
        config: the model and its training.
        directory: where the folder is written.
        seed: of everything random.
        workspace: for checkpoints; a second call with the same arguments continues from them.

    Raises:
        InputError: if a text file cannot be read.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    catalogue, further = learned_texts(dataset, config)
    tokenizer = train_tokenizer(itertools.chain(catalogue, further), config)
    documents = [*_encode(tokenizer, catalogue)] * config.repeats + [*_encode(tokenizer, further)]
    torch.manual_seed(seed)
    task = _NextToken(new_model(config, len(tokenizer)).to(default_device()), documents, config, seed)
    report = train(task, config.training, seed=seed, workspace=workspace, label="language model")
    report.notes["parameters"] = sum(p.numel() for p in task.module.parameters())
    report.notes["tokens"] = task.rows.size * report.epochs
    task.module.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return report


def learned_texts(dataset: Dataset, config: NanoConfig) -> tuple[list[str], list[str]]:
    """The catalogue's documents, and those of further text files.

    Raises:
        InputError: if a text file cannot be read.
    """
    return catalogue_documents(dataset), [text for path in config.text_files for text in read_texts(path)]


def train_tokenizer(texts: Iterable[str], config: NanoConfig) -> Any:
    """A byte-level BPE tokenizer of these texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary,
        special_tokens=[BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=BOS, eos_token=EOS, pad_token=EOS, model_max_length=config.context
    )


def _encode(tokenizer: Any, texts: Sequence[str]) -> Iterator[TokenArray]:
    """Every document as token ids between BOS and EOS."""
    for start in range(0, len(texts), 1000):
        for ids in tokenizer(texts[start : start + 1000], add_special_tokens=False, verbose=False)["input_ids"]:
            yield np.array([BOS_ID, *ids, EOS_ID], np.int32)


def new_model(config: NanoConfig, vocabulary: int) -> Any:
    """An untrained Llama of the config's shape for so many tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    layers, width, heads = config.shape()
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=16 * round(width * 8 / 3 / 16),
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=config.context,
            # The usual .02 suits widths of some thousands; this scale halves the steps a narrow model needs.
            initializer_range=width**-0.5,
            tie_word_embeddings=True,
            bos_token_id=BOS_ID,
            eos_token_id=EOS_ID,
            pad_token_id=EOS_ID,
        )
    )


class _NextToken(Task[TokenArray]):
    """Causal language modelling over shuffled documents, laid end to end and cut into rows."""

    def __init__(self, model: Any, documents: Sequence[TokenArray], config: NanoConfig, seed: int) -> None:
        self.module: Any = model
        self.config, self.seed = config, seed
        order = np.random.default_rng(seed).permutation(len(documents))
        flat = np.concatenate([documents[i] for i in order])
        width = min(config.row_tokens, config.context)
        n_rows = max(2, len(flat) // width)
        self.rows = np.resize(flat, n_rows * width).reshape(n_rows, width)
        held_out = min(200, max(1, n_rows // 50))
        self.valid, self.train_rows = self.rows[:held_out], self.rows[held_out:]

    def steps(self, epoch: int) -> Sequence[Sequence[TokenArray]]:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.train_rows))
        size = self.config.batch_size
        return [[self.train_rows[order[start : start + size]]] for start in range(0, len(order), size)]

    def weight(self, batch: TokenArray) -> float:
        return float(batch[:, 1:].size)

    def loss(self, batch: TokenArray) -> Tensor:
        ids_BT = torch.from_numpy(batch.astype(np.int64)).to(self.module.device)
        logits_BTV = self.run(input_ids=ids_BT[:, :-1], use_cache=False).logits
        return nn.functional.cross_entropy(logits_BTV.flatten(0, 1).float(), ids_BT[:, 1:].flatten(), reduction="sum")

    def validate(self) -> dict[str, float]:
        size = self.config.batch_size
        total = sum(float(self.loss(self.valid[at : at + size])) for at in range(0, len(self.valid), size))
        return {"log_likelihood": -total / self.weight(self.valid)}
