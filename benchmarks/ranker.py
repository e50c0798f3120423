"""Pointwise scoring of a user's candidates over one shared prompt against one prompt a candidate.

    python benchmarks/ranker.py            # 32 users of MovieLens-100K, stories3m; a few minutes
    python benchmarks/ranker.py --quick    # 8 users of the bundled sample, stories260k

Needs the model below `$TANDEMREC_MODELS` and, without `--quick`, MovieLens-100K below `$TANDEMREC_DATA`. One claim,
`pointwise`: probabilities of the ratings 1 to 5 for ten candidates of every user. The usual way runs all ten prompts of
a user as one padded batch and reads the logits behind the last token. Both ways take turns, user by user, and `agree`
is the largest difference between their probabilities.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

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
HISTORY, SIMILAR = 20, 10
Tokens = list[int]


@dataclass(frozen=True)
class Asked:
    """Questions about ten candidates of every user: heads, their tails, and the answers."""

    lm: LanguageModel
    heads: list[Tokens]
    tails: list[list[Tokens]]
    options: list[Tokens]


def prepared(name: str, data: Dataset, users: int) -> Asked:
    """The rater's question, with history and a similar user's, about random candidates."""
    lm, split = LanguageModel.load(name), make_split(data, LeaveOneOut())
    # The template for small models; its oldest titles are left out until the question fits the context.
    config = QuestionConfig(
        template="compact", noun="films", singular="film", verb="watched", history=HISTORY, similar=SIMILAR
    )
    rng = np.random.default_rng(0)
    rows = split.test.take(np.sort(rng.permutation(len(split.test))[:users]))
    others = [split.sequences[int(user)][-SIMILAR:].tolist() for user in rng.integers(len(split.sequences), size=users)]
    questions = [
        Question("rating", history[-HISTORY:].tolist(), [None] * min(HISTORY, len(history)), other, [None] * len(other))
        for history, other in zip(rows.history, others, strict=True)
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
    if arguments.quick:
        asked = prepared("stories260k", Sample().load(), 8)
    else:
        asked = prepared("stories3m", MovieLens(edition="ml-100k").load(), 32)
    row = compare(asked, arguments.rounds)
    print(
        f"claim=pointwise{'-quick' * arguments.quick} ratio={row['usual'] / row['ours']:.2f} ours={row['ours']:.3f} "
        f"usual={row['usual']:.3f} agree={row['agree']:.2g}"
    )
    facts = {
        "users": len(asked.heads),
        "candidates": CANDIDATES,
        "prompt_tokens": float(np.mean([len(head) for head in asked.heads])),
        "tail_tokens": float(np.mean([len(tail) for several in asked.tails for tail in several])),
    }
    print(", ".join(f"{key} {value:g}" for key, value in facts.items()))
    if not arguments.quick:
        facts |= {"threads": torch.get_num_threads()}
        report = {"pointwise": row | facts, "hardware": hardware(), "packages": package_versions()}
        RESULTS.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
