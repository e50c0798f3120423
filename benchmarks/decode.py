"""Beam search of our own against the library's `generate()`, on MovieLens prompts with a briefly fine-tuned model.

    python benchmarks/decode.py            # 512 prompts, stories3m; about a quarter of an hour
    python benchmarks/decode.py --quick    # 48 prompts, stories260k, the ready sample's catalogue

Needs the model below `$TANDEMREC_MODELS` and, without `--quick`, MovieLens-1M below `$TANDEMREC_DATA`. Two claims:

- `distil`: what self-distillation does, the best of four beams for every training prompt. `agree` is the largest
  difference between the scores of the two ways' answers to one prompt (log-probability over length, both computed again
  from the answers); answers that differ at all are tied that closely.
- `constrained`: twenty titles of the catalogue for a prompt by twenty beams; the usual way is `generate()` with
  `prefix_allowed_tokens_fn` over a dictionary of prefixes. `agree` is the largest difference between the scores of
  equal places of the two lists.

Both ways get the same batches, ordered by length, and take turns. `--every 4` gives the usual way every fourth batch of
`distil` and scales its time; what is compared are those prompts.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import GenerationConfig as Settings

from tandemrec.data.dataset import Dataset
from tandemrec.data.filter import CleaningConfig, clean
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.sources import MovieLens
from tandemrec.data.sources.sample import Sample
from tandemrec.data.split import make_split
from tandemrec.experiment.card import hardware, package_versions
from tandemrec.llm.finetune import FineTuneConfig, FineTuning, fine_tune, prepare
from tandemrec.llm.generate import GenerationConfig, generate_beams
from tandemrec.llm.model import LanguageModel
from tandemrec.llm.objectives import SFT, Prompted
from tandemrec.llm.prompts import PromptConfig, answer_tokens, prompt_tokens
from tandemrec.llm.trie import Trie, decode_titles
from tandemrec.training import TrainingConfig

RESULTS = Path(__file__).parent / "results" / "decode.json"
BEAMS, PLACES = 4, 20
Scored = list[tuple[list[int], float]]
"""Answers to one prompt, best first, with the scores that the search gave them."""


@dataclass(frozen=True)
class Bench:
    """A model that has learned to answer in titles, prompts, and the titles as tokens."""

    lm: LanguageModel
    prompts: list[list[int]]
    titles: list[list[int]]
    batch: int = 32

    @property
    def longest(self) -> int:
        """Tokens of the longest title."""
        return max(len(title) for title in self.titles)


def prepared(name: str, data: Dataset, prompts: int, tuned_on: int) -> Bench:
    """Fine-tune on a few histories of three titles, then ask with histories of ten."""
    split = make_split(data, LeaveOneOut())
    config = FineTuneConfig(
        tuning="full",
        batch_size=16,
        training=TrainingConfig(epochs=1, learning_rate=1e-3, warmup_steps=10, patience=None),
    )
    lm = prepare(LanguageModel.load(name), config, seed=0)
    asked = PromptConfig(noun="films", singular="film", verb="watched", template="alpaca")
    titles = answer_tokens(lm, data.titles, asked)
    rows = np.random.default_rng(0).permutation(len(split.train))
    reserve = max(len(title) for title in titles)

    def part(chosen: np.ndarray, history: int) -> Prompted:
        examples = split.train.take(np.sort(chosen))
        texts = prompt_tokens(lm, examples, data.titles, asked.model_copy(update={"history": history}), reserve)
        return Prompted(texts, [[titles[row[0]]] for row in examples.target])

    learned = part(rows[prompts : prompts + tuned_on], 3)
    fine_tune(FineTuning(lm, SFT(), config, learned, part(rows[-16:], 3), 0))
    return Bench(lm, part(rows[:prompts], 10).prompts, titles)


def batches(bench: Bench) -> list[list[list[int]]]:
    """Prompts of similar length together, which costs both ways the least."""
    ordered = sorted(bench.prompts, key=len)
    return [ordered[start : start + bench.batch] for start in range(0, len(ordered), bench.batch)]


def library(
    bench: Bench, prompts: Sequence[list[int]], beams: int, penalty: float, allowed: Callable[..., list[int]] | None
) -> list[Scored]:
    """All beams of `generate()`."""
    lm = bench.lm
    ids, mask = lm.left_padded(prompts)
    settings = Settings(
        num_beams=beams,
        num_return_sequences=beams,
        do_sample=False,
        length_penalty=penalty,
        max_new_tokens=bench.longest,
        eos_token_id=lm.eos,
        pad_token_id=lm.pad,
        return_dict_in_generate=True,
        output_scores=True,
    )
    out = lm.model.generate(
        input_ids=ids, attention_mask=mask, generation_config=settings, prefix_allowed_tokens_fn=allowed
    )
    rows = [until(row, lm.eos) for row in out.sequences[:, ids.shape[1] :].tolist()]
    scored = list(zip(rows, out.sequences_scores.tolist(), strict=True))
    return [scored[start : start + beams] for start in range(0, len(scored), beams)]


def until(row: list[int], eos: int) -> list[int]:
    """An answer without the padding behind it."""
    return row[: row.index(eos) + 1] if eos in row else row


def forced(bench: Bench, prompt: list[int], answers: Sequence[list[int]]) -> np.ndarray:
    """Log-probabilities of answers by teacher forcing."""
    with torch.no_grad():
        return bench.lm.log_probs([prompt], [answers])[0].numpy().astype(np.float64)


def distil(bench: Bench, every: int) -> dict[str, float]:
    """The best of four beams for every prompt, and by the usual way for every so many batches."""
    config = GenerationConfig(beams=BEAMS, batch_size=bench.batch)

    def ours(batch: list[list[int]]) -> list[Scored]:
        beams = generate_beams(bench.lm, batch, config, bench.longest)
        return [[(list(b.tokens), b.log_prob / len(b.tokens)) for b in row] for row in beams]

    def usual(batch: list[list[int]]) -> list[Scored]:
        return library(bench, batch, BEAMS, config.length_penalty, None)

    found, seconds = take_turns(bench, {"ours": ours, "usual": usual}, every)
    gaps, differ, other = [0.0], 0, 0
    for prompt, mine, theirs in found:
        best = [mine[0][0], theirs[0][0]]
        scores = forced(bench, prompt, best) / [len(tokens) for tokens in best]
        gaps.append(abs(scores[0] - scores[1]))
        differ += best[0] != best[1]
        other += [tokens for tokens, _ in mine] != [tokens for tokens, _ in theirs]
    ended = float(np.mean([mine[0][0][-1] == bench.lm.eos for _, mine, _ in found]))
    facts = {"different_best": differ, "different_beams": other, "ended": ended}
    counts = {"prompts": len(bench.prompts), "compared": len(found)}
    return seconds | {"agree": float(max(gaps))} | counts | facts


def constrained(bench: Bench, count: int) -> dict[str, float]:
    """Twenty titles for a prompt."""
    trie = Trie.build(bench.titles)
    follow: dict[tuple[int, ...], set[int]] = defaultdict(set)
    for title in bench.titles:
        for i, token in enumerate(title):
            follow[tuple(title[:i])].add(token)
    ready = {prefix: sorted(tokens) for prefix, tokens in follow.items()}
    few = Bench(bench.lm, bench.prompts[:count], bench.titles, batch=8)

    def ours(batch: list[list[int]]) -> list[Scored]:
        ranking = decode_titles(bench.lm, batch, trie, PLACES, batch_size=bench.batch)
        pairs = zip(ranking.items.tolist(), ranking.scores.tolist(), strict=True)
        return [[(bench.titles[i], score) for i, score in zip(*row, strict=True)] for row in pairs]

    def usual(batch: list[list[int]]) -> list[Scored]:
        width = max(len(prompt) for prompt in batch)

        def allowed(_: int, ids: torch.Tensor) -> list[int]:
            return ready.get(tuple(ids[width:].tolist()), [bench.lm.eos])

        return library(bench, batch, PLACES, 0.0, allowed)

    found, seconds = take_turns(few, {"ours": ours, "usual": usual})
    known = {tuple(title) for title in bench.titles}
    gaps, errors, strange = [0.0], [0.0], 0
    for prompt, mine, theirs in found:
        different = list({tuple(tokens): score for tokens, score in mine}.values())
        rivals = [score for tokens, score in theirs if tuple(tokens) in known]
        gaps += [abs(a - b) for a, b in zip(different, rivals, strict=False)]
        errors.append(np.abs(forced(bench, prompt, [tokens for tokens, _ in mine]) - [s for _, s in mine]).max())
        strange += sum(tuple(tokens) not in known for tokens, _ in mine)
    facts = {"off_teacher_forcing": float(max(errors)), "no_titles": strange, "titles": len(trie)}
    return seconds | {"agree": float(max(gaps)), "prompts": count, "compared": count} | facts


def take_turns(
    bench: Bench, ways: dict[str, Callable[[list[list[int]]], list[Scored]]], every: int = 1
) -> tuple[list[tuple[list[int], Scored, Scored]], dict[str, float]]:
    """Prompts with both answers, and the seconds of both ways; the usual one answers every so many batches."""
    for way in ways.values():
        way([prompt[-40:] for prompt in bench.prompts[:2]])  # what is built once is no part of the comparison
    seconds, asked, found = {"ours": 0.0, "usual": 0.0}, 0, []
    for turn, batch in enumerate(batches(bench)):
        answers = {}
        for name in sorted(ways, reverse=bool(turn // every % 2)):
            if name == "usual" and turn % every:
                continue
            begin = time.perf_counter()
            answers[name] = ways[name](batch)
            seconds[name] += time.perf_counter() - begin
        if "usual" in answers:
            asked += len(batch)
            found += list(zip(batch, answers["ours"], answers["usual"], strict=True))
    seconds["usual"] *= len(bench.prompts) / asked
    return found, seconds


def main() -> None:
    """Fine-tune, measure, compare, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the sample data and the smallest model")
    parser.add_argument("--every", type=int, default=1, help="batches of which the usual way gets one")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.quick:
        bench = prepared("stories260k", Sample().load(), 48, 64)
    else:
        data, _ = clean(MovieLens(edition="ml-1m").load(), CleaningConfig(min_item_count=5))
        bench = prepared("stories3m", data, 512, 256)
    results = {"distil": distil(bench, arguments.every), "constrained": constrained(bench, 16)}
    for name, row in results.items():
        print(
            f"claim={name}{'-quick' * arguments.quick} ratio={row['usual'] / row['ours']:.2f} ours={row['ours']:.2f} "
            f"usual={row['usual']:.2f} agree={row['agree']:.2g}"
        )
        print(", ".join(f"{key} {value:g}" for key, value in row.items() if key not in {"ours", "usual", "agree"}))
    if not arguments.quick:
        lengths = [len(prompt) for prompt in bench.prompts]
        facts = {"model": "stories3m", "prompt_tokens": float(np.mean(lengths)), "answer_tokens": bench.longest}
        facts |= {"beams": BEAMS, "places": PLACES, "batch": bench.batch, "threads": arguments.threads}
        machine = {"hardware": hardware(), "packages": package_versions()}
        RESULTS.write_text(json.dumps(facts | results | machine, indent=1) + "\n")


if __name__ == "__main__":
    main()
