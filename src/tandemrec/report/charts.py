"""Plots as inline SVG: their colours are those of the page, so they are readable in light, dark and print."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

WIDTH, HEIGHT = 640, 340
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 28, 46
LETTER, LINE = 15.0, 20
"""Size of the plots' letters where plots are small, and height of a line."""

NAMED = 240
"""Widest name beside a point; longer ones are cut."""

SERIES = 8
"""Different colours; a plot of more systems would be read by nobody."""

_BACK = 7
"""Number of the colour of what stands behind."""

Format = Callable[[float], str]

Box = tuple[float, float, float, float]
"""Left, top, right and bottom."""


@dataclass(frozen=True)
class _Axis:
    """Values low…high on pixels start…stop, on a logarithmic scale if `log`."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(x) if self.log else x for x in (self.low, self.high, value))
        share = (at - low) / (high - low) if high > low else 0.5
        return round(self.start + share * (self.stop - self.start), 1)

    def ticks(self) -> list[float]:
        """Round values within the range: powers of ten, where these are few also twice and five times them; or four to
        eight multiples of 1, 2 or 5.
        """
        if self.log:
            tens = self._times(1)
            return tens if len(tens) > 2 else self._times(1, 2, 5)
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        rough = 10 ** math.floor(math.log10(span / 4))
        step = next(rough * factor for factor in (1, 2, 5, 10) if span / (rough * factor) <= 8)
        return [step * number for number in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]

    def _times(self, *factors: int) -> list[float]:
        """These multiples of powers of ten within the range."""
        powers = range(math.floor(math.log10(self.low)), math.floor(math.log10(self.high) + 1e-9) + 1)
        found = [factor * 10.0**power for power in powers for factor in factors]
        return [tick for tick in found if self.low <= tick * (1 + 1e-9) and tick <= self.high * (1 + 1e-9)]


def interval_plot(rows: Sequence[tuple[str, float, float, float]], label: str) -> Markup:
    """A row a system: its mean as a dot and its interval as a bar.

    Args:
        rows: name, mean, low, high.
        label: name of the metric.
    """
    top = TOP / 2  # nothing is named above it
    height = top + BOTTOM + 26 * len(rows)
    left = min(240, 20 + max(_width(name) for name, *_ in rows))
    axis = _padded([value for _, *values in rows for value in values], left, WIDTH - RIGHT)
    parts = _vertical_grid(axis, top, height - BOTTOM, _plain)
    for place, (name, mean, low, high) in enumerate(rows):
        y = top + 26 * place + 13
        parts += [
            _text(left - 8, y + 4, _cut(name, left), "end"),
            _line(axis(low), y, axis(high), y, "bar"),
            Markup('<circle class="dot" cx="{}" cy="{}" r="4.5"><title>{}</title></circle>').format(
                axis(mean), y, f"{name}: {mean:.4f} ({low:.4f} to {high:.4f})"
            ),
        ]
    parts.append(_text((left + WIDTH - RIGHT) / 2, height - 8, label, "middle"))
    return _svg(parts, height, f"{label} of {len(rows)} systems with intervals")


def scatter_plot(
    points: Sequence[tuple[str, float, float, bool]], x_label: str, y_label: str, x_format: Format
) -> Markup:
    """Accuracy over cost, cost on a logarithmic axis; the systems of the front are filled and joined by a line.

    Those of the front are named first; where a name finds no room stands a number, and the name below the plot.

    Args:
        points: name, cost (above 0), accuracy, whether it is on the front.
        x_label: of the costs.
        y_label: of the accuracy.
        x_format: how a cost is written.
    """
    costs = [cost for _, cost, _, _ in points]
    x = _Axis(min(costs) / 2, max(costs) * 2, LEFT, WIDTH - RIGHT, log=True)
    y = _padded([value for _, _, value, _ in points], HEIGHT - BOTTOM, TOP)
    parts = [*_vertical_grid(x, TOP, HEIGHT - BOTTOM, x_format), *_horizontal_grid(y, _plain)]
    front = sorted((x(cost), y(value)) for _, cost, value, kept in points if kept)
    path = " ".join(f"{at},{height}" for at, height in front)
    parts.append(Markup('<polyline class="front" points="{}"/>').format(path))
    taken = [_around(x(cost), y(value), 5) for _, cost, value, _ in points]
    taken += [_around(*place, 2) for one, other in pairwise(front) for place in _along(one, other)]
    below: list[str] = []
    for name, cost, value, kept in sorted(points, key=lambda point: (not point[3], -point[2])):
        at, level = x(cost), y(value)
        parts.append(
            Markup('<circle class="{}" cx="{}" cy="{}" r="5"><title>{}</title></circle>').format(
                "dot" if kept else "hollow", at, level, f"{name}: {value:.4f}, {x_format(cost)}"
            )
        )
        label = _label(_cut(name, NAMED), at, level, taken)
        if label is None:
            below.append(f"{len(below) + 1} {name}")
            number = str(len(below))
            label = _label(number, at, level, taken) or _led(number, at, level, taken)
        parts.append(label)
    parts += [_text((LEFT + WIDTH) / 2, HEIGHT - 8, x_label, "middle"), _text(4, 12, y_label, "start")]
    rows = _legend_rows(below)
    parts += _legend(rows, sampled=False)
    return _svg(parts, HEIGHT + (8 + LINE * len(rows)) * bool(below), f"{y_label} over {x_label}")


def line_plot(
    series: Mapping[str, Sequence[float]], x_names: Sequence[str], x_label: str, y_label: str, mark: int | None = None
) -> Markup:
    """A line a system over named places, with a legend; of many systems the first `SERIES`.

    Args:
        series: name → values, one a place.
        x_names: the places.
        x_label: what they are.
        y_label: what the values are.
        mark: a place to be marked.
    """
    shown = dict(list(series.items())[:SERIES])
    rows = _legend_rows(list(shown))
    height = HEIGHT + (8 + LINE * len(rows)) * (len(shown) > 1)
    x = _Axis(0, max(1, len(x_names) - 1), LEFT + 24, WIDTH - RIGHT - 24)
    y = _padded([value for values in shown.values() for value in values], HEIGHT - BOTTOM, TOP)
    parts = _horizontal_grid(y, _plain)
    room = LETTER + max(map(_width, x_names), default=0.0)
    every = max(1, math.ceil(len(x_names) * room / (WIDTH - LEFT - RIGHT)))
    for place, name in enumerate(x_names):
        if place % every == 0:
            parts.append(_below(x(place), HEIGHT - BOTTOM + 18, name))
    if mark is not None:
        parts.append(_line(x(mark), TOP, x(mark), HEIGHT - BOTTOM, "mark"))
    for number, (name, values) in enumerate(shown.items()):
        path = " ".join(f"{x(place)},{y(value)}" for place, value in enumerate(values))
        parts.append(
            Markup('<g class="s{}"><polyline points="{}"><title>{}</title></polyline>{}</g>').format(
                number, path, name, Markup("").join(_dot(x(p), y(v), f"{name}: {v:.4f}") for p, v in enumerate(values))
            )
        )
    if len(shown) > 1:
        parts += _legend(rows)
    parts += [_text((LEFT + WIDTH) / 2, HEIGHT - 8, x_label, "middle"), _text(4, 12, y_label, "start")]
    return _svg(parts, height, f"{y_label} by {x_label}")


def points_plot(groups: Mapping[str, Sequence[Sequence[float]]], x_label: str, y_label: str) -> Markup:
    """Points of a few groups over two linear axes, the first group at the back.

    Args:
        groups: name → points (x, y).
        x_label: what x is.
        y_label: what y is.
    """
    every = [point for points in groups.values() for point in points]
    x = _padded([point[0] for point in every], LEFT, WIDTH - RIGHT)
    y = _padded([point[1] for point in every], HEIGHT - BOTTOM, TOP)
    parts = [*_vertical_grid(x, TOP, HEIGHT - BOTTOM, _plain), *_horizontal_grid(y, _plain)]
    for number, points in enumerate(groups.values()):
        dots = Markup("").join(
            Markup('<circle cx="{}" cy="{}" r="{}"/>').format(x(one), y(other), 2 + number) for one, other in points
        )
        parts.append(Markup('<g class="s{} points">{}</g>').format(_BACK - number * _BACK, dots))
    parts += _swatches({_BACK - number * _BACK: name for number, name in enumerate(groups)})
    parts += [_text((LEFT + WIDTH) / 2, HEIGHT - 8, x_label, "middle"), _text(4, 12, y_label, "start")]
    return _svg(parts, HEIGHT + 18, f"{y_label} over {x_label}")


def share_plot(groups: Sequence[tuple[float, float, int, int]], x_label: str) -> Markup:
    """Bars of how many there are, logarithmic, each with a bar of how many of them are taken.

    Args:
        groups: low, high, how many, how many of them.
        x_label: what low and high are.
    """
    x = _Axis(groups[0][0], groups[-1][1], LEFT, WIDTH - RIGHT)
    y = _Axis(0.5, max(size for _, _, size, _ in groups) * 1.2, HEIGHT - BOTTOM, TOP, log=True)
    parts = [*_vertical_grid(x, TOP, HEIGHT - BOTTOM, _plain), *_horizontal_grid(y, _plain)]
    bar = Markup('<rect class="s{} bars" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>')
    for low, high, size, taken in groups:
        for kind, count in ((_BACK, size), (0, taken)):
            if count:
                wide, tall = round(max(1.0, x(high) - x(low) - 1), 1), round(HEIGHT - BOTTOM - y(count), 1)
                parts.append(bar.format(kind, x(low), y(count), wide, tall, f"{taken:,} of {size:,}"))
    parts += _swatches({_BACK: "samples", 0: "chosen"})
    parts += [_text((LEFT + WIDTH) / 2, HEIGHT - 8, x_label, "middle"), _text(4, 12, "samples", "start")]
    return _svg(parts, HEIGHT + 18, f"samples by {x_label}")


def _swatches(names: Mapping[int, str]) -> list[Markup]:
    """A dot and a name for every colour."""
    parts, at = [], float(LEFT)
    for number, name in names.items():
        dot = Markup('<circle cx="{}" cy="{}" r="4"/>').format(round(at + 6, 1), HEIGHT + 8)
        parts += [Markup('<g class="s{}">{}</g>').format(number, dot), _text(at + 16, HEIGHT + 12, name, "start")]
        at += 36 + _width(name)
    return parts


def _legend(rows: Sequence[Sequence[tuple[int, str]]], *, sampled: bool = True) -> list[Markup]:
    """Names below a plot, each behind a piece of its line if `sampled`."""
    parts = []
    for place, row in enumerate(rows):
        at, level = float(LEFT), HEIGHT + LINE * place + 16
        for number, name in row:
            if sampled:
                sample = _line(round(at, 1), level - 4, round(at, 1) + 18, level - 4, "")
                parts.append(Markup('<g class="s{}">{}</g>').format(number, sample))
            parts.append(_text(at + 23 * sampled, level, name, "start"))
            at += 40 + _width(name)
    return parts


def _legend_rows(names: Sequence[str]) -> list[list[tuple[int, str]]]:
    rows: list[list[tuple[int, str]]] = [[]]
    used = 0.0
    for number, name in enumerate(names):
        width = 40 + _width(name)
        if rows[-1] and used + width > WIDTH - LEFT:
            rows.append([])
            used = 0.0
        rows[-1].append((number, name))
        used += width
    return rows


def _label(name: str, x: float, y: float, taken: list[Box]) -> Markup | None:
    """A point's name beside it, where nothing is written yet. None: there is no such place."""
    places = [(x + 9, y + 4, "start"), (x - 9, y + 4, "end"), (x, y - 10, "middle"), (x, y + 18, "middle")]
    places += [(x + 9, y + shift, "start") for shift in (-12, 20, -28, 36)]
    free = _free(name, places, taken)
    return None if free is None else _text(free[0], free[1], name, free[2])


def _led(name: str, x: float, y: float, taken: list[Box]) -> Markup:
    """A short name at the nearest free place around a point, with a line to it."""
    rings = ((reach, step * math.pi / 8) for reach in range(14, 200, 6) for step in range(16))
    places = ((x + reach * math.cos(angle), y + reach * math.sin(angle) + 4, "middle") for reach, angle in rings)
    at, level, anchor = _free(name, places, taken) or (x + 7, y + 4, "start")
    return _line(x, y, round(at, 1), round(level - 4, 1), "grid") + _text(at, level, name, anchor)


def _free(name: str, places: Iterable[tuple[float, float, str]], taken: list[Box]) -> tuple[float, float, str] | None:
    """The first place (x, y, anchor) where a text is neither cut nor upon another; it is taken then."""
    width = _width(name)
    for at, level, anchor in places:
        left = {"start": at, "end": at - width, "middle": at - width / 2}[anchor]
        box = left, level - 11, left + width, level + 3
        if _inside(box) and not any(_overlap(box, other) for other in taken):
            taken.append(box)
            return at, level, anchor
    return None


def _inside(box: Box) -> bool:
    """Whether a text there is neither cut nor among those of the axes."""
    return box[0] >= LEFT and box[2] <= WIDTH and box[1] >= TOP - 12 and box[3] <= HEIGHT - BOTTOM


def _around(x: float, y: float, reach: float) -> Box:
    return x - reach, y - reach, x + reach, y + reach


def _along(one: tuple[float, float], other: tuple[float, float]) -> list[tuple[float, float]]:
    """Places on a line, a few pixels apart."""
    wide, tall = other[0] - one[0], other[1] - one[1]
    steps = max(1, int(math.hypot(wide, tall) / 4))
    return [(one[0] + wide * step / steps, one[1] + tall * step / steps) for step in range(steps + 1)]


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _padded(values: Sequence[float], start: float, stop: float) -> _Axis:
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or abs(high) * 0.1 or 1.0
    return _Axis(low - room if low < 0 or low > room else 0.0, high + room, start, stop)


def _vertical_grid(axis: _Axis, top: float, bottom: float, form: Format) -> list[Markup]:
    parts = []
    for tick in axis.ticks():
        parts += [_line(axis(tick), top, axis(tick), bottom, "grid"), _below(axis(tick), bottom + 16, form(tick))]
    return parts


def _below(x: float, y: float, text: str) -> Markup:
    """A text around a place of the horizontal axis, moved where the edge would cut it."""
    return _text(min(x, WIDTH - _width(text) / 2), y, text, "middle")


def _horizontal_grid(axis: _Axis, form: Format) -> list[Markup]:
    parts = []
    for tick in axis.ticks():
        parts += [
            _line(LEFT, axis(tick), WIDTH - RIGHT, axis(tick), "grid"),
            _text(LEFT - 6, axis(tick) + 4, form(tick), "end"),
        ]
    return parts


def _plain(value: float) -> str:
    return f"{value:.4g}"


def _cut(name: str, width: float) -> str:
    if _width(name) <= width - 16:
        return name
    while name and _width(f"{name}…") > width - 16:
        name = name[:-1]
    return f"{name}…"


def _width(text: str) -> float:
    """How wide a text is in a wide font: in parts of the letters' size .4 for narrow letters, 1 for the widest."""
    wide = sum(
        0.42 if c in " .,:;|!'()[]iljtfI" else 1.0 if c in "mwMW@%+=<>~–—…" else 0.74 if c.isupper() else 0.65
        for c in text
    )
    return LETTER * wide


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(kind, x1, y1, x2, y2)


def _dot(x: float, y: float, title: str) -> Markup:
    return Markup('<circle cx="{}" cy="{}" r="3"><title>{}</title></circle>').format(x, y, title)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(round(x, 1), round(y, 1), anchor, text)


def _svg(parts: Sequence[Markup], height: float, title: str) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, title, Markup("").join(parts)
    )
