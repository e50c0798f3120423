"""What asking a chat endpoint takes: tokens, requests and fees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tandemrec.llm.chat import ChatConfig
from tandemrec.work import Work

CHARACTERS = 4
"""Characters of a token of a chat endpoint's model, whose tokenizer is not at hand."""


def chat_work(config: ChatConfig, prompts: Sequence[str], answers: Sequence[str] | None, count: float) -> Work:
    """So many questions to a chat endpoint.

    Args:
        config: of the endpoint.
        prompts: texts of some of them.
        answers: what answers are like; None: as long as they may be.
        count: how many are asked.
    """
    read = float(np.mean([len(prompt) for prompt in prompts])) / CHARACTERS
    written = float(config.max_tokens)
    if answers is not None:
        written = min(written, max(1.0, float(np.mean([len(answer) for answer in answers])) / CHARACTERS))
    return count * Work(
        read=read,
        written=written,
        requests=1,
        paced=0.0 if config.per_minute is None else 60 / config.per_minute,
        unpaced=config.per_minute is None,
        fees=(read * config.input_price + written * config.output_price) / 1e6,
    )
