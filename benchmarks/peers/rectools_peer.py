"""RecTools' side of `benchmarks/conventional.py`; run by the Python of RecTools' environment, not by ours.

python rectools_peer.py TASK.json    # prints one JSON object as its last line
"""

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel


class Clock(Callback):
    """Wall and processor time at the beginning and end of every epoch; of the class, since the library copies it."""

    begun: ClassVar[list[tuple[float, float]]] = []
    ended: ClassVar[list[tuple[float, float]]] = []

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """An epoch begins."""
        self.begun.append((time.perf_counter(), time.process_time()))

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """An epoch ends."""
        self.ended.append((time.perf_counter(), time.process_time()))


def main() -> None:
    """Train, then recommend to every user and say how well."""
    warnings.filterwarnings("ignore")
    task = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(task["threads"])
    seed_everything(task["seed"])
    folder = Path(task["folder"])
    train = pd.read_csv(folder / "train.csv").rename(
        columns={"user": Columns.User, "item": Columns.Item, "time": Columns.Datetime}
    )
    train[Columns.Datetime] = pd.to_datetime(train[Columns.Datetime], unit="s")
    train[Columns.Weight] = 1.0
    dataset = Dataset.construct(train)

    def trainer() -> Trainer:
        return Trainer(
            max_epochs=task["epochs"],
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            callbacks=[Clock()],
        )

    model = SASRecModel(
        session_max_len=task["length"],
        n_factors=task["dim"],
        n_blocks=task["blocks"],
        n_heads=task["heads"],
        dropout_rate=task["dropout"],
        batch_size=task["batch_size"],
        lr=task["learning_rate"],
        loss="softmax",
        get_trainer_func=trainer,
    )
    model.fit(dataset)
    spent = (np.array(Clock.ended) - np.array(Clock.begun)).min(0)
    valid = pd.read_csv(folder / "valid.csv")
    started = time.perf_counter()
    found = model.recommend(valid["user"].unique(), dataset, k=10, filter_viewed=True)
    recommend = time.perf_counter() - started
    merged = valid.merge(found, left_on=["user", "item"], right_on=[Columns.User, Columns.Item])
    ndcg = float((1 / np.log2(merged[Columns.Rank] + 1)).sum() / len(valid))
    facts = {"seconds": float(spent[0]), "usual_cpu_seconds": float(spent[1]), "usual_ndcg@10": ndcg}
    print(json.dumps(facts | {"usual_recommend_seconds": recommend, "users": len(valid)}))


if __name__ == "__main__":
    main()
