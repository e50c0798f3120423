"""What is installed, what is seen, where things are looked for, and what is missing for which feature."""

from __future__ import annotations

import os
from importlib import metadata

from rich.table import Table

from tandemrec.data.locations import data_root, models_root, store_root
from tandemrec.experiment.card import hardware, package_versions

FEATURES = {
    "pandas": "pandas data frames in and out (pip install 'tandemrec[frames]')",
    "pyarrow": "Arrow tables in and out (pip install 'tandemrec[frames]')",
    "optuna": "searching settings with `tandem tune` (pip install 'tandemrec[tune]')",
    "matplotlib": "the plot of `tandem tune` (pip install 'tandemrec[tune]')",
}


def diagnose() -> Table:
    """A table of topic, finding."""
    table = Table(show_header=False, title="tandem doctor")
    table.add_column("topic", style="bold")
    table.add_column("finding", overflow="fold")
    for name, version in package_versions().items():
        table.add_row(name, version or "[red]not installed[/red]")
    machine = hardware()
    table.add_row("devices", ", ".join(["cpu", *machine["accelerators"]]))
    table.add_row("processor", f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB")
    table.add_row("torch threads", str(machine["torch_threads"]))
    if os.environ.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE":
        table.add_row("OMP_WAIT_POLICY", "not PASSIVE: on a shared CPU, waiting threads may slow torch down many times")
    for label, variable, root in (
        ("data", "TANDEMREC_DATA", data_root()),
        ("models", "TANDEMREC_MODELS", models_root()),
        ("artifacts", "TANDEMREC_STORE", store_root()),
    ):
        origin = f"from {variable}" if os.environ.get(variable) else f"default; set {variable} to change"
        there = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else None
        found = "not there yet" if there is None else f"{len(there)} folders"
        listing = f": {', '.join(there)}" if there and label != "artifacts" else ""
        table.add_row(label, f"{root} ({origin}); {found}{listing}")
    for package, feature in FEATURES.items():
        if _missing(package):
            table.add_row(package, f"not installed; needed for: {feature}")
    return table


def _missing(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return True
    return False
