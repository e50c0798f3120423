"""The stage of semantic ids: one set for all systems that name items alike, whatever they are trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tandemrec.data.split import Split
from tandemrec.experiment.code_version import code_version
from tandemrec.experiment.files import hash_folder
from tandemrec.experiment.seeds import derive_seed
from tandemrec.experiment.store import Artifact, plain
from tandemrec.llm.recommenders.tiger import TIGERConfig
from tandemrec.llm.semantic_ids import build_semantic_ids
from tandemrec.recommender import Config

if TYPE_CHECKING:
    from tandemrec.experiment.stages import Stages

CODE = (
    *(f"llm/{name}.py" for name in ("content", "sentences", "kmeans", "rq_vae", "semantic_ids", "model")),
    "training",
)


def semantic_ids(stages: Stages, config: Config, split: Split) -> Artifact | None:
    """The ids of all items, made from their texts alone; None for a system that needs none."""
    if not isinstance(config, TIGERConfig):
        return None
    dataset, seed = split.dataset, derive_seed(stages.recipe.seed, "semantic-ids")

    def make(draft: Path, work: Path) -> dict[str, Any]:
        report = build_semantic_ids(dataset, config.ids, draft, seed=seed, workspace=work)
        return report.model_dump(mode="json")

    depends = {
        "data": dataset.fingerprint,
        "config": plain(config.ids),
        "encoder": hash_folder(config.ids.content.folder()),
        "seed": seed,
        "code": code_version(*CODE),
    }
    return stages.get("semantic-ids", depends, make, stages.foresights.semantic_ids(config, split))
