"""The encoder–decoder against the library's own, shared rows against separate ones, growing ids against whole ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import T5ForConditionalGeneration

from tandemrec.llm.id_model import (
    FIRST_DIGIT,
    PAD,
    IdModel,
    IdNetworkConfig,
    Reading,
    children_logsumexp,
    grow_ids,
)
from tandemrec.llm.trie import Trie
from tandemrec.training.dropout import Dropout

LENGTH, VOCABULARY, WRITTEN = 3, 40, 36
HISTORIES = [[37, *range(5, 17)], [38, 9, 20, 30, 4, 18, 33], [39]]


def network(reading: Reading) -> IdModel:
    shape = {"encoder_layers": 2, "decoder_layers": 2, "heads": 2, "head_dim": 8, "feed_forward": 48, "dropout": 0.0}
    torch.manual_seed(4)
    config = IdNetworkConfig.model_validate({"dim": 24, "reading": reading} | shape)
    return IdModel(config, VOCABULARY, WRITTEN, LENGTH).eval()


def padded(histories: list[list[int]]) -> torch.Tensor:
    width = max(map(len, histories))
    return torch.tensor([row + [PAD] * (width - len(row)) for row in histories])


def answers(*shape: int) -> torch.Tensor:
    return torch.randint(FIRST_DIGIT, WRITTEN, (*shape, LENGTH), generator=torch.Generator().manual_seed(0))


def test_it_is_the_librarys_t5() -> None:
    model, wanted_BL = network("bidirectional"), answers(3)
    usual = T5ForConditionalGeneration(model.t5.config)
    usual.load_state_dict(model.t5.state_dict())
    usual.set_attn_implementation("eager")
    tokens_BS, known_B1 = padded(HISTORIES), torch.tensor([[4], [2], [0]])
    with torch.no_grad():
        found = model(tokens_BS, known_B1, wanted_BL[:, None])[:, 0]
        out = usual.eval()(input_ids=tokens_BS, attention_mask=(tokens_BS != PAD).long(), labels=wanted_BL)
    log_p = out.logits[:, :, :WRITTEN].log_softmax(2).gather(2, wanted_BL[:, :, None])[:, :, 0]
    torch.testing.assert_close(found, log_p, atol=1e-5, rtol=1e-5)


def test_dropout_is_everywhere_where_the_library_has_it() -> None:
    config = IdNetworkConfig(
        dim=8, encoder_layers=1, decoder_layers=1, heads=1, head_dim=8, feed_forward=8, dropout=0.3
    )
    model = IdModel(config, VOCABULARY, WRITTEN, LENGTH)
    usual = T5ForConditionalGeneration(model.t5.config)
    wanted = {name for name, module in usual.named_modules() if isinstance(module, nn.Dropout)}
    found = {name: module.probability for name, module in model.t5.named_modules() if isinstance(module, Dropout)}
    assert wanted and found == dict.fromkeys(wanted, 0.3)
    assert not any(isinstance(module, nn.Dropout) for module in model.modules())


def test_questions_of_a_row_are_those_of_separate_rows() -> None:
    model, tokens_BS = network("causal"), padded(HISTORIES[:2])
    known_BM, answers_BML = torch.tensor([[4, 1, 0, 3], [2, 0, 1, 1]]), answers(2, 4)
    together = model(tokens_BS, known_BM, answers_BML)
    apart = [
        model(tokens_BS[b : b + 1, : 1 + LENGTH * int(known)], known[None, None], answers_BML[b : b + 1, m : m + 1])
        for b in range(2)
        for m, known in enumerate(known_BM[b])
    ]
    separate = torch.cat([one[0] for one in apart]).view(2, 4, LENGTH)
    torch.testing.assert_close(together, separate, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad(value.sum(), list(model.parameters())) for value in (together, separate)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("reading", ["bidirectional", "causal"])
def test_what_follows_plays_no_part(reading: Reading) -> None:
    """A causal reader's questions do not see later items; nobody's sees other rows or padding."""
    model = network(reading)
    known_B1, wanted = torch.tensor([[2]]), answers(1, 1)
    alone = model(padded([HISTORIES[1]]), known_B1, wanted)
    wide = torch.nn.functional.pad(padded([HISTORIES[1]]), (0, 9), value=PAD)
    torch.testing.assert_close(model(wide, known_B1, wanted), alone, atol=1e-5, rtol=1e-5)
    longer = padded([[*HISTORIES[1], 7, 8, 9]])
    same = torch.allclose(model(longer, known_B1, wanted), alone, atol=1e-5)
    assert same == (reading == "causal")


@pytest.mark.parametrize("reading", ["bidirectional", "causal"])
def test_growing_ids_have_the_probabilities_of_whole_ones(reading: Reading) -> None:
    model, paths = network(reading), answers(3, 2)
    swapped_BQ = torch.tensor([[1, 0]] * 3)
    with torch.no_grad():
        whole = model(padded(HISTORIES), torch.tensor([[4, 4], [2, 2], [0, 0]]), paths)
        growing, logits_BV = grow_ids(model, HISTORIES)
        first = logits_BV.log_softmax(1).gather(1, paths[:, :, 0])
        # The two ids change places behind the first digit; behind the second one a prompt leaves.
        logits_BQV = growing.step(paths[:, :, 0], torch.zeros(3, 2, dtype=torch.long))
        second = logits_BQV.log_softmax(2).gather(2, paths[:, :, 1:2])[:, :, 0]
        left = torch.tensor([0, 2])
        growing.keep(left)
        logits_BQV = growing.step(paths[left][:, :, 1].flip(1), swapped_BQ[left])
        third = logits_BQV.log_softmax(2).gather(2, paths[left][:, :, 2:3].flip(1))[:, :, 0].flip(1)
    torch.testing.assert_close(first, whole[:, :, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(second, whole[:, :, 1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(third, whole[left][:, :, 2], atol=1e-5, rtol=1e-5)


def test_sums_over_children_are_those_of_a_loop() -> None:
    logits_NV = torch.randn(4, 9, generator=torch.Generator().manual_seed(1)) * 40
    token_N = torch.tensor([-1, 3, 8, 0, 1, 2, 5])
    begin_N, stop_N = torch.tensor([1, 3, 6, 1]), torch.tensor([3, 6, 7, 7])
    logits_NV.requires_grad_()
    found = children_logsumexp(logits_NV, token_N, begin_N, stop_N)
    rows = [logits_NV[n, token_N[begin_N[n] : stop_N[n]]].logsumexp(0) for n in range(4)]
    torch.testing.assert_close(found, torch.stack(rows))
    one, other = (torch.autograd.grad(value.sum(), logits_NV, retain_graph=True)[0] for value in (found, sum(rows)))
    torch.testing.assert_close(one, other)


def test_among_ids_of_a_catalogue_probabilities_sum_to_one() -> None:
    model = network("causal")
    ids = [[2 + a, 14 + b, 26 + c] for a, b, c in [(0, 0, 0), (0, 0, 1), (0, 3, 2), (5, 3, 2), (5, 4, 2), (9, 9, 9)]]
    every = torch.tensor(ids)[None].expand(3, -1, -1)
    known = torch.tensor([[4], [2], [0]]).expand(-1, len(ids))
    free = model(padded(HISTORIES), known, every)
    model.catalogue = Trie.build(ids)
    among = model(padded(HISTORIES), known, every)
    torch.testing.assert_close(among.sum(2).exp().sum(1), torch.ones(3))
    # Where there is one way on, it is certain; where there are two, only their odds are left.
    assert not among[:, 5, 1:].any()
    torch.testing.assert_close(among[:, 0, 2] - among[:, 1, 2], free[:, 0, 2] - free[:, 1, 2], atol=1e-5, rtol=1e-5)
    padding = torch.zeros(3, 1, LENGTH, dtype=torch.long)
    assert torch.isfinite(model(padded(HISTORIES), known[:, :1], padding)).all()
