"""Conventional models on MovieLens-1M: a training epoch and a full evaluation, our way against the usual libraries.

    python benchmarks/conventional.py                                   # every claim
    python benchmarks/conventional.py mf-epoch full-sort --recbole E/bin/python
    python benchmarks/conventional.py --quick                           # small made-up data, nothing written

Both sides run on the same machine, data, threads, sizes and batches. A library runs in an environment of its own, whose
Python is named by `--recbole` or $TANDEMREC_PEER_RECBOLE (`--rectools`, $TANDEMREC_PEER_RECTOOLS) and whose packages
are in `peers/recbole.txt` (`peers/rectools.txt`). A slow library
is timed on the first batches of its epoch, and the figure scaled to all of them. `agree` is the largest difference
between the two sides' results: vectors after the same three steps from the same start, or metrics of the same vectors.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import sequence_epochs
import torch
from claims import HERE, SEED, Bench, Claim, PeerMissingError, run_peer
from sequence_epochs import TimedEpochs

from tandemrec.conventional.direct.interactions import Pairs
from tandemrec.conventional.direct.lightgcn import LightGCN, LightGCNConfig
from tandemrec.conventional.direct.mf import MF, MFConfig
from tandemrec.conventional.direct.pairwise import PairBatch, PairwiseModel, PairwiseTask, by_column
from tandemrec.data.dataset import Dataset
from tandemrec.data.filter import CleaningConfig, clean
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.sources import MovieLens
from tandemrec.data.split import Split, make_split
from tandemrec.evaluation.evaluate import EvaluationConfig, evaluate
from tandemrec.experiment.card import hardware, package_versions, peak_memory_mib
from tandemrec.training import TrainingConfig, train

RESULTS = HERE / "results" / "conventional.json"
SHOWN_STEPS = 3
"""Steps after which the two sides' vectors are compared: later, rounding has been amplified by Adam."""


# Training epochs


def mf_epoch(bench: Bench) -> Claim:
    """MF by BPR, 64 numbers a vector, 2,048 pairs a step."""
    return _pairwise_epoch(bench, "mf-epoch", MF(MFConfig(l2=0), "cpu"), "BPR", {}, peer_steps=None, epochs=4, target=2)


def lightgcn_epoch(bench: Bench) -> Claim:
    """LightGCN with three layers, 64 numbers a vector, 2,048 pairs a step."""
    model = LightGCN(LightGCNConfig(l2=0), "cpu")
    return _pairwise_epoch(
        bench, "lightgcn-epoch", model, "LightGCN", {"n_layers": 3}, peer_steps=40, epochs=1, target=3
    )


class _Timed(TimedEpochs, PairwiseTask):
    """Vectors of users and items."""


def _pairwise_epoch(
    bench: Bench,
    name: str,
    model: PairwiseModel,
    peer: str,
    settings: dict[str, Any],
    peer_steps: int | None,
    epochs: int,
    target: float,
) -> Claim:
    """An epoch of the training loop, start to start, against an epoch of RecBole's trainer; the quickest of several."""
    split, config = bench.split, model.config
    pairs = Pairs.of(split.sequences, split.n_items)
    module = model.module_class(config, pairs, torch.device("cpu"), SEED)
    start = module.table.detach().clone()
    batches = _triples(pairs, config.batch_size)
    np.savez(bench.folder / "vectors.npz", users=start[: pairs.n_users].numpy(), items=start[pairs.n_users :].numpy())
    np.savez(
        bench.folder / "triples.npz",
        user=np.stack([batch.user.numpy() for batch in batches]),
        positive=np.stack([batch.positive.numpy() - pairs.n_users for batch in batches]),
        negative=np.stack([batch.negative[:, 0].numpy() - pairs.n_users for batch in batches]),
    )
    after = _after_steps(module, batches, config.training.learning_rate)
    task = _Timed(model, module, split, pairs, SEED)
    more = {"steps": peer_steps, "warmup": 2 if bench.quick else 5, "repeats": epochs}
    facts = _recbole(bench, "epoch", peer, config, settings, more)
    train(task, TrainingConfig(epochs=epochs, clip_norm=None, validate_every=epochs), seed=SEED)
    ours, ours_cpu = np.diff(task.begun, axis=0).min(0).tolist()
    theirs = np.load(bench.folder / "peer.npz")
    agree = 0.0
    for found, part in ((theirs["users"], after[: pairs.n_users]), (theirs["items"], after[pairs.n_users :])):
        agree = max(agree, float(np.abs(found - part.numpy()[: len(found)]).max()))
    return Claim(name, ours, facts["seconds"], agree, target=target, facts=facts | {"ours_cpu_seconds": ours_cpu})


def _triples(pairs: Pairs, size: int) -> list[PairBatch]:
    rng = np.random.default_rng(SEED)
    batches = []
    for _ in range(SHOWN_STEPS):
        chosen = rng.choice(len(pairs), size)
        drawn = rng.integers(pairs.n_items, size=(size, 1)) + pairs.n_users
        arrays = (pairs.users[chosen], pairs.items[chosen] + pairs.n_users, drawn)
        user, positive, negative = (torch.from_numpy(array) for array in arrays)
        batches.append(PairBatch(user, positive, negative))
    return batches


def _after_steps(module: torch.nn.Module, batches: list[PairBatch], rate: float) -> torch.Tensor:
    """Final vectors after a few plain steps of Adam on the mean loss."""
    optimizer = torch.optim.Adam(module.parameters(), lr=rate)
    for batch in batches:
        optimizer.zero_grad()
        (module(batch) / len(batch)).backward()
        optimizer.step()
    with torch.no_grad():
        vectors: torch.Tensor = module.vectors().clone()  # type: ignore[operator]
    return vectors


# Evaluation


def full_sort(bench: Bench) -> Claim:
    """HR@10, NDCG@10 and MRR@10 of all test users over all items, seen items excluded, from given vectors.

    RecBole's `eval_batch_size` counts scores; its default of 4,096 is one user a batch here, so it is also given
    batches of 1,000 users, and its better time counts.
    """
    model = _given_vectors(bench.split, dim=64)
    np.savez(bench.folder / "vectors.npz", users=model.user_vectors.numpy(), items=model.item_vectors.numpy())  # type: ignore[union-attr]
    config = EvaluationConfig(cutoffs=(10,))
    seconds, runs = [], {}
    for users in (1, 1000):
        for _ in range(8):
            started = time.perf_counter(), time.process_time()
            judged = evaluate(model, bench.split, config)
            seconds.append((time.perf_counter() - started[0], time.process_time() - started[1]))
        more = {"repeats": 2 if users == 1 else 16, "eval_batch_size": users * (bench.split.n_items + 1)}
        runs[users] = _recbole(bench, "full-sort", "BPR", MFConfig(), {}, more)
    best = min(runs.values(), key=lambda run: float(run["seconds"]))
    ours = judged.metrics
    names = {"hit@10": "hr@10", "ndcg@10": "ndcg@10", "mrr@10": "mrr@10"}
    agree = max(abs(best["figures"][theirs] - ours[mine]["mean"]) for theirs, mine in names.items())
    facts = {
        "peer_seconds_by_users_a_batch": {users: run["seconds"] for users, run in runs.items()},
        "usual_cpu_seconds": best["usual_cpu_seconds"],
        "ours_cpu_seconds": min(cpu for _, cpu in seconds),
    }
    return Claim("full-sort", min(wall for wall, _ in seconds), best["seconds"], agree, target=3, facts=facts)


def full_sort_memory(bench: Bench) -> Claim:
    """Peak memory, in GiB, of a process that evaluates 100,000 users over 100,000 items, its data included.

    The usual way is the matrix of all scores in float32. `agree` is the largest difference between ranks and those of
    a plain comparison, over a thousand of the users.
    """
    size = 2_000 if bench.quick else 100_000
    command = [sys.executable, __file__, "--memory-child", str(size), "--threads", str(bench.threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    facts = json.loads(done.stdout.splitlines()[-1])
    matrix = size * size * 4 / 2**30
    data = f"made-up data, {size:,} users and items, eight interactions a user"
    return Claim("full-sort-memory", facts["peak_gib"], matrix, facts["agree"], "GiB", matrix / 4, facts, data)


def _memory_child(size: int) -> None:
    split = _made_up(size, size, 8)
    model = _given_vectors(split, dim=64)
    started = time.perf_counter()
    judged = evaluate(model, split, EvaluationConfig(cutoffs=(10,)))
    seconds = time.perf_counter() - started
    peak = peak_memory_mib() / 1024
    some = split.test.take(slice(0, 1000))
    scores = model.scores(some)
    for row, seen in enumerate(some.seen):
        scores[row, torch.from_numpy(seen.astype(np.int64))] = -torch.inf
    own = scores.gather(1, torch.from_numpy(some.target.flat().astype(np.int64))[:, None])
    rank = (scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2
    agree = float((torch.from_numpy(judged.per_example["rank"].to_numpy()[: len(rank)].copy()) - rank).abs().max())
    print(json.dumps({"peak_gib": peak, "seconds": seconds, "agree": agree, "users": size, "items": size}))


def _given_vectors(split: Split, dim: int) -> MF:
    """An MF model with vectors that make popular items score higher, so that metrics are not all zero."""
    generator = torch.Generator().manual_seed(SEED)
    model = MF(MFConfig(dim=dim), "cpu")
    model.known_U = torch.ones(len(split.sequences), dtype=torch.bool)
    model.user_vectors = torch.randn(len(split.sequences), dim, generator=generator) * 0.1
    model.item_vectors = torch.randn(split.n_items, dim, generator=generator) * 0.1
    model.user_vectors[:, 0] = 1
    model.item_vectors[:, 0] = torch.from_numpy(np.log1p(split.item_counts)).float()
    model.item_vectors = by_column(model.item_vectors)
    return model


# Data and peers


def _movielens() -> Split:
    """MovieLens-1M, the 3,416 items with five ratings or more, leave-one-out."""
    data, _ = clean(MovieLens(edition="ml-1m").load(), CleaningConfig(min_item_count=5))
    return make_split(data, LeaveOneOut())


def _made_up(users: int, items: int, length: int) -> Split:
    """Every item is met, a few much more often than the others."""
    rng = np.random.default_rng(SEED)
    popular = (items * rng.random((users, length - 1)) ** 3).astype(np.int64)
    item = np.concatenate([np.arange(users)[:, None] % items, popular], 1)
    frame = pl.DataFrame({"user_id": np.repeat(np.arange(users), length), "item_id": item.ravel()})
    return make_split(Dataset.from_frames(frame.unique(maintain_order=True).with_columns(timestamp=1)), LeaveOneOut())


def _recbole(
    bench: Bench, what: str, model: str, config: Any, settings: dict[str, Any], more: dict[str, Any]
) -> dict[str, Any]:
    folder = bench.folder
    parts = {
        "train": (bench.split.sequences.rows(), bench.split.sequences.flat()),
        "valid": (bench.split.valid.user, bench.split.valid.target.flat()),
        "test": (bench.split.test.user, bench.split.test.target.flat()),
    }
    for part, (users, items) in parts.items():
        frame = pl.DataFrame({"user_id:token": users, "item_id:token": items})
        frame.write_csv(folder / f"{folder.name}.{part}.inter", separator="\t")
    task = {
        "what": what,
        "folder": str(folder),
        "model": model,
        "dim": config.dim,
        "batch_size": config.batch_size,
        "learning_rate": config.training.learning_rate,
        "eval_batch_size": 4096,
        "settings": settings,
        "threads": bench.threads,
        **more,
    }
    return run_peer("RecBole", bench.recbole, folder, task)


CLAIMS: dict[str, Callable[[Bench], Claim]] = {
    "mf-epoch": mf_epoch,
    "lightgcn-epoch": lightgcn_epoch,
    "sasrec-epoch": sequence_epochs.sasrec_epoch,
    "rectools-sasrec": sequence_epochs.rectools_sasrec,
    "full-sort": full_sort,
    "full-sort-memory": full_sort_memory,
}
"""Claim → what measures it."""


def write(claim: Claim, words: str, bench: Bench) -> None:
    """Put a claim into `results/conventional.json`, beside the others."""
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    split = bench.split
    found[claim.name] = {
        "words": " ".join(words.split()),
        "ratio": claim.ratio,
        "target": claim.target,
        "ours": claim.ours,
        "usual": claim.usual,
        "unit": claim.unit,
        "agree": claim.agree,
        "threads": bench.threads,
        "data": claim.data
        or f"{len(split.sequences):,} users, {split.n_items:,} items, {split.item_counts.sum():,} training pairs",
        "facts": dict(claim.facts),
        "hardware": hardware(),
        "packages": package_versions(("torch", "numpy", "scipy")),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(dict(sorted(found.items())), indent=1, ensure_ascii=False) + "\n")


def main() -> None:
    """Measure the claims one after another; each is printed, and written, as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help=", ".join(CLAIMS))
    parser.add_argument("--quick", action="store_true", help="small made-up data; nothing is written")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of both sides")
    parser.add_argument("--recbole", type=Path, default=os.environ.get("TANDEMREC_PEER_RECBOLE"))
    parser.add_argument("--rectools", type=Path, default=os.environ.get("TANDEMREC_PEER_RECTOOLS"))
    parser.add_argument("--rectools-epochs", type=int, default=5, help="after so many NDCG is compared")
    parser.add_argument("--memory-child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory_child:
        _memory_child(arguments.memory_child)
        return
    unknown = set(arguments.claims) - CLAIMS.keys()
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(CLAIMS)}")
    split = _made_up(1_500, 600, 20) if arguments.quick else _movielens()
    with tempfile.TemporaryDirectory() as folder:
        peers = (Path(path).absolute() if path else None for path in (arguments.recbole, arguments.rectools))
        epochs = 1 if arguments.quick else arguments.rectools_epochs
        bench = Bench(split, Path(folder), arguments.quick, arguments.threads, *peers, epochs)
        missing: dict[str, list[str]] = {}
        for name in arguments.claims or CLAIMS:
            try:
                claim = CLAIMS[name](bench)
            except PeerMissingError as error:
                missing[str(error)] = [*missing.get(str(error), []), name]
                continue
            print(claim.line(), flush=True)
            if not arguments.quick:
                write(claim, CLAIMS[name].__doc__ or "", bench)
    if missing:
        sys.exit("\n".join(f"not measured: {', '.join(names)}: {sentence}" for sentence, names in missing.items()))


if __name__ == "__main__":
    main()
