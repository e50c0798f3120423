"""What conventional models learn of teachers and of language models' thoughts, as stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tandemrec.augmentation.dllm2rec import DLLM2RecConfig
from tandemrec.augmentation.llm_cf import LLMCFConfig
from tandemrec.augmentation.retrieval import encode_items
from tandemrec.augmentation.teacher_lists import ask_teacher, lists_summary
from tandemrec.augmentation.thoughts import think, thoughts_summary
from tandemrec.data.split import Split
from tandemrec.experiment.code_version import code_version
from tandemrec.experiment.files import hash_folder
from tandemrec.experiment.models import code_rooms
from tandemrec.experiment.seeds import derive_seed
from tandemrec.experiment.store import Artifact, plain
from tandemrec.recommender import Config

if TYPE_CHECKING:
    from tandemrec.experiment.stages import Stages

THOUGHT = ("augmentation/thoughts.py", "augmentation/thought_scores.py", "conventional/negatives.py")
"""The code that thoughts come from, beside the language model's."""

ENCODING = ("augmentation/retrieval.py", *(f"llm/{name}.py" for name in ("content", "sentences", "model")))
"""The code that an encoder's vectors of items come from."""

LISTS_OF_TEACHER = "teacher_lists.parquet"
"""What a teacher recommends at positions of the training histories."""


@dataclass
class Taught:
    """Makes, over one split, what joins the training of students and of LLM-CF; `content` is the split's."""

    stages: Stages
    split: Split
    content: str

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
            "split": self.content,
            "teacher": stages.partners(model) | {teacher: stages.fitted[teacher].content},
            "config": plain(config.lists),
            "seed": seed if config.lists.sample is not None else None,
            "code": code_version("augmentation/teacher_lists.py", *code_rooms(model)),
        }
        return stages.get(f"lists:{teacher}", depends, make, stages.foresights.lists(config, self.split))

    def thoughts(self, name: str, base: Artifact | None, identity: Any) -> Artifact | None:
        """Chains of thought about training examples; the same for all systems that ask the same model for the same.

        Args:
            name: of the system.
            base: the language model that was built for it.
            identity: content of that, or of the folder of one that exists.
        """
        config = self.stages.recipe.models[name]
        if not isinstance(config, LLMCFConfig):
            return None
        seed = derive_seed(self.stages.recipe.seed, "thoughts")

        def make(draft: Path, work: Path) -> dict[str, Any]:
            lm = config.load_language_model(base.path if base else None)
            frame = think(self.split, config.thoughts, lm, config.chat, draft, seed=seed, workspace=work)
            return thoughts_summary(frame)

        depends = {
            "split": self.content,
            "language_model": [plain(config.lm), identity],
            "chat": None if config.chat is None else plain(config.chat),
            "config": plain(config.thoughts),
            "seed": seed,
            "code": code_version(*THOUGHT, "llm"),
        }
        return self.stages.get("thoughts", depends, make, self.stages.foresights.thoughts(name, self.split))

    def item_vectors(self, name: str) -> Artifact | None:
        """An encoder's vectors of the items' texts; the same for all systems that find similar histories by it."""
        config, dataset = self.stages.recipe.models[name], self.split.dataset
        if not isinstance(config, LLMCFConfig) or config.encoder is None:
            return None
        encoder = config.encoder

        def make(draft: Path, work: Path) -> dict[str, Any]:
            return {"size": encode_items(dataset, encoder, draft)}

        depends = {
            "data": dataset.fingerprint,
            "config": plain(encoder),
            "encoder": hash_folder(encoder.folder()),
            "code": code_version(*ENCODING),
        }
        return self.stages.get("item-vectors", depends, make, self.stages.foresights.item_vectors(name, self.split))
