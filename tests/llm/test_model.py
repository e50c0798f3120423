"""Language models of four architectures: label log-probabilities, vectors, adapters, and folders that are no model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tandemrec.data.locations import models_root
from tandemrec.errors import InputError
from tandemrec.llm.finetune import FineTuneConfig, prepare
from tandemrec.llm.model import LanguageModel, find_folder

ARCHITECTURES = ("llama", "gpt2", "gpt_neox", "qwen2")
PROMPTS = [[5, 9, 7], [8, 6, 5, 4, 3, 2, 7], [4]]
LABELS = [[11, 12], [13], [9, 10, 14, 15]]
Folder = Callable[[str], str]


def slow_log_probs(lm: LanguageModel, prompt: list[int], label: list[int]) -> torch.Tensor:
    """One row, all logits."""
    logits = lm.model(torch.tensor([prompt + label])).logits[0].float().log_softmax(-1)
    return torch.stack([logits[len(prompt) + i - 1, token] for i, token in enumerate(label)])


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "gemma2"])
def test_logits_at_labels_only_give_the_loss_and_gradient_of_all_logits(architecture: str, tiny: Folder) -> None:
    lm = LanguageModel.load(tiny(architecture))
    fast = lm.label_log_probs(PROMPTS, LABELS)
    slow = torch.cat([slow_log_probs(lm, p, y) for p, y in zip(PROMPTS, LABELS, strict=True)])
    torch.testing.assert_close(fast, slow, atol=2e-5, rtol=1e-4)
    parameters = list(lm.model.parameters())
    for a, b in zip(
        torch.autograd.grad(fast.sum(), parameters, allow_unused=True),
        torch.autograd.grad(slow.sum(), parameters, allow_unused=True),
        strict=True,
    ):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_logits_capped_after_the_head_are_noticed(tiny: Folder) -> None:
    assert not LanguageModel.load(tiny("gemma2")).scorer.head_gives_logits
    assert LanguageModel.load(tiny("llama")).scorer.head_gives_logits


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_vector_is_the_last_hidden_state_of_the_text_alone(architecture: str, tiny: Folder) -> None:
    lm = LanguageModel.load(tiny(architecture))
    texts = ["Star 1", "Dragon 4 and a much longer title", "Heart", ""]
    vectors = lm.encode(texts)
    for text, vector in zip(texts, vectors, strict=True):
        ids = [lm.tokenizer.bos_token_id, *lm.tokenizer(text, add_special_tokens=False)["input_ids"]]
        hidden = lm.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0, -1]
        torch.testing.assert_close(vector, hidden, atol=1e-5, rtol=1e-4)
    assert vectors.dtype == torch.float32


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_adapter_changes_answers_but_not_vectors_and_survives_saving(
    architecture: str, tiny: Folder, tmp_path: Path
) -> None:
    base = LanguageModel.load(tiny(architecture))
    vectors, before = base.encode(["Star 1", "Heart 2"]), base.label_log_probs(PROMPTS, LABELS)
    lm = prepare(base, FineTuneConfig(rank=2), seed=0)
    torch.testing.assert_close(lm.label_log_probs(PROMPTS, LABELS), before)  # B starts at zero
    with torch.no_grad():
        for name, parameter in lm.model.named_parameters():
            assert parameter.requires_grad == ("lora_" in name)
            if "lora_B" in name:
                parameter.fill_(0.1)
    lm.model.eval()
    after = lm.label_log_probs(PROMPTS, LABELS)
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(lm.encode(["Star 1", "Heart 2"]), vectors)

    lm.save(tmp_path / "adapter")
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
    again = LanguageModel.load(tiny(architecture), adapter=tmp_path / "adapter")
    torch.testing.assert_close(again.label_log_probs(PROMPTS, LABELS), after)
    torch.testing.assert_close(again.encode(["Star 1", "Heart 2"]), vectors)


def test_fully_tuned_model_takes_vectors_from_its_origin(tiny: Folder) -> None:
    lm = prepare(LanguageModel.load(tiny("llama")), FineTuneConfig(tuning="full"), seed=0)
    vectors = lm.encode(["Star 1"])
    with torch.no_grad():
        for parameter in lm.model.parameters():
            parameter.mul_(1.5)
    torch.testing.assert_close(lm.encode(["Star 1"]), vectors)


def test_half_precision_checkpoint_is_float32_on_a_cpu(tiny: Folder, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    shutil.copytree(tiny("llama"), tmp_path / "half")
    AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.float16).save_pretrained(tmp_path / "half")
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "float16"
    lm = LanguageModel.load(str(tmp_path / "half"), device=torch.device("cpu"))
    assert {parameter.dtype for parameter in lm.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors", "tokenizer.json"])
def test_folder_without_a_part_is_named(lost: str, tiny: Folder, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny("llama"), folder)
    (folder / lost).unlink()
    with pytest.raises(InputError, match=f"is no model folder: .*{lost.split('.', maxsplit=1)[0]}"):
        LanguageModel.load(str(folder))


@pytest.mark.parametrize("damaged", ["config.json", "model.safetensors", "tokenizer.json"])
def test_folder_with_a_damaged_part_is_refused(damaged: str, tiny: Folder, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny("llama"), folder)
    path = folder / damaged
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="is no readable model folder"):
        LanguageModel.load(str(folder))


def test_missing_weights_are_not_made_up(tiny: Folder, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny("llama"), folder)
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lack 'model\.norm\.weight'"):
        LanguageModel.load(str(folder))


@pytest.mark.parametrize("origin", ["no-such-model", "./no/such", "/no/such", "a/b/c"])
def test_missing_folder_is_refused(origin: str) -> None:
    with pytest.raises(InputError, match="there is no model folder"):
        find_folder(origin)


def test_a_name_with_one_slash_may_be_a_hub_id() -> None:
    assert find_folder("someone/some-model") is None


def test_stories_model_begins_and_ends_with_the_same_token() -> None:
    if not (models_root() / "stories260k").is_dir():
        pytest.skip(f"needs the model stories260k in {models_root()} (TANDEMREC_MODELS)")
    lm = LanguageModel.load("stories260k")
    assert (lm.bos, lm.eos, lm.pad, lm.context) == ([1], 1, 0, 512)
    ids = lm.tokenize(["Once upon a time"])[0]
    assert 1 not in ids
    # A model that was trained on stories finds one likelier than the same words backwards.
    likely, odd = lm.label_log_probs([lm.bos, lm.bos], [ids, ids[::-1]]).view(2, -1).sum(1)
    assert likely > odd + 10
