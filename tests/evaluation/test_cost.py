"""Costs of systems that share stages, by hand, and the front against its definition."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandemrec.evaluation.cost import pareto_front, system_cost, tuning_seconds


def stage(
    name: str, seconds: float, tokens: int | None = None, cpu: float | None = 1.0, peak: float | None = 10.0
) -> dict:
    return {
        "stage": name, "id": name, "seconds": seconds, "cpu_seconds": cpu, "accelerator_seconds": 0.0,
        "tokens": tokens, "peak_memory_mib": peak, "accelerator_peak_mib": 0.0,
    }  # fmt: skip


CARD = {
    "stages": [
        stage("language-model", 100, 5000, peak=90), stage("fit:A", 20, 700), stage("fit:B", 30, cpu=None),
        stage("evaluate:A", 4), stage("evaluate:B", 8),
    ],
    "systems": {
        "A": {"training": ["language-model", "fit:A"], "judging": "evaluate:A"},
        "B": {"training": ["language-model", "fit:A", "fit:B"], "judging": "evaluate:B"},
    },
}  # fmt: skip


def test_a_system_pays_for_what_it_builds_on() -> None:
    found = system_cost(CARD, "A", users=200, price=36.0)
    assert found == {
        "seconds": 120, "cpu_seconds": 2, "accelerator_seconds": 0, "tokens": 5700, "peak_memory_mib": 90,
        "accelerator_peak_mib": 0, "seconds_per_1000": 20, "money": pytest.approx(1.2), "money_per_1000": 0.2,
    }  # fmt: skip
    other = system_cost(CARD, "B", users=200)
    assert (other["seconds"], other["cpu_seconds"], other["tokens"]) == (150, None, 5700)
    assert "money" not in other
    assert system_cost({"stages": []}, "A", users=1) is None


def test_what_endpoints_charged_is_money() -> None:
    stages = [one | {"fees": {"fit:A": 0.5, "evaluate:A": 0.02}.get(one["id"])} for one in CARD["stages"]]
    free, priced = (system_cost(CARD | {"stages": stages}, "A", users=200, price=price) for price in (None, 36.0))
    assert (free["money"], free["money_per_1000"]) == (0.5, pytest.approx(0.1))
    assert (priced["money"], priced["money_per_1000"]) == (pytest.approx(1.7), pytest.approx(0.3))
    assert "money" in (system_cost(CARD | {"stages": stages}, "B", users=200) or {})


def test_a_language_model_that_was_built_counts_as_given() -> None:
    assert (tuning_seconds(CARD, "A"), tuning_seconds(CARD, "B")) == (20, 50)
    assert tuning_seconds({"stages": []}, "A") is None


POINTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=10)


@given(POINTS, st.booleans())
def test_the_front_by_its_definition(points: list[tuple[int, int]], errors: bool) -> None:
    costs, values = [float(c) for c, _ in points], [float(v) for _, v in points]
    found = pareto_front(costs, values, lower_is_better=errors)
    for i in range(len(points)):
        beaten = False
        for j in range(len(points)):
            better = values[j] < values[i] if errors else values[j] > values[i]
            equal = values[j] == values[i]
            if (costs[j] <= costs[i] and better) or (costs[j] < costs[i] and equal):
                beaten = True
        assert found[i] != beaten
    assert any(found)
