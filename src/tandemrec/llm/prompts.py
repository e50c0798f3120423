"""The one prompt function: training and inference read byte-identical prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from tandemrec.data.examples import Examples
from tandemrec.errors import InputError
from tandemrec.llm.model import LanguageModel
from tandemrec.recommender import Config

PromptForm = Literal["whole", "slots"]
"""Tokenised as one text, or title by title with a slot for the item's vector behind each.

A slot of item i is the token −1−i. It cannot be written into the text: no tokenizer would leave a marker whole.
"""


class PromptConfig(Config):
    """How a history becomes a question."""

    template: Literal["alpaca", "compact"] = "alpaca"
    """`alpaca`: the instruction block of BIGRec and SOFT; `compact`: one line, for small models and short contexts."""

    noun: str = "items"
    """What the catalogue holds, in the plural: video games, films, books."""

    singular: str = "item"
    """One of them."""

    verb: str = "met"
    """What users did with them, as a participle: played, watched, read."""

    history: int = Field(10, ge=1)
    """Latest titles that are shown."""

    max_tokens: int | None = Field(None, ge=16)
    """Most tokens of a prompt; the oldest titles are left out until it fits. Null: what the model's context leaves."""


def prompt_text(titles: Sequence[str], config: PromptConfig) -> str:
    """The question for a history of titles, oldest first."""
    return "".join(prompt_pieces(titles, config))


def prompt_pieces(titles: Sequence[str], config: PromptConfig) -> list[str]:
    """The question cut behind every title: one piece more than there are titles."""
    head, tail = f"{config.verb}: ", "\nnext:"
    if config.template == "alpaca":
        head = (
            "Below is an instruction that describes a task, paired with an input that provides further context. "
            "Write a response that appropriately completes the request.\n\n"
            f"### Instruction:\nGiven a list of {config.noun} the user has {config.verb} before, please recommend a "
            f"new {config.singular} that the user likes to the user.\n\n"
            f"### Input:\nThe user has {config.verb} the following {config.noun} before: "
        )
        tail = "\n\n### Response:\n"
    listed = [f'{", " if place else head}"{title}"' for place, title in enumerate(titles)]
    return [*listed, tail if titles else head + tail]


def answer_text(title: str, config: PromptConfig) -> str:
    """The answer that is learned."""
    return f' "{title}"' if config.template == "compact" else f'"{title}"'


def read_answer(text: str) -> str:
    """The title in a generated answer: quotes around it and the amount of white space do not belong to it."""
    return " ".join(text.strip().strip('"').split())


def prompt_tokens(
    lm: LanguageModel,
    examples: Examples,
    titles: Sequence[str],
    config: PromptConfig,
    reserve: int,
    form: PromptForm = "whole",
) -> list[list[int]]:
    """Token ids of the prompts, BOS included; see `fitting_prompts`."""
    return fitting_prompts(lm, examples, titles, config, reserve, form)[0]


def fitting_prompts(
    lm: LanguageModel,
    examples: Examples,
    titles: Sequence[str],
    config: PromptConfig,
    reserve: int,
    form: PromptForm = "whole",
) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of the prompts, BOS included, and the items that each of them shows.

    Args:
        lm: whose tokenizer and context count.
        examples: B questions.
        titles: of all items.
        config: the template.
        reserve: tokens kept free for the answer.
        form: how text becomes tokens.

    Raises:
        InputError: if not even a prompt without any title fits.
    """
    budget = min(config.max_tokens or lm.context, lm.context - reserve)
    shown = [row.tolist() for row in examples.history.tail(config.history)]
    tokens: list[list[int]] = [[] for _ in shown]
    pending = list(range(len(shown)))
    while pending:
        drafts = _drafts(lm, [shown[i] for i in pending], titles, config, form)
        too_long = []
        for i, draft in zip(pending, drafts, strict=True):
            tokens[i] = lm.bos + draft
            if len(tokens[i]) > budget:
                if not shown[i]:
                    raise InputError(
                        f"key 'prompt': the template alone has {len(tokens[i])} tokens, but {budget} fit; "
                        "use the template 'compact' or a model with a longer context"
                    )
                shown[i] = shown[i][1:]
                too_long.append(i)
        pending = too_long
    return tokens, shown


def _drafts(
    lm: LanguageModel, shown: Sequence[Sequence[int]], titles: Sequence[str], config: PromptConfig, form: PromptForm
) -> list[list[int]]:
    texts = [[titles[item] for item in row] for row in shown]
    if form == "whole":
        return lm.tokenize([prompt_text(row, config) for row in texts])
    cut = [prompt_pieces(row, config) for row in texts]
    pieces = dict.fromkeys(piece for row in cut for piece in row)
    tokens_of = dict(zip(pieces, lm.tokenize(list(pieces)), strict=True))
    drafts = []
    for items, row in zip(shown, cut, strict=True):
        slots = [*([-1 - item] for item in items), []]
        drafts.append([token for piece, slot in zip(row, slots, strict=True) for token in tokens_of[piece] + slot])
    return drafts


def answer_tokens(lm: LanguageModel, titles: Sequence[str], config: PromptConfig) -> list[list[int]]:
    """Token ids of the answers, EOS included.

    Prompts and answers are tokenised apart and joined as ids, in training and in generation alike, so no tokenizer can
    merge the end of one with the start of the other.
    """
    return [[*ids, lm.eos] for ids in lm.tokenize([answer_text(title, config) for title in titles])]
