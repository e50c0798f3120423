"""What students and LLM-CF say they take, against torch's flop counter on whole trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tandemrec.augmentation.attributes import AttributesConfig, write_attributes
from tandemrec.augmentation.augmented_ratings import AugmentedRatingsConfig, ask_for_attributes
from tandemrec.augmentation.dllm2rec import DLLM2Rec, DLLM2RecConfig
from tandemrec.augmentation.llm_cf import LLMCF, LLMCFConfig
from tandemrec.augmentation.retrieval import encode_items
from tandemrec.augmentation.work import asked_positions, attributes_work, lists_work, thoughts_work
from tandemrec.conventional.direct.ease import EASEConfig
from tandemrec.conventional.sequential.sasrec import SASRecConfig
from tandemrec.data.split import Split
from tandemrec.llm.chat import ChatConfig
from tandemrec.llm.reader import reader_of
from tandemrec.llm.recommenders.base import PretrainedConfig
from tandemrec.llm.recommenders.rater import Rater, RaterConfig
from tandemrec.llm.traffic import TRAFFIC
from tandemrec.recommender import Config
from tandemrec.work import Scene, answer_work, fit_work
from tests.augmentation.test_dllm2rec import lists_file
from tests.augmentation.test_llm_cf import thoughts_of
from tests.counted import counted
from tests.fixed import Fixed

ONCE = {"epochs": 1, "patience": None, "clip_norm": None}
SASREC: dict[str, Any] = {"model": "sasrec", "dim": 16, "max_length": 5, "blocks": 1, "training": ONCE}


@pytest.mark.parametrize("student", ["sasrec", "dros"])
def test_a_student_takes_the_flops_it_says(split: Split, tmp_path: Path, nano_folder: Path, student: str) -> None:
    plain = SASREC if student == "sasrec" else {"model": "dros", "backbone": SASREC}
    settings = {"student": plain, "teacher": "T", "lists": {"items": 4}, "ranking": {"robust": student == "dros"}}
    config = DLLM2RecConfig.model_validate(settings)
    reader = reader_of(PretrainedConfig(path=str(nano_folder)), split.dataset)
    teacher = LLMCFConfig(lm=PretrainedConfig(path=str(nano_folder)))
    systems: dict[str, Config] = {"T": teacher}
    scene = Scene(split, systems, readers={"T": reader})
    said, without = fit_work(config, scene), fit_work(config.student, scene)
    assert said is not None
    assert without is not None
    model = DLLM2Rec(config, lists_file(split, tmp_path), torch.randn(24, reader.width))
    assert counted(lambda: model.fit(split)) == pytest.approx(said.flops, rel=0.15)
    assert said.flops > 1.02 * without.flops
    assert said.steps == without.steps
    assert answer_work(config, scene, split.test) == answer_work(config.student, scene, split.test)


@pytest.mark.parametrize(("share", "encoder"), [(1.0, None), (0.3, None), (1.0, {"kind": "tf-idf", "dim": 4})])
def test_llm_cf_takes_the_flops_it_says(
    split: Split, tmp_path: Path, nano_folder: Path, share: float, encoder: Any
) -> None:
    lm = {"build": "pretrained", "path": str(nano_folder)}
    settings = {"lm": lm, "backbone": SASREC, "share": share, "reconstruction": 1, "thoughts": {"questions": 60}}
    config = LLMCFConfig.model_validate(settings | {"encoder": encoder})
    reader = reader_of(config.lm, split.dataset)
    scene = Scene(split, {}, reader=reader)
    said = fit_work(config, scene)
    assert said is not None
    if config.encoder is not None:
        encode_items(split.dataset, config.encoder, tmp_path)
        plain = fit_work(config.model_copy(update={"encoder": None}), scene)
        assert plain is not None
        assert said.flops < plain.flops
    model = LLMCF(config, thoughts_of(split, tmp_path / "thoughts", size=reader.width), item_vectors=tmp_path)
    assert counted(lambda: model.fit(split)) == pytest.approx(said.flops, rel=0.2)
    answered = answer_work(config, scene, split.test)
    assert answered is not None
    assert counted(lambda: model.scores(split.test)) == pytest.approx(answered.flops, rel=0.2)


def test_lists_and_thoughts_are_foreseen(split: Split, nano_folder: Path) -> None:
    teacher, scene = SASRecConfig.model_validate(SASREC), Scene(split, {})
    lists = DLLM2RecConfig.model_validate({"student": SASREC, "teacher": "T", "lists": {"sample": 30}}).lists
    every = lists.model_copy(update={"sample": None, "positions": "sequences"})
    assert asked_positions(lists, split) == 30
    assert asked_positions(every, split) == len(split.train)
    few, all_of_them = (lists_work(teacher, some, scene) for some in (lists, every))
    assert few is not None
    assert all_of_them is not None
    assert all_of_them.flops == pytest.approx(few.flops * len(split.train) / 30)
    config = LLMCFConfig.model_validate({"lm": {"build": "pretrained", "path": str(nano_folder)}})
    reading = Scene(split, {}, reader=reader_of(config.lm, split.dataset))
    thought = thoughts_work(config, reading)
    assert thought is not None
    # As many tokens as there is room for, for each of three thoughts about every training example.
    assert thought.written == pytest.approx(len(split.train) * 3 * 64)
    chat = ChatConfig(url="http://localhost", model="toy", per_minute=60, output_price=2)
    remote = thoughts_work(config.model_copy(update={"chat": chat}), reading)
    assert remote is not None
    # Each example is asked about three times, a second a request passes at least, and answers may have 256 tokens.
    asked = 3 * len(split.train)
    assert (remote.requests, remote.paced, remote.unpaced) == (asked, asked, False)
    assert remote.written == pytest.approx(asked * 256)
    assert remote.fees == pytest.approx(asked * 256 * 2 / 1e6)
    assert remote.examples == len(split.train)


ASKED: dict[str, Any] = {
    "backbone": {"model": "fm", "features": {"items": ["genre"]}},
    "data": {"columns": {"genre": {"examples": {"Alien": "Horror"}}}, "max_new_tokens": 5},
}


def test_attributes_of_a_language_model_are_foreseen(split: Split, nano_folder: Path, tmp_path: Path) -> None:
    """Each title is asked about once a column; what is written ends before its limit, if it ends."""
    lm = {"build": "pretrained", "path": str(nano_folder)}
    rater = RaterConfig.model_validate({"base": "FM", "lm": lm, "finetune": None, "prompt": {"similar_user": False}})
    config = AugmentedRatingsConfig.model_validate(ASKED | {"by": "Rater"})
    systems: dict[str, Config] = {"Rater": rater}
    reader = reader_of(rater.lm, split.dataset)
    said = attributes_work(config, Scene(split, systems, readers={"Rater": reader}))
    assert said is not None
    judge = Rater(rater, Fixed(np.zeros((60, 24))))
    judge._lm = judge._load(str(nano_folder))
    before = TRAFFIC.now()
    ask_for_attributes(split, config, judge, tmp_path)
    assert TRAFFIC.read - before.read == said.read
    assert 0 < TRAFFIC.written - before.written <= said.written == 24 * 5
    borrowed = RaterConfig.model_validate({"base": "FM", "tuned": "Rater"})
    systems |= {"Again": borrowed}
    again = config.model_copy(update={"by": "Again"})
    assert attributes_work(again, Scene(split, systems, readers={"Rater": reader})) == said
    nobody = config.model_copy(update={"by": "EASE"})
    assert attributes_work(nobody, Scene(split, {"EASE": EASEConfig()})) is None


def test_attributes_of_a_chat_are_foreseen(split: Split) -> None:
    chat = {"url": "http://localhost", "model": "toy", "input_price": 1.0}
    said = attributes_work(AugmentedRatingsConfig.model_validate(ASKED | {"chat": chat}), Scene(split, {}))
    assert said is not None
    config = AttributesConfig.model_validate(ASKED["data"])
    asked: list[str] = []
    write_attributes(split, config, lambda _, prompts: asked.extend(prompts) or prompts)  # type: ignore[func-returns-value]
    assert said.requests == len(set(asked)) == 24
    assert said.read == pytest.approx(sum(map(len, asked)) / 4)
    assert said.fees == pytest.approx(said.read / 1e6)
    assert said.unpaced
