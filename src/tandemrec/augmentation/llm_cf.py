"""LLM-CF: a sequence model that hears of similar users' decisions and a language model's thoughts on them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from tandemrec.augmentation.in_context import InContext
from tandemrec.augmentation.memory import Memory
from tandemrec.augmentation.retrieval import finder_of, read_item_vectors
from tandemrec.augmentation.thoughts import ThoughtsConfig
from tandemrec.conventional.sequential.backbone import AroundBackbone, BackboneConfig, backbone_module
from tandemrec.conventional.sequential.batches import SequenceBatch
from tandemrec.conventional.sequential.model import SequenceModel
from tandemrec.conventional.sequential.module import SequenceConfig, SequenceModule, last_states
from tandemrec.conventional.sequential.next_item import NextItem
from tandemrec.conventional.sequential.sasrec import SASRecConfig
from tandemrec.data.examples import Examples, IntArray, Ragged
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.llm.chat import ChatConfig
from tandemrec.llm.content import ContentConfig
from tandemrec.llm.model import LanguageModel
from tandemrec.llm.recommenders.base import LanguageModelUser, PretrainedConfig
from tandemrec.recommender import FitReport
from tandemrec.training import TrainingConfig

STATES_AT_ONCE, SIMILARITIES_AT_ONCE = 14, 3
"""Vectors for a token that the decoder reads and numbers for an example of the memory that exist at once, measured."""

AUTHORS_BACKBONE = SASRecConfig(
    loss="sampled-softmax",
    negatives=128,
    blocks=1,
    heads=2,
    max_length=20,
    training=TrainingConfig(epochs=50, weight_decay=1e-5, patience=2, clip_norm=None),
)


class LLMCFConfig(LanguageModelUser):
    """Who thinks, what is thought about, and how much of it joins the model. Defaults are the authors' setting."""

    model: Literal["llm-cf"] = "llm-cf"
    """Which model this is."""

    chat: ChatConfig | None = None
    """A chat endpoint that writes the thoughts, in the number, length and temperature that `thoughts` names, so that
    `chat.temperature` and `chat.max_tokens` stay unsaid; null: the language model `lm` does. Vectors are `lm`'s anyway,
    and so are the scores that are made from them."""

    thoughts: ThoughtsConfig = ThoughtsConfig()
    """What is asked."""

    encoder: ContentConfig | None = None
    """Vectors of the items' texts by which similar histories are found, such as a sentence encoder's; null: `lm`'s
    vectors of the titles. What the decoder reads of titles and thoughts is `lm`'s anyway."""

    backbone: BackboneConfig = AUTHORS_BACKBONE
    """The sequence model that is augmented, with its loss and training."""

    examples: int = Field(4, ge=2, le=32, multiple_of=2)
    """In-context examples of a question, half of them of decisions against the item."""

    layers: int = Field(2, ge=1)
    """Layers of the decoder that reads them."""

    heads: int = Field(2, ge=1)
    """Its attention heads; the head size `backbone.dim / heads` must be even."""

    mix: float = Field(0.1, ge=0)
    """Weight of the module's feature f in the user vector h + mix · f."""

    reconstruction: float = Field(0.0, ge=0)
    """Weight of rebuilding each thought from what comes before it: 0 in all published settings for retrieval (ranking
    the whole catalogue, as here), 1 in those for ranking given candidates."""

    share: float = Field(1.0, gt=0, le=1)
    """Share of the training positions that see examples in a step, drawn at random; the others learn from h alone,
    which costs less. Answers always see examples."""

    def load_language_model(self, built: Path | None) -> LanguageModel:
        """The language model, from its folder where it was built.

        Raises:
            InputError: if it must be built first.
        """
        dtype = self.lm.dtype if isinstance(self.lm, PretrainedConfig) else "auto"
        return LanguageModel.load(self.origin(built), dtype=dtype)

    def check(self) -> None:
        """Refuse a model folder or text file that is not there."""
        super().check()
        if self.encoder is not None:
            self.encoder.check()

    @model_validator(mode="after")
    def _questions_suffice(self) -> Self:
        # Half of them are of each kind, and the users that they are of may not see their own.
        if self.thoughts.questions // 2 <= self.examples // 2:
            raise ValueError(
                f"{self.examples} in-context examples need at least {self.examples + 2} thoughts.questions, found "
                f"{self.thoughts.questions}: a user who asks may see none of their own"
            )
        return self

    @model_validator(mode="after")
    def _thoughts_say_how_a_chat_is_asked(self) -> Self:
        for its, own in (("temperature", "temperature"), ("max_tokens", "max_new_tokens")):
            said, wanted = getattr(self.chat, its, None), getattr(self.thoughts, own)
            if said not in (None, wanted, ChatConfig.model_fields[its].default):
                raise ValueError(
                    f"thoughts are asked for with thoughts.{own}, which is {wanted:g}, but chat.{its} is {said:g}; "
                    "leave it out or make both the same"
                )
        return self

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.backbone.dim % (2 * self.heads):
            raise ValueError(f"heads of an even size must divide dim {self.backbone.dim}, found {self.heads} heads")
        return self


class LLMCFModule(AroundBackbone):
    """A backbone, the in-context module, the memory it is shown, and one that finds in it; None: itself."""

    def __init__(
        self, backbone: SequenceModule, context: InContext, memory: Memory, finder: Memory | None, tokens: int
    ) -> None:
        super().__init__(backbone)
        self.context, self.memory, self.finder, self.tokens = context, memory, finder, tokens

    def features(
        self, state_BD: Tensor, histories: Ragged, user_B: IntArray, seen_B: IntArray, each: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the in-context module makes of questions, with `each` examples of both labels.

        Args:
            state_BD: what the backbone makes of the histories.
            histories: of the questions, none empty.
            user_B: who asks; -1: nobody that is known.
            seen_B: how many items the user has met.
            each: examples of each label.

        Returns:
            Features f (B, D), the states before the thoughts (B, 2 · each, D), and which examples these are.
        """
        memory, context = self.memory, self.context
        mean_BZ = memory.mean_titles(histories)
        user, seen = (torch.from_numpy(array.astype(np.int64)).to(self.device) for array in (user_B, seen_B))
        finder, asked_BZ = memory, mean_BZ
        if self.finder is not None:
            finder, asked_BZ = self.finder, self.finder.mean_titles(histories)
        row_BE = finder.nearest(asked_BZ, user, seen, each)
        shown_S, place_BE = torch.unique(row_BE, return_inverse=True)
        past = memory.histories.take(shown_S.cpu().numpy())
        item_S = memory.item_M[shown_S]
        pair_SD = context.pairs(
            last_states(self.backbone, past, self.tokens),
            memory.mean_titles(past),
            self.item_table()[item_S],
            memory.title_IZ[item_S],
        )
        nothing = torch.zeros_like(state_BD), torch.zeros_like(mean_BZ)
        question_BD = context.pairs(state_BD, mean_BZ, *nothing)
        thought_SD = context.text(memory.thought_MZ[shown_S])
        feature_BD, before_BED = context(pair_SD[place_BE], thought_SD[place_BE], memory.label_M[row_BE], question_BD)
        return feature_BD, before_BED, row_BE


class LLMCF(SequenceModel[LLMCFConfig, LLMCFModule]):
    """Sun et al., Large Language Models Enhanced Collaborative Filtering (CIKM 2024), for ranking the whole catalogue.

    The authors' vector of the user's id is left out: a history is answered whoever asks.
    """

    config_class: ClassVar[type[LLMCFConfig]] = LLMCFConfig

    def __init__(
        self,
        config: LLMCFConfig,
        thoughts: Path | None = None,
        device: torch.device | str | None = None,
        *,
        item_vectors: Path | None = None,
    ) -> None:
        """Configure.

        Args:
            config: the configuration.
            thoughts: folder with what `write_thoughts` gave, which training needs.
            device: where to compute.
            item_vectors: folder with what `encode_items` gave, which training with an encoder needs.
        """
        super().__init__(config, device)
        self.thoughts, self.encoded = thoughts, item_vectors
        self.memory: Memory | None = None
        self.finder: Memory | None = None

    @property
    def settings(self) -> SequenceConfig:
        """The backbone's."""
        return self.config.backbone

    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        """Train backbone and module together; `split.valid` chooses the epoch by NDCG@10.

        Raises:
            InputError: if there are no thoughts, too few to choose examples from, or no vectors of the encoder.
        """
        if self.thoughts is None:
            raise InputError("the chains of thought that join the model must be written first")
        by_encoder = self.config.encoder is not None
        if by_encoder and self.encoded is None:
            raise InputError("the encoder's vectors, by which similar histories are found, must be made first")
        self.memory = Memory.read(self.thoughts, self.settings.max_length)
        self.memory.check(self.config.examples // 2)
        if by_encoder and self.encoded is not None:
            self.finder = finder_of(self.memory, read_item_vectors(self.encoded))
        report = super().fit(split, seed=seed, workspace=workspace)
        report.notes["thoughts"] = len(self.memory.user_M)
        return report

    def make_module(self, n_items: int, seed: int) -> LLMCFModule:
        """An untrained network around the memory."""
        settings, config = self.config.backbone, self.config
        assert self.memory is not None
        z = self.memory.title_IZ.shape[1]
        rebuilds = config.reconstruction > 0
        context = InContext(settings.dim, z, config.layers, config.heads, rebuilds=rebuilds, seed=seed + 1)
        backbone = backbone_module(settings, n_items, seed, self.device)
        return LLMCFModule(backbone, context, self.memory, self.finder, settings.micro_batch_tokens)

    def module_like(self, tensors: dict[str, Tensor]) -> LLMCFModule:
        """A network that stored tensors fit into."""
        parts: dict[str, dict[str, Tensor]] = {"memory": {}, "finder": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            if part in parts:
                parts[part][rest] = tensor
        self.memory, self.finder = (Memory(part) if part else None for part in parts.values())
        return self.make_module(len(tensors["backbone.item.weight"]), 0)

    def rows_at_once(self, n_items: int) -> int:
        """As few as what the decoder reads for a question, or its similarities to all examples, leave room for."""
        if not self.config.mix:
            return super().rows_at_once(n_items)
        read = STATES_AT_ONCE * (3 * self.config.examples + 1) * self.settings.dim
        compared = SIMILARITIES_AT_ONCE * len(self.fitted().memory.user_M)
        return super().rows_at_once(max(n_items, read, compared))

    def make_task(self, module: LLMCFModule, split: Split, seed: int) -> NextItem:
        """The backbone's loss over augmented user vectors."""
        return InContextNextItem(self, module, split, seed)

    @torch.no_grad()
    def states(self, examples: Examples) -> Tensor:
        """User vectors h + mix · f of every example; 0 where the history is empty."""
        state_BD = super().states(examples)
        some = np.flatnonzero(examples.history.lengths)
        if not len(some) or not self.config.mix:
            return state_BD
        asked = examples.take(some)
        at = torch.from_numpy(some).to(self.device)
        feature_bD, _, _ = self.fitted().features(
            state_BD[at],
            asked.history.tail(self.settings.max_length),
            asked.user.astype(np.int64),
            asked.seen.lengths,
            self.config.examples // 2,
        )
        return state_BD.index_add(0, at, self.config.mix * feature_bD)


class InContextNextItem(NextItem):
    """L = L_backbone(h + mix · f) + w · mean over positions of the reconstruction loss."""

    module: LLMCFModule

    def __init__(self, model: LLMCF, module: LLMCFModule, split: Split, seed: int) -> None:
        super().__init__(model, module, model.settings, split, seed)
        self.settings = model.config

    def loss(self, batch: SequenceBatch) -> Tensor:
        """Sum over targets."""
        settings = self.settings
        if not settings.mix and not settings.reconstruction:
            return super().loss(batch)
        hidden_ND = self.module.states(batch.inputs, self.run)
        at = self._drawn(len(hidden_ND))
        feature_nD, before_nED, row_nE = self._features(hidden_ND[self.on_device(at)], batch, at)
        hidden_ND = hidden_ND.index_add(0, self.on_device(at), settings.mix * feature_nD)
        loss = self.item_loss(hidden_ND, batch)
        if not settings.reconstruction:
            return loss
        # What some positions rebuild stands for all of them.
        missed_n = self.module.context.missed(before_nED, self.module.memory.thought_MZ[row_nE])
        return loss + settings.reconstruction * len(hidden_ND) * missed_n.mean()

    def _drawn(self, n: int) -> IntArray:
        """Positions that see examples, ascending, at least one."""
        count = max(1, round(self.settings.share * n))
        if count == n:
            return np.arange(n)
        return torch.randperm(n)[:count].sort().values.numpy()

    def _features(self, hidden_nD: Tensor, batch: SequenceBatch, at: IntArray) -> tuple[Tensor, Tensor, Tensor]:
        """Features and the rest of `LLMCFModule.features` of the chosen input positions of a batch."""
        row_N = batch.inputs.rows()
        place = Ragged(batch.rows.values, batch.rows.starts + 1, batch.rows.stops).positions()[at]
        user, start = batch.owner[row_N[at]], batch.rows.starts[row_N[at]]
        history = Ragged(batch.rows.values, start, place)
        seen = place - self.split.sequences.starts[user]
        return self.module.features(hidden_nD, history, user, seen, self.settings.examples // 2)
