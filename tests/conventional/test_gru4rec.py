"""GRU4Rec's network against its equations."""

import numpy as np
import torch

from tandemrec.conventional.sequential.gru4rec import GRU4RecConfig, GRU4RecModule, time_major
from tandemrec.data.examples import Ragged


def test_states_follow_the_equations() -> None:
    """Equations 2 to 5 of the ICLR 2016 paper as torch writes them, item by item and row by row."""
    module = GRU4RecModule(GRU4RecConfig(dim=4, hidden=5), 9, seed=1).eval()
    rows = Ragged.from_lists([[1, 2, 3], [4], [5, 6, 7, 8, 0], [2, 2]])
    states = module.states(rows)
    w_in, w_state = module.gru.weight_ih_l0.chunk(3), module.gru.weight_hh_l0.chunk(3)
    b_in, b_state = module.gru.bias_ih_l0.chunk(3), module.gru.bias_hh_l0.chunk(3)
    expected = []
    for row in rows:
        h = torch.zeros(5)
        for item in row.tolist():
            x = module.item.weight[item]
            reset = torch.sigmoid(w_in[0] @ x + b_in[0] + w_state[0] @ h + b_state[0])
            update = torch.sigmoid(w_in[1] @ x + b_in[1] + w_state[1] @ h + b_state[1])
            candidate = torch.tanh(w_in[2] @ x + b_in[2] + reset * (w_state[2] @ h + b_state[2]))
            h = (1 - update) * candidate + update * h
            expected.append(module.out(h))
    torch.testing.assert_close(states, torch.stack(expected))
    torch.testing.assert_close(module.last(rows), states[[2, 3, 8, 10]])


def test_time_major_order() -> None:
    order, sizes = time_major(np.array([2, 4, 1]))
    assert order.tolist() == [2, 0, 6, 3, 1, 4, 5]
    assert sizes.tolist() == [3, 2, 1, 1]


def test_equal_seeds_give_equal_networks_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, two, other = (GRU4RecModule(GRU4RecConfig(dim=4), 9, seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one.gru.weight_hh_l0, two.gru.weight_hh_l0)
    assert not torch.equal(one.gru.weight_hh_l0, other.gru.weight_hh_l0)
