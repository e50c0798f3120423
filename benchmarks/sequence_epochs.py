"""SASRec's claims: a training epoch against RecBole's, which repeats a history for every target, and RecTools'."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from claims import SEED, Bench, Claim, run_peer

from tandemrec.conventional.sequential.next_item import NextItem
from tandemrec.conventional.sequential.sasrec import SASRec, SASRecConfig
from tandemrec.data.split import Split
from tandemrec.evaluation.evaluate import validation_figures
from tandemrec.training import Task, TrainingConfig, train

LENGTH = 50
TARGETS_A_STEP = 2048


class TimedEpochs(Task[Any]):
    """Beside a task: notes when epochs begin, and validates nothing."""

    begun: list[tuple[float, float]]

    def begin_epoch(self, epoch: int, curve: Sequence[Mapping[str, float]], memory: dict[str, float]) -> None:
        """The time at which an epoch begins."""
        if epoch == 0:
            self.begun = []
        self.begun.append((time.perf_counter(), time.process_time()))

    def validate(self) -> dict[str, float]:
        """The time at which the last one ends."""
        self.begun.append((time.perf_counter(), time.process_time()))
        return {"none": 0.0}


class _Timed(TimedEpochs, NextItem):
    """Next items."""


def sasrec_epoch(bench: Bench) -> Claim:
    """SASRec with two blocks of 64 numbers and two heads, histories of 50 items, cross-entropy over all items, 2,048
    targets a step on average; every item but a user's first is a target once on both sides. `agree` is the largest
    difference between how often an item is a target.
    """
    split = bench.split
    config = SASRecConfig(max_length=LENGTH, chunks=True, heads=2, dropout=0.2)
    rows = NextItem(SASRec(config, "cpu"), SASRec(config, "cpu").make_module(split.n_items, SEED), config, split, SEED)
    per_row = int(rows.target_counts().sum()) / len(rows.rows)
    config = config.model_copy(update={"batch_size": round(TARGETS_A_STEP / per_row)})
    task = _task(config, split)
    train(task, TrainingConfig(epochs=3, clip_norm=None, validate_every=3), seed=SEED)
    ours, ours_cpu = np.diff(task.begun, axis=0).min(0).tolist()

    _write_in_order(bench)
    settings = {
        **{"hidden_size": config.dim, "inner_size": config.dim, "n_layers": config.blocks, "n_heads": config.heads},
        **{"hidden_dropout_prob": config.dropout, "attn_dropout_prob": config.dropout, "loss_type": "CE"},
        **{"MAX_ITEM_LIST_LENGTH": LENGTH, "train_neg_sample_args": None},
    }
    peer = {
        **{"what": "sequence-epoch", "folder": str(bench.folder), "model": "SASRec", "dim": config.dim},
        **{"batch_size": TARGETS_A_STEP, "learning_rate": config.training.learning_rate, "eval_batch_size": 4096},
        **{"settings": settings, "threads": bench.threads, "steps": 8, "warmup": 2, "repeats": 1},
    }
    facts = run_peer("RecBole", bench.recbole, bench.folder, peer)
    targets = np.concatenate([batch.targets for step in task.steps(0) for batch in step])
    mine = np.bincount(targets, minlength=split.n_items)
    theirs = np.load(bench.folder / "targets.npy")
    agree = float(np.abs(np.pad(theirs, (0, split.n_items - len(theirs))) - mine).max())
    facts |= {"ours_cpu_seconds": ours_cpu, "rows_a_step": config.batch_size, "targets": int(mine.sum())}
    return Claim("sasrec-epoch", ours, facts["seconds"], agree, target=30, facts=facts)


def rectools_sasrec(bench: Bench) -> Claim:
    """SASRec with two blocks of 64 numbers and one head, the latest 50 items of a user, cross-entropy over all items,
    128 users a step, learning rate .001, dropout .2; the quickest epoch counts. `agree` is how much lower our
    NDCG@10 on the validation part is at the end; below 0 it is higher.
    """
    split = bench.split
    config = SASRecConfig(max_length=LENGTH, dropout=0.2)
    task = _task(config, split)
    epochs = bench.rectools_epochs
    train(task, TrainingConfig(epochs=epochs, clip_norm=None, validate_every=epochs), seed=SEED)
    ours, ours_cpu = np.diff(task.begun, axis=0).min(0).tolist()
    task.module.eval()
    figures = validation_figures(task.model, split.valid)

    _write_in_order(bench)
    valid = pl.DataFrame({"user": split.valid.user, "item": split.valid.target.flat()})
    valid.write_csv(bench.folder / "valid.csv")
    peer = {
        **{"folder": str(bench.folder), "threads": bench.threads, "epochs": epochs, "seed": SEED},
        **{"length": LENGTH, "dim": config.dim, "blocks": config.blocks, "heads": config.heads},
        **{"dropout": config.dropout, "batch_size": config.batch_size, "learning_rate": config.training.learning_rate},
    }
    facts = run_peer("RecTools", bench.rectools, bench.folder, peer)
    facts |= {"ours_ndcg@10": figures["ndcg@10"], "ours_cpu_seconds": ours_cpu, "epochs": epochs}
    agree = facts["usual_ndcg@10"] - figures["ndcg@10"]
    data = f"{len(split.sequences):,} users, {split.n_items:,} items, {epochs} epoch{'s' * (epochs > 1)}"
    return Claim("rectools-sasrec", ours, facts["seconds"], agree, target=1.5, facts=facts, data=data)


def _task(config: SASRecConfig, split: Split) -> _Timed:
    model = SASRec(config, "cpu")
    model.module = model.make_module(split.n_items, SEED)
    return _Timed(model, model.module, config, split, SEED)


def _write_in_order(bench: Bench) -> None:
    """All interactions as RecBole's atomic file, their places in the user's history as timestamps, and the training
    ones alone as a table.
    """
    split, folder = bench.split, bench.folder
    sequences = split.sequences
    place = sequences.positions() - sequences.starts[sequences.rows()]
    parts = [(sequences.rows(), sequences.flat(), place)]
    for order, part in enumerate((split.valid, split.test)):
        parts.append((part.user, part.target.flat(), np.full(len(part), 10**6 + order)))
    frames = [
        pl.DataFrame({"user_id:token": user, "item_id:token": item, "timestamp:float": when.astype(np.float64)})
        for user, item, when in parts
    ]
    frames[0].rename({"user_id:token": "user", "item_id:token": "item", "timestamp:float": "time"}).write_csv(
        folder / "train.csv"
    )
    every = pl.concat([frame.cast({"user_id:token": pl.Int64, "item_id:token": pl.Int64}) for frame in frames])
    every.write_csv(folder / f"{folder.name}.inter", separator="\t")
