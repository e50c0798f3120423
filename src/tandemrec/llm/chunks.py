"""Answering prompts in fixed chunks that survive a kill."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.progress import track

from tandemrec.training import show_progress

Answers = list[tuple[list[int], float]]
"""Tokens and log-probability of the answers to one prompt."""


def answer_in_chunks(
    prompts: Sequence[list[int]],
    size: int,
    answer: Callable[[list[int]], list[Answers]],
    settings: object,
    workspace: Path | None,
) -> list[Answers]:
    """Answer prompts of similar length together.

    Args:
        prompts: token ids; chunks depend on them and `size` alone.
        size: prompts of a chunk.
        answer: answers to prompts, by their numbers.
        settings: whatever else the answers depend on, as JSON.
        workspace: keeps finished chunks in `completions.jsonl`; a second call with the same prompts and settings
            continues behind the last whole one.
    """
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), prompts[i], i))
    chunks = [order[start : start + size] for start in range(0, len(order), size)]
    done = _finished_chunks(workspace, [list(prompts), settings])
    out: list[Answers] = [[] for _ in prompts]
    for chunk, answers in zip(chunks, done, strict=False):
        for i, row in zip(chunk, answers, strict=True):
            out[i] = row
    for chunk in track(chunks[len(done) :], "generating", transient=True, disable=not show_progress()):
        answers = answer(chunk)
        for i, row in zip(chunk, answers, strict=True):
            out[i] = row
        if workspace is not None:
            with (workspace / "completions.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(answers) + "\n")
    return out


def _finished_chunks(workspace: Path | None, asked: object) -> list[list[Answers]]:
    """Answers of whole chunks of an earlier, killed call with the same prompts and settings."""
    if workspace is None:
        return []
    workspace.mkdir(parents=True, exist_ok=True)
    path = workspace / "completions.jsonl"
    digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith("\n")]
    if not whole or json.loads(whole[0]) != digest:
        path.write_text(json.dumps(digest) + "\n", encoding="utf-8")
        return []
    path.write_text("".join(whole), encoding="utf-8")
    return [json.loads(line) for line in whole[1:]]
