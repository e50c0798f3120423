"""What TIGER says it takes: counts against torch's flop counter, real parameters, steps and memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tandemrec.data.split import Split
from tandemrec.llm.content import content_vectors
from tandemrec.llm.id_model import IdModel, IdNetworkConfig, grow_ids
from tandemrec.llm.kmeans import kmeans, nearest
from tandemrec.llm.recommenders.tiger import TIGER, TIGERConfig
from tandemrec.llm.recommenders.work import IdPlant, clustering_work, content_work, nearest_work, semantic_ids_work
from tandemrec.llm.semantic_ids import SemanticIdsConfig, build_semantic_ids
from tandemrec.llm.traffic import TRAFFIC
from tandemrec.training import TrainingConfig
from tandemrec.training.optimizer import linear_weights, make_optimizer
from tandemrec.training.work import training_work
from tandemrec.work import NOTHING, Scene, Work, answer_work, fit_work, muon, switches
from tests.counted import counted
from tests.llm.recommenders.test_tiger import SETTINGS

NETWORK = {"dim": 48, "encoder_layers": 2, "decoder_layers": 3, "heads": 3, "head_dim": 20, "feed_forward": 64}
RQ_VAE = {"method": "rq-vae", "levels": 2, "codes": 8, "hidden": [64, 32], "latent": 8, "batch_size": 10}


def plant(**changes: Any) -> IdPlant:
    config = IdNetworkConfig.model_validate(NETWORK | {"dropout": 0} | changes)
    return IdPlant(config, (16, 16, 16, 5), 100, siblings=False)


@pytest.mark.parametrize("reading", ["causal", "bidirectional"])
def test_a_network_takes_the_flops_it_says(reading: str) -> None:
    said = plant(reading=reading)
    model = IdModel(said.config, said.written + said.users, said.written, said.length).train()
    assert said.parameters == sum(p.numel() for p in model.parameters())
    histories, known = torch.randint(2, 50, (6, 41)), torch.arange(1, 8).repeat(6, 1)
    answers = torch.randint(2, 50, (6, 7, 4))
    one = said.learned(6, 41, 7, True)
    assert counted(lambda: model(histories, known, answers)) == pytest.approx(one.flops, rel=0.01)
    found = counted(lambda: model(histories, known, answers).sum().backward())
    assert found == pytest.approx(one.differentiated().flops, rel=0.05)


def test_a_step_of_muon_takes_the_flops_it_says() -> None:
    said = plant()
    model = IdModel(said.config, said.written + said.users, said.written, said.length)
    shapes = [sorted(weight.shape) for weight in linear_weights(model)]
    assert sorted(shapes) == sorted(map(sorted, said.matrices))
    optimizer = make_optimizer(model, TrainingConfig(matrix_learning_rate=0.01))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert counted(optimizer.step) == sum(muon(*shape).flops for shape in said.matrices)
    training = TrainingConfig(epochs=3, patience=None)
    with_muon = training.model_copy(update={"matrix_learning_rate": 0.01})
    plain, more = (training_work(Work(steps=5), c, 9, NOTHING, matrices=said.matrices) for c in (training, with_muon))
    assert more.flops - plain.flops == pytest.approx(15 * sum(muon(*shape).flops for shape in said.matrices))


def test_growing_ids_takes_the_flops_it_says() -> None:
    said = plant()
    model = IdModel(said.config, said.written + said.users, said.written, said.length).eval()
    rows = torch.randint(2, 50, (6, 41)).tolist()
    with torch.no_grad():
        first = said.encode(6, 41) + said.decode(6, 41, 1, 1)
        logits = 2 * 6 * said.config.dim * said.written
        assert counted(lambda: grow_ids(model, rows)) == pytest.approx(first.flops + logits, rel=0.02)
        growing, _ = grow_ids(model, rows)
        tokens = torch.randint(2, 50, (6, 10))
        found = counted(lambda: growing.step(tokens, torch.zeros_like(tokens)))
    assert found == pytest.approx(said.decode(6, 41, 10, 1, read=False).flops + 10 * logits, rel=0.05)


@pytest.mark.parametrize("samples", ["sequences", "prefixes"])
@pytest.mark.parametrize("reading", ["causal", "bidirectional"])
def test_a_training_takes_the_steps_and_flops_it_says(split: Split, samples: str, reading: str) -> None:
    learning = {"batch_size": 32, "samples": samples, "judged": 30, "micro_batch_tokens": 256}
    training = {"epochs": 2, "learning_rate": 1e-3, "patience": None, "clip_norm": None, "validate_every": 2}
    network = SETTINGS["network"] | {"reading": reading}
    config = TIGERConfig.model_validate(
        SETTINGS | {"network": network, "learning": learning | {"training": training}, "beams": 5, "user_tokens": 7}
    )
    said = fit_work(config, Scene(split, {}))
    assert said is not None
    model, reports = TIGER(config), []
    ids = semantic_ids_work(config.ids, Scene(split, {}))
    found = counted(lambda: reports.append(model.fit(split, seed=3)))
    assert found == pytest.approx(said.flops + ids.flops / 2, rel=0.15)
    report = reports[0]
    assert (said.epochs, said.examples) == (2, report.notes["targets"])
    assert said.steps == report.epochs * len(model_steps(model, split))
    assert not said.stops_early
    answered = answer_work(config, Scene(split, {}), split.test)
    assert answered is not None
    asked = counted(lambda: model.rank(split.test, config.beams))
    assert asked == pytest.approx(answered.flops, rel=0.25)
    assert answered.memory < said.memory
    assert [text for text, _ in switches(config)] == ["batch_size=8"]


def model_steps(model: TIGER, split: Split) -> Any:
    from tandemrec.llm.id_training import IdTask, training_rows

    config = model.config
    shared = config.network.reading == "causal"
    rows = training_rows(split, config.learning.samples, config.max_items, shared=shared)
    return IdTask(model.module, model.tokens, rows, config.learning, 3, dict).steps(0)


def test_clusters_take_the_products_they_say() -> None:
    x_ND = torch.randn(300, 40)
    # In float64 a product takes as long as two.
    assert counted(lambda: nearest(x_ND, x_ND[:50])) == nearest_work(300, 50, 40).flops / 2
    found = counted(lambda: kmeans(x_ND, 20, np.random.default_rng(0), 3))
    assert found == pytest.approx(clustering_work(300, 20, 40, 3).flops / 2, rel=0.3)


def test_an_rq_vae_takes_the_flops_it_says(split: Split, tmp_path: Any) -> None:
    training = {"epochs": 4, "patience": None, "validate_every": 2, "clip_norm": None, "learning_rate": 1e-3}
    config = SemanticIdsConfig.model_validate(
        {"content": {"kind": "tf-idf", "dim": 16}, "quantiser": RQ_VAE | {"training": training}}
    )
    said = semantic_ids_work(config, Scene(split, {}))
    reports = []
    found = counted(lambda: reports.append(build_semantic_ids(split.dataset, config, tmp_path, seed=0)))
    doubled = said.flops - found
    assert 0 < doubled < 0.4 * found  # distances are in float64
    assert said.epochs == 4
    assert said.steps == 4 * -(-24 // 10)
    assert said.host_bytes > 0


def test_the_width_of_vectors_is_that_of_the_texts(split: Split) -> None:
    config = TIGERConfig.model_validate(SETTINGS)
    said = IdPlant.of(config, split.dataset)
    assert said.sizes[:2] == (5, 5)
    assert said.length == 3


@pytest.mark.parametrize("kind", ["language-model", "sentence-encoder"])
def test_vectors_of_models_take_the_flops_they_say(kind: str, tiny: Callable[[str], str], split: Split) -> None:
    settings = {"kind": kind, "path": tiny("llama")}
    config = SemanticIdsConfig.model_validate({"content": settings}).content
    said, width = content_work(config, Scene(split, {}))
    assert width == 32
    before = TRAFFIC.now()
    found = counted(lambda: content_vectors(split.dataset, config))
    assert found == pytest.approx(said.flops, rel=0.1)
    if kind == "language-model":
        assert TRAFFIC.read - before.read == said.read
