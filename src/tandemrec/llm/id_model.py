"""The encoder–decoder of TIGER over the digits of semantic ids, and histories that ids grow from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, AttentionMaskInterface, T5Config, T5ForConditionalGeneration
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from tandemrec.llm.trie import Trie
from tandemrec.recommender import Config
from tandemrec.training.dropout import Dropout

PAD, NOBODY, FIRST_DIGIT = 0, 1, 2
"""Tokens: padding, which also starts every id; a user of whom nothing is known; the first digits' first value."""

Reading = Literal["bidirectional", "causal"]
"""How the encoder reads a history: every item sees all others, or itself and those before it."""


class IdNetworkConfig(Config):
    """A T5 of this shape with random weights; TIGER's own: dim 128, 4 + 4 layers, 6 heads of 64, feed-forward 1,024."""

    dim: int = Field(128, ge=8)
    """Width of the hidden states."""

    encoder_layers: int = Field(4, ge=1)
    """Layers that read the history."""

    decoder_layers: int = Field(4, ge=1)
    """Layers that write the id."""

    heads: int = Field(6, ge=1)
    """Attention heads of every layer."""

    head_dim: int = Field(64, ge=1)
    """Width of a head."""

    feed_forward: int = Field(1024, ge=8)
    """Width of the feed-forward maps."""

    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout everywhere in the network."""

    reading: Reading = "bidirectional"
    """`bidirectional` as published. `causal` lets an item see only those before it: then all prefixes of a history
    share one pass of the encoder, which is most of the work."""


class IdModel(nn.Module):
    """History tokens → log-probabilities of the digits that follow.

    Rows of the encoder hold a head token (the user) and L digits an item; a row has M questions, each about what
    follows its first so many items. Decoder rows are questions: those of a history share its encoder states.

    Attributes:
        catalogue: a tree of all ids. Where it is given, a digit's probability is that among the digits by which some id
            goes on; else among all tokens that can be written.
    """

    def __init__(self, config: IdNetworkConfig, vocabulary: int, written: int, length: int) -> None:
        """Random weights by torch's generator.

        Args:
            config: the shape.
            vocabulary: number of tokens that are read.
            written: how many of them, the first ones, can be part of an answer; users cannot.
            length: digits of an id, L.
        """
        super().__init__()
        self.length, self.written, self.causal = length, written, config.reading == "causal"
        self.catalogue: Trie | None = None
        shape = T5Config(
            vocab_size=vocabulary,
            d_model=config.dim,
            d_kv=config.head_dim,
            d_ff=config.feed_forward,
            num_layers=config.encoder_layers,
            num_decoder_layers=config.decoder_layers,
            num_heads=config.heads,
            dropout_rate=config.dropout,
            decoder_start_token_id=PAD,
            pad_token_id=PAD,
            eos_token_id=None,
            tie_word_embeddings=False,  # says that states are not scaled; the head is tied all the same
            attn_implementation=SHARED,
        )
        self.t5: Any = T5ForConditionalGeneration(shape)
        for name, part in list(self.t5.named_modules()):
            if isinstance(part, nn.Dropout):
                self.t5.set_submodule(name, Dropout(part.p))
        # T5's embeddings start at 1 and its states are scaled down instead, which Adafactor's relative steps expect;
        # AdamW's absolute ones would take an epoch to make any digit likely.
        nn.init.normal_(self.t5.shared.weight, std=config.dim**-0.5)

    def encode(self, tokens_BS: Tensor) -> tuple[Tensor, Tensor]:
        """States (B, S, D) of padded histories, and which of their places hold tokens, (B, S)."""
        there_BS = tokens_BS != PAD
        visible_BQS = there_BS[:, None]
        if self.causal:
            item_S = (torch.arange(tokens_BS.shape[1], device=tokens_BS.device) - 1).div(
                self.length, rounding_mode="floor"
            )
            visible_BQS = visible_BQS & (item_S[:, None] >= item_S)
        states_BSD = self.t5.encoder(input_ids=tokens_BS, attention_mask=self._additive(visible_BQS)).last_hidden_state
        return states_BSD, there_BS

    def forward(self, tokens_BS: Tensor, known_BM: Tensor, answers_BML: Tensor) -> Tensor:
        """Log-probabilities (B, M, L) of the digits of answers, each given the digits before it.

        Args:
            tokens_BS: histories, padded on the right.
            known_BM: how many items of its history each question may see.
            answers_BML: tokens of the ids; padding (which counts as an answer too) for rows with fewer questions.
        """
        states_BSD, there_BS = self.encode(tokens_BS)
        place_S = torch.arange(tokens_BS.shape[1], device=tokens_BS.device)
        visible_BMS = there_BS[:, None] & (place_S <= known_BM[:, :, None] * self.length)
        answers_NL = answers_BML.flatten(0, 1)
        fed_NL = torch.cat([torch.full_like(answers_NL[:, :1], PAD), answers_NL[:, :-1]], 1)
        hidden_NLD = self.t5.decoder(
            input_ids=fed_NL,
            encoder_hidden_states=states_BSD,
            encoder_attention_mask=self._additive(visible_BMS.repeat_interleave(self.length, 1)),
            use_cache=False,
        ).last_hidden_state
        logits_NLV = self.logits(hidden_NLD).float()
        chosen_NL = logits_NLV.gather(2, answers_NL[:, :, None])[:, :, 0]
        if self.catalogue is None:
            return (chosen_NL - logits_NLV.logsumexp(2)).view(answers_BML.shape)
        return (chosen_NL - self._among_siblings(logits_NLV, answers_NL, self.catalogue)).view(answers_BML.shape)

    def logits(self, hidden: Tensor) -> Tensor:
        """What the library's head makes of the decoder's states, for the tokens that can be written."""
        return nn.functional.linear(hidden, self.t5.lm_head.weight[: self.written])

    def _among_siblings(self, logits_NLV: Tensor, answers_NL: Tensor, catalogue: Trie) -> Tensor:
        """Log Σ exp (N, L) of the digits by which ids go on from what an answer has before each of its digits.

        Padding, which is no id, goes on as the first id does.
        """
        node_N, rows = torch.zeros_like(answers_NL[:, 0]), []
        for place in range(self.length):
            begin_N, stop_N = catalogue.child_N1[node_N], catalogue.child_N1[node_N + 1]
            rows.append(children_logsumexp(logits_NLV[:, place], catalogue.token_N, begin_N, stop_N))
            node_N = _child(catalogue, begin_N, stop_N, answers_NL[:, place])
        return torch.stack(rows, 1)

    def _additive(self, visible_BQS: Tensor) -> Tensor:
        """A mask (B, 1, Q, S) to add to attention weights."""
        mask = torch.zeros(visible_BQS.shape, device=visible_BQS.device)
        return mask.masked_fill_(~visible_BQS, torch.finfo(mask.dtype).min)[:, None]


class GrowingIds:
    """B histories, of each of which Q ids grow at once; a `tree.Growth`.

    A history's keys and values are computed and stored once for all its ids; the few digits of every id are copied.
    """

    def __init__(self, model: IdModel, histories: Sequence[list[int]]) -> None:
        """Read the histories; the first step is to be `PAD`, which starts every id."""
        self.model, self.branches = model, 1
        device = next(model.parameters()).device
        rows = [torch.tensor(history) for history in histories]
        states_BSD, there_BS = model.encode(pad_sequence(rows, batch_first=True, padding_value=PAD).to(device))
        self.states_BSD, self.mask_B1S = states_BSD, model._additive(there_BS[:, None])
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())

    def step(self, tokens_BQ: Tensor, parents_BQ: Tensor) -> Tensor:
        """See `tree.Growth`."""
        rows_B1 = torch.arange(len(tokens_BQ), device=tokens_BQ.device)[:, None]
        own = self.cache.self_attention_cache
        if own.get_seq_length():
            own.batch_select_indices((rows_B1 * self.branches + parents_BQ).flatten())
        self.branches = tokens_BQ.shape[1]
        hidden_N1D = self.model.t5.decoder(
            input_ids=tokens_BQ.reshape(-1, 1),
            encoder_hidden_states=self.states_BSD,
            encoder_attention_mask=self.mask_B1S,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        return self.model.logits(hidden_N1D[:, 0]).float().view(*tokens_BQ.shape, -1)

    def keep(self, rows_B: Tensor) -> None:
        """See `tree.Growth`."""
        self.states_BSD, self.mask_B1S = self.states_BSD[rows_B], self.mask_B1S[rows_B]
        self.cache.cross_attention_cache.batch_select_indices(rows_B)
        branches_Q = torch.arange(self.branches, device=rows_B.device)
        chosen = (rows_B[:, None] * self.branches + branches_Q).flatten()
        self.cache.self_attention_cache.batch_select_indices(chosen)


def children_logsumexp(logits_NV: Tensor, token_N: Tensor, begin_N: Tensor, stop_N: Tensor) -> Tensor:
    """Log Σ exp (N,) over the tokens of the nodes begin … stop − 1 of every row, at least one each."""
    count_N = stop_N - begin_N
    row_C = torch.repeat_interleave(torch.arange(len(count_N), device=count_N.device), count_N)
    first_N = count_N.cumsum(0) - count_N
    node_C = torch.arange(len(row_C), device=row_C.device) + (begin_N - first_N)[row_C]
    value_C = logits_NV.flatten()[row_C * logits_NV.shape[1] + token_N[node_C]]
    top_N = value_C.new_full((len(count_N),), -torch.inf).scatter_reduce(0, row_C, value_C.detach(), "amax")
    return torch.zeros_like(top_N).index_add(0, row_C, (value_C - top_N[row_C]).exp()).log() + top_N


def _child(catalogue: Trie, begin_N: Tensor, stop_N: Tensor, token_N: Tensor) -> Tensor:
    """The child by a token, of each node whose children are begin … stop − 1; the first child where there is none.

    Children are in the order of their tokens, so the search halves what is left.
    """
    low_N, high_N = begin_N, stop_N
    while bool((low_N < high_N).any()):
        middle_N = (low_N + high_N) // 2
        below_N = (catalogue.token_N[middle_N.clamp(max=len(catalogue.token_N) - 1)] < token_N) & (low_N < high_N)
        low_N, high_N = torch.where(below_N, middle_N + 1, low_N), torch.where(below_N, high_N, middle_N)
    found_N = catalogue.token_N[low_N.clamp(max=len(catalogue.token_N) - 1)] == token_N
    return torch.where(found_N & (low_N < stop_N), low_N, begin_N)


def grow_ids(model: IdModel, histories: Sequence[list[int]]) -> tuple[GrowingIds, Tensor]:
    """Histories ready to grow, and the logits (B, V) of the first digits."""
    growing = GrowingIds(model, histories)
    start_B1 = torch.full((len(histories), 1), PAD, device=growing.states_BSD.device)
    return growing, growing.step(start_B1, torch.zeros_like(start_B1))[:, 0]


def _shared_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """As `sdpa`, but several rows of queries may attend to one row of keys, one behind the other in the mask.

    So the states of a history are neither copied for its questions nor for its beams. Cross-attention of T5 has no
    position bias.
    """
    if not module.is_decoder or module.is_causal:
        out: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return out
    n, heads, length, size = query.shape
    folded = query.view(len(key), -1, heads, length, size).transpose(1, 2).reshape(len(key), heads, -1, size)
    mixed = nn.functional.scaled_dot_product_attention(
        folded, key, value, attention_mask, dropout_p=kwargs.get("dropout", 0.0), scale=kwargs["scaling"]
    )
    unfolded = mixed.view(len(key), heads, -1, length, size).permute(0, 2, 3, 1, 4)
    return unfolded.reshape(n, length, heads, size), None


SHARED = "tandemrec-shared"
AttentionInterface.register(SHARED, _shared_attention)
AttentionMaskInterface.register(SHARED, sdpa_mask)
