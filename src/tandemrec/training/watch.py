"""Somebody who watches a training from outside and may end it, such as a search that prunes bad trials."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

Curve = Sequence[Mapping[str, float]]
"""The rows of all validated epochs so far: epoch, loss, validation figures, seconds."""

_watcher: ContextVar[Callable[[Curve], bool] | None] = ContextVar("watcher", default=None)


@contextmanager
def watched(enough: Callable[[Curve], bool]) -> Iterator[None]:
    """Trainings inside are shown to `enough` before every epoch but the first, and end where it says so.

    It is asked again after a resume, with the same rows; it must answer the same.
    """
    token = _watcher.set(enough)
    try:
        yield
    finally:
        _watcher.reset(token)


def told_to_stop(curve: Curve) -> bool:
    """Whether the watcher, if there is one, has seen enough."""
    enough = _watcher.get()
    return enough is not None and bool(curve) and enough(curve)
