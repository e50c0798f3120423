"""Self-distillation: what a fine-tuned model itself answers to its training prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import Examples
from tandemrec.data.kinds import item_kinds
from tandemrec.llm.prompts import read_answer
from tandemrec.llm.recommenders.lessons import DistilConfig
from tandemrec.llm.recommenders.writer import TitleWriter, first_targets


def distil(
    teacher: TitleWriter,
    examples: Examples,
    dataset: Dataset,
    config: DistilConfig,
    *,
    seed: int = 0,
    workspace: Path | None = None,
) -> pl.DataFrame:
    """The teacher's answers to every training prompt that has a target, in the order of the examples.

    One row an example with its best beam, or K rows with as many answers drawn from `seed`.

    Returns:
        user, target (item), written (by the teacher), answer (what is learned: the title as it was written, or the
        nearest one), nearest (item), exact (a title of the catalogue), hit (the target), hit_kind (nearest item and
        target share a kind; null where kinds are unknown).

    Raises:
        InputError: if the items lack the column of kinds that the config names.
    """
    kinds = item_kinds(dataset.items, config.kind, "distil.kind")
    examples, target = first_targets(examples)
    if config.sampling is None:
        written = teacher.complete(examples, workspace=workspace)
    else:
        rows = np.arange(len(examples)).repeat(config.sampling.samples)
        drawn = teacher.sampled(examples, config.sampling, seed, workspace)
        examples, target, written = examples.take(rows), target[rows], [text for several in drawn for text in several]
    nearest = teacher.grounding.nearest(written)
    titles = dataset.titles
    return pl.DataFrame(
        {
            "user": examples.user,
            "target": target,
            "written": written,
            "answer": [
                titles[item] if config.ground else read_answer(text)
                for item, text in zip(nearest, written, strict=True)
            ],
            "nearest": np.asarray(nearest, np.int32),
            "exact": [teacher.is_title(text) for text in written],
            "hit": [read_answer(text) == read_answer(titles[item]) for text, item in zip(written, target, strict=True)],
            "hit_kind": [
                None if kinds is None else bool(kinds[a] & kinds[b]) for a, b in zip(nearest, target, strict=True)
            ],
        },
        schema_overrides={"hit_kind": pl.Boolean},
    )


def distil_summary(frame: pl.DataFrame) -> dict[str, Any]:
    """Number of answers, how many differ, and the shares of exact titles, of hits and of hits of the right kind."""
    shares = {f"{name}_share": frame[name].cast(pl.Float64).mean() for name in ("exact", "hit", "hit_kind")}
    return {"answers": frame.height, "distinct": frame["answer"].n_unique(), **shares}
