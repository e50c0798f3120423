"""Log-probabilities of packed completions: logits at label positions only, and never all of them at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tandemrec.llm.packing import Packed, pack, pack_apart

CHUNK_LOGITS = 1 << 24
"""Logits held at once (64 MB in float32). More label positions are taken in chunks, whose logits are computed again on
the way back."""


class CompletionScorer(nn.Module):
    """Log p(y_c | x) of every packed completion; a module, so that what distributed runs wrap has one forward."""

    def __init__(self, model: Any, slots: nn.Module | None = None) -> None:
        """Over a Hugging Face or PEFT model; `slots` gives the input vectors (N, D) of N items, see `embedded`."""
        super().__init__()
        self.model, self.slots = model, slots
        self.head_gives_logits = _head_gives_logits(model)
        self.reads_packed_rows = self._reads_packed_rows()

    def forward(self, packed: Packed) -> Tensor:
        """Log-probabilities (B, C) float32, summed over the label tokens of each completion."""
        values_N = self.tokens(packed)
        counts = packed.counts_BC.flatten().to(values_N.device)
        owner_N = torch.repeat_interleave(torch.arange(len(counts), device=values_N.device), counts)
        return values_N.new_zeros(len(counts)).index_add(0, owner_N, values_N).view(packed.counts_BC.shape)

    def tokens(self, packed: Packed, wanted: Tensor | None = None) -> Tensor:
        """Log-probability of every label token, (N,) float32; of some alone where their places 0…N−1 are given."""
        source_N, label_N = packed.source_N, packed.label_N
        if wanted is not None:
            source_N, label_N = (column[wanted.to(column.device)] for column in (source_N, label_N))
        inputs = self._inputs(packed)
        if not self.head_gives_logits:
            logits_NV = whole(self.model)(**inputs).logits.flatten(0, 1)[source_N]
            return -nn.functional.cross_entropy(logits_NV.float(), label_N, reduction="none")
        backbone, head = backbone_and_head(self.model)
        hidden_ND = backbone(**inputs).last_hidden_state.flatten(0, 1)[source_N]
        size = max(1, CHUNK_LOGITS // whole(self.model).config.vocab_size)
        chunks = zip(torch.split(hidden_ND, size), torch.split(label_N, size), strict=True)
        if len(hidden_ND) <= size:
            return torch.cat([_log_probs(head, hidden, label) for hidden, label in chunks])
        return torch.cat([checkpoint(_log_probs, head, *chunk, use_reentrant=False) for chunk in chunks])

    def last_logits(self, packed: Packed) -> Tensor:
        """Logits (B, C, V) float32 from which the last label token of every completion is predicted."""
        inputs, shape = self._inputs(packed), packed.counts_BC.shape
        source = packed.source_N[packed.counts_BC.flatten().cumsum(0).to(packed.source_N.device) - 1]
        if not self.head_gives_logits:
            logits: Tensor = whole(self.model)(**inputs).logits.flatten(0, 1)[source]
        else:
            backbone, head = backbone_and_head(self.model)
            logits = head(backbone(**inputs).last_hidden_state.flatten(0, 1)[source])
        return logits.float().view(*shape, -1)

    @torch.no_grad()
    def _reads_packed_rows(self) -> bool:
        """Whether positions and mask alone decide what a token sees, found out by an example.

        Not so where attention reaches back a fixed number of places (GPT-Neo), or where the order of the row is what
        counts (Mamba).
        """
        config = whole(self.model).config
        if "local" in getattr(config, "attention_layers", ()) or getattr(config, "sliding_window", None):
            return False
        prompts, answers = [[1, 2, 3], [3, 1]], [[[4, 2], [5, 1, 2]], [[2, 3, 1], [4, 4]]]
        training, device = self.model.training, whole(self.model).device
        self.model.eval()
        try:
            apart, together = (self(lay_out(prompts, answers, 0).to(device)) for lay_out in (pack_apart, pack))
        except (TypeError, ValueError, RuntimeError):  # models refuse positions or masks in their own ways
            return False
        finally:
            self.model.train(training)
        return torch.allclose(apart, together, atol=1e-2, rtol=1e-2)

    def _inputs(self, packed: Packed) -> dict[str, Any]:
        settings = {"use_cache": False, **embedded(self.model, self.slots, packed.ids_RT)}
        if packed.causal:
            return settings  # padding is on the right, where a causal model never looks
        mask = packed.visible()[:, None]
        if whole(self.model).config._attn_implementation == "eager":
            dtype = whole(self.model).dtype
            mask = torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)
        return settings | {"attention_mask": mask, "position_ids": packed.positions_RT}


def embedded(model: Any, slots: nn.Module | None, ids_RT: Tensor) -> dict[str, Tensor]:
    """Model inputs for tokens: the ids, or their vectors where some are slots: token −1−i takes `slots(i)`."""
    if not bool((ids_RT < 0).any()):
        return {"input_ids": ids_RT}
    if slots is None:
        raise RuntimeError("a prompt has slots for item vectors, but nothing fills them")
    vectors_RTD = whole(model).get_input_embeddings()(ids_RT.clamp(min=0))
    place = ids_RT < 0
    return {"inputs_embeds": vectors_RTD.index_put((place,), slots(-1 - ids_RT[place]).to(vectors_RTD.dtype))}


def whole(model: Any) -> Any:
    """The Hugging Face model below an adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def backbone_and_head(model: Any) -> tuple[Any, Any]:
    """The network below the vocabulary, adapter included, and the map to the vocabulary."""
    return whole(model).base_model, whole(model).get_output_embeddings()


def _log_probs(head: nn.Module, hidden_ND: Tensor, label_N: Tensor) -> Tensor:
    return -nn.functional.cross_entropy(head(hidden_ND).float(), label_N, reduction="none")


@torch.no_grad()
def _head_gives_logits(model: Any) -> bool:
    """Whether the output map is the last step: some architectures scale or cap logits after it."""
    base = whole(model)
    ids_RT = torch.arange(3, device=base.device)[None]
    backbone, head = backbone_and_head(model)
    training = base.training
    base.eval()
    own = head(backbone(input_ids=ids_RT, use_cache=False).last_hidden_state)
    same = torch.allclose(own, base(input_ids=ids_RT, use_cache=False).logits, atol=1e-3, rtol=1e-2)
    base.train(training)
    return same
