"""What systems made of others ask of them."""

from __future__ import annotations

from tandemrec.errors import InputError
from tandemrec.recommender import Recommender, Scorer


def scorer(system: Recommender, key: str, name: str) -> Scorer:
    """The system, known to score.

    Raises:
        InputError: if it gives no scores for the whole catalogue; names the config's key and the system.
    """
    if not isinstance(system, Scorer):
        raise InputError(f"key '{key}': '{name}' does not score the whole catalogue")
    return system
