"""Claims of papers for `paper_results.py`: what several experiments ask is counted once, by a rule that is stated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tandemrec.report.reproduction import SHORT, VERDICTS, claimed

RULE = (
    "Experiments of other protocols, tables of ablations and tables of single models ask many claims again. Two are "
    "the same where paper, data set, both systems (by their names) and the metric agree, whatever its cut-off, the "
    "protocol and the other systems of the experiment. Such a claim held, came out the other way round or is open "
    "where all experiments that ask it say so; else they disagree."
)

DISAGREE = "disagree"
"""Verdict of a claim that was settled in one experiment and not in another, or the other way round there."""

WORDS = VERDICTS | {DISAGREE: "came out differently from experiment to experiment"}
"""Verdict of several claims → words."""


@dataclass(frozen=True)
class Distinct:
    """A claim, and what every experiment that asks it says.

    Attributes:
        claim: as the first experiment judged it.
        data: name of the data set.
        said: what each experiment shows, and its verdict.
    """

    claim: Mapping[str, Any]
    data: str
    said: tuple[tuple[str, str], ...]

    @property
    def verdict(self) -> str:
        """What all experiments that could ask it say."""
        found = {verdict for _, verdict in self.said} - {"not asked"}
        return DISAGREE if len(found) > 1 else next(iter(found), "not asked")

    def line(self) -> str:
        """The claim with the verdict of every experiment, as a list's line."""
        said = "; ".join(f"{SHORT[verdict]} in {shows}" for shows, verdict in self.said)
        return f"- {claimed(self.claim)}, on {self.data}: {said}."


def distinct(found: Sequence[Mapping[str, Any]]) -> list[Distinct]:
    """The different claims of experiments, by `RULE`, in the order in which they are asked first."""
    same: dict[tuple[object, ...], list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for one in found:
        for claim in one["claims"]:
            metric = claim.get("metric", "").partition("@")[0]
            key = one["paper"], one["data"]["name"], claim["kind"], tuple(claim["systems"]), metric
            same.setdefault(key, []).append((one, claim))
    return [
        Distinct(first, one["data"]["name"], tuple((each["shows"], claim["verdict"]) for each, claim in asked))
        for asked in same.values()
        for one, first in asked[:1]
    ]


def counted_once(found: Sequence[Mapping[str, Any]]) -> str:
    """How many claims there are and what became of them, in words; empty where there is none."""
    claims = distinct(found)
    if not claims:
        return ""
    verdicts = [claim.verdict for claim in claims]
    said = ", ".join(f"{verdicts.count(kind)} {words}" for kind, words in WORDS.items() if kind in verdicts)
    again = len([claim for claim in claims if len(claim.said) > 1])
    if not again:
        return "No claim is asked twice."
    better = [claim.verdict for claim in claims if claim.claim["kind"] == "better"]
    text = f"Counted once, there are {len(claims)} different claims ({again} asked more than once): {said}."
    if better:
        text += f" Of the {len(better)} different ones about accuracy {better.count('held')} held."
    return text


def disagreements(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for every claim whose experiments disagree."""
    return [claim.line() for claim in distinct(found) if claim.verdict == DISAGREE]
