"""Token trees: prompts whose keys and values are computed once, and the tokens that grow from them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from tandemrec.llm.model import LanguageModel
from tandemrec.llm.scoring import backbone_and_head, embedded, whole

SPARE_STEPS = 16
"""Steps for which room is made at once, so that keys and values are rarely copied."""


class Growth(Protocol):
    """B prompts, of each of which Q branches grow at once."""

    def step(self, tokens_BQ: Tensor, parents_BQ: Tensor) -> Tensor:
        """Put a token behind each chosen branch of the step before.

        Args:
            tokens_BQ: the tokens; as many branches as one likes, different steps may have different numbers.
            parents_BQ: number of the branch of the step before that each continues.

        Returns:
            Logits of the tokens that follow, (B, Q, V) float32.
        """
        ...

    def keep(self, rows_B: Tensor) -> None:
        """Go on with these prompts only, by their current numbers."""
        ...


def grow(lm: LanguageModel, prompts: Sequence[list[int]]) -> tuple[Growth, Tensor]:
    """Prompts ready to grow, and the logits behind each, (B, V) float32; see `TokenTree`, `Copies` and `Replay`.

    Negative tokens of prompts stand for item vectors, see `LanguageModel.slots`.
    """
    lm.model.eval()
    growth = _kind(lm)(lm, prompts)
    last_B1 = torch.tensor([prompt[-1:] for prompt in prompts], device=lm.device)
    return growth, growth.step(last_B1, torch.zeros_like(last_B1))[:, 0]


class TokenTree:
    """All branches of a prompt share one row: the cache is only appended to, a mask shows each token its ancestors.

    So the prompt is computed and stored once for all branches, and nothing is copied or re-ordered when beams change
    places. Prompts are padded on the right, where causal attention needs no mask. For models in which attention alone
    connects tokens and positions are what the caller says: not with recurrent layers, sliding windows or distances
    that are counted by place in the cache.
    """

    def __init__(self, lm: LanguageModel, prompts: Sequence[list[int]]) -> None:
        """Compute everything but the last token of every prompt, which is to be the first step."""
        backbone, _ = backbone_and_head(lm.model)
        self.lm, self.device = lm, lm.device
        self.cache = Cache(layer_class_to_replicate=_Buffer)
        ids_BT = pad_sequence([torch.tensor(p[:-1], dtype=torch.long) for p in prompts], batch_first=True)
        lengths_B1 = torch.tensor([[len(p) - 1] for p in prompts], device=self.device)
        columns_1T = torch.arange(ids_BT.shape[1], device=self.device)[None]
        if ids_BT.shape[1]:
            backbone(
                **embedded(lm.model, lm.slots, ids_BT.to(self.device)),
                position_ids=columns_1T.expand(len(prompts), -1),
                past_key_values=self.cache,
                use_cache=True,
            )
        self.position_BQ = lengths_B1 - 1
        self.visible_BQT = (columns_1T < lengths_B1)[:, None]

    def step(self, tokens_BQ: Tensor, parents_BQ: Tensor) -> Tensor:
        """See `Growth`."""
        branches = tokens_BQ.shape[1]
        own_BQQ = torch.eye(branches, dtype=torch.bool, device=self.device).expand(len(tokens_BQ), -1, -1)
        index_BQT = parents_BQ[:, :, None].expand(-1, -1, self.visible_BQT.shape[2])
        self.visible_BQT = torch.cat([self.visible_BQT.gather(1, index_BQT), own_BQQ], 2)
        self.position_BQ = self.position_BQ.gather(1, parents_BQ) + 1
        dtype = self.lm.model.dtype
        mask_B1QT = torch.zeros(self.visible_BQT.shape, dtype=dtype, device=self.device)
        mask_B1QT = mask_B1QT.masked_fill_(~self.visible_BQT, torch.finfo(dtype).min)[:, None]
        with _tree_attention(whole(self.lm.model).config):
            out = self.lm.model(
                **embedded(self.lm.model, self.lm.slots, tokens_BQ),
                position_ids=self.position_BQ,
                attention_mask=mask_B1QT,
                past_key_values=self.cache,
                use_cache=True,
            )
        logits_BQV: Tensor = out.logits.float()
        return logits_BQV

    def keep(self, rows_B: Tensor) -> None:
        """See `Growth`."""
        self.position_BQ, self.visible_BQT = self.position_BQ[rows_B], self.visible_BQT[rows_B]
        for layer in self.cache.layers:
            layer.batch_select_indices(rows_B)


class Copies:
    """For models with another cache that can be re-ordered (sliding windows, say): a copy of it for every branch.

    Prompts are padded on the left, since such a cache may count distances by place; each is computed once.
    """

    def __init__(self, lm: LanguageModel, prompts: Sequence[list[int]]) -> None:
        """Compute everything but the last token of every prompt, which is to be the first step."""
        self.lm, self.branches = lm, 1
        self.cache: Any = None
        self.takes_positions = _takes_positions(lm)
        ids_BT, self.mask_NT = lm.left_padded([prompt[:-1] for prompt in prompts])
        if ids_BT.shape[1]:
            self.cache = backbone_and_head(lm.model)[0](**self._inputs(ids_BT)).past_key_values

    def step(self, tokens_BQ: Tensor, parents_BQ: Tensor) -> Tensor:
        """See `Growth`."""
        rows_B1 = torch.arange(len(tokens_BQ), device=self.lm.device)[:, None] * self.branches
        parents_N = (rows_B1 + parents_BQ).flatten()
        self._choose(parents_N)
        self.branches = tokens_BQ.shape[1]
        self.mask_NT = nn.functional.pad(self.mask_NT, (0, 1), value=1)
        out = self.lm.model(**self._inputs(tokens_BQ.reshape(-1, 1)))
        self.cache = out.past_key_values
        logits_BQV: Tensor = out.logits[:, -1].float().view(*tokens_BQ.shape, -1)
        return logits_BQV

    def keep(self, rows_B: Tensor) -> None:
        """See `Growth`."""
        branches_Q = torch.arange(self.branches, device=self.lm.device)
        self._choose((rows_B[:, None] * self.branches + branches_Q).flatten())

    def _choose(self, rows_N: Tensor) -> None:
        self.mask_NT = self.mask_NT[rows_N]
        if self.cache is not None:
            self.cache.reorder_cache(rows_N)

    def _inputs(self, ids_NT: Tensor) -> dict[str, Any]:
        positions_NT = (self.mask_NT.cumsum(1) - 1).clamp(min=0)[:, -ids_NT.shape[1] :]
        return {
            **embedded(self.lm.model, self.lm.slots, ids_NT),
            **({"position_ids": positions_NT} if self.takes_positions else {}),
            "attention_mask": self.mask_NT,
            "past_key_values": self.cache,
            "use_cache": True,
        }


class Replay:
    """For every other causal model: each step computes whole branches again, so it asks nothing of the architecture."""

    def __init__(self, lm: LanguageModel, prompts: Sequence[list[int]]) -> None:
        """Remember the prompts."""
        self.lm = lm
        self.paths = [[prompt[:-1]] for prompt in prompts]

    def step(self, tokens_BQ: Tensor, parents_BQ: Tensor) -> Tensor:
        """See `Growth`."""
        grown = zip(self.paths, tokens_BQ.tolist(), parents_BQ.tolist(), strict=True)
        self.paths = [
            [paths[p] + [t] for t, p in zip(tokens, parents, strict=True)] for paths, tokens, parents in grown
        ]
        rows = [torch.tensor(path) for paths in self.paths for path in paths]
        last_N = torch.tensor([len(row) - 1 for row in rows], device=self.lm.device)
        inputs = embedded(self.lm.model, self.lm.slots, pad_sequence(rows, batch_first=True).to(self.lm.device))
        logits_NTV: Tensor = self.lm.model(**inputs, use_cache=False).logits
        logits_NV = logits_NTV[torch.arange(len(rows), device=self.lm.device), last_N].float()
        return logits_NV.view(*tokens_BQ.shape, -1)

    def keep(self, rows_B: Tensor) -> None:
        """See `Growth`."""
        self.paths = [self.paths[row] for row in rows_B.tolist()]


class _Buffer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of a layer, appended in place; `keys` and `values` are the filled part."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.store: tuple[Tensor, Tensor] | None = None
        self.used = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        fresh = key_states.shape[2]
        end = self.used + fresh
        if self.store is None or end > self.store[0].shape[2]:
            self._make_room(key_states, value_states, end + SPARE_STEPS * (fresh if self.used else 4))
        assert self.store is not None
        for store, states in zip(self.store, (key_states, value_states), strict=True):
            store[:, :, self.used : end] = states
        self.used, self.is_initialized = end, True
        self.keys, self.values = (store[:, :, :end] for store in self.store)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        if self.store is not None:
            self.store = (self.store[0][indices], self.store[1][indices])
            self.keys, self.values = (store[:, :, : self.used] for store in self.store)

    def _make_room(self, keys: Tensor, values: Tensor, room: int) -> None:
        old = self.store
        self.store = (
            keys.new_empty(*keys.shape[:2], room, keys.shape[3]),
            values.new_empty(*values.shape[:2], room, values.shape[3]),
        )
        if old is not None:
            for store, filled in zip(self.store, old, strict=True):
                store[:, :, : self.used] = filled[:, :, : self.used]


def _folded_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """As `sdpa`, but query heads of one key head are laid behind each other: it would copy all keys and values."""
    groups = query.shape[1] // key.shape[1]
    if groups == 1 or attention_mask is None:
        out: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return out
    folded = query.reshape(query.shape[0], key.shape[1], groups * query.shape[2], query.shape[3])
    mask = attention_mask.repeat(1, 1, groups, 1)
    mixed = nn.functional.scaled_dot_product_attention(folded, key, value, mask, scale=kwargs.get("scaling"))
    return mixed.reshape(query.shape).transpose(1, 2).contiguous(), None


TREE = "tandemrec-tree"
AttentionInterface.register(TREE, _folded_attention)
AttentionMaskInterface.register(TREE, sdpa_mask)


@contextmanager
def _tree_attention(config: Any) -> Iterator[None]:
    """Attend by `_folded_attention` for a while, where the model attends by `sdpa`."""
    if config._attn_implementation == "sdpa":
        config._attn_implementation = TREE
    try:
        yield
    finally:
        # Another thread may have switched in between; both ways compute the same, so it does not matter who goes back.
        if config._attn_implementation == TREE:
            config._attn_implementation = "sdpa"


_kinds: WeakKeyDictionary[LanguageModel, type[TokenTree | Copies | Replay]] = WeakKeyDictionary()


@torch.no_grad()
def _kind(lm: LanguageModel) -> type[TokenTree | Copies | Replay]:
    """The best of the three that computes the same as whole sequences do (tried once a model)."""
    if lm not in _kinds:
        candidates: list[type[TokenTree | Copies]] = []
        if isinstance(_cache_of(lm), Cache):
            candidates = [TokenTree, Copies] if _plain_attention(lm) else [Copies]
        _kinds[lm] = next((kind for kind in candidates if _branches_agree(kind, lm)), Replay)
    return _kinds[lm]


def _plain_attention(lm: LanguageModel) -> bool:
    config = backbone_and_head(lm.model)[0].config
    if not _takes_positions(lm) or hasattr(config, "window_size"):
        return False
    if config._attn_implementation not in ("sdpa", "eager", TREE):
        return False
    cache = _cache_of(lm)
    return type(cache) is DynamicCache and all(type(layer) is DynamicLayer for layer in cache.layers)


def _takes_positions(lm: LanguageModel) -> bool:
    return "position_ids" in inspect.signature(backbone_and_head(lm.model)[0].forward).parameters


def _cache_of(lm: LanguageModel) -> Any:
    out = lm.model(input_ids=torch.tensor([[lm.eos]], device=lm.device), use_cache=True)
    return getattr(out, "past_key_values", None)


def _branches_agree(kind: type[TokenTree | Copies], lm: LanguageModel) -> bool:
    """Whether two prompts with two branches each, which then change places, give the logits of whole sequences."""
    vocabulary = lm.model.get_input_embeddings().num_embeddings
    long, short, (first, second) = [
        [token % vocabulary for token in tokens] for tokens in ((5, 7, 11, 3), (19, 23), (13, 17))
    ]
    growth = kind(lm, [long, short])
    growth.step(_tensor(lm, [long[-1:], short[-1:]]), _tensor(lm, [[0], [0]]))
    growth.step(_tensor(lm, [[first, second]] * 2), _tensor(lm, [[0, 0]] * 2))
    found_22V = growth.step(_tensor(lm, [[first, second]] * 2), _tensor(lm, [[1, 0]] * 2))
    tolerance = 1e-3 if lm.model.dtype == torch.float32 else 0.1
    for prompt, found_2V in zip((long, short), found_22V, strict=True):
        rows = _tensor(lm, [[*prompt, second, first], [*prompt, first, second]])
        wanted_2V = lm.model(input_ids=rows, use_cache=False).logits[:, -1].float()
        if not (found_2V - wanted_2V).abs().max() <= tolerance * wanted_2V.abs().max():
            return False
    return True


def _tensor(lm: LanguageModel, rows: list[list[int]]) -> Tensor:
    return torch.tensor(rows, device=lm.device)
