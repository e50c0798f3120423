"""BIGRec: a language model fine-tuned to write the next title, which is then grounded to the catalogue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor

from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import Examples
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.evaluation.evaluate import validation_figures
from tandemrec.llm.finetune import FineTuneConfig, FineTuning, fine_tune, prepare
from tandemrec.llm.generate import GenerationConfig, generate
from tandemrec.llm.grounding import Grounding, title_vectors
from tandemrec.llm.model import LanguageModel, Precision, find_folder
from tandemrec.llm.nano import NanoConfig, build_nano
from tandemrec.llm.objectives import SFT, Prompted
from tandemrec.llm.prompts import PromptConfig, answer_tokens, prompt_tokens
from tandemrec.llm.trie import Trie, decode_titles
from tandemrec.llm.vllm import Server
from tandemrec.recommender import Config, FitReport, TextRecommender


class PretrainedConfig(Config):
    """A language model that exists."""

    build: Literal["pretrained"] = "pretrained"
    """Which kind of language model this is."""

    path: str
    """A Hugging Face folder (relative: below the working directory or `$TANDEMREC_MODELS`) or a hub id."""

    dtype: Precision = "auto"
    """Of the weights on an accelerator; `auto` reads a checkpoint in half precision as bfloat16. A CPU uses float32."""


MAX_ANSWER = 128
"""Most tokens of an answer where the configuration names no number: few titles are longer, and those are cut."""

LanguageModelConfig = Annotated[NanoConfig | PretrainedConfig, Field(discriminator="build")]


class BIGRecConfig(Config):
    """Language model, prompt, fine-tuning, generation."""

    model: Literal["bigrec"] = "bigrec"
    """Which model this is."""

    lm: LanguageModelConfig = NanoConfig()
    """The language model: built from the catalogue's texts, or an existing one."""

    prompt: PromptConfig = PromptConfig()
    """How a history becomes a question."""

    finetune: FineTuneConfig = FineTuneConfig()
    """How the answer is learned."""

    loss_on: Literal["answer", "all"] = "answer"
    """Tokens that training learns to predict: the answer's, or the prompt's too, as the code of BIGRec has it."""

    generation: GenerationConfig = GenerationConfig()
    """How an answer is written."""

    decoding: Literal["free", "constrained"] = "free"
    """`free`: any text, and items rank by the distance of their title to it, as published. `constrained`: nothing but
    titles of the catalogue; the items found rank first, likeliest first, then all others by distance to the first."""

    decoded: int = Field(20, ge=1)
    """Items that constrained decoding finds, with as many beams (or `generation.beams`, if that is more)."""

    def check(self) -> None:
        """Refuse a model folder or text file that is not there."""
        if isinstance(self.lm, PretrainedConfig):
            find_folder(self.lm.path)
        for path in self.text_files():
            if not path.is_file():
                raise InputError(f"key 'lm.text_files': there is no text file {path}")

    @property
    def builds_language_model(self) -> bool:
        """Whether the language model must be built first."""
        return isinstance(self.lm, NanoConfig)

    def build_language_model(
        self, dataset: Dataset, directory: Path, *, seed: int, workspace: Path | None = None
    ) -> FitReport:
        """Build it (see `build_nano`)."""
        assert isinstance(self.lm, NanoConfig)
        return build_nano(dataset, self.lm, directory, seed=seed, workspace=workspace)

    def text_files(self) -> list[Path]:
        """Files the language model is built from, beside the catalogue."""
        return list(self.lm.text_files) if isinstance(self.lm, NanoConfig) else []

    def model_folder(self) -> Path | None:
        """The local folder of an existing language model; None for one of the hub, or one that is built."""
        return find_folder(self.lm.path) if isinstance(self.lm, PretrainedConfig) else None


class BIGRec(TextRecommender):
    """Step 1: fine-tune on (history titles → next title). Step 2: rank items by distance to what the model writes.

    Attributes:
        server: a vLLM server with this very model that writes free answers in its place; None: none does.
    """

    needs_training_examples = True

    def __init__(self, config: BIGRecConfig, language_model: Path | None = None) -> None:
        """Configure.

        Args:
            config: the configuration.
            language_model: folder of the base model, where `config.lm` says to build one that has been built.
        """
        self.config = config
        self.base = str(language_model) if language_model is not None else None
        self.titles: list[str] = []
        self._lm: LanguageModel | None = None
        self._labels: list[list[int]] = []
        self._grounding: Grounding | None = None
        self.server: Server | None = None
        self._trie: Trie | None = None
        self._memory: dict[tuple[int, ...], str] = {}
        self._found: dict[tuple[int, ...], tuple[list[int], list[float]]] = {}

    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        """Fine-tune on `split.train`; the validation part chooses the epoch.

        Raises:
            InputError: if the language model cannot be read.
        """
        config = self.config
        self.titles = split.dataset.titles
        lm = prepare(self._load(self._base_origin()), config.finetune, seed)
        self._adopt(lm)
        self._ground(title_vectors(self.titles, lm.encode))
        task = FineTuning(
            lm,
            SFT(),
            config.finetune,
            self._prompted(split.train, config.loss_on),
            self._prompted(split.valid),
            seed,
            (lambda: self._judge(split)) if config.finetune.select_on == "ndcg@10" else None,
        )
        report = fine_tune(task, workspace)
        self._forget()
        report.notes |= {
            "language_model": lm.origin,
            "parameters": sum(p.numel() for p in lm.model.parameters()),
            "max_new_tokens": self._answer_budget(),
        }
        return report

    def complete(self, examples: Examples, *, workspace: Path | None = None) -> list[str]:
        """The generated answers; each different prompt is answered once."""
        return [self._memory[key] for key in self._answered(examples, workspace)]

    def scores(self, examples: Examples) -> Tensor:
        """Minus the distances of all titles to the generated one, (B, I).

        With constrained decoding the K items found have positive scores instead: 1 for the least likely of them, and
        more by the difference of their log-probabilities (over length^penalty).
        """
        keys = self._answered(examples)
        scores = self._grounded().scores([self._memory[key] for key in keys])
        if self.config.decoding == "constrained":
            items_BK = torch.tensor([self._found[key][0] for key in keys], device=scores.device)
            log_BK = torch.tensor([self._found[key][1] for key in keys], device=scores.device)
            scores.scatter_(1, items_BK, 1 + log_BK - log_BK[:, -1:])
        return scores

    def is_title(self, text: str) -> bool:
        """Whether a generated text is exactly a title of the catalogue."""
        return self._grounded().is_title(text)

    def save(self, directory: Path) -> None:
        """`config.json`, titles, their vectors, and the model or its adapter as a Hugging Face / PEFT folder."""
        lm, vectors = self._language_model(), self._grounded()
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(self.config.model_dump_json(indent=1) + "\n", encoding="utf-8")
        meta = {"base": lm.origin, "titles": self.titles}
        (directory / "catalogue.json").write_text(json.dumps(meta, ensure_ascii=False) + "\n", encoding="utf-8")
        save_file({"vectors": vectors.vectors_ID.cpu().contiguous()}, directory / "catalogue.safetensors")
        lm.save(directory / "model")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote; the base model must still be where it was."""
        config = BIGRecConfig.model_validate_json((directory / "config.json").read_bytes())
        meta = json.loads((directory / "catalogue.json").read_text(encoding="utf-8"))
        model = cls(config, Path(meta["base"]) if config.builds_language_model else None)
        model.titles = meta["titles"]
        if config.finetune.tuning == "lora":
            lm = model._load(meta["base"], adapter=directory / "model")
        else:
            lm = model._load(str(directory / "model"))
            lm.origin = meta["base"]
        model._adopt(lm)
        model._ground(load_file(directory / "catalogue.safetensors")["vectors"].to(lm.device))
        return model

    def _load(self, origin: str, adapter: Path | None = None) -> LanguageModel:
        lm = self.config.lm
        return LanguageModel.load(
            origin, dtype=lm.dtype if isinstance(lm, PretrainedConfig) else "auto", adapter=adapter
        )

    def _answered(self, examples: Examples, workspace: Path | None = None) -> list[tuple[int, ...]]:
        """The prompts, which the memory has the answers to."""
        keys = [tuple(prompt) for prompt in self._prompts(examples)]
        new = sorted({key for key in keys if key not in self._memory})
        if new and self.config.decoding == "constrained":
            self._decode(new, workspace)
        elif new:
            prompts, budget = [list(key) for key in new], self._answer_budget()
            config, lm = self.config.generation, self._language_model()
            answers = generate(lm, prompts, config, budget, workspace, self.server)
            self._memory |= dict(zip(new, answers, strict=True))
        return keys

    def _decode(self, new: list[tuple[int, ...]], workspace: Path | None) -> None:
        lm, config = self._language_model(), self.config
        if self._trie is None:
            # Titles are cut where training cuts them; cut to the same tokens they are the same title.
            self._trie = Trie.build([label[: self._answer_budget()] for label in self._labels], lm.device)
        k = min(config.decoded, len(self.titles))
        ranking = decode_titles(
            lm,
            [list(key) for key in new],
            self._trie,
            k,
            beams=max(k, config.generation.beams),
            length_penalty=config.generation.length_penalty,
            batch_size=config.generation.batch_size,
            workspace=workspace,
        )
        for key, items, scores in zip(new, ranking.items.tolist(), ranking.scores.tolist(), strict=True):
            self._found[key], self._memory[key] = (items, scores), self.titles[items[0]]

    def _forget(self) -> None:
        self._memory.clear()
        self._found.clear()

    def _judge(self, split: Split) -> dict[str, float]:
        self._forget()
        self.complete(split.valid)
        return validation_figures(self, split.valid)

    def _prompted(self, examples: Examples, loss_on: Literal["answer", "all"] = "answer") -> Prompted:
        """Prompts with the title of the (first) target; longer titles than generation may write are cut."""
        asked = examples.take(np.flatnonzero(examples.target.lengths > 0))
        labels = [self._labels[item][: self._answer_budget()] for item in asked.target.values[asked.target.starts]]
        prompts = self._prompts(asked)
        if loss_on == "all":
            labels = [prompt[1:] + label for prompt, label in zip(prompts, labels, strict=True)]
            prompts = [prompt[:1] for prompt in prompts]
        return Prompted(prompts, [[label] for label in labels])

    def _prompts(self, examples: Examples) -> list[list[int]]:
        return prompt_tokens(self._language_model(), examples, self.titles, self.config.prompt, self._answer_budget())

    def _adopt(self, lm: LanguageModel) -> None:
        self._lm, self._labels = lm, answer_tokens(lm, self.titles, self.config.prompt)
        self._trie = None

    def _base_origin(self) -> str:
        if self.base is not None:
            return self.base
        if isinstance(self.config.lm, PretrainedConfig):
            return self.config.lm.path
        raise InputError("BIGRec with a nano model needs the folder of the built model, see build_nano")

    def _ground(self, vectors_ID: Tensor) -> None:
        self.item_vectors = vectors_ID
        self._grounding = Grounding(self.titles, vectors_ID, lambda texts: self._language_model().encode(texts))

    def _answer_budget(self) -> int:
        """Tokens kept free for an answer, in training and in generation."""
        given = self.config.generation.max_new_tokens
        context = self._language_model().context
        return given or min(max(len(label) for label in self._labels), MAX_ANSWER, max(1, context // 4))

    def _language_model(self) -> LanguageModel:
        if self._lm is None:
            raise RuntimeError("BIGRec must be fitted or loaded first")
        return self._lm

    def _grounded(self) -> Grounding:
        if self._grounding is None:
            raise RuntimeError("BIGRec must be fitted or loaded first")
        return self._grounding
