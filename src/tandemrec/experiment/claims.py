"""What a paper claims, judged by finished runs: it held, it was reversed, or these runs cannot tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from tandemrec.errors import InputError
from tandemrec.evaluation.cost import tuning_seconds
from tandemrec.evaluation.significance import holm
from tandemrec.experiment.papers import Better, Cheaper, Claim, Easier, Experiment
from tandemrec.experiment.run import Run
from tandemrec.report.comparison import pair_of

Verdict = Literal["held", "reversed", "open", "not asked"]


def judge_claims(
    experiment: Experiment, compared: Mapping[str, Any], runs: Sequence[Run], claims: Sequence[Claim] | None = None
) -> list[dict[str, Any]]:
    """Every claim with its verdict and the figures behind it.

    Claims about accuracy are paired tests over users (several runs: over users and training seeds), corrected by Holm
    for the number of such claims. Claims about time and losses have one figure a run: they hold, or are reversed, where
    all runs agree.

    Args:
        experiment: whose claims.
        compared: what `compare` found in the runs, by the experiment's metric.
        runs: one a training seed.
        claims: which ones, corrected together; default: the paper's.

    Raises:
        InputError: if a run is too old to tell times that a claim is about.
    """
    there = {row["system"] for row in compared["leaderboard"]}
    asked = experiment.claims if claims is None else claims
    judged = [_judged(claim, experiment, compared, runs, there) for claim in asked]
    settle(judged, compared["settings"]["level"])
    return judged


def settle(judged: Sequence[dict[str, Any]], level: float) -> None:
    """Write the corrected p-value and the verdict into those claims that were tested."""
    tested = [row for row in judged if "p_value" in row]
    corrected = holm(np.array([row["p_value"] for row in tested]))
    for row, p_holm in zip(tested, corrected, strict=True):
        row["p_holm"] = float(p_holm)
        row["verdict"] = ("held" if row["gain"] > 0 else "reversed") if p_holm < 1 - level else "open"


def shares(claim: Mapping[str, Any]) -> list[float | None]:
    """Gain and bounds of its interval as shares of the loser's figure, None where that is 0."""
    base = claim["figures"][1]
    return [claim[key] / base if base else None for key in ("gain", "low", "high")]


def _judged(
    claim: Claim, experiment: Experiment, compared: Mapping[str, Any], runs: Sequence[Run], there: set[str]
) -> dict[str, Any]:
    asked = (claim.easier,) if isinstance(claim, Easier) else (_first(claim), claim.than)
    facts: dict[str, Any] = {"kind": type(claim).__name__.lower(), "systems": list(asked)}
    if not there.issuperset(asked):
        return facts | {"verdict": "not asked"}
    if isinstance(claim, Better):
        return facts | _better(claim, experiment, compared)
    if isinstance(claim, Cheaper):
        times = [[_seconds(run, name) for name in asked] for run in runs]
        ratios = [mine / max(other, 1e-9) for mine, other in times]
    else:
        ratios = [_loss_ratio(run, claim.easier) for run in runs]
        facts |= {"published_ratio": claim.ratio, "answers": _answers(runs, claim.easier)}
    return facts | {"ratios": ratios, "verdict": _agreed(ratios)}


def _first(claim: Better | Cheaper) -> str:
    return claim.better if isinstance(claim, Better) else claim.cheaper


def _better(claim: Better, experiment: Experiment, compared: Mapping[str, Any]) -> dict[str, Any]:
    """The test of two systems. `gain`, `low` and `high` are positive where the claimed winner wins; shares of the
    loser's figure are beside them, here and in the paper.
    """
    metric = experiment.judged_by
    sign = -1 if compared["evaluation"].get("task") == "rating" else 1
    pair = pair_of(compared, claim.better, claim.than)
    low, high = sorted((sign * pair["low"], sign * pair["high"]))
    figures = {row["system"]: row["metrics"][metric]["mean"] for row in compared["leaderboard"]}
    found = {"metric": metric, "gain": sign * pair["difference"], "low": low, "high": high}
    found |= {key: pair[key] for key in ("p_value", "test", "repetitions")}
    found["figures"] = [figures[claim.better], figures[claim.than]]
    found["share"] = shares(found)
    at = experiment.metrics.index(metric)
    published = [experiment.published.get(name, (None,) * (at + 1))[at] for name in (claim.better, claim.than)]
    winner, loser = published
    known = winner is not None and loser is not None and loser > 0
    return found | {
        "published": published,
        "published_share": sign * (winner - loser) / loser if known and winner is not None and loser else None,
    }


def _seconds(run: Run, system: str) -> float:
    seconds = tuning_seconds(run.card, system)
    if seconds is None:
        raise InputError(f"{run.path} is of an older version, whose runs do not tell what a system took")
    return seconds


def _loss_ratio(run: Run, student: str) -> float:
    """The first epoch's training loss on a teacher's own answers over its own first epoch's on the real ones."""
    teacher = run.card["distilled"][student]["teacher"]
    own, real = (run.card["models"][name]["curve"][0]["loss"] for name in (student, teacher))
    return float(own / real)


def _answers(runs: Sequence[Run], student: str) -> dict[str, float | None]:
    """Mean shares of the teacher's answers: exact titles, hits, hits of the target's kind; None for what is unknown."""
    several = [run.card["distilled"][student] for run in runs]
    shares = {key: [one[f"{key}_share"] for one in several] for key in ("exact", "hit", "hit_kind")}
    return {key: None if None in values else float(np.mean(values)) for key, values in shares.items()}


def _agreed(ratios: Sequence[float]) -> Verdict:
    if all(ratio < 1 for ratio in ratios):
        return "held"
    return "reversed" if all(ratio > 1 for ratio in ratios) else "open"
