"""Chains of thought: what is asked, how it is scored, what is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from tandemrec.augmentation.llm_cf import LLMCFConfig
from tandemrec.augmentation.thought_scores import DECISIONS, REQUIRED, coherence, score_thoughts
from tandemrec.augmentation.thoughts import (
    ThoughtsConfig,
    about_text,
    by_language_model,
    draw_questions,
    sure_examples,
    think,
    thoughts_summary,
    write_thoughts,
)
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.split import Split, make_split
from tandemrec.errors import InputError
from tandemrec.llm.chat import ChatConfig
from tandemrec.llm.model import LanguageModel
from tests.llm.test_chat import FakeChat, server

__all__ = ["server"]


def encode(texts: Sequence[str]) -> torch.Tensor:
    """Counts of a few letters: an encoder that a test can follow."""
    return torch.tensor([[text.count(letter) for letter in "aeioust"] for text in texts], dtype=torch.float32) + 3


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def test_scores_against_a_literal_transcription() -> None:
    texts = ["The user loves stars. The item is a star.", "No. A dull one, never liked, and so on.", "Same thing."]
    inputs, labels = ["Star 1; Star 2", "Robot 1", "Star 1; Star 2"], [1, 0, 1]
    frame, vectors = score_thoughts(texts, inputs, labels, encode)
    assert np.array_equal(vectors, encode(texts).numpy())
    distinct = [*texts, "Star 1; Star 2", "Robot 1", *REQUIRED, *DECISIONS]
    mean = encode(distinct).numpy().astype(np.float64).mean(0)

    def vector(text: str) -> np.ndarray:
        return encode([text])[0].numpy().astype(np.float64) - mean

    for row, text, about, label in zip(frame.iter_rows(named=True), texts, inputs, labels, strict=True):
        own = vector(text)
        expected = [
            coherence(text),
            np.mean([(1 + cosine(own, vector(required))) / 2 for required in REQUIRED]),
            (1 + cosine(own, vector(about))) / 2,
            (1 + cosine(own, vector(DECISIONS[label]))) / 2,
        ]
        found = [row[name] for name in ("coherence", "completeness", "relevance", "consistency")]
        assert found == pytest.approx(expected)
        assert row["score"] == pytest.approx(np.mean(expected))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0.0),
        ("Plain words only here.", 1.0),
        ("good good", 0.5),  # one sentence: no change; all words are repeated
        ("A good start. Then bad weather.", 0.5),  # +1 to −1 over two sentences: a change of 1
        ("It is good. It ran on", (1 - 0.5 + 1 - 2 / 6) / 2),
    ],
)
def test_coherence_by_hand(text: str, expected: float) -> None:
    assert coherence(text) == pytest.approx(expected)


def test_half_of_the_questions_have_an_item_that_the_user_never_met(split: Split) -> None:
    asked = draw_questions(split, 100, seed=3)
    assert np.bincount(asked.label).tolist() == [50, 50]
    train = split.train
    real = {(int(u), len(s), int(t[0])) for u, s, t in zip(train.user, train.seen, train.target, strict=True)}
    for user, seen, item, label in zip(asked.user, asked.seen, asked.item, asked.label, strict=True):
        assert ((user, seen, item) in real) == bool(label)
        assert label or item not in split.sequences[int(user)]
    again = draw_questions(split, 100, seed=3)
    assert np.array_equal(asked.item, again.item)
    assert len(draw_questions(split, 10**6, seed=3)) == len(train)


def test_a_question_knows_all_that_its_user_had_met(split: Split) -> None:
    """More than it shows: what was met since then may not be shown to the same user as long as it lies ahead."""
    asked = draw_questions(make_split(split.dataset, LeaveOneOut(history=2)), 10**6, seed=3)
    assert (asked.history.lengths <= 2).all() and (asked.seen > 2).any()
    for user, seen, history, item, label in zip(
        asked.user, asked.seen, asked.history, asked.item, asked.label, strict=True
    ):
        row = split.sequences[int(user)]
        assert history.tolist() == row[:seen][-2:].tolist()
        assert not label or item == row[seen]


def test_the_best_thought_of_a_question_is_kept(split: Split) -> None:
    prompts: list[str] = []

    def write(asked: Sequence[str]) -> list[list[str]]:
        prompts.extend(asked)
        return [["bad", f"The user chooses item number {n}.", "x x x x x x x x"] for n in range(len(asked))]

    frame, vectors = write_thoughts(split, ThoughtsConfig(questions=20, history=2), write, encode, 3)
    asked = draw_questions(split, 20, 3)
    assert frame["text"].to_list() == [f"The user chooses item number {n}." for n in range(20)]
    assert frame["item"].to_list() == asked.item.tolist()
    titles = split.dataset.titles
    for prompt, history, item, label in zip(prompts, asked.history, asked.item, asked.label, strict=True):
        listed = "; ".join(titles[i] for i in history[-2:])
        assert f"oldest first: {listed}.\nNew item: {titles[item]}.\n{DECISIONS[label]}\n" in prompt
    assert torch.equal(vectors["thoughts"], encode(frame["text"].to_list()))
    assert torch.equal(vectors["titles"], encode(titles))
    assert thoughts_summary(frame)["chosen"] == 10


def test_thoughts_below_the_least_score_are_left_out(split: Split) -> None:
    def write(asked: Sequence[str]) -> list[list[str]]:
        return [["The user chooses an item." if n % 4 < 2 else "item item item item"] for n in range(len(asked))]

    frame, _ = write_thoughts(split, ThoughtsConfig(questions=20), write, encode, 3)
    high, _ = write_thoughts(split, ThoughtsConfig(questions=20, least=0.6), write, encode, 3)
    assert 0 < high.height < frame.height == 20
    assert high.equals(frame.filter(pl.col("score") >= 0.6))


def test_too_few_usable_thoughts_are_refused_with_the_reason(split: Split) -> None:
    def answers(*several: str) -> Callable[[Sequence[str]], list[list[str]]]:
        return lambda asked: [[several[n % len(several)]] for n in range(len(asked))]

    good = "The user chooses item number 3."
    asked, strict = ThoughtsConfig(questions=40), ThoughtsConfig(questions=40, least=0.99)
    with pytest.raises(
        InputError, match=r"answers to 40 questions 40 have fewer than 10 characters and 0 score .* the 0 others"
    ):
        write_thoughts(split, asked, answers(" ", "", "    no     "), encode, 3)
    with pytest.raises(
        InputError, match=r"40 questions 20 have fewer .* and 20 score below 'thoughts.least' \(0.99\); the 0 others"
    ):
        write_thoughts(split, strict, answers("", good), encode, 3)
    # Every other question is about an item that was chosen: only the other decision has examples.
    with pytest.raises(InputError, match=r"20 have fewer than 10 characters and 0 score .* the 20 others are too few"):
        write_thoughts(split, asked, answers(good, "no"), encode, 3)
    assert write_thoughts(split, asked, answers(good, good, "no"), encode, 3)[0].height == 27


def test_nothing_is_stored_of_too_few_thoughts(split: Split, nano_folder: Path, tmp_path: Path) -> None:
    strict = ThoughtsConfig(questions=8, samples=1, max_new_tokens=4, least=1)
    with pytest.raises(InputError, match="of the best answers to 8 questions"):
        think(split, strict, LanguageModel.load(str(nano_folder)), None, tmp_path, seed=5)
    assert not list(tmp_path.iterdir())


def test_examples_that_a_user_is_sure_to_find() -> None:
    user, label = np.array([1, 1, 2, 3, 3, 3]), np.array([1, 1, 1, 0, 0, 0])
    assert sure_examples(user, label) == (0, 1)
    assert sure_examples(user[:0], label[:0]) == (0, 0)


def test_a_language_model_writes_and_goes_on_after_a_kill(
    split: Split, nano_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = LanguageModel.load(str(nano_folder))
    config = ThoughtsConfig(questions=12, samples=2, max_new_tokens=1000, batch_size=4)

    def ask(folder: str, workspace: Path) -> pl.DataFrame:
        (tmp_path / folder).mkdir(exist_ok=True)
        return think(split, config, lm, None, tmp_path / folder, seed=5, workspace=workspace)

    whole = ask("a", tmp_path / "one")
    assert all(len(written) == 2 for written in whole["written"])
    done = (tmp_path / "one" / "completions-0.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "completions-0.jsonl").write_text("".join(done[:2]))  # the digest and one chunk of three
    assert ask("b", tmp_path / "two").equals(whole)
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"thoughts.parquet", "thoughts.safetensors"}


def test_long_prompts_and_texts_are_cut_to_the_context(nano_folder: Path) -> None:
    lm = LanguageModel.load(str(nano_folder))
    config = ThoughtsConfig(samples=1, max_new_tokens=8)
    short, long = "Star 1 then Robot 2", "Ocean 3 " * 200 + "Star 1 then Robot 2"
    assert len(by_language_model(lm, config, 1, None)([short, long])) == 2
    vectors = lm.encode([short, long])
    torch.testing.assert_close(vectors[0], lm.encode([short])[0])
    torch.testing.assert_close(vectors[1], lm.encode([long[: len(long) // 2]])[0])


def test_a_chat_endpoint_is_asked_as_often_and_as_the_config_says(
    server: FakeChat, split: Split, nano_folder: Path, tmp_path: Path
) -> None:
    """Every request of a question is answered otherwise; the best scored answer is kept, and none is paid for twice."""
    several = ("no", "The user loves stars and the new item is one.", "x x x x x x x x x x")
    server.answer = lambda _: several[len(server.requests) % 3]
    chat = ChatConfig(url=server.url, model="toy", parallel=1)
    config, lm = ThoughtsConfig(questions=12, max_new_tokens=20), LanguageModel.load(str(nano_folder))
    frames = []
    for folder in (tmp_path / "one", tmp_path / "again"):
        folder.mkdir()
        frames.append(think(split, config, lm, chat, folder, seed=5))
    assert len(server.requests) == 12 * 3
    assert {(request["temperature"], request["max_tokens"]) for request in server.requests} == {(0.6, 20)}
    assert Counter(request["messages"][0]["content"] for request in server.requests).most_common()[-1][1] == 3
    assert frames[0].equals(frames[1])
    assert [sorted(written) for written in frames[0]["written"]] == [sorted(several)] * 12
    texts = [text for written in frames[0]["written"] for text in written]
    labels = [label for label in frames[0]["label"] for _ in range(3)]
    about = [
        about_text([split.dataset.titles[i] for i in row["history"]][-config.history :], title, config)
        for row in frames[0].iter_rows(named=True)
        for title in [split.dataset.titles[row["item"]]] * 3
    ]
    scores, _ = score_thoughts(texts, about, labels, lm.encode)
    best = scores["score"].to_numpy().reshape(12, 3).argmax(1)
    assert frames[0]["text"].to_list() == [texts[3 * row + column] for row, column in enumerate(best)]
    assert frames[0]["score"].to_list() == pytest.approx(scores["score"].to_numpy().reshape(12, 3).max(1))


def test_a_chat_is_not_asked_in_two_ways() -> None:
    chat: dict[str, Any] = {"url": "http://localhost", "model": "toy"}
    for told, own in (({"temperature": 0.2}, "temperature"), ({"max_tokens": 100}, "max_new_tokens")):
        with pytest.raises(
            ValueError, match=rf"asked for with thoughts.{own}, which is .*, but chat.{next(iter(told))}"
        ):
            LLMCFConfig.model_validate({"chat": chat | told})
        same = {own: next(iter(told.values()))}
        config = LLMCFConfig.model_validate({"chat": chat | told, "thoughts": same})
        assert LLMCFConfig.model_validate(config.model_dump(mode="json")) == config
    plain = LLMCFConfig.model_validate({"chat": chat})
    assert LLMCFConfig.model_validate(plain.model_dump(mode="json")) == plain


def test_too_few_examples_are_refused(split: Split, take: Callable[[Split, int], Split]) -> None:
    with pytest.raises(InputError, match="chains of thought need eight training examples, found 7"):
        draw_questions(take(split, 7), 100, 0)


@pytest.fixture
def take() -> Callable[[Split, int], Split]:
    from dataclasses import replace

    return lambda split, n: replace(split, train=split.train.take(slice(0, n)))
