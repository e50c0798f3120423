"""τ against hand values, its invariants, and how a curriculum drives an objective."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandemrec.llm.objectives import SOFT
from tandemrec.llm.schedule import AdaptiveSchedule, Curriculum, FixedSchedule, StepSchedule

RATIOS = st.floats(0, 5)
ALPHAS = st.floats(0, 100)


def test_tau_by_hand() -> None:
    assert AdaptiveSchedule(alpha=10).tau(0.97) == pytest.approx(math.exp(-0.3))
    assert AdaptiveSchedule(alpha=100).tau(0.97) == pytest.approx(0.0498, abs=1e-4)
    assert AdaptiveSchedule(alpha=2, progression="linear").tau(0.8) == pytest.approx(0.6)
    assert AdaptiveSchedule(alpha=10, progression="linear").tau(0.8) == 0.0


@given(RATIOS, RATIOS, ALPHAS, ALPHAS, st.sampled_from(["exponential", "linear"]))
def test_tau_grows_with_the_distance_and_falls_with_alpha(
    near: float, far: float, gentle: float, steep: float, progression: str
) -> None:
    near, far, gentle, steep = min(near, far), max(near, far), min(gentle, steep), max(gentle, steep)
    schedules = [AdaptiveSchedule.model_validate({"alpha": a, "progression": progression}) for a in (gentle, steep)]
    for schedule in schedules:
        assert 0 <= schedule.tau(near) <= schedule.tau(far) <= 1
        assert schedule.tau(1.0) == 1.0
    if near < 1:
        assert schedules[1].tau(near) <= schedules[0].tau(near)
    assert AdaptiveSchedule(alpha=0).tau(near) == 1.0


def test_adaptive_curriculum_starts_at_1_and_keeps_the_first_distance() -> None:
    objective, distances, memory = SOFT(tau=0.5), iter([4.0, 3.0]), dict[str, float]()
    curriculum = Curriculum(AdaptiveSchedule(alpha=2), objective, lambda: next(distances))
    curriculum.begin_epoch(0, [], memory)
    assert (objective.tau, memory) == (1.0, {"start_distance": 4.0})
    figures = curriculum.figures()
    assert figures == {"tau": 1.0, "distance": 3.0}
    curriculum.begin_epoch(1, [figures], memory)
    assert objective.tau == pytest.approx(math.exp(2 * (3 / 4 - 1)))
    resumed = Curriculum(AdaptiveSchedule(alpha=2), SOFT(), lambda: pytest.fail("d₀ is in the checkpoint"))
    resumed.begin_epoch(1, [figures], memory)
    assert resumed.objective.tau == objective.tau


def test_fixed_and_step_never_measure() -> None:
    objective = SOFT()
    fixed = Curriculum(FixedSchedule(kind="fixed", tau=0.3), objective, lambda: pytest.fail("measured"))
    fixed.begin_epoch(5, [], {})
    assert (objective.tau, fixed.figures()) == (0.3, {"tau": 0.3})
    step = Curriculum(StepSchedule(kind="step", epoch=2, before=0.9, after=0.1), objective, fixed.measure)
    taus = []
    for epoch in range(4):
        step.begin_epoch(epoch, [], {})
        taus.append(objective.tau)
    assert taus == [0.9, 0.9, 0.1, 0.1]
