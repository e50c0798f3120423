"""What `tandem plan` foretells beside what finished runs took: a line for every stage longer than a bound.

    tandem plan --calibrate && python benchmarks/plan.py runs/sample

`ratio` is the predicted over the measured wall time, the prediction being for the epochs that training took;
`at_most` is the prediction that was there before, for all epochs of the recipe. The plan is made over an empty store,
with the rates of this machine: runs of another machine, or of a busier one, are predicted by rates that are not theirs.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tandemrec.experiment.devices import here
from tandemrec.experiment.plan import plan
from tandemrec.experiment.recipe import load_recipe
from tandemrec.experiment.run import CARD, RECIPE


def lines(run: Path, longest: float) -> Iterator[str]:
    """A line a stage."""
    card = json.loads((run / CARD).read_text(encoding="utf-8"))
    device = here()
    with TemporaryDirectory() as empty:
        foreseen = plan(load_recipe(run / RECIPE), device, store=Path(empty) / "store")
    waiting: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in foreseen["stages"]:
        waiting[row["stage"]].append(row)
    for stage in card["stages"]:
        if not waiting[stage["stage"]]:
            continue
        row = waiting[stage["stage"]].pop(0)
        if stage["seconds"] <= longest:
            continue
        if row["seconds"] is None:
            yield f"claim=plan-{stage['stage'].replace(' ', '-')} ratio=nan measured={stage['seconds']:.1f} unknown=1"
            continue
        report = card["models"].get(stage["stage"].removeprefix("fit:"), {})
        trained = report.get("epochs") if stage["stage"].startswith("fit:") else None
        share = trained / row["epochs"] if trained and row["epochs"] else 1.0
        predicted = row["seconds"] * share
        busy = stage.get("cpu_seconds")
        yield (
            f"claim=plan-{stage['stage'].replace(' ', '-')} ratio={predicted / stage['seconds']:.2f} "
            f"predicted={predicted:.1f} measured={stage['seconds']:.1f} at_most={row['seconds']:.1f}"
            + ("" if busy is None else f" cpu={busy:.1f}")
            + f" peak_predicted={row['memory_gib'] * 1024:.0f} peak_measured={stage.get('peak_memory_mib')}"
        )


def main() -> None:
    """Runs named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--longer-than", type=float, default=20.0, help="seconds of a stage that is looked at")
    arguments = parser.parse_args()
    device = here()
    print(f"device={device.title!r} calibrated={device.calibrated} gflops={device.flops / 1e9:.1f} "
          f"gbytes={device.bytes / 1e9:.2f} call_us={device.call * 1e6:.1f}")  # fmt: skip
    for run in arguments.runs:
        for line in lines(run, arguments.longer_than):
            print(line, flush=True)


if __name__ == "__main__":
    main()
