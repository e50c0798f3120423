"""Prompts: the published wording, the budget, and the same ids in training and generation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tandemrec.data.examples import Examples
from tandemrec.data.locations import models_root
from tandemrec.errors import InputError
from tandemrec.llm.model import LanguageModel
from tandemrec.llm.prompts import PromptConfig, answer_text, answer_tokens, prompt_text, prompt_tokens, read_answer

GAMES = PromptConfig(noun="video games", singular="video game", verb="played")
COMPACT = PromptConfig(template="compact", verb="played")
TITLES = ["Half-Life 2", "Portal", 'Said "No"', "Ōkami: 大神", "Age of Empires II: The Age of Kings"]


def test_alpaca_block_is_the_published_one() -> None:
    assert prompt_text(TITLES[:2], GAMES) == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n"
        "\n"
        "### Instruction:\n"
        "Given a list of video games the user has played before, please recommend a new video game that the user likes "
        "to the user.\n"
        "\n"
        "### Input:\n"
        'The user has played the following video games before: "Half-Life 2", "Portal"\n'
        "\n"
        "### Response:\n"
    )
    assert answer_text("Portal", GAMES) == '"Portal"'


def test_compact_template_is_one_line_and_a_cue() -> None:
    assert prompt_text(TITLES[:2], COMPACT) == 'played: "Half-Life 2", "Portal"\nnext:'
    assert answer_text("Portal", COMPACT) == ' "Portal"'


@pytest.mark.parametrize("title", TITLES)
@pytest.mark.parametrize("config", [GAMES, COMPACT])
def test_an_answer_reads_as_its_title(title: str, config: PromptConfig) -> None:
    assert read_answer(answer_text(title, config)) == read_answer(title)


def test_latest_titles_are_shown_and_the_oldest_left_out_until_it_fits(nano: LanguageModel) -> None:
    titles = [f"Star {i}" for i in range(30)]
    examples = Examples.from_histories([list(range(30)), [3], []])
    ten = prompt_tokens(nano, examples, titles, COMPACT, reserve=10)
    assert nano.tokenizer.decode(ten[0]).endswith(prompt_text(titles[20:], COMPACT))
    assert ten[1] == [nano.tokenizer.bos_token_id, *nano.tokenize([prompt_text(["Star 3"], COMPACT)])[0]]
    short = COMPACT.model_copy(update={"max_tokens": 40})
    for reserve in (0, nano.context - 35):
        tokens = prompt_tokens(nano, examples, titles, short, reserve)[0]
        assert len(tokens) <= min(40, nano.context - reserve)
        shown = nano.tokenizer.decode(tokens[1:])
        n = shown.count(",") + 1
        assert shown == prompt_text(titles[30 - n :], COMPACT)
        one_more = nano.tokenize([prompt_text(titles[30 - n - 1 :], COMPACT)])[0]
        assert len(one_more) + 1 > min(40, nano.context - reserve)


def test_a_title_that_does_not_fit_is_left_out(nano: LanguageModel) -> None:
    tokens = prompt_tokens(nano, Examples.from_histories([[0]]), ["x" * 300], COMPACT, reserve=10)[0]
    assert nano.tokenizer.decode(tokens[1:]) == prompt_text([], COMPACT)


def test_a_template_that_does_not_fit_is_refused(nano: LanguageModel) -> None:
    with pytest.raises(InputError, match=r"the template alone has \d+ tokens, but 20 fit"):
        prompt_tokens(nano, Examples.from_histories([[0]]), ["a"], GAMES, reserve=nano.context - 20)


@pytest.mark.parametrize("name", ["gpt2", "qwen2.5"])
@pytest.mark.parametrize("config", [GAMES, COMPACT])
def test_prompt_and_answer_apart_are_tokenised_as_together(name: str, config: PromptConfig) -> None:
    folder = models_root() / "tokenizers" / name
    if not folder.is_dir():
        pytest.skip(f"needs the tokenizer {folder} (TANDEMREC_MODELS)")
    tokenizer = _tokenizer(folder)
    for title in TITLES:
        prompt, answer = prompt_text(TITLES, config), answer_text(title, config)
        together = tokenizer(prompt + answer, add_special_tokens=False)["input_ids"]
        apart = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, answer)]
        assert together == apart[0] + apart[1]


@pytest.mark.parametrize("name", ["stories260k", "stories3m", "tinystories-chat-3m"])
@pytest.mark.parametrize("config", [GAMES, COMPACT])
def test_ids_of_small_models_say_what_the_text_says(name: str, config: PromptConfig) -> None:
    folder = models_root() / name
    if not folder.is_dir():
        pytest.skip(f"needs the model {folder} (TANDEMREC_MODELS)")
    tokenizer = _tokenizer(folder)
    lm = LanguageModel.__new__(LanguageModel)
    lm.tokenizer = tokenizer
    for title, ids in zip(TITLES, answer_tokens(lm, TITLES, config), strict=True):
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.eos_token_id not in ids[:-1]
        if name != "tinystories-chat-3m":  # its vocabulary was pruned and has no other scripts
            assert read_answer(tokenizer.decode(ids, skip_special_tokens=True)) == read_answer(title)


def _tokenizer(folder: Path):  # type: ignore[no-untyped-def]
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
