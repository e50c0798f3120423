"""What selectors say they take, against torch's flop counter and the tokens that are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tandemrec.conventional.sequential.sasrec import SASRec, SASRecConfig
from tandemrec.data.split import Split
from tandemrec.llm.prompts import PromptConfig
from tandemrec.llm.reader import reader_of
from tandemrec.llm.recommenders.base import PretrainedConfig
from tandemrec.llm.recommenders.bigrec import BIGRec, BIGRecConfig
from tandemrec.llm.traffic import TRAFFIC
from tandemrec.recommender import Config
from tandemrec.selection.ccs import CCS, CCSConfig
from tandemrec.selection.clustering import k_means
from tandemrec.selection.dealrec import DEALRecConfig
from tandemrec.selection.el2n import EL2N, EL2NConfig
from tandemrec.selection.grand import GraNd, GraNdConfig
from tandemrec.selection.recranker import RecRanker, RecRankerConfig
from tandemrec.selection.surrogate import Surrogate, SurrogateConfig
from tandemrec.selection.tf_dcon import TFDCon, TFDConConfig
from tandemrec.selection.work import clustering_work, select_work
from tandemrec.work import Scene, Work
from tests.counted import counted
from tests.llm.conftest import nano_folder, split, toy  # noqa: F401

SASREC = SASRecConfig(dim=16, max_length=5, blocks=1)
LOSS = SurrogateConfig()


@pytest.fixture(scope="module")
def judge(split: Split) -> SASRec:  # noqa: F811
    model = SASRec(SASREC, "cpu")
    model.adopt(model.module_for(split, 0))
    return model


def foreseen(selector: Any, split: Split, scene: Scene | None = None, writer: Config | None = None) -> Work:  # noqa: F811
    said = select_work(selector, SASREC, LOSS, scene or Scene(split, {}), writer)
    assert said is not None
    return said


def test_clusters_take_the_products_they_say() -> None:
    vectors_ND = torch.randn(400, 24)
    assert counted(lambda: k_means(vectors_ND, 12, 0, iterations=3)) == clustering_work(400, 12, 24, 3).flops


def test_errors_take_the_flops_they_say(split: Split, judge: SASRec) -> None:  # noqa: F811
    surrogate, train = Surrogate.of(judge, LOSS), split.train
    said = foreseen(EL2NConfig(), split)
    assert counted(lambda: EL2N([surrogate]).scores(train)) == pytest.approx(said.flops, rel=0.05)
    assert foreseen(CCSConfig(), split) == said
    assert counted(lambda: CCS(CCSConfig(), [surrogate]).scores(train)) == pytest.approx(said.flops, rel=0.05)


def test_gradients_take_the_flops_they_say(split: Split, judge: SASRec) -> None:  # noqa: F811
    said, surrogate = foreseen(GraNdConfig(), split), Surrogate.of(judge, LOSS)
    assert 0.4 < counted(lambda: GraNd([surrogate]).scores(split.train)) / said.flops < 1.5


def test_clustering_selectors_are_foreseen(split: Split, judge: SASRec, nano_folder: Path) -> None:  # noqa: F811
    """All but the rounds of k-means, of which few examples take fewer than they may."""
    config = BIGRecConfig(
        lm=PretrainedConfig(path=str(nano_folder)), prompt=PromptConfig(template="compact", history=3)
    )
    reader, count = reader_of(config.lm, split.dataset), len(split.train)
    writer = BIGRec(config)
    writer.start(split.dataset.titles)
    lm = writer.language_model
    kinds = [lambda examples: judge.encode(examples.history), lambda examples: lm.encode(writer.prompt_texts(examples))]
    settings, before = TFDConConfig(clusters=4), TRAFFIC.now()
    found = counted(lambda: TFDCon(settings, kinds).select(split.train, 10))
    said = foreseen(settings, split, Scene(split, {}, reader=reader), config)
    rounds = clustering_work(count, 4, 16 + reader.width).flops
    assert 0.85 * (said.flops - rounds) < found < 1.15 * said.flops  # padding is not foreseen
    assert TRAFFIC.read - before.read == pytest.approx(said.read, rel=0.01)
    assert said.examples == count

    shorter = RecRankerConfig(clusters=4)
    found = counted(lambda: RecRanker(shorter, kinds[0]).select(split.train, 10))
    said = foreseen(shorter, split)
    assert said.flops - clustering_work(count, 4, 16).flops < found < said.flops


def test_what_needs_no_model_is_little_and_what_has_no_formula_is_unknown(split: Split) -> None:  # noqa: F811
    assert select_work(DEALRecConfig(), None, LOSS, Scene(split, {})) is not None
    assert select_work(EL2NConfig(), BIGRecConfig(lm=PretrainedConfig(path="x")), LOSS, Scene(split, {})) is None
