"""Title trees against sets of sequences, and constrained decoding against scoring every title."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pad_sequence

from tandemrec.llm import trie as module
from tandemrec.llm.model import LanguageModel
from tandemrec.llm.trie import Trie, decode_titles

PROMPTS = [[5, 9, 7], [8, 6, 5, 40, 3, 2, 7], [4], [12, 40, 41, 42], [20, 21]]
Folder = Callable[[str], str]
Titles = list[list[int]]


def walk(trie: Trie, node: int = 0, path: tuple[int, ...] = ()) -> dict[tuple[int, ...], list[int]]:
    """Every sequence of a trie with its items."""
    found = {path: trie.items(int(trie.first_N[node]))} if trie.ends_N[node] else {}
    below = {}
    for child in range(int(trie.child_N1[node]), int(trie.child_N1[node + 1])):
        below |= walk(trie, child, (*path, int(trie.token_N[child])))
    found |= below
    assert len(found) == trie.stop_N[node] - trie.first_N[node]
    assert max(len(sequence) for sequence in found) == trie.longest_N[node]
    return found


sequences = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=30)


@settings(max_examples=200, deadline=None)
@given(sequences)
def test_a_trie_holds_every_title_once_and_all_its_items(titles: Titles) -> None:
    wanted: dict[tuple[int, ...], list[int]] = {}
    for item, title in enumerate(titles):
        wanted.setdefault(tuple(title), []).append(item)
    trie = Trie.build(titles)
    assert walk(trie) == wanted
    assert len(trie) == len(wanted)


@settings(max_examples=100, deadline=None)
@given(sequences, st.lists(st.sets(st.integers(0, 29)), min_size=1, max_size=4))
def test_a_sequence_is_closed_when_all_its_items_are_excluded(titles: Titles, excluded: list[set[int]]) -> None:
    lists = [[item for item in row if item < len(titles)] for row in excluded]
    trie = Trie.build(titles)
    found = trie.closed(lists)
    for row, items in zip(found.tolist(), lists, strict=True):
        wanted = [s for s in range(len(trie)) if set(trie.items(s)) <= set(items)]
        assert row == wanted + [len(trie)] * (len(row) - len(wanted))


def catalogue(lm: LanguageModel, size: int = 200) -> Titles:
    """Titles that share beginnings; some are the same, some the beginning of others; ended by EOS."""
    generator = np.random.default_rng(0)
    titles = [generator.integers(60, 66, generator.integers(1, 6)).tolist() for _ in range(size)]
    assert len({tuple(title) for title in titles}) < size - 20
    assert any(a != b and b[: len(a)] == a for a in titles for b in titles)
    return [[*title, lm.eos] for title in titles]


def brute_force(
    lm: LanguageModel, prompt: list[int], titles: Sequence[list[int]], penalty: float = 0.0
) -> torch.Tensor:
    """Teacher-forced scores of all titles, each computed as a whole sequence."""
    rows = pad_sequence([torch.tensor([*prompt, *title]) for title in titles], batch_first=True)
    with torch.no_grad():
        log_p = lm.model(rows, use_cache=False).logits[:, len(prompt) - 1 : -1].log_softmax(2)
    taken = log_p.gather(2, rows[:, len(prompt) :, None])[..., 0]
    length = torch.tensor([len(title) for title in titles])
    inside = torch.arange(taken.shape[1]) < length[:, None]
    return (taken * inside).sum(1) / length**penalty


def check_top(items: np.ndarray, scores: np.ndarray, wanted: torch.Tensor, allowed: Sequence[int]) -> None:
    """The K best of the allowed items, but for the order of scores tied to 1e-4; those scores."""
    best = wanted[list(allowed)].sort(descending=True).values[: len(items)].numpy()
    assert len(set(items.tolist())) == len(items)
    assert set(items.tolist()) <= set(allowed)
    np.testing.assert_allclose(scores, wanted[items.astype(np.int64)], atol=1e-4)
    np.testing.assert_allclose(scores, best, atol=1e-4)
    assert (np.diff(scores) <= 0).all()


@pytest.mark.parametrize(
    ("architecture", "penalty"),
    [*product(["llama", "gpt2", "gpt_neox", "qwen2", "gpt_neo"], [0.0, 1.0, -0.5]), ("mamba", 0.0)],
)
def test_wide_beams_rank_like_scoring_every_title(architecture: str, penalty: float, tiny: Folder) -> None:
    lm = LanguageModel.load(tiny(architecture))
    titles = catalogue(lm)
    found = decode_titles(lm, PROMPTS, Trie.build(titles), 20, beams=200, length_penalty=penalty, batch_size=3)
    for prompt, items, scores in zip(PROMPTS, found.items, found.scores, strict=True):
        check_top(items, scores, brute_force(lm, prompt, titles, penalty), range(200))


def test_among_titles_probabilities_sum_to_one(tiny: Folder) -> None:
    lm = LanguageModel.load(tiny("llama"))
    titles = catalogue(lm)
    trie = Trie.build(titles)
    found = decode_titles(lm, PROMPTS, trie, 200, beams=200, among_titles=True)
    different = {tuple(title) for title in titles}
    for prompt, items, scores in zip(PROMPTS, found.items, found.scores, strict=True):
        score_of = {tuple(titles[item]): float(score) for item, score in zip(items, scores, strict=True)}
        assert sum(np.exp(list(score_of.values()))) == pytest.approx(1, abs=1e-4)
        for title in list(different)[::17]:
            wanted = 0.0
            for place, token in enumerate(title):
                on = sorted(
                    {other[place] for other in different if other[:place] == title[:place] and len(other) > place}
                )
                with torch.no_grad():
                    logits = lm.model(torch.tensor([[*prompt, *title[:place]]]), use_cache=False).logits[0, -1]
                wanted += float(logits[on].log_softmax(0)[on.index(token)])
            assert score_of[title] == pytest.approx(wanted, abs=1e-4)


def test_scores_are_those_of_packed_teacher_forcing(tiny: Folder) -> None:
    lm = LanguageModel.load(tiny("llama"))
    titles = catalogue(lm)
    found = decode_titles(lm, PROMPTS, Trie.build(titles), 10)
    with torch.no_grad():
        forced = lm.log_probs(PROMPTS, [[titles[item] for item in items] for items in found.items])
    np.testing.assert_allclose(found.scores, forced, atol=1e-4)


def test_titles_need_not_end_in_a_token_of_their_own(tiny: Folder) -> None:
    lm = LanguageModel.load(tiny("llama"))
    titles = [title[:-1] for title in catalogue(lm)]
    found = decode_titles(lm, PROMPTS, Trie.build(titles), 20, beams=200)
    for prompt, items, scores in zip(PROMPTS, found.items, found.scores, strict=True):
        check_top(items, scores, brute_force(lm, prompt, titles), range(200))


@pytest.mark.parametrize("beams", [1, 3, 10])
def test_narrow_beams_write_nothing_but_titles_with_exact_scores(beams: int, tiny: Folder) -> None:
    lm = LanguageModel.load(tiny("llama"))
    titles = catalogue(lm)
    found = decode_titles(lm, PROMPTS, Trie.build(titles), 10, beams=beams)
    for prompt, items, scores in zip(PROMPTS, found.items, found.scores, strict=True):
        n = int((items >= 0).sum())
        assert n >= beams
        assert np.isneginf(scores[n:]).all()
        wanted = brute_force(lm, prompt, titles)
        np.testing.assert_allclose(scores[:n], wanted[items[:n].astype(np.int64)], atol=1e-4)
        assert len(set(items[:n].tolist())) == n


def test_excluded_items_are_left_out_and_take_no_beam(tiny: Folder) -> None:
    lm = LanguageModel.load(tiny("llama"))
    titles = catalogue(lm)
    trie = Trie.build(titles)
    generator = np.random.default_rng(1)
    exclude = [sorted(generator.choice(200, 150, replace=False).tolist()) for _ in PROMPTS]
    exclude[2] = list(range(198))  # two items are left, and two beams find both
    found = decode_titles(lm, PROMPTS, trie, 20, beams=200, exclude=exclude, batch_size=2)
    for row, prompt in enumerate(PROMPTS):
        allowed = sorted(set(range(200)) - set(exclude[row]))
        n = min(20, len(allowed))
        check_top(found.items[row][:n], found.scores[row][:n], brute_force(lm, prompt, titles), allowed)
        assert (found.items[row][n:] == -1).all()
    narrow = decode_titles(lm, PROMPTS[2:3], trie, 2, exclude=exclude[2:3])
    assert set(narrow.items[0].tolist()) == {198, 199}
    nothing = decode_titles(lm, PROMPTS[:1], trie, 2, exclude=[range(200)])
    assert (nothing.items == -1).all()


def test_items_of_one_title_follow_each_other(tiny: Folder) -> None:
    lm = LanguageModel.load(tiny("llama"))
    titles = [[60, lm.eos], [61, 62, lm.eos], [60, lm.eos], [61, lm.eos], [60, lm.eos]]
    found = decode_titles(lm, PROMPTS, Trie.build(titles), 5)
    for items, scores in zip(found.items.tolist(), found.scores, strict=True):
        place = items.index(0)
        assert items[place : place + 3] == [0, 2, 4]
        assert len(set(scores[place : place + 3].tolist())) == 1
    without = decode_titles(lm, PROMPTS, Trie.build(titles), 5, exclude=[[2]] * len(PROMPTS))
    assert all(set(items) == {0, 1, 3, 4, -1} for items in without.items.tolist())


def test_answers_do_not_depend_on_the_batch(tiny: Folder) -> None:
    lm = LanguageModel.load(tiny("qwen2"))
    trie = Trie.build(catalogue(lm))
    together = decode_titles(lm, PROMPTS, trie, 5, beams=4)
    for row, prompt in enumerate(PROMPTS):
        alone = decode_titles(lm, [prompt], trie, 5, beams=4)
        np.testing.assert_array_equal(alone.items[0], together.items[row])
        np.testing.assert_allclose(alone.scores[0], together.scores[row], atol=1e-4)


def test_a_killed_run_continues_behind_its_last_chunk(
    tiny: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = LanguageModel.load(tiny("llama"))
    titles = catalogue(lm)
    search, calls = module._search, []

    def killed(*args):  # type: ignore[no-untyped-def]
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return search(*args)

    monkeypatch.setattr(module, "_search", killed)
    with pytest.raises(KeyboardInterrupt):
        decode_titles(lm, PROMPTS, Trie.build(titles), 5, batch_size=2, workspace=tmp_path)
    again = decode_titles(lm, PROMPTS, Trie.build(titles), 5, batch_size=2, workspace=tmp_path)
    assert len(calls) == 4  # one chunk, one killed, two left
    whole = decode_titles(lm, PROMPTS, Trie.build(titles), 5, batch_size=2)
    np.testing.assert_array_equal(again.items, whole.items)
    decode_titles(lm, PROMPTS, Trie.build(titles[:-1]), 5, batch_size=2, workspace=tmp_path)  # another catalogue
    assert len(calls) == 10
