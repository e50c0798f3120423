"""BIGRec end to end on a toy catalogue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tandemrec.data.examples import Examples
from tandemrec.data.locations import models_root
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.evaluation.evaluate import evaluate
from tandemrec.llm.model import LanguageModel
from tandemrec.llm.recommenders.bigrec import BIGRec, BIGRecConfig
from tandemrec.llm.trie import Trie, decode_titles

FULL = {
    "lm": {"build": "nano", "millions": 0.05},
    "prompt": {"template": "compact", "history": 4},
    "generation": {"beams": 2},
    "finetune": {"tuning": "full", "batch_size": 16, "training": {"epochs": 6, "learning_rate": 3e-3}},
}
LORA = FULL | {"finetune": {"tuning": "lora", "rank": 4, "batch_size": 16, "training": {"epochs": 2}}}


def fitted(settings: dict[str, object], split: Split, folder: Path | None, workspace: Path | None = None) -> BIGRec:
    model = BIGRec(BIGRecConfig.model_validate(settings), folder)
    model.fit(split, seed=3, workspace=workspace)
    return model


def test_learns_to_write_the_next_title_and_beats_chance(split: Split, nano_folder: Path) -> None:
    longer = FULL["finetune"] | {"training": {"epochs": 10, "learning_rate": 3e-3, "patience": None}}  # type: ignore[operator]
    model = fitted(FULL | {"finetune": longer}, split, nano_folder)
    texts = model.complete(split.test)
    assert np.mean([model.is_title(text) for text in texts]) > 0.9
    assert evaluate(model, split).metrics["hr@5"]["mean"] > 2 * 5 / 24


@pytest.mark.parametrize("settings", [FULL, LORA], ids=["full", "lora"])
def test_scores_survive_saving(settings: dict[str, object], split: Split, nano_folder: Path, tmp_path: Path) -> None:
    model = fitted(settings, split, nano_folder)
    model.save(tmp_path / "model")
    again = BIGRec.load(tmp_path / "model")
    assert again.complete(split.test) == model.complete(split.test)
    torch.testing.assert_close(again.scores(split.test), model.scores(split.test), atol=1e-5, rtol=1e-4)
    assert again.item_vectors is not None
    assert again.item_vectors.shape[0] == split.n_items


def test_two_fits_of_one_seed_are_equal(split: Split, nano_folder: Path) -> None:
    one, two = (fitted(LORA, split, nano_folder) for _ in range(2))
    assert torch.equal(one.scores(split.test), two.scores(split.test))


def test_answers_are_remembered(split: Split, nano_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fitted(LORA, split, nano_folder)
    texts = model.complete(split.test)
    monkeypatch.setattr("tandemrec.llm.recommenders.writer.generate", None)
    assert model.complete(split.test.take(slice(3, 7))) == texts[3:7]
    assert model.scores(split.test.take(slice(3, 7))).shape == (4, split.n_items)


def test_scores_of_an_exact_title_put_it_first(split: Split, nano_folder: Path) -> None:
    model = fitted(FULL, split, nano_folder)
    scores, texts = model.scores(split.test), model.complete(split.test)
    exact = [row for row, text in enumerate(texts) if model.is_title(text)]
    best = [model.titles[int(item)] for item in scores[exact].argmax(1)]
    assert exact
    assert best == [texts[row].strip().strip('"') for row in exact]
    assert bool((scores[exact].max(1).values == 0).all())


def test_constrained_decoding_ranks_what_it_finds_first(split: Split, nano_folder: Path, tmp_path: Path) -> None:
    model = fitted(FULL | {"decoding": "constrained", "decoded": 5}, split, nano_folder)
    scores, texts = model.scores(split.test), model.complete(split.test)
    assert all(model.is_title(text) for text in texts)
    found = decode_titles(
        model.language_model, model.prompts(split.test), Trie.build(model._labels), 5, length_penalty=1.0
    )
    order = scores.argsort(1, descending=True)
    np.testing.assert_array_equal(order[:, :5], found.items)
    np.testing.assert_allclose(scores.gather(1, order[:, :5]), 1 + found.scores - found.scores[:, -1:], atol=1e-4)
    assert texts == [model.titles[row[0]] for row in found.items]
    rest = model.grounding.scores(texts)
    torch.testing.assert_close(scores.gather(1, order[:, 5:]), rest.gather(1, order[:, 5:]))
    model.save(tmp_path / "model")
    torch.testing.assert_close(BIGRec.load(tmp_path / "model").scores(split.test), scores, atol=1e-4, rtol=1e-4)


def test_a_server_may_write_in_its_place(split: Split, nano_folder: Path) -> None:
    model = fitted(LORA, split, nano_folder)
    answer = model._labels[7]

    class Told:
        model = "told"

        def beam_search(self, prompts: list[list[int]], *settings: object) -> list[list[tuple[list[int], float]]]:
            return [[(answer, -1.0)] for _ in prompts]

    model.server = Told()  # type: ignore[assignment]
    assert set(model.complete(split.test)) == {model.language_model.tokenizer.decode(answer[:-1])}
    assert model.scores(split.test).argmax(1).unique().tolist() == [7]


def test_epoch_can_be_chosen_by_ranking(split: Split, nano_folder: Path) -> None:
    settings = FULL | {"finetune": FULL["finetune"] | {"select_on": "ndcg@10"}}  # type: ignore[operator]
    model = BIGRec(BIGRecConfig.model_validate(settings), nano_folder)
    report = model.fit(split, seed=3)
    assert list(report.curve[0])[2:5] == ["ndcg@10", "hr@10", "log_likelihood"]
    assert report.best_value == max(row["ndcg@10"] for row in report.curve)


def test_loss_may_count_the_prompt_too(split: Split, nano_folder: Path) -> None:
    model = fitted(LORA, split, nano_folder)
    answers = model.answered(split.train)
    everything = answers.whole()
    for row in range(len(split.train)):
        whole = answers.prompts[row] + answers.completions[row][0]
        assert everything.prompts[row] == whole[:1]
        assert everything.completions[row][0] == whole[1:]
        title = model.titles[split.train.target[row][0]]
        assert model.language_model.tokenizer.decode(answers.completions[row][0]) == f' "{title}"</s>'


def test_runs_on_a_pretrained_model_with_an_adapter(split: Split) -> None:
    if not (models_root() / "stories260k").is_dir():
        pytest.skip(f"needs the model stories260k in {models_root()} (TANDEMREC_MODELS)")
    settings = LORA | {"lm": {"build": "pretrained", "path": "stories260k"}, "prompt": {}}
    small = {"tuning": "lora", "examples_per_epoch": 16, "training": {"epochs": 1}}
    model = fitted(settings | {"finetune": small}, split, None)
    assert model.scores(split.test.take(slice(0, 3))).isfinite().all()


def test_four_bits_under_an_adapter(split: Split, nano_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    tuned = {"tuning": "qlora", "rank": 4, "batch_size": 16, "training": {"epochs": 2, "learning_rate": 3e-3}}
    model = fitted(FULL | {"finetune": tuned}, split, nano_folder)
    kinds = {type(module).__name__ for module in model.language_model.model.modules()}
    assert "Linear4bit" in kinds
    trained = [p for p in model.language_model.model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    model.save(tmp_path / "model")
    assert BIGRec.load(tmp_path / "model").complete(split.test) == model.complete(split.test)


def test_four_bits_need_their_package(nano_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tandemrec.llm.model.find_spec", lambda name: None)
    with pytest.raises(InputError, match="qlora needs the package bitsandbytes"):
        LanguageModel.load(str(nano_folder), four_bit=True)


def test_finished_models_are_ordinary_folders_with_a_card(split: Split, nano_folder: Path, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for settings, read in ((FULL, AutoModelForCausalLM), (LORA, AutoPeftModelForCausalLM)):
        model = fitted(settings, split, nano_folder)
        folder = tmp_path / str(settings is LORA)
        model.save(folder)
        plain = read.from_pretrained(folder / "model")
        ids = torch.tensor([model.prompts(split.test)[0]])
        mine = model.language_model.model(input_ids=ids).logits
        torch.testing.assert_close(plain(input_ids=ids).logits, mine, atol=1e-5, rtol=1e-4)
        card = ModelCard.load(folder / "model" / "README.md")
        assert card.data.library_name == ("peft" if settings is LORA else "transformers")
        assert "BIGRec.load" in card.text
        assert str(nano_folder.parent) not in card.text
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "False" / "model")
    prompt = model.prompts(Examples.from_histories([[0, 1]]))[0]
    assert tokenizer.decode(prompt, skip_special_tokens=True) in card.text


def test_configuration_is_checked_before_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no model folder"):
        BIGRecConfig.model_validate({"lm": {"build": "pretrained", "path": "./missing"}}).check()
    with pytest.raises(InputError, match="there is no text file"):
        BIGRecConfig.model_validate({"lm": {"build": "nano", "text_files": ["missing.txt"]}}).check()


def test_nano_needs_to_be_built_first(split: Split) -> None:
    with pytest.raises(InputError, match="needs the folder of the built model"):
        BIGRec(BIGRecConfig.model_validate(FULL)).fit(split)
