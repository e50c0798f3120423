"""Chains of thought about training examples, written by a language model: LLM-CF's in-context examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor

from tandemrec.augmentation.thought_scores import DECISIONS, PARTS, SHORTEST, Encode, score_thoughts
from tandemrec.conventional.negatives import NegativeSampler
from tandemrec.data.examples import IntArray, ItemArray, Ragged
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.llm.chat import Chat, ChatConfig
from tandemrec.llm.generate import SamplingConfig, sample
from tandemrec.llm.grounding import title_vectors
from tandemrec.llm.model import LanguageModel
from tandemrec.recommender import Config, FloatArray

THOUGHTS, VECTORS = "thoughts.parquet", "thoughts.safetensors"

Write = Callable[[Sequence[str]], list[list[str]]]
"""Prompts → some answers to each."""


class ThoughtsConfig(Config):
    """What is asked, and what is kept. The authors ask about a tenth of the training rows."""

    questions: int = Field(1000, ge=8)
    """Training examples that are thought about, drawn at random (all of fewer): in half of them the user chose the
    item, in the others it is one that the user never met."""

    history: int = Field(10, ge=1)
    """Most titles of a question; fewer where they do not fit into the model's context."""

    noun: str = Field("item", min_length=1)
    """What an item is called: film, toy."""

    verb: str = Field("chosen", min_length=1)
    """What the user has done with items: watched, bought."""

    samples: int = Field(3, ge=1, le=16)
    """Thoughts that are drawn for each question; the best scored one is kept. A chat endpoint is asked as often."""

    temperature: float = Field(0.6, gt=0)
    """Of the drawn thoughts, those of a chat endpoint too."""

    max_new_tokens: int = Field(256, ge=1)
    """Most tokens of a thought; of a language model's at most half of its context. Scores and vectors are made from as
    much of a thought as the language model `lm` has room for."""

    batch_size: int = Field(64, ge=1)
    """Questions that a language model answers together; of a chat endpoint `chat.parallel` are open at once."""

    least: float = Field(0.0, ge=0, le=1)
    """Score below which a question's best thought is left out; texts of fewer than ten characters always are."""

    def asked_of(self, chat: ChatConfig) -> ChatConfig:
        """The endpoint, asked with the temperature and the length of thoughts."""
        return chat.model_copy(update={"temperature": self.temperature, "max_tokens": self.max_new_tokens})


@dataclass(frozen=True)
class Questions:
    """N training examples with an item that the user chose, or one in its place.

    Attributes:
        user: (N,) whose examples they are.
        seen: (N,) how many items the user had met.
        history: what the user had met, as far as the split shows it.
        item: (N,) the item in question.
        label: (N,) 1 where the user chose it.
    """

    user: IntArray
    seen: IntArray
    history: Ragged
    item: ItemArray
    label: IntArray

    def __len__(self) -> int:
        return len(self.user)


def draw_questions(split: Split, count: int, seed: int) -> Questions:
    """Half of the drawn training examples with their (first) target, half with an item of none of the user's histories.

    Raises:
        InputError: if there are fewer than eight training examples.
    """
    rng = np.random.default_rng(seed)
    known = np.flatnonzero((split.train.target.lengths > 0) & (split.train.history.lengths > 0))
    if len(known) < 8:
        raise InputError(f"{split.dataset.name}: chains of thought need eight training examples, found {len(known)}")
    asked = split.train.take(rng.permutation(known)[:count])
    label = np.arange(len(asked), dtype=np.int64) % 2
    user = asked.user.astype(np.int64)
    other = NegativeSampler(split.sequences, split.n_items).draw(user, rng)
    chosen = asked.target.values[asked.target.starts]
    item = np.where(label == 1, chosen, other).astype(np.int32)
    return Questions(user, asked.seen.lengths, asked.history, item, label)


def write_thoughts(
    split: Split, config: ThoughtsConfig, write: Write, encode: Encode, seed: int
) -> tuple[pl.DataFrame, dict[str, Tensor]]:
    """Ask about training examples, score what is written and keep the best; valid and test parts are not looked at.

    Args:
        split: the data.
        config: what is asked.
        write: gives the thoughts.
        encode: gives the vectors of texts.
        seed: of the drawn examples and items.

    Returns:
        A row a kept thought: `user`, `seen`, `history` (list of items), `item`, `label`, `text`, `score` and its parts,
        `written` (all texts that were drawn); and `thoughts` (M, Z) and `titles` (I, Z), vectors of the kept ones and
        of all titles.

    Raises:
        InputError: if there are fewer than eight training examples, or too few thoughts are usable for one in-context
            example of either label.
    """
    asked = draw_questions(split, config.questions, seed)
    titles = split.dataset.titles
    about = [
        about_text([titles[i] for i in row], titles[item], config)
        for row, item in zip(asked.history.tail(config.history), asked.item, strict=True)
    ]
    labels: list[int] = asked.label.tolist()
    written = write([prompt_text(text, label, config) for text, label in zip(about, labels, strict=True)])
    counts = np.array([len(several) for several in written])
    of = np.repeat(np.arange(len(asked)), counts)
    texts = [text.strip() for several in written for text in several]
    scored, vectors = score_thoughts(texts, [about[i] for i in of], [labels[i] for i in of], encode)
    best = _best(scored["score"].to_numpy(), of)
    kept = best[(scored["score"].to_numpy()[best] > 0) & (scored["score"].to_numpy()[best] >= config.least)]
    row = of[kept]
    if min(sure_examples(asked.user[row], asked.label[row])) < 1:
        long = sum(len(texts[i]) >= SHORTEST for i in best)
        raise InputError(
            f"of the best answers to {len(asked):,} questions {len(asked) - long:,} have fewer than {SHORTEST} "
            f"characters and {long - len(kept):,} score below 'thoughts.least' ({config.least:g}); the {len(kept):,} "
            "others are too few to show examples of both decisions; let a language model answer that explains more, "
            "lower 'thoughts.least' or raise 'thoughts.questions'"
        )
    frame = pl.DataFrame(
        {
            "user": asked.user[row],
            "seen": asked.seen[row],
            "history": pl.Series([asked.history[i].tolist() for i in row], dtype=pl.List(pl.Int32)),
            "item": asked.item[row],
            "label": asked.label[row],
            "text": [texts[i] for i in kept],
            "written": pl.Series([written[i] for i in row], dtype=pl.List(pl.String)),
        }
    ).hstack(scored[kept.tolist()].select("score", *PARTS))
    return frame, {"thoughts": torch.from_numpy(vectors[kept]), "titles": title_vectors(titles, encode).float().cpu()}


def sure_examples(user_M: IntArray, label_M: IntArray) -> tuple[int, int]:
    """Examples of label 0, and of label 1, that are left to a user who may see none of their own, whoever asks."""
    users = [user_M[label_M == label] for label in (0, 1)]
    against, chosen = (len(some) - int(np.bincount(some).max(initial=0)) for some in users)
    return against, chosen


def think(
    split: Split,
    config: ThoughtsConfig,
    lm: LanguageModel,
    chat: ChatConfig | None,
    folder: Path,
    *,
    seed: int,
    workspace: Path | None = None,
) -> pl.DataFrame:
    """`write_thoughts` into a folder.

    Args:
        split: the data.
        config: what is asked.
        lm: writes the thoughts, unless a chat endpoint does, and encodes them, whoever wrote them: for scores too.
        chat: the endpoint.
        folder: where `thoughts.parquet` and `thoughts.safetensors` go.
        seed: of everything that is drawn.
        workspace: keeps what was written, so that a killed call goes on.
    """
    write = by_language_model(lm, config, seed, workspace) if chat is None else by_chat(chat, config)
    frame, vectors = write_thoughts(split, config, write, lm.encode, seed)
    frame.write_parquet(folder / THOUGHTS)
    save_file({name: value.contiguous() for name, value in vectors.items()}, folder / VECTORS)
    return frame


def about_text(history: Sequence[str], item: str, config: ThoughtsConfig) -> str:
    """History, oldest first, and the item in question."""
    listed = "; ".join(history)
    return f"Items that the user has {config.verb}, oldest first: {listed}.\nNew {config.noun}: {item}."


def prompt_text(about: str, label: int, config: ThoughtsConfig) -> str:
    """The question with the user's true decision, which the thought is to explain."""
    return (
        f"{about}\n{DECISIONS[label]}\n"
        f"Explain this decision step by step: sum up the user's profile, describe the new {config.noun}, weigh how "
        "well they agree, and consider the user's wish for diversity.\nExplanation:"
    )


def by_chat(chat: ChatConfig, config: ThoughtsConfig) -> Write:
    """A chat endpoint, asked for several answers to each prompt."""
    client = Chat(config.asked_of(chat))
    return lambda prompts: client.draw(prompts, config.samples)


def by_language_model(lm: LanguageModel, config: ThoughtsConfig, seed: int, workspace: Path | None) -> Write:
    """Sampling from a language model. What does not fit into its context is cut from the front: the oldest titles."""
    limit = max(1, min(config.max_new_tokens, lm.context // 2))
    settings = SamplingConfig(samples=config.samples, temperature=config.temperature, batch_size=config.batch_size)

    def write(prompts: Sequence[str]) -> list[list[str]]:
        room = lm.context - limit - len(lm.bos)
        rows = [lm.bos + ids[-room:] for ids in lm.tokenize(prompts)]
        drawn = sample(lm, rows, settings, limit, seed=seed, workspace=workspace)
        return [[beam.text for beam in several] for several in drawn]

    return write


def thoughts_summary(frame: pl.DataFrame) -> dict[str, Any]:
    """How many were kept, of which label, their mean score and its parts, and the best one."""
    means = {name: frame[name].mean() for name in ("score", *PARTS)}
    best = frame.sort("score", descending=True)["text"].head(1).to_list()
    return {"thoughts": frame.height, "chosen": int(frame["label"].sum()), **means, "best": best}


def _best(score_N: FloatArray, of_N: IntArray) -> IntArray:
    """The best scored text of every question, of equal ones the first."""
    order = np.lexsort((-score_N, of_N))
    first = np.append(True, np.diff(of_N[order]) != 0)[: len(order)]
    best: IntArray = order[first]
    return best
