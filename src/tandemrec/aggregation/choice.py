"""What an aggregate has learned: whom it asks, the weights it gives, and how active its users are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BeforeValidator, Field
from safetensors.torch import load_file, save_file

from tandemrec.aggregation.weights import Activity, Weighting

CHOICE, ACTIVITY = "choice.json", "activity.safetensors"
PROFILE = 11
"""Users between the least and the most active one whose weights are shown."""

Names = Annotated[
    tuple[str, ...], BeforeValidator(lambda names: (names,) if isinstance(names, str) else names), Field(min_length=1)
]
"""One name or several."""


@dataclass(frozen=True)
class Choice:
    """The outcome of fitting.

    Attributes:
        llm: name of the system that is asked.
        weighting: how much it may say.
        activity: training interactions of the users.
    """

    llm: str
    weighting: Weighting
    activity: Activity

    def notes(self) -> dict[str, Any]:
        """JSON-able, for reports: the choice, and α_u from the least to the most active user."""
        counts_U = self.activity.counts_U
        ordered = np.sort(counts_U[counts_U > 0])
        shown = ordered[np.linspace(0, len(ordered) - 1, PROFILE).round().astype(int)] if len(ordered) else ordered
        weights = self.weighting.weights(self.activity, shown)
        points = dict(zip(shown.tolist(), weights.tolist(), strict=True))
        profile = [{"interactions": n, "weight": weight} for n, weight in points.items()]
        return {"llm": self.llm, "weighting": self.weighting.model_dump(mode="json"), "weight_by_activity": profile}

    def save(self, directory: Path) -> None:
        """Write `choice.json` and `activity.safetensors`."""
        text = json.dumps({"llm": self.llm, "weighting": self.weighting.model_dump(mode="json")}, indent=1)
        (directory / CHOICE).write_text(text + "\n", encoding="utf-8")
        save_file({"counts_U": torch.from_numpy(self.activity.counts_U.copy())}, directory / ACTIVITY)

    @classmethod
    def load(cls, directory: Path) -> Choice:
        """Read what `save` wrote."""
        choice = json.loads((directory / CHOICE).read_text(encoding="utf-8"))
        activity = Activity(load_file(directory / ACTIVITY)["counts_U"].numpy())
        return cls(choice["llm"], Weighting.model_validate(choice["weighting"]), activity)
