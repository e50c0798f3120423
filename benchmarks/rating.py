"""An epoch of every rating model on MovieLens-1M: our way against DeepCTR-Torch (claim ctr-epoch).

    python benchmarks/rating.py --deepctr E/bin/python   # six models, both ways; tens of minutes
    python benchmarks/rating.py --quick                  # the first 40,000 training rows, nothing written

Both sides get the same ids of the same fields, the same sizes, dropout, batch and learning rate, threads and machine.
The library runs in an environment of its own, whose Python is named by `--deepctr` or $TANDEMREC_PEER_DEEPCTR and whose
packages are in `peers/deepctr.txt`. Its other settings are its defaults. Our epoch includes the validation after it.
`ratio` is the median over models; `agree` is the largest excess of our validation RMSE after the epoch over theirs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from tandemrec.conventional.rating.features import FeaturesConfig, encode_fields
from tandemrec.conventional.rating.predictor import InteractionConfig
from tandemrec.data.examples import Ragged
from tandemrec.data.filter import CleaningConfig, clean
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.ratings import Ratings, target_ratings, training_ratings
from tandemrec.data.sources import MovieLens
from tandemrec.data.split import Split, make_split
from tandemrec.experiment.card import hardware, package_versions
from tandemrec.experiment.rating_models import RATING
from tandemrec.training import TrainingConfig

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "rating.json"
BATCH, DIM, DROPOUT, RATE = 256, 16, 0.3, 2e-3
DEEP = (128, 64)
QUICK_ROWS = 40_000

FEATURES = FeaturesConfig.model_validate(
    {
        "users": {"gender": {}, "age": {"kind": "category"}, "occupation": {}, "zip_code": {"prefix": 3}},
        "items": ["genres"],
    }
)

MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "deepfm": ("DeepFM", {"layers": DEEP}, {"dnn_hidden_units": DEEP}),
    "nfm": ("NFM", {"layers": DEEP}, {"dnn_hidden_units": DEEP}),
    "dcn": ("DCN", {"layers": DEEP, "cross_layers": 2}, {"dnn_hidden_units": DEEP, "cross_num": 2}),
    "afm": ("AFM", {"attention_dim": 8}, {"attention_factor": 8, "afm_dropout": DROPOUT}),
    "xdeepfm": (
        "xDeepFM",
        {"layers": DEEP, "cin_layers": (64, 32)},
        {"dnn_hidden_units": DEEP, "cin_layer_size": (64, 32)},
    ),
    "autoint": ("AutoInt", {"layers": DEEP}, {"dnn_hidden_units": DEEP, "att_layer_num": 3, "att_head_num": 2}),
}
"""Our name → the library's, our sizes, its sizes."""


def movielens(rows: int | None) -> Split:
    """MovieLens-1M, leave-one-out; `rows` keeps about that many training rows: the users who come first."""
    data, _ = clean(MovieLens(edition="ml-1m").load(), CleaningConfig())
    split = make_split(data, LeaveOneOut())
    if rows is None:
        return split
    sequences = split.sequences
    empty = np.cumsum(sequences.lengths) > rows
    stops = np.where(empty, sequences.starts, sequences.stops)
    return replace(split, sequences=Ragged(sequences.values, sequences.starts, stops))


def write_arrays(split: Split, path: Path) -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
    """What the library reads: an id column a field (sets: 0-padded), and sizes of single-valued fields and of sets."""
    single: dict[str, int] = {}
    sets: dict[str, tuple[int, int]] = {}
    arrays: dict[str, np.ndarray] = {}
    parts: dict[str, Ratings] = {"train": training_ratings(split), "valid": target_ratings(split, split.valid)[0]}
    for part, ratings in parts.items():
        arrays[f"{part}:rating"] = ratings.value
        for side, owner in (("users", ratings.pairs.user), ("items", ratings.pairs.item)):
            for field in encode_fields(split, FEATURES)[side]:  # type: ignore[index]
                name = field.name.replace(".", "_")
                codes = field.codes[owner]
                arrays[f"{part}:{name}"] = codes + 1 if field.is_set else codes[:, 0]  # 0 pads a set
                if field.is_set:
                    sets[name] = field.size + 1, field.codes.shape[1]
                else:
                    single[name] = field.size
    np.savez(path, **arrays)
    return single, sets


def ours(name: str, sizes: Mapping[str, Any], split: Split) -> dict[str, float]:
    """Seconds of an epoch and the validation RMSE after it."""
    config_class = next(config for config in RATING if config.model_fields["model"].default == name)
    training = TrainingConfig(epochs=1, learning_rate=RATE, clip_norm=None)
    shared = {"features": FEATURES, "dim": DIM, "batch_size": BATCH, "dropout": DROPOUT, "l2": 0.01}
    config = config_class.model_validate(shared | dict(sizes) | {"training": training})
    assert isinstance(config, InteractionConfig)
    RATING[config_class][0](config).fit(movielens(4 * BATCH), seed=0)  # neither side pays for its first calls
    report = RATING[config_class][0](config).fit(split, seed=0)
    return {"seconds": report.seconds, "rmse": report.curve[0]["rmse"]}


def usual(peer: Path, task: Mapping[str, Any], folder: Path) -> dict[str, float]:
    """The same of the library."""
    (folder / "task.json").write_text(json.dumps(task))
    command = [str(peer), str(HERE / "peers" / "deepctr_peer.py"), str(folder / "task.json")]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    if done.returncode:
        raise SystemExit(f"DeepCTR-Torch failed: {done.stderr.strip().splitlines()[-1]}")
    figures: dict[str, float] = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    return figures


def main() -> None:
    """Measure model by model, print each, then the claim."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS:,} training rows; nothing is written")
    parser.add_argument("--rows", type=int, help="about how many training rows, the first users'; default: all of them")
    parser.add_argument("--repeats", type=int, default=1, help="turns of both sides; the quickest of each counts")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of both sides")
    parser.add_argument("--deepctr", type=Path, default=os.environ.get("TANDEMREC_PEER_DEEPCTR"))
    arguments = parser.parse_args()
    if not arguments.deepctr:
        sys.exit(
            "this claim needs DeepCTR-Torch in an environment of its own: install benchmarks/peers/deepctr.txt into "
            "one and name its Python by --deepctr or $TANDEMREC_PEER_DEEPCTR"
        )
    unknown = set(arguments.models) - MODELS.keys()
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(MODELS)}")
    torch.set_num_threads(arguments.threads)
    split = movielens(QUICK_ROWS if arguments.quick else arguments.rows)
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        single, sets = write_arrays(split, folder / "arrays.npz")
        shared = {"arrays": str(folder / "arrays.npz"), "single": single, "sets": sets, "dim": DIM}
        shared |= {"batch_size": BATCH, "learning_rate": RATE, "threads": arguments.threads}
        for model in arguments.models or MODELS:
            library, sizes, settings = MODELS[model]
            if library != "AFM":
                settings = settings | {"dnn_dropout": DROPOUT}
            task = shared | {"model": library, "settings": settings}
            turns = [
                (ours(model, sizes, split), usual(Path(arguments.deepctr).absolute(), task, folder))
                for _ in range(arguments.repeats)
            ]
            mine, theirs = (min(side, key=lambda figures: figures["seconds"]) for side in zip(*turns, strict=True))
            found[library] = {"ours": mine, "usual": theirs, "ratio": theirs["seconds"] / mine["seconds"]}
            print(f"{library}: {json.dumps(found[library])}", flush=True)
    ratio = median(row["ratio"] for row in found.values())
    seconds = [median(row[side]["seconds"] for row in found.values()) for side in ("ours", "usual")]
    agree = max(row["ours"]["rmse"] - row["usual"]["rmse"] for row in found.values())
    name = "ctr-epoch-quick" if arguments.quick else "ctr-epoch"
    print(f"claim={name} ratio={ratio:.2f} ours={seconds[0]:.2f} usual={seconds[1]:.2f} agree={agree:.4f}")
    if not arguments.quick and not arguments.models:
        facts = {"rows": int(split.user_counts.sum()), "fields": [*single, *sets], "dim": DIM, "batch": BATCH}
        claim = {"ratio": ratio, "ours": seconds[0], "usual": seconds[1], "agree": agree, "models": found}
        content = claim | facts | {"threads": arguments.threads, "hardware": hardware()}
        content |= {"packages": package_versions(("torch", "numpy"))}
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
