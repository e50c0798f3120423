"""Steps of fine-tuning: shared prompts, label logits and full rows against a plain pass for every completion.

    python benchmarks/finetune.py            # some minutes
    python benchmarks/finetune.py --quick    # a smaller model and fewer repetitions

soft-step, sdpo-step-kK: one optimiser step at prompts of 150 and 250 tokens. The usual way runs the same model once for
every completion, in padded batches, and takes logits everywhere; reference log-probabilities are cached on both sides.
packing: an epoch over MovieLens prompts; the usual way pads batches in the order of the epoch.
step-memory: peak memory of a step above what the process held before it, against Transformers' Trainer on the same
batch with a vocabulary of 128,256; each in a process of its own. `agree` is the largest difference of any parameter's
gradient (steps), of the mean loss (packing), or of the loss (step-memory).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from memory import peak, reset_peak, resident
from torch import Tensor

from tandemrec.experiment.card import hardware
from tandemrec.llm.finetune import FineTuneConfig, FineTuning
from tandemrec.llm.model import LanguageModel
from tandemrec.llm.objectives import SDPO, SFT, SOFT, Objective, Prompted

RESULTS = Path(__file__).parent / "results" / "finetune.json"
BIG_VOCABULARY = 128_256


def language_model(vocabulary: int, *, hidden: int, layers: int) -> LanguageModel:
    """A Llama with random weights, and no tokenizer: the benchmarks bring their own tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=hidden * 3,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    tokenizer = SimpleNamespace(pad_token_id=0, unk_token_id=0, eos_token_id=2, bos_token_id=1)
    return LanguageModel(LlamaForCausalLM(config), tokenizer, "random")


def random_part(n: int, prompt: int, completions: int, vocabulary: int) -> Prompted:
    """Prompts of one length; completions of 8 to 20 tokens, as titles have."""
    rng = np.random.default_rng(prompt + completions)

    def tokens(size: int) -> list[int]:
        return rng.integers(3, vocabulary, size).tolist()

    several = [[[*tokens(int(rng.integers(8, 21))), 2] for _ in range(completions)] for _ in range(n)]
    return Prompted([tokens(prompt) for _ in range(n)], several)


def plain_log_probs(model: Any, part: Prompted, rows: list[int], column: int) -> Tensor:
    """Summed label log-probabilities (B,) from one padded pass over `[x | y]`, logits everywhere."""
    texts = [part.prompts[row] + part.completions[row][column] for row in rows]
    width = max(map(len, texts))
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), -100)
    for i, (row, text) in enumerate(zip(rows, texts, strict=True)):
        ids[i, : len(text)], mask[i, : len(text)] = torch.tensor(text), 1
        start = len(part.prompts[row])
        labels[i, start : len(text)] = torch.tensor(text[start:])
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="none")
    return -losses.view(len(rows), -1).sum(1)


def duel(ours: Callable[[], Any], usual: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Median seconds of both; they take turns, so that what else the machine does hits both."""
    seconds: tuple[list[float], list[float]] = [], []
    for turn in range(repeats + 1):
        for way, taken in zip((ours, usual), seconds, strict=True):
            begin = time.perf_counter()
            way()
            if turn:
                taken.append(time.perf_counter() - begin)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def gradients(lm: LanguageModel) -> list[Tensor]:
    """Copies of all gradients."""
    return [p.grad.clone() for p in lm.model.parameters()]


def step_claim(objective: Objective, part: Prompted, lm: LanguageModel, repeats: int) -> dict[str, float]:
    """One optimiser step on all of `part`, packed and by separate passes."""
    config, rows = (
        FineTuneConfig(tuning="full", batch_size=len(part), micro_batch_tokens=1 << 20),
        list(range(len(part))),
    )
    lm.model.train()
    task = FineTuning(lm, objective, config, part, part.keep([0]), seed=0)
    optimizer = torch.optim.AdamW(lm.model.parameters(), lr=0.0, fused=True)
    columns = list(objective.columns())
    counts = torch.tensor([[len(part.completions[row][c]) for c in columns] for row in rows])

    def finish(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def ours() -> None:
        finish(task.loss(rows) / task.weight(rows))

    def usual() -> None:
        values_BC = torch.stack([plain_log_probs(lm.model, part, rows, column) for column in columns], 1)
        finish(objective.loss(rows, values_BC, counts) / objective.weight(counts))

    ours()
    mine = gradients(lm)
    usual()
    agree = max(float((a - b).abs().max()) for a, b in zip(mine, gradients(lm), strict=True))
    seconds = duel(ours, usual, repeats)
    return {"ours": seconds[0], "usual": seconds[1], "agree": agree}


def steps(quick: bool, repeats: int) -> dict[str, dict[str, float]]:
    """soft-step and sdpo-step at two prompt lengths."""
    vocabulary = 4096
    lm = language_model(vocabulary, hidden=128 if quick else 256, layers=4 if quick else 6)
    found = {}
    for length in (150, 250):
        found[f"soft-step-{length}"] = step_claim(
            SOFT(tau=0.5), random_part(4 if quick else 8, length, 2, vocabulary), lm, repeats
        )
        for k in (3, 15):
            part = random_part(2 if quick or k > 3 else 4, length, 1 + k, vocabulary)
            with torch.no_grad():
                reference_NC = lm.log_probs(part.prompts, part.completions)
            found[f"sdpo-step-k{k}-{length}"] = step_claim(SDPO(reference_NC), part, lm, repeats)
    return found


def packing(quick: bool, repeats: int) -> dict[str, float]:
    """An epoch of SFT on MovieLens prompts of up to ten titles, micro-batches of about equally many tokens."""
    from tandemrec.experiment.recipe import load_recipe
    from tandemrec.experiment.run import prepare
    from tandemrec.llm.prompts import PromptConfig, answer_tokens, prompt_tokens

    split, _ = prepare(load_recipe("ml-1m"))
    source = LanguageModel.load("stories3m")
    lm = language_model(len(source.tokenizer), hidden=128 if quick else 256, layers=4 if quick else 6)
    lm.tokenizer = source.tokenizer
    config, titles = PromptConfig(template="compact", verb="watched"), split.dataset.titles
    examples = split.train.take(slice(0, 64 if quick else 256))
    labels = answer_tokens(lm, titles, config)
    prompts = prompt_tokens(lm, examples, titles, config, 64)
    part = Prompted(prompts, [[labels[row[0]]] for row in examples.target])
    tuning = FineTuneConfig(tuning="full", batch_size=64, micro_batch_tokens=4096)
    task = FineTuning(lm, SFT(), tuning, part, part, seed=0)
    longest = max(map(part.length, range(len(part))))
    padded = max(1, tuning.micro_batch_tokens // longest)
    losses: dict[str, float] = {}

    def ours() -> None:
        lm.model.zero_grad()
        total = 0.0
        for step in task.steps(0):
            for rows in step:
                loss = task.loss(rows)
                loss.backward()
                total += float(loss.detach())
        losses["ours"] = total / sum(len(several[0]) for several in part.completions)

    def usual() -> None:
        lm.model.zero_grad()
        total = 0.0
        for rows in task.drawn(0):
            for start in range(0, len(rows), padded):
                loss = -plain_log_probs(lm.model, part, rows[start : start + padded], 0).sum()
                loss.backward()
                total += float(loss.detach())
        losses["usual"] = total / sum(len(several[0]) for several in part.completions)

    seconds = duel(ours, usual, repeats)
    return {"ours": seconds[0], "usual": seconds[1], "agree": abs(losses["ours"] - losses["usual"])}


def memory_child(way: str, quick: bool) -> None:
    """One step with a large vocabulary; prints the peak above what was held before, in MiB, and the loss."""
    lm = language_model(BIG_VOCABULARY, hidden=128, layers=2)
    part = random_part(4 if quick else 16, 150, 1, BIG_VOCABULARY)
    rows = list(range(len(part)))
    if way == "ours":
        config = FineTuneConfig(tuning="full", batch_size=len(part))
        task = FineTuning(lm, SFT(), config, part, part, seed=0)
        optimizer = torch.optim.AdamW(lm.model.parameters(), lr=0.0, fused=True)

        def step() -> float:
            (batches,) = task.steps(0)
            weight, total = sum(task.weight(batch) for batch in batches), 0.0
            for batch in batches:
                loss = task.loss(batch) / weight
                loss.backward()
                total += float(loss.detach())
            optimizer.step()
            optimizer.zero_grad()
            return total
    else:
        step = trainer_step(lm.model, part, rows)
    warm = step()  # gradients and the optimiser's state are there now; they are no part of a step's peak
    before = resident()
    reset_peak()
    loss = step()
    assert abs(loss - warm) < 1e-3
    print(json.dumps({"mib": peak() - before, "loss": loss}))


def trainer_step(model: Any, part: Prompted, rows: list[int]) -> Callable[[], float]:
    """A training step of Transformers' Trainer on the whole batch at once."""
    from transformers import Trainer, TrainingArguments

    texts = [part.prompts[row] + part.completions[row][0] for row in rows]
    width = max(map(len, texts))
    batch = {
        "input_ids": torch.tensor([text + [0] * (width - len(text)) for text in texts]),
        "attention_mask": torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts]),
        "labels": torch.tensor(
            [
                [-100] * len(part.prompts[row]) + text[len(part.prompts[row]) :] + [-100] * (width - len(text))
                for row, text in zip(rows, texts, strict=True)
            ]
        ),
    }
    arguments = TrainingArguments(output_dir="/tmp/trainer", use_cpu=True, report_to=[], learning_rate=0.0)
    trainer = Trainer(model, arguments, train_dataset=[{}])
    trainer.create_optimizer()
    counts = (batch["labels"] != -100).sum()

    def step() -> float:
        loss = trainer.training_step(model, dict(batch), counts)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        return float(loss)

    return step


def memory(quick: bool) -> dict[str, float]:
    """step-memory, in MiB."""
    found = {}
    for way in ("ours", "usual"):
        command = [sys.executable, __file__, "--memory-child", way, *(["--quick"] if quick else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[way] = json.loads(done.stdout.splitlines()[-1])
    return {
        "ours": found["ours"]["mib"],
        "usual": found["usual"]["mib"],
        "agree": abs(found["ours"]["loss"] - found["usual"]["loss"]),
    }


def main() -> None:
    """Measure, check, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smaller model and fewer repetitions")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory-child", choices=("ours", "usual"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory_child:
        memory_child(arguments.memory_child, arguments.quick)
        return
    repeats = 3 if arguments.quick else 5
    claims = steps(arguments.quick, repeats)
    claims["packing"] = packing(arguments.quick, repeats)
    claims["step-memory"] = memory(arguments.quick)
    for name, claim in claims.items():
        ratio = claim["usual"] / claim["ours"]
        suffix = "-quick" if arguments.quick else ""
        print(
            f"claim={name}{suffix} ratio={ratio:.2f} ours={claim['ours']:.3f} usual={claim['usual']:.3f} "
            f"agree={claim['agree']:.1e}"
        )
    if not arguments.quick:
        facts = {"claims": claims, "threads": arguments.threads, "hardware": hardware()}
        RESULTS.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
