"""The small model built from a catalogue: size, folder, determinism, resuming."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tandemrec.data.dataset import Dataset
from tandemrec.llm.model import LanguageModel
from tandemrec.llm.nano import NanoConfig, _NextToken, build_nano
from tandemrec.training import TrainingConfig

BRIEF = TrainingConfig(epochs=2, learning_rate=3e-3, patience=None, checkpoint_seconds=0)
CONFIG = NanoConfig(millions=0.05, vocabulary=320, context=64, row_tokens=32, repeats=2, batch_size=8, training=BRIEF)


@pytest.mark.parametrize("millions", [0.25, 0.5, 1, 3, 10, 30, 60])
def test_the_dial_gives_about_the_asked_size(millions: float) -> None:
    layers, width, heads = NanoConfig(millions=millions).shape()
    assert 0.8 * millions < 12 * layers * width**2 / 1e6 < 1.25 * millions
    assert width % heads == 0
    assert 50 < width / layers < 170


def test_an_ordinary_folder_that_has_learned_its_catalogue(toy: Dataset, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = CONFIG.model_copy(update={"repeats": 40})
    report = build_nano(toy, config, tmp_path / "model", seed=1)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.config.max_position_embeddings == 64
    assert sum(p.numel() for p in model.parameters()) == report.notes["parameters"]
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    text = 'Ōkami: "大神" 2\n'
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    lm = LanguageModel.load(str(tmp_path / "model"))
    titles = lm.tokenize([f'"{title}"' for title in toy.titles])
    mixed = lm.tokenize([f'"{title.split()[1]} {title.split()[0]}"' for title in toy.titles])
    known, unknown = (sum(lm.label_log_probs([lm.bos], [t]).sum().item() for t in some) for some in (titles, mixed))
    assert known > unknown + 50


def test_equal_seeds_give_equal_files_and_a_kill_changes_nothing(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(name: str, seed: int) -> dict[str, torch.Tensor]:
        build_nano(toy, CONFIG, tmp_path / name, seed=seed, workspace=tmp_path / f"{name}.work")
        return load_file(tmp_path / name / "model.safetensors")

    one, two, other = build("one", 1), build("two", 1), build("other", 2)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    assert any(not torch.equal(one[key], other[key]) for key in one)

    loss, calls = _NextToken.loss, []

    def killed(self, batch):  # type: ignore[no-untyped-def]
        calls.append(batch)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return loss(self, batch)

    monkeypatch.setattr(_NextToken, "loss", killed)
    with pytest.raises(KeyboardInterrupt):
        build("killed", 1)
    assert not (tmp_path / "killed").exists()
    again = build("killed", 1)
    assert all(torch.equal(one[key], again[key]) for key in two)


def test_text_files_are_learned_beside_the_catalogue(toy: Dataset, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 200)
    config = CONFIG.model_copy(update={"text_files": (tmp_path / "more.txt",), "millions": 0.1})
    plain = build_nano(toy, CONFIG, tmp_path / "plain", seed=1)
    report = build_nano(toy, config, tmp_path / "model", seed=1)
    assert report.notes["tokens"] > plain.notes["tokens"] + 2000
    lm = LanguageModel.load(str(tmp_path / "model"))
    fox, wrong = lm.tokenize(["the quick brown fox", "fox brown quick the"])
    likely, odd = (lm.label_log_probs([lm.bos], [ids]).sum() for ids in (fox, wrong))
    assert likely > odd + 3
