"""What language models say they take: counts against torch's flop counter, real parameters and real tokens."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from tandemrec.data.split import Split
from tandemrec.llm.finetune import FineTuneConfig, prepare
from tandemrec.llm.generate import GenerationConfig
from tandemrec.llm.model import LanguageModel
from tandemrec.llm.nano import NanoConfig
from tandemrec.llm.prompts import PromptConfig
from tandemrec.llm.reader import reader_of
from tandemrec.llm.recommenders.base import PretrainedConfig
from tandemrec.llm.recommenders.bigrec import BIGRec, BIGRecConfig
from tandemrec.llm.traffic import TRAFFIC
from tandemrec.llm.work import Lesson, Plant
from tandemrec.training import TrainingConfig
from tandemrec.work import Scene, answer_work, fit_work, switches
from tests.counted import counted
from tests.llm.conftest import ARCHITECTURES


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_reader_has_the_measures_of_its_model(architecture: str, tiny: Callable[[str], str], split: Split) -> None:
    folder = tiny(architecture)
    reader, lm = reader_of(PretrainedConfig(path=folder), split.dataset), LanguageModel.load(folder)
    assert reader.parameters == sum(p.numel() for p in lm.model.parameters())
    assert (reader.bos, reader.eos, reader.context) == (lm.bos, lm.eos, lm.context)
    texts = ["Star 1", 'met: "Dragon 2"\nnext:']
    assert reader.tokenize(texts) == lm.tokenize(texts)
    tuned = prepare(lm, FineTuneConfig(rank=3), 0)
    assert reader.adapter(3) == sum(p.numel() for p in tuned.model.parameters() if p.requires_grad)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_pass_takes_the_flops_it_says(architecture: str, tiny: Callable[[str], str], split: Split) -> None:
    folder = tiny(architecture)
    lm, plant = LanguageModel.load(folder), Plant(reader_of(PretrainedConfig(path=folder), split.dataset), False, 4)
    rng = np.random.default_rng(0)
    prompts, answers = (rng.integers(5, 100, (6, size)).tolist() for size in (30, 5))
    packed = lm.packed(prompts, [[answer] for answer in answers])
    rows, width = packed.ids_RT.shape
    said, scorer = plant.forward(rows, width, 6 * 5), lm.scorer
    with torch.no_grad():
        assert counted(lambda: scorer(packed)) == pytest.approx(said.flops, rel=0.02)
    learned = counted(lambda: scorer(packed).sum().backward())
    assert learned == pytest.approx(plant.tuned(rows, width, 30, FineTuneConfig(tuning="full")).flops, rel=0.05)


def test_an_adapter_takes_the_flops_it_says(tiny: Callable[[str], str], split: Split) -> None:
    folder, config = tiny("llama"), FineTuneConfig(rank=4, dropout=0)
    plant = Plant(reader_of(PretrainedConfig(path=folder), split.dataset), False, 4)
    lm = prepare(LanguageModel.load(folder), config, 0)
    packed = lm.packed([[7] * 40] * 4, [[[8] * 6]] * 4)
    rows, width = packed.ids_RT.shape
    found = counted(lambda: lm.scorer(packed).sum().backward())
    # Below the first adapter nothing is differentiated, which is much of a model of two layers.
    assert found == pytest.approx(plant.tuned(rows, width, 24, config).flops, rel=0.25)


def test_texts_are_read_as_far_as_the_context_goes(nano_folder: Path, split: Split) -> None:
    lm, reader = LanguageModel.load(str(nano_folder)), reader_of(PretrainedConfig(path=str(nano_folder)), split.dataset)
    texts = [*split.dataset.titles[:5], "word " * 3 * lm.context]
    before = TRAFFIC.read
    lm.encode(texts)
    assert Plant(reader, False, 4).encoded(texts).read == TRAFFIC.read - before


def test_tokens_of_a_nano_model_are_counted_before_it_is_built(nano_folder: Path, split: Split) -> None:
    config = NanoConfig(millions=0.05, vocabulary=300, context=128, row_tokens=32, repeats=2)
    foreseen, built = reader_of(config, split.dataset), reader_of(config, split.dataset, nano_folder)
    texts = [*split.dataset.titles, "Yes", " No", "4.0"]
    assert foreseen.tokenize(texts) == built.tokenize(texts)
    assert (foreseen.parameters, foreseen.bos, foreseen.eos) == (built.parameters, built.bos, built.eos)


def test_tokens_are_those_that_are_read_and_written(nano_folder: Path, split: Split) -> None:
    """The prediction of a fit and of its answers, with the real tokenizer, against the report and the meter."""
    config = BIGRecConfig(
        lm=PretrainedConfig(path=str(nano_folder)),
        prompt=PromptConfig(template="compact", history=3),
        finetune=FineTuneConfig(
            tuning="full", batch_size=16, training=TrainingConfig(epochs=2, learning_rate=1e-3, patience=None)
        ),
        generation=GenerationConfig(beams=2, batch_size=16),
    )
    scene = Scene(split, {}, reader=reader_of(config.lm, split.dataset))
    model = BIGRec(config)
    report = model.fit(split)
    said = fit_work(config, scene)
    assert said is not None
    titles = sum(len(ids) + 1 for ids in model.language_model.tokenize(split.dataset.titles))
    validated = 2 * model.answered(split.valid).tokens()
    assert said.read == pytest.approx(report.notes["tokens"] + titles + validated, rel=0.02)
    assert (said.epochs, said.steps) == (2, 2 * -(-len(split.train) // 16))

    before = TRAFFIC.now()
    model.complete(split.test)
    different = len({tuple(prompt) for prompt in model.prompts(split.test)})
    answered = answer_work(config, scene, split.test)
    assert answered is not None
    read, written = TRAFFIC.read - before.read, TRAFFIC.written - before.written
    assert read == sum(map(len, {tuple(prompt) for prompt in model.prompts(split.test)}))
    assert answered.read * different / len(split.test) == pytest.approx(read, rel=0.1)
    assert 0 < written <= 2 * different * model._answer_budget()


def whole(folder: str) -> BIGRecConfig:
    """All weights of a model are tuned."""
    return BIGRecConfig(
        lm=PretrainedConfig(path=folder),
        prompt=PromptConfig(template="compact"),
        finetune=FineTuneConfig(tuning="full"),
    )


def test_switches_save_memory_one_after_the_other(tiny: Callable[[str], str], split: Split) -> None:
    config = whole(tiny("llama"))
    scene = Scene(split, {}, "cuda", reader_of(config.lm, split.dataset))
    first = fit_work(config, scene)
    assert first is not None
    memory, said = [first.memory], []
    for text, smaller in switches(config):
        work = fit_work(smaller, scene)
        assert work is not None
        memory.append(work.memory)
        said.append(text)
    assert said[:3] == [
        "finetune.micro_batch_tokens=512",
        "finetune.gradient_checkpointing=true",
        "finetune.tuning=lora",
    ]
    assert all(a >= b for a, b in pairwise(memory))
    assert memory[-1] < memory[0] / 2


def test_training_memory_is_that_of_the_tensors(tiny: Callable[[str], str], split: Split) -> None:
    """Weights, gradients, two moments and the best copy of every parameter, plus activations."""
    config = whole(tiny("llama"))
    reader = reader_of(config.lm, split.dataset)
    work = fit_work(config, Scene(split, {}, reader=reader))
    assert work is not None
    plant, lesson = Plant.of(Scene(split, {}, reader=reader), config), None
    lesson = Lesson.of(config, plant, split)
    assert lesson.budget == max(lesson.titles)
    assert (
        20 * reader.parameters
        < work.memory
        < 20 * reader.parameters + 2 * plant.kept(4096 + 200, 2000, config.finetune)
    )
