"""DLLM2Rec: a conventional sequence model that learns from a language model's lists and item vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import polars as pl
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tandemrec.augmentation.distillation import ListLesson, Offset, RankingDistillationConfig, TeacherLists
from tandemrec.augmentation.teacher_lists import TeacherListsConfig
from tandemrec.conventional.sequential.dros import DROS, DROSConfig, DROSModule
from tandemrec.conventional.sequential.gru4rec import GRU4Rec, GRU4RecConfig
from tandemrec.conventional.sequential.model import SequenceModel
from tandemrec.conventional.sequential.module import SequenceModule
from tandemrec.conventional.sequential.next_item import NextItem
from tandemrec.conventional.sequential.sasrec import SASRec, SASRecConfig
from tandemrec.data.examples import Examples
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.recommender import Config, FitReport, Scorer

StudentConfig = Annotated[SASRecConfig | GRU4RecConfig | DROSConfig, Field(discriminator="model")]

STUDENTS: dict[type[Config], type[SequenceModel[Any, Any]]] = {
    SASRecConfig: SASRec,
    GRU4RecConfig: GRU4Rec,
    DROSConfig: DROS,
}


class DLLM2RecConfig(Config):
    """Who teaches whom, and how much of it counts.

    With `ranking.weight` and `embedding_weight` 0 the student is its plain self, bit for bit.
    """

    model: Literal["dllm2rec"] = "dllm2rec"
    """Which model this is."""

    student: StudentConfig
    """The model that is trained, with its own loss, training and choice of the epoch on validation."""

    teacher: str
    """The trained system whose lists are distilled: BIGRec in the paper, here any of the recipe that recommends, also
    one that the recipe takes from an earlier run (`trained`)."""

    vectors: str | None = None
    """The system whose item vectors join the student's; null: the teacher. BIGRec's are those of its titles."""

    lists: TeacherListsConfig = TeacherListsConfig()
    """What the teacher is asked."""

    ranking: RankingDistillationConfig = RankingDistillationConfig()
    """How its lists count."""

    embedding_weight: float = Field(0.3, ge=0)
    """w_e of e_i = b_i + w_e (W z_i + c), z_i being the teacher's item vectors; 0: none of it."""

    @model_validator(mode="after")
    def _robust_is_for_dros(self) -> Self:
        if self.ranking.robust and not isinstance(self.student, DROSConfig):
            raise ValueError(f"ranking.robust is for students that are DROS, found '{self.student.model}'")
        return self

    def partners(self) -> tuple[str, ...]:
        """Whom it learns from."""
        lists = (self.teacher,) if self.ranking.weight else ()
        vectors = (self.vectors or self.teacher,) if self.embedding_weight else ()
        return tuple(dict.fromkeys((*lists, *vectors)))


class DLLM2Rec(Scorer):
    """Cui et al., Distillation Matters: Empowering Sequential Recommenders to Match the Performance of LLMs (2024).

    Once trained it is its student: the item table is stored as it came out, so answering needs no language model and
    costs what the plain student costs.
    """

    def __init__(self, config: DLLM2RecConfig, lists: Path | None = None, vectors: Tensor | None = None) -> None:
        """Configure.

        Args:
            config: the configuration.
            lists: parquet file of `teacher_lists.ask_teacher`, which training needs.
            vectors: (I, Z) item vectors of the teacher, likewise.
        """
        self.config, self.lists, self.vectors = config, lists, vectors
        self.student: SequenceModel[Any, Any] = STUDENTS[type(config.student)](config.student)

    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        """Train the student; `split.valid` chooses the epoch by NDCG@10.

        Raises:
            InputError: if what the teacher gives is missing or does not fit.
        """
        config, student = self.config, self.student
        module = student.module_for(split, seed).to(student.device)
        if config.embedding_weight:
            vectors_IZ = self._fitting_vectors(split)
            offset = Offset(vectors_IZ.cpu(), item_embedding(module).embedding_dim, config.embedding_weight, seed)
            parametrize.register_parametrization(item_embedding(module), "weight", offset.to(student.device))
        task = student.make_task(module, split, seed)
        assert isinstance(task, NextItem)
        notes: dict[str, Any] = {}
        if config.ranking.weight:
            if self.lists is None:
                raise InputError(f"the lists of the teacher '{config.teacher}' must be written first")
            lists = TeacherLists.of(pl.read_parquet(self.lists), len(split.sequences.values), config.ranking)
            task.also = lesson = ListLesson(task, lists, config.ranking, only_unseen=config.lists.exclude_seen)
            notes = {"lists": len(lists.items_nK), "positions_with_a_list": lesson.used}
        report = student.learn(module, task, seed=seed, workspace=workspace)
        if config.embedding_weight:
            parametrize.remove_parametrizations(item_embedding(module), "weight", leave_parametrized=True)
        self._adopt(module)
        report.notes |= notes
        return report

    def scores(self, examples: Examples) -> Tensor:
        """Scores (B, I) of the student."""
        return self.student.scores(examples)

    def rows_at_once(self, n_items: int) -> int:
        """The student's."""
        return self.student.rows_at_once(n_items)

    def save(self, directory: Path) -> None:
        """`config.json`, and the student in a folder of its own."""
        self.config.write(directory)
        self.student.save(directory / "student")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote."""
        config = DLLM2RecConfig.read(directory)
        model = cls(config)
        model.student = STUDENTS[type(config.student)].load(directory / "student")
        model.item_vectors = model.student.item_vectors
        return model

    def _adopt(self, module: SequenceModule) -> None:
        self.student.adopt(module)
        self.item_vectors = self.student.item_vectors

    def _fitting_vectors(self, split: Split) -> Tensor:
        name = self.config.vectors or self.config.teacher
        if self.vectors is None:
            raise InputError(f"the model '{name}' has no item vectors to distil; name one in 'vectors' that has")
        if len(self.vectors) != split.n_items:
            raise InputError(f"'{name}' has vectors of {len(self.vectors):,} items, expected {split.n_items:,}")
        return self.vectors


def item_embedding(module: SequenceModule) -> nn.Embedding:
    """The table that a network looks items up in."""
    return module.backbone.item if isinstance(module, DROSModule) else module.item
