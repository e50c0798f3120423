"""One epoch of a DeepCTR-Torch model on what `benchmarks/rating.py` wrote; runs in an environment of its own.

python deepctr_peer.py task.json   # prints one line of JSON: seconds of the epoch, RMSE on the validation rows
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from deepctr_torch import models
from deepctr_torch.inputs import SparseFeat, VarLenSparseFeat


def main() -> None:
    """Read the task, train an epoch, predict."""
    task = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(task["threads"])
    arrays = np.load(task["arrays"])
    columns = [SparseFeat(name, size, embedding_dim=task["dim"]) for name, size in task["single"].items()]
    columns += [
        VarLenSparseFeat(SparseFeat(name, size, embedding_dim=task["dim"]), maxlen=length, combiner="mean")
        for name, (size, length) in task["sets"].items()
    ]
    names = [*task["single"], *task["sets"]]
    model = getattr(models, task["model"])(columns, columns, task="regression", seed=0, **task["settings"])
    model.compile(torch.optim.Adam(model.parameters(), lr=task["learning_rate"]), "mse", metrics=[])

    def part(which: str, rows: int | None = None) -> dict[str, np.ndarray]:
        return {name: arrays[f"{which}:{name}"][:rows] for name in names}

    # A few steps first, so that neither side pays for its first calls.
    model.fit(part("train", 4 * task["batch_size"]), arrays["train:rating"][: 4 * task["batch_size"]], verbose=0)
    started = time.perf_counter()
    model.fit(part("train"), arrays["train:rating"], batch_size=task["batch_size"], epochs=1, verbose=0)
    seconds = time.perf_counter() - started
    model.eval()
    predicted = model.predict(part("valid"), 1 << 14).ravel().clip(1, 5)
    error = float(np.sqrt(np.mean((predicted - arrays["valid:rating"]) ** 2)))
    print(json.dumps({"seconds": seconds, "rmse": error}))


if __name__ == "__main__":
    main()
