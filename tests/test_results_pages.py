"""Pages of results and benchmarks are those of the committed figures, and their links lead somewhere."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from scipy import stats

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from distinct_claims import counted_once, disagreements, distinct  # noqa: E402
from paper_results import BEFORE_POOLING, file_of, on_the_safe_side  # noqa: E402
from published import DOCS, joined, pages, signed, trainings  # noqa: E402

from tandemrec.experiment.papers import experiment_recipe, experiments  # noqa: E402

PAGES = pages()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_is_as_the_figures_have_it(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == PAGES[path], "run `python benchmarks/published.py --render`"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    headings = {anchor(line.lstrip("# ")) for line in PAGES[path].splitlines() if line.startswith("#")}
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[path]):
        assert target[1:] in headings if target.startswith("#") else (path.parent / target).exists(), target


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("name", ["tiger-toys", "tiger-games", "tiger-ml-1m"])
def test_results_of_semantic_ids_say_how_good_these_are(name: str) -> None:
    content = json.loads((DOCS / "results" / f"{name}.json").read_text())
    systems = {row["system"] for row in content["rows"] if row["system"].startswith("TIGER")}
    assert set(content["semantic_ids"]) == systems
    for about in content["semantic_ids"].values():
        assert f"{about['collision_rate']:.1%} | {about['largest_collision']}" in PAGES[DOCS / "results.md"]


def test_trainings_of_a_recipe_bring_their_spread(tmp_path: Path) -> None:
    recipe = tmp_path / "two.yaml"
    recipe.write_text(
        "name: two\ndata: {format: sample}\nsplit: {protocol: leave-one-out, sample: {test: 100}}\n"
        "models: {Popularity: {model: popularity}, MF: {model: mf, dim: 4, training: {epochs: 1, patience: null}}}\n"
    )
    measured = trainings(str(recipe), (1, 2, 3))
    assert measured["seed"] == [1, 2, 3] and measured["n"] == 100
    metrics = {row["system"]: row["metrics"]["ndcg@10"] for row in measured["rows"]}
    for figures in metrics.values():
        mean, error = fmean(figures["by_seed"]), stdev(figures["by_seed"]) / 3**0.5
        assert (figures["mean"], figures["seed_error"]) == pytest.approx((mean, error))
        assert figures["standard_error"] >= max(error, figures["user_error"])
    assert metrics["MF"]["seed_error"] > metrics["Popularity"]["seed_error"] == 0


def test_systems_that_are_measured_again_bring_their_ids() -> None:
    facts: dict[str, Any] = {"n": 1, "protocol": "P", "seed": 2, "seconds": {}}

    def measured(ids: dict[str, Any], *systems: str) -> dict[str, Any]:
        rows = [{"system": system, "metrics": {"ndcg@10": {"mean": 0.1}}} for system in systems]
        return facts | {"rows": rows} | ({"semantic_ids": ids} if ids else {})

    before = measured({"TIGER": "old", "Other": "kept"}, "TIGER", "Other")
    assert joined(before, measured({"TIGER": "new"}, "TIGER"))["semantic_ids"] == {"TIGER": "new", "Other": "kept"}
    assert "semantic_ids" not in joined(measured({}, "EASE"), measured({}, "MF"))
    elsewhere = measured({"TIGER": "new"}, "TIGER") | {"n": 3}
    assert joined(before, elsewhere)["semantic_ids"] == {"TIGER": "new"}


def test_every_measured_experiment_is_on_its_papers_page() -> None:
    for name in experiments():
        page = PAGES.get(DOCS / "results" / f"{name.partition('/')[0]}.md", "")
        assert (f"`{name}`" in page) == (DOCS / "results" / file_of(name)).exists(), name


def test_results_of_finished_runs_keep_the_machine_of_the_runs() -> None:
    machine = {"processor": "Abacus", "cores": 1}
    assert signed({"hardware": machine})["hardware"] == machine
    assert signed({})["hardware"]["cores"] > 0


def test_claims_of_several_experiments_count_once() -> None:
    def claim(verdict: str, systems: str = "A B", **more: str) -> dict[str, Any]:
        return {"kind": "better", "systems": systems.split(), "metric": "ndcg@5", "verdict": verdict} | more

    def experiment(shows: str, *claims: dict[str, Any], data: str = "toys", paper: str = "P") -> dict[str, Any]:
        return {"paper": paper, "shows": shows, "data": {"name": data}, "claims": claims}

    asked = [
        experiment("Table 1", claim("held"), claim("open", "A C"), claim("held", "A D"), claim("not asked", "A E")),
        experiment("Table 1, proper", claim("held"), claim("open", "A C"), claim("open", "A D"), claim("open", "A E")),
        experiment(
            "Table 5", claim("held", metric="ndcg@3"), {"kind": "cheaper", "systems": ["A", "B"]} | {"verdict": "held"}
        ),
        experiment("Table 2", claim("reversed"), data="books"),
        experiment("Table 1", claim("open"), claim("open", metric="hr@5"), paper="Q"),
    ]
    told = [(one.data, *one.claim["systems"], one.verdict, len(one.said)) for one in distinct(asked)]
    assert told == [
        ("toys", "A", "B", "held", 3), ("toys", "A", "C", "open", 2), ("toys", "A", "D", "disagree", 2),
        ("toys", "A", "E", "open", 2), ("toys", "A", "B", "held", 1), ("books", "A", "B", "reversed", 1),
        ("toys", "A", "B", "open", 1), ("toys", "A", "B", "open", 1),
    ]  # fmt: skip
    assert counted_once(asked) == (
        "Counted once, there are 8 different claims (4 asked more than once): 2 held, 1 came out the other way round, "
        "4 could not be settled by these runs, 1 came out differently from experiment to experiment. "
        "Of the 7 different ones about accuracy 1 held."
    )
    assert disagreements(asked) == ["- A is better than D, on toys: held in Table 1; open in Table 1, proper."]
    assert (counted_once(asked[3:4]), counted_once([]), disagreements(asked[3:])) == (
        "No claim is asked twice.",
        "",
        [],
    )


def test_what_counts_as_one_claim_is_about_the_same_model() -> None:
    """Names of systems are a paper's own; one that stood for two models would make two claims one."""
    paths = [DOCS / "results" / file_of(name) for name in experiments()]
    results = [json.loads(path.read_text()) for path in paths if path.exists()]
    named = {(one["paper"], one["shows"]): one["experiment"] for one in results}
    for claim in distinct(results):
        rival = claim.claim["systems"][-1]
        paper = next(one["paper"] for one in results if claim.claim in one["claims"])
        asked = {named[paper, shows] for shows, verdict in claim.said if verdict != "not asked"}
        assert len({experiment_recipe(name, "scaled").models[rival].model for name in asked}) == 1, claim.line()


def test_what_was_judged_before_pooling_is_judged_on_the_safe_side() -> None:
    def claim(gain: float) -> dict[str, Any]:
        figures = {"figures": [0.3 + gain, 0.3], "gain": gain, "low": gain - 0.0196, "high": gain + 0.0196}
        tested = {"p_value": 0.001, "p_holm": 0.001, "test": BEFORE_POOLING, "verdict": "held"}
        return {"kind": "better", "systems": ["A", "B"]} | figures | tested

    errors = {"A": 0.02, "B": 0.01, "C": 0.0}
    systems = [{"system": name, "metrics": {"m": {"seed_error": error}}} for name, error in errors.items()]
    results = {"judged_by": "m", "seeds": [1, 2, 3], "systems": systems, "users": 500, "level": 0.95, "note": "N."}
    results |= {"claims": [claim(0.05), claim(0.5), {"kind": "cheaper", "verdict": "held"}], "rivals": []}
    seeds = 2 * (0.02**2 + 0.01**2) / 2
    error = (0.01**2 + seeds) ** 0.5
    df = error**4 / (0.01**4 / 499 + seeds**2 / 4)
    found = on_the_safe_side(results)
    small, large, cheaper = found["claims"]
    assert small["p_value"] == pytest.approx(2 * stats.t.sf(0.05 / error, df), rel=1e-3)
    assert small["high"] - 0.05 == pytest.approx(stats.t.isf(0.025, df) * error, rel=1e-3)
    assert (small["verdict"], large["verdict"], cheaper["verdict"]) == ("open", "held", "held")
    assert small["p_holm"] == small["p_value"]
    assert large["p_holm"] == pytest.approx(2 * large["p_value"])
    assert found["note"].startswith("N. (Ours were judged before")
    assert on_the_safe_side(found | {"claims": [cheaper]})["note"] == found["note"]
