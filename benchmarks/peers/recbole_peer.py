"""RecBole's side of `benchmarks/conventional.py`; run by the Python of RecBole's environment, not by ours.

python recbole_peer.py TASK.json    # prints one JSON object as its last line

The task names a folder with RecBole's atomic files and arrays; user and item numbers are ours, and are translated.
"""

import json
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

GIVEN_PARTS = {
    "benchmark_filename": ["train", "valid", "test"],
    "load_col": {"inter": ["user_id", "item_id"]},
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "RO", "group_by": "user", "mode": "full"},
}
IN_ORDER = {
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
}


def prepared(task: dict[str, Any], parts: dict[str, Any]) -> tuple[Config, Any, Any, Any, Any]:
    """Config, dataset, training and test loaders, and the model."""
    settings = {
        "data_path": str(Path(task["folder"]).parent),
        **parts,
        "embedding_size": task["dim"],
        "train_batch_size": task["batch_size"],
        "eval_batch_size": task["eval_batch_size"],
        "metrics": ["Hit", "NDCG", "MRR"],
        "topk": [10],
        "metric_decimal_place": 12,
        "learning_rate": task["learning_rate"],
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
        "checkpoint_dir": task["folder"],
        "reg_weight": 0.0,
        **task["settings"],
    }
    name = Path(task["folder"]).name
    config = Config(model=task["model"], dataset=name, config_dict=settings)
    init_seed(0, False)
    dataset = create_dataset(config)
    train, _, test = data_preparation(config, dataset)
    return config, dataset, train, test, get_model(task["model"])(config, train.dataset)


def places(dataset: Any, field: str) -> torch.Tensor:
    """RecBole's number of each of our numbers."""
    ours = dataset.id2token(field, np.arange(1, dataset.num(field))).astype(np.int64)
    out = torch.zeros(int(ours.max()) + 1, dtype=torch.int64)
    out[torch.from_numpy(ours)] = torch.arange(1, dataset.num(field))
    return out


def put(model: Any, dataset: Any, folder: Path, users: torch.Tensor, items: torch.Tensor) -> None:
    """Our starting vectors into RecBole's tables; row 0 is padding."""
    given = np.load(folder / "vectors.npz")
    with torch.no_grad():
        for table, place, name in ((model.user_embedding, users, "users"), (model.item_embedding, items, "items")):
            table.weight.zero_()
            rows = torch.from_numpy(given[name])[: len(place)]
            table.weight[place[place > 0]] = rows[place > 0]


def epoch(task: dict[str, Any]) -> dict[str, Any]:
    """Seconds of a training epoch, or of a slice of it, scaled; and the vectors after given steps."""
    folder = Path(task["folder"])
    config, dataset, train, _, model = prepared(task, GIVEN_PARTS)
    trainer = get_trainer(config["MODEL_TYPE"], task["model"])(config, model)
    users, items = places(dataset, "user_id"), places(dataset, "item_id")
    put(model, dataset, folder, users, items)
    given = np.load(folder / "triples.npz")
    for user, positive, negative in zip(given["user"], given["positive"], given["negative"], strict=True):
        batch = {
            "user_id": users[torch.from_numpy(user)],
            "item_id": items[torch.from_numpy(positive)],
            "neg_item_id": items[torch.from_numpy(negative)],
        }
        trainer.optimizer.zero_grad()
        model.calculate_loss(batch).backward()
        trainer.optimizer.step()
    with torch.no_grad():
        if task["model"] == "BPR":
            user_vectors, item_vectors = model.user_embedding.weight, model.item_embedding.weight
        else:
            user_vectors, item_vectors = model.forward()
    np.savez(folder / "peer.npz", users=user_vectors[users].detach(), items=item_vectors[items].detach())

    return timed_epoch(task, trainer, train)


def sequence_epoch(task: dict[str, Any]) -> dict[str, Any]:
    """Seconds of a training epoch of a sequence model, or of a slice of it, scaled; and how often each item is a
    target.
    """
    config, dataset, train, _, model = prepared(task, IN_ORDER)
    trainer = get_trainer(config["MODEL_TYPE"], task["model"])(config, model)
    ours = torch.from_numpy(dataset.id2token("item_id", np.arange(1, dataset.num("item_id"))).astype(np.int64))
    counts = torch.bincount(train.dataset.inter_feat["item_id"], minlength=dataset.num("item_id"))
    targets = torch.zeros(int(ours.max()) + 1, dtype=torch.int64)
    targets[ours] = counts[1:]
    np.save(Path(task["folder"]) / "targets.npy", targets.numpy())
    return timed_epoch(task, trainer, train)


def timed_epoch(task: dict[str, Any], trainer: Any, train: Any) -> dict[str, Any]:
    """Seconds of an epoch of RecBole's trainer."""
    trainer._train_epoch(SliceOf(train, task["warmup"]), 0)
    batches = len(train)
    steps = min(task["steps"] or batches, batches)
    wall, cpu = timed(lambda: trainer._train_epoch(SliceOf(train, steps), 0), task["repeats"])
    scale = batches / steps
    return {
        "seconds": wall * scale,
        "usual_cpu_seconds": cpu * scale,
        "measured_steps": steps,
        "epoch_steps": batches,
    }


def timed(work: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Least wall and processor seconds of some repetitions."""
    wall, cpu = [], []
    for _ in range(repeats):
        started = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - started[0])
        cpu.append(time.process_time() - started[1])
    return min(wall), min(cpu)


class SliceOf:
    """The first batches of an epoch of a loader."""

    shuffle = False

    def __init__(self, loader: Any, steps: int) -> None:
        self.loader, self.steps = loader, steps

    def __iter__(self) -> Any:
        return islice(iter(self.loader), self.steps)


def full_sort(task: dict[str, Any]) -> dict[str, Any]:
    """Seconds of an evaluation of all test users against all items, and its figures."""
    config, dataset, train, test, model = prepared(task, GIVEN_PARTS)
    trainer = get_trainer(config["MODEL_TYPE"], task["model"])(config, model)
    put(model, dataset, Path(task["folder"]), places(dataset, "user_id"), places(dataset, "item_id"))
    trainer.eval_collector.data_collect(train)
    wall, cpu = timed(lambda: trainer.evaluate(test, load_best_model=False), task["repeats"])
    figures = trainer.evaluate(test, load_best_model=False)
    found = {key: float(value) for key, value in figures.items()}
    return {"seconds": wall, "usual_cpu_seconds": cpu, "figures": found}


def main() -> None:
    """Do what the task says."""
    task = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(task["threads"])
    print(json.dumps({"epoch": epoch, "sequence-epoch": sequence_epoch, "full-sort": full_sort}[task["what"]](task)))


if __name__ == "__main__":
    main()
