"""Answering prompts in fixed chunks that survive a kill."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.progress import track

from tandemrec.llm.traffic import TRAFFIC
from tandemrec.training import from_first, gathered, process_count, process_rank, show_progress

Answers = list[tuple[list[int], float]]
"""Tokens and log-probability of the answers to one prompt."""


def answer_in_chunks(
    prompts: Sequence[list[int]],
    size: int,
    answer: Callable[[list[int]], list[Answers]],
    settings: object,
    workspace: Path | None,
) -> list[Answers]:
    """Answer prompts of similar length together; several processes share the chunks, and all get all answers.

    Args:
        prompts: token ids; chunks depend on them and `size` alone.
        size: prompts of a chunk.
        answer: answers to prompts, by their numbers.
        settings: whatever else the answers depend on, as JSON.
        workspace: keeps finished chunks in `completions-RANK.jsonl`; a second call with the same prompts and settings
            answers only the others.
    """
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), prompts[i], i))
    chunks = [order[start : start + size] for start in range(0, len(order), size)]
    done = _finished_chunks(workspace, [list(prompts), settings])
    left = [number for number in range(len(chunks)) if number not in done]
    mine: list[tuple[int, list[Answers]]] = []
    for number in track(
        left[process_rank() :: process_count()], "generating", transient=True, disable=not show_progress()
    ):
        mine.append((number, answer(chunks[number])))
        if workspace is not None:
            with _own_file(workspace).open("a", encoding="utf-8") as file:
                file.write(json.dumps(mine[-1]) + "\n")
    out: list[Answers] = [[] for _ in prompts]
    fresh = gathered(mine)
    for number, answers in fresh:
        written = sum(len(tokens) for row in answers for tokens, _ in row)
        TRAFFIC.count(sum(len(prompts[i]) for i in chunks[number]), written)
    for number, answers in [*done.items(), *fresh]:
        for i, row in zip(chunks[number], answers, strict=True):
            out[i] = row
    return out


def _finished_chunks(workspace: Path | None, asked: object) -> dict[int, list[Answers]]:
    """Answers of whole chunks, by number, of an earlier, killed call with the same prompts and settings."""
    if workspace is None:
        return {}
    workspace.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    # The first process reads for all: a second one might already see what the others write.
    done = from_first(_read(workspace, digest) if process_rank() == 0 else {})
    path = _own_file(workspace)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    same = bool(lines) and lines[0] == json.dumps(digest) + "\n"
    kept = [line for line in lines if line.endswith("\n")] if same else [json.dumps(digest) + "\n"]
    path.write_text("".join(kept), encoding="utf-8")
    return done


def _read(workspace: Path, digest: str) -> dict[int, list[Answers]]:
    done: dict[int, list[Answers]] = {}
    for path in sorted(workspace.glob("completions-*.jsonl")):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [json.loads(line) for line in lines if line.endswith("\n")]
        if whole and whole[0] == digest:
            done |= dict(whole[1:])
    return done


def _own_file(workspace: Path) -> Path:
    return workspace / f"completions-{process_rank()}.jsonl"
