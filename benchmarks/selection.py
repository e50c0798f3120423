"""Influence and effort of the 49,156 users of the published Amazon Games split: our way against the usual loops.

    python benchmarks/selection.py            # trains a surrogate first; about fifteen minutes
    python benchmarks/selection.py --quick    # 2,000 users, one epoch

Influence, usual way: mean gradient over batches, 5,000 steps of the recursion with one sample each, then one backward
pass a user; the loops are timed on a slice and scaled, which the output says. Ours: Gauss-Newton, conjugate gradients
to a residual of 1e-6 at the damping that the recursion amounts to. `agree`: largest difference of a user's score from
its own backward pass, as a share of the largest score. Effort: gradient norms of the last value adapter of two small
Llamas on some users, against one backward pass a user; `agree` is the largest relative difference. A processor gains
from batches what it loses to overheads a pass, so the smaller a model the more. Every size runs in a process of its
own, so that peak memory is its own; influence also with nothing kept of the positions (`streamed`).
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from memory import peak

from tandemrec.conventional.sequential.sasrec import SASRec, SASRecConfig
from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import Examples
from tandemrec.data.locations import data_root
from tandemrec.data.protocols import GivenColumn
from tandemrec.data.split import Split, make_split
from tandemrec.experiment.card import hardware
from tandemrec.llm.model import LanguageModel
from tandemrec.llm.objectives import Prompted
from tandemrec.llm.prompts import PromptConfig
from tandemrec.llm.recommenders.bigrec import BIGRec, BIGRecConfig
from tandemrec.llm.recommenders.writer import PretrainedConfig
from tandemrec.selection.effort import EffortConfig, chosen_matrices, effort
from tandemrec.selection.influence import InfluenceConfig, influence
from tandemrec.selection.solver import LissaConfig
from tandemrec.selection.surrogate import Surrogate, SurrogateConfig
from tandemrec.training import TrainingConfig

RESULTS = Path(__file__).parent / "results" / "selection.json"
STEPS, SEED = 5_000, 42
REPEATS = 3
"""The quickest of several attempts says most on a busy machine; the loops' slice is cut into as many."""
PARTS = ["influence", "effort"]
LIMIT_SECONDS = 60.0
PROMPT = PromptConfig(template="compact", noun="games", singular="game", verb="played", history=10, max_tokens=192)


def games() -> Split:
    """The published split, with titles; one training example a user."""
    folder = data_root() / "reference_splits" / "dealrec_games"
    if not folder.exists():
        sys.exit(f"needs the published split {folder} (set TANDEMREC_DATA)")
    parts = []
    for part in ("train", "valid", "test"):
        lines = gzip.decompress((folder / f"sequential_{part}.txt.gz").read_bytes()).decode().splitlines()
        numbers = pl.Series(lines).str.split(" ").cast(pl.List(pl.Int64))
        frame = pl.DataFrame({"user_id": numbers.list.first(), "item_id": numbers.list.slice(1)}).explode("item_id")
        parts.append(frame.drop_nulls().with_columns(split=pl.lit(part)))
    events = pl.concat(parts).with_row_index("timestamp").cast({"timestamp": pl.Int64})
    titles = json.loads(gzip.decompress((folder / "maps.json.gz").read_bytes()))["recid2title"]
    items = pl.DataFrame({"item_id": range(1, len(titles) + 1), "title": titles})
    data = Dataset.from_frames(events, items, clock="order", name="games")
    return make_split(data, GivenColumn(min_history=0))


def train_surrogate(split: Split, epochs: int, folder: Path) -> float:
    """DEALRec's SASRec; seconds of training."""
    config = SASRecConfig(
        loss="bce",
        dim=64,
        blocks=2,
        heads=2,
        dropout=0.5,
        max_length=50,
        batch_size=500,
        training=TrainingConfig(epochs=epochs, validate_every=epochs, clip_norm=None),
    )
    model = SASRec(config)
    report = model.fit(split, seed=SEED)
    model.save(folder)
    return report.seconds


def surrogate_of(folder: Path) -> Surrogate:
    """The trained network with DEALRec's loss, the sample's own target in it."""
    return Surrogate.of(SASRec.load(folder), SurrogateConfig(loss="bce", negatives=1))


def some(split: Split, users: int) -> Examples:
    """Users in random order, the same for every size."""
    return split.train.take(np.random.default_rng(1).permutation(len(split.train))[:users])


def influence_ours(split: Split, folder: Path, users: int, out: Path | None) -> dict[str, Any]:
    """Scores of some users by the package; without a file to write them to, with nothing kept of the positions."""
    surrogate, examples = surrogate_of(folder), some(split, users)
    config = InfluenceConfig() if out else InfluenceConfig(cache_mebibytes=0)
    tries = [influence(surrogate, examples, config, SEED) for _ in range(REPEATS)]
    found = min(tries, key=lambda one: sum(one.seconds.values()))
    if out:
        np.savez(out, scores=found.scores, vector=found.solution.vector_P.numpy())
    solution = found.solution
    facts = {"iterations": solution.iterations, "residual": solution.residual, "damping": solution.damping}
    return {**found.seconds, **facts, "seconds": sum(found.seconds.values())}


def influence_usual(split: Split, folder: Path, users: int, out: Path, slice_size: int) -> dict[str, Any]:
    """The loops on a slice, scaled; scores of the slice with the vector that ours found."""
    surrogate, examples = surrogate_of(folder), some(split, users)
    weight = surrogate.network.get_parameter("blocks.1.out.weight")
    samples = surrogate.samples(examples, SEED)
    sliced = np.random.default_rng(0).permutation(np.flatnonzero(samples.counts))[:slice_size]

    def loss(chosen: np.ndarray) -> torch.Tensor:
        batch = surrogate.batch(samples, chosen)
        return surrogate.losses(surrogate(batch), batch) @ batch.weight_N / len(chosen)

    begin = time.perf_counter()
    for start in range(0, len(sliced), 500):
        (v,) = torch.autograd.grad(loss(sliced[start : start + 500]), weight)
    mean = (time.perf_counter() - begin) / len(sliced) * users
    recursion, h, laps = LissaConfig(), v.clone(), []
    for part in np.array_split(sliced, REPEATS):
        begin = time.perf_counter()
        for s in part:
            (slope,) = torch.autograd.grad(loss(np.array([s])), weight, create_graph=True)
            (bent,) = torch.autograd.grad(slope, weight, h)
            h = v + (1 - recursion.damp) * h - bent / recursion.scale
        laps.append((time.perf_counter() - begin) / len(part))
    solve = min(laps) * STEPS
    ours = np.load(out)
    vector = torch.from_numpy(ours["vector"]).float().view_as(weight)
    scores, laps = [], []
    for part in np.array_split(sliced, REPEATS):
        begin = time.perf_counter()
        for s in part:
            (slope,) = torch.autograd.grad(loss(np.array([s])), weight)
            scores.append(float((slope * vector).sum()) / users)
        laps.append((time.perf_counter() - begin) / len(part))
    each = min(laps) * int((samples.counts > 0).sum())
    differ = np.abs(np.array(scores) - ours["scores"][sliced]).max() / np.abs(ours["scores"]).max()
    return {"gradient": mean, "solve": solve, "scores": each, "seconds": mean + solve + each, "differ": float(differ)}


def effort_parts(split: Split, lm_name: str, users: int) -> tuple[LanguageModel, Prompted]:
    """A small Llama with a fresh adapter, and the prompts of some users."""
    writer = BIGRec(BIGRecConfig(model="bigrec", lm=PretrainedConfig(path=lm_name), prompt=PROMPT))
    writer.start(split.dataset.titles, seed=SEED)
    return writer.language_model, writer.answered(some(split, users))


def effort_ours(split: Split, lm_name: str, users: int, out: Path) -> dict[str, Any]:
    """Scores of some users by the package; tokenising is not counted on either side."""
    lm, prompted = effort_parts(split, lm_name, users)
    effort(lm, Prompted(prompted.prompts[:8], prompted.completions[:8]), EffortConfig())  # what happens only once
    begin = time.perf_counter()
    scores = effort(lm, prompted, EffortConfig())
    laps = [time.perf_counter() - begin]
    for _ in range(REPEATS - 1):
        begin = time.perf_counter()
        effort(lm, prompted, EffortConfig())
        laps.append(time.perf_counter() - begin)
    np.savez(out, scores=scores)
    return {"seconds": min(laps), "users": users, "tokens": prompted.tokens()}


def effort_usual(split: Split, lm_name: str, users: int, out: Path) -> dict[str, Any]:
    """One forward and backward pass a user, the loss on label tokens.

    Gradients go to all adapters, as DEALRec's code leaves them; `frozen_seconds` is what it takes once everything but
    the one matrix has been frozen.
    """
    lm, prompted = effort_parts(split, lm_name, users)
    (matrix,) = chosen_matrices(lm.model, EffortConfig())
    adapters = [parameter for parameter in lm.model.parameters() if parameter.requires_grad]
    lm.model.eval()
    laps: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(REPEATS):
        for everything, found in laps.items():
            for parameter in adapters:
                parameter.requires_grad_(everything or parameter is matrix.weight)
            begin, norms = time.perf_counter(), []
            for prompt, (label,) in zip(prompted.prompts, prompted.completions, strict=True):
                ids = torch.tensor([prompt + label])
                labels = ids.clone()
                labels[:, : len(prompt)] = -100
                lm.model.zero_grad()
                lm.model(input_ids=ids, labels=labels).loss.backward()
                norms.append(float(matrix.weight.grad.norm()))
            found.append(time.perf_counter() - begin)
    differ = float(np.max(np.abs(np.load(out)["scores"][:users] / np.array(norms) - 1)))
    seconds = {"seconds": min(laps[True]), "frozen_seconds": min(laps[False])}
    return {**seconds, "users": users, "tokens": prompted.tokens(), "differ": differ}


def measure(way: str, users: int, folder: Path, lm_name: str, slice_size: int = 0) -> dict[str, Any]:
    """Run one way in a process of its own."""
    command = [sys.executable, __file__, "--way", way, "--users", str(users), "--folder", str(folder)]
    command += ["--lm", lm_name, "--slice", str(slice_size)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def run_child(way: str, users: int, folder: Path, lm_name: str, slice_size: int) -> None:
    """What `measure` starts: the way, its times and its peak memory beyond what the data take."""
    split = games()
    before = peak() / 1024
    kind, _, side = way.partition("-")
    out = folder / f"{kind}.npz"
    if kind == "influence":
        figures = (
            influence_usual(split, folder, users, out, slice_size)
            if side == "usual"
            else influence_ours(split, folder, users, out if side == "ours" else None)
        )
    else:
        figures = {"ours": effort_ours, "usual": effort_usual}[side](split, lm_name, users, out)
    print(json.dumps({**figures, "peak_gib": peak() / 1024, "data_gib": before}))


def main() -> None:
    """Train, measure, compare, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2,000 users and one epoch")
    parser.add_argument("--epochs", type=int, default=10, help="of the surrogate")
    parser.add_argument("--lm", nargs="+", default=["stories3m", "stories260k"], help="language models of effort")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="what is measured")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--users", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--slice", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        run_child(arguments.way, arguments.users, arguments.folder, arguments.lm[0], arguments.slice)
        return
    split = games()
    users, texts, slice_size = (2_000, 200, 50) if arguments.quick else (len(split.train), 1_000, 300)
    epochs = 1 if arguments.quick else arguments.epochs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "influence" in arguments.only:
            trained = train_surrogate(split, epochs, folder)
            claim = influence_claim(users, folder, slice_size) | {"epochs": epochs, "training_seconds": trained}
            report("influence", claim, quick=arguments.quick)
        for lm in arguments.lm if "effort" in arguments.only else ():
            claim = effort_claim(texts, folder, lm) | {"texts": texts}
            report(f"effort {lm}", claim, quick=arguments.quick)
            print(f"  of the usual way with all else frozen: {claim['usual_frozen']:.2f} s")


def report(label: str, claim: dict[str, Any], *, quick: bool) -> None:
    """Print a claim and keep it beside those that were measured before; the two ways must agree."""
    ours, usual, agree = (claim[key] for key in ("ours", "usual", "agree"))
    words = f"ratio={usual / ours:.1f} ours={ours:.2f} usual={usual:.2f} agree={agree:.1e}"
    print(f"claim={label.replace(' ', '-')}{'-quick' if quick else ''} {words}")
    print(f"  the usual way is timed on {claim['timed_on']} users and scaled")
    for way in ("sizes", "streamed"):
        for size, figures in claim.get(way, {}).items():
            memory = f"peak {figures['peak_gib']:.2f} GiB, {figures['data_gib']:.2f} of them before it began"
            print(f"  {size:,} users{' streamed' * (way == 'streamed')}: {figures['seconds']:.2f} s, {memory}")
    if label == "influence" and not quick:
        print(f"influence of all users under {LIMIT_SECONDS:.0f} s: {'yes' if ours < LIMIT_SECONDS else 'NO'}")
    if agree > 1e-4:
        sys.exit("the two ways differ")
    if not quick:
        before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(before | {label: claim, "hardware": hardware()}, indent=1) + "\n")


def influence_claim(users: int, folder: Path, slice_size: int) -> dict[str, Any]:
    """Seconds of both ways for all users, and what ours takes at three sizes."""
    sizes = {size: measure("influence-ours", size, folder, "") for size in quarters(users)}
    streamed = {size: measure("influence-streamed", size, folder, "") for size in quarters(users)}
    usual = measure("influence-usual", users, folder, "", slice_size)
    both = {"ours": sizes[users]["seconds"], "usual": usual["seconds"], "agree": usual["differ"]}
    return {**both, "users": users, "timed_on": slice_size, "parts": usual, "sizes": sizes, "streamed": streamed}


def effort_claim(texts: int, folder: Path, lm: str) -> dict[str, Any]:
    """The same for effort; the usual way is scaled by the tokens of all users and of those it is timed on."""
    sizes = {size: measure("effort-ours", size, folder, lm) for size in quarters(texts)}
    usual = measure("effort-usual", texts // 10, folder, lm)
    scale = sizes[texts]["tokens"] / usual["tokens"]
    both = {"ours": sizes[texts]["seconds"], "usual": usual["seconds"] * scale, "agree": usual["differ"]}
    return {**both, "usual_frozen": usual["frozen_seconds"] * scale, "timed_on": usual["users"], "sizes": sizes}


def quarters(total: int) -> list[int]:
    """A quarter, a half and all."""
    return [total // 4, total // 2, total]


if __name__ == "__main__":
    main()
