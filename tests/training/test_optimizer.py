"""Muon beside AdamW: which weights each moves, how far, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from tandemrec.errors import InputError
from tandemrec.llm.id_model import IdModel, IdNetworkConfig
from tandemrec.training import TrainingConfig
from tandemrec.training.engine import Engine
from tandemrec.training.optimizer import MuonAndAdamW, linear_weights, make_optimizer

CONFIG = TrainingConfig(learning_rate=0.01, matrix_learning_rate=0.02, weight_decay=0.1)


class Tied(nn.Module):
    """A table that is its own head, a layer between, and a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.layer, self.frozen = nn.Embedding(30, 8), nn.Linear(8, 24), nn.Linear(24, 8)
        self.head = nn.Linear(8, 30, bias=False)
        self.head.weight = self.table.weight
        self.frozen.requires_grad_(False)

    def forward(self, rows: Tensor) -> Tensor:
        out: Tensor = self.head(self.frozen(self.layer(self.table(rows)).tanh()))
        return out


def stepped(config: TrainingConfig, share: float = 1) -> tuple[Tied, dict[str, Tensor], dict[str, Tensor]]:
    """The module after one step at a share of the rates, its weights before, and their gradients."""
    module = Tied()
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    optimizer = make_optimizer(module, config)
    LambdaLR(optimizer, lambda step: share)
    module(torch.arange(30)).square().sum().backward()
    gradients = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    optimizer.step()
    return module, before, gradients


def test_the_first_step_of_a_matrix_has_the_gradients_directions_and_one_length() -> None:
    module, before, gradients = stepped(CONFIG)
    moved = before["layer.weight"] * (1 - 0.02 * 0.1) - module.layer.weight.detach()
    u, _, vh = torch.linalg.svd(gradients["layer.weight"], full_matrices=False)
    along = u.T @ moved @ vh.T / (0.02 * 3**0.5)  # a step is longer by the root of rows over columns
    assert along.diagonal().min() > 0.6 and along.diagonal().max() < 1.3, "what five Newton-Schulz steps leave"
    assert (along - along.diagonal().diag()).abs().max() < 0.05


def test_everything_else_moves_as_by_adamw() -> None:
    module, before, _ = stepped(CONFIG)
    usual, _, _ = stepped(CONFIG.model_copy(update={"matrix_learning_rate": None}))
    assert torch.equal(module.table.weight, usual.table.weight) and torch.equal(module.layer.bias, usual.layer.bias)
    assert not torch.equal(module.layer.weight, usual.layer.weight)
    assert torch.equal(module.frozen.weight, before["frozen.weight"])


def test_both_parts_learn_at_the_scheduled_rates() -> None:
    module, before, _ = stepped(CONFIG, share=0.5)
    slower = CONFIG.model_copy(update={"learning_rate": 0.005, "matrix_learning_rate": 0.01})
    for (name, found), wanted in zip(module.named_parameters(), stepped(slower)[0].parameters(), strict=True):
        assert torch.equal(found, wanted)
        assert torch.equal(found, before[name]) == name.startswith("frozen")


def test_a_tied_head_is_a_table() -> None:
    module = Tied()
    assert [id(weight) for weight in linear_weights(module)] == [id(module.layer.weight)]
    network = IdModel(IdNetworkConfig(dim=8, heads=1, head_dim=8, feed_forward=8), 40, 36, 3)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = {names[id(weight)] for weight in linear_weights(network)}
    assert len(found) == 4 * 6 + 4 * 10 and not any("shared" in name or "bias" in name for name in found)


def test_modules_of_tables_or_of_maps_alone_learn_too() -> None:
    for module in (nn.Embedding(5, 3), nn.Linear(5, 3, bias=False)):
        before = module.weight.detach().clone()
        optimizer = make_optimizer(module, CONFIG)
        module.weight.square().sum().backward()
        optimizer.step()
        assert not torch.equal(module.weight, before)


def test_restored_groups_and_state_are_those_of_both_parts() -> None:
    module = Tied()
    optimizer = make_optimizer(module, CONFIG)
    optimizer.load_state_dict(optimizer.state_dict())
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert all(torch.equal(parameter, before[name]) for name, parameter in module.named_parameters())
    assert isinstance(optimizer, MuonAndAdamW) and all(part.state is optimizer.state for part in optimizer.parts)


def test_shared_parameters_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match="Muon needs whole matrices, found processes that share parameters"):
        Engine(CONFIG, torch.device("cpu"), tmp_path, "training", may_shard=True)
