"""An experiment of a paper from its name to a page, and how claims are judged."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tandemrec.errors import InputError
from tandemrec.evaluation.comparison import OVER_SEEDS
from tandemrec.experiment.claims import judge_claims
from tandemrec.experiment.papers import Experiment, experiment_recipe, papers
from tandemrec.experiment.reproduce import holds, reproduce, write_recipe
from tandemrec.experiment.reranked import over_seeds
from tandemrec.experiment.run import Run
from tandemrec.experiment.selection_facts import coverage_over_seeds
from tandemrec.experiment.store import StageEvent
from tandemrec.report.reproduction import beside_the_paper, beyond_chance, reproduction_markdown, sentence, verdict


def test_soft_over_two_trainings_and_again(tmp_path: Path) -> None:
    out, store = tmp_path / "out", tmp_path / "store"
    results = reproduce("soft/figure-2", "smoke", seeds=[1, 2], out=out, store=store)
    assert results["seeds"] == [1, 2]
    (claim,) = results["claims"]
    assert claim["kind"] == "easier"
    assert len(claim["ratios"]) == 2
    assert set(claim["answers"]) == {"exact", "hit", "hit_kind"}
    assert claim["published_ratio"] == 0.47
    assert json.loads((out / "reproduction.json").read_text()) == json.loads(json.dumps(results))
    assert "shows that the experiment runs" in (out / "reproduction.md").read_text()
    page = (out / "reproduction.html").read_text()
    assert "Beside the paper" in page
    assert "0.47 in the paper" in page
    assert (out / "compare.json").is_file()
    events: list[StageEvent] = []
    assert reproduce("soft/figure-2", "smoke", seeds=[1, 2], out=out, store=store, listen=events.append) == results
    assert events == []
    (out / "seed-2" / "results.json").unlink()  # as a kill leaves it
    assert reproduce("soft/figure-2", "smoke", seeds=[1, 2], out=out, store=store, listen=events.append) == results
    assert {event.what for event in events} == {"found"}


@pytest.mark.parametrize(
    ("name", "heading"),
    [("dealrec/ablation", "What they learned from"), ("llama4rec/table-4-ml-100k", "What it adds to its base")],
)
def test_an_experiment_of_every_other_paper(name: str, heading: str, tmp_path: Path) -> None:
    results = reproduce(name, "smoke", out=tmp_path / "out", store=tmp_path / "store")
    judged = [claim for claim in results["claims"] if claim["verdict"] != "not asked"]
    assert judged
    for claim in judged:
        assert claim["verdict"] in {"held", "reversed", "open"}
        assert claim["low"] <= claim["gain"] <= claim["high"]
        assert claim["systems"][0] in sentence(claim, results)
    shown = {row["system"] for row in results["systems"]}
    gains = {(row["system"], row["base"]): row for row in results["rerankings"]["rows"]}
    rating = name.startswith("llama4rec")
    assert set(gains) == ({("NFM Llama4Rec", "NFM+DA"), ("LLM alone", "NFM")} if rating else set())
    assert not shown & {"NFM tuned", "NFM+DA asked"}
    for (system, _), row in gains.items():
        assert (len(row["chosen"]), row["bounds"]) == (1 if system == "NFM Llama4Rec" else 0, None)
        if row["chosen"]:
            assert f"{row['chosen'][0]['llm']} α₁" in (tmp_path / "out" / "reproduction.md").read_text()
    for row in results["systems"]:
        assert set(row["metrics"]) == set(row["published"]) == set(results["metrics"])
    chose = [row["system"] for row in results["choices"]]
    ranked = [row["system"] for row in results["systems"] if row["system"] in chose]
    assert chose == ([] if rating else ["all", *ranked])
    assert rating or len(ranked) > 1
    page = (tmp_path / "out" / "reproduction.md").read_text()
    assert ("What they learned from" in page, "(all there are)" in page) == (not rating, not rating)
    assert heading in (tmp_path / "out" / "seed-42" / "report.html").read_text()
    tables = (tmp_path / "out" / "seed-42" / "report.tex").read_text()
    assert tables.count(r"\toprule") == tables.count(r"\end{tabular}") == 2


def test_choices_are_means_over_trainings() -> None:
    def card(popular: float, chosen: int) -> dict[str, Any]:
        rows = [("all", 1000, 0.5), ("Random", chosen, popular)]
        columns = [
            {"selector": name, "examples": examples, "items": 1.0, "mean_history": 4.0, "popular_1": share}
            for name, examples, share in rows
        ]
        return {"selection": {"coverage": columns}, "chosen": {"Writer": {"selector": "Random"}}}

    whole, writer = coverage_over_seeds([card(0.2, 10), card(0.4, 20)], ["SASRec", "Writer"])
    assert whole == {"system": "all", "examples": 1000, "items": 1.0, "mean_history": 4.0, "popular_1": 0.5}
    assert writer == {"system": "Writer", "examples": 15, "items": 1.0, "mean_history": 4.0} | {
        "popular_1": pytest.approx(0.3)
    }
    assert coverage_over_seeds([card(0.2, 10), {"chosen": {}}], ["Writer"]) == []


def compared(*pairs: tuple[str, str, float, float], task: str = "ranking") -> dict[str, Any]:
    """What `compare` would say of systems whose figures are .2 and .1; pairs of difference and p."""
    names = {name for one, other, *_ in pairs for name in (one, other)}
    return {
        "leaderboard": [
            {"system": name, "metrics": {"m": {"mean": 0.2 if name.startswith("A") else 0.1}}} for name in sorted(names)
        ],
        "pairs": [
            {"system": one, "other": other, "difference": gap, "low": gap - 0.05, "high": gap + 0.05}
            | {"p_value": p, "test": OVER_SEEDS, "repetitions": 3}
            for one, other, gap, p in pairs
        ],
        "settings": {"level": 0.95},
        "evaluation": {"task": task},
    }


def claiming(*claims: dict[str, Any], published: dict[str, Any] | None = None) -> Experiment:
    return Experiment.model_validate(
        {"shows": "Table 1", "asks": "?", "recipe": "sample", "metrics": ["m"], "judged_by": "m", "full": {}}
        | {"modules": ["cli.py"], "tests": ["test_cli.py"], "smoke": {}, "claims": claims, "published": published or {}}
    )


def test_verdicts_after_the_correction() -> None:
    found = compared(("A1", "B1", 0.1, 0.01), ("A2", "B2", -0.1, 0.001), ("A3", "B3", 0.1, 0.04))
    claims = [{"better": f"A{n}", "than": f"B{n}"} for n in (1, 2, 3)] + [{"better": "A9", "than": "B1"}]
    judged = judge_claims(claiming(*claims), found, [])
    assert [claim["verdict"] for claim in judged] == ["held", "reversed", "held", "not asked"]
    assert [claim.get("p_holm") for claim in judged] == [pytest.approx(p) for p in (0.02, 0.003, 0.04)] + [None]
    weaker = judge_claims(claiming(*claims), compared(*((f"A{n}", f"B{n}", 0.1, 0.03) for n in (1, 2, 3))), [])
    assert {claim["verdict"] for claim in weaker[:3]} == {"open"}


def test_rivals_are_tested_against_every_winner_and_corrected_by_themselves() -> None:
    claims = [{"better": winner, "than": loser} for winner, loser in (("A1", "B"), ("A1", "A2"), ("A2", "B"))]
    experiment = claiming(*claims).model_copy(update={"rivals": ("C",)})
    pairs = [("A1", "B", 0.1, 0.01), ("A1", "A2", 0.1, 0.01), ("A2", "B", 0.1, 0.01)]
    found = compared(*pairs, ("A1", "C", -0.1, 0.02), ("A2", "C", 0.1, 0.5))
    judged = judge_claims(experiment, found, [], experiment.against_rivals)
    assert [claim["systems"] for claim in judged] == [["A1", "C"], ["A2", "C"]]
    assert [claim["verdict"] for claim in judged] == ["reversed", "open"]
    assert [claim["p_holm"] for claim in judged] == [pytest.approx(0.04), pytest.approx(0.5)]
    assert len(judge_claims(experiment, found, [])) == 3


def test_gains_of_several_trainings() -> None:
    def finished(gain: float, bounds: dict[str, float] | None, ranked: bool = True) -> tuple[Any, Any]:
        row = {"base": "B", "depth": 10, "segments": {}, "gain": {"mean": gain, "standard_error": 0.1}}
        rows = [row | {"system": "A", "value": 0.2, "bounds": bounds}]
        rows += [row | {"system": "R", "value": 0.4, "bounds": None}] if ranked else []
        notes = {"llm": "L", "weighting": {"max_llm_weight": gain}, "curve": []}
        card = {"models": {"A": {"notes": notes}, "R": {"notes": {}}, "B": {"notes": {}}}}
        return {"evaluation": {"headline": "hr@10"}, "rerankings": rows}, card

    found = over_seeds([finished(0.1, {"reach": 0.5}), finished(0.3, {"reach": 0.7})], ["B", "A", "R"])
    aggregate, ranker = found["rows"]
    assert (found["metric"], aggregate["system"], aggregate["base"], aggregate["depth"]) == ("hr@10", "A", "B", 10)
    assert aggregate["gain"] == {"mean": pytest.approx(0.2), "standard_error": pytest.approx(0.1)}
    assert (aggregate["value"], aggregate["bounds"]) == (0.2, {"reach": pytest.approx(0.6)})
    assert [one["weighting"]["max_llm_weight"] for one in aggregate["chosen"]] == [0.1, 0.3]
    assert (ranker["system"], ranker["bounds"], ranker["chosen"]) == ("R", None, [])
    assert over_seeds([finished(0.1, None), finished(0.1, None, ranked=False)], ["R"])["rows"] == []

    def with_plain(gain: float) -> tuple[Any, Any]:
        results, card = finished(gain, {"reach": 0.5})
        plain = {"base": "P", "depth": None, "value": None, "bounds": None, "segments": {}}
        row = {"system": "A", "gain": {"mean": 2 * gain, "standard_error": 0.2}}
        return results | {"rerankings": [*results["rerankings"], plain | row]}, card

    over_base, over_plain = over_seeds([with_plain(0.1), with_plain(0.3)], ["A"])["rows"]
    assert (over_base["base"], over_base["depth"], over_base["gain"]["mean"]) == ("B", 10, pytest.approx(0.2))
    assert (over_plain["base"], over_plain["depth"], over_plain["gain"]["mean"]) == ("P", None, pytest.approx(0.4))
    assert (over_plain["value"], over_plain["bounds"]) == (None, None)
    assert (len(over_base["chosen"]), over_plain["chosen"]) == (2, [])
    mixed = over_seeds([finished(0.1, {"reach": 0.5}), with_plain(0.3)], ["A"])["rows"]  # one from before these rows
    assert [row["base"] for row in mixed] == ["B"]
    older = {"evaluation": {"headline": "hr@10"}}  # of a version without these rows
    assert over_seeds([(older, {})], ["A"])["rows"] == []


def test_less_error_is_a_gain() -> None:
    experiment = claiming({"better": "A", "than": "B"}, published={"A": [0.9], "B": [1.0]})
    (claim,) = judge_claims(experiment, compared(("B", "A", 0.1, 0.01), task="rating"), [])
    assert claim["verdict"] == "held"
    assert (claim["gain"], claim["low"], claim["high"]) == tuple(pytest.approx(v) for v in (0.1, 0.05, 0.15))
    assert claim["published_share"] == pytest.approx(0.1)
    (worse,) = judge_claims(experiment, compared(("A", "B", 0.1, 0.01), task="rating"), [])
    assert worse["verdict"] == "reversed"


@pytest.mark.parametrize(
    ("paper", "words"),
    [
        ({"A": [0.16], "B": [0.1]}, "+60.0% in the paper, +100.0% here (+50.0% to +150.0%): as large a gain lies"),
        ({"A": [0.3], "B": [0.1]}, "+200.0% in the paper, +100.0% here (+50.0% to +150.0%): so large a gain lies"),
        ({"A": [0.11], "B": [0.1]}, "ours is larger"),
        ({"A": [0.09], "B": [0.1]}, "-10.0% in the paper, +100.0% here (+50.0% to +150.0%): the paper's own"),
        ({"A": [0.11]}, "after Holm's correction)."),
    ],
)  # fmt: skip
def test_a_gain_beside_the_papers(paper: dict[str, Any], words: str) -> None:
    results = {"level": 0.95, "lower_is_better": False}
    (claim,) = judge_claims(
        claiming({"better": "A", "than": "B"}, published=paper), compared(("A", "B", 0.1, 0.01)), []
    )
    said = sentence(claim, results)
    assert words in said
    assert said.startswith(
        "A is better than B: held. 0.2000 against 0.1000, a gain of +0.1000 (95% interval +0.0500 to"
    )


def run_that_took(**seconds: float) -> Any:
    stages = [{"id": name, "stage": name, "seconds": value} for name, value in seconds.items()]
    systems = {name: {"training": [name], "judging": name} for name in seconds}
    return SimpleNamespace(card={"stages": stages, "systems": systems})


@pytest.mark.parametrize(
    ("runs", "expected"),
    [([(1, 2), (2, 3)], "held"), ([(1, 2), (3, 2)], "open"), ([(3, 2), (3, 2)], "reversed")],
)
def test_claims_about_time_hold_where_all_runs_agree(runs: list[tuple[float, float]], expected: str) -> None:
    experiment = claiming({"cheaper": "A", "than": "B"})
    (claim,) = judge_claims(experiment, compared(("A", "B", 0.1, 0.01)), [run_that_took(A=a, B=b) for a, b in runs])
    assert claim["verdict"] == expected
    assert claim["ratios"] == [pytest.approx(a / b) for a, b in runs]
    assert "A takes less time to train than B" in sentence(claim, {})


def test_runs_that_tell_no_times_are_refused_where_a_claim_is_about_them() -> None:
    old = SimpleNamespace(card={"stages": []}, path=Path("old"))
    with pytest.raises(InputError, match=r"^old is of an older version"):
        judge_claims(claiming({"cheaper": "A", "than": "B"}), compared(("A", "B", 0.1, 0.01)), [old])


def test_the_verdict_says_how_sure_it_is() -> None:
    results = {"paper": "P", "shows": "Table 1", "scale": "scaled", "users": 1000, "seeds": [1, 2, 3]}
    results |= {"judged_by": "ndcg@20", "resolvable": 0.0123, "power": 0.8}
    claims = [{"verdict": "held"}, {"verdict": "open"}, {"verdict": "open"}]
    assert verdict(results | {"claims": claims}) == (
        "P, Table 1. Of 3 claims 1 held, 2 could not be settled by these runs. Judged by ndcg@20 over 1,000 users and "
        "3 trainings, both random. One test finds a true difference of 0.0123 in 80% of cases."
    )
    assert "nothing is said about other trainings" in verdict(results | {"claims": claims, "seeds": [1]})
    assert verdict(results | {"claims": []}).endswith("no claim to test.")


def test_a_run_holds_what_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = experiment_recipe("dealrec/table-2-games", "smoke", 3)
    assert not holds(tmp_path, recipe)
    more = experiment_recipe("dealrec/table-2-games", "smoke", 3)
    assert more.selection is not None
    monkeypatch.setattr(Run, "open", classmethod(lambda cls, path: SimpleNamespace(recipe=more)))
    assert holds(tmp_path, recipe)
    fewer = recipe.model_copy(update={"models": {"Random": recipe.models["Random"]}, "name": "else"})
    assert holds(tmp_path, fewer)
    assert not holds(tmp_path, experiment_recipe("dealrec/table-2-games", "smoke", 4))
    assert not holds(tmp_path, experiment_recipe("dealrec/table-4", "smoke", 3))
    changed = recipe.selection.model_copy(update={"budget": 9}) if recipe.selection else None
    assert not holds(tmp_path, recipe.model_copy(update={"selection": changed}))
    assert holds(tmp_path, recipe.model_copy(update={"selection": None}))


def test_a_recipe_alone(tmp_path: Path) -> None:
    path = write_recipe("dealrec/table-2-book", "full", tmp_path / "new")
    assert "huggyllama/llama-7b" in path.read_text()
    assert "purchased" in path.read_text()
    with pytest.raises(InputError, match="is a file, expected a folder for results"):
        write_recipe("dealrec/table-2-book", "full", path)


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="seeds must be different and at least one, found 1, 1"):
        reproduce("soft/figure-2", "smoke", seeds=[1, 1], out=tmp_path)
    monkeypatch.setenv("TANDEMREC_DATA", str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="amazon-2023-video-games"):
        reproduce("soft/table-2-game", "full", out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_page_without_claims_and_figures() -> None:
    results = {
        "experiment": "p/figure-1", "scale": "scaled", "paper": "P", "shows": "Figure 1", "asks": "What?", "claims": [],
        "metrics": ["m"], "systems": [], "absent": {"X": {"m": 0.5}}, "differs": "", "note": "", "recipe": "r",
        "effort": "1 systems", "data": {"name": "d", "users": 1, "items": 2, "interactions": 3}, "seeds": [1],
        "split": "s", "protocol": "p.", "hardware": {"processor": "x", "cores": 1},
        "rivals": [], "rerankings": {"metric": "m", "rows": []},
    }  # fmt: skip
    page = reproduction_markdown(results)
    assert "| system | paper |" in page
    assert "| X (not in this experiment) | 0.5000 |" in page
    assert "| X (in p/table-2) | 0.5000 |" in reproduction_markdown(results | {"elsewhere": {"X": "p/table-2"}})
    assert "no claim to test" in page
    assert "beside the paper's" not in page
    assert "adds to its base" not in page
    assert "Chosen on validation" not in page
    assert page.rstrip().endswith("x, 1 cores.")
    assert "different machines, whose times are averaged: x; y." in reproduction_markdown(
        results | {"machines": ["x", "y"]}
    )
    row = {"system": "A", "metrics": {"m": {"mean": 0.25, "standard_error": 0.01}}, "published": {"m": 0.5}}
    some = {"systems": [row | {"seconds": 100.0, "seconds_per_1000": 2.0}], "lower_is_better": True}
    among = [{"system": "B", "taken": 1, "figures": {"ndcg@10": 0.125}}]
    page = reproduction_markdown(
        results | some | {"chosen_on_validation": [{"system": "A", "trainings": 1, "among": among}]}
    )
    assert "| system | m | paper | training | 1,000 users |" in page
    assert "| A | 0.2500 ± 0.0100 | 0.5000 | 1.7 min | 2.0 s |" in page
    assert "Chosen on validation, A:\n\n| system | ndcg@10 | chosen |" in page
    rival = {"kind": "better", "systems": ["A", "C"], "verdict": "not asked"}
    page = reproduction_markdown(results | {"rivals": [rival]})
    assert "Against systems beside the paper's, corrected by themselves:\n\n- A is better than C: not asked" in page


def test_what_is_said_of_chance_and_of_the_papers_gains() -> None:
    figures = [{"metrics": {"hr@2": {"mean": mean, "standard_error": 0.01}}} for mean in (0.5, 0.219, 0.221, 0.1)]
    results = {"judged_by": "hr@2", "lower_is_better": False, "data": {"items": 10}, "systems": figures}
    assert beyond_chance(results) == 2
    assert beyond_chance(results | {"lower_is_better": True}) is None
    places = {0.5: "above", 0.2: "inside", 0.05: "below", -0.1: "opposite"}
    for published, place in places.items():
        assert beside_the_paper({"published_share": published, "share": [0.2, 0.1, 0.3]}) == place
    assert beside_the_paper({"published_share": None, "share": [0.2, 0.1, 0.3]}) is None
    assert beside_the_paper({"published_share": 0.1, "share": [None, None, None]}) is None


def test_a_share_cannot_fall_below_everything() -> None:
    claim = {"kind": "better", "systems": ["A", "B"], "verdict": "open", "figures": [0.01, 0.02], "gain": -0.01}
    claim |= {"low": -0.00004, "high": 0.00004, "p_holm": 0.5, "share": [-0.5, -2.0, 0.1], "published_share": 0.2}
    said = sentence(claim, {"level": 0.95, "lower_is_better": False})
    assert "(95% interval -0.0000 to +0.0000" in said
    assert "-50.0% here (-100.0% to +10.0%)" in said
    assert "-50.0% here (-200.0% to +10.0%)" in sentence(claim, {"level": 0.95, "lower_is_better": True})


def test_a_system_that_was_chosen_itself_is_called_so() -> None:
    claim = {"kind": "better", "systems": ["Best", "B"], "verdict": "open", "figures": [0.02, 0.02], "gain": -0.0}
    claim |= {"low": -0.0, "high": 0.0, "p_holm": 1.0, "share": [0.0, 0.0, 0.0], "published_share": 0.2}
    assert "0.0200 both, and no user is served better" in sentence(claim, {"level": 0.95, "lower_is_better": False})


def test_names_are_explained_where_they_occur() -> None:
    meaning = papers()["soft"].meaning(["BIGRec SFT", "BIGRec SOFT a=10"])
    assert set(meaning) == {"SFT", "SOFT", "a="}
