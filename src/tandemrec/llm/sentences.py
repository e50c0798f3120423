"""Sentence encoders: a transformer's states at the tokens of a text, pooled, and the layers that follow.

What follows stands in `modules.json` of an encoder's folder, as the library sentence-transformers writes it. A folder
without that file is a plain transformer, whose states are averaged.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from tandemrec.errors import InputError
from tandemrec.llm.model import find_folder
from tandemrec.training import default_device

ENCODED_TEXTS = 64
"""Texts that a sentence encoder reads at once."""

MODULES = "modules.json"
"""Which modules an encoder has, in order."""

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "Identity": nn.Identity,
    "Tanh": nn.Tanh,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
}
"""Of dense layers, by the last part of the name in their configuration."""


class Normalize(nn.Module):
    """Vectors of length one."""

    def forward(self, vectors_BD: Tensor) -> Tensor:
        """The same directions."""
        return F.normalize(vectors_BD, dim=1)


@dataclass(frozen=True)
class Head:
    """What an encoder makes of the states of its last layer.

    Attributes:
        pooling: a text's vector is the mean of the states at its tokens, or the state at its first one.
        layers: what follows.
    """

    pooling: Literal["mean", "cls"] = "mean"
    layers: nn.Sequential = field(default_factory=nn.Sequential)

    def __call__(self, hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Vectors (B, Z) of texts, of whose T tokens the mask shows which are theirs."""
        if self.pooling == "cls":
            first_B = mask_BT.argmax(1)  # behind the padding, where that stands on the left
            pooled_BD = hidden_BTD[torch.arange(len(first_B), device=hidden_BTD.device), first_B]
        else:
            pooled_BD = (hidden_BTD * mask_BT[:, :, None]).sum(1) / mask_BT.sum(1, keepdim=True).clamp(min=1)
        vectors_BZ: Tensor = self.layers(pooled_BD)
        return vectors_BZ

    @property
    def maps(self) -> list[tuple[int, int]]:
        """Inputs and outputs of the dense layers."""
        return [(one.in_features, one.out_features) for one in self.layers.modules() if isinstance(one, nn.Linear)]


def head_of(path: str) -> Head:
    """What follows an encoder's last layer.

    Raises:
        InputError: if it has a module or a way of pooling that is not known here, or one of its files cannot be read.
    """
    folder = find_folder(path) or _from_hub(path)
    if not (folder / MODULES).is_file():
        return Head()
    modules = _json(path, folder / MODULES)
    try:
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
        places = [folder / module["path"] for module in modules]
    except (KeyError, TypeError):
        raise InputError(f"'{path}' is no readable sentence encoder: {MODULES} names no types and paths") from None
    if kinds[:2] != ["Transformer", "Pooling"] or set(kinds[2:]) - {"Dense", "Normalize"} or places[0] != folder:
        raise InputError(
            f"the sentence encoder '{path}' has the modules {', '.join(kinds)}, expected Transformer in the folder "
            "itself, Pooling, and Dense or Normalize behind them"
        )
    layers = [
        _dense(path, place) if kind == "Dense" else Normalize()
        for kind, place in zip(kinds[2:], places[2:], strict=True)
    ]
    return Head(_pooling(path, places[1]), nn.Sequential(*layers))


@torch.no_grad()
def sentence_vectors(texts: Sequence[str], path: str, max_tokens: int) -> Tensor:
    """Vectors (N, Z) float32 of an encoder, pooled and mapped as its `modules.json` says; without one, means of states.

    Of a longer text the first `max_tokens` are read, or as many as the encoder has positions for.

    Raises:
        InputError: if there is no such model, or it has modules that are not known here.
    """
    from transformers import AutoModel, AutoTokenizer

    folder, head = find_folder(path), head_of(path)
    place = path if folder is None else str(folder)
    try:
        tokenizer, model = AutoTokenizer.from_pretrained(place), AutoModel.from_pretrained(place)
    except Exception as error:  # tokenizers and safetensors raise types of their own for damaged files
        raise _unreadable(path, error) from error
    model = model.float().to(default_device()).eval()
    head.layers.to(model.device)
    encoder = encoder_part(model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    limit = _readable(encoder, max_tokens)
    order = np.argsort([len(text) for text in texts], kind="stable")
    out: Tensor | None = None
    for start in range(0, len(order), ENCODED_TEXTS):
        rows = order[start : start + ENCODED_TEXTS]
        read = tokenizer(
            [texts[row] for row in rows], padding=True, truncation=True, max_length=limit, return_tensors="pt"
        ).to(model.device)
        mask = read["attention_mask"]
        vectors = head(encoder(input_ids=read["input_ids"], attention_mask=mask).last_hidden_state, mask)
        out = torch.empty(len(texts), vectors.shape[1]) if out is None else out
        out[torch.from_numpy(rows)] = vectors.float().cpu()
    return torch.empty(0, 0) if out is None else out


def encoder_part(model: Any) -> Any:
    """The encoder of a model that has a decoder too; its configuration may not say so, as that of Sentence-T5."""
    return model.get_encoder() if hasattr(model, "encoder") and hasattr(model, "decoder") else model


def _pooling(path: str, place: Path) -> Literal["mean", "cls"]:
    """Of old configurations, which have a switch a way of pooling (that of the mean on), or of new ones."""
    told = _json(path, place / "config.json")
    switches = {"pooling_mode_mean_tokens": True, **told}
    on = [key for key, value in switches.items() if key.startswith("pooling_mode_") and value]
    ways = [key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token") for key in on]
    if "pooling_mode" in told:
        ways = [str(told["pooling_mode"])]
    if ways == ["mean"]:
        return "mean"
    if ways == ["cls"]:
        return "cls"
    raise InputError(f"the sentence encoder '{path}' pools by {' and '.join(ways) or 'nothing'}, expected mean or cls")


def _dense(path: str, place: Path) -> nn.Sequential:
    """A linear map and its activation."""
    told = _json(path, place / "config.json")
    name = str(told.get("activation_function", "Tanh")).rpartition(".")[2]
    if name not in ACTIVATIONS:
        raise InputError(
            f"the sentence encoder '{path}' has a dense layer of activation {name}, known are {', '.join(ACTIVATIONS)}"
        )
    stored, older = place / "model.safetensors", place / "pytorch_model.bin"
    try:
        linear = nn.Linear(told["in_features"], told["out_features"], bias=told.get("bias", True))
        weights = load_file(stored) if stored.is_file() else torch.load(older, map_location="cpu", weights_only=True)
        linear.load_state_dict({name.removeprefix("linear."): value.float() for name, value in weights.items()})
    except Exception as error:  # safetensors and pickle raise types of their own for damaged files
        raise _unreadable(path, error) from error
    return nn.Sequential(linear, ACTIVATIONS[name]())


def _json(path: str, file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(f"'{path}' is no readable sentence encoder: {reason}")


def _from_hub(path: str) -> Path:
    """A folder with `modules.json` and the modules' own folders, which are numbered, as far as the hub has them."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, allow_patterns=[MODULES, "[0-9]_*"]))
    except Exception as error:  # as of transformers, for a name or a network that fails
        raise _unreadable(path, error) from error


def _readable(encoder: Any, max_tokens: int) -> int:
    """Tokens of a text that are read: `max_tokens`, or as many as the encoder has positions for."""
    table = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    # RoBERTa and its kin count positions from behind the padding's; an encoder without a limit names none, or -1.
    positions = getattr(encoder.config, "max_position_embeddings", -1) - (0 if padding is None else padding + 1)
    return min(max_tokens, positions) if positions > 0 else max_tokens
