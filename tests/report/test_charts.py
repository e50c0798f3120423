"""Plots name what they show."""

from __future__ import annotations

import re

import pytest

from tandemrec.report.charts import _Axis, scatter_plot


def test_every_system_is_named_once_beside_its_point_or_below() -> None:
    points = [(f"System number {n}", 10.0 + n % 3, 0.5 + n / 1000, n == 29) for n in range(30)]
    drawn = str(scatter_plot(points, "time", "ndcg@10", lambda value: f"{value:g} s"))
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", drawn)
    named = [text for text in texts if "System" in text]
    below = [text for text in named if text[0].isdigit()]
    assert sorted(re.sub(r"^\d+ ", "", text) for text in named) == sorted(name for name, *_ in points)
    assert "System number 29" in named
    assert [text.split()[0] for text in below] == [str(n + 1) for n in range(len(below))]
    assert below and all(text.split()[0] in texts for text in below)


def test_a_name_that_finds_no_room_is_cut() -> None:
    drawn = str(scatter_plot([("x" * 60, 1.0, 0.5, True)], "time", "ndcg@10", str))
    shown = re.search(r">(x+)…<", drawn)
    assert shown is not None
    assert 20 <= len(shown[1]) <= 24
    assert f"{'x' * 60}: 0.5000" in drawn


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.5, 2000, [1, 10, 100, 1000]), (3, 60, [5, 10, 20, 50]), (2, 50, [2, 5, 10, 20, 50])],
)
def test_logarithmic_ticks_are_round_and_enough(low: float, high: float, ticks: list[float]) -> None:
    assert _Axis(low, high, 0, 1, log=True).ticks() == pytest.approx(ticks)
