"""RQ-VAE: its loss against a literal transcription, its codes from a seed, and dead codes that come to life."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tandemrec.data.examples import IntArray
from tandemrec.llm.kmeans import nearest, residual_kmeans
from tandemrec.llm.rq_vae import REVIVED, RQVAE, START_ROUNDS, RQVAEConfig, _Learning, fit_rq_vae, revive
from tandemrec.training import TrainingConfig

BRIEF = TrainingConfig(epochs=4, learning_rate=3e-3, patience=None, validate_every=2)
CONFIG = RQVAEConfig(levels=3, codes=8, hidden=(12,), latent=5, commitment=0.6, batch_size=32, training=BRIEF)
X = torch.from_numpy(np.random.default_rng(1).normal(size=(80, 6)).astype(np.float32))


@pytest.fixture
def module() -> RQVAE:
    torch.manual_seed(2)
    module = RQVAE(CONFIG, 6)
    torch.nn.init.normal_(module.books_LKD)
    return module


def test_the_loss_is_the_papers(module: RQVAE) -> None:
    found = module(X[:10])
    for row, loss in zip(X[:10], found, strict=True):
        residual = module.encoder(row)
        latent, decoded_from, wanted = residual, torch.zeros(5), torch.zeros(())
        for level in range(3):
            book = module.books_LKD[level]
            squares = [float(((residual - entry) ** 2).sum().detach()) for entry in book]
            entry = book[squares.index(min(squares))]
            wanted = wanted + ((residual.detach() - entry) ** 2).sum() + 0.6 * ((residual - entry.detach()) ** 2).sum()
            decoded_from, residual = decoded_from + entry, residual - entry
        passed = latent + (decoded_from - latent).detach()
        wanted = wanted + ((row - module.decoder(passed)) ** 2).sum()
        torch.testing.assert_close(loss, wanted, atol=1e-5, rtol=1e-5)
        gradients = [torch.autograd.grad(value, module.parameters(), retain_graph=True) for value in (loss, wanted)]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_codes_come_from_the_seed(tmp_path: Path) -> None:
    (one, report), (other, _) = fit_rq_vae(X, CONFIG, seed=3), fit_rq_vae(X, CONFIG, seed=3, workspace=tmp_path)
    assert torch.equal(one.codes(X)[0], other.codes(X)[0])
    assert [row["epoch"] for row in report.curve] == [2, 4]
    assert report.curve[-1]["fit"] > report.curve[0]["fit"]
    assert not torch.equal(one.codes(X)[0], fit_rq_vae(X, CONFIG, seed=4)[0].codes(X)[0])


def test_codes_stand_for_the_vectors_they_decode_to(module: RQVAE) -> None:
    codes, before = module.codes(X)
    latent = module.encoder(X)
    for row in (0, 7, 79):
        chosen = torch.stack([module.books_LKD[level][codes[row, level]] for level in range(3)])
        torch.testing.assert_close(before[1][row], latent[row] - chosen[0])
        torch.testing.assert_close(module.decoded(codes)[row], module.decoder(chosen.sum(0)))


def test_books_start_at_residual_kmeans_of_the_encoders_output(module: RQVAE) -> None:
    latent_ND = module.encoder(X).detach()
    _Learning(module, X, CONFIG, 7).begin_epoch(0, [], {})
    wanted_LKD, _ = residual_kmeans(latent_ND, 3, 8, np.random.default_rng([7, 0, 1]), START_ROUNDS)
    assert torch.equal(module.books_LKD, wanted_LKD)
    for book_KD in module.books_LKD.detach():
        code_N, _ = nearest(latent_ND, book_KD)
        means_KD = torch.stack([latent_ND[code_N == code].mean(0) for code in range(8)])
        torch.testing.assert_close(book_KD, means_KD, atol=1e-5, rtol=1e-4)
        latent_ND = latent_ND - book_KD[code_N]


def test_dead_codes_are_revived(module: RQVAE) -> None:
    with torch.no_grad():
        module.books_LKD[:, 1:] = 1e6
    assert set(module.codes(X)[0][:, 0].tolist()) == {0}
    assert revive(module, X, np.random.default_rng(0)) == 3 * 7
    assert float(module.books_LKD.detach().abs().max()) < 1e3
    codes, _ = module.codes(X)
    assert len(set(codes[:, 0].tolist())) > 5
    trained, _ = fit_rq_vae(X, CONFIG, seed=5)
    assert all(len(set(level.tolist())) > 4 for level in trained.codes(X)[0].T)


def test_a_killed_epoch_is_not_revived_again(module: RQVAE) -> None:
    task, memory = _Learning(module, X, CONFIG, 0), {}
    task.begin_epoch(0, [], memory)
    started = module.books_LKD.detach().clone()
    assert memory == {REVIVED: 0.0}
    with torch.no_grad():
        module.books_LKD += 100
    task.begin_epoch(0, [], memory)  # after a resume
    assert torch.equal(module.books_LKD, started + 100)
    task.begin_epoch(1, [], memory)
    assert not torch.equal(module.books_LKD, started + 100)


def test_a_killed_training_ends_with_the_same_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIG.model_copy(update={"training": BRIEF.model_copy(update={"checkpoint_seconds": 0.0})})
    whole, _ = fit_rq_vae(X, config, seed=6)
    loss, calls = _Learning.loss, []

    def killed(self: _Learning, batch: IntArray) -> torch.Tensor:
        calls.append(batch)
        if len(calls) == 8:  # in the middle of the third epoch of three steps each
            raise KeyboardInterrupt
        return loss(self, batch)

    monkeypatch.setattr(_Learning, "loss", killed)
    with pytest.raises(KeyboardInterrupt):
        fit_rq_vae(X, config, seed=6, workspace=tmp_path)
    again, _ = fit_rq_vae(X, config, seed=6, workspace=tmp_path)
    assert len(calls) == 8 + 5
    for one, other in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other)
