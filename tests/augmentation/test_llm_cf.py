"""LLM-CF: retrieval without leaks, the module against slow loops, training, storage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from tandemrec import recommender
from tandemrec.augmentation.in_context import InContext
from tandemrec.augmentation.llm_cf import LLMCF, InContextNextItem, LLMCFConfig, LLMCFModule
from tandemrec.augmentation.memory import Memory, standardised
from tandemrec.augmentation.retrieval import encode_items, finder_of
from tandemrec.augmentation.thoughts import draw_questions
from tandemrec.conventional.sequential.next_item import NextItem
from tandemrec.conventional.sequential.sasrec import SASRec, SASRecConfig
from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import Examples, Ragged
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.split import Split, make_split
from tandemrec.errors import InputError
from tandemrec.recommender import score_blocks

BRIEF = {"epochs": 3, "patience": None, "clip_norm": None, "checkpoint_seconds": 0}
SASREC = {"model": "sasrec", "dim": 8, "max_length": 5, "blocks": 1, "training": BRIEF}
GRU = {"model": "gru4rec", "dim": 8, "hidden": 8, "max_length": 5, "training": BRIEF}


def thoughts_of(split: Split, folder: Path, count: int = 60, size: int = 6) -> Path:
    """What a language model would have thought, with random vectors."""
    asked = draw_questions(split, count, seed=2)
    frame = pl.DataFrame(
        {
            "user": asked.user,
            "seen": asked.seen,
            "history": pl.Series([row.tolist() for row in asked.history], dtype=pl.List(pl.Int32)),
            "item": asked.item,
            "label": asked.label,
        }
    )
    rng = torch.Generator().manual_seed(1)
    vectors = {name: torch.randn(n, size, generator=rng) for name, n in (("thoughts", len(asked)), ("titles", 24))}
    folder.mkdir(exist_ok=True)
    frame.write_parquet(folder / "thoughts.parquet")
    save_file(vectors, folder / "thoughts.safetensors")
    return folder


def config_with(**settings: Any) -> LLMCFConfig:
    return LLMCFConfig.model_validate({"backbone": SASREC} | settings)


def untrained(
    split: Split, tmp_path: Path, *, found_by: Tensor | None = None, **settings: Any
) -> tuple[LLMCF, InContextNextItem]:
    model = LLMCF(config_with(**settings), thoughts_of(split, tmp_path / "thoughts"), "cpu")
    model.memory = Memory.read(tmp_path / "thoughts", 5)
    model.finder = None if found_by is None else finder_of(model.memory, found_by)
    module = model.make_module(24, 3)
    model.adopt(module)
    task = model.make_task(module, split, 0)
    assert isinstance(task, InContextNextItem)
    return model, task


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6), st.booleans()), min_size=14, max_size=40),
    st.lists(st.tuples(st.integers(-1, 3), st.integers(1, 7)), min_size=1, max_size=8),
    st.integers(0, 2**16),
    st.booleans(),
)
def test_nothing_of_the_same_users_later_life_is_ever_shown(
    pool: list[tuple[int, int, bool]], asked: list[tuple[int, int]], seed: int, encoded: bool
) -> None:
    rng = np.random.default_rng(seed)
    # Users 10 and 11 see to it that both labels have examples of somebody else.
    pool = [*pool, (10, 3, True), (10, 4, False), (11, 3, True), (11, 4, False)]
    user, seen, label = (np.array(column, np.int64) for column in zip(*pool, strict=True))
    memory = memory_of(user, seen, label, rng)
    if encoded:
        memory = finder_of(memory, torch.from_numpy(rng.normal(size=(9, 4)).astype(np.float32)))
    query = torch.from_numpy(rng.normal(size=(len(asked), 4)).astype(np.float32))
    who, now = (torch.tensor(column) for column in zip(*asked, strict=True))
    found = memory.nearest(query, who, now, 2)
    similar = torch.nn.functional.cosine_similarity(query[:, None], memory.mean_titles(memory.histories)[None], dim=2)
    for b, row in enumerate(found.tolist()):
        assert len(set(row)) == 4
        assert sorted(label[row].tolist()) == [0, 0, 1, 1]
        for m in row:
            assert user[m] != who[b] or seen[m] < now[b]
        for wanted in (0, 1):
            allowed = [
                m for m in range(len(pool)) if label[m] == wanted and not (user[m] == who[b] and seen[m] >= now[b])
            ]
            best = sorted((similar[b, m].item() for m in allowed), reverse=True)[:2]
            own = sorted((similar[b, m].item() for m in row if label[m] == wanted), reverse=True)
            assert own == pytest.approx(best, abs=1e-5)
        assert similar[b, row].tolist() == pytest.approx(sorted(similar[b, row].tolist()), abs=1e-5)


def memory_of(user: np.ndarray, seen: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> Memory:
    histories = Ragged.from_lists([rng.integers(0, 9, rng.integers(1, 5)) for _ in user])
    vectors = {"title_IZ": rng.normal(size=(9, 4)), "thought_MZ": rng.normal(size=(len(user), 4))}
    numbers = {"user_M": user, "seen_M": seen, "label_M": label, "item_M": rng.integers(0, 9, len(user))}
    rows = {"met_H": histories.values, "start_M": histories.starts, "stop_M": histories.stops}
    return Memory(
        {name: torch.from_numpy(value.astype(np.float32)) for name, value in vectors.items()}
        | {name: torch.from_numpy(np.asarray(value)) for name, value in (numbers | rows).items()}
    )


@pytest.mark.parametrize("each", [1, 2], ids=["all", "every other"])
@pytest.mark.parametrize("chunks", [False, True])
def test_positions_ask_as_their_user_did_then(
    shuffled: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunks: bool, each: int
) -> None:
    """The question at a position knows what the backbone has read by then, and how much its user has met."""
    _, task = untrained(shuffled, tmp_path, backbone=SASREC | {"chunks": chunks})
    monkeypatch.setattr(task, "_drawn", lambda n: np.arange(n)[::each])
    asked: list[tuple[list[list[int]], list[int], list[int]]] = []
    features = type(task.module).features

    def spy(module: Any, state: Tensor, histories: Ragged, user: np.ndarray, seen: np.ndarray, each: int) -> Any:
        asked.append(([row.tolist() for row in histories], user.tolist(), seen.tolist()))
        return features(module, state, histories, user, seen, each)

    monkeypatch.setattr(type(task.module), "features", spy)
    # Of eight items a row holds the last six; in chunks another one holds the first three.
    rows = {9: (4, 0, 3), 0: (0, 2, 8), 18: (9, 2, 8)} if chunks else {4: (4, 2, 8), 0: (0, 2, 8), 9: (9, 2, 8)}
    task.loss(task.batch(np.array(list(rows)), None))
    histories, users, seens = asked[0]
    expected = [
        (shuffled.sequences[user][first:n].tolist(), user, n)
        for user, first, stop in rows.values()
        for n in range(first + 1, stop)
    ]
    assert list(zip(histories, users, seens, strict=True)) == expected[::each]


def slow_decoder(context: InContext, tokens: list[Tensor], heads: int) -> list[Tensor]:
    """The decoder token by token, head by head, in float64."""
    hidden = list(tokens)
    dim = len(tokens[0])
    size = dim // heads

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return x / (x.square().mean() + 1e-5).sqrt() * weight

    def turned(x: Tensor, t: int) -> Tensor:
        out = x.clone()
        for i in range(size // 2):
            angle = torch.tensor(t * 10000.0 ** (-2 * i / size), dtype=torch.float64)
            a, b = x[i], x[i + size // 2]
            out[i], out[i + size // 2] = a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()
        return out

    for layer in context.layers:
        normed = [norm(h, layer.attention_norm.weight) for h in hidden]
        mixed = []
        for t in range(len(hidden)):
            parts = []
            for head in range(heads):
                at = slice(head * size, (head + 1) * size)
                q = turned((layer.query.weight @ normed[t])[at], t)
                keys = [turned((layer.key.weight @ normed[s])[at], s) for s in range(t + 1)]
                weights = torch.stack([q @ k / size**0.5 for k in keys]).softmax(0)
                values = [(layer.value.weight @ normed[s])[at] for s in range(t + 1)]
                parts.append(sum(w * v for w, v in zip(weights, values, strict=True)))
            mixed.append(layer.out.weight @ torch.cat(parts))
        hidden = [h + m for h, m in zip(hidden, mixed, strict=True)]
        normed = [norm(h, layer.forward_norm.weight) for h in hidden]
        inner = [torch.nn.functional.silu(layer.gate.weight @ n) * (layer.up.weight @ n) for n in normed]
        hidden = [h + layer.down.weight @ i for h, i in zip(hidden, inner, strict=True)]
    return [norm(h, context.norm.weight) for h in hidden]


def slow_hidden(module: LLMCFModule, state: Tensor, history: list[int], shown: list[int]) -> list[Tensor]:
    """What the decoder makes of the shown examples and a question, token by token; the last is the feature."""
    memory, context = module.memory, module.context
    tokens: list[Tensor] = []
    for m in shown:
        past = memory.histories[m]
        parts = [
            module.last(Ragged.from_lists([past]))[0],
            context.text(memory.title_IZ[past.tolist()].mean(0)),
            module.item_table()[memory.item_M[m]],
            context.text(memory.title_IZ[memory.item_M[m]]),
        ]
        tokens += [context.pair(torch.cat(parts)), context.text(memory.thought_MZ[m])]
        tokens.append(context.label.weight[memory.label_M[m]])
    asked = context.text(memory.title_IZ[history].mean(0))
    nothing = torch.zeros(8, dtype=torch.float64), context.text(torch.zeros(6, dtype=torch.float64))
    tokens.append(context.pair(torch.cat([state, asked, *nothing])))
    return slow_decoder(context, tokens, heads=2)


def test_features_and_reconstruction_against_a_slow_loop(split: Split, tmp_path: Path) -> None:
    model, _ = untrained(split, tmp_path, reconstruction=1.0)
    module = model.fitted().double()
    memory, context = module.memory, module.context
    histories = Ragged.from_lists([[1, 2, 3], [7], [20, 4]])
    state = torch.randn(3, 8, dtype=torch.float64)
    user, seen = np.array([5, -1, 7]), np.array([3, 1, 2])
    with torch.no_grad():
        found, before, rows = module.features(state, histories, user, seen, 2)
        missed = context.missed(before, memory.thought_MZ[rows])
        for b in range(3):
            hidden = slow_hidden(module, state[b], histories[b].tolist(), rows[b].tolist())
            torch.testing.assert_close(found[b], hidden[-1])
            expected = []
            for place, m in enumerate(rows[b].tolist()):
                rebuilt, thought = context.rebuild(hidden[3 * place]), memory.thought_MZ[m]  # type: ignore[misc]
                expected.append(1 - rebuilt @ thought / (rebuilt.norm() * thought.norm()))
            torch.testing.assert_close(missed[b], torch.stack(expected).mean())


def slow_nearest(memory: Memory, vectors_IZ: Tensor, history: list[int], user: int, met: int) -> list[int]:
    """Two examples of each label, the nearest last, of those that the user may know of after `met` items."""
    mean_MZ = torch.stack([vectors_IZ[past.tolist()].mean(0) for past in memory.histories])
    asked_Z = vectors_IZ[history].mean(0)
    similar = torch.nn.functional.cosine_similarity(mean_MZ, asked_Z[None]).tolist()
    allowed = [m for m in range(len(mean_MZ)) if memory.user_M[m] != user or memory.seen_M[m] < met]
    ranked = sorted(allowed, key=lambda m: similar[m])
    against, chosen = ([m for m in ranked if memory.label_M[m] == label] for label in (0, 1))
    return sorted(against[-2:] + chosen[-2:], key=lambda m: similar[m])


@pytest.fixture(scope="module")
def shuffled() -> Split:
    """12 users with ten items each in any order, no first item twice: no two histories are equally near to a third."""
    rng = np.random.default_rng(4)
    rows = [np.append(first, rng.permutation(np.delete(np.arange(24), first))[:9]) for first in range(12)]
    events = [(user, int(item), time) for user, row in enumerate(rows) for time, item in enumerate(row)]
    frame = pl.DataFrame(events, ["user_id", "item_id", "timestamp"], orient="row")
    items = pl.DataFrame({"item_id": range(24), "title": [f"Item {i}" for i in range(24)]})
    return make_split(Dataset.from_frames(frame, items, name="shuffled"), LeaveOneOut(history=3))


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("part", ["train", "test"])
def test_answers_are_states_and_features_of_what_may_be_shown(
    shuffled: Split, tmp_path: Path, part: str, encoded: bool
) -> None:
    """By another encoder other examples are found, which are read as ever."""
    other_IZ = torch.randn(24, 9, generator=torch.Generator().manual_seed(6)) + 2
    asked: Examples = getattr(shuffled, part)
    asked = asked.take(np.random.default_rng(0).permutation(len(asked))[:12])
    model, _ = untrained(shuffled, tmp_path, mix=0.3, found_by=other_IZ if encoded else None)
    found = model.states(asked)
    module = model.fitted().double()
    vectors_IZ = (other_IZ - other_IZ.mean(0)).double() if encoded else module.memory.title_IZ
    with torch.no_grad():
        for b, (user, whole, seen) in enumerate(zip(asked.user.tolist(), asked.history, asked.seen, strict=True)):
            history = whole[-5:].tolist()
            state = module.backbone.last(Ragged.from_lists([history]))[0]
            shown = slow_nearest(module.memory, vectors_IZ, history, user, len(seen))
            expected = state + 0.3 * slow_hidden(module, state, history, shown)[-1]
            torch.testing.assert_close(found[b].double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("examples", "mix", "width"), [(2, 0.3, 14 * 7 * 8), (2, 0, 24), (32, 0.3, 14 * 97 * 8)])
def test_what_an_answer_holds_bounds_a_block(
    shuffled: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, examples: int, mix: float, width: int
) -> None:
    """Of a small catalogue: what the decoder reads for a question needs more room than its scores do."""
    model, _ = untrained(shuffled, tmp_path, mix=mix, examples=examples)
    assert model.rows_at_once(24) == 8_000_000 // width
    assert model.rows_at_once(10**6) == 8
    whole = list(score_blocks(model, shuffled.test))
    monkeypatch.setattr(recommender, "BLOCK_SCORES", 3 * width)
    parts = list(score_blocks(model, shuffled.test))
    assert [len(block) for block, _ in whole] == [1, 11]
    assert [len(block) for block, _ in parts] == [1, 3, 3, 3, 2]
    together = [torch.cat([scores for _, scores in blocks]) for blocks in (whole, parts)]
    torch.testing.assert_close(*together, atol=1e-6, rtol=1e-6)


def test_a_large_memory_bounds_a_block_too(split: Split, tmp_path: Path) -> None:
    model, _ = untrained(split, tmp_path, examples=2)
    rng = np.random.default_rng(0)
    model.fitted().memory = memory_of(np.arange(1000), np.ones(1000, np.int64), np.arange(1000) % 2, rng)
    assert model.rows_at_once(24) == 8_000_000 // (3 * 1000)


@given(st.integers(0, 3), st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**16), st.booleans())
@settings(max_examples=40)
def test_no_answer_knows_the_same_users_later_life(user: int, met: int, told: int, seed: int, encoded: bool) -> None:
    rng = np.random.default_rng(seed)
    # Users 10 and 11 see to it that both labels have examples of somebody else.
    who, when = np.append(rng.integers(0, 4, 40), [10, 10, 11, 11]), np.append(rng.integers(1, 7, 40), [3] * 4)
    model = LLMCF(config_with(), device="cpu")
    model.memory = memory_of(who, when, np.arange(44) % 2, rng)
    if encoded:
        model.finder = finder_of(model.memory, torch.from_numpy(rng.normal(size=(9, 3)).astype(np.float32)))
    model.adopt(model.make_module(9, seed))
    asked = Examples.from_histories([rng.integers(0, 9, met)], users=[user])
    asked = replace(asked, history=asked.history.tail(told))
    later = torch.from_numpy((who == user) & (when >= met))
    model.memory.thought_MZ[later] = torch.nan
    assert model.states(asked).isfinite().all()
    model.memory.thought_MZ[~later] = torch.nan
    assert model.states(asked).isnan().all()


@pytest.mark.parametrize("each", [1, 2], ids=["all", "every other"])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_loss_is_that_of_mixed_user_vectors(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weight: float, each: int
) -> None:
    """Positions that see no examples learn from h alone; what the others rebuild stands for all."""
    sampled = SASREC | {"loss": "sampled-softmax", "negatives": 6, "dropout": 0}
    model, task = untrained(split, tmp_path, backbone=sampled, reconstruction=weight, mix=0.3)
    monkeypatch.setattr(task, "_drawn", lambda n: np.arange(n)[::each])
    module = model.fitted()
    negatives = np.array([3, 8, 8, 1, 20, 11], np.int32)
    batch = task.batch(np.array([4, 0]), negatives)
    expected, missed, n = 0.0, [], 0
    with torch.no_grad():
        table = module.item_table().double()
        for user in (4, 0):
            row = split.sequences[user]
            for place in range(1, len(row)):
                past = Ragged.from_lists([row[:place]])
                vector = module.last(past)
                if n % each == 0:
                    asked = vector, past, np.array([user]), np.array([place])
                    feature, before, shown = module.features(*asked, 2)
                    vector = vector + 0.3 * feature
                    if weight:
                        missed.append(float(module.context.missed(before, module.memory.thought_MZ[shown])))
                others = [i for i in negatives.tolist() if i != row[place]]
                logits = torch.stack([table[i] @ vector[0].double() for i in (row[place], *others)])
                expected += float(torch.logsumexp(logits, 0) - logits[0])
                n += 1
    rebuilt = weight * n * float(np.mean(missed)) if weight else 0.0
    assert float(task.loss(batch).detach()) == pytest.approx(expected + rebuilt, rel=1e-5)
    assert n == batch.n_targets


def test_a_share_of_the_positions_is_drawn(split: Split, tmp_path: Path) -> None:
    _, task = untrained(split, tmp_path, share=0.3)
    torch.manual_seed(1)
    drawn = task._drawn(50)
    assert len(set(drawn.tolist())) == 15
    assert (np.diff(drawn) > 0).all()
    assert len(task._drawn(1)) == 1
    assert float(task.loss(task.batch(np.array([4, 0]), None)).detach()) > 0


def test_without_mix_it_is_the_plain_backbone_bit_for_bit(split: Split, tmp_path: Path) -> None:
    model = LLMCF(config_with(mix=0), thoughts_of(split, tmp_path / "thoughts"))
    model.fit(split, seed=4)
    plain = SASRec(SASRecConfig.model_validate(SASREC))
    plain.fit(split, seed=4)
    assert torch.equal(model.scores(split.test), plain.scores(split.test))


@pytest.mark.parametrize("backbone", [SASREC, GRU], ids=["sasrec", "gru4rec"])
def test_training_and_storage(split: Split, tmp_path: Path, backbone: dict[str, Any]) -> None:
    longer = backbone | {"training": BRIEF | {"epochs": 20, "validate_every": 5}}
    config = config_with(backbone=longer, reconstruction=1, share=0.5)
    model = LLMCF(config, thoughts_of(split, tmp_path / "thoughts"))
    report = model.fit(split, seed=4)
    assert report.notes["thoughts"] == 60
    assert report.curve[-1]["loss"] < report.curve[0]["loss"]
    model.save(tmp_path / "model")
    again = LLMCF.load(tmp_path / "model", "cpu")
    assert torch.equal(again.scores(split.test), model.scores(split.test))
    silent = Examples.from_histories([[], [1, 2]])
    scores = again.scores(silent)
    assert (scores[0] == 0).all()
    assert (scores[1] != 0).any()


def test_training_and_storage_with_an_encoder(split: Split, tmp_path: Path) -> None:
    folder = thoughts_of(split, tmp_path / "thoughts")
    config = config_with(mix=1.0, encoder={"kind": "tf-idf", "dim": 4})
    assert config.encoder is not None
    (tmp_path / "vectors").mkdir()
    assert encode_items(split.dataset, config.encoder, tmp_path / "vectors") == 4
    model = LLMCF(config, folder, item_vectors=tmp_path / "vectors")
    model.fit(split, seed=4)
    model.save(tmp_path / "model")
    again = LLMCF.load(tmp_path / "model", "cpu")
    assert torch.equal(again.scores(split.test), model.scores(split.test))
    titles = LLMCF(config.model_copy(update={"encoder": None}), folder)
    titles.fit(split, seed=4)
    assert not torch.equal(titles.scores(split.test), model.scores(split.test))
    with pytest.raises(InputError, match="the encoder's vectors, by which similar histories are found, must be made"):
        LLMCF(config, folder).fit(split)
    with pytest.raises(InputError, match="there is no model folder 'nowhere'"):
        config_with(encoder={"kind": "sentence-encoder", "path": "nowhere"}).check()


def test_a_killed_training_goes_on(split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, config = thoughts_of(split, tmp_path / "thoughts"), config_with(share=0.5)
    whole = LLMCF(config, folder)
    whole.fit(split, seed=4)
    validate, calls = NextItem.validate, []

    def dies(task: NextItem) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return validate(task)

    monkeypatch.setattr(NextItem, "validate", dies)
    with pytest.raises(KeyboardInterrupt):
        LLMCF(config, folder).fit(split, seed=4, workspace=tmp_path / "work")
    again = LLMCF(config, folder)
    again.fit(split, seed=4, workspace=tmp_path / "work")
    assert torch.equal(again.scores(split.test), whole.scores(split.test))


def test_standardised() -> None:
    vectors = torch.tensor([[1.0, 5, 2], [3.0, 5, 4]])
    assert standardised(vectors).tolist() == [[-1, 0, -1], [1, 0, 1]]


def test_refusals(split: Split, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be written first"):
        LLMCF(config_with()).fit(split)
    few = thoughts_of(split, tmp_path / "few", 8)
    with pytest.raises(
        InputError, match=r"4 thoughts of items where the item was chosen are too few for 5.*'thoughts.least'"
    ):
        LLMCF(config_with(examples=10), few).fit(split)
    with pytest.raises(ValueError, match="heads of an even size must divide dim 8, found 3 heads"):
        config_with(heads=3)
