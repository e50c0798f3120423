"""A toy catalogue and tiny language models with random weights, large enough that no two tokens are nearly tied."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from tandemrec.data.dataset import Dataset
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.split import Split, make_split
from tandemrec.llm.model import LanguageModel
from tandemrec.llm.nano import NanoConfig, build_nano
from tandemrec.training import TrainingConfig

ARCHITECTURES = ("llama", "gpt2", "gpt_neox", "qwen2")
WORDS = ("Star", "Dragon", "Robot", "Heart", "Night", "Ocean")
BRIEF = TrainingConfig(epochs=1, learning_rate=3e-3, patience=None)


@pytest.fixture(scope="session")
def toy() -> Dataset:
    """24 items in six series of four; 60 users who go through the catalogue in order, from anywhere."""
    first = np.random.default_rng(0).integers(0, 24, 60)
    rows = [(user, int(first[user] + step) % 24) for user in range(60) for step in range(8)]
    titles = [f"{word} {part}" for word in WORDS for part in range(1, 5)]
    items = pl.DataFrame({"item_id": range(24), "title": titles, "series": [t.split()[0] for t in titles]})
    users, chosen = zip(*rows, strict=True)
    events = pl.DataFrame({"user_id": users, "item_id": chosen, "timestamp": range(len(rows))})
    return Dataset.from_frames(events, items, name="toy")


@pytest.fixture(scope="session")
def split(toy: Dataset) -> Split:
    return make_split(toy, LeaveOneOut.model_validate({"protocol": "leave-one-out"}))


@pytest.fixture(scope="session")
def rated(toy: Dataset) -> Split:
    """Ratings that follow from the series in the title: 1 to 5, one rating a series."""
    series = pl.col("item") // 4
    rows = toy.interactions.with_columns(rating=(series % 5 + 1).cast(pl.Float32))
    return make_split(Dataset(rows, toy.items, toy.users, toy.clock, "rated toy"), LeaveOneOut())


@pytest.fixture(scope="session")
def nano_folder(toy: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("nano") / "model"
    config = NanoConfig(millions=0.05, vocabulary=300, context=128, row_tokens=32, repeats=2, training=BRIEF)
    build_nano(toy, config, folder, seed=1)
    return folder


@pytest.fixture(scope="session")
def tiny(nano_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Folder of a random model of an architecture, with the toy catalogue's tokenizer."""
    made: dict[str, str] = {}

    def folder(architecture: str) -> str:
        if architecture not in made:
            made[architecture] = str(_save(architecture, nano_folder, tmp_path_factory.mktemp(architecture)))
        return made[architecture]

    return folder


def _save(architecture: str, nano_folder: Path, folder: Path) -> Path:
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(nano_folder)
    sizes: dict[str, Any] = {"vocab_size": len(tokenizer), "initializer_range": 0.3, "tie_word_embeddings": True}
    if architecture == "gpt2":
        sizes |= {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}
        sizes |= {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    elif architecture == "gpt_neo":
        sizes |= {"hidden_size": 32, "intermediate_size": 48, "num_layers": 2, "num_heads": 2, "window_size": 4}
        sizes |= {"attention_types": [[["global", "local"], 1]], "max_position_embeddings": 128}
    elif architecture == "mamba":
        sizes |= {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
    else:
        sizes |= {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
        sizes |= {"max_position_embeddings": 128}
    if architecture in ("llama", "qwen2", "qwen3", "gemma2"):
        sizes |= {"num_key_value_heads": 1}
    if architecture in ("qwen3", "gemma2"):
        sizes |= {"head_dim": 16}
    if architecture == "gemma2":
        sizes |= {"final_logit_softcapping": 2.0}
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(CONFIG_MAPPING[architecture](**sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def nano(nano_folder: Path) -> LanguageModel:
    return LanguageModel.load(str(nano_folder))
