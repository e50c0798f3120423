"""The training part as it was earlier, so that models can be asked about what they have not seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tandemrec.data.examples import Examples, IntArray, Ragged
from tandemrec.data.split import Split


def earlier(split: Split, number: int, origins: int, horizon: int) -> Split:
    """A split within the training part: models trained on it have not seen what they are then asked about.

    With `origins` of them, number 0 … origins − 1, the training items of a user are cut, from the end, into one piece
    of up to `horizon` items an origin. The pieces from `number` on back to the end are left out; before them one item
    is the validation target, and what remains trains. The test part asks for the items of piece `number`, given all
    before it. Users with too few items for that many pieces get shorter ones; one with fewer than 2 + origins is not
    asked and trains with everything.

    Args:
        split: the real split; its validation and test parts are not looked at.
        number: which origin, 0 the latest.
        origins: how many there are.
        horizon: most items of a piece.
    """
    values, starts, stops = split.sequences.values, split.sequences.starts, split.sequences.stops
    size = np.minimum(horizon, np.maximum(stops - starts - 2, 0) // origins)
    end = stops - number * size
    begin = end - size
    asked = np.flatnonzero(size > 0)
    train_stop = np.where(size > 0, begin - 1, stops)
    sequences = Ragged(values, starts, train_stop)

    def questions(first: IntArray, last: IntArray) -> Examples:
        history = Ragged(values, starts[asked], first[asked])
        target = Ragged(values, first[asked], last[asked])
        return Examples(asked.astype(np.int32), history, target, history, np.zeros(len(asked), np.int64))

    known = split.train.target.stops <= train_stop[split.train.user]
    return replace(
        split,
        sequences=sequences,
        train=split.train.take(np.flatnonzero(known)),
        valid=questions(begin - 1, begin),
        test=questions(begin, end),
        protocol=f"{split.protocol}; training part as of {number + 1} × up to {horizon} items before its end",
    )
