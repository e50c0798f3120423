"""What conventional students learn of trained teachers, as stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tandemrec.augmentation.dllm2rec import DLLM2RecConfig
from tandemrec.augmentation.teacher_lists import ask_teacher, lists_summary
from tandemrec.data.split import Split
from tandemrec.experiment.code_version import code_version
from tandemrec.experiment.models import code_rooms
from tandemrec.experiment.seeds import derive_seed
from tandemrec.experiment.store import Artifact, plain
from tandemrec.recommender import Config

if TYPE_CHECKING:
    from tandemrec.experiment.stages import Stages

LISTS_OF_TEACHER = "teacher_lists.parquet"
"""What a teacher recommends at positions of the training histories."""


@dataclass
class Taught:
    """Makes, over one split, what students learn of systems that are trained."""

    stages: Stages
    split: Split
    cut: Artifact

    def lists(self, config: Config) -> Artifact | None:
        """The lists of a student's teacher; the same for all students that ask for the same."""
        if not isinstance(config, DLLM2RecConfig) or not config.ranking.weight:
            return None
        stages, teacher = self.stages, config.teacher
        seed = derive_seed(stages.recipe.seed, "teacher-lists")

        def make(draft: Path, work: Path) -> dict[str, Any]:
            frame = ask_teacher(stages.load_ranker(teacher), self.split, config.lists, seed=seed, workspace=work)
            frame.write_parquet(draft / LISTS_OF_TEACHER)
            return lists_summary(frame, self.split)

        model = stages.recipe.models[teacher]
        depends = {
            "split": self.cut.content,
            "teacher": stages.partners(model) | {teacher: stages.fitted[teacher].content},
            "config": plain(config.lists),
            "seed": seed if config.lists.sample is not None else None,
            "code": code_version("augmentation/teacher_lists.py", *code_rooms(model)),
        }
        return stages.get(f"lists:{teacher}", depends, make)
