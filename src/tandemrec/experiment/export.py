"""`tandem export`: what a system learned from, as text for other trainers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tandemrec.data.examples import Examples
from tandemrec.errors import InputError
from tandemrec.experiment.run import Run
from tandemrec.experiment.stages import ANSWERS
from tandemrec.llm.prompts import answer_text
from tandemrec.llm.recommenders.lessons import SDPOConfig, SOFTConfig, draw_negatives
from tandemrec.llm.recommenders.writer import TitleWriter, first_targets

Row = dict[str, str]


def export_training_set(run: Run, system: str, to: Path) -> dict[str, int]:
    """Write `train.jsonl`, `valid.jsonl` and `dataset_info.json` into the folder `to`.

    Rows are `prompt`, `completion`: the real answer, or the teacher's where the system learned those; or, for a system
    that learned preferences, `prompt`, `chosen`, `rejected`, one row a negative. TRL reads the files as they are,
    LLaMA-Factory through `dataset_info.json`.

    Returns:
        Number of rows of each part.

    Raises:
        InputError: if the system writes no titles or its prompts are no text, or `to` exists.
    """
    if to.exists():
        raise InputError(f"{to} exists already; nothing was written")
    writer = run.model(system)
    run = run.trainer(system)
    if not isinstance(writer, TitleWriter):
        raise InputError(f"'{system}' learns from no prompts; systems that do write titles, such as BIGRec")
    split, objective = run.lesson(system), writer.config.objective
    train, target = first_targets(split.train)
    if isinstance(objective, SDPOConfig):
        negatives = draw_negatives(train, split.n_items, objective.negatives, run.recipe.fit_seed(system))
        rows: Iterable[Row] = _preferences(writer, train, target.tolist(), negatives.tolist())
    elif isinstance(objective, SOFTConfig):
        answers = pl.read_parquet(run.artifact(f"distil:{system}").path / ANSWERS)["answer"].to_list()
        each = np.arange(len(train)).repeat(len(answers) // len(train))
        rows = _completions(writer, train.take(each), answers)
    else:
        rows = _completions(writer, train, [writer.titles[item] for item in target])
    valid, wanted = first_targets(split.valid)
    parts = {"train": list(rows), "valid": list(_completions(writer, valid, [writer.titles[i] for i in wanted]))}
    draft = to.with_name(to.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for part, lines in parts.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines)
        (draft / f"{part}.jsonl").write_text(text, encoding="utf-8")
    info = {part: _info(part, lines) for part, lines in parts.items()}
    (draft / "dataset_info.json").write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
    draft.rename(to)
    return {part: len(lines) for part, lines in parts.items()}


def _completions(writer: TitleWriter, examples: Examples, titles: Iterable[str]) -> Iterator[Row]:
    for prompt, title in zip(writer.prompt_texts(examples), titles, strict=True):
        yield {"prompt": prompt, "completion": answer_text(title, writer.config.prompt)}


def _preferences(
    writer: TitleWriter, examples: Examples, targets: Iterable[int], negatives: Iterable[list[int]]
) -> Iterator[Row]:
    def answer(item: int) -> str:
        return answer_text(writer.titles[item], writer.config.prompt)

    for prompt, target, others in zip(writer.prompt_texts(examples), targets, negatives, strict=True):
        for other in others:
            yield {"prompt": prompt, "chosen": answer(target), "rejected": answer(other)}


def _info(part: str, rows: list[Row]) -> dict[str, Any]:
    """What LLaMA-Factory wants to know about a file."""
    ranking = bool(rows) and "chosen" in rows[0]
    columns = {"prompt": "prompt"} | (
        {"chosen": "chosen", "rejected": "rejected"} if ranking else {"response": "completion"}
    )
    return {"file_name": f"{part}.jsonl", "columns": columns} | ({"ranking": True} if ranking else {})
