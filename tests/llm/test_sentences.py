"""Sentence encoders against an explicit computation: pooling, dense layers, normalisation, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerFast, T5EncoderModel

from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.experiment.files import hash_folder
from tandemrec.llm import sentences
from tandemrec.llm.content import SentenceEncoderConfig, content_vectors
from tandemrec.llm.recommenders.work import content_work
from tandemrec.llm.sentences import Head, head_of, sentence_vectors
from tandemrec.work import Scene
from tests.counted import counted

TEXTS = ["Red dragon", "A blue robot in the night ocean", "Heart", "Star 1; Star 2; Star 3 and the dragon of the night"]
SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
WAYS = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


@pytest.fixture
def tokenizer(tiny: Callable[[str], str]) -> PreTrainedTokenizerFast:
    found: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(tiny("gpt2"))
    return found


def encoder(kind: str, tokenizer: Any, folder: Path) -> Path:
    """A random encoder; of T5 without its decoder, as Sentence-T5 is published."""
    torch.manual_seed(3)
    if kind == "t5":
        sizes = {"d_model": 16, "d_ff": 16, "d_kv": 8, "num_layers": 1, "num_heads": 2}
        T5EncoderModel(AutoConfig.for_model("t5", vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    else:
        config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), max_position_embeddings=40, **SIZES)
        AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_modules(folder: Path, *kinds: str) -> None:
    """`modules.json` as sentence-transformers writes it; every module but the first and the norm has a folder."""
    modules = []
    for number, kind in enumerate(kinds):
        place = "" if kind == "Transformer" else f"{number}_{kind}"
        modules.append(
            {"idx": number, "name": str(number), "path": place, "type": f"sentence_transformers.models.{kind}"}
        )
        (folder / place).mkdir(exist_ok=True)
    (folder / "modules.json").write_text(json.dumps(modules))


def write_pooling(folder: Path, *ways: str) -> None:
    told = {"word_embedding_dimension": 16} | {f"pooling_mode_{way}": way in ways for way in WAYS}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(told))


def write_dense(folder: Path, outputs: int, activation: str, *, stored: str, bias: bool) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    weights = {"linear.weight": torch.randn(outputs, 16, generator=generator)}
    if bias:
        weights["linear.bias"] = torch.randn(outputs, generator=generator)
    told = {
        "in_features": 16,
        "out_features": outputs,
        "bias": bias,
        "activation_function": f"torch.nn.modules.{activation}",
    }
    (folder / "config.json").write_text(json.dumps(told))
    if stored.endswith(".bin"):
        torch.save(weights, folder / stored)
    else:
        save_file(weights, folder / stored)
    return weights


def states(kind: str, folder: Path, tokenizer: Any, text: str) -> Tensor:
    """Of one text alone, (T, D)."""
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    model = (T5EncoderModel if kind == "t5" else AutoModel).from_pretrained(folder).eval()
    with torch.no_grad():
        hidden: Tensor = model(input_ids=ids).last_hidden_state[0]
    return hidden


@pytest.mark.parametrize("way", ["cls", "mean"])
def test_pooling_is_that_of_the_folder(tokenizer: Any, tmp_path: Path, way: str) -> None:
    """BGE pools by the first token and normalises."""
    folder = encoder("bert", tokenizer, tmp_path)
    plain = sentence_vectors(TEXTS, str(folder), 256)
    write_modules(folder, "Transformer", "Pooling", "Normalize")
    write_pooling(folder, f"{way}_token" if way == "cls" else "mean_tokens")
    found = sentence_vectors(TEXTS, str(folder), 256)
    for row, text in enumerate(TEXTS):
        hidden = states("bert", folder, tokenizer, text)
        pooled = hidden[0] if way == "cls" else hidden.mean(0)
        torch.testing.assert_close(found[row], pooled / pooled.norm(), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(plain[row], hidden.mean(0), atol=1e-5, rtol=1e-4)


def test_the_first_token_stands_behind_the_padding() -> None:
    hidden, mask = torch.arange(12.0).reshape(2, 3, 2), torch.tensor([[0, 1, 1], [1, 1, 0]])
    assert Head("cls")(hidden, mask).tolist() == [[2, 3], [6, 7]]
    assert Head()(hidden, mask).tolist() == [[3, 4], [7, 8]]


@pytest.mark.parametrize(
    ("stored", "bias", "activation"),
    [("model.safetensors", True, "activation.Tanh"), ("pytorch_model.bin", False, "linear.Identity")],
)
def test_dense_layers_follow_the_pooling(
    tokenizer: Any, tmp_path: Path, stored: str, bias: bool, activation: str
) -> None:
    """Sentence-T5 maps the mean by a dense layer without bias and normalises."""
    folder = encoder("t5", tokenizer, tmp_path)
    write_modules(folder, "Transformer", "Pooling", "Dense", "Normalize")
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "mean"}))
    weights = write_dense(folder / "2_Dense", 5, activation, stored=stored, bias=bias)
    found = sentence_vectors(TEXTS, str(folder), 256)
    assert found.shape == (4, 5)
    for row, text in enumerate(TEXTS):
        mapped = weights["linear.weight"] @ states("t5", folder, tokenizer, text).mean(0)
        if bias:
            mapped = mapped + weights["linear.bias"]
        if activation.endswith("Tanh"):
            mapped = mapped.tanh()
        torch.testing.assert_close(found[row], mapped / mapped.norm(), atol=1e-5, rtol=1e-4)


def test_an_encoder_takes_the_flops_it_says(tokenizer: Any, split: Split, tmp_path: Path) -> None:
    folder = encoder("t5", tokenizer, tmp_path)
    write_modules(folder, "Transformer", "Pooling", "Dense")
    write_pooling(folder, "mean_tokens")
    write_dense(folder / "2_Dense", 300, "activation.Tanh", stored="model.safetensors", bias=True)
    config = SentenceEncoderConfig(path=str(folder))
    said, width = content_work(config, Scene(split, {}))
    assert width == 300
    found = counted(lambda: content_vectors(split.dataset, config))
    assert found == pytest.approx(said.flops, rel=0.1)


def test_the_modules_of_an_encoder_tell_it_apart(tokenizer: Any, tmp_path: Path) -> None:
    folder = encoder("bert", tokenizer, tmp_path)
    write_modules(folder, "Transformer", "Pooling")
    hashes = []
    for way in ("cls_token", "mean_tokens"):
        write_pooling(folder, way)
        hashes.append(hash_folder(folder))
    (folder / ".cache").mkdir()
    (folder / ".cache" / "download").write_text("now")
    assert hashes[0] != hashes[1] == hash_folder(folder)


def test_modules_that_are_not_known_are_refused(tokenizer: Any, tmp_path: Path) -> None:
    folder = encoder("bert", tokenizer, tmp_path)
    config = SentenceEncoderConfig(path=str(folder))
    config.check()
    write_modules(folder, "Transformer", "Pooling", "LSTM")
    with pytest.raises(InputError, match=r"has the modules Transformer, Pooling, LSTM, expected Transformer in"):
        config.check()
    write_modules(folder, "Transformer", "Pooling")
    for ways, said in (
        (["max_tokens"], "max"),
        (["cls_token", "mean_tokens"], "mean and cls"),
        (["lasttoken"], "lasttoken"),
        ([], "nothing"),
    ):
        write_pooling(folder, *ways)
        with pytest.raises(InputError, match=f"pools by {said}, expected mean or cls"):
            config.check()
    (folder / "1_Pooling" / "config.json").write_text("{")
    with pytest.raises(InputError, match="is no readable sentence encoder"):
        config.check()
    write_modules(folder, "Transformer", "Pooling", "Dense")
    write_pooling(folder, "mean_tokens")
    write_dense(folder / "2_Dense", 5, "activation.Softsign", stored="pytorch_model.bin", bias=True)
    with pytest.raises(InputError, match="dense layer of activation Softsign, known are Identity, Tanh"):
        config.check()
    write_dense(folder / "2_Dense", 5, "activation.Tanh", stored="pytorch_model.bin", bias=True)
    (folder / "2_Dense" / "pytorch_model.bin").unlink()
    with pytest.raises(InputError, match="is no readable sentence encoder"):
        config.check()
    (folder / "modules.json").write_text('["Transformer"]')
    with pytest.raises(InputError, match=r"modules.json names no types and paths"):
        config.check()


def test_an_encoder_of_the_hub_has_its_modules_too(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = encoder("bert", tokenizer, tmp_path)
    write_modules(folder, "Transformer", "Pooling")
    write_pooling(folder, "cls_token")
    monkeypatch.setattr(sentences, "_from_hub", lambda path: folder if path == "some/encoder" else None)
    assert head_of("some/encoder").pooling == "cls"


def test_files_that_are_no_encoder_are_refused(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match="is no readable sentence encoder"):
        sentence_vectors(["a"], str(tmp_path), 8)


@pytest.mark.parametrize(("kind", "spare"), [("bert", 0), ("roberta", 2)])
def test_an_encoder_reads_as_many_tokens_as_it_has_positions_for(
    tokenizer: Any, tmp_path: Path, kind: str, spare: int
) -> None:
    """RoBERTa's positions begin behind that of the padding."""
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), max_position_embeddings=20, pad_token_id=1, **SIZES)
    torch.manual_seed(3)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    text = "Red dragon and blue robot " * 20
    cut = sentence_vectors([text], str(tmp_path), 20 - spare)
    torch.testing.assert_close(sentence_vectors([text], str(tmp_path), 256), cut)
    assert not torch.allclose(sentence_vectors([text], str(tmp_path), 20 - spare - 1), cut)
