"""What a stage takes before it is run: `Work`, and the two questions that every system's config answers about itself.

The answers stand in the files `work.py` and `…_work.py` of a system's room and are registered for its config class.
They are counts, not seconds: a device's rates turn them into time (`experiment.devices`). A config without an answer is
unknown, and is called so.

In formulas N are rows, D the size of a vector, I items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import singledispatch
from typing import TYPE_CHECKING

from tandemrec.recommender import Config

if TYPE_CHECKING:
    from tandemrec.data.examples import Examples
    from tandemrec.data.split import Split

FLOAT = 4
"""Bytes of a float32."""

BACKWARD = 2.0
"""Differentiation takes about twice what the forward pass took, in products, in traffic and in calls."""

RANDOM = 4.0
"""Drawing random numbers for dropout takes a processor about as long as a dozen passes; a third of them, since its
backward pass, which draws none, is counted as twice the forward one."""


@dataclass(frozen=True)
class Work:
    """Counts of a computation; they add up, but for memory, of which the largest counts.

    Attributes:
        flops: of matrix products and convolutions in float32; a multiplication with its addition is two.
        half_flops: the same in bfloat16 or 4 bits.
        bytes: read and written by everything else, and weights that are read for few rows.
        host_flops: of what a processor computes whatever the device is.
        host_bytes: likewise.
        calls: operations that are started, each of which costs time however small it is.
        steps: optimiser steps.
        epochs: that it may take at most; 0: it is no training by epochs.
        stops_early: whether validation may end it before, so that all counts are upper bounds.
        read: tokens that a language model reads in training and for its answers.
        written: tokens that it writes.
        memory: bytes of tensors at the same time.
        host_memory: of what a processor computes whatever the device is, likewise.
        examples: training examples or questions.
        requests: questions to chat endpoints; each different one is asked once, so at most.
        paced: seconds that the limits of endpoints make these take at least.
        unpaced: whether an endpoint without a limit is asked, how fast it answers nobody knows.
        fees: what endpoints charge.
    """

    flops: float = 0.0
    half_flops: float = 0.0
    bytes: float = 0.0
    host_flops: float = 0.0
    host_bytes: float = 0.0
    calls: float = 0.0
    steps: float = 0.0
    epochs: int = 0
    stops_early: bool = False
    read: float = 0.0
    written: float = 0.0
    memory: float = 0.0
    host_memory: float = 0.0
    examples: float = 0.0
    requests: float = 0.0
    paced: float = 0.0
    unpaced: bool = False
    fees: float = 0.0

    def __add__(self, other: Work) -> Work:
        """One after the other."""
        return Work(
            **{name: getattr(self, name) + getattr(other, name) for name in SUMMED},
            epochs=max(self.epochs, other.epochs),
            stops_early=self.stops_early or other.stops_early,
            memory=max(self.memory, other.memory),
            host_memory=max(self.host_memory, other.host_memory),
            examples=max(self.examples, other.examples),
            unpaced=self.unpaced or other.unpaced,
        )

    def __mul__(self, times: float) -> Work:
        """Again and again."""
        return replace(self, **{name: getattr(self, name) * times for name in SUMMED})

    __rmul__ = __mul__

    def differentiated(self) -> Work:
        """Forward and backward."""
        return self * (1 + BACKWARD)

    def halved(self, half: bool = True) -> Work:
        """The same with its products in half precision, where `half` says so."""
        return replace(self, flops=0.0, half_flops=self.flops + self.half_flops) if half else self

    def hosted(self) -> Work:
        """The same, left to the processor by libraries that know no other device."""
        left = replace(self, flops=0.0, bytes=0.0, memory=0.0)
        return replace(left, host_flops=self.flops, host_bytes=self.bytes, host_memory=self.memory)

    def held(self, kind: str) -> tuple[float, float]:
        """Bytes of tensors on a kind of torch device, and on the processor beside it: none beside a processor."""
        return (max(self.memory, self.host_memory), 0.0) if kind == "cpu" else (self.memory, self.host_memory)


SUMMED = (
    *("flops", "half_flops", "bytes", "host_flops", "host_bytes", "calls", "steps", "read", "written"),
    *("requests", "paced", "fees"),
)
NOTHING = Work()


@dataclass(frozen=True)
class Scene:
    """What a system is foreseen from.

    Attributes:
        split: the data, with the training examples that it learns from.
        systems: all of the recipe, by name.
        device: `cpu`, or another kind of torch device.
        reader: of its language model (`llm.work.Reader`), if it has one.
        readers: those of the recipe's other systems, by name.
    """

    split: Split
    systems: Mapping[str, Config]
    device: str = "cpu"
    reader: object = None
    readers: Mapping[str, object] = field(default_factory=dict)

    def of(self, name: str) -> tuple[Config, Scene]:
        """Another system of the recipe, and the scene as it sees it."""
        return self.systems[name], replace(self, reader=self.readers.get(name))


@singledispatch
def fit_work(config: Config, scene: Scene) -> Work | None:
    """What training takes; None: the config does not say."""
    return None


@singledispatch
def answer_work(config: Config, scene: Scene, examples: Examples) -> Work | None:
    """What it takes to answer examples: scores of the whole catalogue, or a list; None: the config does not say."""
    return None


@singledispatch
def switches(config: Config) -> Iterator[tuple[str, Config]]:
    """Settings that take less memory, the cheapest first, each on top of those before: `key=value` and the config."""
    return iter(())


@dataclass(frozen=True)
class Foresight:
    """What a stage takes, as a question that is asked only where the answer is wanted.

    Attributes:
        config: whose settings decide.
        work: of a config; None: it does not say.
    """

    config: Config
    work: Callable[[Config], Work | None]

    def __call__(self) -> Work | None:
        """With the settings as they are."""
        return self.work(self.config)


def product(rows: float, inner: float, columns: float) -> Work:
    """A matrix product (rows, inner) × (inner, columns)."""
    return Work(flops=2.0 * rows * inner * columns, calls=1)


def passes(entries: float, count: float, size: int = FLOAT) -> Work:
    """So many operations that each read and write an array of so many entries."""
    return Work(bytes=2.0 * size * entries * count, calls=count)


def dropout(entries: float, share: float) -> Work:
    """Dropout of an array, if its probability is not 0."""
    return replace(passes(entries, RANDOM), calls=3) if share else NOTHING


def optimiser(parameters: float, clip: bool) -> Work:
    """A step of AdamW: parameter, gradient and both moments are read, three of them written; clipping reads twice."""
    return Work(bytes=FLOAT * parameters * (10 if clip else 7), calls=6, steps=1)


def muon(rows: float, columns: float) -> Work:
    """What a step of Muon takes beside AdamW's for a matrix: five rounds of three products each, and their sums."""
    short, long = min(rows, columns), max(rows, columns)
    three = 2 * product(short, long, short) + product(short, short, short)
    return 5 * replace(three + passes(short * long, 2), calls=5.0) + Work(calls=8.0)


def training_memory(parameters: float, trained: float | None = None) -> float:
    """Bytes of float32 weights, and of gradient, two moments and the best epoch's copy of those that are trained."""
    return FLOAT * (parameters + 4 * (parameters if trained is None else trained))


def ranking_work(examples: float, items: float) -> Work:
    """Ranks and first items from scores (N, I): a masked copy, two comparisons, sums, best items."""
    return passes(examples * items, 8) + Work(memory=FLOAT * 4 * min(examples * items, 8e6))
