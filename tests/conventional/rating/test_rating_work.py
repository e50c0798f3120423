"""What rating models say they take, against torch's flop counter and their real parameters."""

from typing import Any

import pytest
import torch

from tandemrec.conventional.rating.afm import AFMConfig
from tandemrec.conventional.rating.autoint import AutoIntConfig
from tandemrec.conventional.rating.dcn import DCNConfig
from tandemrec.conventional.rating.deepfm import DeepFMConfig
from tandemrec.conventional.rating.fm import FMConfig
from tandemrec.conventional.rating.nfm import NFMConfig
from tandemrec.conventional.rating.work import interaction_work
from tandemrec.conventional.rating.xdeepfm import XDeepFMConfig
from tests.counted import counted

CONFIGS: list[Any] = [
    FMConfig(),
    DeepFMConfig(),
    NFMConfig(),
    DCNConfig(),
    DCNConfig(cross="matrix"),
    AFMConfig(),
    AutoIntConfig(),
    AutoIntConfig(layers=()),
    XDeepFMConfig(),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model)
def test_interactions_take_the_flops_they_say(config: Any) -> None:
    size, fields = 256, 6
    module = config.interactions(fields).train()
    vectors = torch.randn(size, fields, config.dim, requires_grad=True)
    said = interaction_work(config, size, fields, True)
    # Inner products with a single vector are left to traffic.
    slack = 0.03 * said.flops + 8 * size * fields * config.dim
    assert counted(lambda: module(vectors)) == pytest.approx(said.flops, abs=slack)
    assert counted(lambda: module(vectors).sum().backward()) == pytest.approx(3 * said.flops, abs=3 * slack)
