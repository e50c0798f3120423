"""Growing prompts: whole sequences computed one by one say what every kind must answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tandemrec.llm.model import LanguageModel
from tandemrec.llm.tree import Copies, Replay, TokenTree, grow

PROMPTS = [[5, 9, 7], [8, 6, 5, 40, 3, 2, 7], [4], [12, 40, 41, 42]]
Folder = Callable[[str], str]
KINDS = {
    "llama": TokenTree,
    "gpt2": TokenTree,
    "gpt_neox": TokenTree,
    "qwen2": TokenTree,
    "qwen3": TokenTree,
    "gemma2": Copies,
    "gpt_neo": Copies,
    "mamba": Replay,
}


@pytest.mark.parametrize("architecture", KINDS)
def test_branches_answer_as_whole_sequences(architecture: str, tiny: Folder) -> None:
    lm = LanguageModel.load(tiny(architecture))
    with torch.no_grad():
        growth, logits = grow(lm, PROMPTS)
        assert type(growth) is KINDS[architecture]
        kinds = [growth, *(kind(lm, PROMPTS) for kind in {Copies, Replay} if KINDS[architecture] is TokenTree)]
        for other in kinds[1:]:
            other.step(torch.tensor([prompt[-1:] for prompt in PROMPTS]), torch.zeros(4, 1, dtype=torch.long))
        torch.testing.assert_close(logits, whole(lm, PROMPTS), atol=1e-4, rtol=1e-4)
        for growth in kinds:
            check_growth(lm, growth)


def check_growth(lm: LanguageModel, growth: TokenTree | Copies | Replay) -> None:
    """Three steps with 2, 5 and 2 branches that change places, a prompt leaving on the way."""
    generator = torch.Generator().manual_seed(0)
    paths = [[list(prompt)] for prompt in PROMPTS]
    for branches, keep in ((2, [0, 1, 2, 3]), (5, [3, 0, 2]), (2, [0, 1, 2])):
        growth.keep(torch.tensor(keep))
        paths = [paths[row] for row in keep]
        parents = torch.randint(len(paths[0]), (len(paths), branches), generator=generator)
        tokens = torch.randint(3, 60, (len(paths), branches), generator=generator)
        found = growth.step(tokens, parents)
        chosen = zip(paths, tokens.tolist(), parents.tolist(), strict=True)
        paths = [[old[q] + [t] for t, q in zip(ts, qs, strict=True)] for old, ts, qs in chosen]
        wanted = whole(lm, [path for row in paths for path in row])
        torch.testing.assert_close(found.flatten(0, 1), wanted, atol=1e-4, rtol=1e-4)


def whole(lm: LanguageModel, rows: list[list[int]]) -> torch.Tensor:
    return torch.stack([lm.model(torch.tensor([row]), use_cache=False).logits[0, -1] for row in rows])


def test_more_steps_than_room_was_made_for(tiny: Folder) -> None:
    lm = LanguageModel.load(tiny("llama"))
    with torch.no_grad():
        growth, logits = grow(lm, PROMPTS[:1])
        path = list(PROMPTS[0])
        for _ in range(90):
            path.append(int(logits[0].argmax()))
            logits = growth.step(torch.tensor([path[-1:]]), torch.zeros(1, 1, dtype=torch.long))[:, 0]
        torch.testing.assert_close(logits, whole(lm, [path]), atol=1e-4, rtol=1e-4)


def test_adapters_and_eager_attention_grow_too(tiny: Folder) -> None:
    from peft import LoraConfig, get_peft_model

    lm = LanguageModel.load(tiny("llama"))
    lm.model.set_attn_implementation("eager")
    model = get_peft_model(lm.model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    lm = LanguageModel(model.eval(), lm.tokenizer, lm.origin)
    with torch.no_grad():
        growth, logits = grow(lm, PROMPTS)
        assert type(growth) is TokenTree
        torch.testing.assert_close(logits, whole(lm, PROMPTS), atol=1e-4, rtol=1e-4)
        check_growth(lm, growth)
    assert lm.model.config._attn_implementation == "eager"
