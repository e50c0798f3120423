"""Users are independent, the questions of one user are not: what a mean over questions owes to every user."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tandemrec.data.examples import IntArray
from tandemrec.evaluation.metrics import FloatArray


def user_numbers(ids: NDArray[Any]) -> IntArray:
    """Users of questions (B,) as numbers from 0 in the order of their ids, (B,)."""
    numbers: IntArray = np.unique(ids, return_inverse=True)[1]
    return numbers


def influences(values: FloatArray, user: IntArray) -> FloatArray:
    """What every user adds to the mean over questions, shape (U,); of mean 0.

    (Σ v − n m) / n̄ with the user's n questions of value v, their mean m over all questions and n̄ questions a user: the
    linearised ratio Σ v / Σ n. With one question a user it is v − m.

    Args:
        values: one a question, (B,).
        user: of every question, (B,), every number from 0 to U − 1.
    """
    count = np.bincount(user)
    found: FloatArray = (np.bincount(user, values) - count * values.mean()) / count.mean()
    return found


def standard_error(values: FloatArray, user: NDArray[Any]) -> float:
    """Of the mean over questions (B,), where users (B,), by any ids, are drawn and questions come with them.

    s / √U over the users' influences, so √(U / (U − 1) Σ (Σ v − n m)²) / B; s / √B where every user has one question;
    0 for a single user, of whom nothing can be said about others.
    """
    own = influences(values, user_numbers(user))
    return float(own.std(ddof=1) / np.sqrt(len(own))) if len(own) > 1 else 0.0
