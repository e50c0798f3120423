"""What `tandem plan` foretells beside what finished runs took: a line for every stage longer than a bound.

    tandem plan --calibrate && python benchmarks/plan.py runs/sample
    python benchmarks/plan.py --keep runs/sample runs/ml-1m     # benchmarks/results/plan.json, for docs/benchmarks.md

`ratio` is the predicted over the measured wall time, the prediction being for the epochs that training took;
`at_most` is the prediction that was there before, for all epochs of the recipe. The plan is made over an empty store,
with the rates of this machine: runs of another machine, or of a busier one, are predicted by rates that are not theirs.
With `--as-run` predictions are those that runs made themselves before every stage, as far as the machine's rates had
been measured by then. Beside other work the processor time of a run with one thread is closer to what it would have
taken alone.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tandemrec.experiment.devices import Device, here
from tandemrec.experiment.plan import plan
from tandemrec.experiment.recipe import Recipe, load_recipe
from tandemrec.experiment.run_folder import CARD, RECIPE

RESULTS = Path(__file__).resolve().parent / "results" / "plan.json"
AS_RUN = RESULTS.with_name("plan_as_run.json")


def stages(recipe: Recipe, card: dict[str, Any], device: Device, longest: float) -> Iterator[dict[str, Any]]:
    """Predicted and measured of every stage of a run that took longer."""
    with TemporaryDirectory() as empty:
        foreseen = plan(recipe, device, store=Path(empty) / "store")
    waiting: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in foreseen["stages"]:
        waiting[row["stage"]].append(row)
    for stage in card["stages"]:
        name = stage["stage"]
        if not waiting[name]:
            continue
        row = waiting[name].pop(0)
        if stage["seconds"] <= longest:
            continue
        then = stage.get("foreseen") or {}
        share = then["seconds"] / then["at_most"] if then.get("at_most") else 1.0
        predicted = None if row["seconds"] is None else row["seconds"] * share
        yield _row(stage, predicted, row["seconds"], row["memory_gib"] * 1024)


def stages_as_run(card: dict[str, Any], longest: float) -> Iterator[dict[str, Any]]:
    """The same by what the run foretold itself with measured rates."""
    for stage in card["stages"]:
        foreseen = stage.get("foreseen")
        if stage["seconds"] > longest and foreseen is not None and foreseen["calibrated"]:
            yield _row(stage, foreseen["seconds"], foreseen["at_most"], foreseen["memory_mib"])


def _row(stage: dict[str, Any], predicted: float | None, at_most: float | None, mib: float) -> dict[str, Any]:
    """A prediction beside what the stage took."""
    return {
        "stage": stage["stage"],
        "predicted": predicted,
        "at_most": at_most,
        "measured": stage["seconds"],
        "cpu": stage.get("cpu_seconds"),
        "predicted_mib": mib,
        "measured_mib": stage.get("peak_memory_mib"),
    }


def line(row: dict[str, Any]) -> str:
    """As it is printed."""
    claim = f"claim=plan-{row['stage'].replace(' ', '-')}"
    if row["predicted"] is None:
        return f"{claim} ratio=nan measured={row['measured']:.1f} unknown=1"
    return (
        f"{claim} ratio={row['predicted'] / row['measured']:.2f} predicted={row['predicted']:.1f} "
        f"measured={row['measured']:.1f} at_most={row['at_most']:.1f}"
        + ("" if row["cpu"] is None else f" cpu={row['cpu']:.1f}")
        + f" peak_predicted={row['predicted_mib']:.0f} peak_measured={row['measured_mib']}"
    )


def main() -> None:
    """Runs named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--longer-than", type=float, default=20.0, help="seconds of a stage that is looked at")
    parser.add_argument("--as-run", action="store_true", help="what the runs foretold themselves")
    places = f"{RESULTS.name} (as run: {AS_RUN.name})"
    parser.add_argument("--keep", action="store_true", help=f"write them to {places}, in place of all before")
    arguments = parser.parse_args()
    runs: list[tuple[str, Recipe, dict[str, Any]]] = []
    for run in arguments.runs:
        recipe, card = load_recipe(run / RECIPE), json.loads((run / CARD).read_text(encoding="utf-8"))
        threads = card["hardware"].get("torch_threads")
        name = f"{recipe.name}, {threads} thread{'s' * (threads != 1)}"
        if arguments.keep and any(name == other for other, *_ in runs):
            parser.error(f"--keep has one row a recipe and number of threads; {run} is another run of '{name}'")
        runs.append((name, recipe, card))
    device, kept = here(), {}
    print(f"device={device.title!r} calibrated={device.calibrated} gflops={device.flops / 1e9:.1f} "
          f"gbytes={device.bytes / 1e9:.2f} call_us={device.call * 1e6:.1f}")  # fmt: skip
    for name, recipe, card in runs:
        longest = arguments.longer_than
        found = stages_as_run(card, longest) if arguments.as_run else stages(recipe, card, device, longest)
        kept[name] = list(found)
        for row in kept[name]:
            print(line(row), flush=True)
    if arguments.keep:
        content = {"device": device.model_dump(mode="json"), "longer_than": arguments.longer_than, "runs": kept}
        place = AS_RUN if arguments.as_run else RESULTS
        place.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
