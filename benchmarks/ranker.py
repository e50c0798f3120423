"""Pointwise scoring of a user's candidates over one shared prompt against one prompt a candidate.

    python benchmarks/ranker.py            # 32 users of MovieLens-100K, stories3m; a few minutes
    python benchmarks/ranker.py --quick    # 8 users of the bundled sample, stories260k

Needs the model below `$TANDEMREC_MODELS` and, without `--quick`, MovieLens-100K below `$TANDEMREC_DATA`. One claim,
`pointwise`: probabilities of the ratings 1 to 5 for ten candidates of every user. The usual way runs all ten prompts of
a user as one padded batch and reads the logits behind the last token. Both ways take turns, user by user, and `agree`
is the largest difference between their probabilities.

A candidate's part of the prompt is computed for each of them, so templates with more words behind the history gain less
and longer histories gain more. `pointwise` is the template for small models within the model's context of 512 tokens;
`pointwise-alpaca` the long template there, and `pointwise-alpaca-2048` with up to 50 titles and 20 of a similar user in
the 2,048 tokens of the paper's model: stories3m was not trained for such positions, which changes neither time nor
agreement.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from tandemrec.data.dataset import Dataset
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.sources import MovieLens
from tandemrec.data.sources.sample import Sample
from tandemrec.data.split import make_split
from tandemrec.experiment.card import hardware, package_versions
from tandemrec.llm.judging import option_probabilities
from tandemrec.llm.model import LanguageModel
from tandemrec.llm.questions import Question, QuestionConfig, fitting_heads, option_tokens, rating_text, tail_text

RESULTS = Path(__file__).parent / "results" / "ranker.json"
CANDIDATES = 10
Tokens = list[int]


@dataclass(frozen=True)
class Case:
    """How long the questions are: template, titles of the user and of the similar one, context (None: the model's)."""

    template: Literal["compact", "alpaca"] = "compact"
    history: int = 20
    similar: int = 10
    context: int | None = None
    users: int = 32


CASES = {
    "pointwise": Case(),
    "pointwise-alpaca": Case("alpaca"),
    "pointwise-alpaca-2048": Case("alpaca", 50, 20, 2048, 8),
}


@dataclass(frozen=True)
class Asked:
    """Questions about ten candidates of every user: heads, their tails, and the answers."""

    lm: LanguageModel
    heads: list[Tokens]
    tails: list[list[Tokens]]
    options: list[Tokens]


def prepared(name: str, data: Dataset, case: Case) -> Asked:
    """The rater's question, with history and a similar user's, about random candidates."""
    lm, split = LanguageModel.load(name), make_split(data, LeaveOneOut(history=None))
    if case.context is not None:
        lm.model.config.max_position_embeddings = case.context
    # The oldest titles are left out until the question fits the context.
    config = QuestionConfig(
        template=case.template,
        noun="films",
        singular="film",
        verb="watched",
        history=case.history,
        similar=case.similar,
    )
    rng = np.random.default_rng(0)
    rows = split.test.take(np.sort(rng.permutation(len(split.test))[: case.users]))
    strangers = rng.integers(len(split.sequences), size=len(rows))
    others = [split.sequences[int(user)][-case.similar :].tolist() for user in strangers]
    questions = [
        Question("rating", shown, [None] * len(shown), other, [None] * len(other))
        for history, other in zip(rows.history, others, strict=True)
        for shown in (history[-case.history :].tolist(),)
    ]
    chosen = [rng.choice(split.n_items, CANDIDATES, replace=False).tolist() for _ in questions]
    hints = [rating_text(value) for value in rng.uniform(1, 5, CANDIDATES)]
    texts = [
        [tail_text("rating", data.titles[item], hint, config) for item, hint in zip(row, hints, strict=True)]
        for row in chosen
    ]
    tails = [lm.tokenize(row) for row in texts]
    options = option_tokens(lm, list("12345"), config)
    longest = max(len(tail) for row in tails for tail in row)
    return Asked(lm, fitting_heads(lm, questions, data.titles, (1, 5), config, longest + 3), tails, options)


def ours(asked: Asked, user: int) -> np.ndarray:
    """One prompt for all candidates."""
    return option_probabilities(asked.lm, [asked.heads[user]], [asked.tails[user]], asked.options)[0]


@torch.no_grad()
def usual(asked: Asked, user: int) -> np.ndarray:
    """One prompt a candidate, in one batch."""
    blank = asked.options[0][:-1]
    ids, mask = asked.lm.left_padded([asked.heads[user] + tail + blank for tail in asked.tails[user]])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    out = asked.lm.model(
        input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=1
    ).logits[:, -1]
    last = [option[-1] for option in asked.options]
    probabilities: np.ndarray = out.double()[:, last].softmax(1).cpu().numpy()
    return probabilities


def compare(asked: Asked, rounds: int) -> dict[str, float]:
    """Seconds of both ways for all users, the least of several rounds, in turns."""
    if len({tuple(option[:-1]) for option in asked.options}) > 1:
        raise SystemExit("the tokenizer cuts the answers into different numbers of tokens; the usual way reads one")
    ours(asked, 0), usual(asked, 0)
    seconds: dict[str, list[float]] = {"ours": [], "usual": []}
    gap = 0.0
    for turn in range(rounds):
        spent = dict.fromkeys(seconds, 0.0)
        for user in range(len(asked.heads)):
            found = {}
            for name, way in sorted({"ours": ours, "usual": usual}.items(), reverse=bool((turn + user) % 2)):
                begin = time.perf_counter()
                found[name] = way(asked, user)
                spent[name] += time.perf_counter() - begin
            gap = max(gap, float(np.abs(found["ours"] - found["usual"]).max()))
        for name, value in spent.items():
            seconds[name].append(value)
    return {name: min(values) for name, values in seconds.items()} | {"agree": gap}


def main() -> None:
    """Measure, compare, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the sample data and the smallest model")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = Sample().load() if arguments.quick else MovieLens(edition="ml-100k").load()
    report: dict[str, Any] = {}
    for claim, case in {"pointwise-quick": Case(users=8)}.items() if arguments.quick else CASES.items():
        asked = prepared("stories260k" if arguments.quick else "stories3m", data, case)
        row = compare(asked, arguments.rounds)
        print(
            f"claim={claim} ratio={row['usual'] / row['ours']:.2f} ours={row['ours']:.3f} usual={row['usual']:.3f} "
            f"agree={row['agree']:.2g}"
        )
        facts = {
            "users": len(asked.heads),
            "candidates": CANDIDATES,
            "prompt_tokens": float(np.mean([len(head) for head in asked.heads])),
            "tail_tokens": float(np.mean([len(tail) for several in asked.tails for tail in several])),
        }
        print(", ".join(f"{key} {value:g}" for key, value in facts.items()), flush=True)
        report[claim] = row | facts | {"threads": torch.get_num_threads()}
    if not arguments.quick:
        report |= {"hardware": hardware(), "packages": package_versions()}
        RESULTS.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
