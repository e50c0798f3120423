"""Ranks of 10,000 generated outputs among 50,000 titles: counting by blocks against distance matrix and argsorts.

    python benchmarks/grounding.py            # d = 2,048; some minutes
    python benchmarks/grounding.py --quick    # 500 outputs, 5,000 titles, d = 256

The usual way is `torch.cdist` and a double argsort, as published code has it; it is timed on the first outputs and
scaled, because its cost is the same for every output. `agree` is the largest difference between our ranks and those of
distances by differences in float64, over the outputs that are checked.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from tandemrec.experiment.card import hardware
from tandemrec.llm.grounding import ranks_by_distance

RESULTS = Path(__file__).parent / "results" / "grounding.json"


def vectors(outputs: int, titles: int, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Title vectors with a falling spectrum, as hidden states have; outputs near their targets, nearer or less near."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.arange(1, size + 1).pow(-0.5)
    title = torch.randn(titles, size, generator=generator) * scale
    target = torch.randint(titles, (outputs,), generator=generator)
    noise = torch.randn(outputs, size, generator=generator) * scale * torch.rand(outputs, 1, generator=generator) * 2
    return title[target] + noise, title, target


def usual(output: torch.Tensor, title: torch.Tensor, target: torch.Tensor) -> np.ndarray:
    """The whole distance matrix, then the place of every title in the order."""
    order = torch.cdist(output, title).argsort(1).argsort(1)
    return order.gather(1, target[:, None])[:, 0].numpy()


def exact(output: torch.Tensor, title: torch.Tensor, target: torch.Tensor) -> np.ndarray:
    """By differences in float64."""
    ranks = []
    double = title.double()
    for row, own in zip(output.double(), target.tolist(), strict=True):
        square = (double - row).square().sum(1)
        ranks.append(float((square < square[own]).sum() + ((square == square[own]).sum() - 1) / 2))
    return np.array(ranks)


def main() -> None:
    """Measure both, check, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small catalogue and few outputs")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    outputs, titles, size = (500, 5_000, 256) if arguments.quick else (10_000, 50_000, 2_048)
    part, checked = 500, 100 if arguments.quick else 50
    output, title, target = vectors(outputs, titles, size)
    usual(output[:20], title, target[:20])
    seconds: dict[str, list[float]] = {"ours": [], "usual": []}
    # The two take turns, a part each time, so that what else the machine does hits both.
    turns = max(1, outputs // 2_000)
    ranks, places = [], []
    for turn in range(turns):
        mine = slice(turn * outputs // turns, (turn + 1) * outputs // turns)
        begin = time.perf_counter()
        ranks.append(ranks_by_distance(output[mine], title, target[mine]).numpy())
        seconds["ours"].append(time.perf_counter() - begin)
        theirs = slice(turn * part // turns, (turn + 1) * part // turns)
        begin = time.perf_counter()
        places.append(usual(output[theirs], title, target[theirs]))
        seconds["usual"].append((time.perf_counter() - begin) * outputs / part)
    ours, other = sum(seconds["ours"]), sum(seconds["usual"])
    wanted = exact(output[:checked], title, target[:checked])
    found, place = np.concatenate(ranks), np.concatenate(places)
    agree = float(np.abs(found[:checked] - wanted).max())
    name = "grounding-quick" if arguments.quick else "grounding"
    print(f"claim={name} ratio={other / ours:.2f} ours={ours:.2f} usual={other:.2f} agree={agree:g}")
    off = float(np.abs(place[:checked] - wanted).max())
    print(f"usual way timed on {part} of {outputs} outputs and scaled; its ranks are off by at most {off:g}")
    if not arguments.quick:
        facts = {
            "outputs": outputs,
            "titles": titles,
            "size": size,
            "ours": ours,
            "usual": other,
            "usual_timed_on": part,
            "agree": agree,
            "usual_off": off,
            "checked": checked,
            "threads": arguments.threads,
            "hardware": hardware(),
        }
        RESULTS.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
