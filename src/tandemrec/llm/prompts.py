"""The one prompt function: training and inference read byte-identical prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from tandemrec.data.examples import Examples
from tandemrec.errors import InputError
from tandemrec.llm.model import LanguageModel
from tandemrec.recommender import Config


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
    listed = ", ".join(f'"{title}"' for title in titles)
    if config.template == "compact":
        return f"{config.verb}: {listed}\nnext:"
    return (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        f"### Instruction:\nGiven a list of {config.noun} the user has {config.verb} before, please recommend a new "
        f"{config.singular} that the user likes to the user.\n\n"
        f"### Input:\nThe user has {config.verb} the following {config.noun} before: {listed}\n\n"
        "### Response:\n"
    )


def answer_text(title: str, config: PromptConfig) -> str:
    """The answer that is learned."""
    return f' "{title}"' if config.template == "compact" else f'"{title}"'


def read_answer(text: str) -> str:
    """The title in a generated answer: quotes around it and the amount of white space do not belong to it."""
    return " ".join(text.strip().strip('"').split())


def prompt_tokens(
    lm: LanguageModel, examples: Examples, titles: Sequence[str], config: PromptConfig, reserve: int
) -> list[list[int]]:
    """Token ids of the prompts, BOS included.

    Args:
        lm: whose tokenizer and context count.
        examples: B questions.
        titles: of all items.
        config: the template.
        reserve: tokens kept free for the answer.

    Raises:
        InputError: if not even a prompt without any title fits.
    """
    budget = min(config.max_tokens or lm.context, lm.context - reserve)
    shown = [[titles[item] for item in row] for row in examples.history.tail(config.history)]
    tokens: list[list[int]] = [[] for _ in shown]
    pending = list(range(len(shown)))
    while pending:
        drafts = lm.tokenize([prompt_text(shown[i], config) for i in pending])
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
    return tokens


def answer_tokens(lm: LanguageModel, titles: Sequence[str], config: PromptConfig) -> list[list[int]]:
    """Token ids of the answers, EOS included.

    Prompts and answers are tokenised apart and joined as ids, in training and in generation alike, so no tokenizer can
    merge the end of one with the start of the other.
    """
    return [[*ids, lm.eos] for ids in lm.tokenize([answer_text(title, config) for title in titles])]
